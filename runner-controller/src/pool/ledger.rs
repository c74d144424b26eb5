//! Registrations of this host that no life owns, and when it is safe to delete them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::backoff;
use super::names::{HostId, RunnerName};
use super::observation::{ListedRunner, RunnerId};
use super::time::Timestamp;

/// A stray must be this old, and seen twice, before it is deleted: GitHub's list is eventually
/// consistent, and a mint whose answer is on its way looks just like one that was lost.
const STRAY_GRACE: Duration = Duration::from_mins(2);

/// A registration without a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: RunnerName,
    /// We know that its machine is gone, from our own eyes and not from a list.
    orphan: bool,
    first_seen: Timestamp,
    sightings: u32,
    pending: bool,
    failures: u32,
    retry_at: Timestamp,
}

/// What this host has at GitHub beyond its lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: BTreeMap<RunnerId, Entry>,
    /// Names that were sent to be registered, and no good answer came.
    doubts: BTreeMap<RunnerName, Timestamp>,
    /// Names of lives that are over. GitHub may show one for a while, as busy even, when another
    /// life is in its slot.
    over: BTreeMap<RunnerName, Timestamp>,
}

impl Ledger {
    /// Takes over a registration whose machine is gone. It ran no job, so GitHub still has it.
    pub fn orphan(&mut self, id: RunnerId, name: RunnerName, now: Timestamp) {
        let entry = Entry {
            name,
            orphan: true,
            first_seen: now,
            sightings: 0,
            pending: false,
            failures: 0,
            retry_at: now,
        };
        self.entries.insert(id, entry);
    }

    /// Takes down a name that may be registered although its mint failed.
    pub fn doubt(&mut self, name: RunnerName, now: Timestamp) {
        self.doubts.insert(name, now);
    }

    /// Takes down the name of a life that is over.
    pub fn over(&mut self, name: RunnerName, now: Timestamp) {
        self.over.insert(name, now);
    }

    /// True if this registration is of a life that is over, so of no life that is in its slot now.
    #[must_use]
    pub fn is_over(&self, name: &RunnerName) -> bool {
        self.over.contains_key(name)
    }

    /// Folds in a whole list. `owned` tells whether a life, or a mint under way, has that name.
    pub fn listed(
        &mut self,
        host: &HostId,
        list: &[ListedRunner],
        owned: impl Fn(RunnerId, &RunnerName) -> bool,
        now: Timestamp,
    ) {
        let names: BTreeSet<&str> = list.iter().map(|r| r.name.as_str()).collect();
        let listed = |name: &RunnerName| names.contains(name.to_string().as_str());
        // A list that is as old as a stray must be would have it.
        self.doubts
            .retain(|name, since| !listed(name) && now.since(*since) < STRAY_GRACE);
        self.over
            .retain(|name, since| listed(name) || now.since(*since) < STRAY_GRACE);
        for listed_runner in list {
            let Some(name) = RunnerName::parse(host, &listed_runner.name) else {
                continue;
            };
            // A busy one runs a job somewhere, whoever lost track of it.
            if listed_runner.busy || owned(listed_runner.id, &name) {
                if self
                    .entries
                    .get(&listed_runner.id)
                    .is_some_and(|e| !e.pending && !e.orphan)
                {
                    self.entries.remove(&listed_runner.id);
                }
                continue;
            }
            let entry = self
                .entries
                .entry(listed_runner.id)
                .or_insert_with(|| Entry {
                    name,
                    orphan: false,
                    first_seen: now,
                    sightings: 0,
                    pending: false,
                    failures: 0,
                    retry_at: now,
                });
            entry.sightings = entry.sightings.saturating_add(1);
        }
        // What two observations need is two in a row; an orphan is deleted whether listed or not.
        self.entries
            .retain(|id, entry| entry.orphan || entry.pending || list.iter().any(|r| r.id == *id));
    }

    /// The registrations to delete now.
    #[must_use]
    pub fn plan(&self, now: Timestamp) -> Vec<RunnerId> {
        let due =
            |entry: &&Entry| !entry.pending && Self::due_at(entry).is_some_and(|at| now >= at);
        self.entries
            .iter()
            .filter(|(_, entry)| due(entry))
            .map(|(id, _)| *id)
            .collect()
    }

    fn due_at(entry: &Entry) -> Option<Timestamp> {
        if entry.orphan {
            return Some(entry.retry_at);
        }
        (entry.sightings >= 2).then(|| entry.retry_at.max(entry.first_seen + STRAY_GRACE))
    }

    /// When [`Ledger::plan`] has something new to say.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.entries
            .values()
            .filter(|entry| !entry.pending)
            .filter_map(Self::due_at)
            .min()
    }

    /// Marks a deletion as under way.
    pub fn begin(&mut self, id: RunnerId) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.pending = true;
        }
    }

    /// Folds in what came of a deletion. A busy one is forgotten: it runs a job, and GitHub removes
    /// an ephemeral runner after its job.
    pub fn deleted(
        &mut self,
        id: RunnerId,
        done: bool,
        asked: Option<Duration>,
        now: Timestamp,
        random: u32,
    ) {
        if done {
            self.entries.remove(&id);
        } else if let Some(entry) = self.entries.get_mut(&id) {
            entry.pending = false;
            entry.failures = entry.failures.saturating_add(1);
            entry.retry_at =
                now + backoff::delay(entry.failures, random).max(asked.unwrap_or_default());
        }
    }

    /// Retries everything at once: somebody says that it is mended.
    pub fn reset_backoff(&mut self, now: Timestamp) {
        for entry in self.entries.values_mut() {
            entry.retry_at = now;
        }
    }

    /// The registrations in it, by name.
    pub fn names(&self) -> impl Iterator<Item = (RunnerId, &RunnerName)> {
        self.entries.iter().map(|(id, entry)| (*id, &entry.name))
    }

    /// How many there are, or may be.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() + self.doubts.len()
    }

    /// True if there are none.
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

    fn listed_runner(id: u64, name: &str, busy: bool) -> ListedRunner {
        ListedRunner {
            id: RunnerId(id),
            name: name.into(),
            online: false,
            busy,
        }
    }

    fn ledger(lists: &[(u64, &[ListedRunner])]) -> Ledger {
        let mut ledger = Ledger::default();
        for (seconds, list) in lists {
            ledger.listed(
                &"fuzz".parse().unwrap(),
                list,
                |id, _| id == RunnerId(7),
                at(*seconds),
            );
        }
        ledger
    }

    #[test]
    fn a_stray_is_deleted_when_seen_twice_and_old_enough() {
        let list = [listed_runner(1, "fuzz-ci-1-00000001", false)];
        assert_eq!(ledger(&[(0, &list)]).plan(at(1000)), vec![]);
        let twice = ledger(&[(0, &list), (60, &list)]);
        assert_eq!(twice.plan(at(119)), vec![]);
        assert_eq!(twice.plan(at(120)), vec![RunnerId(1)]);
        assert_eq!(twice.next_deadline(), Some(at(120)));
    }

    #[test]
    fn two_sightings_are_two_in_a_row() {
        let list = [listed_runner(1, "fuzz-ci-1-00000001", false)];
        assert_eq!(
            ledger(&[(0, &list), (60, &[]), (120, &list)]).plan(at(1000)),
            vec![]
        );
    }

    #[test]
    fn busy_owned_and_foreign_ones_are_left_alone() {
        let list = [
            listed_runner(1, "fuzz-ci-1-00000001", true),
            listed_runner(7, "fuzz-ci-2-00000002", false),
            listed_runner(3, "fuzz-a-ci-1-00000003", false),
            listed_runner(4, "somebody", false),
        ];
        assert!(ledger(&[(0, &list), (60, &list), (120, &list)]).is_empty());
    }

    #[test]
    fn an_orphan_is_deleted_at_once_and_again_after_a_failure() {
        let mut ledger = Ledger::default();
        ledger.orphan(
            RunnerId(1),
            RunnerName::parse(&"h".parse().unwrap(), "h-ci-1-00000001").unwrap(),
            at(5),
        );
        assert_eq!(ledger.plan(at(5)), vec![RunnerId(1)]);
        ledger.begin(RunnerId(1));
        assert_eq!(ledger.plan(at(5)), vec![]);
        ledger.deleted(RunnerId(1), false, None, at(6), 0);
        assert_eq!(ledger.plan(at(6)), vec![]);
        assert_eq!(ledger.plan(at(60)), vec![RunnerId(1)]);
        ledger.deleted(RunnerId(1), true, None, at(60), 0);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_name_of_a_life_that_is_over_is_known_while_a_list_may_have_it() {
        let host = "h".parse().unwrap();
        let name = RunnerName::parse(&host, "h-ci-1-00000001").unwrap();
        let mut ledger = Ledger::default();
        ledger.over(name.clone(), at(0));
        let listed = [listed_runner(1, "h-ci-1-00000001", true)];
        ledger.listed(&host, &[], |_, _| false, at(60));
        ledger.listed(&host, &listed, |_, _| false, at(500));
        assert!(ledger.is_over(&name), "lists are late");
        ledger.listed(&host, &listed, |_, _| false, at(1000));
        assert!(ledger.is_over(&name), "still listed");
        ledger.listed(&host, &[], |_, _| false, at(1060));
        assert!(!ledger.is_over(&name));
    }

    #[test]
    fn a_name_that_may_be_registered_counts_until_a_list_would_show_it() {
        let doubtful = |lists: &[(u64, &[ListedRunner])]| {
            let mut ledger = Ledger::default();
            let host = "h".parse().unwrap();
            ledger.doubt(RunnerName::parse(&host, "h-ci-1-00000001").unwrap(), at(5));
            for (seconds, list) in lists {
                ledger.listed(&host, list, |_, _| false, at(*seconds));
            }
            ledger.len()
        };
        let there = [listed_runner(1, "h-ci-1-00000001", false)];
        assert_eq!(doubtful(&[]), 1);
        assert_eq!(doubtful(&[(60, &[])]), 1, "lists are late");
        assert_eq!(doubtful(&[(60, &[]), (125, &[])]), 0);
        assert_eq!(doubtful(&[(60, &there)]), 1, "a stray now, counted once");
    }
}
