//! Demand: the job table, and what the status shows of it.

use std::collections::{BTreeMap, BTreeSet};

use tracing::info;

use super::Config;
use crate::config::PoolConfig;
use crate::pool::{
    JobGroup, JobPlace, JobTable, KnownJob, PoolDemand, PoolName, TableEntry, WaitReason,
};
use crate::status::{
    DemandStatus, Histogram, JobRow, Measure, PoolDemandStatus, QueueStatus, RedeliveryStatus,
    ScaleSetStatus, WebhookStatus,
};

/// Maximum number of waiting jobs, and of running jobs, in the status.
const SHOWN: usize = 100;
/// Maximum number of ended jobs, and of jobs that no pool serves, in the status.
const SHOWN_ASIDE: usize = 20;

/// Demand: the jobs, and the deliveries that told of them.
#[derive(Debug)]
pub(super) struct Demand {
    table: JobTable,
    deliveries: Option<WebhookStatus>,
    /// Readings of GitHub's API, by scope.
    queues: BTreeMap<String, QueueStatus>,
    /// Deliveries that were asked for again, by scope and hook.
    redeliveries: BTreeMap<(String, String), RedeliveryStatus>,
    /// Scale sets, by pool.
    scale_sets: BTreeMap<String, ScaleSetStatus>,
    waits: BTreeMap<PoolName, Histogram>,
    /// Summary of the table. It changes with the table alone, and the status is published more often.
    by_pool: BTreeMap<Option<PoolName>, PoolDemand>,
    shown: DemandStatus,
}

impl Demand {
    /// Returns the demand of the jobs on record.
    pub(super) fn new(config: &Config, jobs: Vec<KnownJob>, unix_ms: u64) -> Self {
        let pools = config.pools.iter();
        let pools = pools.map(PoolConfig::pool_labels);
        let mut demand = Self {
            table: JobTable::new(config.host.clone(), pools.collect(), config.order.clone()),
            deliveries: config.webhook.as_ref().map(|_| WebhookStatus::default()),
            queues: BTreeMap::new(),
            redeliveries: BTreeMap::new(),
            scale_sets: BTreeMap::new(),
            waits: BTreeMap::new(),
            by_pool: BTreeMap::new(),
            shown: DemandStatus::default(),
        };
        for job in jobs {
            demand.table.merge(job);
        }
        demand.prune(unix_ms);
        demand
    }

    /// Returns the jobs.
    pub(super) fn table(&self) -> &JobTable {
        &self.table
    }

    /// Applies what a delivery told of a job.
    pub(super) fn job_told(&mut self, job: KnownJob, unix_ms: u64) {
        let (before, now) = self.table.merge(job);
        if before.as_ref() == Some(now) {
            return;
        }
        log(before.as_ref(), now);
        let had_started = before.is_some_and(|entry| entry.job.started_unix_ms.is_some());
        if let (false, Some(wait_ms), JobPlace::Slot(slot)) =
            (had_started, now.job.wait_ms(), &now.place)
        {
            let waits = self.waits.entry(slot.pool.clone()).or_default();
            waits.add(Measure::QueueWait, wait_ms);
        }
        if self.table.is_over_full() {
            self.table.prune(unix_ms);
        }
        self.summarize();
    }

    /// Sets the number of deliveries so far.
    pub(super) fn set_deliveries(&mut self, deliveries: WebhookStatus) {
        self.deliveries = Some(deliveries);
    }

    /// Sets the readings of GitHub's API in one scope so far.
    pub(super) fn set_queue(&mut self, queue: QueueStatus) {
        self.queues.insert(queue.scope.clone(), queue);
    }

    /// Sets the deliveries of one hook that were asked for again so far.
    pub(super) fn set_redelivery(&mut self, redelivery: RedeliveryStatus) {
        let key = (redelivery.scope.clone(), redelivery.hook.clone());
        self.redeliveries.insert(key, redelivery);
    }

    /// Sets the state of a scale set. A count that GitHub did not tell again stays.
    pub(super) fn set_scale_set(&mut self, set: ScaleSetStatus) {
        if let (Ok(pool), Some(assigned)) = (set.pool.parse(), set.assigned) {
            let assigned = usize::try_from(assigned).unwrap_or(usize::MAX);
            self.table.set_assigned(pool, assigned);
        }
        self.scale_sets.insert(set.pool.clone(), set);
    }

    /// Forgets the jobs that cannot be in GitHub's queue any more.
    pub(super) fn prune(&mut self, unix_ms: u64) {
        self.table.prune(unix_ms);
        self.summarize();
    }

    fn summarize(&mut self) {
        self.by_pool = self.table.demand();
        let rows = |group: JobGroup, max: usize| -> Vec<JobRow> {
            self.table.in_group(group).take(max).map(row).collect()
        };
        let ended = self.table.in_group(JobGroup::Ended).rev();
        self.shown = DemandStatus {
            webhook: None,
            queues: Vec::new(),
            redeliveries: Vec::new(),
            scale_sets: Vec::new(),
            waiting: rows(JobGroup::Waiting, SHOWN),
            running: rows(JobGroup::Running, SHOWN),
            ended: ended.take(SHOWN_ASIDE).map(row).collect(),
            unserved_count: self.table.count(JobGroup::Unserved) as u64,
            unserved: rows(JobGroup::Unserved, SHOWN_ASIDE),
            held_count: self.table.count(JobGroup::Held) as u64,
        };
    }

    /// Returns the demand of the whole host. `reason` finds out why a job waits, and `probes` are the pools with a probe.
    pub(super) fn status(
        &self,
        reason: impl Fn(&TableEntry) -> Option<WaitReason>,
        probes: &BTreeSet<PoolName>,
    ) -> DemandStatus {
        let mut status = self.shown.clone();
        status.webhook.clone_from(&self.deliveries);
        status.queues = self.queues.values().cloned().collect();
        status.redeliveries = self.redeliveries.values().cloned().collect();
        status.scale_sets = self.scale_sets.values().cloned().collect();
        for set in &mut status.scale_sets {
            set.is_probed = probes.iter().any(|pool| pool.as_str() == set.pool);
        }
        let waiting = self.table.in_group(JobGroup::Waiting);
        for (row, entry) in status.waiting.iter_mut().zip(waiting) {
            row.waits_for = reason(entry);
        }
        for row in &mut status.unserved {
            row.waits_for = Some(WaitReason::NoPool);
        }
        status
    }

    /// Returns the demand for runners of a pool.
    pub(super) fn pool_status(&self, pool: &PoolName, reason: WaitReason) -> PoolDemandStatus {
        let demand = self.by_pool.get(&Some(pool.clone()));
        let demand = demand.copied().unwrap_or_default();
        PoolDemandStatus {
            waiting: demand.waiting,
            running: demand.running,
            oldest_unix_ms: demand.oldest_unix_ms,
            waits_for: (demand.waiting > 0).then_some(reason),
            waits: self.waits.get(pool).cloned().unwrap_or_default(),
        }
    }
}

/// Logs a job of this host that came to another stage.
fn log(before: Option<&TableEntry>, now: &TableEntry) {
    let stage = now.job.stage();
    let is_same = before.is_some_and(|entry| entry.job.stage() == stage);
    let Some(pool) = now.place.pool().filter(|_| !is_same) else {
        return;
    };
    let (id, about) = (now.job.key.id, now.job.description());
    let (repository, name, workflow) = (&about.repository, &about.name, &about.workflow);
    info!(
        %pool, job_id = id, %stage, repository, workflow, job = name,
        "pool {pool}: GitHub tells that job {id} of {repository} is {stage}: {workflow} / {name}"
    );
}

fn row(entry: &TableEntry) -> JobRow {
    let (job, about) = (&entry.job, entry.job.description());
    JobRow {
        id: job.key.id,
        scope: job.key.scope.to_string(),
        repository: about.repository.clone(),
        run_id: about.run_id,
        attempt: job.attempt,
        workflow: about.workflow.clone(),
        name: about.name.clone(),
        labels: about.labels.clone(),
        stage: job.stage(),
        queued_unix_ms: job.queued_unix_ms,
        started_unix_ms: job.started_unix_ms,
        ended_unix_ms: job.end.map(|end| end.unix_ms),
        conclusion: job.end.map(|end| end.conclusion),
        pool: entry.place.pool().map(ToString::to_string),
        machine: match &entry.place {
            JobPlace::Slot(slot) => Some(slot.clone()),
            JobPlace::Elsewhere
            | JobPlace::Pool(_)
            | JobPlace::ScaleSet(_)
            | JobPlace::Unserved => None,
        },
        waits_for: None,
    }
}
