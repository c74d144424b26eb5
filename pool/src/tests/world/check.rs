//! Invariants of the world.

use std::collections::BTreeSet;

use super::*;

impl World {
    /// Checks that the effects keep the record of every slot up to date.
    pub(super) fn check_records(&self) {
        for slot in Slot::first(Slot::MAX).take(usize::from(self.spec.numbers.max_runners)) {
            let known = self.pools.record(&slot_id(slot));
            assert_eq!(self.recorded.get(&slot), known.as_ref(), "slot {slot}");
        }
    }

    /// Checks the runners of a new daemon.
    pub(super) fn check_adoption(&self, keeps_notes: bool) {
        for slot in Slot::first(self.spec.numbers.max_runners) {
            let runner = self.pool().runners.get(&slot);
            let Some(machine) = self.machines.get(&slot) else {
                assert_eq!(runner, None, "no container is there");
                continue;
            };
            let runner = runner.expect("every container is adopted");
            assert_eq!(runner.invocation.as_ref(), Some(&machine.invocation));
            let phase = runner.phase.kind();
            if machine.is_waiting() && machine.active {
                assert_eq!(phase, PhaseKind::Spare, "it waits for a config");
            }
            if machine.job && keeps_notes && self.notes.contains(&slot) {
                assert_eq!(phase, PhaseKind::Busy, "it has a job: {machine:?}");
            }
            if machine.registered.is_some() {
                let may_be_registered =
                    [PhaseKind::Registering, PhaseKind::Idle, PhaseKind::Busy].contains(&phase);
                // A container that boots may have got its config, and is not known to have it.
                assert!(may_be_registered || !machine.active, "{runner:?}");
            }
        }
    }

    /// Checks that a new daemon has judged every start that left a trace.
    pub(super) fn check_all_judged(&self) {
        let alive = self.machines.values().map(|m| &m.invocation);
        let judged = self.disk.verdicts.iter();
        let judged = judged.filter_map(|verdict| verdict.invocation.as_ref());
        let ended = self.ended.iter();
        let ended = ended.filter_map(|ended| ended.runner.invocation.as_ref());
        let known: BTreeSet<&Invocation> = alive.chain(judged).chain(ended).collect();
        for (invocation, slot) in &self.starts {
            let is_known = known.contains(invocation) || self.untraceable.contains(invocation);
            assert!(is_known, "{invocation} in slot {slot} has no verdict");
        }
    }

    /// Checks that every start that ended has one verdict, and the others have none.
    pub(in crate::tests) fn check_verdicts(&self) {
        let count = |invocation: &Invocation| {
            let verdicts = self.disk.verdicts.iter();
            verdicts
                .filter(|verdict| verdict.invocation.as_ref() == Some(invocation))
                .count()
        };
        let alive: BTreeSet<&Invocation> = self.machines.values().map(|m| &m.invocation).collect();
        for (invocation, slot) in &self.starts {
            let verdicts = count(invocation);
            if alive.contains(invocation) {
                assert_eq!(verdicts, 0, "{invocation} in slot {slot} has not ended");
            } else if self.untraceable.contains(invocation) {
                assert!(verdicts <= 1, "{invocation} in slot {slot}");
            } else {
                assert_eq!(verdicts, 1, "{invocation} in slot {slot}");
            }
        }
    }
}
