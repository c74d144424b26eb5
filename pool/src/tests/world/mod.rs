//! A small world around the core: one pool, its containers, GitHub and a disk. It delays, loses and
//! fails as a history demands, and checks invariants all the time.

mod check;
mod restart;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::*;
pub(super) use restart::Stop;

/// Number of end records that root keeps of each slot.
const ENDS_KEPT: usize = 3;

/// A container as it really is, whatever the core believes.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) invocation: Invocation,
    started_at: Timestamp,
    /// True once it has requested its JIT config.
    requested: bool,
    active: bool,
    /// The registration that it got.
    pub(super) registered: Option<RunnerId>,
    pub(super) job: bool,
}

impl Machine {
    fn is_waiting(&self) -> bool {
        self.requested && self.registered.is_none()
    }
}

/// Something on its way to the daemon.
#[derive(Debug, Clone)]
pub(super) enum Message {
    Unit(Box<UnitObservation>),
    ConfigRequested(Slot),
    RequestDropped(Slot),
    JobStarted(Slot),
    Started(Slot, bool),
    Minted(Slot, RunnerName, MintOutcome),
    Deregistered(Slot, RunnerId, Result<Deleted, Option<Duration>>),
    Found(
        Slot,
        RunnerId,
        Result<Option<ListedRunner>, Option<Duration>>,
    ),
    EndRequested(Slot, bool),
    Deleted(RunnerId, Result<Deleted, Option<Duration>>),
    Observed(Vec<UnitObservation>, Timestamp),
    ListedEarly(Vec<ListedRunner>, Timestamp),
}

impl Message {
    fn slot(&self) -> Option<Slot> {
        match self {
            Self::Unit(observation) => Some(observation.slot.slot),
            Self::ConfigRequested(slot)
            | Self::RequestDropped(slot)
            | Self::JobStarted(slot)
            | Self::Started(slot, _)
            | Self::Minted(slot, ..)
            | Self::Deregistered(slot, ..)
            | Self::Found(slot, ..)
            | Self::EndRequested(slot, _) => Some(*slot),
            Self::Deleted(..) | Self::Observed(..) | Self::ListedEarly(..) => None,
        }
    }

    /// Returns true for an event, and false for the answer to a call.
    fn is_event(&self) -> bool {
        match self {
            Self::Unit(_)
            | Self::ConfigRequested(_)
            | Self::RequestDropped(_)
            | Self::JobStarted(_) => true,
            Self::Started(..)
            | Self::Minted(..)
            | Self::Deregistered(..)
            | Self::Found(..)
            | Self::EndRequested(..)
            | Self::Deleted(..)
            | Self::Observed(..)
            | Self::ListedEarly(..) => false,
        }
    }
}

#[derive(Debug, Clone)]
enum Write {
    Put(RunnerRecord),
    Remove(Slot),
    Close(VerdictRecord),
    PutStray(StrayRecord),
    RemoveStray(RunnerId),
}

/// The records. Writes wait until they are flushed.
#[derive(Debug, Default)]
pub(super) struct Disk {
    records: BTreeMap<Slot, RunnerRecord>,
    pub(super) verdicts: Vec<VerdictRecord>,
    strays: BTreeMap<RunnerId, StrayRecord>,
    pending: VecDeque<Write>,
}

impl Disk {
    fn flush(&mut self, count: usize) {
        for write in self.pending.drain(..count) {
            match write {
                Write::Put(record) => {
                    self.records.insert(record.slot.slot, record);
                }
                Write::Remove(slot) => {
                    self.records.remove(&slot);
                }
                Write::PutStray(stray) => {
                    self.strays.insert(stray.id, stray);
                }
                Write::RemoveStray(id) => {
                    self.strays.remove(&id);
                }
                Write::Close(verdict) => {
                    self.records.remove(&verdict.slot.slot);
                    let is_same = |known: &VerdictRecord| known.invocation == verdict.invocation;
                    if verdict.invocation.is_none() || !self.verdicts.iter().any(is_same) {
                        self.verdicts.push(verdict);
                    }
                }
            }
        }
    }
}

pub(super) struct World {
    pub(super) pools: Pools,
    spec: Spec,
    pub(super) now: Timestamp,
    boot: u64,
    pub(super) machines: BTreeMap<Slot, Machine>,
    /// Root's end records of each slot, the newest last.
    ends: BTreeMap<Slot, Vec<EndRecord>>,
    /// Slots that keep a job-started report.
    notes: BTreeSet<Slot>,
    pub(super) github: BTreeMap<RunnerId, (RunnerName, bool)>,
    pub(super) mail: VecDeque<Message>,
    pub(super) disk: Disk,
    /// Records as the effects left them.
    recorded: BTreeMap<Slot, RunnerRecord>,
    next: u64,
    /// True while calls fail.
    pub(super) broken: bool,
    /// Verdicts of the running daemon.
    pub(super) ended: Vec<Ended>,
    /// Every start, and its slot.
    pub(super) starts: BTreeMap<Invocation, Slot>,
    /// Ended starts of which no trace was left when a daemon was killed. They may stay without a verdict.
    untraceable: BTreeSet<Invocation>,
}

impl World {
    pub(super) fn new(spec: Spec) -> Self {
        Self {
            pools: Pools::new(host(), "boot-0".into(), [(scope(), pace())], [spec.clone()]),
            spec,
            now: Timestamp::from_millis(1000),
            boot: 0,
            machines: BTreeMap::new(),
            ends: BTreeMap::new(),
            notes: BTreeSet::new(),
            github: BTreeMap::new(),
            mail: VecDeque::new(),
            disk: Disk::default(),
            recorded: BTreeMap::new(),
            next: 1 << 33,
            broken: false,
            ended: Vec::new(),
            starts: BTreeMap::new(),
            untraceable: BTreeSet::new(),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        self.pools.iter().next().unwrap()
    }

    pub(super) fn pool_mut(&mut self) -> &mut Pool {
        self.pools.by_name.values_mut().next().unwrap()
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Returns an observation of a slot's unit as it is.
    pub(super) fn observe(&self, slot: Slot) -> UnitObservation {
        let machine = self.machines.get(&slot);
        UnitObservation {
            slot: slot_id(slot),
            state: match machine {
                Some(machine) if machine.active => UnitState::Active,
                Some(_) => UnitState::Activating,
                None => UnitState::Inactive,
            },
            invocation: machine.map(|machine| machine.invocation.clone()),
            start: machine.map(|machine| StartRecord {
                invocation: machine.invocation.clone(),
                generation: self.spec.generation.clone(),
                returns_result: true,
                at: machine.started_at,
            }),
            end: self.newest_end(slot).cloned().filter(|_| machine.is_none()),
        }
    }

    fn newest_end(&self, slot: Slot) -> Option<&EndRecord> {
        self.ends.get(&slot)?.last()
    }

    fn observe_all(&self) -> Vec<UnitObservation> {
        Slot::first(self.spec.numbers.max_runners)
            .map(|slot| self.observe(slot))
            .collect()
    }

    fn signal(&mut self, slot: Slot) {
        self.mail
            .push_back(Message::Unit(Box::new(self.observe(slot))));
    }

    /// Lets a container come one step further in its boot.
    pub(super) fn boot(&mut self, slot: Slot) {
        let Some(machine) = self.machines.get_mut(&slot) else {
            return;
        };
        if !machine.requested {
            machine.requested = true;
            self.mail.push_back(Message::ConfigRequested(slot));
        } else if !machine.active {
            machine.active = true;
            self.signal(slot);
        }
    }

    /// Ends a container. Root records the end, and systemd signals it.
    pub(super) fn machine_ends(&mut self, slot: Slot, status: i32) {
        let Some(machine) = self.machines.remove(&slot) else {
            return;
        };
        if machine.is_waiting() {
            self.mail.push_back(Message::RequestDropped(slot));
        }
        if machine.job
            && let Some(id) = machine.registered
        {
            self.github.remove(&id);
        }
        // systemd may signal only the last of several changes.
        if status % 2 == 1 {
            let is_earlier = |message: &Message| {
                matches!(message, Message::Unit(_)) && message.slot() == Some(slot)
            };
            self.mail.retain(|message| !is_earlier(message));
        }
        let end = end_record(machine.invocation.clone(), status, self.now);
        let ends = self.ends.entry(slot).or_default();
        ends.push(end);
        ends.drain(..ends.len().saturating_sub(ENDS_KEPT));
        let mut observation = self.observe(slot);
        observation.state = UnitState::Failed;
        observation.invocation = Some(machine.invocation);
        self.mail.push_back(Message::Unit(Box::new(observation)));
    }

    /// Starts a job on the nth runner that is ready for one.
    pub(super) fn job_starts(&mut self, nth: usize) {
        let is_ready = |machine: &Machine| {
            let is_known = |id| self.github.contains_key(&id);
            !machine.job && machine.registered.is_some_and(is_known)
        };
        let machines = self.machines.iter();
        let ready: Vec<Slot> = machines
            .filter(|(_, machine)| is_ready(machine))
            .map(|(slot, _)| *slot)
            .collect();
        let Some(slot) = ready.get(nth % ready.len().max(1)).copied() else {
            return;
        };
        let Some(machine) = self.machines.get_mut(&slot) else {
            return;
        };
        machine.job = true;
        if let Some(entry) = machine.registered.and_then(|id| self.github.get_mut(&id)) {
            entry.1 = true;
        }
        self.notes.insert(slot);
        self.mail.push_back(Message::JobStarted(slot));
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Step(slot, step) => self.carry_out_step(slot.slot, &step),
                Effect::Delete(_, id) => {
                    let is_busy = self.github.get(&id).is_some_and(|(_, busy)| *busy);
                    let result = match (self.broken, is_busy) {
                        (true, _) => Err(None),
                        (false, true) => Ok(Deleted::Busy),
                        (false, false) => {
                            self.github.remove(&id);
                            Ok(Deleted::Gone)
                        }
                    };
                    self.mail.push_back(Message::Deleted(id, result));
                }
                Effect::ListEarly(_) => self.list_early(),
                Effect::OrphanInUse(id) => panic!("{id} is an orphan's and a runner's"),
                Effect::NameInUse(name) => panic!("{name} is this host's"),
                Effect::Stray(stray) => {
                    self.disk.pending.push_back(Write::PutStray(*stray));
                }
                Effect::ForgetStray(_, id) => {
                    self.disk.pending.push_back(Write::RemoveStray(id));
                }
                Effect::Record(record) => {
                    self.recorded.insert(record.slot.slot, (*record).clone());
                    self.disk.pending.push_back(Write::Put(*record));
                }
                Effect::Forget(slot) => {
                    self.recorded.remove(&slot.slot);
                    self.disk.pending.push_back(Write::Remove(slot.slot));
                }
                Effect::Ended(ended) => self.note_end(*ended),
                Effect::SpareReady(slot) => {
                    let phase = self.pools.runner(&slot).map(|runner| runner.phase.kind());
                    assert_eq!(phase, Some(PhaseKind::Spare), "{slot}");
                }
                Effect::Adopted(_) => {}
            }
        }
    }

    fn note_end(&mut self, ended: Ended) {
        let invocation = ended.runner.invocation.clone();
        if let Some(invocation) = &invocation {
            let is_same = |other: &Ended| other.runner.invocation.as_ref() == Some(invocation);
            assert!(!self.ended.iter().any(is_same), "two verdicts: {ended:?}");
            let mut judged = self.disk.verdicts.iter();
            let is_judged = judged.any(|known| known.invocation.as_ref() == Some(invocation));
            assert!(!is_judged, "it was judged before a restart: {ended:?}");
        }
        self.recorded.remove(&ended.slot.slot);
        self.disk.pending.push_back(Write::Close(VerdictRecord {
            slot: ended.slot.clone(),
            verdict: ended.verdict,
            runner: ended.runner.name().map(ToString::to_string),
            runner_id: ended.runner.id(),
            job: None,
            ended_unix_ms: 0,
            asked_after_ms: None,
            listening_after_ms: None,
            lived_ms: 0,
            job_ms: None,
            exit: None,
            result: None,
            last_line: None,
            memory_peak_bytes: None,
            oom_kills: 0,
            invocation,
            phases: Vec::new(),
            cpu_ms: None,
            usage: ResourceUse::default(),
            generation: None,
            version: None,
        }));
        self.ended.push(ended);
    }

    /// Carries out one step. Its answer is on its way.
    fn carry_out_step(&mut self, slot: Slot, step: &Step) {
        let ok = !self.broken;
        match step {
            Step::Retire { .. } => {}
            Step::Start { .. } => {
                assert!(
                    !self.machines.contains_key(&slot),
                    "two containers in slot {slot}"
                );
                self.notes.remove(&slot);
                self.mail.push_back(Message::Started(slot, ok));
                if ok {
                    let invocation = invocation(self.fresh());
                    self.starts.insert(invocation.clone(), slot);
                    let machine = Machine {
                        invocation,
                        started_at: self.now,
                        requested: false,
                        active: false,
                        registered: None,
                        job: false,
                    };
                    self.machines.insert(slot, machine);
                    self.signal(slot);
                }
            }
            Step::Register { .. } => self.mint(slot),
            Step::Deregister { id, .. } => {
                let is_busy = self.github.get(id).is_some_and(|(_, busy)| *busy);
                let result = match (self.broken, is_busy) {
                    (true, _) => Err(None),
                    (false, true) => Ok(Deleted::Busy),
                    (false, false) => {
                        self.github.remove(id);
                        Ok(Deleted::Gone)
                    }
                };
                self.mail
                    .push_back(Message::Deregistered(slot, *id, result));
            }
            Step::Find { id, .. } => {
                let found = self.entries().into_iter().find(|entry| entry.id == *id);
                let result = if self.broken { Err(None) } else { Ok(found) };
                self.mail.push_back(Message::Found(slot, *id, result));
            }
            Step::End { .. } => {
                let is_busy = self.machines.get(&slot).is_some_and(|machine| machine.job);
                let phase = &self.pool().runners[&slot].phase;
                let cause = phase.cause().expect("only a retiring runner ends");
                assert!(
                    !is_busy || cause.may_end_a_job(),
                    "{cause} ended a job in slot {slot}"
                );
                self.mail.push_back(Message::EndRequested(slot, ok));
                if ok {
                    self.machine_ends(slot, 137);
                }
            }
        }
    }

    fn mint(&mut self, slot: Slot) {
        let id = RunnerId(self.fresh());
        #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
        let (name, effects) = self.pools.name_mint(&slot_id(slot), self.now, id.0 as u32);
        self.carry_out(effects);
        // Every other failed mint has registered the runner.
        let is_ambiguous = self.broken && id.0.is_multiple_of(2);
        if !self.broken || is_ambiguous {
            self.github.insert(id, (name.clone(), false));
        }
        let machine = self.machines.get_mut(&slot);
        let outcome = if self.broken {
            MintOutcome::Failed {
                failure: FailureKind::Mint,
                reason: "broken".into(),
                retry_after: None,
                is_ambiguous,
            }
        } else if let Some(machine) = machine.filter(|machine| machine.is_waiting()) {
            machine.registered = Some(id);
            MintOutcome::Delivered { id }
        } else {
            MintOutcome::Undelivered { id }
        };
        self.mail.push_back(Message::Minted(slot, name, outcome));
    }

    pub(super) fn deliver(&mut self, message: Message) {
        let (now, random) = (self.now, 7);
        let answer = |ok: bool| if ok { Ok(()) } else { Err("broken".to_owned()) };
        let pools = &mut self.pools;
        let effects = match message {
            Message::Unit(observation) => pools.unit_observed(*observation, now, random),
            Message::ConfigRequested(slot) => pools.config_requested(&slot_id(slot), now),
            Message::RequestDropped(slot) => pools.request_dropped(&slot_id(slot), now),
            Message::JobStarted(slot) => pools.job_started(&slot_id(slot), JobNote::default(), now),
            Message::Started(slot, ok) => {
                pools.start_answered(&slot_id(slot), answer(ok), now, random)
            }
            Message::Minted(slot, name, outcome) => {
                pools.mint_answered(&slot_id(slot), &name, outcome, now, random)
            }
            Message::Deregistered(slot, id, result) => {
                pools.deregistration_answered(&slot_id(slot), id, result, now, random)
            }
            Message::Found(slot, id, result) => {
                pools.find_answered(&slot_id(slot), id, result, now, random)
            }
            Message::EndRequested(slot, ok) => {
                pools.end_answered(&slot_id(slot), answer(ok), now, random)
            }
            Message::Deleted(id, result) => {
                pools.deletion_answered(&scope(), id, result, now, random);
                Vec::new()
            }
            Message::Observed(units, began) => pools.reconcile(units, began, now, random),
            Message::ListedEarly(list, requested_at) => {
                pools.listed_early(&scope(), &list, requested_at, now)
            }
        };
        self.carry_out(effects);
        self.check_records();
    }

    /// Delivers the message at an index. Messages of one slot keep their order, and the answer to an
    /// observation comes after the events before it.
    pub(super) fn deliver_at(&mut self, index: usize) {
        let Some(message) = self.mail.get(index).cloned() else {
            return;
        };
        let is_observed = matches!(message, Message::Observed(..));
        let slot = message.slot();
        let is_before = |other: &Message| {
            (is_observed && other.is_event()) || (slot.is_some() && other.slot() == slot)
        };
        let first = self.mail.iter().take(index).position(is_before);
        let delivered = self.mail.remove(first.unwrap_or(index));
        if let Some(delivered) = delivered {
            self.deliver(delivered);
        }
        if is_observed && first.is_some() {
            self.deliver_at(index - 1);
        }
    }

    pub(super) fn deliver_all(&mut self) {
        while let Some(message) = self.mail.pop_front() {
            self.deliver(message);
        }
    }

    /// Plans, and checks that a second plan at the same time returns nothing.
    pub(super) fn settle(&mut self, admission: Admission) {
        let effects = self.pools.plan(None, admission, self.now);
        self.carry_out(effects);
        assert!(
            self.pool().runners.len() <= usize::from(self.spec.numbers.max_runners),
            "more than max_runners"
        );
        let again = self.pools.plan(None, admission, self.now);
        assert_eq!(again, [], "planning does not settle: {:#?}", self.pool());
        self.check_records();
    }

    /// Lets boots, messages and plans go on until nothing happens.
    pub(super) fn run(&mut self, admission: Admission) {
        loop {
            self.settle(admission);
            let slots: Vec<Slot> = self.machines.keys().copied().collect();
            for slot in slots {
                self.boot(slot);
            }
            if self.mail.is_empty() {
                return;
            }
            self.deliver_all();
        }
    }

    /// Returns GitHub's entries as they are.
    fn entries(&self) -> Vec<ListedRunner> {
        let is_online = |id: &RunnerId| self.machines.values().any(|m| m.registered == Some(*id));
        let entries = self.github.iter();
        entries
            .map(|(id, (name, busy))| ListedRunner {
                id: *id,
                name: name.to_string(),
                online: is_online(id),
                busy: *busy,
                version: None,
            })
            .collect()
    }

    pub(super) fn list(&mut self) {
        let list = self.entries();
        let effects = self.pools.listed(&scope(), &list, self.now, self.now);
        self.carry_out(effects);
        self.check_records();
    }

    fn list_early(&mut self) {
        let listed = Message::ListedEarly(self.entries(), self.now);
        self.mail.push_back(listed);
    }

    pub(super) fn reconcile(&mut self) {
        let observed = Message::Observed(self.observe_all(), self.now);
        self.mail.push_back(observed);
    }

    pub(super) fn write(&mut self, count: usize) {
        let count = count.min(self.disk.pending.len());
        self.disk.flush(count);
    }

    pub(super) fn write_all(&mut self) {
        self.write(usize::MAX);
    }
}
