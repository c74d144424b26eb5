//! Restarts of the daemon, and all that a restart can cut off.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The way in which a daemon ends, and with it its answers, events and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tests) enum Stop {
    /// It finishes its calls and its writes.
    Orderly,
    /// It is killed. `choice` decides how far each call and write came.
    Killed { choice: usize },
    /// The host restarts, and nothing but the disk and GitHub remains.
    Reboot { choice: usize },
}

impl World {
    /// Ends the daemon and starts the next one, which adopts what it finds.
    pub(in crate::tests) fn restart(&mut self, stop: Stop, is_disk_readable: bool) {
        let keeps_notes = match stop {
            Stop::Orderly => {
                // Events that no answer follows are lost, as after a kill.
                while let Some(answer) = self.mail.iter().rposition(|m| !m.is_event()) {
                    for _ in 0..=answer {
                        if let Some(message) = self.mail.pop_front() {
                            self.deliver(message);
                        }
                    }
                }
                self.write_all();
                true
            }
            Stop::Killed { choice } => {
                self.interrupt(choice);
                choice.is_multiple_of(2)
            }
            Stop::Reboot { choice } => {
                self.interrupt(choice);
                self.lose_power();
                false
            }
        };
        self.mail.clear();
        self.find_untraceable();
        let machines = self.machines.iter();
        let waiting = machines
            .filter(|(_, machine)| machine.is_waiting())
            .map(|(slot, _)| slot_id(*slot))
            .collect();
        let machines = self.machines.iter();
        let without_config = machines
            .filter(|(_, machine)| machine.registered.is_none() && !machine.requested)
            .map(|(slot, _)| slot_id(*slot))
            .collect();
        let notes = self.notes.iter().filter(|_| keeps_notes);
        let records: Vec<RunnerRecord> = self.disk.records.values().cloned().collect();
        let found = Found {
            records: if is_disk_readable {
                records
            } else {
                Vec::new()
            },
            strays: if is_disk_readable {
                self.disk.strays.values().cloned().collect()
            } else {
                Vec::new()
            },
            verdicts: if is_disk_readable {
                self.disk.verdicts.clone()
            } else {
                Vec::new()
            },
            ends: self.recorded_ends(),
            judged: is_disk_readable.then(|| self.judged()),
            units: self.observe_all(),
            waiting,
            without_config,
            notes: notes
                .map(|slot| (slot_id(*slot), JobNote::default()))
                .collect(),
        };
        self.recorded = if is_disk_readable {
            self.disk.records.clone()
        } else {
            BTreeMap::new()
        };
        self.ended.clear();
        self.pools = Pools::new(
            host(),
            format!("boot-{}", self.boot),
            [(scope(), pace())],
            [self.spec.clone()],
        );
        let effects = self.pools.adopt(found, self.now, 7);
        let is_call = |effect: &Effect| matches!(effect, Effect::Step(..) | Effect::Delete(..));
        assert!(!effects.iter().any(is_call), "adoption calls: {effects:?}");
        self.carry_out(effects);
        self.check_records();
        self.check_adoption(keeps_notes);
        if is_disk_readable {
            self.check_all_judged();
        }
    }

    /// Cuts off what a killed daemon had begun: writes, and mints.
    fn interrupt(&mut self, choice: usize) {
        // Half of the daemons are killed before they wrote anything.
        let written = choice % (2 * self.disk.pending.len() + 1);
        self.write(written.saturating_sub(self.disk.pending.len()));
        self.disk.pending.clear();
        for (index, message) in self.mail.iter().enumerate() {
            let Message::Minted(slot, _, MintOutcome::Delivered { id }) = message else {
                continue;
            };
            let Some(machine) = self.machines.get_mut(slot) else {
                continue;
            };
            if machine.registered != Some(*id) || machine.job {
                continue;
            }
            match (choice + index) % 3 {
                // GitHub did not get the request.
                0 => {
                    machine.registered = None;
                    self.github.remove(id);
                }
                // The container did not get the config.
                1 => machine.registered = None,
                _ => {}
            }
        }
    }

    fn lose_power(&mut self) {
        for machine in std::mem::take(&mut self.machines).into_values() {
            // GitHub fails the job and removes its runner after a while.
            if machine.job
                && let Some(id) = machine.registered
            {
                self.github.remove(&id);
            }
        }
        self.ends.clear();
        self.notes.clear();
        self.boot += 1;
        self.now = Timestamp::from_millis(1000);
    }

    /// Finds the ended starts that neither the disk nor root tells a new daemon.
    fn find_untraceable(&mut self) {
        let judged = self.judged();
        let is_traced = |invocation: &Invocation, slot: &Slot| {
            let record = self.disk.records.get(slot);
            let recorded = record.and_then(|record| record.invocation.as_ref());
            let mut ends = self.ends.get(slot).into_iter().flatten();
            recorded == Some(invocation) || ends.any(|end| end.invocation == *invocation)
        };
        let alive: BTreeSet<&Invocation> = self.machines.values().map(|m| &m.invocation).collect();
        let untraceable = self.starts.iter().filter(|(invocation, slot)| {
            let is_known = alive.contains(invocation) || judged.contains(invocation);
            !is_known && !is_traced(invocation, slot)
        });
        let untraceable: Vec<Invocation> = untraceable.map(|(i, _)| i.clone()).collect();
        self.untraceable.extend(untraceable);
    }

    fn recorded_ends(&self) -> Vec<RecordedEnd> {
        let ends = self.ends.iter();
        let ends = ends.flat_map(|(slot, ends)| ends.iter().map(|end| (slot_id(*slot), end)));
        let ends = ends.map(|(slot, end)| RecordedEnd {
            slot,
            start: None,
            end: end.clone(),
        });
        ends.collect()
    }

    /// Returns the starts that have a verdict on disk.
    fn judged(&self) -> BTreeSet<Invocation> {
        let verdicts = self.disk.verdicts.iter();
        verdicts.filter_map(|v| v.invocation.clone()).collect()
    }
}
