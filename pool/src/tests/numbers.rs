//! A pool whose numbers change while it runs, as a schedule of the configuration changes them.

use super::world::World;
use super::*;

const OFF: Numbers = Numbers {
    min_idle: 0,
    min_spare: 0,
    max_runners: 0,
};

fn count(world: &World, kinds: &[PhaseKind]) -> usize {
    world.pool().count(|phase| kinds.contains(&phase.kind()))
}

fn warm(world: &World) -> usize {
    count(world, &[PhaseKind::Idle, PhaseKind::Spare])
}

/// Returns a world with these numbers and six slots, once its runners are ready.
fn world(min_idle: u16, min_spare: u16) -> World {
    let mut world = World::new(spec(min_idle, min_spare, 6));
    run(&mut world);
    world
}

fn run(world: &mut World) {
    for _ in 0..4 {
        world.run(Admission::Open);
        world.now = world.now + MINUTE;
        world.list();
    }
}

#[test]
fn a_pool_that_is_off_for_hours_ends_its_runners_and_no_job() {
    let mut world = world(2, 1);
    world.job_starts(0);
    run(&mut world);
    assert_eq!((warm(&world), count(&world, &[PhaseKind::Busy])), (3, 1));
    world.pool_mut().spec.numbers = OFF;
    run(&mut world);
    assert_eq!((warm(&world), count(&world, &[PhaseKind::Busy])), (0, 1));
    world.pool_mut().spec.numbers = spec(2, 1, 6).numbers;
    run(&mut world);
    assert_eq!((warm(&world), count(&world, &[PhaseKind::Busy])), (3, 1));
}

#[test]
fn jobs_count_towards_a_maximum_that_became_lower() {
    let mut world = world(2, 2);
    world.job_starts(0);
    run(&mut world);
    assert_eq!(world.pool().runners.len(), 5);
    world.pool_mut().spec.numbers = Numbers {
        min_idle: 2,
        min_spare: 0,
        max_runners: 2,
    };
    run(&mut world);
    assert_eq!(world.pool().runners.len(), 2);
    assert_eq!(count(&world, &[PhaseKind::Idle]), 1);
    assert_eq!(count(&world, &[PhaseKind::Busy]), 1);
}
