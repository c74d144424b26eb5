//! `jobs`: the jobs of GitHub's queue.

use std::fmt::Write;
use std::path::Path;

use anyhow::bail;

use super::common::{api_socket, block_on};
use super::table::{lines, table};
use crate::http::client;
use crate::status::{
    DeliveryOutcome, DemandStatus, JobRow, QueueStatus, RedeliveryStatus, ScaleSetStatus, SetState,
};
use crate::terminal;
use crate::view::{job_title, span};

/// Prints the jobs as tables or as JSON.
pub fn jobs(config: &Path, json: bool) -> anyhow::Result<()> {
    let socket = api_socket(config);
    let status = block_on(client::status(&socket))??;
    let at = status.at_unix_ms;
    if json {
        let Some(demand) = &status.demand else {
            bail!(NOT_TAKEN);
        };
        let text = serde_json::to_string_pretty(demand)?;
        stdio::print_line(terminal::plain_json(&text))?;
        return Ok(());
    }
    match &terminal::plain_document(&status)?.demand {
        Some(demand) => stdio::print(render(demand, at))?,
        None => bail!(NOT_TAKEN),
    }
    Ok(())
}

const NOT_TAKEN: &str = "this host does not know the queue: it takes no deliveries of GitHub, and no pool has demand = \"queue\" or \"scale-set\"; `runner-controller docs demand` tells how";

/// Returns the last reading of GitHub's API in words.
fn reading(queue: &QueueStatus, now_unix_ms: u64) -> String {
    let scope = &queue.scope;
    let mut text = match queue.last_unix_ms {
        Some(at) => {
            let ago = span(now_unix_ms.saturating_sub(at));
            format!("jobs of {scope} read {ago} ago")
        }
        None => format!("jobs of {scope} not read so far"),
    };
    if let Some(runs) = queue.runs {
        let _ = write!(text, ", {runs} runs in the queue");
    }
    if queue.has_more_runs {
        text += " and more, which were not read";
    }
    if let Some(error) = &queue.error {
        let _ = write!(text, "; the last reading failed: {error}");
    }
    text
}

/// Returns the last look at failed deliveries in words.
fn redelivered(redelivery: &RedeliveryStatus, now_unix_ms: u64) -> String {
    let RedeliveryStatus { scope, hook, .. } = redelivery;
    let mut text = match redelivery.last_unix_ms {
        Some(at) => {
            let ago = span(now_unix_ms.saturating_sub(at));
            format!("failed deliveries of {hook} in {scope} looked for {ago} ago")
        }
        None => format!("failed deliveries of {hook} in {scope} not looked for so far"),
    };
    if redelivery.repeated > 0 {
        let _ = write!(text, ", asked for {} once more", redelivery.repeated);
    }
    if redelivery.has_more {
        text += ", and there are more";
    }
    if let Some(error) = &redelivery.error {
        let _ = write!(text, "; the last look failed: {error}");
    }
    text
}

/// Returns the state of a scale set in words.
fn session(set: &ScaleSetStatus, now_unix_ms: u64) -> String {
    let ScaleSetStatus { pool, name, .. } = set;
    let state = match set.state {
        SetState::Connecting => "connecting",
        SetState::Occupied => "waiting for the end of an earlier session",
        SetState::Listening => "listening",
        SetState::Failing => "failing",
    };
    let mut text = format!("scale set {name} of pool {pool}: {state}");
    if let Some(at) = set.last_unix_ms {
        let ago = span(now_unix_ms.saturating_sub(at));
        let _ = write!(text, ", last answer {ago} ago");
    }
    if let (Some(assigned), Some(capacity)) = (set.assigned, set.capacity) {
        let _ = write!(text, ", {assigned} jobs assigned, room for {capacity}");
    }
    if let Some(error) = &set.error {
        let _ = write!(text, "; the last call failed: {error}");
    }
    text
}

/// Returns the jobs as tables.
pub(super) fn render(demand: &DemandStatus, now_unix_ms: u64) -> String {
    let mut text = String::new();
    if let Some(webhook) = &demand.webhook {
        let refused = [DeliveryOutcome::WrongSignature, DeliveryOutcome::Unsigned];
        let refused = refused.map(|outcome| webhook.deliveries.get(&outcome).copied());
        let refused: u64 = refused.into_iter().flatten().sum();
        let last = match webhook.last_unix_ms {
            Some(at) => format!("last delivery {} ago", span(now_unix_ms.saturating_sub(at))),
            None if refused > 0 => "no delivery was accepted since the daemon started".to_owned(),
            None => "no delivery since the daemon started".to_owned(),
        };
        text += &last;
        if refused > 0 {
            let _ = write!(text, "; {refused} were refused because of their signature");
        }
        text.push('\n');
    }
    for queue in &demand.queues {
        let _ = writeln!(text, "{}", reading(queue, now_unix_ms));
    }
    for redelivery in &demand.redeliveries {
        let _ = writeln!(text, "{}", redelivered(redelivery, now_unix_ms));
    }
    for set in &demand.scale_sets {
        let _ = writeln!(text, "{}", session(set, now_unix_ms));
    }
    if demand.held_count > 0 {
        let _ = writeln!(text, "waiting for an approval: {}", demand.held_count);
    }
    let since = |at: u64| span(now_unix_ms.saturating_sub(at));
    let waited = |job: &JobRow| {
        let until = job.started_unix_ms.or(job.ended_unix_ms);
        span(
            until
                .unwrap_or(now_unix_ms)
                .saturating_sub(job.queued_unix_ms),
        )
    };
    let mut waiting = table(["WAITING", "FOR", "POOL", "LABELS", "WHY", "JOB"]);
    for job in demand.waiting.iter().chain(&demand.unserved) {
        waiting.add_row([
            job.id.to_string(),
            since(job.queued_unix_ms),
            job.pool.clone().unwrap_or_else(|| "none".to_owned()),
            job.labels.join(", "),
            job.waits_for
                .map_or("", |reason| reason.clause())
                .to_owned(),
            job_title(job),
        ]);
    }
    let mut running = table(["RUNNING", "FOR", "WAITED", "RUNNER", "JOB"]);
    for job in &demand.running {
        running.add_row([
            job.id.to_string(),
            job.started_unix_ms.map(since).unwrap_or_default(),
            waited(job),
            machine(job),
            job_title(job),
        ]);
    }
    let mut ended = table(["ENDED", "AGO", "WAITED", "RUNNER", "CONCLUSION", "JOB"]);
    for job in &demand.ended {
        ended.add_row([
            job.id.to_string(),
            job.ended_unix_ms.map(since).unwrap_or_default(),
            waited(job),
            machine(job),
            job.conclusion.map(|c| c.to_string()).unwrap_or_default(),
            job_title(job),
        ]);
    }
    for rows in [waiting, running, ended] {
        if rows.row_count() > 0 {
            let _ = write!(text, "\n{}", lines(&rows));
        }
    }
    text
}

fn machine(job: &JobRow) -> String {
    job.machine
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Conclusion, JobStage, WaitReason, WebhookStatus};

    fn job(id: u64, stage: JobStage) -> JobRow {
        JobRow {
            id,
            scope: "acme at https://api.github.com".into(),
            repository: "acme/app".into(),
            run_id: 7,
            attempt: 1,
            workflow: "CI".into(),
            name: "build".into(),
            labels: vec!["self-hosted".into(), "linux".into()],
            stage,
            queued_unix_ms: 10_000,
            started_unix_ms: None,
            ended_unix_ms: None,
            conclusion: None,
            pool: Some("ci".into()),
            machine: None,
            waits_for: None,
        }
    }

    #[test]
    fn jobs_are_shown_with_their_wait_and_its_reason() {
        let demand = DemandStatus {
            webhook: Some(WebhookStatus {
                last_unix_ms: Some(68_000),
                ..WebhookStatus::default()
            }),
            queues: vec![QueueStatus {
                scope: "acme/app at https://api.github.com".into(),
                last_unix_ms: Some(10_000),
                runs: Some(100),
                has_more_runs: true,
                error: Some("list runs: Server Error".into()),
            }],
            waiting: vec![JobRow {
                waits_for: Some(WaitReason::PoolFull),
                ..job(1, JobStage::Queued)
            }],
            unserved: vec![JobRow {
                pool: None,
                labels: vec!["gpu".into()],
                waits_for: Some(WaitReason::NoPool),
                ..job(2, JobStage::Queued)
            }],
            running: vec![JobRow {
                started_unix_ms: Some(15_000),
                machine: Some("ci-3".parse().unwrap()),
                ..job(3, JobStage::Running)
            }],
            ended: vec![JobRow {
                ended_unix_ms: Some(20_000),
                conclusion: Some(Conclusion::Cancelled),
                ..job(4, JobStage::Ended)
            }],
            ..DemandStatus::default()
        };
        assert_eq!(
            render(&demand, 70_000),
            "last delivery 2.0 s ago\n\
             jobs of acme/app at https://api.github.com read 1 m ago, 100 runs in the queue and more, which were not read; the last reading failed: list runs: Server Error\n\
             \n\
             WAITING  FOR  POOL  LABELS              WHY                                      JOB\n\
             1        1 m  ci    self-hosted, linux  every slot of the pool is in use         acme/app: CI / build\n\
             2        1 m  none  gpu                 no pool of this host has all its labels  acme/app: CI / build\n\
             \n\
             RUNNING  FOR   WAITED  RUNNER  JOB\n\
             3        55 s  5.0 s   ci-3    acme/app: CI / build\n\
             \n\
             ENDED  AGO   WAITED  RUNNER  CONCLUSION  JOB\n\
             4      50 s  10 s            cancelled   acme/app: CI / build\n"
        );
    }
}
