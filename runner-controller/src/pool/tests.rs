//! The core against a small world that forgets, delays and fails as it likes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod examples;

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
    Unit(UnitObservation),
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
    closed: Vec<Ended>,
    started_at: usize,
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
            started_at: 0,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn observation(&self, slot: Slot, state: UnitState, end: Option<EndRecord>) -> UnitObservation {
        let invocation = self
            .machines
            .get(&slot)
            .map(|machine| machine.invocation.clone());
        UnitObservation {
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
        let end = EndRecord {
            invocation: machine.invocation,
            service_result: "exit-code".into(),
            exit: Exit::Status(status),
            memory_peak_bytes: None,
            oom_kills: 0,
            at: self.now,
        };
        let observation = self.observation(slot, UnitState::Failed, Some(end));
        self.mail.push_back(Message::Unit(observation));
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
                    self.started_at += 1;
                    let invocation = Invocation::parse(&format!("{:032x}", self.fresh())).unwrap();
                    self.machines.insert(
                        *slot,
                        Machine {
                            invocation,
                            answered: None,
                            job: false,
                        },
                    );
                    let observation = self.observation(*slot, UnitState::Activating, None);
                    self.mail.push_back(Message::Unit(observation));
                    self.mail.push_back(Message::Asked(*slot));
                    let observation = self.observation(*slot, UnitState::Active, None);
                    self.mail.push_back(Message::Unit(observation));
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
                        failure: FailureKind::Mint,
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
                let Phase::Retiring { cause, .. } = self.pool.runners[slot].phase else {
                    panic!("ended in {:?}", self.pool.runners[slot].phase);
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
            Message::Unit(observation) => self.pool.unit(observation, now, 7),
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
            Message::Absent(slot, began) if self.pool.knows_better(slot, began) => None,
            Message::Absent(slot, _) => self.pool.absent(slot, None, now, 7),
            Message::Deleted(id, done) => {
                self.ledger.deleted(id, done, None, now, 7);
                None
            }
        };
        if let Some(closed) = closed {
            if let Some(Registration { id: Some(id), name }) = &closed.orphan {
                self.ledger.orphan(*id, name.clone(), now);
            }
            self.closed.push(closed);
        }
    }

    /// Plans and begins until there is nothing to say; it must not go on for ever.
    fn settle(&mut self, admission: Admission) {
        for round in 0.. {
            assert!(round < 10, "planning does not settle: {:?}", self.pool);
            let steps = plan(&self.pool, admission, self.now);
            if steps.is_empty() {
                break;
            }
            for step in &steps {
                self.carry_out(step);
            }
            assert!(
                self.pool.runners.len() <= usize::from(self.pool.spec.max_runners),
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
        let list: Vec<ListedRunner> = self
            .github
            .iter()
            .map(|(id, (name, busy))| ListedRunner {
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
            self.pool.runners.values().any(|runner| {
                runner
                    .registration
                    .as_ref()
                    .is_some_and(|registration| registration.name == *name)
            })
        };
        self.ledger
            .listed(&"h".parse().unwrap(), &list, owned, self.now);
    }

    /// A look's answer comes behind what was signalled before it.
    fn reconcile(&mut self) {
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
            Act::Plan => self.settle(Admission::Open),
            Act::Drain => self.settle(Admission::Draining),
            Act::Clear => self.settle(Admission::Clearing),
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
            Act::Reconcile => self.reconcile(),
            Act::Break(broken) => self.broken = broken,
        }
    }
}

fn slot_of(message: &Message) -> Option<Slot> {
    match message {
        Message::Unit(observation) => Some(observation.slot.slot),
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
    Reconcile,
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
        1 => Just(Act::Reconcile),
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
            world.reconcile();
            while let Some(message) = world.mail.pop_front() {
                world.deliver(message);
            }
            world.list();
            world.settle(Admission::Open);
        }
        let idle = world.pool.count(|p| matches!(p, Phase::Registering | Phase::Idle | Phase::Minting));
        let spare = world.pool.count(|p| matches!(p, Phase::Spare | Phase::Booting));
        prop_assert_eq!((idle, spare), (usize::from(min_idle), usize::from(min_spare)), "{:#?}", world.pool);
        prop_assert!(world.ledger.is_empty(), "{:?}", world.ledger);
        prop_assert_eq!(world.github.len(), idle);
        prop_assert_eq!(world.machines.len(), world.pool.runners.len());
        // Every life that ended has exactly one verdict.
        prop_assert_eq!(world.closed.len() + world.pool.runners.len(), world.started_at);
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
        world.settle(Admission::Open);
        let horizon = world.now + Duration::from_secs(100_000);
        let next = next_deadline(&world.pool, world.now).unwrap_or(horizon);
        let between = world.now.millis() + (next.millis() - world.now.millis()) * early / 100;
        prop_assert_eq!(plan(&world.pool, Admission::Open, Timestamp::from_millis(between)), vec![]);
    }
}
