//! The observer: it checks the invariants from the events alone, never from what the daemon says of itself.
//!
//! ```text
//! containers     units, containers, and the jobs in them
//! registrations  registrations, their configs, and the jobs that GitHub sent them
//! calls          calls to GitHub, and the limits that the daemon knows
//! checked        the result of one check
//! jobs           jobs that wait, and the containers that start for them
//! sets           scale sets: their messages, and the capacity that the daemon announces
//! verdicts       records, verdicts, and excuses for verdicts that are missing
//! settled        the host as it should be after the last fault
//! ```

mod calls;
mod checked;
mod containers;
mod jobs;
mod registrations;
mod sets;
mod settled;
mod verdicts;

use std::sync::Arc;

use runner_controller::config::Config;
use runner_controller::controller::Command;
use runner_controller::pool::{PoolName, RunnerName};

use crate::api::Endpoint;
use crate::event::{ContainerId, SimEvent};
use crate::invariant::{Invariant, Violation};

use calls::Calls;
use checked::{Checked, violated};
use containers::Containers;
use jobs::Jobs;
use registrations::Registrations;
use sets::Sets;
use verdicts::Verdicts;

/// Registrations of the last ten minutes that may have no container, in addition to one for each slot and for each
/// daemon that ended lately: 24, then six a minute, and those of a minute until the daemon notices.
const MAX_ORPHANS: usize = 24 + 60;
/// Time in which the end of a daemon explains registrations without a container, in milliseconds.
const RECENT_DEATH_MS: u64 = 600_000;
/// Maximum time from a call of the daemon to systemd until it arrives, whatever became of the daemon.
const CALL_ARRIVES_MS: u64 = 500;
/// Time after an undrain in which a clean-up that began before it may still end runners, in milliseconds.
const CLEAR_LASTS_MS: u64 = 90_000;

/// The observer.
pub(crate) struct Observer {
    /// The configuration that root wrote last.
    config: Arc<Config>,
    /// The configuration of the daemon that runs.
    daemon: Option<Arc<Config>>,
    /// The configuration of the daemon before, and the time of its end.
    former: Option<(u64, Arc<Config>)>,
    daemons: u64,
    /// Times at which daemons ended.
    deaths: Vec<u64>,
    /// The time until which an operator's command may end runners with their jobs.
    clearing_until: Option<u64>,
    containers: Containers,
    registrations: Registrations,
    calls: Calls,
    jobs: Jobs,
    sets: Sets,
    verdicts: Verdicts,
    violation: Option<Violation>,
}

impl Observer {
    /// Returns an observer of a world where nothing has happened yet.
    #[must_use]
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            daemon: None,
            former: None,
            daemons: 0,
            deaths: Vec::new(),
            clearing_until: None,
            containers: Containers::default(),
            registrations: Registrations::default(),
            calls: Calls::default(),
            jobs: Jobs::default(),
            sets: Sets::default(),
            verdicts: Verdicts::default(),
            violation: None,
        }
    }

    /// Returns the first violation. Later ones may follow from it.
    #[must_use]
    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Returns the number of containers that were started.
    #[must_use]
    pub(crate) fn containers_started(&self) -> u64 {
        self.containers.started()
    }

    /// Returns the number of jobs that GitHub sent to runners.
    #[must_use]
    pub(crate) fn jobs_sent(&self) -> u64 {
        self.registrations.jobs_sent()
    }

    /// Returns the number of calls that were sent to GitHub.
    #[must_use]
    pub(crate) fn calls_sent(&self) -> u64 {
        self.calls.sent()
    }

    /// Records the violation of [`Invariant::Settles`].
    pub(crate) fn never_settled(&mut self, facts: String) {
        self.record(violated(Invariant::Settles, facts));
    }

    /// Checks at the end that every container that ended has a verdict.
    pub(crate) fn check_verdicts(&mut self) {
        let checked = self.verdicts.check_complete(&self.containers);
        self.record(checked);
    }

    fn record(&mut self, checked: Checked) {
        if let Err(violation) = checked {
            self.violation.get_or_insert(violation);
        }
    }

    /// Takes in an event that happened at `now`, and checks what it concerns.
    pub(crate) fn observe(&mut self, event: &SimEvent, now: u64) {
        self.jobs.observe(event, &self.containers, now);
        let checked = self.sets.check(event, now);
        self.record(checked);
        let checked = self.check(event, now);
        self.record(checked);
    }

    #[expect(clippy::too_many_lines, reason = "a table with an arm for each event")]
    fn check(&mut self, event: &SimEvent, now: u64) -> Checked {
        match event {
            SimEvent::Configured(config) => self.config = Arc::clone(config),
            SimEvent::DaemonStarted { config, .. } => {
                self.daemons += 1;
                self.daemon = Some(Arc::clone(config));
                self.verdicts.daemon_started(&self.containers);
            }
            SimEvent::DaemonEnded { panic, .. } => {
                self.former = self.daemon.take().map(|config| (now, config));
                self.deaths.push(now);
                self.calls.daemon_ended(self.verdicts.writable_since(), now);
                self.verdicts.daemon_ended(now);
                if let Some(message) = panic {
                    return violated(Invariant::NoPanic, message);
                }
            }
            SimEvent::CommandGiven(command) => self.command(command, now),
            SimEvent::HostRebooted => {
                self.calls.forget_limits();
                self.verdicts.host_rebooted(&self.containers, now);
                self.containers.host_rebooted();
            }
            SimEvent::UnitStarted(container) => {
                self.containers.start(container, now);
                self.check_max_runners(container, now)?;
                self.check_budget(container, now)?;
                return self.check_demand(container, now);
            }
            SimEvent::UnitStopRequested { container, .. } => {
                let checked = self.check_stop(container, now);
                self.containers.stop_requested(container);
                return checked;
            }
            SimEvent::UnitTimedOut(container) => return self.check_timeout(container, now),
            SimEvent::UnitEnded {
                container,
                recorded,
                ..
            } => self.containers.end(container, *recorded),
            SimEvent::ContainerAsked(container) => self.containers.asked(container),
            SimEvent::ConnectionClosed(container) => self.containers.connection_closed(container),
            SimEvent::ContainerGone { container, .. } => self.containers.gone(container),
            SimEvent::ConfigDelivered { container, config } => {
                let runner = self.registrations.config_delivered(container, config)?;
                self.containers.configured(container, runner);
            }
            SimEvent::ListenerAccepted { runner } => self.containers.listening(*runner),
            SimEvent::MintReceived { name } => return self.registrations.mint_received(name),
            SimEvent::Registered {
                runner,
                name,
                config,
            } => {
                let host = &self.config.host;
                self.registrations
                    .registered(*runner, host, name, config.as_deref(), now);
            }
            SimEvent::StrangerConnected { runner } => {
                self.registrations.stranger_connected(*runner);
            }
            SimEvent::DeleteReceived { runner, name } => {
                if name.starts_with("stranger-") {
                    return violated(Invariant::IdsOfOneScope, name);
                }
                if RunnerName::parse(&self.config.host, name).is_none() {
                    return violated(Invariant::ForeignLeftAlone, name);
                }
                if self.registrations.is_strangers(*runner) {
                    return violated(Invariant::StrangersLeftAlone, name);
                }
            }
            SimEvent::Deregistered { runner, .. } => {
                self.registrations.deregistered(*runner);
                self.containers.deregistered(*runner);
            }
            SimEvent::JobQueued { job, pool } => self.registrations.job_queued(*job, pool),
            SimEvent::JobSent { job, runner } => self.registrations.job_sent(*job, *runner, now),
            SimEvent::JobReturned { job, runner } => {
                self.registrations.job_returned(*job, *runner);
            }
            SimEvent::JobWithdrawn { job } => self.registrations.job_withdrawn(*job),
            SimEvent::JobRunning { job, runner } => {
                self.registrations.job_running(*job);
                self.containers.working(*runner);
            }
            SimEvent::JobEnded { job, .. } => {
                if let Some(runner) = self.registrations.job_ended(*job) {
                    self.containers.finished(runner);
                }
            }
            SimEvent::CallSent { endpoint, scope } => {
                return self.check_call(*endpoint, scope, now);
            }
            SimEvent::LimitsTold(limits) => self.calls.limits_told(*limits, now),
            SimEvent::RecordWritten { slot, invocation } => {
                self.verdicts.record_written(slot, invocation.as_ref());
            }
            SimEvent::RecordRemoved { slot } => self.verdicts.record_removed(slot),
            SimEvent::RecordReverted { lost, kept, .. } => {
                (self.verdicts).record_reverted(lost.as_ref(), kept.as_ref());
            }
            SimEvent::RecordsUnreadable => {
                self.calls.forget_refusals();
                self.verdicts.records_unreadable(now);
            }
            SimEvent::RecordsWritable(writable) => self.verdicts.records_writable(*writable, now),
            SimEvent::VerdictWritten { slot, invocation } => {
                let containers = &self.containers;
                return (self.verdicts).written(slot, invocation.as_ref(), containers);
            }
            SimEvent::VerdictLost {
                slot,
                invocation,
                record_restored,
            } => (self.verdicts).lost(slot, invocation.as_ref(), *record_restored),
            SimEvent::VerdictInterrupted { slot, invocation } => {
                self.verdicts.interrupted(slot, invocation.as_ref());
            }
            SimEvent::PollSent { pool, capacity, .. } => {
                return self.check_capacity(pool, *capacity, now);
            }
            // No invariant depends on these, or another part checks it.
            SimEvent::Told(_)
            | SimEvent::CommandAccepted(_)
            | SimEvent::PollEnded { .. }
            | SimEvent::PollDropped { .. }
            | SimEvent::MessageDeleted { .. }
            | SimEvent::SetDeleted { .. }
            | SimEvent::JobRecorded { .. }
            | SimEvent::DescriptorsLost
            | SimEvent::FaultStarted(_)
            | SimEvent::FaultEnded(_)
            | SimEvent::Calm
            | SimEvent::JobReported { .. }
            | SimEvent::ListenerConnected { .. }
            | SimEvent::ListenerRefused { .. }
            | SimEvent::JobPushed { .. }
            | SimEvent::JobOffered { .. }
            | SimEvent::JobTaken { .. }
            | SimEvent::CallArrived { .. }
            | SimEvent::Answered { .. } => {}
        }
        Ok(())
    }

    fn command(&mut self, command: &Command, now: u64) {
        match command {
            Command::Clear { .. } => self.clearing_until = Some(u64::MAX),
            // A clean-up that began before still ends runners for a while.
            Command::Undrain | Command::Refill(_) | Command::Drain => {
                if let Some(until) = &mut self.clearing_until {
                    *until = (*until).min(now + CLEAR_LASTS_MS);
                }
            }
            Command::Ping => {}
        }
    }

    fn check_max_runners(&self, container: &ContainerId, now: u64) -> Checked {
        let pool = &container.slot.pool;
        let (count, max) = (self.containers.count(pool), self.max_runners(pool, now));
        if count > max {
            let facts = format!("{container} is number {count} of {max}");
            return violated(Invariant::MaxRunners, facts);
        }
        Ok(())
    }

    /// Checks that a pool can have as many jobs as the daemon announces.
    fn check_capacity(&self, pool: &PoolName, capacity: u32, now: u64) -> Checked {
        // Runners in slots that are not configured any more have jobs, too.
        let max = self.max_runners(pool, now).max(self.containers.count(pool));
        if usize::try_from(capacity).is_ok_and(|capacity| capacity <= max) {
            return Ok(());
        }
        let facts = format!("{pool} announces {capacity} of {max}");
        violated(Invariant::CapacityCanStart, facts)
    }

    /// Checks that a container has a reason to start, and that its turn has come.
    fn check_demand(&mut self, container: &ContainerId, now: u64) -> Checked {
        // The last call of a daemon that has just ended may still be on its way to systemd.
        let settled = self.former.as_ref();
        let settled = settled.is_none_or(|(ended, _)| now >= ended + CALL_ARRIVES_MS);
        let Some(config) = self.daemon.as_ref().filter(|_| settled) else {
            return Ok(());
        };
        (self.jobs).check_start(container, config, &self.containers, now)?;
        (self.jobs).check_turn(container, config, &self.containers, now)
    }

    /// Returns the largest `max_runners` of a pool that may hold now.
    fn max_runners(&self, pool: &PoolName, now: u64) -> usize {
        let max = |config: &Config| config.pool(pool).map_or(0, |pool| pool.max_runners);
        let known = self.daemon.as_deref().map_or(0, max);
        // The last call of a daemon that has just ended may still be on its way to systemd.
        let former = self.former.as_ref();
        let former = former.filter(|(ended, _)| now < ended + CALL_ARRIVES_MS);
        let former = former.map_or(0, |(_, config)| max(config));
        usize::from(max(&self.config).max(known).max(former))
    }

    fn check_budget(&self, container: &ContainerId, now: u64) -> Checked {
        let known = self.daemon.as_deref();
        let former = self.former.as_ref();
        let former = former.filter(|(ended, _)| now < ended + CALL_ARRIVES_MS);
        let configs = [
            Some(&*self.config),
            known,
            former.map(|(_, config)| &**config),
        ];
        let budgets = configs
            .into_iter()
            .flatten()
            .map(|config| config.budget.runners);
        // One of them may not have a budget.
        let max = budgets.collect::<Option<Vec<u64>>>();
        let max = max.and_then(|max| max.into_iter().max());
        let count = self.containers.units().len() as u64;
        if max.is_some_and(|max| count > max) {
            let facts = format!("{container} is number {count} of {max:?}");
            return violated(Invariant::Budget, facts);
        }
        Ok(())
    }

    /// Checks that the daemon has a reason to end a unit whose runner has a job.
    fn check_stop(&self, container: &ContainerId, now: u64) -> Checked {
        let runner = self.containers.runner(container);
        let Some((job, sent_at)) = runner.and_then(|runner| self.registrations.job_of(runner))
        else {
            return Ok(());
        };
        let cleared = self.clearing_until.is_some_and(|until| now <= until);
        let overdue = now.saturating_sub(sent_at) >= self.job_limit_ms(container);
        // The first request to stop was checked already.
        if cleared || overdue || self.containers.is_stopping(container) {
            return Ok(());
        }
        let facts = format!("{container} was ended with {job}");
        violated(Invariant::BusyLeftAlone, facts)
    }

    fn check_timeout(&self, container: &ContainerId, now: u64) -> Checked {
        let runner = self.containers.runner(container);
        let Some((job, sent_at)) = runner.and_then(|runner| self.registrations.job_of(runner))
        else {
            return Ok(());
        };
        let age_ms = now - sent_at;
        if age_ms >= self.job_limit_ms(container) {
            return Ok(());
        }
        let facts = format!("{container} with {job}, sent {age_ms} ms ago");
        violated(Invariant::LifetimeFitsJob, facts)
    }

    /// Returns `timeouts.job`, which is the same in every pool and configuration of a history.
    fn job_limit_ms(&self, container: &ContainerId) -> u64 {
        let pool = self.config.pool(&container.slot.pool);
        let pool = pool.or(self.config.pools.first());
        pool.map_or(u64::MAX, |pool| {
            u64::try_from(pool.timeouts.job.as_millis()).unwrap_or(u64::MAX)
        })
    }

    fn check_call(&mut self, endpoint: Endpoint, scope: &str, now: u64) -> Checked {
        self.calls.check(endpoint, scope, self.daemons, now)?;
        if !endpoint.is_mint() {
            return Ok(());
        }
        let recent = |ended: &&u64| **ended + RECENT_DEATH_MS > now;
        let deaths = self.deaths.iter().rev().take_while(recent).count();
        let slots = self.config.slots().count();
        let unowned = self.registrations.unowned(&self.containers, now);
        if unowned > MAX_ORPHANS + slots * (1 + deaths) {
            return violated(Invariant::RegistrationsOwned, unowned.to_string());
        }
        Ok(())
    }
}
