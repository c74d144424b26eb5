//! Metrics of demand. Label values are pools and outcomes, so nothing that a job says can add a series.

use prometheus_client::registry::Registry;

use super::measures;
use super::metric_families::{counter, gauge, label, set};
use crate::status::{DeliveryOutcome, DemandStatus, Measure, SetState, Status, WebhookStatus};

/// Registers the metrics; none if the host does not know which jobs wait.
pub(super) fn register(registry: &mut Registry, status: &Status) {
    let Some(demand) = &status.demand else {
        return;
    };
    let waiting = gauge(
        registry,
        "jobs_waiting",
        "Jobs that wait for a runner of the pool, as GitHub's deliveries tell",
    );
    let running = gauge(
        registry,
        "jobs_running",
        "Jobs that runners of the pool have, as GitHub's deliveries tell",
    );
    let oldest = gauge(
        registry,
        "jobs_oldest_wait_seconds",
        "Wait of the pool's job that waits longest, in seconds",
    );
    let waits = measures::family(
        registry,
        "job_queue_wait_seconds",
        "Time of jobs from the queue to the start, without jobs that needed an approval",
    );
    for pool in &status.pools {
        let Some(of_pool) = &pool.demand else {
            continue;
        };
        let labels = || vec![label("pool", &pool.name)];
        set(&waiting, labels(), of_pool.waiting);
        set(&running, labels(), of_pool.running);
        let since = of_pool.oldest_unix_ms;
        let wait = since.map_or(0, |since| status.at_unix_ms.saturating_sub(since) / 1000);
        set(&oldest, labels(), wait);
        measures::set(&waits, labels(), Measure::QueueWait, of_pool.waits.clone());
    }
    let unserved = gauge(
        registry,
        "jobs_unserved",
        "Jobs that wait and that no pool of this host serves",
    );
    set(&unserved, vec![], demand.unserved_count);
    let held = gauge(registry, "jobs_held", "Jobs that wait for an approval");
    set(&held, vec![], demand.held_count);
    if let Some(webhook) = &demand.webhook {
        register_deliveries(registry, status, webhook);
    }
    register_readings(registry, status, demand);
    register_redeliveries(registry, demand);
    register_scale_sets(registry, status, demand);
}

/// Registers the deliveries.
fn register_deliveries(registry: &mut Registry, status: &Status, webhook: &WebhookStatus) {
    let deliveries = counter(
        registry,
        "webhook_deliveries",
        "GitHub's deliveries since the daemon started, by outcome",
    );
    for outcome in <DeliveryOutcome as strum::VariantArray>::VARIANTS {
        let count = webhook.deliveries.get(outcome).copied();
        deliveries
            .get_or_create(&vec![("result", outcome.to_string())])
            .inc_by(count.unwrap_or_default());
    }
    // Before the first delivery the age is absent, because any number would be wrong.
    if let Some(last) = webhook.last_unix_ms {
        let age = gauge(
            registry,
            "webhook_last_delivery_age_seconds",
            "Time since the last delivery with a right signature, pings aside, in seconds",
        );
        set(&age, vec![], status.at_unix_ms.saturating_sub(last) / 1000);
    }
}

/// Registers the readings of GitHub's API. Before the first one of a scope its age is absent.
fn register_readings(registry: &mut Registry, status: &Status, demand: &DemandStatus) {
    if demand.queues.is_empty() {
        return;
    }
    let age = gauge(
        registry,
        "queue_last_read_age_seconds",
        "Time since jobs of the scope were last read from GitHub's API, in seconds",
    );
    let failing = gauge(
        registry,
        "queue_read_failing",
        "1 if the last reading of the scope's jobs from GitHub's API failed",
    );
    let runs = gauge(
        registry,
        "queue_runs",
        "Runs of the repository that wait or run, of the newest 100 each",
    );
    for queue in &demand.queues {
        let labels = || vec![label("scope", &queue.scope)];
        if let Some(last) = queue.last_unix_ms {
            set(
                &age,
                labels(),
                status.at_unix_ms.saturating_sub(last) / 1000,
            );
        }
        set(&failing, labels(), u64::from(queue.error.is_some()));
        if let Some(count) = queue.runs {
            set(&runs, labels(), count);
        }
    }
}

/// Registers the deliveries that GitHub was asked for once more.
fn register_redeliveries(registry: &mut Registry, demand: &DemandStatus) {
    if demand.redeliveries.is_empty() {
        return;
    }
    let repeated = counter(
        registry,
        "webhook_redeliveries",
        "Failed deliveries that GitHub was asked for once more since the daemon started",
    );
    let failing = gauge(
        registry,
        "webhook_redelivery_failing",
        "1 if the last look at failed deliveries of the hook failed",
    );
    for redelivery in &demand.redeliveries {
        let labels = || {
            let (scope, hook) = (&redelivery.scope, &redelivery.hook);
            vec![label("scope", scope), label("hook", hook)]
        };
        repeated
            .get_or_create(&labels())
            .inc_by(redelivery.repeated);
        set(&failing, labels(), u64::from(redelivery.error.is_some()));
    }
}

/// Registers the scale sets. A number that GitHub has not told so far is absent.
fn register_scale_sets(registry: &mut Registry, status: &Status, demand: &DemandStatus) {
    if demand.scale_sets.is_empty() {
        return;
    }
    let session = gauge(
        registry,
        "scale_set_session",
        "1 for the state that the session of the pool's scale set has",
    );
    let capacity = gauge(
        registry,
        "scale_set_capacity",
        "Jobs that the pool can have altogether, as the last poll told GitHub",
    );
    let assigned = gauge(
        registry,
        "scale_set_assigned_jobs",
        "Jobs that GitHub counts as assigned to the pool's scale set, those that run included",
    );
    let age = gauge(
        registry,
        "scale_set_last_answer_age_seconds",
        "Time since the scale-set service last answered with a success, in seconds",
    );
    let probed = gauge(
        registry,
        "scale_set_probed",
        "1 while a runner listens although the pool's scale set tells of no job, because deliveries or readings do",
    );
    let messages = counter(
        registry,
        "scale_set_messages",
        "Messages of the pool's scale set since the daemon started",
    );
    let unreadable = counter(
        registry,
        "scale_set_messages_unreadable",
        "Messages of the pool's scale set that were given up because they cannot be read",
    );
    for scale_set in &demand.scale_sets {
        let labels = || vec![label("pool", &scale_set.pool)];
        for state in <SetState as strum::VariantArray>::VARIANTS {
            let mut labels = labels();
            labels.push(("state", state.to_string()));
            set(&session, labels, u64::from(scale_set.state == *state));
        }
        if let Some(count) = scale_set.capacity {
            set(&capacity, labels(), count.into());
        }
        if let Some(count) = scale_set.assigned {
            set(&assigned, labels(), count);
        }
        if let Some(last) = scale_set.last_unix_ms {
            let past = status.at_unix_ms.saturating_sub(last);
            set(&age, labels(), past / 1000);
        }
        set(&probed, labels(), u64::from(scale_set.is_probed));
        messages.get_or_create(&labels()).inc_by(scale_set.messages);
        unreadable
            .get_or_create(&labels())
            .inc_by(scale_set.unreadable);
    }
}

/// Registers the use of the budget; none without `[budget]`.
pub(super) fn register_budget(registry: &mut Registry, status: &Status) {
    if status.budget.is_empty() {
        return;
    }
    let used = gauge(
        registry,
        "budget_used",
        "Amount of the budget that all runners of the host take, by resource",
    );
    let max = gauge(registry, "budget_max", "Budget of all runners, by resource");
    for (resource, share) in &status.budget {
        let labels = || vec![("resource", resource.to_string())];
        set(&used, labels(), share.used);
        set(&max, labels(), share.max);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::status::{
        Histogram, PoolDemandStatus, PoolStatus, QueueStatus, RedeliveryStatus, ScaleSetStatus,
    };

    fn text(status: &Status) -> String {
        let mut registry = Registry::default();
        register(&mut registry, status);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn demand_is_counted_for_each_pool_and_outcome() {
        let mut waits = Histogram::default();
        for wait_ms in [400, 700, 100_000_000] {
            waits.add(Measure::QueueWait, wait_ms);
        }
        let status = Status {
            at_unix_ms: 70_000,
            demand: Some(DemandStatus {
                unserved_count: 4,
                webhook: Some(WebhookStatus {
                    deliveries: [(DeliveryOutcome::WrongSignature, 2)].into(),
                    last_unix_ms: Some(60_000),
                }),
                queues: vec![QueueStatus {
                    scope: "acme/app at https://api.github.com".into(),
                    last_unix_ms: Some(40_000),
                    runs: Some(7),
                    error: Some("no answer".into()),
                    ..QueueStatus::default()
                }],
                redeliveries: vec![RedeliveryStatus {
                    scope: "acme at https://api.github.com".into(),
                    hook: "hook 7 of acme".into(),
                    repeated: 3,
                    ..RedeliveryStatus::default()
                }],
                scale_sets: vec![ScaleSetStatus {
                    pool: "ci".into(),
                    state: SetState::Listening,
                    capacity: Some(4),
                    last_unix_ms: Some(10_000),
                    messages: 9,
                    is_probed: true,
                    ..ScaleSetStatus::default()
                }],
                ..DemandStatus::default()
            }),
            pools: vec![PoolStatus {
                name: "ci".into(),
                demand: Some(PoolDemandStatus {
                    waiting: 3,
                    running: 1,
                    oldest_unix_ms: Some(10_000),
                    waits_for: None,
                    waits,
                }),
                ..PoolStatus::default()
            }],
            ..Status::default()
        };
        let shown = text(&status);
        for line in [
            "jobs_waiting{pool=\"ci\"} 3",
            "webhook_redeliveries_total{scope=\"acme at https://api.github.com\",hook=\"hook 7 of acme\"} 3",
            "webhook_redelivery_failing{scope=\"acme at https://api.github.com\",hook=\"hook 7 of acme\"} 0",
            "jobs_running{pool=\"ci\"} 1",
            "jobs_oldest_wait_seconds{pool=\"ci\"} 60",
            "jobs_unserved{} 4",
            "webhook_deliveries_total{result=\"wrong_signature\"} 2",
            "webhook_deliveries_total{result=\"accepted\"} 0",
            "webhook_last_delivery_age_seconds{} 10",
            "queue_last_read_age_seconds{scope=\"acme/app at https://api.github.com\"} 30",
            "queue_read_failing{scope=\"acme/app at https://api.github.com\"} 1",
            "queue_runs{scope=\"acme/app at https://api.github.com\"} 7",
            "scale_set_session{pool=\"ci\",state=\"listening\"} 1",
            "scale_set_session{pool=\"ci\",state=\"occupied\"} 0",
            "scale_set_capacity{pool=\"ci\"} 4",
            "scale_set_last_answer_age_seconds{pool=\"ci\"} 60",
            "scale_set_messages_total{pool=\"ci\"} 9",
            "scale_set_probed{pool=\"ci\"} 1",
            "job_queue_wait_seconds_count{pool=\"ci\"} 3",
            "job_queue_wait_seconds_bucket{le=\"0.5\",pool=\"ci\"} 1",
            "job_queue_wait_seconds_bucket{le=\"1.0\",pool=\"ci\"} 2",
            "job_queue_wait_seconds_bucket{le=\"14400.0\",pool=\"ci\"} 2",
            "job_queue_wait_seconds_bucket{le=\"+Inf\",pool=\"ci\"} 3",
        ] {
            assert!(
                shown.lines().any(|found| found == line),
                "{line} in {shown}"
            );
        }
        assert_eq!(text(&Status::default()), "# EOF\n");
    }
}
