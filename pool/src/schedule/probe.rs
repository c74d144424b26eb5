//! A probe: one runner of a pool whose scale set tells of no job, although deliveries or readings tell of one that waits.
//!
//! GitHub was seen to assign no job to a set without runners after a workflow was run again, and to assign it as soon
//! as a runner of the set registered (pytorch/ci-infra issue 900, 2026-07-15). Such a job would wait for ever in a pool
//! at zero.

use std::time::Duration;

use crate::Timestamp;

/// Time for which the set must tell of no job. GitHub tells within seconds of a job that it assigns to the set.
const SILENCE: Duration = Duration::from_mins(3);
/// Time for which a probe is wanted: for a boot, a registration, and the assignment of the job.
const WANTED: Duration = Duration::from_mins(10);
/// Time without a probe after one that got no job. GitHub may have assigned the job to another host's set, or may
/// keep it from the pool's runner group.
const PAUSE: Duration = Duration::from_mins(30);

/// Silence of a scale set: it tells of no job, has room for one, and a job that fits its pool waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence {
    /// Begin of this silence, or of the one that follows the pause of an earlier probe.
    since: Timestamp,
}

impl Silence {
    /// Returns the silence at `now`, after what it was before. `is_silent` is true if the set is silent now.
    pub(super) fn follow(before: Option<Self>, is_silent: bool, now: Timestamp) -> Option<Self> {
        let since = match before.filter(|_| is_silent) {
            Some(before) if now < before.since + SILENCE + WANTED + PAUSE => before.since,
            Some(_) | None => now,
        };
        is_silent.then_some(Self { since })
    }

    /// Returns true if the pool should have a probe.
    pub(super) fn wants_probe(self, now: Timestamp) -> bool {
        let begin = self.since + SILENCE;
        now >= begin && now < begin + WANTED
    }

    /// Returns the times at which a probe becomes wanted, and is not wanted any more.
    pub(crate) fn changes_at(self) -> [Timestamp; 2] {
        let begin = self.since + SILENCE;
        [begin, begin + WANTED]
    }
}
