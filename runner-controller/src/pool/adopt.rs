//! Taking in what was there before this daemon: lives that go on, and lives that ended unseen.

use super::life::{Closed, Job, Life, Phase, Runner, Verdict};
use super::names::Slot;
use super::sight::{Invocation, UnitSight, UnitState};
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
    pub born: Timestamp,
    /// Its registration.
    pub runner: Option<Runner>,
    /// Its job.
    pub job: Option<Job>,
}

impl Pool {
    /// Takes in a life that was there before this daemon: its unit, its record if there is one, and
    /// whether its root waits for an answer now. Evidence that contradicts the record wins.
    pub fn adopt(
        &mut self,
        sight: UnitSight,
        record: Option<Adopted>,
        asked: bool,
        now: Timestamp,
    ) {
        let slot = sight.slot.slot;
        let record = record
            .filter(|record| record.invocation.is_none() || record.invocation == sight.invocation);
        let mut life = Life::new(slot, Phase::Booting, now);
        life.invocation.clone_from(&sight.invocation);
        life.active = sight.state == UnitState::Active;
        if let Some(start) = &sight.start {
            life.generation = Some(start.generation.clone());
            life.born = start.at.min(now);
        }
        let recorded = record
            .as_ref()
            .map(|record| (record.phase.as_str(), record.since.min(now)));
        let since = recorded.map_or(life.born, |(_, since)| since);
        if let Some(record) = &record {
            life.born = life.born.min(record.born);
        }
        life.phase = match recorded {
            _ if asked && life.active => Phase::Spare,
            Some(("busy", _)) => Phase::Busy,
            Some(("idle", _)) => Phase::Idle,
            Some(("registering" | "retiring", _)) => Phase::Registering,
            // It may have been answered in the moment the last daemon ended.
            Some(("spare" | "minting", _)) => Phase::Registering,
            // It may still ask; if it does not, it was answered.
            Some(_) | None if life.active => Phase::Registering,
            Some(_) | None => Phase::Booting,
        };
        life.since = since;
        if let Some(record) = record
            && life.phase != Phase::Spare
        {
            life.runner = record.runner;
            life.job = record.job;
            if life.job.is_some() {
                life.phase = Phase::Busy;
            }
        }
        if asked {
            self.waiting.insert(slot);
        } else {
            self.waiting.remove(&slot);
        }
        self.lives.insert(slot, life);
    }

    /// A life that a record tells of, and whose unit is gone: judged by what root wrote.
    pub fn bury(
        &mut self,
        slot: Slot,
        record: Adopted,
        sight: UnitSight,
        rebooted: bool,
        now: Timestamp,
        dice: u32,
    ) -> Option<Closed> {
        let mut life = Life::new(slot, Phase::Registering, record.since);
        life.phase = match record.phase.as_str() {
            "booting" => Phase::Booting,
            "spare" => Phase::Spare,
            "minting" => Phase::Minting,
            "idle" => Phase::Idle,
            "busy" => Phase::Busy,
            _ => Phase::Registering,
        };
        life.born = record.born;
        life.invocation = record.invocation;
        life.runner = record.runner;
        life.job = record.job;
        self.lives.insert(slot, life);
        let own = sight.end.filter(|end| {
            self.lives.get(&slot).is_some_and(|life| {
                life.invocation
                    .as_ref()
                    .is_none_or(|known| *known == end.invocation)
            })
        });
        let mut closed = self.close(slot, own, now, dice)?;
        if rebooted {
            closed.verdict = Verdict::HostRestart;
            closed.orphan.clone_from(&closed.life.runner);
        }
        Some(closed)
    }
}
