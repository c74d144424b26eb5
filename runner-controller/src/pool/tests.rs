//! The core against a small world that forgets, delays and fails as it likes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn spec(min_idle: u16, min_spare: u16, max_runners: u16) -> Spec {
    Spec {
        name: "ci".parse().unwrap(),
        min_idle,
        min_spare,
        max_runners,
        generation: "g1".into(),
        boots_at_once: 2,
        timeouts: Timeouts {
            boot: MINUTE,
            registration: 5 * MINUTE,
            spare_age: 600 * MINUTE,
            idle_age: 300 * MINUTE,
            job: 60 * MINUTE,
            stop: 2 * MINUTE,
        },
    }
}

/// A container as it really is, whatever the pool believes.
#[derive(Debug, Clone)]
struct Machine {
    invocation: Invocation,
    answered: Option<RunnerId>,
    job: bool,
}

/// Something on its way to the pool.
#[derive(Debug, Clone)]
enum Message {
    Unit(UnitSight),
    Asked(Slot),
    JobStarted(Slot),
    Started(Slot, bool),
    Minted(Slot, RunnerName, MintOutcome),
    Deregistered(Slot, RunnerId, Result<Deleted, Option<Duration>>),
    EndAsked(Slot, bool),
    Absent(Slot, Timestamp),
    Deleted(RunnerId, bool),
}

struct World {
    pool: Pool,
    ledger: Ledger,
    now: Timestamp,
    machines: BTreeMap<Slot, Machine>,
    github: BTreeMap<RunnerId, (RunnerName, bool)>,
    mail: VecDeque<Message>,
    next: u64,
    /// Calls fail while this is set.
    broken: bool,
    closed: Vec<Closed>,
    born: usize,
}

impl World {
    fn new(spec: Spec) -> Self {
        Self {
            pool: Pool::new(spec),
            ledger: Ledger::default(),
            now: Timestamp::from_millis(1000),
            machines: BTreeMap::new(),
            github: BTreeMap::new(),
            mail: VecDeque::new(),
            next: 1 << 33,
            broken: false,
            closed: Vec::new(),
            born: 0,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn sight(&self, slot: Slot, state: UnitState, end: Option<LifeEnd>) -> UnitSight {
        let invocation = self
            .machines
            .get(&slot)
            .map(|machine| machine.invocation.clone());
        UnitSight {
            slot: self.pool.slot_id(slot),
            state,
            invocation,
            start: None,
            end,
        }
    }

    /// The container ends: the unit's last state and the record say so.
    fn machine_ends(&mut self, slot: Slot, status: i32) {
        let Some(machine) = self.machines.get(&slot).cloned() else {
            return;
        };
        let end = LifeEnd {
            invocation: machine.invocation,
            service_result: "exit-code".into(),
            exit: Exit::Status(status),
            memory_peak_bytes: None,
            oom_kills: 0,
            at: self.now,
        };
        let sight = self.sight(slot, UnitState::Failed, Some(end));
        self.mail.push_back(Message::Unit(sight));
        if machine.job
            && let Some(id) = machine.answered
        {
            self.github.remove(&id);
        }
        self.machines.remove(&slot);
    }

    /// Carries out one step in the world. The answer is on its way.
    fn carry_out(&mut self, step: &Step) {
        self.pool.begin(step, self.now);
        let ok = !self.broken;
        match step {
            Step::Retire { .. } => {}
            Step::Start { slot } => {
                assert!(
                    !self.machines.contains_key(slot),
                    "two lives in slot {slot}"
                );
                self.mail.push_back(Message::Started(*slot, ok));
                if ok {
                    self.born += 1;
                    let invocation = Invocation::parse(&format!("{:032x}", self.fresh())).unwrap();
                    self.machines.insert(
                        *slot,
                        Machine {
                            invocation,
                            answered: None,
                            job: false,
                        },
                    );
                    let sight = self.sight(*slot, UnitState::Activating, None);
                    self.mail.push_back(Message::Unit(sight));
                    self.mail.push_back(Message::Asked(*slot));
                    let sight = self.sight(*slot, UnitState::Active, None);
                    self.mail.push_back(Message::Unit(sight));
                }
            }
            Step::Register { slot } => {
                let id = RunnerId(self.fresh());
                #[expect(clippy::cast_possible_truncation, reason = "a test's dice")]
                let name =
                    RunnerName::new("h".parse().unwrap(), self.pool.slot_id(*slot), id.0 as u32);
                self.pool.minting(*slot, name.clone());
                let outcome = if !ok {
                    MintOutcome::Failed {
                        reason: "broken".into(),
                        retry_after: None,
                    }
                } else if let Some(machine) = self.machines.get_mut(slot) {
                    self.github.insert(id, (name.clone(), false));
                    machine.answered = Some(id);
                    MintOutcome::Delivered { id }
                } else {
                    self.github.insert(id, (name.clone(), false));
                    MintOutcome::Undelivered { id }
                };
                self.mail.push_back(Message::Minted(*slot, name, outcome));
            }
            Step::Deregister { slot, id } => {
                let result = if !ok {
                    Err(None)
                } else if self.github.get(id).is_some_and(|(_, busy)| *busy) {
                    Ok(Deleted::Busy)
                } else {
                    self.github.remove(id);
                    Ok(Deleted::Gone)
                };
                self.mail
                    .push_back(Message::Deregistered(*slot, *id, result));
            }
            Step::End { slot, .. } => {
                let busy = self.machines.get(slot).is_some_and(|machine| machine.job);
                let Phase::Retiring { cause, .. } = self.pool.lives[slot].phase else {
                    panic!("ended in {:?}", self.pool.lives[slot].phase);
                };
                assert!(
                    !busy || cause.may_end_a_job(),
                    "{cause} ended a busy runner in slot {slot}"
                );
                self.mail.push_back(Message::EndAsked(*slot, ok));
                if ok {
                    self.machine_ends(*slot, 137);
                }
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        let now = self.now;
        let closed = match message {
            Message::Unit(sight) => self.pool.unit(sight, now, 7),
            Message::Asked(slot) => {
                if self.machines.contains_key(&slot) {
                    self.pool.asked(slot, now);
                }
                None
            }
            Message::JobStarted(slot) => {
                self.pool.job_started(slot, JobNote::default(), now);
                None
            }
            Message::Started(slot, ok) => {
                self.pool
                    .started(slot, if ok { Ok(()) } else { Err("broken".into()) }, now, 7);
                None
            }
            Message::Minted(slot, name, outcome) => {
                if let Some((id, name)) = self.pool.minted(slot, &name, outcome, now, 7) {
                    self.ledger.orphan(id, name, now);
                }
                None
            }
            Message::Deregistered(slot, id, result) => {
                self.pool.deregistered(slot, id, result, now, 7);
                None
            }
            Message::EndAsked(slot, ok) => {
                self.pool
                    .end_asked(slot, if ok { Ok(()) } else { Err("broken".into()) }, now, 7);
                None
            }
            Message::Absent(slot, began) => self.pool.absent(slot, None, began, now, 7),
            Message::Deleted(id, done) => {
                self.ledger.deleted(id, done, None, now, 7);
                None
            }
        };
        if let Some(closed) = closed {
            if let Some(Runner { id: Some(id), name }) = &closed.orphan {
                self.ledger.orphan(*id, name.clone(), now);
            }
            self.closed.push(closed);
        }
    }

    /// Plans and begins until there is nothing to say; it must not go on for ever.
    fn settle(&mut self, gate: Gate) {
        for round in 0.. {
            assert!(round < 10, "planning does not settle: {:?}", self.pool);
            let steps = plan(&self.pool, gate, self.now);
            if steps.is_empty() {
                break;
            }
            for step in &steps {
                self.carry_out(step);
            }
            assert!(
                self.pool.lives.len() <= usize::from(self.pool.spec.max_runners),
                "more than max_runners"
            );
        }
        for id in self.ledger.plan(self.now) {
            self.ledger.begin(id);
            let busy = self.github.get(&id).is_some_and(|(_, busy)| *busy);
            if !self.broken && !busy {
                self.github.remove(&id);
            }
            self.mail.push_back(Message::Deleted(id, !self.broken));
        }
    }

    fn list(&mut self) {
        let list: Vec<Registration> = self
            .github
            .iter()
            .map(|(id, (name, busy))| Registration {
                id: *id,
                name: name.to_string(),
                online: true,
                busy: *busy,
            })
            .collect();
        let by_name = list.iter().map(|r| (r.name.clone(), r.clone())).collect();
        let by_slot = self
            .github
            .iter()
            .map(|(id, (name, _))| (name.slot.slot, (name.clone(), *id)))
            .collect();
        self.pool.listed(&by_name, &by_slot, self.now, self.now);
        let owned = |_: RunnerId, name: &RunnerName| {
            self.pool.lives.values().any(|life| {
                life.runner
                    .as_ref()
                    .is_some_and(|runner| runner.name == *name)
            })
        };
        self.ledger
            .listed(&"h".parse().unwrap(), &list, owned, self.now);
    }

    /// A look's answer comes behind what was signalled before it.
    fn look(&mut self) {
        for slot in Slot::first(self.pool.spec.max_runners) {
            if !self.machines.contains_key(&slot) {
                self.mail.push_back(Message::Absent(slot, self.now));
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Deliver(n) => {
                if !self.mail.is_empty() {
                    // Out of order across slots, in order within one.
                    let index = n % self.mail.len();
                    if let Some(message) = self.mail.remove(index) {
                        let slot = slot_of(&message);
                        let earlier = self
                            .mail
                            .iter()
                            .take(index)
                            .position(|m| slot.is_some() && slot_of(m) == slot);
                        match earlier {
                            Some(first) => {
                                self.mail.insert(index, message);
                                if let Some(first) = self.mail.remove(first) {
                                    self.deliver(first);
                                }
                            }
                            None => self.deliver(message),
                        }
                    }
                }
            }
            Act::Plan => self.settle(Gate::Open),
            Act::Drain => self.settle(Gate::Draining),
            Act::Clear => self.settle(Gate::Clearing),
            Act::JobStarts(n) => {
                let ready: Vec<Slot> = self
                    .machines
                    .iter()
                    .filter(|(_, m)| {
                        !m.job && m.answered.is_some_and(|id| self.github.contains_key(&id))
                    })
                    .map(|(slot, _)| *slot)
                    .collect();
                if let Some(slot) = ready.get(n % ready.len().max(1)).copied() {
                    let Some(machine) = self.machines.get_mut(&slot) else {
                        return;
                    };
                    machine.job = true;
                    if let Some(entry) = machine.answered.and_then(|id| self.github.get_mut(&id)) {
                        entry.1 = true;
                    }
                    self.mail.push_back(Message::JobStarted(slot));
                }
            }
            Act::Ends(n, status) => {
                let slots: Vec<Slot> = self.machines.keys().copied().collect();
                if let Some(slot) = slots.get(n % slots.len().max(1)) {
                    self.machine_ends(*slot, status);
                }
            }
            Act::Passes(duration) => self.now = self.now + duration,
            Act::List => self.list(),
            Act::Look => self.look(),
            Act::Break(broken) => self.broken = broken,
        }
    }
}

fn slot_of(message: &Message) -> Option<Slot> {
    match message {
        Message::Unit(sight) => Some(sight.slot.slot),
        Message::Asked(slot)
        | Message::JobStarted(slot)
        | Message::Started(slot, _)
        | Message::Minted(slot, ..)
        | Message::Deregistered(slot, ..)
        | Message::EndAsked(slot, _)
        | Message::Absent(slot, _) => Some(*slot),
        Message::Deleted(..) => None,
    }
}

#[derive(Debug, Clone)]
enum Act {
    Deliver(usize),
    Plan,
    Drain,
    Clear,
    JobStarts(usize),
    Ends(usize, i32),
    Passes(Duration),
    List,
    Look,
    Break(bool),
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => any::<usize>().prop_map(Act::Deliver),
        8 => Just(Act::Plan),
        1 => Just(Act::Drain),
        1 => Just(Act::Clear),
        4 => any::<usize>().prop_map(Act::JobStarts),
        3 => (any::<usize>(), prop_oneof![Just(0), Just(1), Just(7), Just(102), Just(243)]).prop_map(|(n, s)| Act::Ends(n, s)),
        3 => (1u64..4_000).prop_map(|s| Act::Passes(Duration::from_secs(s))),
        2 => Just(Act::List),
        1 => Just(Act::Look),
        1 => any::<bool>().prop_map(Act::Break),
    ]
}

proptest! {
    /// After any history, once faults stop, the pool becomes what was asked for, and nothing is
    /// left at GitHub that no life owns.
    #[test]
    fn any_history_settles(
        acts in proptest::collection::vec(any_act(), 0..150),
        min_idle in 1u16..3, min_spare in 0u16..3, extra in 0u16..3,
    ) {
        let mut world = World::new(spec(min_idle, min_spare, min_idle + min_spare + extra));
        for act in acts {
            world.act(act);
        }
        world.broken = false;
        // The jobs that run end, and all mail arrives.
        for _ in 0..400 {
            let busy: Vec<Slot> = world.machines.iter().filter(|(_, m)| m.job).map(|(s, _)| *s).collect();
            for slot in busy {
                world.machine_ends(slot, 0);
            }
            while let Some(message) = world.mail.pop_front() {
                world.deliver(message);
            }
            world.now = world.now + MINUTE;
            world.look();
            while let Some(message) = world.mail.pop_front() {
                world.deliver(message);
            }
            world.list();
            world.settle(Gate::Open);
        }
        let idle = world.pool.count(|p| matches!(p, Phase::Registering | Phase::Idle | Phase::Minting));
        let spare = world.pool.count(|p| matches!(p, Phase::Spare | Phase::Booting));
        prop_assert_eq!((idle, spare), (usize::from(min_idle), usize::from(min_spare)), "{:#?}", world.pool);
        prop_assert!(world.ledger.is_empty(), "{:?}", world.ledger);
        prop_assert_eq!(world.github.len(), idle);
        prop_assert_eq!(world.machines.len(), world.pool.lives.len());
        // Every life that ended has exactly one verdict.
        prop_assert_eq!(world.closed.len() + world.pool.lives.len(), world.born);
    }

    /// Between two deadlines nothing becomes due by itself, so the loop may sleep.
    #[test]
    fn nothing_is_due_before_the_next_deadline(
        acts in proptest::collection::vec(any_act(), 0..80), early in 0u64..100,
    ) {
        let mut world = World::new(spec(1, 1, 3));
        for act in acts {
            world.act(act);
        }
        world.settle(Gate::Open);
        let horizon = world.now + Duration::from_secs(100_000);
        let next = next_deadline(&world.pool, world.now).unwrap_or(horizon);
        let between = world.now.millis() + (next.millis() - world.now.millis()) * early / 100;
        prop_assert_eq!(plan(&world.pool, Gate::Open, Timestamp::from_millis(between)), vec![]);
    }
}

/// A pool at rest: one idle, one spare.
fn rested() -> World {
    let mut world = World::new(spec(1, 1, 3));
    for _ in 0..6 {
        world.settle(Gate::Open);
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

fn phases(world: &World) -> Vec<&'static str> {
    world
        .pool
        .lives
        .values()
        .map(|life| life.phase.as_str())
        .collect()
}

#[test]
fn a_pool_at_rest_has_what_was_asked_for() {
    let world = rested();
    assert_eq!(phases(&world), ["idle", "spare"]);
    assert_eq!(plan(&world.pool, Gate::Open, world.now), vec![]);
}

#[test]
fn a_busy_runner_promotes_the_spare_and_boots_its_replacement() {
    let mut world = rested();
    world
        .pool
        .job_started(slot(1), JobNote::default(), world.now);
    let steps = plan(&world.pool, Gate::Open, world.now);
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
    let id = world.pool.lives[&slot(1)]
        .runner
        .as_ref()
        .unwrap()
        .id
        .unwrap();
    world.github.get_mut(&id).unwrap().1 = true;
    world.settle(Gate::Draining);
    while let Some(message) = world.mail.pop_front() {
        world.deliver(message);
    }
    assert_eq!(
        phases(&world),
        ["busy"],
        "422 makes it busy, and the spare is gone"
    );
    world.settle(Gate::Draining);
    assert!(world.mail.is_empty());
}

#[test]
fn a_failed_mint_leaves_the_spare_and_waits() {
    let mut world = rested();
    world.broken = true;
    world
        .pool
        .job_started(slot(1), JobNote::default(), world.now);
    world.settle(Gate::Open);
    while let Some(message) = world.mail.pop_front() {
        world.deliver(message);
    }
    assert_eq!(world.pool.lives[&slot(2)].phase, Phase::Spare);
    let due = next_deadline(&world.pool, world.now).unwrap();
    assert!(due > world.now && due <= world.now + Duration::from_secs(1));
    assert!(plan(&world.pool, Gate::Open, due).contains(&Step::Register { slot: slot(2) }));
}

#[test]
fn a_list_that_does_not_come_destroys_nothing() {
    let mut world = rested();
    world.now = world.now + 200 * MINUTE;
    assert_eq!(plan(&world.pool, Gate::Open, world.now), vec![]);
    world.github.clear();
    world.list();
    assert_eq!(
        plan(&world.pool, Gate::Open, world.now),
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
        plan(&world.pool, Gate::Open, world.now),
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
    let steps = plan(&world.pool, Gate::Open, world.now);
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
    let end = |at| LifeEnd {
        invocation: Invocation::parse(&"a".repeat(32)).unwrap(),
        service_result: "success".into(),
        exit: Exit::Status(0),
        memory_peak_bytes: None,
        oom_kills: 0,
        at,
    };
    let before = Timestamp::from_millis(world.now.millis() - 1);
    for old in [None, Some(end(before))] {
        let sight = world.sight(slot(1), UnitState::Inactive, old);
        assert_eq!(world.pool.unit(sight, world.now, 7), None);
    }
    let own = world.sight(slot(1), UnitState::Inactive, Some(end(world.now)));
    let closed = world.pool.unit(own, world.now, 7).unwrap();
    assert_eq!(closed.verdict, Verdict::BootFailed);
}

#[test]
fn each_end_has_its_verdict() {
    let end = |exit: Exit, oom_kills: u64, result: &str| LifeEnd {
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
        let mut life = Life::new(slot(1), phase.clone(), Timestamp::default());
        life.job = job.clone().filter(|_| has_job);
        assert_eq!(
            life.judge(Some(&end(exit, oom, "exit-code"))),
            verdict,
            "{phase:?}"
        );
    }
    let life = Life::new(slot(1), Phase::Busy, Timestamp::default());
    assert_eq!(life.judge(None), Verdict::Unexplained);
}

#[test]
fn each_bound_ends_its_phase_and_not_a_moment_earlier() {
    let born = Timestamp::from_millis(1_000_000);
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
        let mut life = Life::new(slot(1), phase.clone(), born);
        // GitHub's word on a runner that registers; it counts from the bound on.
        life.offline_seen = Some(born + bound);
        pool.lives.insert(slot(1), life);
        // Admission may be closed: bounds hold all the same.
        if phase != Phase::Registering {
            let before = Timestamp::from_millis((born + bound).millis() - 1);
            assert_eq!(plan(&pool, Gate::Closed, before), [], "{phase:?}");
            assert_eq!(
                next_deadline(&pool, before),
                Some(born + bound),
                "{phase:?}"
            );
        }
        let retire = Step::Retire {
            slot: slot(1),
            cause,
        };
        assert_eq!(
            plan(&pool, Gate::Closed, born + bound),
            [retire],
            "{phase:?}"
        );
    }
}

#[test]
fn a_stop_that_takes_too_long_is_a_kill() {
    let born = Timestamp::from_millis(1_000_000);
    let mut pool = Pool::new(spec(1, 1, 3));
    let stop = pool.spec.timeouts.stop;
    let mut life = Life::new(slot(1), Phase::Busy, born);
    life.job = Some(Job {
        note: JobNote::default(),
        since: born,
    });
    pool.lives.insert(slot(1), life);
    let end = |how| [Step::End { slot: slot(1), how }];
    let late = born + pool.spec.timeouts.job;
    for step in plan(&pool, Gate::Open, late) {
        pool.begin(&step, late);
    }
    let asked = plan(&pool, Gate::Closed, late);
    assert_eq!(asked, end(Ending::Stop));
    pool.begin(&asked[0], late);
    pool.end_asked(slot(1), Ok(()), late, 0);
    let before = Timestamp::from_millis((late + stop).millis() - 1);
    assert_eq!(plan(&pool, Gate::Closed, before), []);
    assert_eq!(plan(&pool, Gate::Closed, late + stop), end(Ending::Kill));
}

#[test]
fn a_look_from_before_an_end_is_no_new_life() {
    let mut world = rested();
    let ended = world.sight(slot(1), UnitState::Active, None);
    exits(&mut world, slot(1), 0);
    assert!(!world.pool.lives.contains_key(&slot(1)));
    world.pool.unit(ended, world.now, 0);
    assert!(!world.pool.lives.contains_key(&slot(1)));
}

/// The runner in `slot` exits, and everything that follows is told.
fn exits(world: &mut World, slot: Slot, status: i32) {
    world.machine_ends(slot, status);
    while let Some(message) = world.mail.pop_front() {
        world.deliver(message);
    }
}

fn registers(world: &World) -> usize {
    let steps = plan(&world.pool, Gate::Open, world.now);
    let registers = |step: &&Step| matches!(step, Step::Register { .. });
    steps.iter().filter(registers).count()
}

#[test]
fn after_a_refused_version_one_runner_at_a_time_tries_again() {
    let mut world = World::new(spec(2, 2, 4));
    for _ in 0..4 {
        world.settle(Gate::Open);
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
    world.settle(Gate::Open);
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
        let lives = world.pool.lives.values();
        let idle: Vec<Slot> = lives
            .filter(|life| life.phase == Phase::Idle)
            .map(|life| life.slot)
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
            world.settle(Gate::Open);
            while let Some(message) = world.mail.pop_front() {
                world.deliver(message);
            }
        }
    }
}
