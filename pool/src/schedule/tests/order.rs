//! The order of turns: patterns, priorities, age.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[test]
fn a_pattern_stands_for_a_whole_text() {
    for (pattern, text, matches) in [
        ("acme/widgets", "acme/widgets", true),
        ("acme/widgets", "Acme/Widgets", true),
        ("acme/widgets", "acme/widgets2", false),
        ("acme/*", "acme/widgets", true),
        ("acme/*", "acme2/widgets", false),
        ("*release*", "the release of May", true),
        ("*release", "release notes", false),
        ("a*b*c", "abbc", true),
        ("a*b*c", "acb", false),
        ("ab*ba", "aba", false),
        ("*", "", true),
        ("", "a", false),
    ] {
        assert_eq!(
            Glob::new(pattern).matches(text),
            matches,
            "{pattern} {text}"
        );
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_the_text_that_its_stars_are_replaced_in(
        parts in proptest::collection::vec("[ab]{0,3}", 1..4), filled in "[ab]{0,3}",
    ) {
        let text = parts.join(&filled);
        prop_assert!(Glob::new(&parts.join("*")).matches(&text), "{parts:?} {text}");
    }
}

fn rules() -> OrderRules {
    let priority = |name: &str, workflow: &str| Priority {
        name: name.into(),
        repositories: Vec::new(),
        workflows: vec![Glob::new(workflow)],
        jobs: Vec::new(),
        escalate_after: Duration::from_mins(2),
    };
    OrderRules {
        priorities: vec![priority("release", "release*"), priority("merge", "merge*")],
        ..OrderRules::default()
    }
}

/// Returns the ids of waiting jobs in their order.
fn order(table: &JobTable, unix_ms: u64) -> Vec<u64> {
    let mut turns = table.queue().turns(table.rules(), unix_ms);
    let mut ids = Vec::new();
    while let Some(turn) = turns.pop() {
        ids.push(turn.key.id);
        turns.goes_on(turn);
    }
    ids
}

fn in_workflow(id: u64, queued_unix_ms: u64, workflow: &str) -> KnownJob {
    let mut job = waiting(id, 0, queued_unix_ms);
    job.description.1.workflow = workflow.into();
    job
}

#[test]
fn priorities_order_young_jobs_and_age_orders_the_others() {
    let mut table = table(1, rules());
    table.merge(in_workflow(1, 0, "CI"));
    table.merge(in_workflow(2, 10, "merge queue"));
    table.merge(in_workflow(3, 20, "Release 1"));
    table.merge(in_workflow(4, 30, "release 2"));
    assert_eq!(order(&table, MINUTE_MS), [3, 4, 2, 1]);
    // After two minutes the jobs of the second priority are as urgent as those of the first.
    assert_eq!(order(&table, 2 * MINUTE_MS + 30), [2, 3, 4, 1]);
    // After the fairness age all are one queue. The two last ones are not that old.
    assert_eq!(order(&table, 5 * MINUTE_MS + 15), [1, 2, 3, 4]);
}

#[test]
fn an_attempt_keeps_its_first_queue_time_and_a_new_attempt_has_its_own() {
    let mut table = table(1, OrderRules::default());
    table.merge(waiting(1, 0, 50));
    table.merge(waiting(2, 0, 60));
    table.merge(waiting(1, 0, 70));
    assert_eq!(order(&table, MINUTE_MS), [1, 2]);
    table.merge(KnownJob {
        attempt: 2,
        ..waiting(1, 0, 70)
    });
    assert_eq!(order(&table, MINUTE_MS), [2, 1]);
}

/// One change of a job in the queue.
fn change() -> impl Strategy<Value = (u64, usize, u64, bool)> {
    (0..12_u64, 0..3_usize, 0..500_000_u64, any::<bool>())
}

proptest! {
    /// The queue has exactly the jobs that wait, whatever events changed the table, and its order is that of the
    /// ranks of all jobs.
    #[test]
    fn the_queue_follows_the_table(
        changes in proptest::collection::vec(change(), 0..40), unix_ms in 0..900_000_u64,
    ) {
        let mut table = table(2, rules());
        for (id, pool, queued_unix_ms, ends) in changes {
            let workflow = ["CI", "merge", "release"][usize::try_from(id).unwrap() % 3];
            let mut job = in_workflow(id, queued_unix_ms, workflow);
            job.description.1.labels = vec![format!("p{pool}")];
            let job = if ends { cancelled(&job) } else { job };
            table.merge(job);
        }
        let mut expected: Vec<_> = table
            .in_group(crate::JobGroup::Waiting)
            .map(|entry| {
                let job = &entry.job;
                let priority = table.rules().priority(job.description());
                (table.rules().rank(priority, job.queued_unix_ms, unix_ms), job.key.id)
            })
            .collect();
        expected.sort_unstable();
        let ids: Vec<u64> = expected.into_iter().map(|(_, id)| id).collect();
        prop_assert_eq!(table.queue().of_pool(&pool_name(0)) + table.queue().of_pool(&pool_name(1)), ids.len());
        prop_assert_eq!(order(&table, unix_ms), ids);
        table.prune(u64::MAX);
        prop_assert!(table.queue().is_empty());
    }
}
