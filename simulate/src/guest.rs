//! What runs in a container: it boots, asks, listens, works, ends. It knows nothing of the daemon.

use runner_controller::pool::{Exit, Invocation, JobNote, SlotId};

use crate::github::JobState;
use crate::world::Inner;

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Booting, or waiting on the socket for somebody to accept.
    Boot,
    /// It has its config.
    Configured,
    /// Its listener is connected to GitHub.
    Listening,
    /// It runs its job.
    Working {
        /// GitHub's number for it.
        job: u64,
    },
    /// It listens, and GitHub has forgotten it.
    Ghost,
    /// It was told to end, or is about to.
    Ending,
}

/// What runs in a slot.
#[derive(Debug, Clone)]
pub struct Guest {
    /// The start it belongs to.
    pub invocation: Invocation,
    /// How far it is.
    pub at: At,
    /// The registration it was given.
    pub runner: Option<u64>,
    /// Past its boot, and waiting for its config.
    pub asks: bool,
}

impl Guest {
    /// A container that has just been started.
    #[must_use]
    pub fn new(invocation: Invocation) -> Self {
        Self {
            invocation,
            at: At::Boot,
            runner: None,
            asks: false,
        }
    }
}

impl Inner {
    /// The guest of this life, if it still is there.
    pub fn guest(&mut self, slot: &SlotId, invocation: &Invocation) -> Option<&mut Guest> {
        let guest = self.host.slots.get_mut(slot)?.guest.as_mut()?;
        (guest.invocation == *invocation).then_some(guest)
    }

    /// Does something for a life in so many milliseconds, if it still is there then.
    pub fn later(
        &mut self,
        wait: u64,
        slot: &SlotId,
        invocation: &Invocation,
        deed: impl FnOnce(&mut Inner, &SlotId, &Invocation) + Send + 'static,
    ) {
        let (slot, invocation) = (slot.clone(), invocation.clone());
        self.after(wait, move |w| {
            if w.guest(&slot, &invocation).is_some() {
                deed(w, &slot, &invocation);
            }
        });
    }

    /// The container's init starts.
    pub fn boot(&mut self, slot: &SlotId, invocation: &Invocation) {
        if self.host.sick.boots_fail || self.rng.chance(6) {
            let wait = self.rng.wait(5, 300, 4_000);
            self.later(wait, slot, invocation, |w, slot, invocation| {
                w.end_unit(slot, invocation, Exit::Status(1));
            });
            return;
        }
        let up = self.rng.wait(40, 250, 30_000);
        self.later(up, slot, invocation, |w, slot, invocation| {
            w.active(slot, invocation);
        });
        if self.host.sick.boots_hang || self.rng.chance(4) {
            return;
        }
        let asks = self.rng.wait(40, 250, 80_000);
        self.later(asks, slot, invocation, |w, slot, invocation| {
            w.connect_to_socket(slot, invocation);
        });
    }

    /// The connection that it waited on was closed without a config, or refused.
    pub fn unanswered(&mut self, slot: &SlotId, invocation: &Invocation) {
        let wait = self.rng.between(5, 60);
        self.later(wait, slot, invocation, |w, slot, invocation| {
            if w.guest(slot, invocation)
                .is_some_and(|guest| guest.at == At::Boot)
            {
                w.end_unit(slot, invocation, Exit::Status(1));
            }
        });
    }

    /// Its config arrived.
    pub fn configured(&mut self, slot: &SlotId, invocation: &Invocation, runner: u64) {
        if let Some(guest) = self.guest(slot, invocation) {
            guest.at = At::Configured;
            guest.asks = false;
            guest.runner = Some(runner);
        }
        let wait = self.rng.wait(300, 4_000, 40_000);
        self.later(wait, slot, invocation, Self::listen);
    }

    fn listen(&mut self, slot: &SlotId, invocation: &Invocation) {
        if self.host.sick.no_network {
            let wait = self.rng.between(5_000, 30_000);
            self.later(wait, slot, invocation, Self::listen);
            return;
        }
        let Some(id) = self.guest(slot, invocation).and_then(|guest| {
            let configured = guest.at == At::Configured;
            guest.runner.filter(|_| configured)
        }) else {
            return;
        };
        if self.github.refuses_version {
            let seen = self.github.runner(id).is_some();
            self.end_unit(slot, invocation, Exit::Status(if seen { 7 } else { 1 }));
            return;
        }
        if !self.online(id) {
            self.end_unit(slot, invocation, Exit::Status(1));
            return;
        }
        self.note(|| format!("{slot} listens as {id}"));
        if let Some(guest) = self.guest(slot, invocation) {
            guest.at = At::Listening;
        }
        self.assign();
    }

    /// GitHub has no such runner any more: the listener hears it at its next poll, or never does.
    pub fn registration_gone(&mut self, runner: u64, heard: bool) {
        let found = self.host.slots.iter().find_map(|(slot, place)| {
            let guest = place.guest.as_ref()?;
            let idle = guest.runner == Some(runner) && guest.at == At::Listening;
            idle.then(|| (slot.clone(), guest.invocation.clone()))
        });
        let Some((slot, invocation)) = found else {
            return;
        };
        if !heard {
            if let Some(guest) = self.guest(&slot, &invocation) {
                guest.at = At::Ghost;
            }
            return;
        }
        let wait = self.rng.wait(100, 5_000, 50_000);
        self.later(wait, &slot, &invocation, |w, slot, invocation| {
            if w.guest(slot, invocation)
                .is_some_and(|guest| guest.at == At::Listening)
            {
                w.end_unit(slot, invocation, Exit::Status(0));
            }
        });
    }

    /// GitHub's message with a job reaches the listener of `runner`, if there is one.
    pub fn take_job(&mut self, runner: u64, job: u64) {
        let found = self.host.slots.iter().find_map(|(slot, place)| {
            let guest = place.guest.as_ref()?;
            let idle = guest.runner == Some(runner) && guest.at == At::Listening;
            (idle && place.is_up()).then(|| (slot.clone(), guest.invocation.clone()))
        });
        let Some((slot, invocation)) = found else {
            return;
        };
        if !self.job_runs(job) {
            return;
        }
        if let Some(guest) = self.guest(&slot, &invocation) {
            guest.at = At::Working { job };
        }
        self.note(|| format!("{slot} runs job {job}"));
        if !self.rng.chance(20) {
            let wait = self.rng.wait(50, 1_500, 20_000);
            self.later(wait, &slot, &invocation, |w, slot, _| {
                let note = JobNote {
                    repository: "acme/widgets".to_owned(),
                    run_id: "7".to_owned(),
                    ..JobNote::default()
                };
                w.job_line(slot, note);
            });
        }
        // One in a hundred never ends by itself.
        if !self.rng.chance(10) {
            let wait = self.rng.wait(500, 60_000, 600_000);
            self.later(wait, &slot, &invocation, move |w, slot, invocation| {
                w.finish_job(slot, invocation, job);
            });
        }
    }

    fn finish_job(&mut self, slot: &SlotId, invocation: &Invocation, job: u64) {
        let working = At::Working { job };
        let up = self.place(slot).is_up();
        let Some(guest) = self
            .guest(slot, invocation)
            .filter(|guest| guest.at == working && up)
        else {
            return;
        };
        guest.at = At::Ending;
        self.note(|| format!("{slot} finished job {job}"));
        self.job_is(job, JobState::Done);
        let wait = self.rng.wait(100, 3_000, 20_000);
        let status = *self.rng.pick(&[0, 0, 100, 102]).unwrap_or(&0);
        self.later(wait, slot, invocation, move |w, slot, invocation| {
            w.end_unit(slot, invocation, Exit::Status(status));
        });
    }

    /// The listener hears SIGINT: a job is cancelled. True if there was one.
    pub fn interrupt(&mut self, slot: &SlotId) -> bool {
        let Some(guest) = self.place(slot).guest.as_mut() else {
            return false;
        };
        let at = guest.at;
        guest.at = At::Ending;
        let At::Working { job } = at else {
            return false;
        };
        self.job_is(job, JobState::Cancelled);
        true
    }

    /// Nothing of the container is left: whoever it talked to notices.
    pub fn guest_gone(&mut self, slot: &SlotId) {
        let Some(guest) = self.place(slot).guest.take() else {
            return;
        };
        self.hang_up(slot, &guest.invocation);
        if let At::Working { job } = guest.at {
            self.job_is(job, JobState::Lost);
        }
        if let Some(runner) = guest.runner {
            let wait = self.rng.wait(300, 6_000, 60_000);
            self.after(wait, move |w| w.offline(runner));
        }
    }
}
