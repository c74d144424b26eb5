//! Tests of the schedule: single rules, and properties over random hosts.

mod examples;
mod order;
mod probe;
mod properties;
mod scale_set;

use super::*;
use crate::{
    Conclusion, Evidence, HostId, JobDescription, JobEnd, JobKey, JobSource, JobTable, KnownJob,
    PoolLabels, PoolName, ScopeId,
};

const MINUTE_MS: u64 = 60_000;

fn scope() -> ScopeId {
    ScopeId::new("https://api.github.com", "acme")
}

fn pool_name(number: usize) -> PoolName {
    format!("p{number}").parse().unwrap()
}

/// Returns a pool without runners whose demand is the queue.
fn supply(number: usize, gib: u64, max_runners: usize) -> PoolSupply {
    PoolSupply {
        name: pool_name(number),
        demand: Demand::Webhook,
        cost: cost(gib),
        min_idle: 0,
        min_spare: 0,
        max_runners,
        runners: 0,
        ending: 0,
        listeners: 0,
        told: 0,
        spares: 0,
        startable: max_runners,
        taken: 0,
        busy: 0,
        registrable: usize::MAX,
        may_ask: false,
        is_failing: false,
        wants_probe: false,
    }
}

fn cost(gib: u64) -> Cost {
    Cost {
        memory_bytes: gib << 30,
        millicores: 1_000,
        runners: 1,
    }
}

fn memory(gib: u64) -> Budget {
    Budget {
        memory_bytes: Some(gib << 30),
        ..Budget::default()
    }
}

/// Returns a table for pools `p0`, `p1`, …, each with its name as the only label.
fn table(pools: usize, rules: OrderRules) -> JobTable {
    let host: HostId = "h".parse().unwrap();
    let labels = (0..pools).map(|number| {
        let name = pool_name(number);
        PoolLabels::new(name.clone(), scope(), &[name.to_string()])
    });
    JobTable::new(host, labels.collect(), rules)
}

fn waiting(id: u64, pool: usize, queued_unix_ms: u64) -> KnownJob {
    KnownJob::new(
        JobKey {
            scope: scope(),
            source: JobSource::Webhook,
            id,
        },
        Evidence::Queued,
        JobDescription {
            repository: "acme/widgets".into(),
            run_id: 100 + id,
            workflow: "CI".into(),
            name: "build".into(),
            labels: vec![format!("p{pool}")],
        },
        queued_unix_ms,
    )
}

fn cancelled(job: &KnownJob) -> KnownJob {
    KnownJob {
        end: Some(JobEnd {
            unix_ms: job.queued_unix_ms + 1,
            conclusion: Conclusion::Cancelled,
        }),
        ..job.clone()
    }
}

/// Returns the number of containers that a schedule starts in each pool.
fn starts(schedule: &Schedule, pools: &[PoolSupply]) -> Vec<usize> {
    let start = |pool: &PoolSupply| schedule.targets[&pool.name].max - pool.runners;
    pools.iter().map(start).collect()
}
