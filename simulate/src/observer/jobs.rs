//! Jobs that wait for runners, and the containers that start for them.

use std::collections::BTreeMap;

use runner_controller::config::Config;
use runner_controller::controller::Command;
use runner_controller::pool::{JobStage, PoolName};
use runner_controller::world::Event;

use super::checked::{Checked, violated};
use super::containers::{Containers, Progress};
use crate::event::{ContainerId, JobId, SimEvent};
use crate::fault::Fault;
use crate::invariant::Invariant;

/// Age from which a container is not one that starts, in milliseconds: `timeouts.boot`.
const STARTS_WITHIN_MS: u64 = 60_000;
/// Time after the end of a job in which the daemon may learn of the job, in milliseconds.
const TOLD_LATE_MS: u64 = 600_000;
/// Time in which the daemon comes to know a job and its turn, in milliseconds.
const KNOWN_MS: u64 = 30_000;
/// Time after a container that got no job in which its pool may wait before it starts another, in milliseconds.
const BACKOFF_MS: u64 = 900_000;
/// Starts for younger jobs that a job may see: they may have begun before its turn came.
const MAX_OVERTAKEN: u64 = 2;

/// A job.
#[derive(Debug)]
struct Job {
    pool: String,
    queued_at: u64,
    ended_at: Option<u64>,
    /// A runner has it, or GitHub sent it to one.
    has_runner: bool,
    /// Time since which the daemon that runs knows it by deliveries.
    told_at: Option<u64>,
    /// Time since which the daemon that runs knows it by messages of a scale set that has it.
    assigned_at: Option<u64>,
    /// Starts for younger jobs since its turn came.
    overtaken: u64,
}

/// All jobs.
#[derive(Default)]
pub(super) struct Jobs {
    by_id: BTreeMap<JobId, Job>,
    /// Time at which a container of a pool ended without a job.
    failed_at: BTreeMap<PoolName, u64>,
    /// Time after the last drain.
    drained_at: u64,
    /// The host's wall clock is wrong, and with it the ages of jobs.
    clock_is_wrong: bool,
}

impl Jobs {
    /// Takes in an event.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "it concerns few of the events"
    )]
    pub(super) fn observe(&mut self, event: &SimEvent, containers: &Containers, now: u64) {
        match event {
            SimEvent::JobQueued { job, pool } => {
                let job_of = Job {
                    pool: pool.clone(),
                    queued_at: now,
                    ended_at: None,
                    has_runner: false,
                    told_at: None,
                    assigned_at: None,
                    overtaken: 0,
                };
                self.by_id.insert(*job, job_of);
            }
            SimEvent::JobSent { job, .. } => self.change(*job, |job| job.has_runner = true),
            SimEvent::JobReturned { job, .. } => self.change(*job, |job| job.has_runner = false),
            SimEvent::JobEnded { job, .. } | SimEvent::JobWithdrawn { job } => {
                self.change(*job, |job| {
                    (job.ended_at, job.has_runner) = (Some(now), true);
                });
            }
            SimEvent::Told(Event::Job(job)) => self.change(JobId(job.key.id), |job| {
                job.told_at.get_or_insert(now);
            }),
            SimEvent::JobRecorded { name, job } => {
                let waits = job
                    .as_ref()
                    .is_some_and(|job| job.stage() == JobStage::Queued);
                if let Some(id) = named(name) {
                    self.change(id, |job| job.assigned_at = waits.then_some(now));
                }
            }
            SimEvent::DaemonStarted { .. } => {
                for job in self.by_id.values_mut() {
                    job.told_at = job.told_at.map(|_| now);
                    job.assigned_at = job.assigned_at.map(|_| now);
                }
            }
            SimEvent::FaultStarted(Fault::WallClockJumps { .. }) => self.clock_is_wrong = true,
            SimEvent::Calm => self.clock_is_wrong = false,
            // Runners from before a drain may end, although they did not begin to.
            SimEvent::CommandAccepted(Command::Drain | Command::Clear { .. }) => {
                self.drained_at = now + 1;
            }
            SimEvent::ContainerGone { container, .. } => {
                let had_job = matches!(
                    containers.progress(container),
                    Some(Progress::Working | Progress::Finished)
                );
                if !had_job {
                    self.failed_at.insert(container.slot.pool.clone(), now);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, job: JobId, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.by_id.get_mut(&job) {
            change(job);
        }
    }

    /// Checks that a container was not started beside another one for the same job. `config` is the daemon's.
    pub(super) fn check_start(
        &self,
        container: &ContainerId,
        config: &Config,
        containers: &Containers,
        now: u64,
    ) -> Checked {
        let name = &container.slot.pool;
        let is_at_zero = config.pool(name).is_some_and(|pool| {
            pool.demand.follows_jobs() && pool.min_idle == 0 && pool.min_spare == 0
        });
        if !is_at_zero {
            return Ok(());
        }
        let since = now.saturating_sub(STARTS_WITHIN_MS).max(self.drained_at);
        let starting = containers.starting(name, since);
        let lasts = |job: &&Job| job.ended_at.is_none_or(|ended| now < ended + TOLD_LATE_MS);
        let jobs = self.by_id.values().filter(|job| name.as_str() == job.pool);
        let jobs = jobs.filter(lasts).count();
        if starting <= jobs {
            return Ok(());
        }
        let facts = format!("{container} is number {starting} that starts for {jobs} jobs");
        violated(Invariant::OneRunnerPerJob, facts)
    }

    /// Checks that a container did not start for a job that is younger than one whose turn has come.
    pub(super) fn check_turn(
        &mut self,
        container: &ContainerId,
        config: &Config,
        containers: &Containers,
        now: u64,
    ) -> Checked {
        let name = &container.slot.pool;
        let follows = |name: &str| {
            let mut pools = config.pools.iter();
            pools.find(|pool| pool.name.as_str() == name && pool.demand.follows_jobs())
        };
        let is_at_minimum = follows(name.as_str()).is_none_or(|pool| pool.min_idle > 0);
        if is_at_minimum || self.clock_is_wrong {
            return Ok(());
        }
        let age = config.order.fairness_age.as_millis();
        let age = u64::try_from(age).unwrap_or(u64::MAX);
        let waits = |job: &Job| !job.has_runner;
        let own = self
            .by_id
            .values()
            .filter(|job| waits(job) && job.pool == name.as_str());
        let oldest = own.map(|job| job.queued_at).min().unwrap_or(now);
        for (id, job) in &mut self.by_id {
            let is_due = job.queued_at.saturating_add(age) + KNOWN_MS < now;
            let Some(pool) = follows(&job.pool).filter(|pool| pool.name != *name) else {
                continue;
            };
            let known_at = match pool.scale_set {
                None => job.told_at,
                Some(_) => job.assigned_at,
            };
            let is_known = known_at.is_some_and(|known| known + KNOWN_MS < now);
            let failed = self.failed_at.get(&pool.name);
            let can_start = containers.count(&pool.name) == 0
                && failed.is_none_or(|failed| failed + BACKOFF_MS < now);
            if waits(job) && is_due && is_known && can_start && job.queued_at < oldest {
                job.overtaken += 1;
                if job.overtaken > MAX_OVERTAKEN {
                    let facts = format!("{id} of {} by {container}", job.pool);
                    return violated(Invariant::OldJobsFirst, facts);
                }
            }
        }
        Ok(())
    }
}

/// Returns the job with this name, which is its pool, its number and that of the assignment.
fn named(name: &str) -> Option<JobId> {
    let (_, numbers) = name.split_once(' ')?;
    let (job, _) = numbers.split_once('.')?;
    job.parse().ok().map(JobId)
}
