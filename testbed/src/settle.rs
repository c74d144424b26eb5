//! Waits for pools that are full.

use std::time::Duration;

use anyhow::Result;
use github_sim::Standing;
use status::{PhaseKind, PoolStatus, Status};

use crate::lab::Lab;
use crate::readings::summary;
use crate::wait::{Seen, wait_until};

/// Waits until every pool has its spares and its runners, and nothing else, and each of those
/// runners listens for jobs by the account of the stand-in.
///
/// The daemon calls a runner idle when GitHub's list shows it online, so not before the next
/// reconcile. This does not wait for that; [`Lab::await_settled`] does.
pub fn await_listening(lab: &Lab, limit: Duration) -> Result<Status> {
    wait_until("the pools to be full and listening", limit, || {
        let status = lab.look()?;
        if !status.pools.iter().all(is_full) {
            return Ok(Seen::NotYet(summary(&status)));
        }
        let online: Vec<String> = lab
            .sim()
            .runners()?
            .into_iter()
            .filter(|runner| runner.online && runner.standing == Standing::Registered)
            .map(|runner| runner.name)
            .collect();
        let deaf = status
            .runners()
            .filter_map(|runner| runner.runner.as_ref())
            .find(|name| !online.contains(name));
        Ok(match deaf {
            None => Seen::Done(status),
            Some(name) => Seen::NotYet(format!("{name} is not online; {}", summary(&status))),
        })
    })
}

fn is_full(pool: &PoolStatus) -> bool {
    pool.count(PhaseKind::Spare) == u64::from(pool.wanted.spare)
        && pool.count(PhaseKind::Registering) + pool.count(PhaseKind::Idle)
            == u64::from(pool.wanted.idle)
        && pool.runners.len() == usize::from(pool.wanted.spare + pool.wanted.idle)
}

#[cfg(test)]
mod tests {
    use status::{RunnerStatus, Wanted};

    use super::*;

    fn pool(idle: u16, spare: u16, phases: &[PhaseKind]) -> PoolStatus {
        let mut pool = PoolStatus {
            wanted: Wanted {
                idle,
                spare,
                max: 9,
                ..Wanted::default()
            },
            ..PoolStatus::default()
        };
        for (number, phase) in phases.iter().enumerate() {
            let slot = format!("ci-{}", number + 1).parse().unwrap();
            pool.runners.push(RunnerStatus::new(slot, *phase));
            *pool.phases.entry(*phase).or_default() += 1;
        }
        pool
    }

    #[test]
    fn a_pool_that_still_boots_is_not_full() {
        use PhaseKind::{Booting, Idle, Registering, Spare};
        assert!(is_full(&pool(1, 1, &[Registering, Spare])));
        assert!(!is_full(&pool(1, 1, &[Idle, Booting])));
    }
}
