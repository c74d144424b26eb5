//! GitHub: credentials and their permissions, clock, certificates, runner groups, and other runners.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::finding::Finding;
use crate::config::{Config, GitHubConfig, LoginConfig, PoolConfig, Scope};
use crate::github::{GitHub, LabelledRunner, Login, cleanup_candidates, online_strangers};
use crate::pool::{
    GroupOwner, GroupProblem, ListedRunner, RunnerGroup, RunnerName, group_problems,
};
use crate::world::{Registry, RegistryError, RegistryErrorKind, chain};

/// Lead of a clock from which it is told.
const CLOCK_TOLD_MS: u64 = 10_000;
/// Lead of a clock from which GitHub refuses the tokens of an App (`iat` may be a minute in the past).
const CLOCK_WRONG_MS: u64 = 60_000;
/// Maximum number of names in a text.
const SHOWN: usize = 3;

/// Answers of GitHub for one scope.
#[derive(Debug)]
pub(super) struct ScopeFacts<'a> {
    config: &'a GitHubConfig,
    list: Result<Vec<LabelledRunner>, RegistryError>,
    write: Result<(), RegistryError>,
    /// Groups of an organisation or enterprise.
    groups: Option<(GroupOwner, Result<Vec<RunnerGroup>, RegistryError>)>,
    clock_ahead_ms: Option<i64>,
}

/// Runners with a container here, as far as they are known.
pub(super) type Owned = Option<BTreeSet<String>>;

/// Asks GitHub about each scope. Without credentials or certificates, the finding says so.
pub(super) async fn ask_all(config: &Config) -> Vec<Result<ScopeFacts<'_>, Finding>> {
    join_all(config.scopes.iter().map(ask)).await
}

/// Judges the answers. `owned` is newer than them, because a runner may have been registered meanwhile.
pub(super) fn judge_all(
    config: &Config,
    all: Vec<Result<ScopeFacts<'_>, Finding>>,
    owned: &Owned,
) -> Vec<Finding> {
    let judged = all.into_iter().flat_map(|facts| match facts {
        Ok(facts) => judge(config, &facts, owned),
        Err(finding) => vec![finding],
    });
    judged.chain(pool_labels(config)).collect()
}

async fn ask(config: &GitHubConfig) -> Result<ScopeFacts<'_>, Finding> {
    // The check of the configuration's files has the cause.
    let login =
        Login::load(config).map_err(|error| Finding::skipped("credentials", chain(&error)))?;
    let github = GitHub::new(config, login).map_err(|error| {
        Finding::problem(
            "certificates",
            chain(&error),
            "install ca-certificates, or name a file with the authorities in ca_file",
        )
    })?;
    let list = github.list_with_labels().await;
    let owner = match config.scope {
        Scope::Repository { .. } => None,
        Scope::Organization { .. } => Some(GroupOwner::Organization),
        Scope::Enterprise { .. } => Some(GroupOwner::Enterprise),
    };
    let (write, groups) = if let Err(error) = &list {
        // The same answer again would be no news.
        (Err(error.clone()), None)
    } else {
        let groups = match owner {
            Some(owner) => Some((owner, github.groups().await)),
            None => None,
        };
        (github.try_write().await, groups)
    };
    Ok(ScopeFacts {
        config,
        list,
        write,
        groups,
        clock_ahead_ms: github.clock_ahead_ms(),
    })
}

/// Judges the answers for one scope.
fn judge(config: &Config, facts: &ScopeFacts<'_>, owned: &Owned) -> Vec<Finding> {
    let scope = &facts.config.scope;
    let list = match (&facts.list, &facts.write) {
        (Err(error), _) => return vec![refusal(facts.config, "list the runners", error)],
        (Ok(list), _) => list,
    };
    let mut findings = vec![match &facts.write {
        Ok(()) => Finding::good(
            "credentials",
            format!("GitHub lets them list and delete runners of {scope}"),
        ),
        Err(error) => refusal(facts.config, "change the runners", error),
    }];
    findings.extend(facts.clock_ahead_ms.map(|ahead| clock(facts.config, ahead)));
    let pools = config.pools.iter();
    let pools = pools.filter(|pool| pool.scope == facts.config.scope_id());
    let pools: Vec<&PoolConfig> = pools.collect();
    if let Some((owner, groups)) = &facts.groups {
        findings.extend(group_findings(&pools, *owner, groups));
    }
    findings.extend(other_runners(config, &pools, list));
    let list: Vec<ListedRunner> = list.iter().map(|it| it.runner.clone()).collect();
    findings.extend(registrations(config, scope, &list, owned));
    findings
}

fn refusal(config: &GitHubConfig, what: &str, error: &RegistryError) -> Finding {
    let area = match error.kind {
        RegistryErrorKind::Unreachable | RegistryErrorKind::Limited | RegistryErrorKind::Server => {
            "GitHub"
        }
        RegistryErrorKind::Unauthorized
        | RegistryErrorKind::Forbidden
        | RegistryErrorKind::NotFound
        | RegistryErrorKind::NameTaken
        | RegistryErrorKind::Invalid => "credentials",
    };
    let text = format!("cannot {what} of {}: {}", config.scope, error.message);
    let hint = match (&error.advice, &config.proxy) {
        (Some(advice), _) => advice.clone(),
        (None, Some(_)) => format!(
            "check {}, this host's network and https://www.githubstatus.com",
            config.key("proxy")
        ),
        (None, None) => {
            "check this host's network and DNS, and https://www.githubstatus.com".to_owned()
        }
    };
    Finding::problem(area, text, hint)
}

fn clock(config: &GitHubConfig, ahead_ms: i64) -> Finding {
    let apart = ahead_ms.unsigned_abs();
    let direction = if ahead_ms > 0 { "behind" } else { "ahead of" };
    let text = format!(
        "this host's clock is {} s {direction} GitHub's",
        apart / 1000
    );
    let hint = "start a time service: `timedatectl set-ntp true`";
    let is_app = matches!(config.login, LoginConfig::App { .. });
    if apart >= CLOCK_WRONG_MS && is_app {
        let text = format!("{text}, so GitHub refuses the App's tokens");
        return Finding::problem("clock", text, hint);
    }
    if apart >= CLOCK_TOLD_MS {
        return Finding::warning("clock", text, hint);
    }
    Finding::good("clock", "agrees with GitHub's")
}

fn group_findings(
    pools: &[&PoolConfig],
    owner: GroupOwner,
    groups: &Result<Vec<RunnerGroup>, RegistryError>,
) -> Vec<Finding> {
    let area = "runner groups";
    let groups = match groups {
        Ok(groups) => groups,
        Err(error) => {
            return vec![Finding::skipped(area, format!("cannot list them: {error}"))];
        }
    };
    let mut findings = Vec::new();
    for pool in pools {
        let group = &pool.runner_group;
        let problems = group_problems(groups, group, owner);
        if problems.is_empty() {
            let text = format!("pool {}: {group:?} takes every job", pool.name);
            findings.push(Finding::good(area, text));
        }
        findings.extend(problems.iter().map(|problem| group_finding(pool, problem)));
    }
    findings
}

fn group_finding(pool: &PoolConfig, problem: &GroupProblem) -> Finding {
    let text = format!(
        "pool {}: runner group {:?} {problem}",
        pool.name, pool.runner_group
    );
    if problem.stops_the_pool() {
        // The text has the remedy, as in the status.
        Finding::problem("runner groups", text, "").without_hint()
    } else {
        Finding::note("runner groups", text)
    }
}

/// Returns true if a runner with the labels of `runner` gets every job that names only labels of `pool`.
fn has_all(runner: &[String], pool: &[String]) -> bool {
    let has = |label: &String| runner.iter().any(|own| own.eq_ignore_ascii_case(label));
    pool.iter().all(has)
}

/// Returns the pools whose jobs other programs' runners take.
fn other_runners(config: &Config, pools: &[&PoolConfig], list: &[LabelledRunner]) -> Vec<Finding> {
    let others: Vec<&LabelledRunner> = list
        .iter()
        .filter(|it| RunnerName::of_any_host(&it.runner.name).is_none())
        .collect();
    let findings = pools.iter().filter_map(|pool| {
        let takers = others.iter().filter(|it| has_all(&it.labels, &pool.labels));
        let names: Vec<&str> = takers.map(|it| it.runner.name.as_str()).collect();
        (!names.is_empty()).then(|| {
            Finding::warning(
                "labels",
                format!(
                    "runners outside of {} have all labels of pool {}: {}, so its jobs may run there",
                    config.host,
                    pool.name,
                    shown(&names)
                ),
                "give the pool a label that they do not have, or remove them at GitHub",
            )
        })
    });
    findings.collect()
}

/// Compares the pools' labels with each other.
fn pool_labels(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, one) in config.pools.iter().enumerate() {
        for other in config.pools.iter().skip(index + 1) {
            if one.scope != other.scope {
                continue;
            }
            let (in_other, in_one) = (
                has_all(&other.labels, &one.labels),
                has_all(&one.labels, &other.labels),
            );
            let (fewer, more) = match (in_other, in_one) {
                (true, true) => {
                    findings.push(Finding::warning(
                        "labels",
                        format!(
                            "pools {} and {} have the same labels, so GitHub gives each job to either of them",
                            one.name, other.name
                        ),
                        "give one of them a further label, which its jobs name in runs-on",
                    ));
                    continue;
                }
                (true, false) => (one, other),
                (false, true) => (other, one),
                (false, false) => continue,
            };
            findings.push(Finding::note(
                "labels",
                format!(
                    "pool {} has all labels of pool {}, so it takes jobs of both",
                    more.name, fewer.name
                ),
            ));
        }
    }
    findings
}

/// Finds registrations of this host's name without a container here.
fn registrations(
    config: &Config,
    scope: &Scope,
    list: &[ListedRunner],
    owned: &Owned,
) -> Vec<Finding> {
    let area = "registrations";
    let Some(owned) = owned else {
        let reason = "containers run without a daemon, which alone knows their registrations";
        return vec![Finding::skipped(area, reason)];
    };
    let names = |runners: Vec<ListedRunner>| -> Vec<String> {
        runners.into_iter().map(|runner| runner.name).collect()
    };
    let strangers = names(online_strangers(&config.host, list, owned));
    let stale = names(cleanup_candidates(&config.host, list, owned));
    if !strangers.is_empty() {
        return vec![Finding::problem(
            area,
            format!(
                "runners with the name of host {} are online at {scope} and have no container here: {}",
                config.host,
                shown(&strangers)
            ),
            "give each host its own `host`; a container that ended within the last two minutes needs nothing",
        )];
    }
    if !stale.is_empty() {
        return vec![Finding::warning(
            area,
            format!(
                "offline runners of this host are left at {scope}: {}",
                shown(&stale)
            ),
            "run `cleanup-github-runners`; a running daemon deletes those that it sees offline in two lists",
        )];
    }
    vec![Finding::good(
        area,
        format!("none at {scope} without a container"),
    )]
}

/// Returns the first names, and the number of the others.
fn shown(names: &[impl AsRef<str>]) -> String {
    let first: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let first = first.join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
