//! `webhook-test`: shows which pool serves a job, and tries the listener for GitHub's deliveries.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::common::{api_socket, block_on};
use crate::clock::unix_ms;
use crate::config::{self, Config, Scope, WebhookConfig};
use crate::http::client;
use crate::pool::{Fit, KnownJob, PoolLabels, PoolName, fits};
use crate::status::{JobRow, Status};
use crate::terminal;
use crate::webhook::{Sample, Secrets, send};

/// Maximum time until the daemon shows a job of which a delivery told.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// Interval between two looks at the status.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Name of the repository of a sample in an organisation.
const REPOSITORY: &str = "webhook-test";

/// A test of the hook.
#[derive(Debug)]
pub struct WebhookTest {
    /// Labels of the job; without labels and a file, a job for each pool.
    pub labels: Vec<String>,
    /// File with a recorded delivery.
    pub event: Option<PathBuf>,
    /// Repository of the job.
    pub repository: Option<String>,
    /// Tells the daemon of the job and of its end. Otherwise the daemon gets a ping alone.
    pub send: bool,
}

/// Shows which pool serves each job of a test, and sends its deliveries. Fails if no pool serves one.
pub fn webhook_test(config_path: &Path, test: &WebhookTest) -> anyhow::Result<ExitCode> {
    let config = config::load(config_path)?;
    let Some(webhook) = &config.webhook else {
        bail!(
            "this host takes no deliveries of GitHub; see [webhook] in `runner-controller docs demand`"
        );
    };
    let mut are_served = true;
    let mut samples = Vec::new();
    for sample in samples_of(&config, test)? {
        let answer = answer(&config, &sample)?;
        for line in answer.text.lines() {
            stdio::print_line(terminal::plain(line))?;
        }
        are_served &= answer.is_served;
        samples.push((sample, answer.job));
    }
    let secrets =
        Secrets::load(webhook).context("only root can read the secret, so run this as root")?;
    block_on(try_listener(webhook, &secrets))??;
    if test.send {
        let socket = api_socket(config_path);
        for (sample, job) in &samples {
            block_on(tell(webhook, &secrets, sample, job.as_ref(), &socket))??;
        }
    } else {
        stdio::print_line(
            "dry run: the daemon got a ping and no job; --send tells it of the job and of its end",
        )?;
    }
    Ok(if are_served {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns the samples of a test.
fn samples_of(config: &Config, test: &WebhookTest) -> anyhow::Result<Vec<Sample>> {
    if let Some(file) = &test.event {
        let recorded = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the delivery {}", file.display()))?;
        let sample = Sample::recorded(&recorded, &test.labels, rand::random());
        let sample = sample.with_context(|| format!("cannot use the delivery {}", file.display()));
        return Ok(vec![sample?]);
    }
    let sample = |scope: &Scope, labels: &[String]| {
        let (place, enterprise) = place_of(scope);
        let repository = test.repository.as_ref().unwrap_or(&place);
        Sample::queued(repository, enterprise, labels, rand::random(), unix_ms())
    };
    if test.labels.is_empty() {
        let pools = config.pools.iter();
        let of_pool = |pool: &config::PoolConfig| {
            let scope = config.scope(&pool.scope)?;
            Some(sample(&scope.scope, &pool.labels))
        };
        return Ok(pools.filter_map(of_pool).collect());
    }
    match &config.scopes[..] {
        [only] => Ok(vec![sample(&only.scope, &test.labels)]),
        [first, ..] if test.repository.is_some() => Ok(vec![sample(&first.scope, &test.labels)]),
        _ => bail!(
            "this host has several scopes ({}); say with --repository OWNER/NAME whose job it is",
            config.scope_list()
        ),
    }
}

/// Returns a repository of a scope, and the enterprise of which GitHub tells beside it.
fn place_of(scope: &Scope) -> (String, Option<&str>) {
    match scope {
        Scope::Repository { owner, repo } => (format!("{owner}/{repo}"), None),
        Scope::Organization { org } => (format!("{org}/{REPOSITORY}"), None),
        Scope::Enterprise { enterprise } => (
            format!("{REPOSITORY}/{REPOSITORY}"),
            Some(enterprise.as_str()),
        ),
    }
}

/// Which pool serves a job, in words.
struct PoolAnswer {
    text: String,
    is_served: bool,
    /// The job as the daemon reads it; `None` if it is in no scope of this host.
    job: Option<KnownJob>,
}

/// Finds out which pool serves the job of a sample, as the daemon does.
fn answer(config: &Config, sample: &Sample) -> anyhow::Result<PoolAnswer> {
    let scopes: Vec<_> = config
        .scopes
        .iter()
        .map(config::GitHubConfig::scope_id)
        .collect();
    let job = sample.job(&scopes, unix_ms())?;
    let repository = sample.repository();
    let Some(job) = job else {
        let scopes = config.scope_list();
        return Ok(PoolAnswer {
            text: format!("a job of {repository} has no effect: this host is for {scopes}\n"),
            is_served: false,
            job: None,
        });
    };
    let pools = config.pools.iter();
    let pools: Vec<PoolLabels> = pools
        .map(|pool| PoolLabels::new(pool.name.clone(), pool.scope.clone(), &pool.labels))
        .collect();
    let fits = fits(&pools, &job);
    let labels = &job.description().labels;
    let labels = match labels.len() {
        0 => "no labels".to_owned(),
        _ => format!("the labels {}", labels.join(", ")),
    };
    let mut text = format!("a job of {repository} with {labels}:\n");
    for (pool, fit) in &fits {
        let _ = writeln!(text, "  {}", sentence(pool, fit));
    }
    Ok(PoolAnswer {
        is_served: fits.iter().any(|(_, fit)| *fit == Fit::Serves),
        text,
        job: Some(job),
    })
}

fn sentence(pool: &PoolName, fit: &Fit) -> String {
    match fit {
        Fit::Serves => format!("pool {pool} serves it"),
        Fit::Further(0) => {
            format!("pool {pool} fits, and a pool with the same labels comes first by name")
        }
        Fit::Further(count) => {
            format!("pool {pool} fits, and is not the nearest one: it has {count} further labels")
        }
        Fit::Lacks(labels) => format!("pool {pool} does not: it lacks {}", labels.join(", ")),
        Fit::OtherScope => format!("pool {pool} does not: it registers in another scope"),
        Fit::NoLabels => format!("pool {pool} does not: GitHub gives it no job without labels"),
    }
}

/// Sends a signed ping, which changes nothing.
async fn try_listener(webhook: &WebhookConfig, secrets: &Secrets) -> anyhow::Result<()> {
    let body = br#"{"zen":"webhook-test"}"#.to_vec();
    deliver(webhook, secrets, "ping", body).await?;
    stdio::print_line(format_args!(
        "the listener at {} accepts the secret",
        webhook.listen
    ))?;
    Ok(())
}

/// Tells the daemon of a job, shows what it makes of it, and ends the job.
async fn tell(
    webhook: &WebhookConfig,
    secrets: &Secrets,
    sample: &Sample,
    job: Option<&KnownJob>,
    socket: &Path,
) -> anyhow::Result<()> {
    deliver(webhook, secrets, "workflow_job", sample.body()).await?;
    let Some(job) = job else {
        return Ok(());
    };
    let shown = await_shown(socket, job.key.id).await;
    // The job must leave the queue, whatever the status shows.
    let ended = sample.ended(unix_ms());
    deliver(webhook, secrets, "workflow_job", ended.body()).await?;
    let text = match shown? {
        Some(row) => {
            let pool = row.pool.as_deref().unwrap_or("none");
            let reason = row.waits_for.map(|reason| format!(": {}", reason.clause()));
            format!(
                "the daemon had it as {} for pool {pool}{}, and took its end",
                row.stage,
                reason.unwrap_or_default()
            )
        }
        None => "the daemon took it and its end; its status, which has the oldest jobs alone, did not show it".to_owned(),
    };
    stdio::print_line(terminal::plain(&text))?;
    Ok(())
}

/// Waits until the status shows a job.
async fn await_shown(socket: &Path, id: u64) -> anyhow::Result<Option<JobRow>> {
    let end = Instant::now() + SHOWN_WITHIN;
    loop {
        let status = client::status(socket).await?;
        let row = find(&status, id);
        if row.is_some() || Instant::now() >= end {
            return Ok(row);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn find(status: &Status, id: u64) -> Option<JobRow> {
    let demand = status.demand.as_ref()?;
    [
        &demand.waiting,
        &demand.unserved,
        &demand.running,
        &demand.ended,
    ]
    .into_iter()
    .flatten()
    .find(|row| row.id == id)
    .cloned()
}

/// Sends a delivery with a new id.
async fn deliver(
    webhook: &WebhookConfig,
    secrets: &Secrets,
    event: &str,
    body: Vec<u8>,
) -> anyhow::Result<()> {
    let id = format!("webhook-test-{:016x}", rand::random::<u64>());
    let answer = send(webhook.listen, secrets, event, &id, body).await?;
    if !(200..300).contains(&answer.status) {
        bail!(
            "the listener at {} refused the delivery with {}: {}; after a change of the secret, restart runner-controller",
            webhook.listen,
            answer.status,
            terminal::plain(&answer.text)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
