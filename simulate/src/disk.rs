//! The daemon's records: what of its writes survives its death, and a power cut.

use std::collections::{BTreeMap, VecDeque};

use runner_controller::pool::{SlotId, Verdict};
use runner_controller::world::{Records, RunnerRecord, VerdictRecord};

use crate::host::Trouble;
use crate::mutation::Mutation;
use crate::world::{Inner, World};

/// What a write-ahead log that is not synced at every write may lose at a power cut.
const UNSYNCED: u64 = 2_000;

enum Undo {
    Runner(SlotId, Option<RunnerRecord>),
    Verdict(SlotId, Option<RunnerRecord>, bool),
    Setting(String, Option<String>),
}

/// The file.
#[derive(Default)]
pub struct Disk {
    /// Nothing can be written.
    pub full: bool,
    /// Nothing can be read either.
    pub broken: bool,
    /// Lives on record.
    pub runners: BTreeMap<SlotId, RunnerRecord>,
    /// Every verdict.
    pub verdicts: Vec<VerdictRecord>,
    settings: BTreeMap<String, String>,
    fresh: VecDeque<(u64, Undo)>,
    last_call: u64,
    /// The verdict that is being written.
    closing: Option<VerdictRecord>,
}

impl Inner {
    fn keep(&mut self, undo: Undo) {
        let now = self.now();
        let fresh = &mut self.disk.fresh;
        fresh.push_back((now, undo));
        while fresh.front().is_some_and(|(at, _)| at + UNSYNCED < now) {
            fresh.pop_front();
        }
    }

    fn put_runner(&mut self, record: RunnerRecord) {
        let slot = record.slot.clone();
        if self.breaks(Mutation::JudgesEarly) {
            self.judge_early(&record);
        }
        let old = self.disk.runners.insert(slot.clone(), record);
        self.keep(Undo::Runner(slot, old));
    }

    fn judge_early(&mut self, record: &RunnerRecord) {
        let invocation = record.invocation.clone();
        let known = |verdict: &VerdictRecord| verdict.invocation == invocation;
        if invocation.is_some() && !self.disk.verdicts.iter().any(known) {
            self.disk.verdicts.push(VerdictRecord {
                slot: record.slot.clone(),
                verdict: Verdict::JobDone,
                runner: None,
                runner_id: None,
                job: None,
                ended_unix_ms: 0,
                lived_ms: 0,
                job_ms: None,
                exit: None,
                memory_peak_bytes: None,
                oom_kills: 0,
                invocation,
            });
        }
    }

    fn remove_runner(&mut self, slot: SlotId) {
        let old = self.disk.runners.remove(&slot);
        self.keep(Undo::Runner(slot, old));
    }

    fn close_runner(&mut self, verdict: VerdictRecord) {
        let slot = verdict.slot.clone();
        let old = self.disk.runners.remove(&slot);
        let same = |known: &VerdictRecord| known.invocation == verdict.invocation;
        let new = verdict.invocation.is_none() || !self.disk.verdicts.iter().any(same);
        self.note(|| format!("verdict on {slot}: {} {:?}", verdict.verdict, verdict.exit));
        let new = new && !self.breaks(Mutation::ForgetsVerdicts);
        if new {
            if self.breaks(Mutation::VerdictTwice) {
                self.disk.verdicts.push(verdict.clone());
            }
            self.disk.verdicts.push(verdict);
        }
        self.keep(Undo::Verdict(slot, old, new));
    }

    /// A daemon is killed in the middle of writing a verdict. If the one before it was, before it
    /// could write down what systemd calls this life, the next life in the slot passes for it.
    pub fn verdict_cut_off(&mut self) {
        let Some(verdict) = self.disk.closing.take() else {
            return;
        };
        let named = |record: &RunnerRecord| record.invocation == verdict.invocation;
        if !self.disk.runners.get(&verdict.slot).is_some_and(named) {
            self.untold(verdict.invocation);
        }
    }

    fn set(&mut self, key: String, value: Option<String>) {
        let old = match value {
            Some(value) => self.disk.settings.insert(key.clone(), value),
            None => self.disk.settings.remove(&key),
        };
        self.keep(Undo::Setting(key, old));
    }

    /// The last moments of the log are gone.
    pub fn lose_unsynced(&mut self) {
        self.lights_out();
        let now = self.now();
        let lost = self.rng.below(UNSYNCED);
        while self
            .disk
            .fresh
            .back()
            .is_some_and(|(at, _)| at + lost > now)
        {
            match self.disk.fresh.pop_back() {
                Some((_, Undo::Runner(slot, old))) => self.restore(slot, old),
                Some((_, Undo::Verdict(slot, old, new))) => {
                    let lost = if new { self.disk.verdicts.pop() } else { None };
                    if old.is_none() {
                        let lost = lost.and_then(|verdict| verdict.invocation);
                        self.untold(lost);
                    }
                    self.restore(slot, old);
                }
                Some((_, Undo::Setting(key, Some(old)))) => {
                    self.disk.settings.insert(key, old);
                }
                Some((_, Undo::Setting(key, None))) => {
                    self.disk.settings.remove(&key);
                }
                None => {}
            }
        }
    }

    fn restore(&mut self, slot: SlotId, old: Option<RunnerRecord>) {
        let kept = old.as_ref().and_then(|old| old.invocation.clone());
        let lost = match old {
            Some(old) => self.disk.runners.insert(slot, old),
            None => self.disk.runners.remove(&slot),
        };
        let lost = lost.and_then(|record| record.invocation);
        self.untold(lost.filter(|lost| kept.as_ref() != Some(lost)));
    }
}

/// The records, as the daemon of one incarnation reaches them.
pub struct File {
    /// The world.
    pub world: World,
    /// Which daemon's.
    pub incarnation: u64,
}

impl File {
    async fn call<T: Send + 'static>(
        &self,
        writes: bool,
        deed: impl FnOnce(&mut Inner) -> T + Send + 'static,
    ) -> Result<T, Trouble> {
        let at = {
            let mut w = self.world.lock();
            let at = w.now() + w.rng.wait(0, 3, 800);
            w.disk.last_call = w.disk.last_call.max(at);
            w.disk.last_call
        };
        let incarnation = self.incarnation;
        let called = self.world.call(at, move |w, answer| {
            // What a dead daemon still had in memory is nowhere.
            if !w.runs(incarnation) {
                return;
            }
            let wait = w.rng.wait(0, 1, 40);
            if w.disk.broken || (writes && w.disk.full) {
                w.answer(wait, answer, Err(Trouble("database or disk is full")));
            } else {
                let result = deed(w);
                w.answer(wait, answer, Ok(result));
            }
        });
        called
            .await
            .unwrap_or(Err(Trouble("the records are closed")))
    }
}

impl Records for File {
    type Error = Trouble;

    async fn load(&self) -> Result<Vec<RunnerRecord>, Trouble> {
        let read = self
            .call(false, |w| w.disk.runners.values().cloned().collect())
            .await;
        if read.is_err() {
            self.world.lock().started_blind();
        }
        read
    }

    async fn put(&self, runner: RunnerRecord) -> Result<(), Trouble> {
        self.call(true, |w| w.put_runner(runner)).await
    }

    async fn remove(&self, slot: SlotId) -> Result<(), Trouble> {
        self.call(true, |w| w.remove_runner(slot)).await
    }

    async fn close(&self, verdict: VerdictRecord) -> Result<(), Trouble> {
        self.world.lock().disk.closing = Some(verdict.clone());
        let closed = self.call(true, |w| w.close_runner(verdict)).await;
        self.world.lock().disk.closing = None;
        closed
    }

    async fn recent(&self, count: usize) -> Result<Vec<VerdictRecord>, Trouble> {
        self.call(false, move |w| {
            w.disk.verdicts.iter().rev().take(count).cloned().collect()
        })
        .await
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, Trouble> {
        let key = key.to_owned();
        self.call(false, move |w| w.disk.settings.get(&key).cloned())
            .await
    }

    async fn set_setting(&self, key: &str, value: Option<String>) -> Result<(), Trouble> {
        let key = key.to_owned();
        self.call(true, move |w| w.set(key, value)).await
    }
}
