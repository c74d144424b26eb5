//! Registrations, their configs, and the jobs that GitHub sent to them.

use std::collections::{BTreeMap, BTreeSet};

use runner_controller::pool::{HostId, RunnerId, RunnerName, SlotId};

use super::checked::{Checked, violated};
use super::containers::Containers;
use crate::event::{ContainerId, JobId};
use crate::invariant::{Invariant, Violation};

/// Age from which a registration without a container does not count, in milliseconds.
const UNOWNED_MS: u64 = 600_000;

/// A registration.
#[derive(Debug)]
struct Registration {
    name: String,
    /// The slot in its name, if the name is this host's.
    slot: Option<SlotId>,
    /// The daemon made it.
    minted: bool,
    /// Time at which it was made.
    made_at: u64,
    /// The container that has its config.
    container: Option<ContainerId>,
    /// The job that it was sent and that has not ended, with the time of that.
    job: Option<(JobId, u64)>,
}

/// All registrations, and the jobs.
#[derive(Default)]
pub(super) struct Registrations {
    by_id: BTreeMap<RunnerId, Registration>,
    /// Registrations by their config, whether they still exist or not, with the slot in their name and whether the
    /// config was given.
    configs: BTreeMap<String, Minted>,
    names: BTreeSet<String>,
    /// Jobs that no runner has taken yet, by the pool that they need.
    waiting: BTreeMap<JobId, String>,
    /// The runner that each unfinished job was sent to.
    sent_to: BTreeMap<JobId, RunnerId>,
    jobs_sent: BTreeSet<JobId>,
    /// Registrations that another host uses.
    strangers: BTreeSet<RunnerId>,
}

/// A config that GitHub made.
#[derive(Debug)]
struct Minted {
    runner: RunnerId,
    slot: Option<SlotId>,
    given: bool,
}

impl Registrations {
    /// Returns the number of jobs that were sent to a runner.
    pub(super) fn jobs_sent(&self) -> u64 {
        self.jobs_sent.len() as u64
    }

    /// Returns the number of jobs for one of `pools` that wait for a runner.
    pub(super) fn jobs_waiting(&self, pools: &[String]) -> usize {
        let waiting = self.waiting.values();
        waiting.filter(|pool| pools.contains(pool)).count()
    }

    /// Returns the job that a runner was sent and that has not ended, with the time of that.
    pub(super) fn job_of(&self, runner: RunnerId) -> Option<(JobId, u64)> {
        self.by_id.get(&runner)?.job
    }

    /// A runner of another host connected.
    pub(super) fn stranger_connected(&mut self, runner: RunnerId) {
        self.strangers.insert(runner);
    }

    /// Returns true if another host uses the registration.
    pub(super) fn is_strangers(&self, runner: RunnerId) -> bool {
        self.strangers.contains(&runner)
    }

    /// Returns the number of registrations of the daemon without a container, made within the last minutes.
    pub(super) fn unowned(&self, containers: &Containers, now: u64) -> usize {
        let minted = self.by_id.values().filter(|r| r.minted);
        let minted = minted.filter(|r| r.made_at + UNOWNED_MS > now);
        minted.filter(|r| !r.is_owned(containers)).count()
    }

    /// Returns a registration of this host that has neither a job nor a container.
    pub(super) fn stray(&self, containers: &Containers) -> Option<String> {
        let ours = self.by_id.iter().filter(|(_, r)| r.slot.is_some());
        let mut ours = ours.filter(|(id, _)| !self.is_strangers(**id));
        let stray = ours.find(|(_, r)| r.job.is_none() && !r.is_owned(containers));
        stray.map(|(id, registration)| format!("stray {} ({id})", registration.name))
    }

    pub(super) fn mint_received(&mut self, name: &str) -> Checked {
        if self.names.insert(name.to_owned()) {
            return Ok(());
        }
        violated(Invariant::NamesUsedOnce, name)
    }

    pub(super) fn registered(
        &mut self,
        runner: RunnerId,
        host: &HostId,
        name: &str,
        config: Option<&str>,
        now: u64,
    ) {
        let slot = RunnerName::parse(host, name).map(|name| name.slot);
        if let Some(config) = config {
            let minted = Minted {
                runner,
                slot: slot.clone(),
                given: false,
            };
            self.configs.insert(config.to_owned(), minted);
        }
        let registration = Registration {
            name: name.to_owned(),
            slot,
            minted: config.is_some(),
            made_at: now,
            container: None,
            job: None,
        };
        self.by_id.insert(runner, registration);
    }

    /// A config was given to a container. Returns the registration that it is for.
    pub(super) fn config_delivered(
        &mut self,
        container: &ContainerId,
        config: &str,
    ) -> Result<RunnerId, Violation> {
        let facts = container.to_string();
        let Some(minted) = self.configs.get_mut(config) else {
            return Err(Violation {
                invariant: Invariant::ConfigFromGitHub,
                facts,
            });
        };
        if std::mem::replace(&mut minted.given, true) {
            return Err(Violation {
                invariant: Invariant::ConfigGivenOnce,
                facts,
            });
        }
        if minted
            .slot
            .as_ref()
            .is_some_and(|slot| *slot != container.slot)
        {
            return Err(Violation {
                invariant: Invariant::ConfigForItsSlot,
                facts,
            });
        }
        let runner = minted.runner;
        if let Some(registration) = self.by_id.get_mut(&runner) {
            registration.container = Some(container.clone());
        }
        Ok(runner)
    }

    pub(super) fn deregistered(&mut self, runner: RunnerId) {
        self.by_id.remove(&runner);
    }

    pub(super) fn job_queued(&mut self, job: JobId, pool: &str) {
        self.waiting.insert(job, pool.to_owned());
    }

    pub(super) fn job_sent(&mut self, job: JobId, runner: RunnerId, now: u64) {
        self.jobs_sent.insert(job);
        self.sent_to.insert(job, runner);
        if let Some(registration) = self.by_id.get_mut(&runner) {
            registration.job = Some((job, now));
        }
    }

    pub(super) fn job_returned(&mut self, job: JobId, runner: RunnerId) {
        self.sent_to.remove(&job);
        if let Some(registration) = self.by_id.get_mut(&runner) {
            registration.job = None;
        }
    }

    pub(super) fn job_running(&mut self, job: JobId) {
        self.waiting.remove(&job);
    }

    /// A job ended that no runner had taken.
    pub(super) fn job_withdrawn(&mut self, job: JobId) {
        self.waiting.remove(&job);
    }

    /// A job ended. Returns the runner that ran it.
    pub(super) fn job_ended(&mut self, job: JobId) -> Option<RunnerId> {
        let runner = self.sent_to.remove(&job)?;
        if let Some(registration) = self.by_id.get_mut(&runner) {
            registration.job = None;
        }
        Some(runner)
    }
}

impl Registration {
    fn is_owned(&self, containers: &Containers) -> bool {
        let container = self.container.as_ref();
        container.is_some_and(|container| containers.is_present(container))
    }
}
