//! Random histories: whatever happens, and whenever the daemon restarts, the pool settles.

use std::time::Duration;

use proptest::prelude::*;

use super::world::{Stop, World};
use super::*;

/// One thing that happens in a history.
#[derive(Debug, Clone)]
enum Act {
    Deliver(usize),
    Plan,
    Drain,
    Clear,
    Boot(usize),
    JobStarts(usize),
    Ends(usize, i32),
    Passes(Duration),
    List,
    Reconcile,
    Write(usize),
    Break(bool),
    Restart(Stop, bool),
}

impl World {
    fn act(&mut self, act: Act) {
        match act {
            Act::Deliver(n) => {
                if !self.mail.is_empty() {
                    self.deliver_at(n % self.mail.len());
                }
            }
            Act::Plan => self.settle(Admission::Open),
            Act::Drain => self.settle(Admission::Draining),
            Act::Clear => self.settle(Admission::Clearing),
            Act::Boot(n) => {
                if let Some(slot) = self.nth_machine(n) {
                    self.boot(slot);
                }
            }
            Act::JobStarts(n) => self.job_starts(n),
            Act::Ends(n, status) => {
                if let Some(slot) = self.nth_machine(n) {
                    self.machine_ends(slot, status);
                }
            }
            Act::Passes(duration) => self.now = self.now + duration,
            Act::List => self.list(),
            Act::Reconcile => self.reconcile(),
            Act::Write(count) => self.write(count),
            Act::Break(broken) => self.broken = broken,
            Act::Restart(stop, is_disk_readable) => self.restart(stop, is_disk_readable),
        }
    }

    fn nth_machine(&self, n: usize) -> Option<Slot> {
        let slots: Vec<Slot> = self.machines.keys().copied().collect();
        slots.get(n % slots.len().max(1)).copied()
    }

    /// Lets faults stop, jobs end and messages arrive until the pool must have settled.
    fn calm(&mut self, minutes: u32) {
        self.broken = false;
        for _ in 0..minutes {
            let machines = self.machines.iter();
            let busy: Vec<Slot> = machines.filter(|(_, m)| m.job).map(|(s, _)| *s).collect();
            for slot in busy {
                self.machine_ends(slot, 0);
            }
            self.deliver_all();
            self.now = self.now + MINUTE;
            self.reconcile();
            self.deliver_all();
            self.list();
            self.run(Admission::Open);
            self.write_all();
        }
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    let status = prop_oneof![Just(0), Just(1), Just(7), Just(102), Just(243)];
    prop_oneof![
        12 => any::<usize>().prop_map(Act::Deliver),
        8 => Just(Act::Plan),
        1 => Just(Act::Drain),
        1 => Just(Act::Clear),
        8 => any::<usize>().prop_map(Act::Boot),
        4 => any::<usize>().prop_map(Act::JobStarts),
        3 => (any::<usize>(), status).prop_map(|(n, status)| Act::Ends(n, status)),
        3 => (1u64..4_000).prop_map(|s| Act::Passes(Duration::from_secs(s))),
        2 => Just(Act::List),
        1 => Just(Act::Reconcile),
        2 => (0usize..4).prop_map(Act::Write),
        1 => any::<bool>().prop_map(Act::Break),
    ]
}

fn any_restart() -> impl Strategy<Value = Act> {
    let stop = prop_oneof![
        2 => Just(Stop::Orderly),
        6 => any::<usize>().prop_map(|choice| Stop::Killed { choice }),
        1 => any::<usize>().prop_map(|choice| Stop::Reboot { choice }),
    ];
    (stop, prop::bool::weighted(0.9)).prop_map(|(stop, readable)| Act::Restart(stop, readable))
}

/// Checks that the pool is what the spec wants, and that GitHub and the disk agree.
fn check_settled(world: &World) {
    let (pool, spec) = (world.pool(), &world.pool().spec);
    let listening =
        pool.count(|phase| matches!(phase, Phase::Registering | Phase::Idle | Phase::Minting));
    let spare = pool.count(|phase| matches!(phase, Phase::Spare | Phase::Booting));
    assert_eq!(
        (listening, spare),
        (
            usize::from(spec.numbers.min_idle),
            usize::from(spec.numbers.min_spare)
        ),
        "{pool:#?}"
    );
    let orphans = world.pools.scope(&scope()).unwrap().orphans();
    assert!(orphans.is_empty(), "{orphans:?}");
    assert_eq!(world.github.len(), listening, "{:?}", world.github);
    assert_eq!(world.machines.len(), pool.runners.len());
    world.check_verdicts();
}

proptest! {
    /// After any history, once faults stop, the pool becomes what the spec wants, GitHub has no
    /// registration without a runner, and every runner that ended has one verdict.
    #[test]
    fn any_history_settles(
        acts in proptest::collection::vec(any_act(), 0..150),
        min_idle in 1u16..3, min_spare in 0u16..3, extra in 0u16..3,
    ) {
        let mut world = World::new(spec(min_idle, min_spare, min_idle + min_spare + extra));
        for act in acts {
            world.act(act);
        }
        world.calm(400);
        check_settled(&world);
        prop_assert_eq!(world.ended.len() + world.machines.len(), world.starts.len());
    }

    /// The same holds if the daemon restarts at any point, in any way. No restart ends a job, loses a
    /// verdict or gives one twice.
    #[test]
    fn any_history_with_restarts_settles(
        acts in proptest::collection::vec(prop_oneof![20 => any_act(), 1 => any_restart()], 0..150),
        min_idle in 1u16..3, min_spare in 0u16..3, extra in 0u16..3,
    ) {
        let mut world = World::new(spec(min_idle, min_spare, min_idle + min_spare + extra));
        for act in acts {
            world.act(act);
        }
        world.calm(400);
        // A record that could not be read before is judged by a daemon that can read it.
        world.restart(Stop::Orderly, true);
        world.calm(10);
        check_settled(&world);
    }

    /// A restart of a settled daemon changes nothing: it adopts every runner in its phase and plans no
    /// step.
    #[test]
    fn a_restart_of_a_settled_daemon_changes_nothing(
        acts in proptest::collection::vec(any_act(), 0..60), choice in any::<usize>(),
    ) {
        let mut world = World::new(spec(1, 1, 3));
        for act in acts {
            world.act(act);
        }
        world.calm(400);
        let runners = |world: &World| -> Vec<_> {
            let runners = world.pool().runners.values();
            runners
                .map(|runner| (runner.phase.clone(), runner.invocation.clone(), runner.registration.clone()))
                .collect()
        };
        let before = runners(&world);
        world.restart(Stop::Killed { choice }, true);
        prop_assert_eq!(runners(&world), before);
        prop_assert_eq!(world.pools.plan(None, Admission::Open, world.now), vec![]);
    }

    /// Between two deadlines nothing becomes due by itself, so the loop may sleep.
    #[test]
    fn no_step_is_due_before_the_next_deadline(
        acts in proptest::collection::vec(any_act(), 0..80), early in 0u64..100,
    ) {
        let mut world = World::new(spec(1, 1, 3));
        for act in acts {
            world.act(act);
        }
        world.settle(Admission::Open);
        let horizon = world.now + Duration::from_secs(100_000);
        let next = world.pools.next_deadline(world.now).unwrap_or(horizon);
        let span = next.millis().saturating_sub(world.now.millis());
        let between = Timestamp::from_millis(world.now.millis() + span * early / 100);
        prop_assert_eq!(world.pools.plan(None, Admission::Open, between), vec![]);
    }
}
