//! `cleanup-github-runners`: deletes the runners that this host left at GitHub.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::common::{block_on, confirm, forbid_core_dumps};
use super::table::{lines, table};
use crate::config::{self, Config, GitHubConfig};
use crate::github::{GitHub, Login, cleanup_candidates, online_strangers};
use crate::http::client;
use crate::pool::{Deleted, ListedRunner};
use crate::world::Registry;

/// Pause between two deletions. GitHub asks for a second between bulk changes (best practices for
/// the REST API).
const PAUSE: Duration = Duration::from_secs(1);

/// Interval between two lists while runners of this host are still online.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum time for which GitHub shows a runner online after its container was killed: it hears of it
/// when the runner's poll of 50 s is over, and a list may be as late.
const SHOWN_ONLINE: Duration = Duration::from_mins(2);

/// Returns the listed runners that may be deleted. `owned` holds the names of runners that have a
/// container, if they are known.
fn candidates(
    config: &Config,
    list: &[ListedRunner],
    owned: Option<&BTreeSet<String>>,
) -> Vec<ListedRunner> {
    let none = BTreeSet::new();
    cleanup_candidates(&config.host, list, owned.unwrap_or(&none))
}

/// Says which online runners are kept because no container here owns them.
fn report_strangers(config: &Config, list: &[ListedRunner], owned: &BTreeSet<String>) {
    for runner in online_strangers(&config.host, list, owned) {
        stdio::error(format_args!(
            "kept {}: it is online and has no container here; if it stays online, another host uses the name {}",
            runner.name, config.host
        ));
    }
}

/// Lists the stale runners of each scope, or of one, asks for confirmation and deletes them.
pub fn cleanup_github_runners(
    config_path: &Path,
    yes: bool,
    scope: Option<&str>,
) -> anyhow::Result<()> {
    let mut config = config::load(config_path)?;
    if let Some(name) = scope {
        config.scopes = vec![named(&config, name)?];
    }
    block_on(each_scope(&config, async |scope| {
        cleanup_scope(&config, scope, yes).await
    }))?
}

/// Returns the scope with a name.
fn named(config: &Config, name: &str) -> anyhow::Result<GitHubConfig> {
    let names = config.scopes.iter().filter_map(|scope| {
        let name = scope.name.as_ref()?;
        Some((name.to_string(), scope))
    });
    let names: Vec<(String, &GitHubConfig)> = names.collect();
    let found = names.iter().find(|(known, _)| known == name);
    if let Some((_, scope)) = found {
        return Ok((*scope).clone());
    }
    let names: Vec<String> = names.into_iter().map(|(name, _)| name).collect();
    if names.is_empty() {
        bail!("cannot find scope {name}: the configuration has [github], whose scope has no name");
    }
    bail!(
        "cannot find scope {name}: the configuration has {}",
        names.join(", ")
    );
}

/// Does the same in every scope. A failure in one is reported and does not stop the others.
async fn each_scope(
    config: &Config,
    act: impl AsyncFn(&GitHubConfig) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for scope in &config.scopes {
        let Err(error) = act(scope).await else {
            continue;
        };
        if config.scopes.len() == 1 {
            return Err(error);
        }
        stdio::error(format_args!("{}: {error:#}", scope.scope));
        failed.push(scope.scope.to_string());
    }
    if !failed.is_empty() {
        bail!("cannot clean up {}; run this again", failed.join(", "));
    }
    Ok(())
}

async fn cleanup_scope(config: &Config, scope: &GitHubConfig, yes: bool) -> anyhow::Result<()> {
    let github = connect(scope)?;
    let list = async { Ok(github.list().await?) };
    let (list, owned) = survey(list, || runners_with_container(config)).await?;
    if let Some(owned) = &owned {
        report_strangers(config, &list, owned);
    }
    let stale = candidates(config, &list, owned.as_ref());
    if stale.is_empty() {
        stdio::progress(format_args!(
            "{}: nothing to delete; none of {} runners is stale and of host {}",
            scope.scope,
            list.len(),
            config.host,
        ));
        return Ok(());
    }
    let mut rows = table(["ID", "STATUS", "RUNNER"]);
    for runner in &stale {
        let status = if runner.online { "online" } else { "offline" };
        rows.add_row([&runner.id.to_string(), status, &runner.name]);
    }
    stdio::progress(lines(&rows).trim_end());
    let question = format!("Delete these {} runners of {}?", stale.len(), scope.scope);
    if !confirm(&question, yes)? {
        stdio::progress("Nothing was deleted.");
        return Ok(());
    }
    delete(&github, &stale).await
}

/// Returns GitHub's list, and what `owned` returns afterwards.
///
/// In the other order, a runner that is registered in between would be in the list and not be owned. Names are
/// never used again, so a runner of the list cannot get a container later.
async fn survey<O>(
    list: impl Future<Output = anyhow::Result<Vec<ListedRunner>>>,
    owned: impl AsyncFnOnce() -> anyhow::Result<O>,
) -> anyhow::Result<(Vec<ListedRunner>, O)> {
    let list = list.await?;
    Ok((list, owned().await?))
}

fn connect(scope: &GitHubConfig) -> anyhow::Result<GitHub> {
    forbid_core_dumps()?;
    let login = Login::load(scope)?;
    GitHub::new(scope, login).context("cannot set up the GitHub client")
}

/// Asks the daemon for the names of runners that have a container. Without a daemon they are unknown.
async fn runners_with_container(config: &Config) -> anyhow::Result<Option<BTreeSet<String>>> {
    match client::status(&config.api_socket()).await {
        Ok(status) => {
            let runners = status.pools.into_iter().flat_map(|pool| pool.runners);
            Ok(Some(runners.filter_map(|runner| runner.runner).collect()))
        }
        Err(error) if error.is_absent() => {
            stdio::progress("The daemon is not running, so online runners are kept.");
            Ok(None)
        }
        Err(error) => Err(error)
            .context("cannot tell which runners have a container, so no runner was deleted"),
    }
}

async fn delete(github: &GitHub, stale: &[ListedRunner]) -> anyhow::Result<()> {
    let mut failed = 0;
    for (index, runner) in stale.iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match github.delete(runner.id).await {
            Ok(Deleted::Gone) => stdio::progress(format_args!("deleted {}", runner.name)),
            Ok(Deleted::Busy) => {
                stdio::progress(format_args!("kept {}: it has got a job", runner.name));
            }
            Err(error) => {
                stdio::error(format_args!("cannot delete {}: {error}", runner.name));
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!(
            "cannot delete {failed} of {} runners; run this again",
            stale.len()
        );
    }
    Ok(())
}

/// Deletes every runner of this host that has no job, when no container of this host is left.
///
/// GitHub shows a runner online for a while after its container was killed. One that stays online is
/// another host's, and is kept.
pub(super) async fn delete_all(config: &Config) -> anyhow::Result<()> {
    each_scope(config, async |scope| delete_all_of(config, scope).await).await
}

async fn delete_all_of(config: &Config, scope: &GitHubConfig) -> anyhow::Result<()> {
    let github = connect(scope)?;
    let none = BTreeSet::new();
    let end = Instant::now() + SHOWN_ONLINE;
    let mut list = github.list().await?;
    let is_waiting = |list: &[ListedRunner]| {
        let online = online_strangers(&config.host, list, &BTreeSet::new());
        // One with a job goes when GitHub fails the job.
        online.iter().any(|runner| !runner.busy)
    };
    while is_waiting(&list) && Instant::now() < end {
        tokio::time::sleep(POLL_INTERVAL).await;
        list = github.list().await?;
    }
    report_strangers(config, &list, &none);
    let stale = candidates(config, &list, Some(&none));
    delete(&github, &stale).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::RunnerId;

    fn config() -> Config {
        let text = r#"
host = "fuzz"
[github]
url = "https://github.com/acme/widgets"
token_file = "/t"
[network]
block = "10.200.0.0/24"
resolvers = ["9.9.9.9"]
[pools.ci]
labels = ["ci"]
max_runners = 2
image = { kind = "directory", path = "/i" }
"#;
        crate::config::parse(Path::new("test"), text).unwrap()
    }

    fn runner(id: u64, name: &str, online: bool, busy: bool) -> ListedRunner {
        ListedRunner {
            id: RunnerId(id),
            name: name.into(),
            online,
            busy,
            version: None,
        }
    }

    #[tokio::test]
    async fn a_failure_in_one_scope_does_not_stop_the_clean_up_of_the_next() {
        let mut config = config();
        let mut second = config.scopes[0].clone();
        second.scope = crate::config::Scope::parse("acme/gadgets");
        second.name = Some("gadgets".parse().unwrap());
        config.scopes.push(second);
        let asked = std::cell::RefCell::new(Vec::new());
        let result = each_scope(&config, async |scope| {
            asked.borrow_mut().push(scope.scope.to_string());
            anyhow::ensure!(asked.borrow().len() > 1, "401");
            Ok(())
        })
        .await;
        assert_eq!(*asked.borrow(), ["acme/widgets", "acme/gadgets"]);
        let error = result.unwrap_err().to_string();
        assert_eq!(error, "cannot clean up acme/widgets; run this again");
        let found = named(&config, "gadgets").unwrap();
        assert_eq!(found.scope.to_string(), "acme/gadgets");
        let error = named(&config, "widgets").unwrap_err().to_string();
        assert!(error.ends_with("the configuration has gadgets"), "{error}");
    }

    #[tokio::test]
    async fn a_runner_that_is_registered_during_the_survey_is_kept() {
        let registered = std::cell::RefCell::new(BTreeSet::new());
        let list = async {
            // The daemon registers it while the list is on its way.
            registered
                .borrow_mut()
                .insert("fuzz-ci-1-00000001".to_owned());
            Ok(vec![runner(1, "fuzz-ci-1-00000001", true, false)])
        };
        let owned = async || Ok(Some(registered.borrow().clone()));
        let (list, owned) = survey(list, owned).await.unwrap();
        assert_eq!(candidates(&config(), &list, owned.as_ref()), []);
    }

    #[test]
    fn only_runners_of_this_host_without_a_job_or_container_are_deleted() {
        let list = [
            runner(1, "fuzz-ci-1-00000001", false, false),
            runner(2, "fuzz-ci-1-00000002", false, true),
            runner(3, "fuzz-a-ci-1-00000003", false, false),
            runner(4, "fuzz-ci-1-00000004", true, false),
            runner(5, "fuzz-ci-2-00000005", false, false),
            runner(6, "laptop", false, false),
        ];
        let ids = |owned: Option<&BTreeSet<String>>| -> Vec<u64> {
            candidates(&config(), &list, owned)
                .iter()
                .map(|runner| runner.id.0)
                .collect()
        };
        assert_eq!(ids(None), [1, 5], "an online runner is kept");
        let owned = BTreeSet::from(["fuzz-ci-2-00000005".to_owned()]);
        assert_eq!(
            ids(Some(&owned)),
            [1],
            "an offline runner with a container is kept"
        );
    }
}
