//! Early lists: a pool without a runner that is known to be online does not wait for the next reconcile.
//!
//! A reconcile comes once a minute, and a runner is online about a second after its registration. So the
//! list is requested 2, 4 and 8 seconds after a registration, until it shows the runner. It is little
//! evidence for anything else: two of them within seconds show the same delay of GitHub's list. So it only
//! makes runners idle or busy, and shows that their registrations exist.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::names::Slot;
use super::observation::ListedRunner;
use super::runner::Phase;
use super::state::Pool;
use super::time::Timestamp;

/// Ages of a registration at which the list is requested.
const AGES: [Duration; 3] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Maximum number of early lists in a minute, whatever happens to the runners.
const MAX_PER_MINUTE: usize = AGES.len();

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

    /// Returns the time of the next early list, for registrations of these times.
    pub(super) fn next(&self, registrations: impl Iterator<Item = Timestamp>) -> Option<Timestamp> {
        let times = registrations.flat_map(|since| AGES.map(|age| since + age));
        let next = times.filter(|at| *at > self.requested_at).min()?;
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
    /// Returns the times of the registrations that no list has shown online, if the pool has no runner
    /// that is known to be online.
    pub(super) fn unseen_registrations(&self) -> Vec<Timestamp> {
        let is_online = |phase: &Phase| matches!(phase, Phase::Idle | Phase::Busy);
        if self.count(is_online) > 0 {
            return Vec::new();
        }
        let registering = self.runners.values().filter(|runner| {
            let is_here = runner.id().is_some() && runner.scope() == self.spec.scope.as_ref();
            runner.phase == Phase::Registering && is_here
        });
        registering.map(|runner| runner.since).collect()
    }

    /// Applies an early list to the runner in a slot.
    pub(super) fn listed_early(
        &mut self,
        slot: Slot,
        by_name: &BTreeMap<&str, &ListedRunner>,
        requested_at: Timestamp,
        now: Timestamp,
    ) {
        let Some(runner) = self.runners.get_mut(&slot) else {
            return;
        };
        let is_news = runner.pending.is_none() && runner.since < requested_at;
        let is_here = runner.id().is_some() && runner.scope() == self.spec.scope.as_ref();
        if runner.phase != Phase::Registering || !is_news || !is_here {
            return;
        }
        let name = runner.name().map(ToString::to_string);
        let listed = name.and_then(|name| by_name.get(name.as_str()));
        let Some(listed) = listed.filter(|listed| runner.id() == Some(listed.id)) else {
            return;
        };
        if !listed.busy && !listed.online {
            return;
        }
        // Evidence for a deletion, as that of any list. Otherwise a drain would wait for the next one.
        runner.is_listed = true;
        if listed.busy {
            runner.become_busy(None, now);
        } else {
            runner.missed_lists = 0;
            runner.offline_lists = 0;
            runner.enter(Phase::Idle, now);
        }
    }
}
