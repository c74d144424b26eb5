//! Single rules of the schedule, and of the pools that follow it.

use std::time::Duration;

use super::*;
use crate::{
    Admission, Cause, Effect, Job, JobNote, Numbers, Pace, Phase, Pools, Registration, Runner,
    RunnerName, Slot, SlotId, Spec, Step, Timeouts, Timestamp, WaitReason,
};

const NOW: u64 = 10 * MINUTE_MS;

fn made(pools: &[PoolSupply], table: &JobTable, budget: &Budget) -> Schedule {
    schedule(pools, Some(table), budget, NOW)
}

fn reason(schedule: &Schedule, table: &JobTable, id: u64) -> Option<WaitReason> {
    let mut waiting = table.in_group(crate::JobGroup::Waiting);
    schedule.reason(waiting.find(|entry| entry.job.key.id == id).unwrap())
}

#[test]
fn a_pool_starts_a_runner_for_each_waiting_job_within_its_maximum() {
    let mut table = table(1, OrderRules::default());
    for id in 0..3 {
        table.merge(waiting(id, 0, NOW));
    }
    for (min_idle, max_runners, expected) in [(0, 9, 3), (2, 9, 5), (0, 2, 2)] {
        let pools = [PoolSupply {
            min_idle,
            ..supply(0, 1, max_runners)
        }];
        let schedule = made(&pools, &table, &Budget::default());
        assert_eq!(starts(&schedule, &pools), [expected]);
    }
    let pools = [supply(0, 1, 2)];
    let schedule = made(&pools, &table, &Budget::default());
    let reasons: Vec<_> = (0..3).map(|id| reason(&schedule, &table, id)).collect();
    assert_eq!(reasons, [None, None, Some(WaitReason::PoolFull)]);
    for (is_failing, expected) in [
        (false, WaitReason::RunnerStarting),
        (true, WaitReason::PoolFails),
    ] {
        let pools = [PoolSupply {
            startable: 0,
            is_failing,
            ..supply(0, 1, 2)
        }];
        let schedule = made(&pools, &table, &Budget::default());
        assert_eq!(reason(&schedule, &table, 0), Some(expected));
    }
}

#[test]
fn a_job_with_a_runner_that_is_there_or_that_has_it_starts_no_other() {
    let mut table = table(1, OrderRules::default());
    for id in 0..3 {
        table.merge(waiting(id, 0, NOW));
    }
    let pools = [PoolSupply {
        runners: 3,
        listeners: 1,
        spares: 1,
        taken: 1,
        startable: 6,
        ..supply(0, 1, 9)
    }];
    let schedule = made(&pools, &table, &Budget::default());
    assert_eq!(starts(&schedule, &pools), [0]);
    assert_eq!(schedule.targets[&pool_name(0)].listeners, 2);
}

#[test]
fn jobs_of_a_pool_with_a_fixed_demand_do_not_change_its_numbers() {
    let mut table = table(1, OrderRules::default());
    for id in 0..9 {
        table.merge(waiting(id, 0, NOW));
    }
    let pools = [PoolSupply {
        demand: Demand::Fixed,
        min_idle: 1,
        min_spare: 1,
        ..supply(0, 1, 9)
    }];
    let schedule = made(&pools, &table, &memory(100));
    assert_eq!(starts(&schedule, &pools), [2]);
    assert_eq!(schedule.targets[&pool_name(0)].listeners, 1);
}

#[test]
fn a_job_that_does_not_fit_keeps_its_turn_and_smaller_ones_run_in_the_remainder() {
    let mut table = table(4, OrderRules::default());
    table.merge(waiting(0, 0, NOW - 4));
    table.merge(waiting(1, 1, NOW - 3));
    table.merge(waiting(2, 2, NOW - 2));
    table.merge(waiting(3, 3, NOW - 1));
    let busy = PoolSupply {
        runners: 1,
        ..supply(3, 2, 2)
    };
    // 6 GiB are left: not for 8, and 4 GiB go before another 4 that would jump.
    let pools = [supply(0, 8, 9), supply(1, 4, 9), supply(2, 8, 9), busy];
    let schedule = made(&pools, &table, &memory(8));
    assert_eq!(starts(&schedule, &pools), [0, 1, 0, 1]);
    assert_eq!(reason(&schedule, &table, 0), Some(WaitReason::Budget));
    assert_eq!(reason(&schedule, &table, 1), None);
    assert_eq!(reason(&schedule, &table, 2), Some(WaitReason::Budget));
}

#[test]
fn a_job_of_the_same_size_does_not_jump() {
    let mut table = table(2, OrderRules::default());
    table.merge(waiting(0, 0, NOW - 4));
    table.merge(waiting(1, 1, NOW - 3));
    let many_cores = PoolSupply {
        cost: Cost {
            millicores: 4_000,
            ..cost(4)
        },
        ..supply(0, 4, 9)
    };
    let budget = Budget {
        millicores: Some(2_000),
        ..memory(64)
    };
    let pools = [many_cores.clone(), supply(1, 4, 9)];
    assert_eq!(starts(&made(&pools, &table, &budget), &pools), [0, 1]);
    // It needs fewer cores and more memory, so it is not smaller.
    let pools = [many_cores, supply(1, 5, 9)];
    let schedule = made(&pools, &table, &budget);
    assert_eq!(starts(&schedule, &pools), [0, 0]);
    assert_eq!(reason(&schedule, &table, 1), Some(WaitReason::Turn));
}

#[test]
fn a_job_that_waits_very_long_keeps_smaller_ones_from_its_place() {
    let mut table = table(2, OrderRules::default());
    let hour = DEFAULT_RESERVE_AFTER.as_millis();
    let hour = u64::try_from(hour).unwrap();
    table.merge(waiting(0, 0, NOW));
    table.merge(waiting(1, 1, NOW + 1));
    let busy = PoolSupply {
        runners: 1,
        startable: 8,
        ..supply(1, 1, 9)
    };
    let pools = [supply(0, 8, 9), busy];
    for (unix_ms, expected) in [(NOW + hour - 1, [0, 1]), (NOW + hour, [0, 0])] {
        let schedule = schedule(&pools, Some(&table), &memory(8), unix_ms);
        assert_eq!(starts(&schedule, &pools), expected);
    }
}

#[test]
fn a_repository_at_its_maximum_blocks_no_other() {
    let rules = OrderRules {
        max_per_repository: Some(1),
        ..OrderRules::default()
    };
    let mut table = table(1, rules);
    table.merge(waiting(0, 0, NOW - 3));
    table.merge(waiting(1, 0, NOW - 2));
    let mut other = waiting(2, 0, NOW - 1);
    other.description.1.repository = "acme/gadgets".into();
    table.merge(other);
    let pools = [supply(0, 1, 9)];
    let schedule = made(&pools, &table, &Budget::default());
    assert_eq!(starts(&schedule, &pools), [2]);
    assert_eq!(
        reason(&schedule, &table, 1),
        Some(WaitReason::RepositoryCap)
    );
    let mut running = waiting(0, 0, NOW - 3);
    running.runner = Some((Evidence::Started, "h-p0-1-0000beef".into()));
    running.started_unix_ms = Some(NOW);
    table.merge(running);
    let schedule = made(&pools, &table, &Budget::default());
    assert_eq!(starts(&schedule, &pools), [1], "the running job counts");
}

#[test]
fn spares_that_nothing_needs_make_room_for_a_waiting_job() {
    let mut table = table(3, OrderRules::default());
    table.merge(waiting(0, 0, NOW));
    let warm = |number, listeners, spares| PoolSupply {
        demand: Demand::Fixed,
        min_idle: 1,
        min_spare: spares,
        runners: listeners + spares,
        listeners,
        spares,
        ..supply(number, 2, 9)
    };
    let pools = [supply(0, 4, 9), warm(1, 1, 1), warm(2, 1, 2)];
    let preempted = |budget| -> Vec<usize> {
        let schedule = made(&pools, &table, &memory(budget));
        let targets = schedule.targets.values();
        targets.map(|target| target.preempted).collect()
    };
    assert_eq!(preempted(14), [0, 0, 0], "there is room");
    assert_eq!(preempted(12), [0, 0, 1]);
    assert_eq!(preempted(10), [0, 1, 1]);
    assert_eq!(preempted(6), [0, 0, 0], "not even all of them are enough");
}

#[test]
fn a_spare_that_ends_already_is_enough_room() {
    let mut table = table(2, OrderRules::default());
    table.merge(waiting(0, 0, NOW));
    let other = PoolSupply {
        demand: Demand::Fixed,
        min_idle: 1,
        runners: 3,
        listeners: 1,
        spares: 1,
        ending: 1,
        ..supply(1, 2, 9)
    };
    let pools = [supply(0, 2, 9), other];
    let schedule = made(&pools, &table, &memory(6));
    assert_eq!(schedule.targets[&pool_name(1)].preempted, 0);
    assert_eq!(
        starts(&schedule, &pools),
        [0, 0],
        "its room is not free yet"
    );
}

#[test]
fn the_room_of_an_idle_minimum_is_kept_free() {
    let mut table = table(2, OrderRules::default());
    for id in 0..9 {
        table.merge(waiting(id, 0, NOW));
    }
    let failing = PoolSupply {
        demand: Demand::Fixed,
        min_idle: 1,
        startable: 0,
        ..supply(1, 4, 9)
    };
    let pools = [supply(0, 2, 9), failing];
    assert_eq!(starts(&made(&pools, &table, &memory(8)), &pools), [2, 0]);
}

// The pools that follow the schedule.

pub(super) fn spec(min_idle: u16, max_runners: u16) -> Spec {
    let minute = Duration::from_mins(1);
    Spec {
        name: pool_name(0),
        scope: Some(scope()),
        slots: max_runners,
        numbers: Numbers {
            min_idle,
            min_spare: 0,
            max_runners,
        },
        generation: "g".into(),
        boots_at_once: 8,
        demand: Demand::Webhook,
        scale_down_after: 2 * minute,
        cost: Some(cost(1)),
        timeouts: Timeouts {
            boot: 60 * minute,
            registration: 60 * minute,
            spare_age: 600 * minute,
            idle_age: 600 * minute,
            job: 600 * minute,
            stop: minute,
        },
    }
}

pub(super) fn pools(spec: Spec) -> Pools {
    let host = "h".parse().unwrap();
    Pools::new(host, "boot".into(), [(scope(), Pace::new(100))], [spec])
}

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

pub(super) fn steps(pools: &mut Pools, table: &JobTable, seconds: u64) -> Vec<Step> {
    let jobs = Jobs {
        table,
        unix_ms: NOW,
    };
    let effects = pools.plan(Some(jobs), Admission::Open, at(seconds));
    let again = pools.plan(Some(jobs), Admission::Open, at(seconds));
    assert_eq!(again, [], "planning settles");
    let mut steps = Vec::new();
    for effect in effects {
        if let Effect::Step(_, step) = effect {
            steps.push(step);
        }
    }
    steps
}

pub(super) fn put(pools: &mut Pools, number: u16, phase: Phase, seconds: u64) -> SlotId {
    let slot = Slot::new(number).unwrap();
    let pool = pools.by_name.get_mut(&pool_name(0)).unwrap();
    let mut runner = Runner::new(slot, phase, at(seconds));
    runner.active = true;
    pool.runners.insert(slot, runner);
    pool.slot_id(slot)
}

#[test]
fn a_pool_at_zero_starts_a_runner_for_a_job_and_returns_to_zero_without_it() {
    let mut table = table(1, OrderRules::default());
    let mut pools = pools(spec(0, 4));
    assert_eq!(steps(&mut pools, &table, 1), []);
    let job = waiting(1, 0, NOW);
    table.merge(job.clone());
    let slot = Slot::new(1).unwrap();
    assert_eq!(steps(&mut pools, &table, 2), [Step::Start { slot }]);
    let _ = pools.start_answered(
        &pools.by_name[&pool_name(0)].slot_id(slot),
        Ok(()),
        at(3),
        0,
    );
    assert_eq!(steps(&mut pools, &table, 3), []);
    // The job is cancelled while the runner boots. For a while the next job would get it.
    table.merge(cancelled(&job));
    assert_eq!(steps(&mut pools, &table, 100), []);
    assert_eq!(pools.next_deadline(at(100)), Some(at(123)));
    let cause = Cause::ScaledDown;
    assert_eq!(
        steps(&mut pools, &table, 123)[0],
        Step::Retire { slot, cause }
    );
}

/// GitHub tells the start of a job seconds before the job-started hook of its runner does.
#[test]
fn a_runner_with_a_job_by_github_alone_does_not_count_for_another_job() {
    let mut table = table(1, OrderRules::default());
    let mut pools = pools(spec(0, 4));
    let slot = put(&mut pools, 1, Phase::Idle, 0);
    let name = RunnerName::new("h".parse().unwrap(), slot.clone(), 0xbeef);
    let runners = &mut pools.by_name.get_mut(&pool_name(0)).unwrap().runners;
    runners.get_mut(&slot.slot).unwrap().registration = Some(Registration {
        scope: Some(scope()),
        id: None,
        name: name.clone(),
    });
    let job = waiting(1, 0, NOW);
    table.merge(job.clone());
    table.merge(waiting(2, 0, NOW));
    let second = Slot::new(2).unwrap();
    assert_eq!(
        steps(&mut pools, &table, 1),
        [Step::Start { slot: second }],
        "one runner listens for two jobs"
    );
    put(&mut pools, 2, Phase::Booting, 1);
    let started = |started_unix_ms| KnownJob {
        runner: Some((Evidence::Started, name.to_string())),
        started_unix_ms: Some(started_unix_ms),
        ..job.clone()
    };
    table.merge(started(NOW));
    assert_eq!(steps(&mut pools, &table, 2), []);
    let listeners = |pools: &Pools| pools.by_name[&pool_name(0)].target().listeners;
    assert_eq!(
        listeners(&pools),
        2,
        "the second job needs the second runner"
    );
    // After minutes without a hook, the runner did not get the job.
    let pools_of = |started_unix_ms| {
        let mut table = table.clone();
        let entry = table.in_group(crate::JobGroup::Running).next().cloned();
        let mut job = entry.unwrap().job;
        job.key.id = 3;
        job.started_unix_ms = Some(started_unix_ms);
        table.merge(cancelled(&started(NOW)));
        table.merge(job);
        table
    };
    let _ = steps(&mut pools, &pools_of(NOW - 5 * MINUTE_MS + 1), 3);
    assert_eq!(listeners(&pools), 2);
    let _ = steps(&mut pools, &pools_of(NOW - 5 * MINUTE_MS), 3);
    assert_eq!(listeners(&pools), 1);
}

#[test]
fn a_container_for_a_waiting_job_makes_no_room_while_a_hook_is_late() {
    let mut jobs = table(2, OrderRules::default());
    jobs.merge(waiting(2, 0, NOW - 1));
    jobs.merge(waiting(3, 1, NOW));
    // The runner that listens has a job already, as GitHub told.
    let of = |told| {
        let first = PoolSupply {
            runners: 2,
            listeners: 1,
            spares: 1,
            startable: 2,
            ..supply(0, 1, 4)
        };
        let pools = [first.with_told(told), supply(1, 1, 4)];
        made(&pools, &jobs, &memory(2)).targets[&pool_name(0)]
    };
    assert_eq!((of(1).preempted, of(1).listeners), (0, 2));
    assert_eq!((of(0).preempted, of(0).listeners), (1, 1));
}

#[test]
fn jobs_that_come_and_go_keep_their_runners() {
    let mut table = table(1, OrderRules::default());
    let mut pools = pools(spec(0, 4));
    put(&mut pools, 1, Phase::Idle, 0);
    for second in 0..20 {
        let job = waiting(second, 0, NOW);
        table.merge(job.clone());
        assert_eq!(steps(&mut pools, &table, second * 100), []);
        table.merge(cancelled(&job));
        assert_eq!(steps(&mut pools, &table, second * 100 + 50), []);
    }
}

#[test]
fn a_new_daemon_keeps_the_runners_that_it_finds_for_a_while() {
    let table = table(1, OrderRules::default());
    let mut pools = pools(spec(0, 4));
    put(&mut pools, 1, Phase::Idle, 0);
    assert_eq!(steps(&mut pools, &table, 1_000), []);
    assert_eq!(steps(&mut pools, &table, 1_119), []);
    assert_eq!(steps(&mut pools, &table, 1_120).len(), 1);
}

#[test]
fn a_busy_runner_counts_for_a_waiting_job_of_its_run_until_a_delivery_names_it() {
    let mut table = table(1, OrderRules::default());
    table.merge(waiting(1, 0, NOW));
    let mut pools = pools(spec(0, 4));
    let slot = put(&mut pools, 1, Phase::Busy, 0);
    let runner = |run: &str| Job {
        note: JobNote {
            run_id: run.into(),
            ..JobNote::default()
        },
        since: at(0),
    };
    let set = |pools: &mut Pools, run: &str| {
        let pool = pools.by_name.get_mut(&slot.pool).unwrap();
        pool.runners.get_mut(&slot.slot).unwrap().job = Some(runner(run));
    };
    set(&mut pools, "101");
    assert_eq!(steps(&mut pools, &table, 10), [], "the job of its run");
    set(&mut pools, "999");
    assert_eq!(
        steps(&mut pools, &table, 11).len(),
        1,
        "its run has no waiting job"
    );
    let pool = pools.by_name.get_mut(&slot.pool).unwrap();
    pool.runners.remove(&Slot::new(2).unwrap());
    set(&mut pools, "101");
    assert_eq!(
        steps(&mut pools, &table, 300).len(),
        1,
        "a delivery that does not come for five minutes is lost"
    );
}

#[test]
fn a_runner_that_ended_counts_for_the_job_that_it_had_until_a_delivery_names_it() {
    let mut table = table(1, OrderRules::default());
    let job = waiting(1, 0, NOW);
    table.merge(job.clone());
    let mut pools = pools(spec(0, 4));
    let slot = put(&mut pools, 1, Phase::Busy, 0);
    let pool = pools.by_name.get_mut(&slot.pool).unwrap();
    pool.runners.get_mut(&slot.slot).unwrap().job = Some(Job {
        note: JobNote {
            run_id: "101".into(),
            ..JobNote::default()
        },
        since: at(0),
    });
    pool.end(slot.slot, None, at(5), 0).unwrap();
    assert_eq!(steps(&mut pools, &table, 10), [], "it had the job");
    // Another job of the run gets a runner.
    let mut second = waiting(2, 0, NOW);
    second.description.1.run_id = 101;
    table.merge(second.clone());
    let start = |number: u16| Step::Start {
        slot: Slot::new(number).unwrap(),
    };
    let started = steps(&mut pools, &table, 11);
    assert_eq!(started.len(), 1, "{started:?}");
    assert!([start(1), start(2)].contains(&started[0]), "{started:?}");
    table.merge(cancelled(&second));
    let pool = pools.by_name.get_mut(&slot.pool).unwrap();
    pool.runners.clear();
    assert_eq!(
        steps(&mut pools, &table, 300).len(),
        1,
        "a delivery that does not come for five minutes is lost"
    );
}

#[test]
fn a_job_that_no_runner_gets_starts_no_more_than_one() {
    let mut table = table(1, OrderRules::default());
    table.merge(waiting(1, 0, NOW));
    let mut pools = pools(spec(0, 4));
    put(&mut pools, 1, Phase::Idle, 0);
    for minute in 0..500 {
        assert_eq!(steps(&mut pools, &table, minute * 60), []);
    }
}
