//! Pools whose jobs GitHub assigns to a scale set.

use super::examples::{pools, put, spec, steps};
use super::*;
use crate::{JobGroup, JobPlace, Phase};

/// Returns a pool without runners whose demand is a scale set.
pub(super) fn set_supply(number: usize, max_runners: usize) -> PoolSupply {
    PoolSupply {
        demand: Demand::ScaleSet,
        ..supply(number, 1, max_runners)
    }
}

/// Returns a table for pools `p0`, `p1`, …, each with a scale set.
pub(super) fn set_table(pools: usize) -> JobTable {
    let labels = (0..pools).map(|number| {
        let name = pool_name(number);
        PoolLabels::new(name.clone(), scope(), &[name.to_string()]).with_scale_set(true)
    });
    JobTable::new(
        "h".parse().unwrap(),
        labels.collect(),
        OrderRules::default(),
    )
}

/// Returns a job that GitHub assigned to the set of a pool.
pub(super) fn assigned(id: u64, pool: usize) -> KnownJob {
    let mut job = waiting(id, pool, id);
    job.key.source = JobSource::ScaleSet;
    job.pool = Some(pool_name(pool));
    job
}

fn started(job: &KnownJob, runner: &str) -> KnownJob {
    KnownJob {
        runner: Some((Evidence::Started, runner.into())),
        started_unix_ms: Some(50),
        ..job.clone()
    }
}

fn capacity(pools: &[PoolSupply], table: &JobTable, budget: &Budget) -> Vec<usize> {
    let schedule = schedule(pools, Some(table), budget, 0);
    let of = |pool: &PoolSupply| schedule.capacities()[&pool.name];
    pools.iter().map(of).collect()
}

#[test]
fn a_runner_starts_for_each_job_that_github_counts_or_a_message_told() {
    let pools = [set_supply(0, 9)];
    let mut table = set_table(1);
    let count = |table: &JobTable| {
        let schedule = schedule(&pools, Some(table), &Budget::default(), 0);
        starts(&schedule, &pools)
    };
    table.set_assigned(pool_name(0), 3);
    assert_eq!(count(&table), [3], "no message came so far");
    table.merge(assigned(1, 0));
    table.merge(assigned(2, 0));
    assert_eq!(count(&table), [3], "a job counts once");
    table.set_assigned(pool_name(0), 0);
    assert_eq!(
        count(&table),
        [2],
        "statistics may lack the jobs of messages"
    );
}

#[test]
fn a_job_of_a_scale_set_has_its_pool_whatever_its_labels() {
    let mut table = set_table(2);
    let mut job = assigned(1, 1);
    job.description.1.labels = vec!["p0".into()];
    let (_, entry) = table.merge(job.clone());
    assert_eq!(entry.place, JobPlace::Pool(pool_name(1)));
    let (_, entry) = table.merge(started(&job, "h-p0-2-0000beef"));
    assert_eq!(entry.place, JobPlace::Slot("p0-2".parse().unwrap()));
}

#[test]
fn a_job_that_a_delivery_told_of_does_not_count_beside_the_scale_set() {
    let mut table = set_table(1);
    let job = waiting(1, 0, 5);
    table.merge(job.clone());
    assert_eq!(table.count(JobGroup::Waiting), 0);
    table.merge(started(&job, "h-p0-2-0000beef"));
    assert_eq!(table.count(JobGroup::Running), 0);
}

#[test]
fn a_job_of_a_pool_that_has_no_scale_set_any_more_does_not_wait_here() {
    let mut table = table(1, OrderRules::default());
    table.merge(assigned(1, 0));
    assert_eq!(table.count(JobGroup::Waiting), 0);
}

#[test]
fn capacity_is_what_has_a_job_listens_or_can_start() {
    let none = Budget::default();
    let mut table = set_table(1);
    let idle = set_supply(0, 4);
    assert_eq!(capacity(std::slice::from_ref(&idle), &table, &none), [4]);
    let failing = PoolSupply {
        startable: 0,
        ..idle.clone()
    };
    assert_eq!(capacity(&[failing], &table, &none), [0], "boots fail");
    let paced = PoolSupply {
        registrable: 1,
        runners: 2,
        listeners: 1,
        spares: 1,
        startable: 2,
        ..idle.clone()
    };
    assert_eq!(capacity(&[paced], &table, &none), [2], "paced");
    let budget = memory(3);
    assert_eq!(
        capacity(std::slice::from_ref(&idle), &table, &budget),
        [3],
        "budget"
    );
    let job = assigned(1, 0);
    table.merge(started(&job, "h-p0-1-0000beef"));
    table.merge(assigned(2, 0));
    table.set_assigned(pool_name(0), 2);
    let working = PoolSupply {
        runners: 2,
        busy: 1,
        spares: 1,
        startable: 2,
        ..idle
    };
    assert_eq!(capacity(&[working], &table, &none), [4]);
}

#[test]
fn a_runner_leaves_no_room_while_github_or_the_host_has_a_job_for_it() {
    let none = Budget::default();
    let full = PoolSupply {
        runners: 1,
        busy: 1,
        startable: 0,
        ..set_supply(0, 1)
    };
    // GitHub told the end of a job that runs on.
    let table = set_table(1);
    assert_eq!(capacity(&[full], &table, &none), [0]);
    // A runner has ended, and GitHub still counts its job.
    let mut table = set_table(1);
    let job = assigned(1, 0);
    table.merge(started(&job, "h-p0-1-0000beef"));
    table.set_assigned(pool_name(0), 1);
    assert_eq!(capacity(&[set_supply(0, 1)], &table, &none), [1]);
}

#[test]
fn pools_that_share_a_budget_each_have_the_whole_remainder() {
    let pools = [set_supply(0, 4), set_supply(1, 4)];
    let table = set_table(2);
    assert_eq!(capacity(&pools, &table, &memory(2)), [2, 2]);
}

#[test]
fn a_set_that_has_had_no_room_for_long_asks_for_one_job() {
    let (budget, table) = (memory(1), set_table(1));
    let other = PoolSupply {
        runners: 1,
        busy: 1,
        startable: 3,
        ..supply(1, 1, 4)
    };
    let set = set_supply(0, 4);
    let room = |set: PoolSupply, table: &JobTable| {
        let pools = [set, other.clone()];
        let schedule = schedule(&pools, Some(table), &budget, 0);
        let name = pool_name(0);
        (schedule.capacities()[&name], schedule.is_crowded(&name))
    };
    assert_eq!(room(set.clone(), &table), (0, true));
    let asks = PoolSupply {
        may_ask: true,
        ..set.clone()
    };
    assert_eq!(room(asks.clone(), &table), (1, true));
    let refused = PoolSupply {
        registrable: 0,
        ..asks.clone()
    };
    assert_eq!(room(refused, &table), (0, false), "GitHub refuses runners");
    let full = PoolSupply {
        startable: 0,
        ..asks.clone()
    };
    assert_eq!(room(full, &table), (0, false), "the pool itself is full");
    let mut counted = set_table(1);
    for id in 1..=4 {
        let runner = format!("h-p0-{id}-0000beef");
        counted.merge(started(&assigned(id, 0), &runner));
    }
    let busy = PoolSupply {
        runners: 3,
        busy: 3,
        startable: 1,
        ..asks.clone()
    };
    let (room_of_busy, is_crowded) = room(busy, &counted);
    assert!(room_of_busy <= 4 && !is_crowded, "GitHub counts four jobs");
    let mut waits = set_table(1);
    waits.merge(assigned(1, 0));
    assert_eq!(
        room(asks, &waits),
        (0, false),
        "one job is assigned already"
    );
}

#[test]
fn a_set_asks_after_the_age_from_which_jobs_have_their_turns_by_age() {
    let mut spec = spec(0, 2);
    spec.demand = Demand::ScaleSet;
    let mut pools = pools(spec);
    pools.set_budget(memory(1));
    let slot = put(&mut pools, 1, Phase::Busy, 0);
    let mut table = set_table(1);
    table.merge(started(&assigned(1, 0), &format!("h-{slot}-0000beef")));
    let name = pool_name(0);
    let age = table.rules().fairness_age.as_secs();
    let mut room = |second: u64| {
        assert_eq!(steps(&mut pools, &table, second), []);
        pools.schedule().capacities()[&name]
    };
    assert_eq!([0, age - 1, age, age + 60].map(&mut room), [1, 1, 2, 2]);
    // GitHub assigned the job that waited there. It is on record, and has its turn by its age.
    table.merge(assigned(2, 0));
    assert_eq!(steps(&mut pools, &table, age + 61), []);
    assert_eq!(pools.schedule().capacities()[&name], 1);
}
