//! The health of a host, judged from its status.

use serde::{Deserialize, Serialize};

use super::version;
use crate::status::{DaemonState, PhaseKind, PoolStatus, Status};

/// Answer of `/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// True if no problem is known and every pool has a runner that is or becomes ready for a job.
    pub healthy: bool,
    /// Problems, each in words.
    pub reasons: Vec<String>,
}

/// Problem of a clearing that is followed by a refill, until then.
const INTERRUPTED: &str = "every runner ends, and none starts until the clean-up is done; \
    if no clean-up runs any more, run `runner-controller undrain`";

/// Problem of a pool, before its reason.
pub(super) const NOT_READY: &str = "has no runner ready for a job";

/// Judges a status. A host that an operator drained is healthy.
#[must_use]
pub fn health(status: &Status) -> Health {
    let mut reasons = Vec::new();
    let mut add = |part: &str, problem: &str| reasons.push(format!("{part}: {problem}"));
    for (part, error) in [
        ("systemd", &status.systemd_error),
        ("firewall", &status.firewall_error),
    ] {
        if let Some(error) = error {
            add(part, error);
        }
    }
    for (resource, reason) in &status.shortages {
        add(resource.as_ref(), reason);
    }
    if let Some(error) = &status.records_error {
        add("records", error);
    }
    if status.clearing.refills {
        add("clean-up", INTERRUPTED);
    }
    if [DaemonState::Running, DaemonState::Observing].contains(&status.state) {
        for scope in status.scopes().iter() {
            if let Some(error) = &scope.github.error {
                let part = match &scope.name {
                    Some(name) => format!("GitHub (scope {name})"),
                    None => "GitHub".to_owned(),
                };
                add(&part, error);
            }
        }
    }
    if status.state == DaemonState::Running {
        reasons.extend(status.pools.iter().filter_map(pool_problem));
        reasons.extend(status.pools.iter().filter_map(unreachable));
        reasons.extend(status.pools.iter().filter_map(address_lost));
        let ended = |pool| version::ended(pool, status.at_unix_ms);
        reasons.extend(status.pools.iter().filter_map(ended));
    }
    Health {
        healthy: reasons.is_empty(),
        reasons,
    }
}

/// Returns a problem if no runner of the pool is ready for a job, or about to be, though there is room
/// for one.
fn pool_problem(pool: &PoolStatus) -> Option<String> {
    let ready = [PhaseKind::Idle, PhaseKind::Registering, PhaseKind::Minting];
    let is_full = pool.phases.values().sum::<u64>() >= u64::from(pool.wanted.max);
    if is_full || ready.iter().any(|phase| pool.count(*phase) > 0) {
        return None;
    }
    // A pool on demand has none while no job waits, and its container boots once one does.
    let wants = pool
        .target
        .map_or(u64::from(pool.wanted.idle), |target| target.listeners);
    let boots = pool.count(PhaseKind::Booting) + pool.count(PhaseKind::Spare) > 0;
    let is_on_demand = pool.wanted.idle == 0;
    if wants == 0 || is_on_demand && boots && pool.backoffs.is_empty() {
        return None;
    }
    let reason = pool
        .backoffs
        .iter()
        .max_by_key(|backoff| backoff.failures)
        .map_or("runners are starting", |backoff| backoff.reason.as_str());
    Some(format!("pool {} {NOT_READY}: {reason}", pool.name))
}

/// Returns a problem if links of the pool's runners lost their addresses.
fn address_lost(pool: &PoolStatus) -> Option<String> {
    let runners = pool.runners.iter().filter(|runner| runner.address_lost);
    let links: Vec<String> = runners
        .map(|runner| format!("rc-{}", runner.slot))
        .collect();
    (!links.is_empty()).then(|| {
        format!(
            "pool {}: another program took the address from {}; keep network managers off rc-* links: \
             `runner-controller docs firewall` tells how",
            pool.name,
            links.join(", ")
        )
    })
}

/// Returns a problem if GitHub sees idle runners of the pool as offline.
fn unreachable(pool: &PoolStatus) -> Option<String> {
    let runners = pool.runners.iter().filter(|runner| runner.unreachable);
    let slots: Vec<String> = runners.map(|runner| runner.slot.to_string()).collect();
    (!slots.is_empty()).then(|| {
        format!(
            "pool {}: GitHub lists {} as offline, so no job reaches them; check that containers reach GitHub",
            pool.name,
            slots.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{
        BackoffStatus, FailureKind, GitHubStatus, RunnerStatus, ScopeStatus, TargetStatus, Wanted,
    };

    fn running(phases: &[(PhaseKind, u64)]) -> Status {
        Status {
            state: DaemonState::Running,
            pools: vec![PoolStatus {
                name: "ci".into(),
                wanted: Wanted {
                    idle: 1,
                    spare: 1,
                    max: 2,
                    ..Wanted::default()
                },
                phases: phases.iter().copied().collect(),
                ..PoolStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn a_pool_without_a_runner_ready_for_a_job_is_not_healthy() {
        assert_eq!(
            health(&running(&[(PhaseKind::Spare, 1)])).reasons,
            ["pool ci has no runner ready for a job: runners are starting"]
        );
    }

    #[test]
    fn a_pool_that_is_full_of_jobs_is_healthy() {
        assert!(health(&running(&[(PhaseKind::Busy, 2)])).healthy);
    }

    /// Returns a host whose pool has a runner for each job that waits, and no other.
    fn on_demand(jobs: u64, phases: &[(PhaseKind, u64)]) -> Status {
        let mut status = running(phases);
        let pool = &mut status.pools[0];
        pool.wanted = Wanted {
            max: 2,
            ..Wanted::default()
        };
        pool.target = Some(TargetStatus {
            listeners: jobs,
            ..TargetStatus::default()
        });
        status
    }

    #[test]
    fn a_pool_on_demand_is_healthy_without_jobs_and_while_its_container_boots() {
        assert!(health(&on_demand(0, &[])).healthy);
        let mut boots = on_demand(1, &[(PhaseKind::Booting, 1)]);
        assert!(health(&boots).healthy);
        boots.pools[0].backoffs = vec![BackoffStatus {
            failure: FailureKind::Boot,
            failures: 1,
            retry_in_ms: 0,
            reason: "no room".into(),
        }];
        let reasons = ["pool ci has no runner ready for a job: no room"];
        assert_eq!(health(&boots).reasons, reasons);
        assert!(!health(&on_demand(1, &[])).healthy);
    }

    #[test]
    fn a_host_that_only_observes_is_healthy_if_github_answers() {
        let mut status = running(&[]);
        status.state = DaemonState::Observing;
        assert!(health(&status).healthy);
        status.github.error = Some("401".into());
        assert_eq!(health(&status).reasons, ["GitHub: 401"]);
    }

    #[test]
    fn a_pool_whose_idle_runner_is_offline_at_github_is_not_healthy() {
        let mut status = running(&[(PhaseKind::Idle, 1)]);
        assert!(health(&status).healthy);
        let slot = "ci-1".parse().unwrap();
        status.pools[0].runners = vec![RunnerStatus {
            unreachable: true,
            ..RunnerStatus::new(slot, PhaseKind::Idle)
        }];
        assert_eq!(
            health(&status).reasons,
            [
                "pool ci: GitHub lists ci-1 as offline, so no job reaches them; \
              check that containers reach GitHub"
            ]
        );
    }

    #[test]
    fn a_cleared_host_is_healthy_unless_its_pools_are_to_refill() {
        let mut cleared = running(&[]);
        cleared.state = DaemonState::Cleared;
        assert!(health(&cleared).healthy);
        cleared.clearing.refills = true;
        let reasons = health(&cleared).reasons;
        assert!(
            reasons[0].contains("run `runner-controller undrain`"),
            "{reasons:?}"
        );
    }

    #[test]
    fn an_error_of_a_scope_names_it() {
        let mut status = running(&[(PhaseKind::Idle, 1)]);
        let scope = |name: &str, error: Option<&str>| ScopeStatus {
            name: Some(name.into()),
            github: GitHubStatus {
                error: error.map(str::to_owned),
                ..GitHubStatus::default()
            },
            ..ScopeStatus::default()
        };
        status.scopes = vec![scope("one", None), scope("two", Some("401"))];
        status.github = GitHubStatus::of(&status.scopes);
        assert_eq!(health(&status).reasons, ["GitHub (scope two): 401"]);
    }

    #[test]
    fn a_drained_host_is_healthy() {
        let mut drained = running(&[]);
        drained.state = DaemonState::Drained;
        assert!(health(&drained).healthy);
    }
}
