//! Orphaned registrations: those without a runner of this host, and when it is safe to delete them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::backoff;
use super::names::{HostId, RunnerName};
use super::observation::{ListedRunner, RunnerId};
use super::scope::ScopeId;
use super::time::Timestamp;

/// Minimum age of a stray before it is deleted, and maximum age of what GitHub's list may not show yet.
///
/// The list is eventually consistent, and a mint whose answer is on its way looks like a lost one. A
/// listener that ended is shown online for about a minute.
const LIST_DELAY: Duration = Duration::from_mins(2);

/// Number of lists in a row that must have a stray before it is deleted.
const STRAY_LISTS: u32 = 2;

/// Age from which an orphan does not count in [`Orphans::recent`].
pub(super) const RECENT: Duration = Duration::from_mins(10);

/// Record of an orphan, for the daemon that comes after this one. Its age goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrayRecord {
    /// Scope of the registration.
    pub scope: ScopeId,
    /// GitHub's id.
    pub id: RunnerId,
    /// Name of the registration.
    pub name: RunnerName,
    /// The boot in which `first_seen` is counted.
    pub boot_id: String,
    /// Time from which it has no runner, or is offline.
    pub first_seen: Timestamp,
    /// Number of lists in a row that showed it offline.
    pub lists: u32,
    /// True if another host uses it.
    pub is_foreign: bool,
}

/// A registration without a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Orphan {
    name: RunnerName,
    origin: Origin,
    first_seen: Timestamp,
    /// True if a mint of this daemon made it.
    is_own: bool,
    /// True if a list showed it before its runner ended, so a later list cannot be too early for it.
    was_listed: bool,
    pending: bool,
    failures: u32,
}

/// Evidence for an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The daemon knows that the runner ended or never was.
    Ended,
    /// GitHub's list has it offline, in this many lists in a row, and no runner has its name.
    Stray { lists: u32 },
    /// GitHub's list has it online since this time, and no runner has its name.
    Online { since: Timestamp },
    /// It was online for so long that another host must use it. It is never deleted.
    Foreign,
}

impl Orphan {
    fn new(name: RunnerName, origin: Origin, now: Timestamp) -> Self {
        Self {
            name,
            origin,
            first_seen: now,
            is_own: false,
            was_listed: false,
            pending: false,
            failures: 0,
        }
    }

    /// Returns the time at which it may be deleted.
    fn due_at(&self) -> Option<Timestamp> {
        match self.origin {
            Origin::Ended => Some(self.first_seen),
            Origin::Stray { lists } => (lists >= STRAY_LISTS).then(|| self.first_seen + LIST_DELAY),
            Origin::Online { .. } | Origin::Foreign => None,
        }
    }

    /// Applies an entry of a list that has it.
    fn listed(&mut self, online: bool, owner: Owner, now: Timestamp) {
        self.origin = match self.origin {
            Origin::Ended => Origin::Ended,
            Origin::Foreign => Origin::Foreign,
            // While it may be online because of a runner of this host, its time does not count.
            Origin::Online { .. } if online && owner == Owner::Unclear => {
                Origin::Online { since: now }
            }
            Origin::Online { since } if online && now.since(since) >= LIST_DELAY => Origin::Foreign,
            Origin::Online { since } if online => Origin::Online { since },
            Origin::Stray { .. } if online => Origin::Online { since: now },
            Origin::Stray { lists } => Origin::Stray {
                lists: lists.saturating_add(1).min(STRAY_LISTS),
            },
            Origin::Online { .. } => {
                self.first_seen = now;
                Origin::Stray { lists: 1 }
            }
        };
    }
}

/// Knowledge of the runner that has a listed name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A runner of this host, or a mint under way.
    Runner,
    /// Perhaps the runner in the slot of the name, whose own name is not known.
    Unclear,
    /// No runner of this host.
    Nobody,
}

/// Orphaned registrations of a scope, and the names that a late list may still show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orphans {
    by_id: BTreeMap<RunnerId, Orphan>,
    /// Entries of the newest list under names of this host.
    listed: BTreeMap<RunnerId, RunnerName>,
    /// Names whose mint failed although GitHub may have registered them, since that time.
    unconfirmed: BTreeMap<RunnerName, Timestamp>,
    /// Names of runners that ended, since that time. GitHub may show one for a while, even as busy,
    /// while another runner is in its slot.
    ended: BTreeMap<RunnerName, Timestamp>,
    deletions: Deletions,
}

/// The deletions that failed since the last one succeeded. They delay nothing but deletions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deletions {
    /// Number of failures in a row.
    pub failures: u32,
    /// Earliest time of the next deletion.
    pub retry_at: Timestamp,
}

impl Orphans {
    /// Adds the registration of a runner that ended or never was. It ran no job, so GitHub has it, unless it
    /// deleted it. `was_listed` is true if any list showed it.
    pub fn add(&mut self, id: RunnerId, name: RunnerName, was_listed: bool, now: Timestamp) {
        let orphan = Orphan {
            is_own: true,
            was_listed: was_listed || self.listed.get(&id) == Some(&name),
            ..Orphan::new(name, Origin::Ended, now)
        };
        self.by_id.insert(id, orphan);
    }

    /// Adds an orphan of an earlier daemon. Its `first_seen` must be of this boot.
    pub fn restore(&mut self, record: StrayRecord) {
        let lists = record.lists;
        let origin = if record.is_foreign {
            Origin::Foreign
        } else {
            Origin::Stray { lists }
        };
        let orphan = Orphan::new(record.name, origin, record.first_seen);
        self.by_id.insert(record.id, orphan);
    }

    /// Returns the records of the orphans, by id.
    #[must_use]
    pub fn records(&self, scope: &ScopeId, boot_id: &str) -> BTreeMap<RunnerId, StrayRecord> {
        let record = |(id, orphan): (&RunnerId, &Orphan)| {
            let lists = match orphan.origin {
                Origin::Stray { lists } => lists,
                Origin::Ended | Origin::Online { .. } | Origin::Foreign => 0,
            };
            let record = StrayRecord {
                scope: scope.clone(),
                id: *id,
                name: orphan.name.clone(),
                boot_id: boot_id.to_owned(),
                first_seen: orphan.first_seen,
                lists,
                is_foreign: orphan.origin == Origin::Foreign,
            };
            (*id, record)
        };
        self.by_id.iter().map(record).collect()
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

    /// Applies a whole list, which was requested at `requested_at`. `owner` tells what is known of the runner
    /// that has a name. Returns the names that turn out to be another host's.
    pub(super) fn listed(
        &mut self,
        host: &HostId,
        list: &[ListedRunner],
        owner: impl Fn(&RunnerName) -> Owner,
        requested_at: Timestamp,
        now: Timestamp,
    ) -> Vec<RunnerName> {
        let named = |listed: &ListedRunner| {
            let name = RunnerName::parse(host, &listed.name)?;
            Some((listed.id, name))
        };
        self.listed = list.iter().filter_map(named).collect();
        let shown: BTreeSet<&RunnerName> = self.listed.values().collect();
        let is_recent = |since: Timestamp| now.since(since) < LIST_DELAY;
        let unconfirmed = std::mem::take(&mut self.unconfirmed);
        let (found, missing): (BTreeMap<_, _>, BTreeMap<_, _>) = unconfirmed
            .into_iter()
            .partition(|(name, _)| shown.contains(name));
        self.unconfirmed = missing;
        self.unconfirmed.retain(|_, since| is_recent(*since));
        self.ended
            .retain(|name, since| shown.contains(name) || is_recent(*since));
        let mut foreign = Vec::new();
        for listed in list {
            let Some(name) = self.listed.get(&listed.id) else {
                continue;
            };
            let owner = owner(name);
            // A busy runner has a job, even if this host lost track of it.
            let is_kept = owner == Owner::Runner || (listed.busy && !listed.online);
            if is_kept || (listed.busy && self.ended.contains_key(name)) {
                let is_forgettable =
                    |orphan: &Orphan| !orphan.pending && orphan.origin != Origin::Ended;
                if self.by_id.get(&listed.id).is_some_and(is_forgettable) {
                    self.by_id.remove(&listed.id);
                }
                continue;
            }
            let is_new = !self.by_id.contains_key(&listed.id);
            let origin = Origin::Stray { lists: 0 };
            let orphan = self.by_id.entry(listed.id);
            let orphan = orphan.or_insert_with(|| Orphan::new(name.clone(), origin, now));
            orphan.is_own |= is_new && found.contains_key(name);
            let was_foreign = orphan.origin == Origin::Foreign;
            orphan.listed(listed.online, owner, now);
            if orphan.origin == Origin::Foreign && !was_foreign {
                foreign.push(name.clone());
            }
        }
        // The lists of a stray must be in a row. A runner that ended is missing because GitHub removed
        // it, unless the list is older than that or late. A late one is found as a stray.
        let listed = &self.listed;
        self.by_id.retain(|id, orphan| {
            let may_be_late = orphan.origin == Origin::Ended
                && !orphan.was_listed
                && requested_at.since(orphan.first_seen) < backoff::LIST_GRACE;
            orphan.pending || may_be_late || listed.get(id) == Some(&orphan.name)
        });
        foreign
    }

    /// Returns the registrations to delete now, in the order in which to try them. The newest list shows
    /// each id under exactly the name that it should have.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Vec<RunnerId> {
        if now < self.deletions.retry_at {
            return Vec::new();
        }
        let mut due: Vec<(u32, RunnerId)> = self
            .deletable()
            .filter(|(_, orphan)| orphan.due_at().is_some_and(|at| now >= at))
            .map(|(id, orphan)| (orphan.failures, id))
            .collect();
        // One that always fails must not hold up the others.
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn deletable(&self) -> impl Iterator<Item = (RunnerId, &Orphan)> {
        let is_shown = |id: &RunnerId, orphan: &Orphan| {
            !orphan.pending && self.listed.get(id) == Some(&orphan.name)
        };
        let orphans = self.by_id.iter();
        orphans
            .filter(move |(id, orphan)| is_shown(id, orphan))
            .map(|(id, orphan)| (*id, orphan))
    }

    /// Returns the time at which [`Orphans::due`] returns more.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let due = self.deletable().filter_map(|(_, orphan)| orphan.due_at());
        due.min().map(|at| at.max(self.deletions.retry_at))
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

    /// Applies a deletion that GitHub answered.
    pub fn deletion_succeeded(&mut self, id: RunnerId) {
        self.remove(id);
        self.deletions = Deletions::default();
    }

    /// Delays the next deletion after one failed, at least by `requested`.
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
        }
        let failures = self.deletions.failures.saturating_add(1);
        let delay = backoff::delay(failures, random).max(requested.unwrap_or_default());
        self.deletions = Deletions {
            failures,
            retry_at: now + delay,
        };
    }

    /// Forgets all delays, because an operator says that the causes are fixed.
    pub fn reset_backoff(&mut self) {
        self.deletions = Deletions::default();
    }

    /// Returns the deletions that failed since the last one succeeded.
    #[must_use]
    pub fn deletions(&self) -> &Deletions {
        &self.deletions
    }

    /// Returns the registrations that are to be deleted.
    pub fn iter(&self) -> impl Iterator<Item = (RunnerId, &RunnerName)> {
        let is_left = |orphan: &Orphan| match orphan.origin {
            Origin::Ended | Origin::Stray { .. } => true,
            Origin::Online { .. } | Origin::Foreign => false,
        };
        let left = self.by_id.iter().filter(move |(_, o)| is_left(o));
        left.map(|(id, orphan)| (*id, &orphan.name))
    }

    /// Returns the registrations under this host's name that another host uses.
    pub fn foreign(&self) -> impl Iterator<Item = &RunnerName> {
        let foreign = self.by_id.values();
        let foreign = foreign.filter(|orphan| orphan.origin == Origin::Foreign);
        foreign.map(|orphan| &orphan.name)
    }

    /// Returns the times from which registrations of this daemon's mints have no runner, or may have
    /// none, oldest first. Old ones are left out, and those that the daemon only found.
    #[must_use]
    pub fn recent(&self, now: Timestamp) -> Vec<Timestamp> {
        let own = self.by_id.values().filter(|orphan| orphan.is_own);
        let own = own.map(|orphan| orphan.first_seen);
        let recent = own.chain(self.unconfirmed.values().copied());
        let mut recent: Vec<Timestamp> =
            recent.filter(|since| now.since(*since) < RECENT).collect();
        recent.sort_unstable();
        recent
    }

    /// Returns the number of registrations that have no runner, or may have none.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count() + self.unconfirmed.len()
    }

    /// Returns true if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
