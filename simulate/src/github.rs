//! The simulated GitHub: registrations, jobs, and the view that its list gives of them.

use std::collections::BTreeMap;

use runner_controller::pool::{Invocation, RunnerName, SlotId};

use crate::limits::Windows;
use crate::wire::Mood;
use crate::world::Inner;

/// A job that nobody takes is given to somebody else.
const TAKE_WITHIN: u64 = 60_000;
/// The lock of a job whose runner is lost lapses.
const LOCK_LAPSES: u64 = 600_000;

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Waiting for a runner.
    Queued,
    /// Sent to a runner that has not taken it yet.
    Assigned,
    /// Running.
    Running,
    /// Ran to its end.
    Done,
    /// Its runner was told to stop.
    Cancelled,
    /// Its container died.
    Lost,
}

/// A job.
#[derive(Debug, Clone)]
pub struct Job {
    pool: String,
    /// What became of it.
    pub state: JobState,
    /// When it was sent to its runner.
    pub assigned_at: u64,
    runner: Option<u64>,
}

/// A runner as GitHub knows it.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Its name.
    pub name: String,
    /// Whose it is, if it is ours.
    pub ours: Option<RunnerName>,
    pool: String,
    /// Connected.
    pub online: bool,
    /// The job it was sent.
    pub busy: Option<u64>,
    /// By the daemon, and not by the weather.
    pub minted: bool,
    shown_from: u64,
    busy_shown_from: u64,
    /// Which life its config was given to.
    pub given_to: Option<(SlotId, Invocation)>,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Connected, as far as the list knows.
    pub online: bool,
    /// Busy, as far as the list knows.
    pub busy: bool,
}

/// GitHub.
#[derive(Default)]
pub struct GitHub {
    /// Every registration.
    pub runners: BTreeMap<u64, Runner>,
    fading: BTreeMap<u64, (Row, u64)>,
    /// Every job there was.
    pub jobs: BTreeMap<u64, Job>,
    next: u64,
    /// Listeners of our version are turned away.
    pub refuses_version: bool,
    /// How it answers.
    pub mood: Mood,
    /// Its rate limits.
    pub windows: Windows,
    /// Rows on a page of the list.
    pub page: usize,
}

impl GitHub {
    /// A registration.
    #[must_use]
    pub fn runner(&self, id: u64) -> Option<&Runner> {
        self.runners.get(&id)
    }

    /// The list as it is shown at this moment.
    #[must_use]
    pub fn rows(&self, now: u64) -> Vec<Row> {
        let shown = self.runners.iter().filter(|(_, r)| r.shown_from <= now);
        let shown = shown.map(|(id, r)| Row {
            id: *id,
            name: r.name.clone(),
            online: r.online,
            busy: r.busy.is_some() && r.busy_shown_from <= now,
        });
        let fading = self.fading.values().filter(|(_, until)| now < *until);
        let mut rows: Vec<Row> = shown.chain(fading.map(|(row, _)| row.clone())).collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// True if a job waits for a runner of one of these pools.
    #[must_use]
    pub fn jobs_waiting(&self, pools: &[String]) -> usize {
        let waits = |job: &&Job| {
            matches!(job.state, JobState::Queued | JobState::Assigned) && pools.contains(&job.pool)
        };
        self.jobs.values().filter(waits).count()
    }

    /// How many jobs are in a state.
    #[must_use]
    pub fn count(&self, state: JobState) -> usize {
        self.jobs.values().filter(|job| job.state == state).count()
    }
}

impl Inner {
    /// Makes a registration. `None` if the name is taken.
    pub fn register(&mut self, name: &str, pool: &str, ours: Option<RunnerName>) -> Option<u64> {
        if self.github.runners.values().any(|r| r.name == name) {
            return None;
        }
        self.github.next += 1 + self.rng.below(3);
        let id = (1 << 33) + self.github.next;
        let now = self.now();
        let lag = self.rng.wait(0, 3_000, 20_000);
        self.github.runners.insert(
            id,
            Runner {
                name: name.to_owned(),
                ours,
                pool: pool.to_owned(),
                online: false,
                busy: None,
                minted: pool != "nobody",
                shown_from: now + lag,
                busy_shown_from: 0,
                given_to: None,
            },
        );
        Some(id)
    }

    /// Takes a registration away; its listener may hear of it or not.
    pub fn unregister(&mut self, id: u64, heard: bool) {
        let now = self.now();
        let Some(runner) = self.github.runners.remove(&id) else {
            return;
        };
        let lag = self.rng.wait(0, 2_000, 15_000);
        let row = Row {
            id,
            name: runner.name,
            online: runner.online,
            busy: runner.busy.is_some(),
        };
        self.github.fading.retain(|_, (_, until)| now < *until);
        if runner.shown_from <= now {
            self.github.fading.insert(id, (row, now + lag));
        }
        self.registration_gone(id, heard);
    }

    /// A listener connects. False if GitHub knows no such runner.
    pub fn online(&mut self, id: u64) -> bool {
        let runner = self.github.runners.get_mut(&id);
        runner.is_some_and(|runner| {
            runner.online = true;
            true
        })
    }

    /// A listener is not heard of any more.
    pub fn offline(&mut self, id: u64) {
        if let Some(runner) = self.github.runners.get_mut(&id) {
            runner.online = false;
        }
    }

    /// Somebody pushes: a job for a pool.
    pub fn new_job(&mut self, pool: &str) {
        let number = self.github.jobs.len() as u64 + 1;
        let job = Job {
            pool: pool.to_owned(),
            state: JobState::Queued,
            assigned_at: 0,
            runner: None,
        };
        self.github.jobs.insert(number, job);
        self.assign();
    }

    /// Sends queued jobs to runners that listen.
    pub fn assign(&mut self) {
        let queued = self.github.jobs.iter();
        let queued: Vec<(u64, String)> = queued
            .filter(|(_, job)| job.state == JobState::Queued)
            .map(|(number, job)| (*number, job.pool.clone()))
            .collect();
        for (number, pool) in queued {
            let idle = self.github.runners.iter();
            let idle: Vec<u64> = idle
                .filter(|(_, r)| r.online && r.busy.is_none() && r.pool == pool && r.ours.is_some())
                .map(|(id, _)| *id)
                .collect();
            if let Some(id) = self.rng.pick(&idle).copied() {
                self.send_job(number, id);
            }
        }
    }

    fn send_job(&mut self, number: u64, id: u64) {
        let now = self.now();
        let lag = self.rng.wait(0, 3_000, 20_000);
        self.note(|| format!("GitHub sends job {number} to {id}"));
        if let Some(runner) = self.github.runners.get_mut(&id) {
            runner.busy = Some(number);
            runner.busy_shown_from = now + lag;
        }
        if let Some(job) = self.github.jobs.get_mut(&number) {
            job.state = JobState::Assigned;
            job.assigned_at = now;
            job.runner = Some(id);
        }
        let wait = self.rng.wait(20, 1_500, 10_000);
        self.after(wait, move |w| w.take_job(id, number));
        self.after(TAKE_WITHIN, move |w| w.not_taken(number, id));
    }

    fn not_taken(&mut self, number: u64, id: u64) {
        let Some(job) = self.github.jobs.get_mut(&number) else {
            return;
        };
        if job.state != JobState::Assigned || job.runner != Some(id) {
            return;
        }
        (job.state, job.runner) = (JobState::Queued, None);
        if let Some(runner) = self.github.runners.get_mut(&id) {
            runner.busy = None;
            runner.online = false;
        }
        self.assign();
    }

    /// The listener acquires the job. False if it is not to be had any more.
    pub fn job_runs(&mut self, number: u64) -> bool {
        let job = self.github.jobs.get_mut(&number);
        job.is_some_and(|job| {
            let had = job.state == JobState::Assigned;
            if had {
                job.state = JobState::Running;
            }
            had
        })
    }

    /// A job that ran came to its end.
    pub fn job_is(&mut self, number: u64, state: JobState) {
        let Some(job) = self.github.jobs.get_mut(&number) else {
            return;
        };
        if job.state != JobState::Running {
            return;
        }
        job.state = state;
        let Some(id) = job.runner else { return };
        if state == JobState::Lost {
            self.after(LOCK_LAPSES, move |w| {
                if let Some(runner) = w.github.runners.get_mut(&id) {
                    runner.busy = None;
                }
            });
        } else {
            let wait = self.rng.wait(0, 3_000, 12_000);
            self.after(wait, move |w| {
                if let Some(runner) = w.github.runners.get_mut(&id) {
                    runner.busy = None;
                }
                w.unregister(id, true);
            });
        }
    }

    /// The job that was sent to a runner and is not over, with the time of that.
    #[must_use]
    pub fn job_of(&self, runner: u64) -> Option<(u64, u64)> {
        let number = self.github.runners.get(&runner)?.busy?;
        let job = self.github.jobs.get(&number)?;
        match job.state {
            JobState::Assigned | JobState::Running => Some((number, job.assigned_at)),
            JobState::Queued | JobState::Done | JobState::Cancelled | JobState::Lost => None,
        }
    }
}
