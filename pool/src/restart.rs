//! Adoption after a restart: the pools of a new daemon, from everything that it finds.

use std::collections::{BTreeMap, BTreeSet};

use super::adopt::ConfigState;
use super::effect::Effect;
use super::names::{RunnerName, SlotId};
use super::observation::{EndRecord, Invocation, JobNote, RecordedEnd, UnitObservation};
use super::orphans::StrayRecord;
use super::phase::PhaseKind;
use super::pools::Pools;
use super::runner::{Job, RunnerRecord};
use super::state::Pool;
use super::time::Timestamp;
use super::verdict::VerdictRecord;

/// Everything that a new daemon finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Runners on record.
    pub records: Vec<RunnerRecord>,
    /// Orphaned registrations on record.
    pub strays: Vec<StrayRecord>,
    /// Last verdicts on record. Their runners' names are not used again.
    pub verdicts: Vec<VerdictRecord>,
    /// Every end of this boot that root has on record, read before the units were observed.
    pub ends: Vec<RecordedEnd>,
    /// Every unit, observed after everything else was found.
    pub units: Vec<UnitObservation>,
    /// Starts that have a verdict, among those that ended; `None` if the records do not tell it.
    pub judged: Option<BTreeSet<Invocation>>,
    /// Slots whose container waits for a JIT config.
    pub waiting: BTreeSet<SlotId>,
    /// Slots whose container surely has no JIT config.
    pub without_config: BTreeSet<SlotId>,
    /// Job-started reports, each of the newest runner of its slot.
    pub notes: BTreeMap<SlotId, JobNote>,
}

/// Everything that a new daemon finds of one slot.
#[derive(Default)]
struct FoundSlot {
    record: Option<RunnerRecord>,
    /// The unit, if it is alive.
    alive: Option<(UnitObservation, ConfigState)>,
    /// Ends by their starts, without that of the unit if it is alive.
    ends: BTreeMap<Invocation, RecordedEnd>,
    note: Option<JobNote>,
}

/// A runner that ended without a daemon.
struct PastRunner {
    record: RunnerRecord,
    end: Option<EndRecord>,
    /// Time of its end, or of its start if root has no record of its end.
    at: Timestamp,
    /// True if it has its verdict; `None` if the records do not tell it.
    is_judged: Option<bool>,
}

impl Pools {
    /// Adopts the runners whose units are alive, and judges those that ended without a daemon.
    ///
    /// A job is never ended by this. A runner that may have got its JIT config counts as registered, so
    /// that GitHub is asked before it ends. One that surely has none is still booting. Every runner that is on record, or in root's records and not
    /// judged yet, gets its verdict.
    #[must_use]
    pub fn adopt(&mut self, mut found: Found, now: Timestamp, random: u32) -> Vec<Effect> {
        for verdict in &found.verdicts {
            let name = verdict.runner.as_ref();
            if let Some(name) = name.and_then(|name| RunnerName::parse(&self.host, name)) {
                self.add_ended(&name, now);
            }
        }
        self.restore_strays(std::mem::take(&mut found.strays));
        let judged = found.judged.take();
        let mut effects = Vec::new();
        for (slot, found) in by_slot(found) {
            effects.extend(self.adopt_slot(&slot, found, judged.as_ref(), now, random));
        }
        effects
    }

    /// Judges the earlier runners of a slot, the newest last, and then adopts the one that is alive.
    fn adopt_slot(
        &mut self,
        slot: &SlotId,
        found: FoundSlot,
        judged: Option<&BTreeSet<Invocation>>,
        now: Timestamp,
        random: u32,
    ) -> Vec<Effect> {
        let FoundSlot {
            record,
            alive,
            ends,
            note,
        } = found;
        let is_alive = alive.is_some();
        let ends = ends.into_values();
        let mut past: Vec<PastRunner> = ends.map(|end| self.unrecorded(end, judged)).collect();
        past.sort_by_key(|runner| runner.at);
        let record = record.and_then(|record| {
            let unit = alive.as_ref().map(|(unit, _)| unit);
            self.assign(record, unit, &mut past)
        });
        // The preparation of a slot forgets the report of the runner before.
        let note = if let Some(newest) = past.last_mut().filter(|_| !is_alive) {
            if newest.record.job.is_none() {
                let since = newest.record.since;
                newest.record.job = note.map(|note| Job { note, since });
            }
            None
        } else {
            note
        };
        if is_alive {
            let unconfigured = self.unconfigured(&slot.pool);
            self.by_name
                .entry(slot.pool.clone())
                .or_insert_with(|| Pool::new(unconfigured));
        }
        let mut effects = Vec::new();
        for runner in past
            .into_iter()
            .filter(|runner| runner.is_judged == Some(false))
        {
            effects.push(self.judge_recorded(runner.record, runner.end, now, random));
        }
        if let Some((unit, config)) = alive {
            effects.extend(self.adopt_alive(unit, record, config, now));
        }
        if let Some(note) = note {
            effects.extend(self.job_started(slot, note, now));
        }
        effects
    }

    /// Gives a record to the runner that it describes: one that ended, or the one that is alive, whose
    /// record is returned.
    fn assign(
        &self,
        record: RunnerRecord,
        alive: Option<&UnitObservation>,
        past: &mut Vec<PastRunner>,
    ) -> Option<RunnerRecord> {
        let is_this_boot = record.boot_id == self.boot_id;
        let is_own = |runner: &PastRunner| match &record.invocation {
            Some(_) => record.invocation == runner.record.invocation,
            // It ended before a daemon saw it alive. Later ends are those of later runners.
            None => runner.at >= record.started_at && runner.is_judged != Some(true),
        };
        let own = past
            .iter_mut()
            .find(|runner| is_this_boot && is_own(runner));
        if let Some(own) = own {
            (own.record, own.is_judged) = (record, Some(false));
            return None;
        }
        let is_start = |unit: &UnitObservation| {
            record.invocation.is_none() || record.invocation == unit.invocation
        };
        if is_this_boot && alive.is_some_and(is_start) {
            return Some(record);
        }
        // Root has no record of its end, or the host restarted since.
        let at = if is_this_boot {
            record.started_at
        } else {
            Timestamp::default()
        };
        let index = past.partition_point(|runner| runner.at < at);
        past.insert(
            index,
            PastRunner {
                record,
                end: None,
                at,
                is_judged: Some(false),
            },
        );
        None
    }

    fn adopt_alive(
        &mut self,
        unit: UnitObservation,
        record: Option<RunnerRecord>,
        config: ConfigState,
        now: Timestamp,
    ) -> Vec<Effect> {
        let slot = unit.slot.clone();
        if let Some(pool) = self.by_name.get_mut(&slot.pool) {
            pool.adopt(unit, record, config, now);
        }
        let record = self.record(&slot).map(Box::new).map(Effect::Record);
        std::iter::once(Effect::Adopted(slot))
            .chain(record)
            .collect()
    }

    /// Returns a runner that only root recorded: the earlier daemon could not write that it began.
    fn unrecorded(&self, ended: RecordedEnd, judged: Option<&BTreeSet<Invocation>>) -> PastRunner {
        let RecordedEnd { slot, start, end } = ended;
        let started_at = start.map_or(end.at, |start| start.at);
        PastRunner {
            record: RunnerRecord {
                slot,
                boot_id: self.boot_id.clone(),
                invocation: Some(end.invocation.clone()),
                phase: PhaseKind::Registering,
                since: started_at,
                started_at,
                timeline: None,
                registration: None,
                job: None,
            },
            at: end.at,
            is_judged: judged.map(|judged| judged.contains(&end.invocation)),
            end: Some(end),
        }
    }

    fn judge_recorded(
        &mut self,
        record: RunnerRecord,
        end: Option<EndRecord>,
        now: Timestamp,
        random: u32,
    ) -> Effect {
        let is_rebooted = record.boot_id != self.boot_id;
        let name = record.slot.pool.clone();
        // A runner of a pool that is not configured any more gets its verdict too.
        let mut unconfigured = Pool::new(self.unconfigured(&name));
        let pool = self.by_name.get_mut(&name);
        let pool = pool.unwrap_or(&mut unconfigured);
        let ended = pool.adopt_ended(record, end, is_rebooted, now, random);
        self.end(ended, now)
    }
}

/// Returns what was found by slots.
fn by_slot(found: Found) -> BTreeMap<SlotId, FoundSlot> {
    let Found {
        records,
        strays: _,
        verdicts: _,
        ends,
        units,
        judged: _,
        waiting,
        without_config,
        notes,
    } = found;
    let mut slots: BTreeMap<SlotId, FoundSlot> = BTreeMap::new();
    for record in records {
        let slot = slots.entry(record.slot.clone()).or_default();
        slot.record = Some(record);
    }
    for ended in ends {
        let slot = slots.entry(ended.slot.clone()).or_default();
        slot.ends.insert(ended.end.invocation.clone(), ended);
    }
    for (slot, note) in notes {
        slots.entry(slot).or_default().note = Some(note);
    }
    for unit in units {
        let found = slots.entry(unit.slot.clone()).or_default();
        if unit.is_alive() {
            // Root writes the end before the unit is gone. The signal of that will be its end.
            if let Some(invocation) = &unit.invocation {
                found.ends.remove(invocation);
            }
            let config = if waiting.contains(&unit.slot) {
                ConfigState::Requested
            } else if without_config.contains(&unit.slot) {
                ConfigState::NotGiven
            } else {
                ConfigState::Unknown
            };
            found.alive = Some((unit, config));
        } else if let Some(end) = unit.end {
            // It may have ended after the ends were read.
            let start = unit.start;
            let start = start.filter(|start| start.invocation == end.invocation);
            let invocation = end.invocation.clone();
            let slot = unit.slot;
            found
                .ends
                .entry(invocation)
                .or_insert(RecordedEnd { slot, start, end });
        }
    }
    slots
}
