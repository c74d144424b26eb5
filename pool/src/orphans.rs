//! Orphaned registrations: those without a runner of this host, and when it is safe to delete them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::backoff;
use super::names::{HostId, RunnerName};
use super::observation::{ListedRunner, RunnerId};
use super::time::Timestamp;

/// Minimum age of a stray before it is deleted, and maximum age of what GitHub's list may not show yet.
///
/// The list is eventually consistent, and a mint whose answer is on its way looks like a lost one.
const LIST_DELAY: Duration = Duration::from_mins(2);

/// Number of lists in a row that must have a stray before it is deleted.
const STRAY_LISTS: u32 = 2;

/// A registration without a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Orphan {
    name: RunnerName,
    origin: Origin,
    first_seen: Timestamp,
    pending: bool,
    failures: u32,
    retry_at: Timestamp,
}

/// Evidence for an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The daemon knows that the runner ended or never was.
    Ended,
    /// GitHub's list has it, in this many lists in a row, and no runner has its name.
    Stray { lists: u32 },
}

impl Orphan {
    fn new(name: RunnerName, origin: Origin, now: Timestamp) -> Self {
        Self {
            name,
            origin,
            first_seen: now,
            pending: false,
            failures: 0,
            retry_at: now,
        }
    }

    /// Returns the time at which it may be deleted.
    fn due_at(&self) -> Option<Timestamp> {
        match self.origin {
            Origin::Ended => Some(self.retry_at),
            Origin::Stray { lists } => {
                (lists >= STRAY_LISTS).then(|| self.retry_at.max(self.first_seen + LIST_DELAY))
            }
        }
    }
}

/// Orphaned registrations of a host, and the names that a late list may still show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orphans {
    by_id: BTreeMap<RunnerId, Orphan>,
    /// Names whose mint failed although GitHub may have registered them, since that time.
    unconfirmed: BTreeMap<RunnerName, Timestamp>,
    /// Names of runners that ended, since that time. GitHub may show one for a while, even as busy,
    /// while another runner is in its slot.
    ended: BTreeMap<RunnerName, Timestamp>,
}

impl Orphans {
    /// Adds the registration of a runner that ended or never was. It ran no job, so GitHub has it.
    pub fn add(&mut self, id: RunnerId, name: RunnerName, now: Timestamp) {
        self.by_id.insert(id, Orphan::new(name, Origin::Ended, now));
    }

    /// Adds a name that may be registered although its mint failed.
    pub fn add_unconfirmed(&mut self, name: RunnerName, now: Timestamp) {
        self.unconfirmed.insert(name, now);
    }

    /// Adds the name of a runner that ended.
    pub fn add_ended(&mut self, name: RunnerName, now: Timestamp) {
        self.ended.insert(name, now);
    }

    /// Returns true if a runner of this name ended, so that it is not the one in its slot now.
    #[must_use]
    pub fn has_ended(&self, name: &RunnerName) -> bool {
        self.ended.contains_key(name)
    }

    /// Applies a whole list. `is_owned` tells whether a runner, or a mint under way, has a name.
    pub fn listed(
        &mut self,
        host: &HostId,
        list: &[ListedRunner],
        is_owned: impl Fn(&RunnerName) -> bool,
        now: Timestamp,
    ) {
        let names: BTreeSet<&str> = list.iter().map(|r| r.name.as_str()).collect();
        let is_listed = |name: &RunnerName| names.contains(name.to_string().as_str());
        let is_recent = |since: Timestamp| now.since(since) < LIST_DELAY;
        self.unconfirmed
            .retain(|name, since| !is_listed(name) && is_recent(*since));
        self.ended
            .retain(|name, since| is_listed(name) || is_recent(*since));
        for listed in list {
            let Some(name) = RunnerName::parse(host, &listed.name) else {
                continue;
            };
            // A busy runner has a job, even if this host lost track of it.
            if listed.busy || is_owned(&name) {
                let is_forgettable = |orphan: &Orphan| {
                    !orphan.pending && matches!(orphan.origin, Origin::Stray { .. })
                };
                if self.by_id.get(&listed.id).is_some_and(is_forgettable) {
                    self.by_id.remove(&listed.id);
                }
                continue;
            }
            let orphan = self
                .by_id
                .entry(listed.id)
                .or_insert_with(|| Orphan::new(name, Origin::Stray { lists: 0 }, now));
            if let Origin::Stray { lists } = &mut orphan.origin {
                *lists = lists.saturating_add(1);
            }
        }
        // The lists of a stray must be in a row. A known orphan is deleted whether listed or not.
        let listed: BTreeSet<RunnerId> = list.iter().map(|r| r.id).collect();
        self.by_id.retain(|id, orphan| {
            orphan.pending || orphan.origin == Origin::Ended || listed.contains(id)
        });
    }

    /// Returns the registrations to delete now.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Vec<RunnerId> {
        let is_due =
            |orphan: &Orphan| !orphan.pending && orphan.due_at().is_some_and(|at| now >= at);
        self.by_id
            .iter()
            .filter(|(_, orphan)| is_due(orphan))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Returns the time at which [`Orphans::due`] returns more.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.by_id
            .values()
            .filter(|orphan| !orphan.pending)
            .filter_map(Orphan::due_at)
            .min()
    }

    /// Returns true if a deletion is under way.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.by_id.values().any(|orphan| orphan.pending)
    }

    /// Marks a deletion as under way.
    pub fn begin_deletion(&mut self, id: RunnerId) {
        if let Some(orphan) = self.by_id.get_mut(&id) {
            orphan.pending = true;
        }
    }

    /// Forgets a registration after its deletion, or because it has a job: GitHub removes an
    /// ephemeral runner after its job.
    pub fn remove(&mut self, id: RunnerId) {
        self.by_id.remove(&id);
    }

    /// Delays the next try after a deletion failed, at least by `requested`.
    pub fn deletion_failed(
        &mut self,
        id: RunnerId,
        requested: Option<Duration>,
        now: Timestamp,
        random: u32,
    ) {
        if let Some(orphan) = self.by_id.get_mut(&id) {
            orphan.pending = false;
            orphan.failures = orphan.failures.saturating_add(1);
            let delay = backoff::delay(orphan.failures, random);
            orphan.retry_at = now + delay.max(requested.unwrap_or_default());
        }
    }

    /// Forgets all delays, because an operator says that the causes are fixed.
    pub fn reset_backoff(&mut self, now: Timestamp) {
        for orphan in self.by_id.values_mut() {
            orphan.retry_at = now;
        }
    }

    /// Returns the orphaned registrations.
    pub fn iter(&self) -> impl Iterator<Item = (RunnerId, &RunnerName)> {
        self.by_id.iter().map(|(id, orphan)| (*id, &orphan.name))
    }

    /// Returns the number of registrations that have no runner, or may have none.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len() + self.unconfirmed.len()
    }

    /// Returns true if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn host() -> HostId {
        "h".parse().unwrap()
    }

    fn name(text: &str) -> RunnerName {
        RunnerName::parse(&host(), text).unwrap()
    }

    fn listed(id: u64, name: &str, busy: bool) -> ListedRunner {
        ListedRunner {
            id: RunnerId(id),
            name: name.into(),
            online: false,
            busy,
        }
    }

    /// Orphans after these lists, given at these seconds. A runner has the name `h-ci-7-00000007`.
    fn orphans(lists: &[(u64, &[ListedRunner])]) -> Orphans {
        let mut orphans = Orphans::default();
        for (seconds, list) in lists {
            let is_owned = |owned: &RunnerName| *owned == name("h-ci-7-00000007");
            orphans.listed(&host(), list, is_owned, at(*seconds));
        }
        orphans
    }

    #[test]
    fn a_stray_is_deleted_when_two_lists_had_it_and_it_is_old_enough() {
        let list = [listed(1, "h-ci-1-00000001", false)];
        assert_eq!(orphans(&[(0, &list)]).due(at(1000)), vec![]);
        let twice = orphans(&[(0, &list), (60, &list)]);
        assert_eq!(twice.due(at(119)), vec![]);
        assert_eq!(twice.due(at(120)), vec![RunnerId(1)]);
        assert_eq!(twice.next_deadline(), Some(at(120)));
    }

    #[test]
    fn the_lists_that_have_a_stray_must_be_in_a_row() {
        let list = [listed(1, "h-ci-1-00000001", false)];
        let interrupted = orphans(&[(0, &list), (60, &[]), (120, &list)]);
        assert_eq!(interrupted.due(at(1000)), vec![]);
    }

    #[test]
    fn busy_owned_and_foreign_runners_are_left_alone() {
        let list = [
            listed(1, "h-ci-1-00000001", true),
            listed(7, "h-ci-7-00000007", false),
            listed(3, "h-a-ci-1-00000003", false),
            listed(4, "another", false),
        ];
        assert!(orphans(&[(0, &list), (60, &list), (120, &list)]).is_empty());
    }

    #[test]
    fn a_stray_that_becomes_busy_is_forgotten() {
        let idle = [listed(1, "h-ci-1-00000001", false)];
        let busy = [listed(1, "h-ci-1-00000001", true)];
        assert!(orphans(&[(0, &idle), (60, &idle), (119, &busy)]).is_empty());
    }

    #[test]
    fn the_registration_of_an_ended_runner_is_deleted_at_once_and_again_after_a_failure() {
        let mut orphans = Orphans::default();
        orphans.add(RunnerId(1), name("h-ci-1-00000001"), at(5));
        assert_eq!(orphans.due(at(5)), vec![RunnerId(1)]);
        orphans.begin_deletion(RunnerId(1));
        assert!(orphans.is_deleting() && orphans.due(at(5)).is_empty());
        orphans.deletion_failed(RunnerId(1), None, at(6), 0);
        assert!(!orphans.is_deleting() && orphans.due(at(6)).is_empty());
        assert_eq!(orphans.due(at(60)), vec![RunnerId(1)]);
        orphans.remove(RunnerId(1));
        assert!(orphans.is_empty());
    }

    #[test]
    fn the_name_of_an_ended_runner_is_kept_while_a_list_may_have_it() {
        let ended = name("h-ci-1-00000001");
        let mut orphans = Orphans::default();
        orphans.add_ended(ended.clone(), at(0));
        let list = [listed(1, "h-ci-1-00000001", true)];
        orphans.listed(&host(), &[], |_| false, at(60));
        orphans.listed(&host(), &list, |_| false, at(500));
        assert!(orphans.has_ended(&ended), "lists are late");
        orphans.listed(&host(), &list, |_| false, at(1000));
        assert!(orphans.has_ended(&ended), "still listed");
        orphans.listed(&host(), &[], |_| false, at(1060));
        assert!(!orphans.has_ended(&ended));
    }

    #[test]
    fn a_name_that_may_be_registered_counts_until_a_list_would_have_it() {
        let after = |lists: &[(u64, &[ListedRunner])]| {
            let mut orphans = Orphans::default();
            orphans.add_unconfirmed(name("h-ci-1-00000001"), at(5));
            for (seconds, list) in lists {
                orphans.listed(&host(), list, |_| false, at(*seconds));
            }
            orphans.len()
        };
        assert_eq!(after(&[]), 1);
        assert_eq!(after(&[(124, &[])]), 1);
        assert_eq!(after(&[(125, &[])]), 0);
        // One that a list has is an orphan, and is counted as one.
        let list = [listed(1, "h-ci-1-00000001", false)];
        assert_eq!(after(&[(6, &list)]), 1);
    }
}
