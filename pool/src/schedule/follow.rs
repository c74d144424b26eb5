//! A pool that follows its target.

use super::target::{Kept, Target};
use crate::{Pool, Spec, Timestamp};

impl Target {
    /// Returns the numbers of the configuration.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        Self {
            listeners: usize::from(spec.min_idle),
            spares: usize::from(spec.min_spare),
            max: usize::from(spec.max_runners),
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

    /// Returns the number of runners without a job that are not ended, of `free` ones.
    pub(crate) fn kept(&self, free: usize) -> usize {
        let target = self.target();
        let kept = self.kept.map_or(0, |kept| kept.count).max(target.free());
        kept.min(free.saturating_sub(target.preempted))
    }

    /// Returns the time at which the pool may keep fewer runners.
    pub(crate) fn scales_down_at(&self) -> Option<Timestamp> {
        let kept = self.kept.filter(|kept| kept.count > self.target().free())?;
        Some(kept.since + self.spec.scale_down_after)
    }
}
