//! Taking in what was there before this daemon: lives that go on, and lives that ended unseen.

use super::names::Slot;
use super::observation::{UnitObservation, UnitState};
use super::runner::{Ended, Phase, PhaseKind, Runner, RunnerRecord, Verdict};
use super::state::Pool;
use super::time::Timestamp;

impl Pool {
    /// Takes in a life that was there before this daemon: its unit, its record if there is one, and
    /// whether its root waits for an answer now. Evidence that contradicts the record wins.
    pub fn adopt(
        &mut self,
        observation: UnitObservation,
        record: Option<RunnerRecord>,
        asked: bool,
        now: Timestamp,
    ) {
        let slot = observation.slot.slot;
        let record = record.filter(|record| {
            record.invocation.is_none() || record.invocation == observation.invocation
        });
        let mut runner = Runner::new(slot, Phase::Booting, now);
        runner.invocation.clone_from(&observation.invocation);
        runner.active = observation.state == UnitState::Active;
        if let Some(start) = &observation.start {
            runner.generation = Some(start.generation.clone());
            runner.started_at = start.at.min(now);
        }
        let recorded = record
            .as_ref()
            .map(|record| (record.phase, record.since.min(now)));
        let since = recorded.map_or(runner.started_at, |(_, since)| since);
        if let Some(record) = &record {
            runner.started_at = runner.started_at.min(record.started_at);
        }
        runner.phase = match recorded {
            _ if asked && runner.active => Phase::Spare,
            Some((PhaseKind::Busy, _)) => Phase::Busy,
            Some((PhaseKind::Idle, _)) => Phase::Idle,
            Some((PhaseKind::Registering | PhaseKind::Retiring, _)) => Phase::Registering,
            // It may have been answered in the moment the last daemon ended.
            Some((PhaseKind::Spare | PhaseKind::Minting, _)) => Phase::Registering,
            // It may still ask; if it does not, it was answered.
            Some((PhaseKind::Booting, _)) | None if runner.active => Phase::Registering,
            Some((PhaseKind::Booting, _)) | None => Phase::Booting,
        };
        runner.since = since;
        if let Some(record) = record
            && runner.phase != Phase::Spare
        {
            runner.registration = record.registration;
            runner.job = record.job;
            if runner.job.is_some() {
                runner.phase = Phase::Busy;
            }
        }
        if asked {
            self.waiting.insert(slot);
        } else {
            self.waiting.remove(&slot);
        }
        self.runners.insert(slot, runner);
    }

    /// A life that a record tells of, and whose unit is gone: judged by what root wrote.
    pub fn bury(
        &mut self,
        slot: Slot,
        record: RunnerRecord,
        observation: UnitObservation,
        rebooted: bool,
        now: Timestamp,
        random: u32,
    ) -> Option<Ended> {
        let mut runner = Runner::new(slot, Phase::Registering, record.since);
        runner.phase = match record.phase {
            PhaseKind::Booting => Phase::Booting,
            PhaseKind::Spare => Phase::Spare,
            PhaseKind::Minting => Phase::Minting,
            PhaseKind::Idle => Phase::Idle,
            PhaseKind::Busy => Phase::Busy,
            // The record does not say for which cause it was being ended.
            PhaseKind::Registering | PhaseKind::Retiring => Phase::Registering,
        };
        runner.started_at = record.started_at;
        runner.invocation = record.invocation;
        runner.registration = record.registration;
        runner.job = record.job;
        self.runners.insert(slot, runner);
        let own = observation.end.filter(|end| {
            self.runners.get(&slot).is_some_and(|runner| {
                runner
                    .invocation
                    .as_ref()
                    .is_none_or(|known| *known == end.invocation)
            })
        });
        let mut closed = self.close(slot, own, now, random)?;
        if rebooted {
            closed.verdict = Verdict::HostRestart;
            closed.orphan.clone_from(&closed.runner.registration);
        }
        Some(closed)
    }
}
