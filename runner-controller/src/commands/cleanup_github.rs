//! `cleanup-github-runners`: deletes what this host left at GitHub.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{block_on, confirm, load};
use crate::config::Config;
use crate::github::{GitHub, Login, cleanup_candidates};
use crate::http::client;
use crate::pool::{Deleted, ListedRunner};
use crate::world::Registry;

/// GitHub asks for a second between changes in bulk (its best practices for the REST API).
const BETWEEN: Duration = Duration::from_secs(1);

/// What may be deleted of a list. Where it is not known who lives (`owned` is `None`), a runner that
/// is online may be alive and is left alone.
fn candidates(
    config: &Config,
    list: &[ListedRunner],
    owned: Option<&BTreeSet<String>>,
) -> Vec<ListedRunner> {
    let Some(owned) = owned else {
        let offline: Vec<ListedRunner> = list.iter().filter(|r| !r.online).cloned().collect();
        return cleanup_candidates(&config.host, &offline, &BTreeSet::new());
    };
    cleanup_candidates(&config.host, list, owned)
}

/// Lists, asks, deletes.
pub fn cleanup_github_runners(config_path: &Path, yes: bool) -> anyhow::Result<()> {
    let config = load(config_path)?;
    block_on(async {
        let login = Login::load(&config.github).context("GitHub")?;
        let github = GitHub::new(&config.github, login).context("a client for GitHub")?;
        let owned = match client::status(&config.api_socket()).await {
            Ok(status) => {
                let runners = status.pools.into_iter().flat_map(|pool| pool.runners);
                Some(
                    runners
                        .filter_map(|runner| runner.runner)
                        .collect::<BTreeSet<_>>(),
                )
            }
            Err(error) if error.is_absent() => {
                stdio::progress(
                    "The daemon is not running, so runners that are online are left alone.",
                );
                None
            }
            Err(error) => {
                return Err(error).context("which runners live is not known, so none is deleted");
            }
        };
        let list = github.list().await?;
        let stale = candidates(&config, &list, owned.as_ref());
        if stale.is_empty() {
            stdio::progress(format_args!(
                "{}: nothing of host {} to delete among {} runners",
                config.github.scope,
                config.host,
                list.len()
            ));
            return Ok(());
        }
        for runner in &stale {
            stdio::progress(format_args!(
                "{:>12}  {:<7}  {}",
                runner.id,
                if runner.online { "online" } else { "offline" },
                runner.name
            ));
        }
        if !confirm(
            &format!(
                "Delete these {} runners of {}?",
                stale.len(),
                config.github.scope
            ),
            yes,
        )? {
            stdio::progress("Nothing was deleted.");
            return Ok(());
        }
        delete(&github, &stale).await
    })?
}

async fn delete(github: &GitHub, stale: &[ListedRunner]) -> anyhow::Result<()> {
    let mut failed = 0;
    for (index, runner) in stale.iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        match github.delete(runner.id).await {
            Ok(Deleted::Gone) => stdio::progress(format_args!("deleted {}", runner.name)),
            Ok(Deleted::Busy) => {
                stdio::progress(format_args!("kept {}: it just got a job", runner.name));
            }
            Err(error) => {
                stdio::error(format_args!("could not delete {}: {error}", runner.name));
                failed += 1;
            }
        }
    }
    if failed > 0 {
        bail!(
            "{failed} of {} runners could not be deleted; run this again",
            stale.len()
        );
    }
    Ok(())
}

/// Deletes every registration of this host that has no job, for when no container of it is left.
pub(super) async fn delete_all(config: &Config) -> anyhow::Result<()> {
    let login = Login::load(&config.github).context("GitHub")?;
    let github = GitHub::new(&config.github, login).context("a client for GitHub")?;
    let list = github.list().await?;
    let nobody = BTreeSet::new();
    delete(&github, &candidates(config, &list, Some(&nobody))).await
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
        }
    }

    #[test]
    fn only_this_hosts_idle_and_dead_runners_are_deleted() {
        let list = [
            runner(1, "fuzz-ci-1-00000001", false, false),
            runner(2, "fuzz-ci-1-00000002", false, true),
            runner(3, "fuzz-a-ci-1-00000003", false, false),
            runner(4, "fuzz-ci-1-00000004", true, false),
            runner(5, "fuzz-ci-2-00000005", false, false),
            runner(6, "somebody", false, false),
        ];
        let ids = |owned: Option<&BTreeSet<String>>| -> Vec<u64> {
            candidates(&config(), &list, owned)
                .iter()
                .map(|runner| runner.id.0)
                .collect()
        };
        assert_eq!(
            ids(None),
            [1, 5],
            "nobody to ask: what is online may be alive"
        );
        let owned = BTreeSet::from(["fuzz-ci-2-00000005".to_owned()]);
        assert_eq!(
            ids(Some(&owned)),
            [1, 4],
            "a living container's is kept though offline"
        );
    }
}
