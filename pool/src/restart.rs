//! Adoption after a restart: the pools of a new daemon, from everything that it finds.

use std::collections::{BTreeMap, BTreeSet};

use super::adopt::ConfigState;
use super::effect::Effect;
use super::names::{RunnerName, SlotId};
use super::observation::{EndRecord, JobNote, UnitObservation};
use super::orphans::StrayRecord;
use super::pools::Pools;
use super::runner::{Job, PhaseKind, RunnerRecord};
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
    /// Last verdicts on record; `None` if they cannot be read.
    pub verdicts: Option<Vec<VerdictRecord>>,
    /// Every unit, observed after everything else was found.
    pub units: Vec<UnitObservation>,
    /// Slots whose container waits for a JIT config.
    pub waiting: BTreeSet<SlotId>,
    /// Slots whose container surely has no JIT config.
    pub without_config: BTreeSet<SlotId>,
    /// Job-started reports, each of the newest runner of its slot.
    pub notes: BTreeMap<SlotId, JobNote>,
}

impl Pools {
    /// Adopts the runners whose units are alive, and judges those that ended without a daemon.
    ///
    /// A job is never ended by this. A runner that may have got its JIT config counts as registered, so
    /// that GitHub is asked before it ends. One that surely has none is still booting. Every runner that is on record, or in root's records and not
    /// judged yet, gets its verdict.
    #[must_use]
    pub fn adopt(&mut self, found: Found, now: Timestamp, random: u32) -> Vec<Effect> {
        let Found {
            records,
            strays,
            verdicts,
            units,
            waiting,
            without_config,
            mut notes,
        } = found;
        for verdict in verdicts.iter().flatten() {
            let name = verdict.runner.as_ref();
            if let Some(name) = name.and_then(|name| RunnerName::parse(&self.host, name)) {
                self.add_ended(&name, now);
            }
        }
        self.restore_strays(strays);
        let mut effects = Vec::new();
        let mut records: BTreeMap<SlotId, RunnerRecord> = records
            .into_iter()
            .map(|record| (record.slot.clone(), record))
            .collect();
        let (alive, gone): (Vec<_>, Vec<_>) =
            units.into_iter().partition(UnitObservation::is_alive);
        for unit in alive {
            let is_own = |record: &RunnerRecord| {
                let is_start = record.invocation.is_none() || record.invocation == unit.invocation;
                record.boot_id == self.boot_id && is_start
            };
            let record = match records.remove(&unit.slot) {
                Some(record) if is_own(&record) => Some(record),
                // Another runner was in the slot before this one.
                Some(record) => {
                    effects.push(self.judge_recorded(record, None, now, random));
                    None
                }
                None => None,
            };
            let config = if waiting.contains(&unit.slot) {
                ConfigState::Requested
            } else if without_config.contains(&unit.slot) {
                ConfigState::NotGiven
            } else {
                ConfigState::Unknown
            };
            effects.extend(self.adopt_alive(unit, record, config, now));
        }
        let mut gone: BTreeMap<SlotId, UnitObservation> = gone
            .into_iter()
            .map(|unit| (unit.slot.clone(), unit))
            .collect();
        for (slot, mut record) in records {
            // It started and ended without a daemon. A slot's report is of its newest runner, because
            // the preparation of a slot forgets the report of the runner before.
            if let Some(note) = notes.remove(&slot)
                && record.job.is_none()
            {
                record.job = Some(Job { note, since: now });
            }
            // The newest end may be that of a later runner, or that of an earlier one if the start
            // failed.
            let is_this_boot = record.boot_id == self.boot_id;
            let is_own = |unit: &UnitObservation| match (&record.invocation, &unit.end) {
                (_, None) => true,
                (Some(known), Some(end)) => *known == end.invocation,
                (None, Some(end)) => {
                    is_this_boot
                        && end.at >= record.started_at
                        && !is_judged(verdicts.as_deref().unwrap_or_default(), end)
                }
            };
            let unit = gone
                .get(&slot)
                .is_some_and(is_own)
                .then(|| gone.remove(&slot));
            effects.push(self.judge_recorded(record, unit.flatten(), now, random));
        }
        if let Some(verdicts) = verdicts {
            for unit in gone.into_values() {
                let record = self.unrecorded(&unit, &verdicts, &mut notes);
                if let Some(record) = record {
                    effects.push(self.judge_recorded(record, Some(unit), now, random));
                }
            }
        }
        for (slot, note) in notes {
            effects.extend(self.job_started(&slot, note, now));
        }
        effects
    }

    fn adopt_alive(
        &mut self,
        unit: UnitObservation,
        record: Option<RunnerRecord>,
        config: ConfigState,
        now: Timestamp,
    ) -> Vec<Effect> {
        let slot = unit.slot.clone();
        let unconfigured = self.unconfigured(&slot.pool);
        self.by_name
            .entry(slot.pool.clone())
            .or_insert_with(|| Pool::new(unconfigured))
            .adopt(unit, record, config, now);
        let record = self.record(&slot).map(Box::new).map(Effect::Record);
        std::iter::once(Effect::Adopted(slot))
            .chain(record)
            .collect()
    }

    /// Returns a record for a runner that only root recorded and that has no verdict yet: the earlier
    /// daemon could not write that it began.
    fn unrecorded(
        &self,
        unit: &UnitObservation,
        verdicts: &[VerdictRecord],
        notes: &mut BTreeMap<SlotId, JobNote>,
    ) -> Option<RunnerRecord> {
        let end = unit.end.as_ref()?;
        if is_judged(verdicts, end) {
            return None;
        }
        let start = unit.start.as_ref();
        let start = start.filter(|start| start.invocation == end.invocation);
        let started_at = start.map_or(end.at, |start| start.at);
        let job = notes.remove(&unit.slot).map(|note| Job {
            note,
            since: started_at,
        });
        Some(RunnerRecord {
            slot: unit.slot.clone(),
            boot_id: self.boot_id.clone(),
            invocation: Some(end.invocation.clone()),
            phase: PhaseKind::Registering,
            since: started_at,
            started_at,
            registration: None,
            job,
        })
    }

    fn judge_recorded(
        &mut self,
        record: RunnerRecord,
        unit: Option<UnitObservation>,
        now: Timestamp,
        random: u32,
    ) -> Effect {
        let is_rebooted = record.boot_id != self.boot_id;
        let end = unit.and_then(|unit| unit.end);
        let name = record.slot.pool.clone();
        // A runner of a pool that is not configured any more gets its verdict too.
        let mut unconfigured = Pool::new(self.unconfigured(&name));
        let pool = self.by_name.get_mut(&name);
        let pool = pool.unwrap_or(&mut unconfigured);
        let ended = pool.adopt_ended(record, end, is_rebooted, now, random);
        self.end(ended, now)
    }
}

/// Returns true if the runner of an end record has its verdict.
fn is_judged(verdicts: &[VerdictRecord], end: &EndRecord) -> bool {
    let mut judged = verdicts.iter().filter_map(|v| v.invocation.as_ref());
    judged.any(|invocation| *invocation == end.invocation)
}
