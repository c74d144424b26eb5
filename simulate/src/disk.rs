//! The daemon's records on disk. Some writes do not survive a power cut, and those of a daemon that was killed
//! before they began do not happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use runner_controller::pool::{Invocation, JobKey, KnownJob, RunnerId, ScopeId, SlotId};
use runner_controller::world::{RunnerRecord, StrayRecord, VerdictRecord};
use tokio::sync::oneshot;

use crate::event::SimEvent;
use crate::mutation::Mutation;
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;
use crate::unavailable::Unavailable;

/// Maximum age of a write that a power cut may undo, in milliseconds: the write-ahead log is not synced at each
/// write.
const UNSYNCED_MS: u64 = 2_000;

/// Time after which jobs are flushed by a mutation, in milliseconds.
const FLUSHED_LATE_MS: u64 = 60_000;

/// The schedule as the disk sees it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;
/// The place where a call's result is delivered.
type Answer<T> = oneshot::Sender<Result<T, Unavailable>>;

/// A timer of the disk.
pub(crate) enum Timer {
    /// A call of the daemon with this number takes effect.
    Call(u64, RecordCall),
}

/// A call of the daemon.
pub(crate) enum RecordCall {
    /// Reads every record of a runner.
    Load(Answer<Vec<RunnerRecord>>),
    /// Reads every record of an orphaned registration.
    Strays(Answer<Vec<StrayRecord>>),
    /// Reads the last verdicts.
    Recent(usize, Answer<Vec<VerdictRecord>>),
    /// Reads which of the starts have a verdict.
    Judged(BTreeSet<Invocation>, Answer<BTreeSet<Invocation>>),
    /// Reads the jobs of a scope that have not ended.
    LiveJobs(ScopeId, Answer<Vec<KnownJob>>),
    /// Merges a job. Returns it if that is news.
    Merge(Box<KnownJob>, Answer<Option<KnownJob>>),
    /// Reads a setting.
    Setting(String, Answer<Option<String>>),
    /// A write.
    Write(Box<Write>, Answer<()>),
}

/// A write of the daemon.
#[derive(Debug)]
pub(crate) enum Write {
    /// Keeps a runner's record.
    Put(RunnerRecord),
    /// Removes the record of a slot.
    Remove(SlotId),
    /// Keeps a verdict and removes the record of its slot.
    Close(VerdictRecord),
    /// Keeps the record of an orphaned registration.
    PutStray(StrayRecord),
    /// Removes the record of an orphaned registration.
    RemoveStray(ScopeId, RunnerId),
    /// Keeps or removes a setting.
    Set(String, Option<String>),
}

/// A change that a power cut may undo.
enum Undo {
    Runner(SlotId, Option<RunnerRecord>),
    Verdict(SlotId, Option<RunnerRecord>, bool),
    Setting(String, Option<String>),
    Stray(StrayKey, Option<StrayRecord>),
}

/// An orphaned registration.
type StrayKey = (ScopeId, RunnerId);

/// The disk.
pub(crate) struct Disk {
    random: Random,
    /// The daemon that runs.
    incarnation: Option<u64>,
    full: bool,
    unreadable: bool,
    /// A start has at most one verdict, as the schema demands.
    unique_verdicts: bool,
    /// Jobs are flushed a minute late.
    flushes_late: bool,
    /// Jobs that are not flushed, with the time of their change and the state before it.
    unflushed: Vec<(u64, JobKey, Option<KnownJob>)>,
    runners: BTreeMap<SlotId, RunnerRecord>,
    verdicts: Vec<VerdictRecord>,
    settings: BTreeMap<String, String>,
    strays: BTreeMap<StrayKey, StrayRecord>,
    /// Jobs that messages of scale sets told of.
    jobs: BTreeMap<JobKey, KnownJob>,
    unsynced: VecDeque<(u64, Undo)>,
    last_call_at: u64,
    /// The verdict that the daemon is writing.
    closing: Option<VerdictRecord>,
}

impl Disk {
    /// Returns an empty disk.
    #[must_use]
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        Self {
            random: Random::new(seed, Stream::Disk),
            incarnation: None,
            full: false,
            unreadable: false,
            unique_verdicts: mutation != Some(Mutation::VerdictsDuplicated),
            flushes_late: mutation == Some(Mutation::JobsFlushedLate),
            unflushed: Vec::new(),
            runners: BTreeMap::new(),
            verdicts: Vec::new(),
            settings: BTreeMap::new(),
            strays: BTreeMap::new(),
            jobs: BTreeMap::new(),
            unsynced: VecDeque::new(),
            last_call_at: 0,
            closing: None,
        }
    }

    /// A daemon started.
    pub(crate) fn daemon_started(&mut self, incarnation: u64) {
        self.incarnation = Some(incarnation);
    }

    /// The daemon ended, perhaps while it wrote a verdict.
    pub(crate) fn daemon_ended(&mut self, schedule: &mut Schedule<'_>) {
        self.incarnation = None;
        if let Some(VerdictRecord {
            slot, invocation, ..
        }) = self.closing.take()
        {
            schedule.emit(SimEvent::VerdictInterrupted { slot, invocation });
        }
    }

    /// The disk cannot be written, or not even read; or works again.
    pub(crate) fn set_full(&mut self, full: bool, unreadable: bool, schedule: &mut Schedule<'_>) {
        (self.full, self.unreadable) = (full, unreadable);
        schedule.emit(SimEvent::RecordsWritable(!full && !unreadable));
    }

    /// Returns the jobs on record, for a daemon that starts. Jobs that cannot be read are not there.
    #[must_use]
    pub(crate) fn jobs(&self) -> Vec<KnownJob> {
        self.read(|| self.jobs.values().cloned().collect())
            .unwrap_or_default()
    }

    /// The daemon calls. Calls take effect in the order in which they are made.
    pub(crate) fn call(&mut self, incarnation: u64, call: RecordCall, schedule: &mut Schedule<'_>) {
        if let RecordCall::Write(write, _) = &call
            && let Write::Close(verdict) = &**write
        {
            self.closing = Some(verdict.clone());
        }
        let at = schedule.now() + self.random.wait(0, 3, 800);
        self.last_call_at = self.last_call_at.max(at);
        schedule.at(self.last_call_at, Timer::Call(incarnation, call));
    }

    /// The daemon has the answer to the verdict that it wrote.
    pub(crate) fn verdict_answered(&mut self) {
        self.closing = None;
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        let Timer::Call(incarnation, call) = timer;
        // A call that had not begun ends with the process that made it.
        if self.incarnation != Some(incarnation) {
            return;
        }
        let wait = self.random.wait(0, 1, 40);
        match call {
            RecordCall::Load(answer) => {
                let runners = || self.runners.values().cloned().collect();
                schedule.reply(wait, answer, self.read(runners));
            }
            RecordCall::Strays(answer) => {
                let strays = || self.strays.values().cloned().collect();
                schedule.reply(wait, answer, self.read(strays));
            }
            RecordCall::Recent(count, answer) => {
                let verdicts = || self.verdicts.iter().rev().take(count).cloned().collect();
                schedule.reply(wait, answer, self.read(verdicts));
            }
            RecordCall::Judged(mut starts, answer) => {
                let judged = || {
                    let verdicts = self.verdicts.iter();
                    let named: BTreeSet<_> =
                        verdicts.filter_map(|v| v.invocation.as_ref()).collect();
                    starts.retain(|start| named.contains(start));
                    starts
                };
                schedule.reply(wait, answer, self.read(judged));
            }
            RecordCall::LiveJobs(scope, answer) => {
                let jobs = || {
                    let jobs = self.jobs.values();
                    let live = jobs.filter(|job| job.end.is_none() && job.key.scope == scope);
                    live.cloned().collect()
                };
                schedule.reply(wait, answer, self.read(jobs));
            }
            RecordCall::Merge(job, answer) => {
                let result = self.merge(*job, schedule);
                schedule.reply(wait, answer, result);
            }
            RecordCall::Setting(key, answer) => {
                let setting = || self.settings.get(&key).cloned();
                schedule.reply(wait, answer, self.read(setting));
            }
            RecordCall::Write(write, answer) => {
                let result = self.write(*write, schedule);
                schedule.reply(wait, answer, result);
            }
        }
    }

    fn read<T>(&self, read: impl FnOnce() -> T) -> Result<T, Unavailable> {
        if self.unreadable {
            return Err(Unavailable("disk I/O error"));
        }
        Ok(read())
    }

    fn write(&mut self, write: Write, schedule: &mut Schedule<'_>) -> Result<(), Unavailable> {
        if self.full || self.unreadable {
            return Err(Unavailable("database or disk is full"));
        }
        let undo = match write {
            Write::Put(record) => {
                let slot = record.slot.clone();
                let invocation = record.invocation.clone();
                let old = self.runners.insert(slot.clone(), record);
                schedule.emit(SimEvent::RecordWritten {
                    slot: slot.clone(),
                    invocation,
                });
                Undo::Runner(slot, old)
            }
            Write::Remove(slot) => {
                let old = self.runners.remove(&slot);
                schedule.emit(SimEvent::RecordRemoved { slot: slot.clone() });
                Undo::Runner(slot, old)
            }
            Write::Close(verdict) => self.close(verdict, schedule),
            Write::PutStray(stray) => {
                let key = (stray.scope.clone(), stray.id);
                let old = self.strays.insert(key.clone(), stray);
                Undo::Stray(key, old)
            }
            Write::RemoveStray(scope, id) => {
                let key = (scope, id);
                let old = self.strays.remove(&key);
                Undo::Stray(key, old)
            }
            Write::Set(key, value) => {
                let old = match value {
                    Some(value) => self.settings.insert(key.clone(), value),
                    None => self.settings.remove(&key),
                };
                Undo::Setting(key, old)
            }
        };
        let now = schedule.now();
        self.unsynced.push_back((now, undo));
        while (self.unsynced.front()).is_some_and(|(at, _)| at + UNSYNCED_MS < now) {
            self.unsynced.pop_front();
        }
        Ok(())
    }

    /// Merges a job as the store does.
    fn merge(
        &mut self,
        job: KnownJob,
        schedule: &mut Schedule<'_>,
    ) -> Result<Option<KnownJob>, Unavailable> {
        if self.full || self.unreadable {
            return Err(Unavailable("database or disk is full"));
        }
        let known = self.jobs.get(&job.key);
        let merged = match known {
            Some(known) if !known.is_news(&job) => return Ok(None),
            Some(known) => known.clone().merge(job),
            None => job,
        };
        let key = merged.key.clone();
        let old = self.jobs.insert(key.clone(), merged.clone());
        tell_record(&merged, Some(&merged), schedule);
        if self.flushes_late {
            self.unflushed.push((schedule.now(), key, old));
        } else {
            // One flush is for everything that was written before.
            self.unsynced.clear();
        }
        Ok(Some(merged))
    }

    fn close(&mut self, verdict: VerdictRecord, schedule: &mut Schedule<'_>) -> Undo {
        let (slot, invocation) = (verdict.slot.clone(), verdict.invocation.clone());
        let old = self.runners.remove(&slot);
        schedule.emit(SimEvent::RecordRemoved { slot: slot.clone() });
        let same = |known: &VerdictRecord| known.invocation == invocation;
        let known = self.unique_verdicts && invocation.is_some() && self.verdicts.iter().any(same);
        if !known {
            self.verdicts.push(verdict);
            schedule.emit(SimEvent::VerdictWritten {
                slot: slot.clone(),
                invocation,
            });
        }
        Undo::Verdict(slot, old, !known)
    }

    /// The host loses power, and with it the last part of the log.
    pub(crate) fn lose_unsynced(&mut self, schedule: &mut Schedule<'_>) {
        let now = schedule.now();
        for (at, key, old) in std::mem::take(&mut self.unflushed).into_iter().rev() {
            if at + FLUSHED_LATE_MS > now
                && let Some(lost) = self.jobs.remove(&key)
            {
                tell_record(&lost, old.as_ref(), schedule);
                self.jobs.extend(old.map(|old| (key, old)));
            }
        }
        let lost_ms = self.random.below(UNSYNCED_MS);
        while let Some((_, undo)) = self.unsynced.pop_back_if(|(at, _)| *at + lost_ms > now) {
            match undo {
                Undo::Runner(slot, old) => self.revert(slot, old, schedule),
                Undo::Verdict(slot, old, written) => {
                    if written && let Some(verdict) = self.verdicts.pop() {
                        schedule.emit(SimEvent::VerdictLost {
                            slot: slot.clone(),
                            invocation: verdict.invocation,
                            record_restored: old.is_some(),
                        });
                    }
                    self.revert(slot, old, schedule);
                }
                Undo::Stray(key, Some(old)) => {
                    self.strays.insert(key, old);
                }
                Undo::Stray(key, None) => {
                    self.strays.remove(&key);
                }
                Undo::Setting(key, Some(old)) => {
                    self.settings.insert(key, old);
                }
                Undo::Setting(key, None) => {
                    self.settings.remove(&key);
                }
            }
        }
        self.unsynced.clear();
    }

    fn revert(&mut self, slot: SlotId, old: Option<RunnerRecord>, schedule: &mut Schedule<'_>) {
        let started = |record: &RunnerRecord| record.invocation.clone();
        let kept: Option<Invocation> = old.as_ref().and_then(started);
        let (lost, changed) = if let Some(old) = old {
            let lost = self.runners.insert(slot.clone(), old);
            let (slot, invocation) = (slot.clone(), kept.clone());
            (lost, SimEvent::RecordWritten { slot, invocation })
        } else {
            let lost = self.runners.remove(&slot);
            (lost, SimEvent::RecordRemoved { slot: slot.clone() })
        };
        let lost = lost.as_ref().and_then(started);
        schedule.emit(changed);
        schedule.emit(SimEvent::RecordReverted { slot, lost, kept });
    }
}

fn tell_record(job: &KnownJob, on_record: Option<&KnownJob>, schedule: &mut Schedule<'_>) {
    schedule.emit(SimEvent::JobRecorded {
        name: job.description().name.clone(),
        job: on_record.cloned().map(Box::new),
    });
}
