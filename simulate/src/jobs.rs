//! The jobs that workflows ask for.

use std::sync::Arc;

use runner_controller::config::Config;

use crate::event::SimEvent;
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;

/// Maximum number of waiting jobs. More would only wait longer.
const WAITING_MAX: usize = 5;

/// The schedule as the jobs see it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;

/// A timer of the jobs.
pub(crate) enum Timer {
    /// The next job is pushed.
    Push,
}

/// The source of jobs.
pub(crate) struct Jobs {
    random: Random,
    /// Mean milliseconds between two jobs.
    every_ms: u64,
    config: Arc<Config>,
    waiting: usize,
    calm: bool,
}

impl Jobs {
    /// Returns the jobs of a seed.
    #[must_use]
    pub(crate) fn new(seed: u64, config: Arc<Config>) -> Self {
        let mut random = Random::new(seed, Stream::Jobs);
        let every_ms = *random.pick(&[3_000, 15_000, 90_000]).unwrap_or(&15_000);
        Self {
            random,
            every_ms,
            config,
            waiting: 0,
            calm: false,
        }
    }

    /// Begins to push jobs.
    pub(crate) fn begin(&mut self, schedule: &mut Schedule<'_>) {
        let wait = self.random.between(1, 2 * self.every_ms);
        schedule.after(wait, Timer::Push);
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        let Timer::Push = timer;
        if self.calm {
            return;
        }
        if let Some(pool) = self.random.pick(&self.config.pools)
            && self.waiting < WAITING_MAX
        {
            let pool = pool.name.to_string();
            schedule.emit(SimEvent::JobPushed { pool });
        }
        self.begin(schedule);
    }

    /// Root wrote another configuration.
    pub(crate) fn configured(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// A job waits for a runner, again or for the first time.
    pub(crate) fn job_waits(&mut self) {
        self.waiting += 1;
    }

    /// A waiting job was sent to a runner.
    pub(crate) fn job_sent(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// No jobs are pushed any more.
    pub(crate) fn calm(&mut self) {
        self.calm = true;
    }
}
