//! Readings of the status document: whether pools rest, and the document in one line.

use status::{DaemonState, PhaseKind, PoolStatus, Status};

/// Returns true if every pool has what is wanted of it, and neither a runner nor a registration is left
/// to end.
#[must_use]
pub fn is_settled(status: &Status) -> bool {
    status.strays.is_empty() && is_staffed(status)
}

/// Returns true if every pool has what is wanted of it, whatever is left at GitHub.
#[must_use]
pub fn is_staffed(status: &Status) -> bool {
    status.state == DaemonState::Running && status.pools.iter().all(rests)
}

/// Returns the status in one line, for the report of a wait that timed out.
#[must_use]
pub fn summary(status: &Status) -> String {
    let mut parts = vec![status.state.to_string()];
    parts.extend(
        status
            .runners()
            .map(|runner| format!("{} {}", runner.slot, runner.phase)),
    );
    for pool in &status.pools {
        parts.extend(pool.backoffs.iter().map(|backoff| {
            format!(
                "{}: {} failed {} times, again in {} ms: {}",
                pool.name, backoff.failure, backoff.failures, backoff.retry_in_ms, backoff.reason
            )
        }));
    }
    parts.extend(status.recent.iter().take(3).map(|ended| {
        let exit = ended.exit.as_deref().unwrap_or("no record");
        format!("{} ended: {}, {exit}", ended.slot, ended.verdict)
    }));
    if !status.strays.is_empty() {
        parts.push(format!("strays {}", status.strays.join(" ")));
    }
    if let Some(error) = &status.github.error {
        parts.push(format!("GitHub: {error}"));
    }
    parts.join("; ")
}

fn rests(pool: &PoolStatus) -> bool {
    pool.count(PhaseKind::Idle) == u64::from(pool.wanted.idle)
        && pool.count(PhaseKind::Spare) == u64::from(pool.wanted.spare)
        && pool.runners.len() == usize::from(pool.wanted.idle + pool.wanted.spare)
}

#[cfg(test)]
mod tests {
    use status::RunnerStatus;

    use super::*;

    #[test]
    fn a_pool_with_a_busy_runner_does_not_rest() {
        let mut pool = PoolStatus::default();
        pool.wanted.idle = 1;
        let mut add = |slot: &str, phase| {
            pool.runners
                .push(RunnerStatus::new(slot.parse().unwrap(), phase));
            *pool.phases.entry(phase).or_default() += 1;
            rests(&pool)
        };
        assert!(add("ci-1", PhaseKind::Idle));
        assert!(!add("ci-2", PhaseKind::Busy));
    }
}
