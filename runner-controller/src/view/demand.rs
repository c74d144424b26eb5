//! Demand: a sentence for each pool whose jobs wait, and one for jobs that no pool serves.

use super::span;
use crate::status::{DemandStatus, PoolStatus, QueueStatus, Status};

/// Wait after which jobs that no pool serves are worth a sentence. GitHub's own runners take a job within seconds.
const UNSERVED_MS: u64 = 120_000;

/// Returns the sentences; none if no job waits.
pub(super) fn sentences(status: &Status) -> Vec<String> {
    let now = status.at_unix_ms;
    let pools = status.pools.iter();
    let pools = pools.filter_map(|pool| of_pool(pool, now));
    let unserved = status.demand.as_ref();
    let unserved = unserved.and_then(|demand| unserved_sentence(demand, now));
    let queues = status.demand.iter().flat_map(|demand| &demand.queues);
    let failing = queues.filter_map(|queue| failing_sentence(queue, now));
    pools.chain(unserved).chain(failing).collect()
}

fn of_pool(pool: &PoolStatus, now_unix_ms: u64) -> Option<String> {
    let demand = pool.demand.as_ref().filter(|demand| demand.waiting > 0)?;
    let oldest = demand.oldest_unix_ms.unwrap_or(now_unix_ms);
    let waited = span(now_unix_ms.saturating_sub(oldest));
    let reason = demand
        .waits_for
        .map(|reason| format!(": {}", reason.clause()));
    let reason = reason.unwrap_or_default();
    let verb = if demand.waiting == 1 {
        "job waits"
    } else {
        "jobs wait"
    };
    let (name, waiting) = (&pool.name, demand.waiting);
    Some(format!(
        "pool {name}: {waiting} {verb}, the longest for {waited}{reason}"
    ))
}

fn failing_sentence(queue: &QueueStatus, now_unix_ms: u64) -> Option<String> {
    let (scope, error) = (&queue.scope, queue.error.as_ref()?);
    let known = match queue.last_unix_ms {
        Some(at) => format!(
            "the newest reading is {} old",
            span(now_unix_ms.saturating_sub(at))
        ),
        None => "only deliveries tell of them".to_owned(),
    };
    Some(format!("cannot read jobs of {scope}: {error}; {known}"))
}

fn unserved_sentence(demand: &DemandStatus, now_unix_ms: u64) -> Option<String> {
    let waited = |queued: u64| now_unix_ms.saturating_sub(queued);
    let oldest = demand.unserved.first()?;
    if waited(oldest.queued_unix_ms) < UNSERVED_MS {
        return None;
    }
    let jobs = match demand.unserved_count {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    };
    Some(format!(
        "no pool of this host serves {jobs} that wait; the longest has waited for {} and asks for: {}",
        span(waited(oldest.queued_unix_ms)),
        oldest.labels.join(", "),
    ))
}
