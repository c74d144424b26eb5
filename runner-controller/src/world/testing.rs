//! Records in memory, for tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{Failure, JobRecords};
use crate::pool::{JobKey, KnownJob, ScopeId};

/// The disk takes nothing now.
#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
pub(crate) struct Full;

impl Failure for Full {
    fn is_transient(&self) -> bool {
        true
    }
}

/// Jobs on record, merged as the store does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) jobs: Arc<Mutex<BTreeMap<JobKey, KnownJob>>>,
    pub(crate) is_full: Arc<AtomicBool>,
}

impl JobRecords for Memory {
    type Error = Full;

    async fn live_jobs(&self, scope: &ScopeId) -> Result<Vec<KnownJob>, Full> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Full);
        }
        let jobs = self.jobs.lock().unwrap();
        let live = jobs
            .values()
            .filter(|job| job.end.is_none() && job.key.scope == *scope);
        Ok(live.cloned().collect())
    }

    async fn merge(&self, job: KnownJob) -> Result<Option<KnownJob>, Full> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Full);
        }
        let mut jobs = self.jobs.lock().unwrap();
        let merged = match jobs.get(&job.key) {
            Some(known) if !known.is_news(&job) => return Ok(None),
            Some(known) => known.clone().merge(job),
            None => job,
        };
        jobs.insert(merged.key.clone(), merged.clone());
        Ok(Some(merged))
    }
}
