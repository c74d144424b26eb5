//! The daemon's records as it reaches them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use runner_controller::pool::{
    Invocation, KnownJob, ResourceUse, RunnerId, ScopeId, SlotId, Verdict,
};
use runner_controller::world::{JobRecords, Records, RunnerRecord, StrayRecord, VerdictRecord};
use tokio::sync::oneshot;

use super::access::Access;
use crate::disk::{RecordCall, Write};
use crate::event::SimEvent;
use crate::mutation::Mutation;
use crate::unavailable::Unavailable;

/// The records.
pub(super) struct RecordsFile {
    access: Access,
    /// Starts that a mutation has written a verdict on.
    judged: Mutex<BTreeSet<Invocation>>,
}

impl RecordsFile {
    pub(super) fn new(access: Access) -> Self {
        Self {
            access,
            judged: Mutex::default(),
        }
    }

    async fn call<T>(
        &self,
        call: impl FnOnce(oneshot::Sender<Result<T, Unavailable>>) -> RecordCall,
    ) -> Result<T, Unavailable> {
        let incarnation = self.access.incarnation;
        let answered = (self.access.world).ask(|world, answer| {
            (world.disk).call(incarnation, call(answer), &mut world.schedule);
        });
        let closed = Unavailable("the records are closed");
        answered.await.unwrap_or(Err(closed))
    }

    /// Tells the observer if records that a new daemon needs cannot be read.
    fn noticed<T>(&self, read: Result<T, Unavailable>) -> Result<T, Unavailable> {
        if read.is_err() {
            (self.access.world).with(|world| world.schedule.emit(SimEvent::RecordsUnreadable));
        }
        read
    }

    async fn write(&self, write: Write) -> Result<(), Unavailable> {
        let is_verdict = matches!(write, Write::Close(_));
        let written = self
            .call(|answer| RecordCall::Write(Box::new(write), answer))
            .await;
        if is_verdict {
            (self.access.world).with(|world| world.disk.verdict_answered());
        }
        written
    }

    /// Writes a verdict on a start whose record is written for the first time.
    async fn judge_early(&self, record: &RunnerRecord) -> Result<(), Unavailable> {
        let Some(invocation) = &record.invocation else {
            return Ok(());
        };
        let is_new = (self.judged.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .insert(invocation.clone());
        if !is_new {
            return Ok(());
        }
        self.write(Write::Close(VerdictRecord {
            slot: record.slot.clone(),
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
            invocation: Some(invocation.clone()),
            phases: Vec::new(),
            cpu_ms: None,
            usage: ResourceUse::default(),
            generation: None,
            version: None,
        }))
        .await
    }
}

/// The records of jobs, for the tasks that keep scale sets.
pub(super) struct JobsFile(RecordsFile);

impl JobsFile {
    pub(super) fn new(access: Access) -> Self {
        Self(RecordsFile::new(access))
    }
}

impl JobRecords for JobsFile {
    type Error = Unavailable;

    async fn live_jobs(&self, scope: &ScopeId) -> Result<Vec<KnownJob>, Unavailable> {
        let scope = scope.clone();
        let call = |answer| RecordCall::LiveJobs(scope, answer);
        self.0.call(call).await
    }

    async fn merge(&self, job: KnownJob) -> Result<Option<KnownJob>, Unavailable> {
        if self.0.access.has(Mutation::MessagesDropped) {
            return Ok(Some(job));
        }
        let call = |answer| RecordCall::Merge(Box::new(job), answer);
        self.0.call(call).await
    }
}

impl Records for RecordsFile {
    type Error = Unavailable;

    async fn load(&self) -> Result<Vec<RunnerRecord>, Unavailable> {
        let loaded = self.call(RecordCall::Load).await;
        self.noticed(loaded)
    }

    async fn put(&self, record: RunnerRecord) -> Result<(), Unavailable> {
        if self.access.has(Mutation::VerdictBeforeEnd) {
            self.judge_early(&record).await?;
        }
        self.write(Write::Put(record)).await
    }

    async fn remove(&self, slot: SlotId) -> Result<(), Unavailable> {
        self.write(Write::Remove(slot)).await
    }

    async fn close(&self, verdict: VerdictRecord) -> Result<(), Unavailable> {
        if self.access.has(Mutation::VerdictsDropped) {
            return self.write(Write::Remove(verdict.slot)).await;
        }
        if self.access.has(Mutation::VerdictsDuplicated) {
            self.write(Write::Close(verdict.clone())).await?;
        }
        self.write(Write::Close(verdict)).await
    }

    async fn strays(&self) -> Result<Vec<StrayRecord>, Unavailable> {
        self.call(RecordCall::Strays).await
    }

    async fn put_stray(&self, stray: StrayRecord) -> Result<(), Unavailable> {
        self.write(Write::PutStray(stray)).await
    }

    async fn remove_stray(&self, scope: ScopeId, id: RunnerId) -> Result<(), Unavailable> {
        self.write(Write::RemoveStray(scope, id)).await
    }

    async fn recent(&self, count: usize) -> Result<Vec<VerdictRecord>, Unavailable> {
        self.call(|answer| RecordCall::Recent(count, answer)).await
    }

    async fn judged(
        &self,
        starts: BTreeSet<Invocation>,
    ) -> Result<BTreeSet<Invocation>, Unavailable> {
        let judged = self.call(|answer| RecordCall::Judged(starts, answer)).await;
        self.noticed(judged)
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, Unavailable> {
        let key = key.to_owned();
        self.call(|answer| RecordCall::Setting(key, answer)).await
    }

    async fn set_setting(&self, key: &str, value: Option<String>) -> Result<(), Unavailable> {
        self.write(Write::Set(key.to_owned(), value)).await
    }
}
