//! Waiting for pools that are full and rest.

use std::time::Duration;

use anyhow::Result;
use github_sim::Standing;

use crate::lab::Lab;
use crate::status::{Pool, Status};
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
            return Ok(Seen::NotYet(status.summary()));
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
            Some(name) => Seen::NotYet(format!("{name} is not online; {}", status.summary())),
        })
    })
}

fn is_full(pool: &Pool) -> bool {
    let count = |phase: &str| pool.phases.get(phase).copied().unwrap_or_default();
    count("spare") == pool.wanted.spare
        && count("registering") + count("idle") == pool.wanted.idle
        && pool.runners.len() == pool.wanted.spare + pool.wanted.idle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Runner, Wanted};

    #[test]
    fn a_pool_that_still_boots_is_not_full() {
        let mut pool = Pool {
            wanted: Wanted { idle: 1, spare: 1 },
            runners: vec![Runner::default(), Runner::default()],
            phases: [("registering".to_owned(), 1), ("spare".to_owned(), 1)].into(),
            ..Pool::default()
        };
        assert!(is_full(&pool));
        pool.phases = [("idle".to_owned(), 1), ("booting".to_owned(), 1)].into();
        assert!(!is_full(&pool));
    }
}
