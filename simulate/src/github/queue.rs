//! Jobs: each waits, may be assigned to a scale set, is sent to a runner, is taken, and ends.

use std::time::{Duration, UNIX_EPOCH};

use runner_controller::pool::RunnerId;
use serde_json::json;

use super::scale_sets::Item;
use super::{GitHub, Schedule, Timer};
use crate::clock;
use crate::event::{JobEnd, JobId, JobStep, SimEvent, ToldStep};

/// Time in which a runner must take a job, in milliseconds. After that GitHub sends it to another.
const TAKE_WITHIN_MS: u64 = 60_000;
/// Time after which the lock of a lost runner's job lapses, in milliseconds.
const LOCK_MS: u64 = 600_000;
/// Time after which a job that no runner of its scale set took is assigned anew, in milliseconds.
const REASSIGN_MS: u64 = 300_000;
/// Jobs of scale sets in a thousand that are cancelled before a runner has them.
const CANCEL_RATE: u64 = 10;
/// The same, and those whose end is told too early, while that is a fault.
const ODD_RATE: u64 = 300;

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

/// Assignment of a job to a scale set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Assignment {
    set: u64,
    /// Number of the assignment of this job, from 1.
    number: u64,
    /// Time on GitHub's clock.
    unix_ms: u64,
}

/// A job.
#[derive(Debug)]
pub(super) struct QueuedJob {
    label: String,
    state: JobState,
    queued_unix_ms: u64,
    assignment: Option<Assignment>,
    assignments: u64,
    /// The end of the assignment was told.
    told_ended: bool,
}

impl GitHub {
    /// A workflow asks for a job.
    pub(crate) fn push_job(&mut self, label: String, schedule: &mut Schedule<'_>) {
        let job = JobId(self.jobs.len() as u64 + 1);
        let queued = QueuedJob {
            label: label.clone(),
            state: JobState::Queued,
            queued_unix_ms: clock::true_unix_ms(),
            assignment: None,
            assignments: 0,
            told_ended: false,
        };
        self.jobs.insert(job, queued);
        schedule.emit(SimEvent::JobQueued { job, pool: label });
        self.assign_jobs(schedule);
    }

    /// Assigns queued jobs to scale sets with room, and sends jobs to idle runners: those of its set, or those with its
    /// label that have no set.
    pub(super) fn assign_jobs(&mut self, schedule: &mut Schedule<'_>) {
        let queued = self.jobs.iter();
        let queued: Vec<JobId> = queued
            .filter(|(_, job)| job.state == JobState::Queued)
            .map(|(id, _)| *id)
            .collect();
        for job in queued {
            if let Some(runner) = self.idle_runner(job) {
                self.send_job(job, runner, schedule);
            } else if self.assign_to_set(job, schedule)
                && let Some(runner) = self.idle_runner(job)
            {
                self.send_job(job, runner, schedule);
            }
        }
    }

    fn idle_runner(&mut self, job: JobId) -> Option<RunnerId> {
        let job = self.jobs.get(&job)?;
        let set = job.assignment.map(|assignment| assignment.set);
        let idle = self.runners.iter();
        let idle: Vec<RunnerId> = idle
            .filter(|(_, runner)| {
                let has_label = set.is_some() || runner.label == job.label;
                runner.online && runner.job.is_none() && runner.set == set && has_label
            })
            .map(|(id, _)| *id)
            .collect();
        self.random.pick(&idle).copied()
    }

    /// Returns true if the job is assigned to a set now.
    fn assign_to_set(&mut self, id: JobId, schedule: &mut Schedule<'_>) -> bool {
        let now = schedule.now();
        let Some(job) = self.jobs.get(&id).filter(|job| job.assignment.is_none()) else {
            return false;
        };
        let Some(set) = self.sets.with_room(&job.label, now, |set| self.load(set)) else {
            return false;
        };
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        job.assignments += 1;
        job.told_ended = false;
        let assignment = Assignment {
            set,
            number: job.assignments,
            unix_ms: clock::true_unix_ms(),
        };
        job.assignment = Some(assignment);
        let number = assignment.number;
        schedule.after(REASSIGN_MS, Timer::Reassign(id, number));
        self.tell(id, JobStep::Assigned, None, "", schedule);
        let rate = if self.faults.odd_ends {
            ODD_RATE
        } else {
            CANCEL_RATE
        };
        if self.sets.random.chance(rate) {
            let wait = self.sets.random.wait(10, 20_000, 200_000);
            schedule.after(wait, Timer::CancelJob(id));
        }
        true
    }

    /// Returns the number of jobs that GitHub counts as assigned to a set.
    pub(super) fn load(&self, set: u64) -> u64 {
        let is_counted = |job: &&QueuedJob| {
            let is_here = |assignment: Assignment| assignment.set == set;
            job.assignment.is_some_and(is_here) && !job.told_ended
        };
        self.jobs.values().filter(is_counted).count() as u64
    }

    /// Tells the set of a job what became of the job.
    fn tell(
        &mut self,
        id: JobId,
        step: JobStep,
        runner: Option<RunnerId>,
        result: &str,
        schedule: &mut Schedule<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let Some(assignment) = job.assignment.filter(|_| !job.told_ended) else {
            return;
        };
        job.told_ended = step == JobStep::Completed;
        let runner = runner.and_then(|id| Some((id, self.runners.get(&id)?.name.clone())));
        let now = time(clock::true_unix_ms());
        let name = format!("{} {}.{}", job.label, id.0, assignment.number);
        let mut text = json!({
            "messageType": step.message_type(), "runnerRequestId": 0,
            "ownerName": "acme", "repositoryName": "widgets",
            "jobId": format!("00000000-0000-4000-8000-{:012}", id.0),
            "jobWorkflowRef": "acme/widgets/.github/workflows/ci.yml@refs/heads/main",
            "jobDisplayName": name, "workflowRunId": id.0 / 2, "requestLabels": [job.label],
            "queueTime": time(job.queued_unix_ms),
            "scaleSetAssignTime": time(assignment.unix_ms), "result": result,
        });
        if let Some((id, name)) = runner {
            text["runnerId"] = id.0.into();
            text["runnerName"] = name.into();
            text["runnerAssignTime"] = now.clone().into();
        }
        if step == JobStep::Completed {
            text["finishTime"] = now.into();
        }
        let step = ToldStep { name, step };
        self.tell_set(assignment.set, Item { step, text }, schedule);
    }

    fn send_job(&mut self, job: JobId, runner: RunnerId, schedule: &mut Schedule<'_>) {
        let has_set = self
            .jobs
            .get(&job)
            .is_some_and(|job| job.assignment.is_some());
        if has_set && self.faults.odd_ends && self.sets.random.chance(ODD_RATE) {
            // Its runner has not heard of it, and takes another job.
            self.tell(job, JobStep::Started, Some(runner), "", schedule);
            self.withdraw(job, Some(runner), schedule);
            return;
        }
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

    /// Ends a job that no runner has taken.
    fn withdraw(&mut self, job: JobId, runner: Option<RunnerId>, schedule: &mut Schedule<'_>) {
        self.tell(job, JobStep::Completed, runner, "canceled", schedule);
        self.set_state(job, JobState::Ended);
        schedule.emit(SimEvent::JobWithdrawn { job });
    }

    /// A workflow cancels a job that waits.
    pub(super) fn cancel_job(&mut self, job: JobId, schedule: &mut Schedule<'_>) {
        if self.state(job) == Some(JobState::Queued) {
            self.withdraw(job, None, schedule);
            self.assign_jobs(schedule);
        }
    }

    /// Takes a job from a set whose runners did not take it in time.
    pub(super) fn reassign(&mut self, id: JobId, number: u64, schedule: &mut Schedule<'_>) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let is_same = |assignment: Assignment| assignment.number == number;
        if !job.assignment.is_some_and(is_same) {
            return;
        }
        match job.state {
            JobState::Queued => {
                self.tell(id, JobStep::Completed, None, "canceled", schedule);
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.assignment = None;
                }
                self.assign_jobs(schedule);
            }
            JobState::Sent(_) => {
                schedule.after(TAKE_WITHIN_MS + 1, Timer::Reassign(id, number));
            }
            JobState::Running(_) | JobState::Ended => {}
        }
    }

    /// A set is gone, and its jobs wait for another one.
    pub(super) fn release_jobs_of(&mut self, set: u64, schedule: &mut Schedule<'_>) {
        for job in self.jobs.values_mut() {
            let is_here = |assignment: Assignment| assignment.set == set;
            if job.state == JobState::Queued && job.assignment.is_some_and(is_here) {
                job.assignment = None;
            }
        }
        self.assign_jobs(schedule);
    }

    /// Queues a job again that its runner did not take in time.
    pub(super) fn return_job(&mut self, job: JobId, runner: RunnerId, schedule: &mut Schedule<'_>) {
        if self.state(job) != Some(JobState::Sent(runner)) {
            return;
        }
        self.set_state(job, JobState::Queued);
        if let Some(job) = self.jobs.get_mut(&job)
            && let Some(assignment) = job.assignment
            && !self.sets.by_id.contains_key(&assignment.set)
        {
            job.assignment = None;
        }
        if let Some(runner) = self.runners.get_mut(&runner) {
            runner.job = None;
            runner.online = false;
        }
        schedule.emit(SimEvent::JobReturned { job, runner });
        self.assign_jobs(schedule);
    }

    /// A listener takes a job, unless the job is no longer meant for it.
    pub(crate) fn job_taken(&mut self, job: JobId, runner: RunnerId, schedule: &mut Schedule<'_>) {
        if self.state(job) != Some(JobState::Sent(runner)) {
            return;
        }
        self.set_state(job, JobState::Running(runner));
        schedule.emit(SimEvent::JobRunning { job, runner });
        self.tell(job, JobStep::Started, Some(runner), "", schedule);
        if self.faults.odd_ends && self.sets.random.chance(ODD_RATE) {
            let wait = self.sets.random.wait(500, 20_000, 200_000);
            schedule.after(wait, Timer::TellEnd(job, runner, "succeeded"));
        }
    }

    /// Tells the end of a job, although its runner may still run it.
    pub(super) fn tell_end(
        &mut self,
        job: JobId,
        runner: RunnerId,
        result: &str,
        schedule: &mut Schedule<'_>,
    ) {
        self.tell(job, JobStep::Completed, Some(runner), result, schedule);
        self.assign_jobs(schedule);
    }

    /// A running job ended.
    pub(crate) fn job_ended(&mut self, job: JobId, end: JobEnd, schedule: &mut Schedule<'_>) {
        let Some(JobState::Running(runner)) = self.state(job) else {
            return;
        };
        self.set_state(job, JobState::Ended);
        match end {
            JobEnd::Lost => {
                schedule.after(LOCK_MS, Timer::TellEnd(job, runner, "failed"));
                schedule.after(LOCK_MS, Timer::Unlock(runner));
            }
            JobEnd::Done | JobEnd::Cancelled => {
                let result = if end == JobEnd::Done {
                    "succeeded"
                } else {
                    "canceled"
                };
                self.tell_end(job, runner, result, schedule);
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

fn time(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(time).to_string()
}
