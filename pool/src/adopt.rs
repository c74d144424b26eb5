//! Adoption of one runner that the daemon did not start itself.

use super::observation::{EndRecord, UnitObservation, UnitState};
use super::phase::PhaseKind;
use super::runner::{Cause, Ended, Job, Phase, Runner, RunnerRecord};
use super::state::Pool;
use super::time::Timestamp;
use super::timeline::Timeline;
use super::verdict::Verdict;

/// Knowledge of the JIT config of a runner that is adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigState {
    /// The container waits for it now.
    Requested,
    /// The container does not have it, and may request it.
    NotGiven,
    /// The container may have it.
    Unknown,
}

impl Pool {
    /// Adopts a runner whose unit is alive.
    ///
    /// `record` is the record of an earlier daemon. An observation that contradicts the record wins.
    pub fn adopt(
        &mut self,
        observation: UnitObservation,
        record: Option<RunnerRecord>,
        config: ConfigState,
        now: Timestamp,
    ) {
        let is_waiting = config == ConfigState::Requested;
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
        runner.since = runner.started_at;
        if let Some(record) = &record {
            runner.since = record.since.min(now);
            runner.started_at = runner.started_at.min(record.started_at);
        }
        let recorded = record.as_ref().map(|record| record.phase);
        runner.phase = match recorded {
            _ if is_waiting && runner.active => Phase::Spare,
            Some(PhaseKind::Busy) => Phase::Busy,
            Some(PhaseKind::Idle) => Phase::Idle,
            Some(PhaseKind::Registering | PhaseKind::Retiring) => Phase::Registering,
            // It may have got its config in the moment in which the earlier daemon ended.
            Some(PhaseKind::Spare | PhaseKind::Minting) => Phase::Registering,
            // It may have got its config already.
            Some(PhaseKind::Booting) | None if runner.active && config == ConfigState::Unknown => {
                Phase::Registering
            }
            Some(PhaseKind::Booting) | None => Phase::Booting,
        };
        let timeline = record.as_ref().and_then(|record| record.timeline.clone());
        // It waited for its config, and the connection was lost with the earlier daemon. A registration that
        // was minted for it has no runner.
        let is_lost = config == ConfigState::NotGiven
            && matches!(recorded, Some(PhaseKind::Spare | PhaseKind::Minting));
        if is_lost {
            runner.phase = Phase::Spare;
            runner.retire(Cause::SpareLost, now);
        } else if let Some(record) = record
            && runner.phase != Phase::Spare
        {
            runner.registration = record.registration;
            runner.job = record.job;
            // The job may have started in a later phase than the recorded one, such as while it retired.
            if let Some(job) = &runner.job {
                runner.since = job.since.min(now);
                runner.is_job_reported = true;
                runner.phase = Phase::Busy;
            }
        }
        let starting = Timeline::new(PhaseKind::Booting, runner.started_at);
        runner.timeline = timeline.unwrap_or(starting);
        runner.timeline.enter(runner.phase.kind(), now);
        if is_waiting {
            self.waiting.insert(slot);
        } else {
            self.waiting.remove(&slot);
        }
        self.runners.insert(slot, runner);
    }

    /// Judges a runner that ended without a daemon, by its record and by root's record of its end.
    ///
    /// `is_rebooted` tells that the host restarted since.
    pub fn adopt_ended(
        &mut self,
        record: RunnerRecord,
        end: Option<EndRecord>,
        is_rebooted: bool,
        now: Timestamp,
        random: u32,
    ) -> Ended {
        let phase = match record.phase {
            PhaseKind::Booting => Phase::Booting,
            PhaseKind::Spare => Phase::Spare,
            PhaseKind::Minting => Phase::Minting,
            PhaseKind::Idle => Phase::Idle,
            PhaseKind::Busy => Phase::Busy,
            // The record does not tell the cause of a retirement.
            PhaseKind::Registering | PhaseKind::Retiring => Phase::Registering,
        };
        // Timestamps of another boot mean nothing in this one.
        let at = |at: Timestamp| if is_rebooted { now } else { at };
        let mut runner = Runner::new(record.slot.slot, phase, at(record.since));
        runner.started_at = at(record.started_at);
        // The times of another boot would follow each other wrongly in this one.
        if let Some(timeline) = record.timeline.filter(|_| !is_rebooted) {
            runner.timeline = timeline;
        }
        runner.invocation = record.invocation;
        runner.registration = record.registration;
        runner.job = record.job.map(|job| Job {
            since: at(job.since),
            ..job
        });
        let is_own = |end: &EndRecord| {
            let known = runner.invocation.as_ref();
            known.is_none_or(|known| *known == end.invocation)
        };
        let end = end.filter(is_own);
        let verdict = if is_rebooted {
            Verdict::HostRestart
        } else {
            runner.verdict(end.as_ref())
        };
        self.ended(runner, verdict, end, now, random)
    }
}
