//! Demand: a sentence for each pool whose jobs wait, and one for jobs that no pool serves.

use super::span;
use crate::status::{
    DeliveryOutcome, DemandStatus, PoolStatus, QueueStatus, RedeliveryStatus, ScaleSetStatus,
    SetState, Status,
};

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
    let sets = status.demand.iter().flat_map(|demand| &demand.scale_sets);
    let sets = sets.filter_map(|set| scale_set_sentence(set, now));
    let redeliveries = status.demand.iter().flat_map(|demand| &demand.redeliveries);
    let redeliveries = redeliveries.filter_map(redelivery_sentence);
    let failing = failing.chain(redeliveries);
    pools.chain(unserved).chain(failing).chain(sets).collect()
}

/// Returns the number of deliveries with a wrong signature since the daemon's start, and of those with a right one.
#[must_use]
pub fn signatures(status: &Status) -> Option<(u64, u64)> {
    let deliveries = &status.demand.as_ref()?.webhook.as_ref()?.deliveries;
    let count = |outcome| deliveries.get(&outcome).copied().unwrap_or_default();
    let right = count(DeliveryOutcome::Accepted) + count(DeliveryOutcome::Duplicate);
    Some((count(DeliveryOutcome::WrongSignature), right))
}

/// Returns the problem of a webhook whose deliveries all have a wrong signature.
///
/// The host stays healthy, because every program on the internet may send such a delivery.
pub(super) fn wrong_secret(status: &Status) -> Option<String> {
    let (wrong, right) = signatures(status)?;
    (wrong > 0 && right == 0).then(|| {
        let noun = if wrong == 1 { "delivery" } else { "deliveries" };
        format!(
            "webhook: {wrong} {noun} had a wrong signature and none a right one: GitHub has another secret than \
             this host, so jobs are only found when the host reads GitHub's queue; set the secret of webhook.secret_file \
             in the hook's settings at GitHub, or correct the file and run `systemctl restart runner-controller`"
        )
    })
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
        None => "no reading worked so far".to_owned(),
    };
    Some(format!("cannot read jobs of {scope}: {error}; {known}"))
}

fn redelivery_sentence(redelivery: &RedeliveryStatus) -> Option<String> {
    let RedeliveryStatus { scope, hook, .. } = redelivery;
    let error = redelivery.error.as_ref()?;
    Some(format!(
        "cannot ask for failed deliveries of {hook} in {scope}: {error}; deliveries that arrive are taken"
    ))
}

fn scale_set_sentence(set: &ScaleSetStatus, now_unix_ms: u64) -> Option<String> {
    let ScaleSetStatus { pool, name, .. } = set;
    if let Some(error) = &set.error {
        let age = set.last_unix_ms.map_or_else(
            || "GitHub has not answered so far".to_owned(),
            |at| {
                let ago = span(now_unix_ms.saturating_sub(at));
                format!("the last good answer is {ago} old, and the jobs that were known stay")
            },
        );
        return Some(format!(
            "scale set {name} of pool {pool} does not work: {error}; {age}"
        ));
    }
    if set.state == SetState::Occupied {
        return Some(format!(
            "pool {pool} gets no new jobs: an earlier session has scale set {name}, as after a daemon that was killed; GitHub ends it within 92 s"
        ));
    }
    if set.is_probed {
        return Some(format!(
            "pool {pool}: a job waits and scale set {name} tells of none, so one runner listens for it"
        ));
    }
    let labels = set.other_labels.as_ref()?;
    Some(format!(
        "scale set {name} of pool {pool} has other labels than the pool ({}), and GitHub does not change them; give the pool another scale_set",
        labels.join(", ")
    ))
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
