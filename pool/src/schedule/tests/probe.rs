//! Probes of silent scale sets.

use super::examples::{at, pools, spec, steps};
use super::scale_set::{assigned, set_supply, set_table};
use super::*;
use crate::{Pools, Slot, Step};

const MINUTE: u64 = 60;

/// Returns a pool at zero whose jobs GitHub assigns to a scale set.
fn at_zero() -> Pools {
    let mut spec = spec(0, 2);
    spec.demand = Demand::ScaleSet;
    pools(spec)
}

/// Returns a table in which GitHub counts no job, and a delivery tells of one.
fn silent() -> JobTable {
    let mut table = set_table(1);
    table.set_assigned(pool_name(0), 0);
    table.merge(waiting(1, 0, 0));
    table
}

fn start() -> Step {
    let slot = Slot::new(1).unwrap();
    Step::Start { slot }
}

/// Returns the first of the given seconds at which a runner starts.
fn first_start(pools: &mut Pools, table: &JobTable, seconds: std::ops::Range<u64>) -> Option<u64> {
    let mut seconds = seconds.step_by(10);
    seconds.find(|second| steps(pools, table, *second) == [start()])
}

#[test]
fn a_silent_set_gets_one_probe_for_a_job_that_a_delivery_told_of() {
    let (mut pools, mut table) = (at_zero(), silent());
    table.merge(waiting(2, 0, 0));
    assert_eq!(steps(&mut pools, &table, 0), [], "the first schedule");
    assert_eq!(first_start(&mut pools, &table, 10..20 * MINUTE), Some(180));
    assert_eq!(
        steps(&mut pools, &table, 181),
        [],
        "one for all jobs of the set"
    );
    assert!(pools.schedule().probes().contains(&pool_name(0)));
}

#[test]
fn the_loop_wakes_for_a_probe() {
    let (mut pools, table) = (at_zero(), silent());
    for second in 0..2 {
        assert_eq!(steps(&mut pools, &table, second), []);
    }
    assert_eq!(pools.next_deadline(at(1)), Some(at(180)));
}

#[test]
fn no_probe_starts_while_anything_tells_of_the_jobs() {
    let job = assigned(9, 0);
    let mut told = silent();
    told.set_assigned(pool_name(0), 1);
    let mut by_message = silent();
    by_message.merge(job);
    let mut unknown = set_table(1);
    unknown.merge(waiting(1, 0, 0));
    let mut without_job = set_table(1);
    without_job.set_assigned(pool_name(0), 0);
    let mut cancelled_job = silent();
    cancelled_job.merge(cancelled(&waiting(1, 0, 0)));
    let mut held = set_table(1);
    held.set_assigned(pool_name(0), 0);
    let mut approval = waiting(1, 0, 0);
    (approval.held, approval.queued) = (true, false);
    approval.description.0 = Evidence::Held;
    held.merge(approval);
    for (table, starts_for_the_set) in [
        (told, true),
        (by_message, true),
        (unknown, false),
        (without_job, false),
        (cancelled_job, false),
        (held, false),
    ] {
        let mut pools = at_zero();
        let first = first_start(&mut pools, &table, 0..20 * MINUTE);
        assert_eq!(first, starts_for_the_set.then_some(0), "{table:?}");
        assert!(pools.schedule().probes().is_empty());
    }
}

#[test]
fn a_probe_that_gets_no_job_ends_and_is_repeated_after_a_pause() {
    let table = silent();
    let wants = |second: u64, silence: Option<Silence>| {
        let silence = Silence::follow(silence, true, at(second));
        (
            silence,
            silence.is_some_and(|silence| silence.wants_probe(at(second))),
        )
    };
    let (mut silence, mut wanted) = (None, Vec::new());
    for second in (0..60 * MINUTE).step_by(10) {
        let (next, is_wanted) = wants(second, silence);
        silence = next;
        if is_wanted {
            wanted.push(second);
        }
    }
    let minutes = |from: u64, to: u64| (from * MINUTE..to * MINUTE).step_by(10);
    let expected: Vec<u64> = minutes(3, 13).chain(minutes(46, 56)).collect();
    assert_eq!(wanted, expected);
    assert!(table.is_silent(&pool_name(0)));
    assert_eq!(Silence::follow(silence, false, at(4_000)), None);
}

#[test]
fn a_probe_never_exceeds_the_budget_or_the_pool() {
    let table = silent();
    let probed = PoolSupply {
        wants_probe: true,
        ..set_supply(0, 1)
    };
    let starts_with = |pool: &PoolSupply, budget: &Budget| {
        let pools = [pool.clone()];
        let schedule = schedule(&pools, Some(&table), budget, 0);
        (
            starts(&schedule, &pools)[0],
            schedule.probes().contains(&pool.name),
        )
    };
    assert_eq!(starts_with(&probed, &Budget::default()), (1, true));
    assert_eq!(starts_with(&probed, &memory(0)), (0, false));
    let full = PoolSupply {
        runners: 1,
        busy: 1,
        startable: 0,
        ..probed.clone()
    };
    assert_eq!(starts_with(&full, &Budget::default()), (0, false));
    let listening = PoolSupply {
        runners: 1,
        listeners: 1,
        startable: 0,
        ..probed
    };
    assert_eq!(starts_with(&listening, &Budget::default()), (0, true));
}
