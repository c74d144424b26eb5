//! Single rules of the plan and of the events, one at a time.

use std::collections::BTreeSet;

use super::world::{Message, World};
use super::*;

/// Returns a settled pool: one idle runner, one spare.
fn settled() -> World {
    let mut world = World::new(spec(1, 1, 3));
    world.run(Admission::Open);
    world.now = world.now + MINUTE;
    world.list();
    world
}

fn spare(world: &World) -> Slot {
    let mut runners = world.pool().runners.values();
    let spare = runners.find(|runner| runner.phase == Phase::Spare);
    spare.unwrap().slot
}

fn phases(world: &World) -> Vec<PhaseKind> {
    let runners = world.pool().runners.values();
    runners.map(|runner| runner.phase.kind()).collect()
}

fn steps(world: &World) -> Vec<Step> {
    plan(world.pool(), Admission::Open, world.now)
}

fn registering(world: &World) -> Vec<Slot> {
    let runners = world.pool().runners.values();
    let registering = runners.filter(|runner| runner.phase == Phase::Registering);
    registering.map(|runner| runner.slot).collect()
}

fn start_job(world: &mut World, slot: Slot) {
    world.deliver(Message::JobStarted(slot));
}

/// Ends the runner in a slot, with every event that follows.
fn exits(world: &mut World, slot: Slot, status: i32) {
    world.machine_ends(slot, status);
    world.deliver_all();
}

fn registrations(world: &World) -> usize {
    let steps = steps(world);
    let is_registration = |step: &&Step| matches!(step, Step::Register { .. });
    steps.iter().filter(is_registration).count()
}

#[test]
fn a_settled_pool_has_what_the_spec_wants() {
    let world = settled();
    assert_eq!(phases(&world), [PhaseKind::Idle, PhaseKind::Spare]);
    assert_eq!(steps(&world), vec![]);
}

#[test]
fn a_job_registers_the_spare_and_boots_its_replacement() {
    let mut world = settled();
    start_job(&mut world, slot(1));
    assert_eq!(
        steps(&world),
        [
            Step::Register { slot: slot(2) },
            Step::Start { slot: slot(3) }
        ]
    );
}

#[test]
fn a_drain_asks_github_before_it_ends_an_idle_runner() {
    let mut world = settled();
    let id = world.pool().runners[&slot(1)].id().unwrap();
    world.github.get_mut(&id).unwrap().1 = true;
    world.settle(Admission::Draining);
    world.deliver_all();
    assert_eq!(
        phases(&world),
        [PhaseKind::Busy],
        "422 makes it busy, and the spare is gone"
    );
    world.settle(Admission::Draining);
    assert!(world.mail.is_empty());
}

#[test]
fn a_failed_mint_keeps_the_spare_and_delays_the_next() {
    let mut world = settled();
    world.broken = true;
    start_job(&mut world, slot(1));
    world.settle(Admission::Open);
    world.deliver_all();
    assert_eq!(world.pool().runners[&slot(2)].phase, Phase::Spare);
    let due = next_deadline(world.pool(), world.now).unwrap();
    assert!(due > world.now && due <= world.now + Duration::from_secs(1));
    let steps = plan(world.pool(), Admission::Open, due);
    assert!(steps.contains(&Step::Register { slot: slot(2) }));
}

#[test]
fn a_list_that_does_not_come_ends_no_runner() {
    let mut world = settled();
    world.now = world.now + 200 * MINUTE;
    assert_eq!(steps(&world), vec![]);
    world.github.clear();
    world.list();
    assert_eq!(steps(&world), vec![], "one list is not enough");
    world.now = world.now + MINUTE;
    world.list();
    let ghost = Step::Retire {
        slot: slot(1),
        cause: Cause::Ghost,
    };
    assert_eq!(
        steps(&world),
        [
            ghost,
            Step::Register { slot: slot(2) },
            Step::Start { slot: slot(3) }
        ]
    );
}

#[test]
fn a_runner_whose_link_lost_its_address_is_replaced_and_a_job_is_not_ended() {
    let mut world = settled();
    let bare: BTreeSet<SlotId> = [1, 2].map(|number| slot_id(slot(number))).into();
    let lost = |number| Step::Retire {
        slot: slot(number),
        cause: Cause::AddressLost,
    };
    world.pools.links_read(&bare);
    assert_eq!(
        steps(&world),
        [],
        "one reading may be older than the address"
    );
    world.pools.links_read(&BTreeSet::new());
    world.pools.links_read(&bare);
    assert_eq!(steps(&world), []);
    world.pools.links_read(&bare);
    assert_eq!(steps(&world)[..2], [lost(1), lost(2)]);
    start_job(&mut world, slot(1));
    let steps = steps(&world);
    assert!(
        steps.contains(&lost(2)) && !steps.contains(&lost(1)),
        "{steps:?}"
    );
    // A container that boots has no address yet.
    world.pool_mut().runners.get_mut(&slot(2)).unwrap().active = false;
    world.pools.links_read(&bare);
    assert!(!world.pool().runners[&slot(2)].has_lost_address());
}

#[test]
fn an_idle_runner_that_two_lists_show_offline_is_unreachable() {
    let mut world = settled();
    let runner = &world.pool().runners[&slot(1)];
    let (id, name) = (runner.id().unwrap(), runner.name().unwrap().to_string());
    let mut unreachable = |online: bool| {
        world.now = world.now + MINUTE;
        let name = name.clone();
        let busy = false;
        let list = [ListedRunner {
            id,
            name,
            online,
            busy,
            version: None,
        }];
        // The runner stays as it is, so nothing is recorded.
        assert_eq!(
            world.pools.listed(&scope(), &list, world.now, world.now),
            vec![]
        );
        world.pool().runners[&slot(1)].is_unreachable()
    };
    let lists = [false, true, false, false, true].map(&mut unreachable);
    assert_eq!(lists, [false, false, false, true, false]);
    assert_eq!(phases(&world), [PhaseKind::Idle, PhaseKind::Spare]);
}

#[test]
fn an_old_image_is_replaced_one_runner_at_a_time_and_never_under_a_job() {
    let mut world = settled();
    start_job(&mut world, slot(1));
    world.pool_mut().spec.generation = "g2".into();
    let steps = steps(&world);
    assert_eq!(
        steps[0],
        Step::Retire {
            slot: slot(2),
            cause: Cause::Rolled
        }
    );
    assert!(steps.iter().all(|step| step.slot() != slot(1)));
}

/// Found after a restart: the daemon did not know which start had ended last in the slot.
#[test]
fn a_late_report_of_an_earlier_runner_does_not_end_the_next() {
    let mut pool = Pool::new(spec(1, 1, 3));
    let now = Timestamp::from_millis(1000);
    pool.begin(&Step::Start { slot: slot(1) }, now);
    pool.start_answered(slot(1), Ok(()), now, 7);
    let end = |at| Some(end_record(invocation(1), 0, at));
    let gone = |end| UnitObservation {
        slot: slot_id(slot(1)),
        state: UnitState::Inactive,
        invocation: None,
        start: None,
        end,
    };
    for old in [None, end(Timestamp::from_millis(999))] {
        assert_eq!(pool.unit_observed(gone(old), now, 7), None);
    }
    let ended = pool.unit_observed(gone(end(now)), now, 7).unwrap();
    assert_eq!(ended.verdict, Verdict::BootFailed);
}

#[test]
fn a_start_that_leaves_no_record_delays_the_next_starts() {
    let mut pool = Pool::new(spec(1, 1, 3));
    let now = Timestamp::from_millis(1000);
    pool.begin(&Step::Start { slot: slot(1) }, now);
    pool.start_answered(slot(1), Ok(()), now, 7);
    let failed = UnitObservation {
        slot: slot_id(slot(1)),
        state: UnitState::Failed,
        invocation: Some(invocation(1)),
        start: None,
        end: None,
    };
    let ended = pool.unit_observed(failed, now, 7).unwrap();
    assert_eq!(ended.verdict, Verdict::Unexplained);
    assert!(!pool.backoffs.is_due(FailureKind::Boot, now));
    // Another slot is tried first.
    assert!(pool.boot_failed_at.contains_key(&slot(1)));
}

/// Otherwise the next daemon finds root's record without a verdict, and judges the start again.
#[test]
fn a_runner_that_was_never_seen_alive_is_judged_by_the_name_of_its_start() {
    let mut pool = Pool::new(spec(1, 1, 3));
    let now = Timestamp::from_millis(1000);
    pool.begin(&Step::Start { slot: slot(1) }, now);
    pool.start_answered(slot(1), Ok(()), now, 7);
    let failed = UnitObservation {
        slot: slot_id(slot(1)),
        state: UnitState::Failed,
        invocation: Some(invocation(1)),
        start: None,
        end: Some(end_record(invocation(1), 81, now)),
    };
    let ended = pool.unit_observed(failed, now, 7).unwrap();
    assert_eq!(ended.runner.invocation, Some(invocation(1)));
}

#[test]
fn each_time_limit_ends_its_phase_and_not_a_moment_earlier() {
    let started_at = Timestamp::from_millis(1_000_000);
    let spec = spec(1, 1, 3);
    let t = &spec.timeouts;
    let table = [
        (Phase::Booting, t.boot, Cause::BootTimeout),
        (Phase::Spare, t.spare_age, Cause::SpareAged),
        (
            Phase::Registering,
            t.registration,
            Cause::RegistrationTimeout,
        ),
        (Phase::Idle, t.idle_age, Cause::IdleAged),
        (Phase::Busy, t.job, Cause::JobTimeout),
    ];
    for (phase, limit, cause) in table {
        let mut pool = Pool::new(spec.clone());
        let mut runner = Runner::new(slot(1), phase.clone(), started_at);
        // GitHub's report on a runner that registers. It counts from the limit on.
        runner.offline_at = Some(started_at + limit);
        pool.runners.insert(slot(1), runner);
        // The limits hold although admission is closed.
        if phase != Phase::Registering {
            let before = Timestamp::from_millis((started_at + limit).millis() - 1);
            assert_eq!(plan(&pool, Admission::Closed, before), [], "{phase:?}");
            assert_eq!(
                next_deadline(&pool, before),
                Some(started_at + limit),
                "{phase:?}"
            );
        }
        let retire = Step::Retire {
            slot: slot(1),
            cause,
        };
        assert_eq!(
            plan(&pool, Admission::Closed, started_at + limit),
            [retire],
            "{phase:?}"
        );
    }
}

#[test]
fn a_stop_that_takes_too_long_becomes_a_kill() {
    let started_at = Timestamp::from_millis(1_000_000);
    let mut pool = Pool::new(spec(1, 1, 3));
    let stop = pool.spec.timeouts.stop;
    let mut runner = Runner::new(slot(1), Phase::Busy, started_at);
    runner.job = Some(Job {
        note: JobNote::default(),
        since: started_at,
    });
    pool.runners.insert(slot(1), runner);
    let end = |how| [Step::End { slot: slot(1), how }];
    let late = started_at + pool.spec.timeouts.job;
    for step in plan(&pool, Admission::Open, late) {
        pool.begin(&step, late);
    }
    let requested = plan(&pool, Admission::Closed, late);
    assert_eq!(requested, end(Ending::Stop));
    pool.begin(&requested[0], late);
    pool.end_answered(slot(1), Ok(()), late, 0);
    let before = Timestamp::from_millis((late + stop).millis() - 1);
    assert_eq!(plan(&pool, Admission::Closed, before), []);
    assert_eq!(
        plan(&pool, Admission::Closed, late + stop),
        end(Ending::Kill)
    );
}

#[test]
fn an_observation_from_before_an_end_is_not_a_new_runner() {
    let mut world = settled();
    let old = world.observe(slot(1));
    exits(&mut world, slot(1), 0);
    assert!(!world.pool().runners.contains_key(&slot(1)));
    let now = world.now;
    world.pool_mut().unit_observed(old, now, 0);
    assert!(!world.pool().runners.contains_key(&slot(1)));
}

#[test]
fn after_a_refused_version_one_runner_at_a_time_tries_again() {
    let mut world = World::new(spec(2, 2, 4));
    world.run(Admission::Open);
    exits(&mut world, slot(1), 7);
    exits(&mut world, slot(2), 7);
    assert_eq!(registrations(&world), 0, "GitHub accepts no new runner");
    world.now = world.now + 2 * Duration::from_secs(1);
    assert_eq!(registrations(&world), 1, "two are wanted, and one tries");
    world.settle(Admission::Open);
    world.deliver_all();
    assert_eq!(registrations(&world), 0, "the result is awaited");
    world.now = world.now + MINUTE;
    world.list();
    world.now = world.now + 3 * MINUTE;
    world.list();
    let refused = |world: &World| {
        let mut backoffs = world.pool().backoffs.iter();
        backoffs.any(|(failure, _)| failure == FailureKind::Version)
    };
    assert!(!refused(&world), "it listens");
    assert_eq!(registrations(&world), 1);
}

#[test]
fn a_refused_version_is_tried_again_within_five_minutes_for_ever() {
    let mut world = World::new(spec(1, 1, 3));
    world.run(Admission::Open);
    for round in 0..40 {
        let trying = registering(&world);
        assert_eq!(trying.len(), 1, "one runner tries in round {round}");
        exits(&mut world, trying[0], 7);
        world.now = world.now + 5 * MINUTE;
        world.run(Admission::Open);
    }
}

#[test]
fn a_job_shows_that_github_accepts_the_version() {
    let mut world = World::new(spec(1, 1, 3));
    world.run(Admission::Open);
    exits(&mut world, slot(1), 7);
    world.now = world.now + 5 * MINUTE;
    world.run(Admission::Open);
    let trying = registering(&world)[0];
    start_job(&mut world, trying);
    // The job's processes choose this status.
    exits(&mut world, trying, 7);
    let failures: Vec<FailureKind> = world.pool().backoffs.iter().map(|(kind, _)| kind).collect();
    assert_eq!(failures, []);
}

#[test]
fn runners_that_listened_for_a_while_and_expire_do_not_delay_each_other() {
    let mut world = settled();
    for _ in 0..8 {
        world.now = world.now + MINUTE;
        world.list();
        world.now = world.now + 30 * MINUTE;
        let mut runners = world.pool().runners.values();
        let idle = runners.find(|runner| runner.phase == Phase::Idle);
        let idle = idle.unwrap().slot;
        exits(&mut world, idle, 0);
        let backoffs = world.pool().backoffs.iter();
        let failures: Vec<u32> = backoffs.map(|(_, b)| b.failures).collect();
        assert_eq!(failures, [1], "each is the first");
        world.now = world.now + MINUTE;
        world.run(Admission::Open);
    }
}

#[test]
fn an_observation_that_may_be_older_than_a_start_says_nothing_about_it() {
    let mut world = settled();
    let began = world.now;
    exits(&mut world, slot(1), 0);
    let pool = world.pool_mut();
    pool.begin(&Step::Start { slot: slot(1) }, began);
    assert!(pool.has_newer_observation(slot(1), began));
    // The call is still under way: systemd may not have heard of it when it is observed.
    let requested = began + MINUTE;
    let answered = requested + MINUTE;
    assert!(!pool.has_newer_observation(slot(1), requested));
    assert_eq!(pool.unit_missing(slot(1), None, requested, 0), None);
    pool.start_answered(slot(1), Ok(()), answered, 0);
    assert!(pool.has_newer_observation(slot(1), requested));
    // A later observation knows that there is neither a unit nor a job for it.
    assert!(!pool.has_newer_observation(slot(1), answered + MINUTE));
    let ended = pool.unit_missing(slot(1), None, answered + MINUTE, 0);
    assert_eq!(ended.unwrap().verdict, Verdict::Unexplained);
}

#[test]
fn a_unit_that_the_daemon_did_not_start_may_have_a_job_and_has_no_boot_timeout() {
    let mut world = settled();
    let observation = world.observe(slot(1));
    let now = world.now;
    let pool = world.pool_mut();
    pool.runners.remove(&slot(1));
    pool.unit_observed(observation, now, 0);
    let late = now + 2 * pool.spec.timeouts.boot;
    assert_eq!(pool.runners[&slot(1)].phase, Phase::Registering);
    let is_about = |step: &Step| step.slot() == slot(1);
    assert!(!plan(pool, Admission::Open, late).iter().any(is_about));
    // GitHub is asked before it ends.
    let drained = Step::Retire {
        slot: slot(1),
        cause: Cause::Drained,
    };
    assert!(plan(pool, Admission::Draining, late).contains(&drained));
    pool.begin(&drained, late);
    let is_end = |step: &Step| is_about(step) && matches!(step, Step::End { .. });
    assert!(!plan(pool, Admission::Draining, late).iter().any(is_end));
}

#[test]
fn no_container_starts_in_a_slot_while_its_mint_is_in_flight() {
    let mut world = settled();
    let spare = spare(&world);
    let mut slots = world.pool().runners.keys().copied();
    let other = slots.find(|slot| *slot != spare).unwrap();
    drop(slots);
    exits(&mut world, other, 0);
    let now = world.now + MINUTE;
    let name = RunnerName::new(host(), slot_id(spare), 9);
    world.pool_mut().begin(&Step::Register { slot: spare }, now);
    world.pool_mut().name_mint(spare, name.clone());
    // The container ends before the answer comes.
    let ended = end_record(world.machines[&spare].invocation.clone(), 1, now);
    let pool = world.pool_mut();
    pool.unit_missing(spare, None, now, 0);
    pool.runners.remove(&spare);
    pool.last_ended.insert(spare, ended.invocation);
    pool.backoffs.reset();
    let starts =
        |pool: &Pool| plan(pool, Admission::Open, now).contains(&Step::Start { slot: spare });
    assert!(!starts(pool));
    let id = RunnerId(77);
    let orphan = pool.mint_answered(spare, &name, MintOutcome::Delivered { id }, now, 0);
    assert_eq!(orphan, Some(id));
    assert!(starts(pool));
}

#[test]
fn a_runner_that_registers_is_not_one_too_many() {
    let now = Timestamp::from_millis(1000);
    let mut pool = Pool::new(spec(1, 0, 3));
    for number in 1..=3 {
        let unit = UnitObservation {
            slot: slot_id(slot(number)),
            // The youngest is the only one that has booted.
            state: if number == 3 {
                UnitState::Active
            } else {
                UnitState::Activating
            },
            invocation: Some(invocation(u64::from(number))),
            start: None,
            end: None,
        };
        pool.adopt(
            unit,
            None,
            if number == 3 {
                ConfigState::Requested
            } else {
                ConfigState::Unknown
            },
            now + Duration::from_secs(number.into()),
        );
    }
    let steps = plan(&pool, Admission::Open, now + MINUTE);
    let about: Vec<u16> = steps.iter().map(|step| step.slot().number()).collect();
    assert_eq!(steps[0], Step::Register { slot: slot(3) });
    assert_eq!(about, [3, 2, 1], "{steps:?}");
}

#[test]
fn a_slot_stays_vacant_until_every_call_about_it_is_answered() {
    let now = Timestamp::from_millis(1000);
    let mut pool = Pool::new(spec(1, 0, 1));
    pool.begin(&Step::Start { slot: slot(1) }, now);
    // Its end is known before the answer to its start.
    let mut unit = UnitObservation {
        slot: slot_id(slot(1)),
        state: UnitState::Active,
        invocation: Some(invocation(1)),
        start: None,
        end: None,
    };
    pool.unit_observed(unit.clone(), now, 0);
    unit.state = UnitState::Failed;
    assert!(pool.unit_observed(unit, now, 0).is_some());
    pool.backoffs.reset();
    assert_eq!(plan(&pool, Admission::Open, now), []);
    pool.start_answered(slot(1), Ok(()), now, 0);
    let start = Step::Start { slot: slot(1) };
    assert_eq!(plan(&pool, Admission::Open, now), [start]);
}

#[test]
fn a_spare_whose_request_dropped_before_its_mint_failed_is_retired() {
    let mut world = settled();
    let spare = spare(&world);
    let now = world.now;
    let name = RunnerName::new(host(), slot_id(spare), 9);
    let pool = world.pool_mut();
    pool.begin(&Step::Register { slot: spare }, now);
    pool.name_mint(spare, name.clone());
    pool.request_dropped(spare, now);
    let failed = MintOutcome::Failed {
        failure: FailureKind::Mint,
        reason: "502".into(),
        retry_after: None,
        is_ambiguous: false,
    };
    pool.mint_answered(spare, &name, failed, now, 0);
    assert_eq!(pool.runners[&spare].phase.cause(), Some(Cause::SpareLost));
}

#[test]
fn a_request_stands_although_its_runner_was_forgotten() {
    let mut world = settled();
    let spare = spare(&world);
    let observation = world.observe(spare);
    let now = world.now;
    let pool = world.pool_mut();
    pool.runners.remove(&spare);
    pool.unit_observed(observation, now, 0);
    assert_eq!(pool.runners[&spare].phase, Phase::Spare);
}

#[test]
fn a_unit_that_was_started_again_ends_the_runner_before() {
    let mut world = settled();
    let mut observation = world.observe(slot(1));
    observation.invocation = Some(invocation(u64::MAX));
    let now = world.now;
    let pool = world.pool_mut();
    let ended = pool.unit_observed(observation.clone(), now, 0).unwrap();
    assert_eq!(ended.verdict, Verdict::Unexplained);
    assert!(ended.orphan.is_some(), "its registration is left");
    assert_eq!(pool.runners[&slot(1)].invocation, observation.invocation);
}

#[test]
fn a_late_answer_about_an_earlier_runner_is_not_about_the_next() {
    let now = Timestamp::from_millis(1000);
    let mut pool = Pool::new(spec(1, 1, 3));
    pool.begin(&Step::Start { slot: slot(1) }, now);
    for result in [Ok(()), Err("no answer in time".to_owned())] {
        pool.end_answered(slot(1), result, now, 0);
        let pending = pool.runners[&slot(1)].pending;
        assert_eq!(pending, Some(Call::Start), "its start is under way");
        assert_eq!(pool.unit_missing(slot(1), None, now, 0), None);
    }
    let cause = Cause::Removed;
    pool.begin(
        &Step::Retire {
            slot: slot(1),
            cause,
        },
        now,
    );
    pool.end_answered(slot(1), Ok(()), now, 0);
    assert_eq!(pool.runners[&slot(1)].pending, Some(Call::Start));
}
