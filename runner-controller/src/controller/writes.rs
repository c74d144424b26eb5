//! The queue of writes to the records.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::pool::{RunnerId, RunnerRecord, ScopeId, SlotId, StrayRecord, Timestamp, VerdictRecord};
use crate::world::{Failure, Records, chain};

/// Key of the setting with the mode.
pub(super) const MODE_KEY: &str = "mode";

/// Key of the setting with GitHub's rate limit, before the scope.
pub(super) const LIMIT_KEY: &str = "limited";

/// Key of the setting with the pace of mints, before the scope.
pub(super) const PACE_KEY: &str = "pace";

/// Returns the key of a scope's setting.
pub(super) fn scope_key(key: &str, scope: &ScopeId) -> String {
    format!("{key} {}", scope.as_str())
}

/// Maximum number of writes that wait. Beyond it the oldest are dropped, because a disk that does not
/// write must not fill the memory. A runner needs two: its verdict, and the next record of its slot.
const MAX_PENDING: usize = 4096;

/// Delay after a write failed.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// A write to the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Write {
    /// Write a runner's record.
    Put(Box<RunnerRecord>),
    /// Remove the record of a slot.
    Remove(SlotId),
    /// Replace the record of a slot by a verdict.
    Close(Box<VerdictRecord>),
    /// Write the record of an orphaned registration.
    PutStray(Box<StrayRecord>),
    /// Remove the record of an orphaned registration.
    RemoveStray(ScopeId, RunnerId),
    /// Write or remove a setting.
    Setting(String, Option<String>),
}

/// A write that failed.
#[derive(Debug)]
pub(super) struct FailedWrite {
    write: Write,
    /// Reason, for the operator.
    pub(super) reason: String,
    /// True if the same write may succeed later.
    pub(super) is_transient: bool,
}

impl Write {
    /// Returns the slot whose record it changes.
    fn slot(&self) -> Option<&SlotId> {
        match self {
            Self::Put(record) => Some(&record.slot),
            Self::Remove(slot) => Some(slot),
            Self::Close(verdict) => Some(&verdict.slot),
            Self::PutStray(_) | Self::RemoveStray(..) | Self::Setting(..) => None,
        }
    }

    /// Carries it out.
    pub(super) async fn carry_out(self, records: &impl Records) -> Result<(), FailedWrite> {
        let result = match self.clone() {
            Self::Put(record) => records.put(*record).await,
            Self::Remove(slot) => records.remove(slot).await,
            Self::Close(verdict) => records.close(*verdict).await,
            Self::PutStray(stray) => records.put_stray(*stray).await,
            Self::RemoveStray(scope, id) => records.remove_stray(scope, id).await,
            Self::Setting(key, value) => records.set_setting(&key, value).await,
        };
        result.map_err(|error| FailedWrite {
            write: self,
            reason: chain(&error),
            is_transient: error.is_transient(),
        })
    }
}

/// The writes that wait. One at a time is under way, so that they keep their order.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    pending: VecDeque<Write>,
    is_writing: bool,
    /// Earliest time of the next write, after one failed.
    retry_at: Timestamp,
    /// True if the last write failed and is retried.
    is_failing: bool,
    /// Slots whose writes are awaited. A sender is dropped when its receiver need not wait any more.
    awaited: Vec<(SlotId, oneshot::Sender<()>)>,
}

impl WriteQueue {
    /// Adds a write. A record replaces the one of the same slot that still waits, unless a verdict is
    /// between them.
    pub(super) fn push(&mut self, write: Write) {
        if matches!(write, Write::Put(_) | Write::Remove(_)) {
            let is_same_slot = |old: &Write| old.slot() == write.slot();
            let last = self.pending.iter().rposition(is_same_slot);
            if let Some(index) = last
                && matches!(self.pending[index], Write::Put(_) | Write::Remove(_))
            {
                self.pending.remove(index);
            }
        }
        // Only the last value of the pace counts, which each mint changes.
        if let Write::Setting(key, _) = &write
            && key.starts_with(PACE_KEY)
        {
            let is_same = |old: &Write| matches!(old, Write::Setting(old, _) if old == key);
            self.pending.retain(|old| !is_same(old));
        }
        self.pending.push_back(write);
        while self.pending.len() > MAX_PENDING {
            self.pending.pop_front();
        }
    }

    /// Returns the next write and marks it as under way.
    pub(super) fn begin(&mut self, now: Timestamp) -> Option<Write> {
        if self.is_writing || now < self.retry_at {
            return None;
        }
        let write = self.pending.pop_front()?;
        self.is_writing = true;
        Some(write)
    }

    /// Applies the result of the write. One that may succeed later is retried before any other.
    pub(super) fn finish(&mut self, result: Result<(), FailedWrite>, now: Timestamp) {
        self.is_writing = false;
        self.is_failing = false;
        if let Err(failed) = result
            && failed.is_transient
        {
            self.pending.push_front(failed.write);
            self.retry_at = now + RETRY_DELAY;
            self.is_failing = true;
        }
        let (pending, is_failing) = (&self.pending, self.is_failing);
        let is_pending = |slot: &SlotId| pending.iter().any(|write| write.slot() == Some(slot));
        self.awaited
            .retain(|(slot, _)| !is_failing && is_pending(slot));
    }

    /// Returns a receiver that ends once the pending writes about a slot are done. It ends at once if writes
    /// fail, because a disk that does not write must not stop the pools.
    pub(super) fn written(&mut self, slot: &SlotId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let is_pending = self.pending.iter().any(|write| write.slot() == Some(slot));
        if is_pending && !self.is_failing {
            self.awaited.push((slot.clone(), sender));
        }
        receiver
    }

    /// Makes the next write due at once.
    pub(super) fn retry_now(&mut self) {
        self.retry_at = Timestamp::default();
    }

    /// Returns the time at which the next write is due; `None` while one is under way.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        (!self.is_writing && !self.pending.is_empty()).then_some(self.retry_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{PhaseKind, ResourceUse, Verdict};

    fn put(slot: &str, phase: PhaseKind) -> Write {
        Write::Put(Box::new(RunnerRecord {
            slot: slot.parse().unwrap(),
            boot_id: "boot".into(),
            invocation: None,
            phase,
            since: Timestamp::default(),
            started_at: Timestamp::default(),
            timeline: None,
            registration: None,
            job: None,
        }))
    }

    fn remove(slot: &str) -> Write {
        Write::Remove(slot.parse().unwrap())
    }

    fn close(slot: &str) -> Write {
        Write::Close(Box::new(VerdictRecord {
            slot: slot.parse().unwrap(),
            verdict: Verdict::JobDone,
            runner: None,
            runner_id: None,
            job: None,
            ended_unix_ms: 0,
            asked_after_ms: None,
            listening_after_ms: None,
            lived_ms: 0,
            job_ms: None,
            exit: None,
            result: None,
            last_line: None,
            memory_peak_bytes: None,
            oom_kills: 0,
            invocation: None,
            phases: Vec::new(),
            cpu_ms: None,
            usage: ResourceUse::default(),
            generation: None,
            version: None,
        }))
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }

    fn queue(writes: impl IntoIterator<Item = Write>) -> WriteQueue {
        let mut queue = WriteQueue::default();
        writes.into_iter().for_each(|write| queue.push(write));
        queue
    }

    #[test]
    fn a_record_replaces_the_one_that_waits() {
        let queue = queue([
            put("ci-1", PhaseKind::Booting),
            put("ci-2", PhaseKind::Booting),
            put("ci-1", PhaseKind::Spare),
            remove("ci-2"),
        ]);
        assert_eq!(
            queue.pending,
            [put("ci-1", PhaseKind::Spare), remove("ci-2")]
        );
    }

    #[test]
    fn a_verdict_keeps_its_place_between_two_records() {
        let writes = [
            put("ci-1", PhaseKind::Busy),
            close("ci-1"),
            put("ci-1", PhaseKind::Booting),
        ];
        assert_eq!(queue(writes.clone()).pending, writes);
    }

    #[test]
    fn one_write_at_a_time_is_under_way() {
        let mut queue = queue([remove("ci-1"), remove("ci-2")]);
        assert_eq!(queue.begin(now()), Some(remove("ci-1")));
        assert_eq!((queue.begin(now()), queue.due_at()), (None, None));
        queue.finish(Ok(()), now());
        assert_eq!(queue.begin(now()), Some(remove("ci-2")));
    }

    #[test]
    fn a_write_that_may_succeed_later_is_retried_before_any_other() {
        let fail = |is_transient| {
            let mut queue = queue([remove("ci-1"), remove("ci-2")]);
            let write = queue.begin(now()).unwrap();
            let failed = FailedWrite {
                write,
                reason: "disk full".into(),
                is_transient,
            };
            queue.finish(Err(failed), now());
            queue
        };
        let mut transient = fail(true);
        assert_eq!(transient.begin(now()), None);
        assert_eq!(transient.due_at(), Some(now() + RETRY_DELAY));
        assert_eq!(transient.begin(now() + RETRY_DELAY), Some(remove("ci-1")));
        assert_eq!(fail(false).begin(now()), Some(remove("ci-2")));
    }

    /// Returns true if nothing is waited for any more.
    fn is_over(receiver: &mut oneshot::Receiver<()>) -> bool {
        receiver.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_writes_of_a_slot_are_awaited_until_they_are_done() {
        let (one, two) = ("ci-1".parse().unwrap(), "ci-2".parse().unwrap());
        let mut queue = queue([remove("ci-1"), put("ci-2", PhaseKind::Booting)]);
        assert_eq!(queue.begin(now()), Some(remove("ci-1")));
        queue.push(put("ci-1", PhaseKind::Booting));
        let (mut first, mut second) = (queue.written(&one), queue.written(&two));
        // The write that is under way is about the runner before.
        queue.finish(Ok(()), now());
        assert!(!is_over(&mut first) && !is_over(&mut second));
        queue.begin(now());
        assert!(!is_over(&mut second));
        queue.finish(Ok(()), now());
        assert!(!is_over(&mut first) && is_over(&mut second));
        queue.begin(now());
        queue.finish(Ok(()), now());
        assert!(is_over(&mut first) && is_over(&mut queue.written(&one)));
    }

    #[test]
    fn nothing_waits_for_a_disk_that_does_not_write() {
        let slot = "ci-2".parse().unwrap();
        let mut queue = queue([remove("ci-1"), put("ci-2", PhaseKind::Booting)]);
        let mut awaited = queue.written(&slot);
        let write = queue.begin(now()).unwrap();
        let failed = FailedWrite {
            write,
            reason: "disk full".into(),
            is_transient: true,
        };
        queue.finish(Err(failed), now());
        assert!(is_over(&mut awaited) && is_over(&mut queue.written(&slot)));
        queue.begin(now() + RETRY_DELAY);
        queue.finish(Ok(()), now() + RETRY_DELAY);
        assert!(!is_over(&mut queue.written(&slot)));
    }

    #[test]
    fn of_the_paces_that_wait_the_last_is_written() {
        let scope = |name| ScopeId::new("https://api.github.com", name);
        let of =
            |name, text: &str| Write::Setting(scope_key(PACE_KEY, &scope(name)), Some(text.into()));
        let pace = |text| of("acme", text);
        let other = of("other", "0");
        let mode = Write::Setting(MODE_KEY.into(), None);
        let mut queue = queue([
            pace("1"),
            other.clone(),
            put("ci-1", PhaseKind::Idle),
            mode.clone(),
            pace("2"),
        ]);
        let mut written = Vec::new();
        while let Some(write) = queue.begin(now()) {
            written.push(write);
            queue.finish(Ok(()), now());
        }
        assert_eq!(
            written,
            [other, put("ci-1", PhaseKind::Idle), mode, pace("2")]
        );
    }

    #[test]
    fn a_disk_that_does_not_write_does_not_fill_the_memory() {
        let queue = queue((0..MAX_PENDING + 10).map(|_| close("ci-1")));
        assert_eq!(queue.pending.len(), MAX_PENDING);
    }
}
