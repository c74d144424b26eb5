//! Early lists, which do not wait for the next reconcile.
//!
//! A reconcile comes once a minute, and a runner is online about a second after its registration. So a pool
//! without a runner that is known to be online requests the list 2, 4 and 8 seconds after a registration,
//! until it shows the runner. A registration is only deleted after a list has shown it. So a runner that
//! retires unseen requests the list at once, and at the same times.
//!
//! Many runners of a scope share its lists: three in a minute, whatever happens. A list costs a call for
//! every hundred runners of the scope.
//!
//! An early list is little evidence for anything else: two of them within seconds show the same delay of
//! GitHub's list. So it only makes runners idle or busy, and shows that their registrations exist.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::names::Slot;
use super::observation::ListedRunner;
use super::runner::Phase;
use super::scope::ScopeId;
use super::state::Pool;
use super::time::Timestamp;

/// Times after a runner retires at which the list is requested. After its registration, all but the first.
const DELAYS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Maximum number of early lists of a scope in a minute, whatever happens to the runners.
const MAX_PER_MINUTE: usize = 3;

const MINUTE: Duration = Duration::from_mins(1);

/// The lists of a scope that were requested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EarlyLists {
    /// Time of the last list.
    requested_at: Timestamp,
    /// Times of the last early lists, oldest first.
    early: VecDeque<Timestamp>,
}

impl EarlyLists {
    /// Notes that the list is requested.
    pub(super) fn requested(&mut self, now: Timestamp) {
        self.requested_at = now;
    }

    /// Returns the time of the next early list, if it is wanted at these times.
    pub(super) fn next(&self, wanted: impl Iterator<Item = Timestamp>) -> Option<Timestamp> {
        let next = wanted.filter(|at| *at > self.requested_at).min()?;
        let is_full = self.early.len() >= MAX_PER_MINUTE;
        let free = self.early.front().filter(|_| is_full);
        let free = free.map(|at| *at + MINUTE);
        Some(next.max(free.unwrap_or_default()))
    }

    /// Notes that an early list is requested.
    pub(super) fn begin(&mut self, now: Timestamp) {
        self.requested_at = now;
        self.early.push_back(now);
        if self.early.len() > MAX_PER_MINUTE {
            self.early.pop_front();
        }
    }
}

impl Pool {
    /// Returns the times at which the list of a scope is wanted before the next reconcile.
    pub(super) fn wanted_lists(&self, scope: &ScopeId) -> Vec<Timestamp> {
        let is_online = |phase: &Phase| matches!(phase, Phase::Idle | Phase::Busy);
        let has_online = self.count(is_online) > 0;
        let registered = self.runners.values().filter(|runner| {
            let is_there = runner.scope() == Some(scope);
            runner.id().is_some() && is_there
        });
        let wanted = registered.flat_map(|runner| {
            let delays = match &runner.phase {
                Phase::Registering if !has_online => &DELAYS[1..],
                Phase::Retiring {
                    deregister_first: true,
                    ..
                } if !runner.is_listed => &DELAYS,
                Phase::Booting
                | Phase::Spare
                | Phase::Minting
                | Phase::Registering
                | Phase::Idle
                | Phase::Busy
                | Phase::Retiring { .. } => &[],
            };
            delays.iter().map(|delay| runner.since + *delay)
        });
        wanted.collect()
    }

    /// Applies an early list of a scope to the runner in a slot.
    pub(super) fn listed_early(
        &mut self,
        slot: Slot,
        scope: &ScopeId,
        by_name: &BTreeMap<&str, &ListedRunner>,
        requested_at: Timestamp,
        now: Timestamp,
    ) {
        let Some(runner) = self.runners.get_mut(&slot) else {
            return;
        };
        if runner.id().is_none() || runner.scope() != Some(scope) {
            return;
        }
        let name = runner.name().map(ToString::to_string);
        let listed = name.and_then(|name| by_name.get(name.as_str()));
        let listed = listed.filter(|listed| runner.id() == Some(listed.id));
        // Evidence for a deletion, as that of any list. Otherwise a drain would wait for the next one.
        runner.set_listed(listed.copied());
        let Some(listed) = listed else {
            return;
        };
        let is_news = runner.pending.is_none() && runner.since < requested_at;
        if runner.phase != Phase::Registering || !is_news {
            return;
        }
        if listed.busy {
            runner.become_busy(None, now);
        } else if listed.online {
            runner.missed_lists = 0;
            runner.offline_lists = 0;
            runner.enter(Phase::Idle, now);
        }
    }
}
