//! Records and verdicts, and the excuses for a verdict that is missing.

use std::collections::{BTreeMap, BTreeSet};

use runner_controller::pool::{Invocation, SlotId};

use super::checked::{Checked, violated};
use super::containers::Containers;
use crate::event::short;
use crate::host::RECORDS_KEPT;
use crate::invariant::Invariant;

/// Maximum age of a container of which nothing may be on disk yet when the power goes, in milliseconds.
const UNWRITTEN_MS: u64 = 5_000;
/// Time for which records must have been writable, so that the daemon has written everything it knows.
const WRITTEN_AFTER_MS: u64 = 3_000;

/// Records and verdicts.
pub(super) struct Verdicts {
    /// The start that each slot's record names.
    records: BTreeMap<SlotId, Option<Invocation>>,
    /// Number of verdicts by the start that they name.
    named: BTreeMap<Invocation, u64>,
    /// Number of verdicts that name no start, by slot.
    nameless: BTreeMap<SlotId, usize>,
    /// Starts of which the disk knows nothing after a power cut or an interrupted write.
    excused: BTreeSet<Invocation>,
    /// The last time at which the daemon lost what it knew: it ended while records could not be written, or started
    /// while they could not be read.
    forgot_at: Option<u64>,
    /// The starts whose ends the newest daemon read in root's records, so that it forgot none of them.
    found: BTreeSet<Invocation>,
    /// The time since which records can be written.
    writable_since: Option<u64>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            records: BTreeMap::new(),
            named: BTreeMap::new(),
            nameless: BTreeMap::new(),
            excused: BTreeSet::new(),
            forgot_at: None,
            found: BTreeSet::new(),
            writable_since: Some(0),
        }
    }
}

impl Verdicts {
    /// Returns the start that each slot's record names.
    pub(super) fn records(&self) -> &BTreeMap<SlotId, Option<Invocation>> {
        &self.records
    }

    /// Returns the time since which records can be written.
    pub(super) fn writable_since(&self) -> Option<u64> {
        self.writable_since
    }

    pub(super) fn records_writable(&mut self, writable: bool, now: u64) {
        if writable {
            self.writable_since.get_or_insert(now);
        } else {
            self.writable_since = None;
        }
    }

    /// A daemon that ends while records cannot be written takes what it knows with it.
    pub(super) fn daemon_ended(&mut self, now: u64) {
        let written = |since| now - since > WRITTEN_AFTER_MS;
        if !self.writable_since.is_some_and(written) {
            self.forgot_at = Some(now);
        }
    }

    /// A daemon starts, and finds the ends that root has on record.
    pub(super) fn daemon_started(&mut self, containers: &Containers) {
        let mut seen: BTreeMap<&SlotId, usize> = BTreeMap::new();
        self.found.clear();
        // Starts are numbered, so the newest comes first.
        for (invocation, start) in containers.starts().iter().rev() {
            let newer = seen.entry(&start.slot).or_default();
            if start.recorded && *newer < RECORDS_KEPT {
                self.found.insert(invocation.clone());
            }
            *newer += 1;
        }
    }

    /// A daemon that starts without its records cannot know which containers have their verdicts.
    pub(super) fn records_unreadable(&mut self, now: u64) {
        self.forgot_at = Some(now);
        self.found.clear();
    }

    /// The host boots. Of a container that had just started there may be nothing on disk.
    pub(super) fn host_rebooted(&mut self, containers: &Containers, now: u64) {
        let starts = containers.starts().iter();
        let fresh = starts.filter(|(_, start)| now - start.began < UNWRITTEN_MS);
        self.excused
            .extend(fresh.map(|(invocation, _)| invocation.clone()));
    }

    pub(super) fn record_written(&mut self, slot: &SlotId, invocation: Option<&Invocation>) {
        self.records.insert(slot.clone(), invocation.cloned());
    }

    pub(super) fn record_removed(&mut self, slot: &SlotId) {
        self.records.remove(slot);
    }

    /// A power cut undid a change of a record. If the record no longer names a start, no verdict may follow.
    pub(super) fn record_reverted(&mut self, lost: Option<&Invocation>, kept: Option<&Invocation>) {
        self.excused.extend(lost.filter(|_| lost != kept).cloned());
    }

    /// The daemon ended while it wrote a verdict. If the record does not name the same start, because that write was
    /// cut off too, the next start in the slot passes for it.
    pub(super) fn interrupted(&mut self, slot: &SlotId, invocation: Option<&Invocation>) {
        let recorded = self.records.get(slot).and_then(Option::as_ref);
        self.excused
            .extend(invocation.filter(|_| recorded != invocation).cloned());
    }

    /// A verdict was written.
    pub(super) fn written(
        &mut self,
        slot: &SlotId,
        invocation: Option<&Invocation>,
        containers: &Containers,
    ) -> Checked {
        let Some(invocation) = invocation else {
            *self.nameless.entry(slot.clone()).or_default() += 1;
            return Ok(());
        };
        let count = self.named.entry(invocation.clone()).or_default();
        *count += 1;
        let facts = format!("{slot} {}", short(invocation));
        if *count > 1 {
            return violated(Invariant::JudgedOnce, facts);
        }
        let start = containers.starts().get(invocation);
        if !start.is_some_and(|start| start.ended) {
            return violated(Invariant::JudgedAfterEnd, facts);
        }
        Ok(())
    }

    /// A power cut undid the writing of a verdict. Without the record the daemon cannot write it again.
    pub(super) fn lost(
        &mut self,
        slot: &SlotId,
        invocation: Option<&Invocation>,
        record_restored: bool,
    ) {
        let Some(invocation) = invocation else {
            if let Some(count) = self.nameless.get_mut(slot) {
                *count = count.saturating_sub(1);
            }
            return;
        };
        if let Some(count) = self.named.get_mut(invocation) {
            *count = count.saturating_sub(1);
        }
        if !record_restored {
            self.excused.insert(invocation.clone());
        }
    }

    /// Checks that every container that ended has a verdict.
    pub(super) fn check_complete(&self, containers: &Containers) -> Checked {
        let mut missing: BTreeMap<&SlotId, Vec<&Invocation>> = BTreeMap::new();
        for (invocation, start) in containers.starts() {
            let named = self.named.get(invocation).is_some_and(|count| *count > 0);
            let excused = self.excused.contains(invocation);
            let forgotten = self.forgot_at.is_some_and(|at| start.began <= at)
                && !self.found.contains(invocation);
            if start.ended && !named && !excused && !forgotten {
                missing.entry(&start.slot).or_default().push(invocation);
            }
        }
        for (slot, missing) in missing {
            // A verdict without a name may be about any start in its slot.
            if self.nameless.get(slot).copied().unwrap_or(0) < missing.len() {
                let names: Vec<String> = missing.into_iter().map(short).collect();
                let facts = format!("{slot}: none on {}", names.join(", "));
                return violated(Invariant::Judged, facts);
            }
        }
        Ok(())
    }
}
