//! One simulated host: the core of a daemon, and the containers that it has.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::agenda::{Container, HostEvent};
use super::setup::Setup;
use super::times::Times;
use crate::config::{BOOTS_PER_CORE, PoolConfig, ScheduleEntry};
use crate::pool::{
    Admission, Effect, EndRecord, Exit, HostId, Invocation, JobTable, Jobs, ListedRunner, Numbers,
    Pace, Pools, Readings, Reserve, ResourceUse, RunnerId, RunnerName, ScopeId, Share, Shortages,
    SlotId, Step, Timestamp, UnitObservation, UnitState, shortages,
};

/// Time of a call to GitHub that changes or lists registrations, in milliseconds.
const CALL_MS: u64 = 300;
/// Memory that a host uses beside its containers: an estimate.
const OWN_MEMORY_BYTES: u64 = 512 << 20;
/// Memory that a container uses beside its job. A spare takes 11 MB, and one whose GitHub's listener waits 27 MB
/// (docs/sizing.md).
const CONTAINER_MEMORY_BYTES: u64 = 32 << 20;

/// Events that follow, each with its delay in milliseconds.
pub(super) type Follow = Vec<(u64, HostEvent)>;

/// A container, and what GitHub knows of its runner.
#[derive(Debug)]
pub(super) struct Machine {
    invocation: Invocation,
    scope: Option<ScopeId>,
    registered: Option<(RunnerId, RunnerName)>,
    is_online: bool,
    /// The job that its runner has.
    pub(super) job: Option<usize>,
    /// Memory that the job uses.
    memory_bytes: u64,
    /// True once its job has ended.
    is_done: bool,
}

/// One simulated host.
pub(super) struct Host<'s> {
    setup: &'s Setup<'s>,
    pub(super) pools: Pools,
    /// The jobs that the daemon knows, if the configuration has a source of them.
    pub(super) table: Option<JobTable>,
    pub(super) machines: BTreeMap<SlotId, Machine>,
    /// Time of the earliest wake that is to come.
    pub(super) wake_ms: Option<u64>,
    shortages: Shortages,
    /// Largest amount of memory that jobs used at once.
    pub(super) job_memory_peak_bytes: u64,
    random: ChaCha8Rng,
    count: u64,
}

impl<'s> Host<'s> {
    pub(super) fn new(setup: &'s Setup<'s>, id: HostId, random: ChaCha8Rng) -> Self {
        let config = setup.config;
        let scopes = config.scopes.iter();
        let scopes = scopes.map(|scope| (scope.scope_id(), Pace::new(scope.mints_per_minute)));
        let specs = config.pools.iter().map(|pool| {
            let mut spec = pool.spec(setup.cores.saturating_mul(BOOTS_PER_CORE));
            if let Some(numbers) = setup.numbers.get(&pool.name) {
                spec.numbers = *numbers;
                spec.slots = numbers.max_runners;
            }
            spec
        });
        let mut pools = Pools::new(id.clone(), "sizing".into(), scopes, specs);
        if setup.has_budget {
            pools.set_budget(config.budget);
        }
        let labels = || config.pools.iter().map(PoolConfig::pool_labels).collect();
        let table = || JobTable::new(id, labels(), config.order.clone());
        Self {
            setup,
            pools,
            table: config.knows_jobs().then(table),
            machines: BTreeMap::new(),
            wake_ms: None,
            shortages: Shortages::new(),
            job_memory_peak_bytes: 0,
            random,
            count: 0,
        }
    }

    /// Plans, and begins the steps that follow.
    pub(super) fn plan(&mut self, unix_ms: u64, now: Timestamp, times: &Times) -> Follow {
        let table = self.table.as_ref();
        let jobs = table.map(|table| Jobs { table, unix_ms });
        let admission = if self.shortages.is_empty() {
            Admission::Open
        } else {
            Admission::Closed
        };
        let effects = self.pools.plan(jobs, admission, now);
        let mut follow = self.carry_out(effects, now, times);
        let wake = self.pools.next_deadline(now).map(Timestamp::millis);
        if let Some(at_ms) = wake
            && self.wake_ms.is_none_or(|known| at_ms < known)
        {
            self.wake_ms = Some(at_ms);
            follow.push((at_ms.saturating_sub(now.millis()), HostEvent::Wake));
        }
        follow
    }

    /// Carries out effects. Records and messages have no consequence here.
    pub(super) fn carry_out(
        &mut self,
        effects: Vec<Effect>,
        now: Timestamp,
        times: &Times,
    ) -> Follow {
        let mut follow = Vec::new();
        for effect in effects {
            match effect {
                Effect::Step(slot, step) => follow.extend(self.step(slot, &step, now, times)),
                Effect::Delete(scope, id) => follow.push((CALL_MS, HostEvent::Deleted(scope, id))),
                Effect::ListEarly(scope) => {
                    self.pools.list_requested(&scope, now);
                    follow.push((CALL_MS, HostEvent::ListedEarly(scope, now)));
                }
                Effect::OrphanInUse(_)
                | Effect::NameInUse(_)
                | Effect::Stray(_)
                | Effect::ForgetStray(..)
                | Effect::Record(_)
                | Effect::Forget(_)
                | Effect::Ended(_)
                | Effect::SpareReady(_)
                | Effect::Adopted(_) => {}
            }
        }
        follow
    }

    fn step(&mut self, slot: SlotId, step: &Step, now: Timestamp, times: &Times) -> Follow {
        match step {
            Step::Start { .. } => self.start(slot, times),
            Step::Register { .. } => self.register(slot, now, times),
            Step::Retire { .. } => Vec::new(),
            Step::Deregister { id, .. } => vec![(CALL_MS, HostEvent::Deregistered(slot, *id))],
            Step::Find { id, .. } => vec![(CALL_MS, HostEvent::Found(slot, *id))],
            Step::End { .. } => {
                let gone = self.container(&slot).map(|container| {
                    let remove_ms = times.remove.draw(&mut self.random);
                    (remove_ms, HostEvent::Gone(container))
                });
                let answered = (0, HostEvent::EndAnswered(slot));
                [Some(answered), gone].into_iter().flatten().collect()
            }
        }
    }

    fn start(&mut self, slot: SlotId, times: &Times) -> Follow {
        self.count += 1;
        let Some(invocation) = Invocation::parse(&format!("{:032x}", self.count)) else {
            return Vec::new();
        };
        let pool = self.setup.config.pool(&slot.pool);
        let machine = Machine {
            invocation: invocation.clone(),
            scope: pool.map(|pool| pool.scope.clone()),
            registered: None,
            is_online: false,
            job: None,
            memory_bytes: CONTAINER_MEMORY_BYTES,
            is_done: false,
        };
        self.machines.insert(slot.clone(), machine);
        let container = Container { slot, invocation };
        let boot_ms = times.boot.draw(&mut self.random);
        vec![
            (0, HostEvent::Started(container.clone())),
            (boot_ms, HostEvent::Booted(container)),
        ]
    }

    fn register(&mut self, slot: SlotId, now: Timestamp, times: &Times) -> Follow {
        self.count += 1;
        let id = RunnerId(self.count);
        let number = u32::try_from(self.count).unwrap_or(u32::MAX);
        // The effects are writes to the records.
        let (name, _) = self.pools.name_mint(&slot, now, number);
        let Some(container) = self.container(&slot) else {
            return Vec::new();
        };
        let register_ms = times.register.draw(&mut self.random);
        let minted = HostEvent::Minted(container.clone(), name, id);
        vec![
            (register_ms / 2, minted),
            (register_ms, HostEvent::Online(container)),
        ]
    }

    fn container(&self, slot: &SlotId) -> Option<Container> {
        let machine = self.machines.get(slot)?;
        Some(Container {
            slot: slot.clone(),
            invocation: machine.invocation.clone(),
        })
    }

    /// Returns the container's machine, unless it is gone.
    pub(super) fn machine(&mut self, container: &Container) -> Option<&mut Machine> {
        let machine = self.machines.get_mut(&container.slot)?;
        (machine.invocation == container.invocation).then_some(machine)
    }

    /// Applies an event that only the core has to know.
    pub(super) fn apply(&mut self, event: HostEvent, now: Timestamp, times: &Times) -> Follow {
        let random = self.random.random();
        let effects = match event {
            HostEvent::Started(container) => {
                let mut effects = self
                    .pools
                    .start_answered(&container.slot, Ok(()), now, random);
                let seen = observation(&container, UnitState::Activating);
                effects.extend(self.pools.unit_observed(seen, now, random));
                effects
            }
            HostEvent::Booted(container) => {
                let seen = observation(&container, UnitState::Active);
                let mut effects = self.pools.unit_observed(seen, now, random);
                effects.extend(self.pools.config_requested(&container.slot, now));
                effects
            }
            HostEvent::Minted(container, name, id) => self.minted(&container, &name, id, now),
            HostEvent::EndAnswered(slot) => self.pools.end_answered(&slot, Ok(()), now, random),
            HostEvent::Deregistered(slot, id) => {
                let result = Ok(self.delete(&slot, id));
                (self.pools).deregistration_answered(&slot, id, result, now, random)
            }
            HostEvent::Found(slot, id) => {
                let found = self.entries(None).into_iter().find(|entry| entry.id == id);
                self.pools.find_answered(&slot, id, Ok(found), now, random)
            }
            HostEvent::Deleted(scope, id) => {
                let gone = Ok(crate::pool::Deleted::Gone);
                self.pools.deletion_answered(&scope, id, gone, now, random);
                Vec::new()
            }
            HostEvent::ListedEarly(scope, requested_at) => {
                let list = self.entries(Some(&scope));
                self.pools.listed_early(&scope, &list, requested_at, now)
            }
            HostEvent::Gone(container) => self.gone(&container, now, random),
            HostEvent::Wake
            | HostEvent::Told(..)
            | HostEvent::Online(_)
            | HostEvent::JobStarts(..)
            | HostEvent::JobEnds(..)
            | HostEvent::Reconcile => Vec::new(),
        };
        self.carry_out(effects, now, times)
    }

    fn minted(
        &mut self,
        container: &Container,
        name: &RunnerName,
        id: RunnerId,
        now: Timestamp,
    ) -> Vec<Effect> {
        let outcome = match self.machine(container) {
            Some(machine) => {
                machine.registered = Some((id, name.clone()));
                crate::pool::MintOutcome::Delivered { id }
            }
            None => crate::pool::MintOutcome::Undelivered { id },
        };
        let random = self.random.random();
        (self.pools).mint_answered(&container.slot, name, outcome, now, random)
    }

    /// Deletes a registration, unless its runner has a job.
    fn delete(&mut self, slot: &SlotId, id: RunnerId) -> crate::pool::Deleted {
        let machine = self.machines.get_mut(slot);
        let machine = machine.filter(|m| m.registered.as_ref().is_some_and(|(own, _)| *own == id));
        match machine {
            Some(machine) if machine.job.is_some() => crate::pool::Deleted::Busy,
            Some(machine) => {
                (machine.registered, machine.is_online) = (None, false);
                crate::pool::Deleted::Gone
            }
            None => crate::pool::Deleted::Gone,
        }
    }

    fn gone(&mut self, container: &Container, now: Timestamp, random: u32) -> Vec<Effect> {
        let Some(machine) = self.machine(container) else {
            return Vec::new();
        };
        let is_done = machine.is_done;
        self.machines.remove(&container.slot);
        let mut seen = observation(container, UnitState::Inactive);
        seen.end = Some(EndRecord {
            invocation: container.invocation.clone(),
            service_result: "success".into(),
            // 100 is the status of a listener whose job succeeded.
            exit: Exit::Status(if is_done { 100 } else { 137 }),
            memory_peak_bytes: None,
            oom_kills: 0,
            cpu_ms: None,
            usage: ResourceUse::default(),
            stop_requested: !is_done,
            returns_result: true,
            last_line: None,
            listening_at: None,
            at: now,
        });
        self.pools.unit_observed(seen, now, random)
    }

    /// Lets a listener wait for a job. Returns false if its container or its registration is gone.
    pub(super) fn online(&mut self, container: &Container) -> bool {
        let Some(machine) = self.machine(container) else {
            return false;
        };
        machine.is_online = machine.registered.is_some();
        machine.is_online
    }

    /// Gives the runner in a slot a job that needs this much memory. Returns its container.
    pub(super) fn take(&mut self, slot: &SlotId, job: usize, memory: u64) -> Option<Container> {
        let pool = self.setup.config.pool(&slot.pool)?;
        let machine = self.machines.get_mut(slot)?;
        machine.job = Some(job);
        machine.memory_bytes = (CONTAINER_MEMORY_BYTES + memory).min(pool.limits.memory.0);
        self.read_memory();
        self.container(slot)
    }

    /// Ends the job of a container. Returns false if that is gone.
    pub(super) fn end_job(&mut self, container: &Container) -> bool {
        let Some(machine) = self.machine(container) else {
            return false;
        };
        (machine.registered, machine.is_online, machine.is_done) = (None, false, true);
        machine.memory_bytes = CONTAINER_MEMORY_BYTES;
        self.read_memory();
        true
    }

    /// Reads the memory that is left, as the daemon does every two seconds.
    fn read_memory(&mut self) {
        let machines = self.machines.values();
        let used: u64 = machines.map(|machine| machine.memory_bytes).sum();
        self.job_memory_peak_bytes = self.job_memory_peak_bytes.max(used);
        let Some(whole) = self.setup.memory_bytes else {
            return;
        };
        let left = whole.saturating_sub(used + OWN_MEMORY_BYTES);
        let readings = Readings {
            memory: Some(Share { whole, left }),
            ..Readings::default()
        };
        let reserve = Reserve {
            memory_bytes: self.setup.config.reserve.memory.map(|memory| memory.0),
            ..Reserve::default()
        };
        self.shortages = shortages(&readings, &reserve, &self.shortages);
    }

    /// Returns true while no runner starts, because the host runs short of memory.
    pub(super) fn is_closed(&self) -> bool {
        !self.shortages.is_empty()
    }

    /// Reconciles: applies GitHub's lists, and the hours of schedules.
    pub(super) fn reconcile(&mut self, unix_ms: u64, now: Timestamp, times: &Times) -> Follow {
        for pool in &self.setup.config.pools {
            if pool.schedule.is_empty() {
                continue;
            }
            let scheduled = pool.scheduled(unix_ms).map(ScheduleEntry::numbers);
            let numbers = scheduled.unwrap_or_else(|| pool.numbers());
            let numbers = match self.setup.numbers.get(&pool.name) {
                Some(asked) => at_least(numbers, *asked),
                None => numbers,
            };
            self.pools.set_numbers(&pool.name, numbers);
        }
        let mut follow = Vec::new();
        for scope in &self.setup.config.scopes {
            let scope = scope.scope_id();
            let list = self.entries(Some(&scope));
            self.pools.list_requested(&scope, now);
            let effects = self.pools.listed(&scope, &list, now, now);
            follow.extend(self.carry_out(effects, now, times));
        }
        follow
    }

    /// Returns GitHub's list of a scope, or of all scopes.
    fn entries(&self, scope: Option<&ScopeId>) -> Vec<ListedRunner> {
        let is_of = |machine: &&Machine| scope.is_none() || machine.scope.as_ref() == scope;
        let machines = self.machines.values().filter(is_of);
        let entries = machines.filter_map(|machine| {
            let (id, name) = machine.registered.as_ref()?;
            Some(ListedRunner {
                id: *id,
                name: name.to_string(),
                online: machine.is_online,
                busy: machine.job.is_some(),
                version: None,
            })
        });
        entries.collect()
    }

    /// Returns the name of the runner in a slot.
    pub(super) fn runner_name(&self, slot: &SlotId) -> Option<String> {
        let machine = self.machines.get(slot)?;
        Some(machine.registered.as_ref()?.1.to_string())
    }
}

/// Returns numbers of a schedule, raised to those that are asked for in their place.
fn at_least(scheduled: Numbers, asked: Numbers) -> Numbers {
    Numbers {
        min_idle: scheduled
            .min_idle
            .max(asked.min_idle)
            .min(asked.max_runners),
        min_spare: scheduled.min_spare,
        max_runners: asked.max_runners,
    }
}

fn observation(container: &Container, state: UnitState) -> UnitObservation {
    UnitObservation {
        slot: container.slot.clone(),
        state,
        invocation: Some(container.invocation.clone()),
        start: None,
        end: None,
    }
}
