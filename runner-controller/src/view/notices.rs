//! Notices: everything beside tables that a reader must know or do.

use super::budget::budget_sentence;
use super::cells::answered;
use super::health::NOT_READY;
use super::notice::{Notice, Weight};
use super::{demand, health, span, versions};
use crate::status::{
    BackoffStatus, FailureKind, FormerScopeStatus, GateStatus, PoolStatus, Status,
};

/// Returns the notices of a status, in the order in which a reader needs them.
#[must_use]
pub fn notices(status: &Status) -> Vec<Notice> {
    let problems = health(status).reasons;
    let once = problems.iter().enumerate().map(|(at, problem)| {
        let text = match problem.split_once(NOT_READY) {
            Some((pool, reason)) if problems[..at].iter().any(|told| told.ends_with(reason)) => {
                format!("{pool}{NOT_READY}")
            }
            Some(_) | None => problem.clone(),
        };
        Notice::problem(text)
    });
    let mut notices: Vec<Notice> = once.collect();
    notices.extend(status.closed.iter().map(|reason| closed(reason, &problems)));
    notices.extend(status.gates.iter().map(gate));
    for pool in &status.pools {
        let backoffs = pool.backoffs.iter();
        notices.extend(backoffs.map(|backoff| backoff_notice(pool, backoff, &problems)));
    }
    notices.extend(demand::wrong_secret(status).map(Notice::problem));
    notices.extend(status.pools.iter().flat_map(group));
    notices.extend(versions(status));
    if let [scope] = &*status.scopes() {
        let answered = answered(scope, status.at_unix_ms);
        notices.push(Notice::fact(format!("GitHub {answered}")));
    }
    notices.extend(budget_sentence(status).map(Notice::fact));
    notices.extend(demand::sentences(status).into_iter().map(Notice::fact));
    let notes = status.notes.iter();
    notices.extend(notes.map(|note| Notice::fact(format!("note: {note}"))));
    notices.extend(traces(status).map(Notice::problem));
    let strays = status.strays.iter();
    notices.extend(
        strays
            .map(|stray| Notice::fact(format!("deleting runner {stray}, which has no container"))),
    );
    notices.extend(status.foreign.iter().map(|runner| {
        Notice::problem(format!(
            "another host uses the name {}: {runner} is online and has no container here",
            status.host
        ))
    }));
    notices.extend(status.former.iter().flat_map(former_scope));
    notices
}

/// Tells why no runner starts. A problem that is told already is not told again.
fn closed(reason: &str, problems: &[String]) -> Notice {
    let text = match reason.split_once(':') {
        Some((part, _)) if problems.iter().any(|problem| problem == reason) => {
            format!("no new runners until the problem of {part} is solved")
        }
        Some(_) | None => format!("no new runners: {reason}"),
    };
    Notice {
        weight: Weight::Closed,
        text,
    }
}

/// Tells that a pool waits after failures. One failure whose wait is over was perhaps the only one, and does not count as
/// a problem.
fn backoff_notice(pool: &PoolStatus, backoff: &BackoffStatus, problems: &[String]) -> Notice {
    let is_told = |problem: &String| problem.ends_with(&backoff.reason);
    let reason = if problems.iter().any(is_told) {
        String::new()
    } else {
        format!(": {}", backoff.reason)
    };
    let (name, clause) = (&pool.name, backoff.failure.clause());
    if backoff.failures == 1 && backoff.retry_in_ms == 0 {
        return Notice::fact(format!("pool {name}: {clause} once{reason}"));
    }
    Notice::problem(format!(
        "pool {name}: {clause} {}, next try in {}{reason}; run `runner-controller docs {}`",
        times(backoff.failures),
        span(backoff.retry_in_ms),
        runbook(backoff.failure)
    ))
}

/// Returns the page that tells what to do after failures of a kind.
fn runbook(failure: FailureKind) -> &'static str {
    match failure {
        FailureKind::Boot => "boot-failures",
        FailureKind::Unauthorized | FailureKind::Forbidden | FailureKind::NotFound => {
            "credentials-refused"
        }
        FailureKind::Mint | FailureKind::Invalid => "github-fails",
        FailureKind::Limited => "gate-closed",
        FailureKind::Expired => "registration-gap",
        FailureKind::Version => "version-refused",
    }
}

fn gate(gate: &GateStatus) -> Notice {
    let GateStatus {
        gate,
        scope,
        reason,
    } = gate;
    let of = scope.as_ref().map(|scope| format!(" of {scope}"));
    let of = of.unwrap_or_default();
    Notice::problem(format!("{gate}{of}: {reason}"))
}

/// Describes the problems of a pool with its runner group. Only a group that does not exist must be a problem.
fn group(pool: &PoolStatus) -> Vec<Notice> {
    let Some(group) = &pool.group else {
        return Vec::new();
    };
    let name = &pool.name;
    let problems = group.problems.iter();
    let notices = problems.map(|problem| {
        let text = format!("pool {name}: runner group {:?} {problem}", group.name);
        if problem.stops_the_pool() {
            Notice::problem(text)
        } else {
            Notice::fact(text)
        }
    });
    notices.collect()
}

/// Describes a scope of an earlier configuration; nothing if nothing is left in it.
fn former_scope(former: &FormerScopeStatus) -> Vec<Notice> {
    let scope = match &former.scope {
        Some(scope) => format!("the former scope {scope}"),
        None => "a scope that is not on record".to_owned(),
    };
    let error = former.error.iter();
    let error =
        error.map(|error| Notice::problem(format!("cannot remove runners in {scope}: {error}")));
    let runners = former.runners.iter();
    let runners = runners.map(|runner| Notice::fact(format!("{runner} is registered in {scope}")));
    let strays = former.strays.iter();
    let strays = strays.map(|runner| {
        Notice::fact(format!(
            "deleting runner {runner} in {scope}, which has no container"
        ))
    });
    error.chain(runners).chain(strays).collect()
}

/// Describes traces that do not reach the collector.
fn traces(status: &Status) -> Option<String> {
    let traces = status.traces.as_ref()?;
    let error = traces.error.as_ref()?;
    let (waiting, dropped) = (traces.waiting, traces.dropped);
    Some(format!(
        "traces do not reach the collector: {error}; {waiting} wait, and {dropped} were dropped"
    ))
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{
        DaemonState, DeliveryOutcome, DemandStatus, GitHubStatus, GroupProblem, GroupStatus,
        TracesStatus, Wanted, WebhookStatus,
    };

    #[test]
    fn each_kind_of_failure_has_a_runbook() {
        let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
        for failure in FailureKind::ALL {
            let page = pages.join(runbook(*failure)).with_extension("md");
            assert!(page.is_file(), "{}", page.display());
        }
    }

    #[test]
    fn a_reason_is_told_once() {
        let mut status = Status {
            state: DaemonState::Running,
            firewall_error: Some("the table is gone".into()),
            github: GitHubStatus {
                error: Some("HTTP 403".into()),
                ..GitHubStatus::default()
            },
            closed: vec!["firewall: the table is gone".into(), "draining".into()],
            ..Status::default()
        };
        let backoff = |failure, failures, retry_in_ms, reason: &str| BackoffStatus {
            failure,
            failures,
            retry_in_ms,
            reason: reason.into(),
        };
        status.pools = vec![PoolStatus {
            name: "ci".into(),
            wanted: Wanted {
                idle: 1,
                max: 2,
                ..Wanted::default()
            },
            backoffs: vec![
                backoff(FailureKind::Expired, 1, 0, "ci-2 crashed"),
                backoff(FailureKind::Forbidden, 5, 7_000, "HTTP 403"),
            ],
            ..PoolStatus::default()
        }];
        let found = notices(&status);
        let told: Vec<&str> = found.iter().map(|notice| notice.text.as_str()).collect();
        assert_eq!(
            told[..7],
            [
                "firewall: the table is gone",
                "GitHub: HTTP 403",
                "pool ci has no runner ready for a job",
                "no new runners until the problem of firewall is solved",
                "no new runners: draining",
                "pool ci: a registered runner ended without a job once: ci-2 crashed",
                "pool ci: GitHub refused permission 5 times, next try in 7.0 s; run `runner-controller docs credentials-refused`",
            ]
        );
        assert_eq!(found[5].weight, Weight::Fact);
        assert_eq!(found[6].weight, Weight::Problem);
    }

    #[test]
    fn a_webhook_with_another_secret_is_a_problem_until_a_delivery_is_accepted() {
        let told = |deliveries: &[(DeliveryOutcome, u64)]| {
            let webhook = WebhookStatus {
                deliveries: deliveries.iter().copied().collect(),
                ..WebhookStatus::default()
            };
            let status = Status {
                demand: Some(DemandStatus {
                    webhook: Some(webhook),
                    ..DemandStatus::default()
                }),
                ..Status::default()
            };
            let notices = notices(&status).into_iter();
            let of_webhook = |notice: &Notice| notice.text.starts_with("webhook: 6 deliveries");
            notices
                .filter(of_webhook)
                .map(|notice| notice.weight)
                .collect::<Vec<_>>()
        };
        let wrong = (DeliveryOutcome::WrongSignature, 6);
        assert_eq!(
            told(&[wrong, (DeliveryOutcome::Ping, 1)]),
            [Weight::Problem]
        );
        assert_eq!(told(&[wrong, (DeliveryOutcome::Accepted, 1)]), []);
    }

    #[test]
    fn traces_are_told_of_while_they_do_not_reach_the_collector() {
        let mut status = Status::default();
        assert_eq!(traces(&status), None);
        status.traces = Some(TracesStatus {
            sent: 3,
            dropped: 2,
            waiting: 1024,
            error: None,
        });
        assert_eq!(traces(&status), None);
        status.traces.as_mut().unwrap().error = Some("no answer within 10s".into());
        assert_eq!(
            traces(&status).unwrap(),
            "traces do not reach the collector: no answer within 10s; 1024 wait, and 2 were dropped"
        );
    }

    #[test]
    fn a_missing_group_is_a_problem_and_a_restriction_a_fact() {
        let mut pool = PoolStatus {
            name: "ci".into(),
            ..PoolStatus::default()
        };
        assert_eq!(group(&pool), []);
        let missing = GroupProblem::Missing {
            seen: vec!["Default".into()],
        };
        pool.group = Some(GroupStatus {
            name: "fast".into(),
            problems: vec![missing, GroupProblem::NoPublicRepositories],
        });
        let status = Status {
            pools: vec![pool],
            ..Status::default()
        };
        let found = notices(&status);
        for (weight, start) in [
            (
                Weight::Problem,
                "pool ci: runner group \"fast\" does not exist",
            ),
            (
                Weight::Fact,
                "pool ci: runner group \"fast\" does not allow public repositories",
            ),
        ] {
            let is_told =
                |notice: &&Notice| notice.weight == weight && notice.text.starts_with(start);
            assert_eq!(found.iter().filter(is_told).count(), 1, "{found:?}");
        }
    }
}
