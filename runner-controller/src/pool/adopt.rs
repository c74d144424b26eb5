//! Taking in what was there before this daemon: lives that go on, and lives that ended unseen.

use super::names::Slot;
use super::observation::{Invocation, UnitObservation, UnitState};
use super::runner::{Closed, Job, Phase, Registration, Runner, Verdict};
use super::state::Pool;
use super::time::Timestamp;

/// What a record of ours says of a life that was there before this daemon started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The start it was about.
    pub invocation: Option<Invocation>,
    /// The phase's name at the time.
    pub phase: String,
    /// Since when.
    pub since: Timestamp,
    /// When it was started.
    pub started_at: Timestamp,
    /// Its registration.
    pub registration: Option<Registration>,
    /// Its job.
    pub job: Option<Job>,
}

impl Pool {
    /// Takes in a life that was there before this daemon: its unit, its record if there is one, and
    /// whether its root waits for an answer now. Evidence that contradicts the record wins.
    pub fn adopt(
        &mut self,
        observation: UnitObservation,
        record: Option<Adopted>,
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
            .map(|record| (record.phase.as_str(), record.since.min(now)));
        let since = recorded.map_or(runner.started_at, |(_, since)| since);
        if let Some(record) = &record {
            runner.started_at = runner.started_at.min(record.started_at);
        }
        runner.phase = match recorded {
            _ if asked && runner.active => Phase::Spare,
            Some(("busy", _)) => Phase::Busy,
            Some(("idle", _)) => Phase::Idle,
            Some(("registering" | "retiring", _)) => Phase::Registering,
            // It may have been answered in the moment the last daemon ended.
            Some(("spare" | "minting", _)) => Phase::Registering,
            // It may still ask; if it does not, it was answered.
            Some(_) | None if runner.active => Phase::Registering,
            Some(_) | None => Phase::Booting,
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
        record: Adopted,
        observation: UnitObservation,
        rebooted: bool,
        now: Timestamp,
        random: u32,
    ) -> Option<Closed> {
        let mut runner = Runner::new(slot, Phase::Registering, record.since);
        runner.phase = match record.phase.as_str() {
            "booting" => Phase::Booting,
            "spare" => Phase::Spare,
            "minting" => Phase::Minting,
            "idle" => Phase::Idle,
            "busy" => Phase::Busy,
            _ => Phase::Registering,
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
