//! A pool that follows its target.

use super::target::{Kept, Target};
use crate::runner::Phase;
use crate::{Pool, Spec, Timestamp};

impl Target {
    /// Returns the numbers of the configuration.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        Self {
            listeners: usize::from(spec.numbers.min_idle),
            spares: usize::from(spec.numbers.min_spare),
            max: usize::from(spec.numbers.max_runners),
            preempted: 0,
        }
    }
}

impl Pool {
    /// Sets the numbers that the plan works towards. `free` is the number of runners without a job.
    pub(crate) fn set_target(&mut self, target: Target, free: usize, now: Timestamp) {
        self.target = Some(target);
        if !self.spec.demand.follows_jobs() {
            self.kept = None;
            return;
        }
        let wanted = target.free();
        let kept = match self.kept {
            Some(kept) if wanted < kept.count && now < kept.since + self.spec.scale_down_after => {
                kept
            }
            Some(_) => Kept {
                count: wanted,
                since: now,
            },
            // The daemon is new. The jobs for which an earlier one started runners may have gone a moment ago.
            None => Kept {
                count: wanted.max(free),
                since: now,
            },
        };
        self.kept = Some(kept);
    }

    /// Returns the numbers that the plan works towards.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target.unwrap_or_else(|| Target::of(&self.spec))
    }

    /// Returns the target without the runners for which jobs leave no room.
    pub(crate) fn target_beside_jobs(&self) -> Target {
        let target = self.target();
        let room = self.room_beside_jobs();
        let listeners = target.listeners.min(room);
        Target {
            listeners,
            spares: target.spares.min(room - listeners),
            ..target
        }
    }

    /// Returns the number of runners without a job that are not ended, of `free` ones.
    pub(crate) fn kept(&self, free: usize) -> usize {
        let target = self.target_beside_jobs();
        let kept = self.kept.map_or(0, |kept| kept.count).max(target.free());
        kept.min(free.saturating_sub(target.preempted))
            .min(self.room_beside_jobs())
    }

    /// Returns the maximum number of runners without a job. Only a maximum that became lower is below what the pool
    /// has.
    fn room_beside_jobs(&self) -> usize {
        let with_job = self.count(|phase| *phase == Phase::Busy);
        self.target().max.saturating_sub(with_job)
    }

    /// Returns the time at which the pool may keep fewer runners.
    pub(crate) fn scales_down_at(&self) -> Option<Timestamp> {
        let kept = self.kept.filter(|kept| kept.count > self.target().free())?;
        Some(kept.since + self.spec.scale_down_after)
    }
}
