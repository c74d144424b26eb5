//! GitHub's deliveries of its jobs, and the host's record of them. They arrive late, twice and in any order.
//!
//! The listener of a daemon puts a delivery on record before it answers, so a killed daemon loses none. While no
//! daemon runs, GitHub's deliveries fail and are sent again later.

use std::collections::BTreeMap;

use runner_controller::pool::{
    Conclusion, Evidence, JobDescription, JobEnd, JobKey, JobSource, KnownJob, RunnerId, ScopeId,
};
use runner_controller::world::Event;

use crate::event::{JobId, SimEvent};
use crate::mutation::Mutation;
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;
use crate::{clock, configs};

/// Added to the id of a job that only a mutation tells of.
const FALSE_JOBS: u64 = 1 << 40;

/// The schedule as the deliveries see it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;

/// A timer of the deliveries.
pub(crate) enum Timer {
    /// A delivery reaches the host.
    Arrives(Box<KnownJob>),
}

/// The deliveries.
pub(crate) struct Deliveries {
    random: Random,
    mutation: Option<Mutation>,
    has_daemon: bool,
    /// Names of registrations.
    names: BTreeMap<RunnerId, String>,
    /// The jobs as GitHub knows them.
    jobs: BTreeMap<JobId, KnownJob>,
    /// The jobs on the host's record.
    records: BTreeMap<JobKey, KnownJob>,
}

impl Deliveries {
    /// Returns the deliveries of a seed.
    #[must_use]
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        Self {
            random: Random::new(seed, Stream::Deliveries),
            mutation,
            has_daemon: false,
            names: BTreeMap::new(),
            jobs: BTreeMap::new(),
            records: BTreeMap::new(),
        }
    }

    /// Returns the jobs on record, for a daemon that starts.
    #[must_use]
    pub(crate) fn records(&self) -> Vec<KnownJob> {
        self.records.values().cloned().collect()
    }

    /// A daemon runs from now on, or none.
    pub(crate) fn set_daemon(&mut self, runs: bool) {
        self.has_daemon = runs;
    }

    /// GitHub made a registration.
    pub(crate) fn registered(&mut self, runner: RunnerId, name: String) {
        self.names.insert(runner, name);
    }

    /// GitHub queued a job.
    pub(crate) fn job_queued(&mut self, job: JobId, pool: String, schedule: &mut Schedule<'_>) {
        let (JobId(id), unix_ms) = (job, clock::true_unix_ms());
        let [scope, _] = configs::scopes();
        let repository = scope.to_string();
        let queued = KnownJob {
            told_unix_ms: unix_ms,
            ..KnownJob::new(
                JobKey {
                    scope: ScopeId::new("https://api.github.com", &repository),
                    source: JobSource::Webhook,
                    id,
                },
                Evidence::Queued,
                JobDescription {
                    repository,
                    run_id: id / 2,
                    workflow: "CI".to_owned(),
                    name: pool.clone(),
                    labels: vec![pool],
                },
                unix_ms,
            )
        };
        self.jobs.insert(job, queued.clone());
        self.send(&queued, schedule);
    }

    /// A runner has a job.
    pub(crate) fn job_running(
        &mut self,
        job: JobId,
        runner: RunnerId,
        schedule: &mut Schedule<'_>,
    ) {
        let name = self.names.get(&runner).cloned();
        self.tell(job, schedule, |job| {
            job.runner = name.map(|name| (Evidence::Started, name));
            job.started_unix_ms = Some(clock::true_unix_ms());
        });
    }

    /// A job ended.
    pub(crate) fn job_ended(&mut self, job: JobId, schedule: &mut Schedule<'_>) {
        self.tell(job, schedule, |job| {
            job.end = Some(JobEnd {
                unix_ms: clock::true_unix_ms(),
                conclusion: Conclusion::Success,
            });
        });
    }

    fn tell(
        &mut self,
        job: JobId,
        schedule: &mut Schedule<'_>,
        change: impl FnOnce(&mut KnownJob),
    ) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        change(job);
        let job = job.clone();
        self.send(&job, schedule);
    }

    /// Sends a delivery, sometimes twice. One in fifty takes minutes.
    fn send(&mut self, job: &KnownJob, schedule: &mut Schedule<'_>) {
        let copies = 1 + u64::from(self.random.chance(100));
        for _ in 0..copies {
            let wait = self.random.wait(100, 4_000, 160_000);
            schedule.after(wait, Timer::Arrives(Box::new(job.clone())));
        }
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        let Timer::Arrives(job) = timer;
        if !self.has_daemon {
            let wait = self.random.between(5_000, 60_000);
            schedule.after(wait, Timer::Arrives(job));
            return;
        }
        if self.mutation == Some(Mutation::DeliveriesDropped) {
            return;
        }
        let is_new = job.started_unix_ms.is_none() && job.end.is_none();
        if self.mutation == Some(Mutation::JobsDoubled) && is_new {
            let mut other = (*job).clone();
            other.key.id += FALSE_JOBS;
            self.record(other, schedule);
        }
        self.record(*job, schedule);
    }

    fn record(&mut self, job: KnownJob, schedule: &mut Schedule<'_>) {
        let key = job.key.clone();
        let job = match self.records.remove(&key) {
            Some(known) => known.merge(job),
            None => job,
        };
        self.records.insert(key, job.clone());
        schedule.emit(SimEvent::Told(Event::Job(Box::new(job))));
    }
}
