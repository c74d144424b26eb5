//! Containers: each boots, asks for a config, listens, runs a job, and ends. They do not know the daemon.

use runner_controller::pool::{Exit, Invocation, JobNote, RunnerId, SlotId};

use super::{Host, Schedule, Timer};
use crate::api::configured_runner;
use crate::event::{ContainerId, JobEnd, JobId, SimEvent};

/// The progress of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerState {
    /// It boots.
    Booting,
    /// It is connected to its socket, or tried to connect.
    Asking,
    /// It has its config.
    Configured,
    /// Its listener is connected to GitHub.
    Listening,
    /// It runs a job.
    Working(JobId),
    /// Its listener is connected, and GitHub has dropped the registration without a word.
    Ghost,
    /// It was told to end, or is about to.
    Ending,
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) invocation: Invocation,
    pub(super) state: ContainerState,
    /// The registration that its config is for.
    pub(super) runner: Option<RunnerId>,
}

impl Container {
    /// Returns a container that has just been started.
    pub(super) fn new(invocation: Invocation) -> Self {
        Self {
            invocation,
            state: ContainerState::Booting,
            runner: None,
        }
    }
}

impl Host {
    /// The container's init starts.
    pub(super) fn boot(&mut self, container: &ContainerId, schedule: &mut Schedule<'_>) {
        if self.faults.boots_fail || self.random.chance(6) {
            let wait = self.random.wait(5, 300, 4_000);
            schedule.after(wait, Timer::End(container.clone(), Exit::Status(1)));
            return;
        }
        let active = self.random.wait(40, 250, 30_000);
        schedule.after(active, Timer::Active(container.clone()));
        if self.faults.boots_hang || self.random.chance(4) {
            return;
        }
        let ask = self.random.wait(40, 250, 80_000);
        schedule.after(ask, Timer::Ask(container.clone()));
    }

    pub(super) fn ask(&mut self, id: ContainerId, schedule: &mut Schedule<'_>) {
        if let Some(container) = self.container(&id) {
            container.state = ContainerState::Asking;
            schedule.emit(SimEvent::ContainerAsked(id));
        }
    }

    /// The connection was refused, or closed without a config.
    pub(crate) fn connection_closed(
        &mut self,
        container: ContainerId,
        schedule: &mut Schedule<'_>,
    ) {
        let wait = self.random.between(5, 60);
        let state = ContainerState::Asking;
        schedule.after(wait, Timer::EndIf(container, state, Exit::Status(1)));
    }

    /// A config arrived.
    pub(crate) fn config_delivered(
        &mut self,
        id: ContainerId,
        config: &str,
        schedule: &mut Schedule<'_>,
    ) {
        let Some(container) = self.container(&id) else {
            return;
        };
        container.state = ContainerState::Configured;
        container.runner = configured_runner(config);
        let wait = self.random.wait(300, 4_000, 40_000);
        schedule.after(wait, Timer::Listen(id));
    }

    pub(super) fn listen(&mut self, id: ContainerId, schedule: &mut Schedule<'_>) {
        let Some(container) = self.container(&id) else {
            return;
        };
        let (state, runner) = (container.state, container.runner);
        if self.faults.listeners_offline {
            let wait = self.random.between(5_000, 30_000);
            schedule.after(wait, Timer::Listen(id));
            return;
        }
        if state != ContainerState::Configured {
            return;
        }
        match runner {
            Some(runner) => schedule.emit(SimEvent::ListenerConnected { runner }),
            // The runner cannot read its config.
            None => self.end_unit(&id, Exit::Status(1), schedule),
        }
    }

    /// GitHub accepted the listener.
    pub(crate) fn listener_accepted(&mut self, runner: RunnerId) {
        let Some(id) = self.listener(runner) else {
            return;
        };
        if let Some(container) = self.container(&id)
            && container.state == ContainerState::Configured
        {
            container.state = ContainerState::Listening;
        }
    }

    /// GitHub turned the listener away, and the runner exits.
    pub(crate) fn listener_refused(
        &mut self,
        runner: RunnerId,
        status: i32,
        schedule: &mut Schedule<'_>,
    ) {
        if let Some(id) = self.listener(runner) {
            self.end_unit(&id, Exit::Status(status), schedule);
        }
    }

    /// The registration is gone. An idle listener hears of it at its next poll, or never does.
    pub(crate) fn deregistered(
        &mut self,
        runner: RunnerId,
        heard: bool,
        schedule: &mut Schedule<'_>,
    ) {
        let Some(id) = self.listener(runner) else {
            return;
        };
        let Some(container) = self.container(&id) else {
            return;
        };
        if container.state != ContainerState::Listening {
            return;
        }
        if heard {
            let wait = self.random.wait(100, 5_000, 50_000);
            let state = ContainerState::Listening;
            schedule.after(wait, Timer::EndIf(id, state, Exit::Status(0)));
        } else {
            container.state = ContainerState::Ghost;
        }
    }

    /// GitHub's message with a job reached the listener.
    pub(crate) fn job_offered(
        &mut self,
        job: JobId,
        runner: RunnerId,
        schedule: &mut Schedule<'_>,
    ) {
        let Some(id) = self.listener(runner) else {
            return;
        };
        let is_up = self.unit(&id.slot).is_up();
        let listening = self
            .container(&id)
            .is_some_and(|container| container.state == ContainerState::Listening);
        if is_up && listening {
            schedule.emit(SimEvent::JobTaken { job, runner });
        }
    }

    /// GitHub confirmed that the runner has the job, and the job runs.
    pub(crate) fn job_running(
        &mut self,
        job: JobId,
        runner: RunnerId,
        schedule: &mut Schedule<'_>,
    ) {
        let Some(id) = self.listener(runner) else {
            return;
        };
        if let Some(container) = self.container(&id) {
            container.state = ContainerState::Working(job);
        }
        if !self.random.chance(20) {
            let wait = self.random.wait(50, 1_500, 20_000);
            let note = JobNote {
                repository: "acme/widgets".to_owned(),
                run_id: "7".to_owned(),
                ..JobNote::default()
            };
            schedule.after(wait, Timer::ReportJob(id.clone(), note));
        }
        // One job in a hundred never ends by itself.
        if !self.random.chance(10) {
            let wait = self.random.wait(500, 60_000, 600_000);
            schedule.after(wait, Timer::FinishJob(id, job));
        }
    }

    pub(super) fn finish_job(&mut self, id: ContainerId, job: JobId, schedule: &mut Schedule<'_>) {
        let is_up = self.unit(&id.slot).is_up();
        let Some(container) = self.container(&id) else {
            return;
        };
        if container.state != ContainerState::Working(job) || !is_up {
            return;
        }
        container.state = ContainerState::Ending;
        let end = JobEnd::Done;
        schedule.emit(SimEvent::JobEnded { job, end });
        let wait = self.random.wait(100, 3_000, 20_000);
        let status = *self.random.pick(&[0, 0, 100, 102]).unwrap_or(&0);
        schedule.after(wait, Timer::End(id, Exit::Status(status)));
    }

    /// The runner gets SIGINT and cancels its job. Returns true if it had one.
    pub(super) fn interrupt(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) -> bool {
        let Some(container) = self.unit(slot).container.as_mut() else {
            return false;
        };
        let state = std::mem::replace(&mut container.state, ContainerState::Ending);
        let ContainerState::Working(job) = state else {
            return false;
        };
        let end = JobEnd::Cancelled;
        schedule.emit(SimEvent::JobEnded { job, end });
        true
    }

    /// The container's processes are gone.
    pub(super) fn container_gone(&mut self, slot: &SlotId, schedule: &mut Schedule<'_>) {
        let Some(container) = self.unit(slot).container.take() else {
            return;
        };
        if let ContainerState::Working(job) = container.state {
            let end = JobEnd::Lost;
            schedule.emit(SimEvent::JobEnded { job, end });
        }
        schedule.emit(SimEvent::ContainerGone {
            container: ContainerId {
                slot: slot.clone(),
                invocation: container.invocation,
            },
            runner: container.runner,
        });
    }
}
