//! One rule at a time.

use super::*;

/// A pool at rest: one idle, one spare.
fn rested() -> World {
    let mut world = World::new(spec(1, 1, 3));
    for _ in 0..6 {
        world.settle(Admission::Open);
        while let Some(message) = world.mail.pop_front() {
            world.deliver(message);
        }
    }
    world.now = world.now + MINUTE;
    world.list();
    world
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn spare(world: &World) -> Slot {
    let mut runners = world.pool.runners.values();
    runners
        .find(|runner| runner.phase == Phase::Spare)
        .unwrap()
        .slot
}

fn phases(world: &World) -> Vec<PhaseKind> {
    world
        .pool
        .runners
        .values()
        .map(|runner| runner.phase.kind())
        .collect()
}

#[test]
fn a_pool_at_rest_has_what_was_asked_for() {
    let world = rested();
    assert_eq!(phases(&world), [PhaseKind::Idle, PhaseKind::Spare]);
    assert_eq!(plan(&world.pool, Admission::Open, world.now), vec![]);
}

#[test]
fn a_busy_runner_promotes_the_spare_and_boots_its_replacement() {
    let mut world = rested();
    world
        .pool
        .job_started(slot(1), JobNote::default(), world.now);
    let steps = plan(&world.pool, Admission::Open, world.now);
    assert_eq!(
        steps,
        [
            Step::Register { slot: slot(2) },
            Step::Start { slot: slot(3) }
        ]
    );
}

#[test]
fn a_drain_asks_github_before_it_ends_an_idle_runner() {
    let mut world = rested();
    let id = world.pool.runners[&slot(1)]
        .registration
        .as_ref()
        .unwrap()
        .id
        .unwrap();
    world.github.get_mut(&id).unwrap().1 = true;
    world.settle(Admission::Draining);
    while let Some(message) = world.mail.pop_front() {
        world.deliver(message);
    }
    assert_eq!(
        phases(&world),
        [PhaseKind::Busy],
        "422 makes it busy, and the spare is gone"
    );
    world.settle(Admission::Draining);
    assert!(world.mail.is_empty());
}

#[test]
fn a_failed_mint_leaves_the_spare_and_waits() {
    let mut world = rested();
    world.broken = true;
    world
        .pool
        .job_started(slot(1), JobNote::default(), world.now);
    world.settle(Admission::Open);
    while let Some(message) = world.mail.pop_front() {
        world.deliver(message);
    }
    assert_eq!(world.pool.runners[&slot(2)].phase, Phase::Spare);
    let due = next_deadline(&world.pool, world.now).unwrap();
    assert!(due > world.now && due <= world.now + Duration::from_secs(1));
    assert!(plan(&world.pool, Admission::Open, due).contains(&Step::Register { slot: slot(2) }));
}

#[test]
fn a_list_that_does_not_come_destroys_nothing() {
    let mut world = rested();
    world.now = world.now + 200 * MINUTE;
    assert_eq!(plan(&world.pool, Admission::Open, world.now), vec![]);
    world.github.clear();
    world.list();
    assert_eq!(
        plan(&world.pool, Admission::Open, world.now),
        vec![],
        "one list is not enough"
    );
    world.now = world.now + MINUTE;
    world.list();
    let ghost = Step::Retire {
        slot: slot(1),
        cause: Cause::Ghost,
    };
    assert_eq!(
        plan(&world.pool, Admission::Open, world.now),
        [
            ghost,
            Step::Register { slot: slot(2) },
            Step::Start { slot: slot(3) }
        ]
    );
}

#[test]
fn an_old_image_is_replaced_one_at_a_time_and_never_under_a_job() {
    let mut world = rested();
    world
        .pool
        .job_started(slot(1), JobNote::default(), world.now);
    world.pool.spec.generation = "g2".into();
    let steps = plan(&world.pool, Admission::Open, world.now);
    assert_eq!(
        steps[0],
        Step::Retire {
            slot: slot(2),
            cause: Cause::Rolled
        }
    );
    assert!(steps.iter().all(|step| step.slot() != slot(1)));
}

/// Seen after a restart: the daemon did not know which life had ended last in the slot.
#[test]
fn a_late_word_of_an_earlier_life_does_not_end_the_next() {
    let mut world = World::new(spec(1, 1, 3));
    let first = Step::Start { slot: slot(1) };
    world.pool.begin(&first, world.now);
    world.pool.started(slot(1), Ok(()), world.now, 7);
    let end = |at| EndRecord {
        invocation: Invocation::parse(&"a".repeat(32)).unwrap(),
        service_result: "success".into(),
        exit: Exit::Status(0),
        memory_peak_bytes: None,
        oom_kills: 0,
        at,
    };
    let before = Timestamp::from_millis(world.now.millis() - 1);
    for old in [None, Some(end(before))] {
        let observation = world.observation(slot(1), UnitState::Inactive, old);
        assert_eq!(world.pool.unit(observation, world.now, 7), None);
    }
    let own = world.observation(slot(1), UnitState::Inactive, Some(end(world.now)));
    let closed = world.pool.unit(own, world.now, 7).unwrap();
    assert_eq!(closed.verdict, Verdict::BootFailed);
}

#[test]
fn each_end_has_its_verdict() {
    let end = |exit: Exit, oom_kills: u64, result: &str| EndRecord {
        invocation: Invocation::parse(&"a".repeat(32)).unwrap(),
        service_result: result.into(),
        exit,
        memory_peak_bytes: None,
        oom_kills,
        at: Timestamp::default(),
    };
    let job = Some(Job {
        note: JobNote::default(),
        since: Timestamp::default(),
    });
    let table = [
        (Phase::Busy, true, Exit::Status(0), 0, Verdict::JobDone),
        (Phase::Busy, true, Exit::Status(102), 0, Verdict::JobDone),
        (Phase::Busy, true, Exit::Status(2), 0, Verdict::Crashed),
        (
            Phase::Busy,
            true,
            Exit::Signal("KILL".into()),
            0,
            Verdict::Crashed,
        ),
        (Phase::Busy, true, Exit::Status(0), 1, Verdict::Oom),
        (Phase::Idle, false, Exit::Status(0), 0, Verdict::IdleExpired),
        (
            Phase::Registering,
            false,
            Exit::Status(7),
            0,
            Verdict::VersionRefused,
        ),
        (
            Phase::Registering,
            false,
            Exit::Status(243),
            0,
            Verdict::Crashed,
        ),
        (
            Phase::Booting,
            false,
            Exit::Status(81),
            0,
            Verdict::BootFailed,
        ),
        (Phase::Spare, false, Exit::Status(0), 0, Verdict::SpareLost),
        (
            Phase::Retiring {
                cause: Cause::JobTimeout,
                deregister_first: false,
                end_asked: None,
            },
            true,
            Exit::Status(0),
            0,
            Verdict::JobTimeout,
        ),
    ];
    for (phase, has_job, exit, oom, verdict) in table {
        let mut runner = Runner::new(slot(1), phase.clone(), Timestamp::default());
        runner.job = job.clone().filter(|_| has_job);
        assert_eq!(
            runner.judge(Some(&end(exit, oom, "exit-code"))),
            verdict,
            "{phase:?}"
        );
    }
    let runner = Runner::new(slot(1), Phase::Busy, Timestamp::default());
    assert_eq!(runner.judge(None), Verdict::Unexplained);
}

#[test]
fn each_bound_ends_its_phase_and_not_a_moment_earlier() {
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
    for (phase, bound, cause) in table {
        let mut pool = Pool::new(spec.clone());
        let mut runner = Runner::new(slot(1), phase.clone(), started_at);
        // GitHub's word on a runner that registers; it counts from the bound on.
        runner.offline_seen = Some(started_at + bound);
        pool.runners.insert(slot(1), runner);
        // Admission may be closed: bounds hold all the same.
        if phase != Phase::Registering {
            let before = Timestamp::from_millis((started_at + bound).millis() - 1);
            assert_eq!(plan(&pool, Admission::Closed, before), [], "{phase:?}");
            assert_eq!(
                next_deadline(&pool, before),
                Some(started_at + bound),
                "{phase:?}"
            );
        }
        let retire = Step::Retire {
            slot: slot(1),
            cause,
        };
        assert_eq!(
            plan(&pool, Admission::Closed, started_at + bound),
            [retire],
            "{phase:?}"
        );
    }
}

#[test]
fn a_stop_that_takes_too_long_is_a_kill() {
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
    let asked = plan(&pool, Admission::Closed, late);
    assert_eq!(asked, end(Ending::Stop));
    pool.begin(&asked[0], late);
    pool.end_asked(slot(1), Ok(()), late, 0);
    let before = Timestamp::from_millis((late + stop).millis() - 1);
    assert_eq!(plan(&pool, Admission::Closed, before), []);
    assert_eq!(
        plan(&pool, Admission::Closed, late + stop),
        end(Ending::Kill)
    );
}

#[test]
fn a_look_from_before_an_end_is_no_new_life() {
    let mut world = rested();
    let ended = world.observation(slot(1), UnitState::Active, None);
    exits(&mut world, slot(1), 0);
    assert!(!world.pool.runners.contains_key(&slot(1)));
    world.pool.unit(ended, world.now, 0);
    assert!(!world.pool.runners.contains_key(&slot(1)));
}

/// The runner in `slot` exits, and everything that follows is told.
fn exits(world: &mut World, slot: Slot, status: i32) {
    world.machine_ends(slot, status);
    while let Some(message) = world.mail.pop_front() {
        world.deliver(message);
    }
}

fn registers(world: &World) -> usize {
    let steps = plan(&world.pool, Admission::Open, world.now);
    let registers = |step: &&Step| matches!(step, Step::Register { .. });
    steps.iter().filter(registers).count()
}

#[test]
fn after_a_refused_version_one_runner_at_a_time_tries_again() {
    let mut world = World::new(spec(2, 2, 4));
    for _ in 0..4 {
        world.settle(Admission::Open);
        while let Some(message) = world.mail.pop_front() {
            world.deliver(message);
        }
    }
    exits(&mut world, slot(1), 7);
    exits(&mut world, slot(2), 7);
    assert_eq!(registers(&world), 0, "nothing new would be accepted");
    world.now = world.now + 9 * MINUTE;
    assert_eq!(registers(&world), 0);
    world.now = world.now + 21 * MINUTE;
    assert_eq!(registers(&world), 1, "two are wanted, and one tries");
    world.settle(Admission::Open);
    while let Some(message) = world.mail.pop_front() {
        world.deliver(message);
    }
    assert_eq!(registers(&world), 0, "its answer is awaited");
    world.now = world.now + MINUTE;
    world.list();
    world.now = world.now + 3 * MINUTE;
    world.list();
    assert_eq!(world.pool.backoffs.iter().count(), 0, "it listens");
    assert_eq!(registers(&world), 1);
}

#[test]
fn runners_that_listened_for_a_while_and_lapse_do_not_slow_each_other() {
    let mut world = rested();
    for _ in 0..8 {
        world.now = world.now + MINUTE;
        world.list();
        world.now = world.now + 30 * MINUTE;
        let runners = world.pool.runners.values();
        let idle: Vec<Slot> = runners
            .filter(|runner| runner.phase == Phase::Idle)
            .map(|runner| runner.slot)
            .collect();
        exits(&mut world, idle[0], 0);
        let failures: Vec<u32> = world
            .pool
            .backoffs
            .iter()
            .map(|(_, b)| b.failures)
            .collect();
        assert_eq!(failures, [1], "each is the first");
        world.now = world.now + MINUTE;
        for _ in 0..4 {
            world.settle(Admission::Open);
            while let Some(message) = world.mail.pop_front() {
                world.deliver(message);
            }
        }
    }
}

#[test]
fn a_look_that_may_be_older_than_a_start_says_nothing_of_it() {
    let mut world = rested();
    let began = world.now;
    exits(&mut world, slot(1), 0);
    world.pool.begin(&Step::Start { slot: slot(1) }, began);
    assert!(world.pool.knows_better(slot(1), began));
    // The call is still under way: systemd may be asked before it has heard of it.
    let asked = began + MINUTE;
    let answered = asked + MINUTE;
    assert!(!world.pool.knows_better(slot(1), asked));
    assert_eq!(world.pool.absent(slot(1), None, asked, 0), None);
    world.pool.started(slot(1), Ok(()), answered, 0);
    assert!(world.pool.knows_better(slot(1), asked));
    // A later one knows: there is neither a unit nor a job for it.
    assert!(!world.pool.knows_better(slot(1), answered + MINUTE));
    let closed = world.pool.absent(slot(1), None, answered + MINUTE, 0);
    assert_eq!(closed.unwrap().verdict, Verdict::Unexplained);
}

#[test]
fn a_unit_that_nobody_started_may_have_a_job_and_is_not_timed_as_a_boot() {
    let mut world = rested();
    let observation = world.observation(slot(1), UnitState::Active, None);
    world.pool.runners.remove(&slot(1));
    world.pool.unit(observation, world.now, 0);
    let late = world.now + 2 * world.pool.spec.timeouts.boot;
    let runner = &world.pool.runners[&slot(1)];
    assert_eq!(runner.phase, Phase::Registering);
    let about = |step: &Step| step.slot() == slot(1);
    assert!(!plan(&world.pool, Admission::Open, late).iter().any(about));
    // Whatever ends it asks GitHub first.
    let drained = Step::Retire {
        slot: slot(1),
        cause: Cause::Drained,
    };
    assert!(plan(&world.pool, Admission::Draining, late).contains(&drained));
    world.pool.begin(&drained, late);
    let ends = |step: &Step| about(step) && matches!(step, Step::End { .. });
    assert!(
        !plan(&world.pool, Admission::Draining, late)
            .iter()
            .any(ends)
    );
}

#[test]
fn nobody_is_started_where_a_config_is_on_its_way() {
    let mut world = rested();
    let spare = spare(&world);
    let other = world
        .pool
        .runners
        .keys()
        .copied()
        .find(|slot| *slot != spare);
    exits(&mut world, other.unwrap(), 0);
    let now = world.now + MINUTE;
    let name = RunnerName::parse(&"h".parse().unwrap(), &format!("h-ci-{spare}-00000009")).unwrap();
    world.pool.begin(&Step::Register { slot: spare }, now);
    world.pool.minting(spare, name.clone());
    // It dies before the answer comes.
    exits(&mut world, spare, 1);
    world.pool.backoffs.reset();
    let started =
        |pool: &Pool| plan(pool, Admission::Open, now).contains(&Step::Start { slot: spare });
    assert!(!started(&world.pool));
    let id = RunnerId(77);
    let orphan = world
        .pool
        .minted(spare, &name, MintOutcome::Delivered { id }, now, 0);
    assert_eq!(orphan, Some((id, name)));
    let begun: Vec<Step> = plan(&world.pool, Admission::Open, now);
    assert!(begun.contains(&Step::Start { slot: spare }), "{begun:?}");
}

#[test]
fn a_spare_that_hung_up_before_its_mint_failed_is_no_spare() {
    let mut world = rested();
    let spare = spare(&world);
    let name = RunnerName::parse(&"h".parse().unwrap(), &format!("h-ci-{spare}-00000009")).unwrap();
    world.pool.begin(&Step::Register { slot: spare }, world.now);
    world.pool.minting(spare, name.clone());
    world.pool.hung_up(spare, world.now);
    let failed = MintOutcome::Failed {
        failure: FailureKind::Mint,
        reason: "502".into(),
        retry_after: None,
    };
    world.pool.minted(spare, &name, failed, world.now, 0);
    let phase = &world.pool.runners[&spare].phase;
    let cause = Cause::SpareLost;
    assert!(
        matches!(phase, Phase::Retiring { cause: why, .. } if *why == cause),
        "{phase:?}"
    );
}

#[test]
fn a_question_outlives_what_is_known_of_who_asks() {
    let mut world = rested();
    let spare = spare(&world);
    let observation = world.observation(spare, UnitState::Active, None);
    world.pool.runners.remove(&spare);
    world.pool.unit(observation, world.now, 0);
    assert_eq!(world.pool.runners[&spare].phase, Phase::Spare);
}

#[test]
fn a_unit_that_somebody_started_again_ends_the_life_before() {
    let mut world = rested();
    let mut observation = world.observation(slot(1), UnitState::Active, None);
    observation.invocation = Invocation::parse(&"f".repeat(32));
    let closed = world.pool.unit(observation.clone(), world.now, 0).unwrap();
    assert_eq!(closed.verdict, Verdict::Unexplained);
    assert!(closed.orphan.is_some(), "its registration is forgotten");
    assert_eq!(
        world.pool.runners[&slot(1)].invocation,
        observation.invocation
    );
}
