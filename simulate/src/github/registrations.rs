//! Registrations, and the list's view of them, which comes late.

use runner_controller::pool::{ListedRunner, RunnerId};

use super::{FadingRow, GitHub, Schedule, Timer};
use crate::api::jit_config;
use crate::event::{JobId, SimEvent};

/// The scope of registrations that the daemon did not make.
const USUAL_SCOPE: &str = "acme/widgets";
/// The status with which a runner exits whose version GitHub refuses.
const VERSION_REFUSED: i32 = 7;
/// The status with which a runner exits that GitHub does not know.
const UNKNOWN_RUNNER: i32 = 1;

/// A registration.
#[derive(Debug)]
pub(super) struct RegisteredRunner {
    pub(super) name: String,
    /// The scope in which it is registered.
    pub(super) scope: String,
    /// Its label, which is its pool's name.
    pub(super) label: String,
    /// Its scale set.
    pub(super) set: Option<u64>,
    /// Its listener is connected.
    pub(super) online: bool,
    /// The job that it was sent.
    pub(super) job: Option<JobId>,
    /// Time from which the list shows it.
    shown_from: u64,
    /// Time from which the list shows its job.
    pub(super) busy_shown_from: u64,
}

impl GitHub {
    /// Makes a registration for `label`. Returns its id and its config; `None` if the name is taken.
    pub(super) fn register(
        &mut self,
        scope: &str,
        name: &str,
        label: &str,
        schedule: &mut Schedule<'_>,
    ) -> Option<(RunnerId, String)> {
        let runner = self.insert(scope, name, label, schedule.now())?;
        let config = jit_config(runner, name);
        schedule.emit(SimEvent::Registered {
            runner,
            name: name.to_owned(),
            config: Some(config.clone()),
        });
        Some((runner, config))
    }

    /// Makes registrations whose configs no container gets.
    pub(crate) fn register_unused(
        &mut self,
        count: usize,
        prefix: &str,
        label: &str,
        schedule: &mut Schedule<'_>,
    ) {
        for _ in 0..count {
            let name = format!("{prefix}-{:08x}", self.random.any());
            self.register(USUAL_SCOPE, &name, label, schedule);
        }
    }

    /// A registration appears that the daemon did not make. If it is online, another host uses it.
    pub(crate) fn plant_registration(
        &mut self,
        name: String,
        online: bool,
        schedule: &mut Schedule<'_>,
    ) {
        // No job asks for this label.
        if let Some(runner) = self.insert(USUAL_SCOPE, &name, "unused", schedule.now()) {
            if let Some(planted) = self.runners.get_mut(&runner) {
                planted.online = online;
            }
            if online {
                schedule.emit(SimEvent::StrangerConnected { runner });
            }
            let config = None;
            schedule.emit(SimEvent::Registered {
                runner,
                name,
                config,
            });
        }
    }

    fn insert(&mut self, scope: &str, name: &str, label: &str, now: u64) -> Option<RunnerId> {
        let is_same = |runner: &RegisteredRunner| runner.name == name && runner.scope == scope;
        if self.runners.values().any(is_same) {
            return None;
        }
        self.last_id += 1 + self.random.below(3);
        let id = RunnerId(self.last_id);
        let lag = self.random.wait(0, 3_000, 20_000);
        self.runners.insert(
            id,
            RegisteredRunner {
                name: name.to_owned(),
                scope: scope.to_owned(),
                label: label.to_owned(),
                set: None,
                online: false,
                job: None,
                shown_from: now + lag,
                busy_shown_from: 0,
            },
        );
        Some(id)
    }

    /// Removes a registration. Its listener hears of it or does not.
    pub(super) fn deregister(&mut self, id: RunnerId, heard: bool, schedule: &mut Schedule<'_>) {
        let now = schedule.now();
        let Some(runner) = self.runners.remove(&id) else {
            return;
        };
        let lag = self.random.wait(0, 2_000, 15_000);
        self.fading.retain(|_, fading| now < fading.until);
        if runner.shown_from <= now {
            let row = ListedRunner {
                id,
                name: runner.name,
                online: runner.online,
                busy: runner.job.is_some(),
                version: None,
            };
            let (scope, until) = (runner.scope, now + lag);
            self.fading.insert(id, FadingRow { row, scope, until });
        }
        schedule.emit(SimEvent::Deregistered { runner: id, heard });
    }

    /// GitHub drops an idle registration.
    pub(crate) fn lapse(&mut self, draw: u64, heard: bool, schedule: &mut Schedule<'_>) {
        let idle: Vec<RunnerId> = self
            .runners
            .iter()
            .filter(|(_, runner)| runner.job.is_none())
            .map(|(id, _)| *id)
            .collect();
        let chosen = usize::try_from(draw % (idle.len() as u64).max(1)).unwrap_or(0);
        if let Some(id) = idle.get(chosen) {
            self.deregister(*id, heard, schedule);
        }
    }

    /// Returns the rows that the list of a scope shows at this moment.
    ///
    /// GitHub's ids mean nothing beside their server, so each registration has a stranger with the same id
    /// in every other scope.
    pub(super) fn rows(&self, scope: &str, now: u64) -> Vec<ListedRunner> {
        let shown = self.runners.iter().filter(|(_, r)| r.shown_from <= now);
        let shown = shown.map(|(id, runner)| Self::row(*id, runner, scope, now));
        let fading = self.fading.values();
        let fading = fading.filter(|fading| fading.scope == scope && now < fading.until);
        let fading = fading.map(|fading| fading.row.clone());
        let mut rows: Vec<ListedRunner> = shown.chain(fading).collect();
        rows.sort_by_key(|row| row.id);
        rows
    }

    /// Returns the runner that has an id in a scope: a registration, or a stranger beside it.
    pub(super) fn find(&self, id: RunnerId, scope: &str, now: u64) -> Option<ListedRunner> {
        let runner = self.runners.get(&id)?;
        Some(Self::row(id, runner, scope, now))
    }

    fn row(id: RunnerId, runner: &RegisteredRunner, scope: &str, now: u64) -> ListedRunner {
        if runner.scope != scope {
            return ListedRunner {
                id,
                name: format!("stranger-{id}"),
                online: true,
                busy: false,
                version: None,
            };
        }
        ListedRunner {
            id,
            name: runner.name.clone(),
            online: runner.online,
            busy: runner.job.is_some() && runner.busy_shown_from <= now,
            version: None,
        }
    }

    /// Returns true if the runner was sent a job that is not over.
    pub(crate) fn has_job(&self, id: RunnerId) -> bool {
        self.runners
            .get(&id)
            .is_some_and(|runner| runner.job.is_some())
    }

    /// A listener connects.
    pub(crate) fn listener_connected(&mut self, runner: RunnerId, schedule: &mut Schedule<'_>) {
        let known = self.runners.get_mut(&runner);
        if self.faults.refuses_version {
            let status = known.map_or(UNKNOWN_RUNNER, |_| VERSION_REFUSED);
            schedule.emit(SimEvent::ListenerRefused { runner, status });
            return;
        }
        let Some(known) = known else {
            let status = UNKNOWN_RUNNER;
            schedule.emit(SimEvent::ListenerRefused { runner, status });
            return;
        };
        known.online = true;
        schedule.emit(SimEvent::ListenerAccepted { runner });
        self.assign_jobs(schedule);
    }

    /// A listener is gone, which GitHub notices later.
    pub(crate) fn listener_gone(&mut self, runner: RunnerId, schedule: &mut Schedule<'_>) {
        let wait = self.random.wait(300, 6_000, 60_000);
        schedule.after(wait, Timer::Offline(runner));
    }
}
