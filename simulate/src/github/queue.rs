//! Jobs: each waits, is sent to a runner, is taken, and ends.

use runner_controller::pool::RunnerId;

use super::{GitHub, Schedule, Timer};
use crate::event::{JobEnd, JobId, SimEvent};

/// Time in which a runner must take a job, in milliseconds. After that GitHub sends it to another.
const TAKE_WITHIN_MS: u64 = 60_000;
/// Time after which the lock of a lost runner's job lapses, in milliseconds.
const LOCK_MS: u64 = 600_000;

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobState {
    /// It waits for a runner.
    Queued,
    /// It was sent to a runner that has not taken it yet.
    Sent(RunnerId),
    /// A runner has taken it.
    Running(RunnerId),
    /// It has ended.
    Ended,
}

/// A job.
#[derive(Debug)]
pub(super) struct QueuedJob {
    label: String,
    state: JobState,
}

impl GitHub {
    /// A workflow asks for a job.
    pub(crate) fn push_job(&mut self, label: String, schedule: &mut Schedule<'_>) {
        let job = JobId(self.jobs.len() as u64 + 1);
        let queued = QueuedJob {
            label: label.clone(),
            state: JobState::Queued,
        };
        self.jobs.insert(job, queued);
        schedule.emit(SimEvent::JobQueued { job, pool: label });
        self.assign_jobs(schedule);
    }

    /// Sends queued jobs to idle runners with their label.
    pub(super) fn assign_jobs(&mut self, schedule: &mut Schedule<'_>) {
        let queued = self.jobs.iter();
        let queued: Vec<(JobId, String)> = queued
            .filter(|(_, job)| job.state == JobState::Queued)
            .map(|(id, job)| (*id, job.label.clone()))
            .collect();
        for (job, label) in queued {
            let idle = self.runners.iter();
            let idle: Vec<RunnerId> = idle
                .filter(|(_, runner)| {
                    runner.online && runner.job.is_none() && runner.label == label
                })
                .map(|(id, _)| *id)
                .collect();
            if let Some(runner) = self.random.pick(&idle).copied() {
                self.send_job(job, runner, schedule);
            }
        }
    }

    fn send_job(&mut self, job: JobId, runner: RunnerId, schedule: &mut Schedule<'_>) {
        let lag = self.random.wait(0, 3_000, 20_000);
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.job = Some(job);
            runner.busy_shown_from = schedule.now() + lag;
        }
        self.set_state(job, JobState::Sent(runner));
        schedule.emit(SimEvent::JobSent { job, runner });
        let wait = self.random.wait(20, 1_500, 10_000);
        schedule.after(wait, Timer::OfferJob(job, runner));
        schedule.after(TAKE_WITHIN_MS, Timer::ReturnJob(job, runner));
    }

    /// Queues a job again that its runner did not take in time.
    pub(super) fn return_job(&mut self, job: JobId, runner: RunnerId, schedule: &mut Schedule<'_>) {
        if self.state(job) != Some(JobState::Sent(runner)) {
            return;
        }
        self.set_state(job, JobState::Queued);
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.job = None;
            runner.online = false;
        }
        schedule.emit(SimEvent::JobReturned { job, runner });
        self.assign_jobs(schedule);
    }

    /// A listener takes a job, unless the job is no longer meant for it.
    pub(crate) fn job_taken(&mut self, job: JobId, runner: RunnerId, schedule: &mut Schedule<'_>) {
        if self.state(job) == Some(JobState::Sent(runner)) {
            self.set_state(job, JobState::Running(runner));
            schedule.emit(SimEvent::JobRunning { job, runner });
        }
    }

    /// A running job ended.
    pub(crate) fn job_ended(&mut self, job: JobId, end: JobEnd, schedule: &mut Schedule<'_>) {
        let Some(JobState::Running(runner)) = self.state(job) else {
            return;
        };
        self.set_state(job, JobState::Ended);
        match end {
            JobEnd::Lost => schedule.after(LOCK_MS, Timer::Unlock(runner)),
            JobEnd::Done | JobEnd::Cancelled => {
                let wait = self.random.wait(0, 3_000, 12_000);
                schedule.after(wait, Timer::Release(runner));
            }
        }
    }

    fn state(&self, job: JobId) -> Option<JobState> {
        self.jobs.get(&job).map(|job| job.state)
    }

    fn set_state(&mut self, job: JobId, state: JobState) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.state = state;
        }
    }
}
