//! All pools of a host, and the scopes in which their runners register.
//!
//! Each method applies one event, or plans, and returns the [`Effect`]s that follow. Between them the
//! record of every slot on disk is to be the one that [`Pools::record`] returns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::backoff::FailureKind;
use super::effect::Effect;
use super::names::{HostId, PoolName, RunnerName, SlotId};
use super::observation::{Deleted, JobNote, ListedRunner, RunnerId, UnitObservation};
use super::orphans::{Orphans, StrayRecord};
use super::pace::Pace;
use super::phase::PhaseKind;
use super::plan::{Admission, next_deadline, plan};
use super::registration::MintOutcome;
use super::runner::{Ended, Runner, RunnerRecord};
use super::schedule::{Budget, Jobs, Schedule};
use super::scope::ScopeId;
use super::scope_state::ScopeState;
use super::spec::{Numbers, Spec};
use super::state::Pool;
use super::step::Step;
use super::time::Timestamp;

/// Maximum number of plans in a row. A retirement needs no work, so the step that follows
/// it comes from the next plan.
const PLAN_ROUNDS: usize = 4;

/// All pools of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pools {
    pub(super) host: HostId,
    pub(super) boot_id: String,
    pub(super) by_name: BTreeMap<PoolName, Pool>,
    /// The configured scopes, and former ones in which something may be left.
    pub(super) scopes: BTreeMap<ScopeId, ScopeState>,
    /// Resources that all runners of the host may take together.
    pub(super) budget: Budget,
    pub(super) schedule: Schedule,
    /// Records of orphaned registrations, as the effects left them.
    strays: BTreeMap<(ScopeId, RunnerId), StrayRecord>,
}

impl Pools {
    /// Returns empty pools, whose runners register in `scopes`, in each at its pace. `boot_id` is the id of
    /// the boot in which timestamps are counted.
    #[must_use]
    pub fn new(
        host: HostId,
        boot_id: String,
        scopes: impl IntoIterator<Item = (ScopeId, Pace)>,
        specs: impl IntoIterator<Item = Spec>,
    ) -> Self {
        let pools = specs.into_iter();
        let scopes = scopes.into_iter();
        Self {
            host,
            boot_id,
            by_name: pools
                .map(|spec| (spec.name.clone(), Pool::new(spec)))
                .collect(),
            scopes: scopes
                .map(|(scope, pace)| (scope, ScopeState::configured(pace)))
                .collect(),
            budget: Budget::default(),
            schedule: Schedule::default(),
            strays: BTreeMap::new(),
        }
    }

    /// Bounds what all runners of the host may take together.
    pub fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// Sets the numbers of runners that a pool wants from now on. Runners with a job run on.
    pub fn set_numbers(&mut self, pool: &PoolName, numbers: Numbers) {
        if let Some(pool) = self.by_name.get_mut(pool) {
            pool.spec.numbers = numbers;
        }
    }

    /// Returns the pools by name: those that are configured, and those that have adopted runners.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.by_name.values()
    }

    /// Returns true if every slot is vacant.
    #[must_use]
    pub fn is_vacant(&self) -> bool {
        self.iter().all(|pool| pool.runners.is_empty())
    }

    /// Returns the runner in a slot.
    #[must_use]
    pub fn runner(&self, slot: &SlotId) -> Option<&Runner> {
        self.by_name.get(&slot.pool)?.runners.get(&slot.slot)
    }

    /// Returns the record of the runner in a slot, as it should be on disk.
    #[must_use]
    pub fn record(&self, slot: &SlotId) -> Option<RunnerRecord> {
        let runner = self.runner(slot)?;
        Some(RunnerRecord::of(runner, slot.clone(), self.boot_id.clone()))
    }

    /// Plans every pool and begins the steps. `jobs` has the jobs that wait, if the host knows them.
    ///
    /// Settles: planning again at the same time returns no effects.
    #[must_use]
    pub fn plan(
        &mut self,
        jobs: Option<Jobs<'_>>,
        admission: Admission,
        now: Timestamp,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..PLAN_ROUNDS {
            self.make_schedule(jobs, now);
            let steps = self.begin_steps(admission, now);
            if steps.is_empty() {
                break;
            }
            effects.extend(steps);
        }
        effects.extend(self.begin_deletion(now));
        effects.extend(self.begin_early_lists(now));
        effects.extend(self.record_strays());
        effects
    }

    /// Returns the number of registrations that the scope of a pool allows now.
    pub(crate) fn mint_quota(&self, pool: &Pool, now: Timestamp) -> usize {
        let scope = pool.spec.scope.as_ref();
        let state = scope.and_then(|scope| self.scopes.get(scope));
        state.map_or(0, |state| state.mint_quota(now))
    }

    /// Plans every pool once and begins the steps.
    fn begin_steps(&mut self, admission: Admission, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let names: Vec<PoolName> = self.by_name.keys().cloned().collect();
        for name in names {
            let Some(pool) = self.by_name.get_mut(&name) else {
                continue;
            };
            let scope = pool.spec.scope.as_ref();
            let state = scope.and_then(|scope| self.scopes.get(scope));
            pool.mint_quota = state.map_or(0, |state| state.mint_quota(now));
            for step in plan(pool, admission, now) {
                let slot = SlotId {
                    pool: name.clone(),
                    slot: step.slot(),
                };
                if matches!(step, Step::Register { .. })
                    && let Some(minting) = self.minting_of(&slot)
                {
                    minting.pace.begin(now);
                }
                effects.extend(self.change(&slot, now, |pool| {
                    pool.begin(&step, now);
                    None
                }));
                effects.push(Effect::Step(slot, step));
            }
        }
        effects
    }

    /// Returns the first time after `now` at which [`Pools::plan`] may return effects although no event
    /// arrived.
    #[must_use]
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let pools = self.iter().filter_map(|pool| next_deadline(pool, now));
        let scopes = self.scopes.values();
        let deletions = scopes.clone().filter_map(ScopeState::next_deletion);
        let lists = self.early_lists().map(|(_, at)| at);
        let later = deletions.chain(lists).filter(|at| *at > now);
        let mints = scopes.filter_map(|state| state.next_mint(now));
        pools.chain(later).chain(mints).min()
    }

    /// Begins the next deletion of each scope. One at a time, because bursts are what GitHub's secondary
    /// rate limits are for.
    fn begin_deletion(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let by_name = &self.by_name;
        let is_owned = |scope: &ScopeId, id| {
            let mut runners = by_name.values().flat_map(|pool| pool.runners.values());
            runners.any(|runner| runner.id() == Some(id) && runner.scope() == Some(scope))
        };
        for (scope, state) in &mut self.scopes {
            let orphans = &mut state.orphans;
            if orphans.is_deleting() {
                continue;
            }
            for id in orphans.due(now) {
                if is_owned(scope, id) {
                    orphans.remove(id);
                    effects.push(Effect::OrphanInUse(id));
                    continue;
                }
                orphans.begin_deletion(id);
                effects.push(Effect::Delete(scope.clone(), id));
                break;
            }
        }
        effects
    }

    /// Takes over the orphaned registrations of an earlier daemon. Those of another boot are as old as
    /// this boot.
    pub(super) fn restore_strays(&mut self, records: Vec<StrayRecord>) {
        for mut record in records {
            if record.boot_id != self.boot_id {
                record.first_seen = Timestamp::default();
            }
            let key = (record.scope.clone(), record.id);
            self.strays.insert(key, record.clone());
            self.orphans_of(&record.scope.clone()).restore(record);
        }
    }

    fn orphans_of(&mut self, scope: &ScopeId) -> &mut Orphans {
        &mut self.scopes.entry(scope.clone()).or_default().orphans
    }

    /// Returns the writes that bring the records of orphaned registrations up to date.
    fn record_strays(&mut self) -> Vec<Effect> {
        let mut now = BTreeMap::new();
        for (scope, state) in &self.scopes {
            for (id, record) in state.orphans.records(scope, &self.boot_id) {
                now.insert((scope.clone(), id), record);
            }
        }
        let before = std::mem::replace(&mut self.strays, now);
        let gone = before.keys().filter(|key| !self.strays.contains_key(key));
        let gone = gone.map(|(scope, id)| Effect::ForgetStray(scope.clone(), *id));
        let changed = self.strays.iter();
        let changed = changed.filter(|(key, record)| before.get(key) != Some(record));
        let changed = changed.map(|(_, record)| Effect::Stray(Box::new(record.clone())));
        changed.chain(gone).collect()
    }

    /// Applies a change to the pool of a slot, and returns what follows for the slot's record.
    pub(super) fn change(
        &mut self,
        slot: &SlotId,
        now: Timestamp,
        change: impl FnOnce(&mut Pool) -> Option<Ended>,
    ) -> Vec<Effect> {
        let before = self.record(slot);
        let Some(pool) = self.by_name.get_mut(&slot.pool) else {
            return Vec::new();
        };
        let ended = change(pool);
        let after = self.record(slot);
        let mut effects = Vec::new();
        // The verdict replaces the record, and another runner may be in the slot already.
        let kept = if let Some(ended) = ended {
            effects.push(self.end(ended, now));
            None
        } else {
            before
        };
        if kept != after {
            let phase = |record: &Option<RunnerRecord>| record.as_ref().map(|r| r.phase);
            let spare = Some(PhaseKind::Spare);
            if phase(&after) == spare && phase(&kept) != spare {
                effects.push(Effect::SpareReady(slot.clone()));
            }
            effects.push(match after {
                Some(record) => Effect::Record(Box::new(record)),
                None => Effect::Forget(slot.clone()),
            });
        }
        effects
    }

    /// Remembers the end of a runner: its name, and the registration that it may have left.
    pub(super) fn end(&mut self, ended: Ended, now: Timestamp) -> Effect {
        if let Some(name) = ended.runner.name() {
            self.add_ended(name, now);
        }
        // Without its scope the id may be another runner's. The list of its scope shows it as a stray.
        if let Some(registration) = &ended.orphan
            && let (Some(id), Some(scope)) = (registration.id, &registration.scope)
        {
            let was_listed = ended.runner.was_listed;
            self.orphans_of(scope)
                .add(id, registration.name.clone(), was_listed, now);
        }
        Effect::Ended(Box::new(ended))
    }

    /// Applies a reading of the slots whose links have no address.
    ///
    /// A container that boots has none yet, so only an active unit counts.
    pub fn links_read(&mut self, without_address: &BTreeSet<SlotId>) {
        for pool in self.by_name.values_mut() {
            let name = pool.spec.name.clone();
            for (slot, runner) in &mut pool.runners {
                let slot = *slot;
                let pool = name.clone();
                let is_bare = runner.active && without_address.contains(&SlotId { pool, slot });
                runner.bare_readings = if is_bare {
                    runner.bare_readings.saturating_add(1)
                } else {
                    0
                };
            }
        }
    }

    /// Applies a request of a slot's container for its JIT config.
    #[must_use]
    pub fn config_requested(&mut self, slot: &SlotId, now: Timestamp) -> Vec<Effect> {
        self.change(slot, now, |pool| {
            pool.config_requested(slot.slot, now);
            None
        })
    }

    /// Applies the loss of the connection that waited for a JIT config.
    #[must_use]
    pub fn request_dropped(&mut self, slot: &SlotId, now: Timestamp) -> Vec<Effect> {
        self.change(slot, now, |pool| {
            pool.request_dropped(slot.slot, now);
            None
        })
    }

    /// Applies the job-started report of a slot's job.
    #[must_use]
    pub fn job_started(&mut self, slot: &SlotId, note: JobNote, now: Timestamp) -> Vec<Effect> {
        self.change(slot, now, |pool| {
            pool.job_started(slot.slot, note, now);
            None
        })
    }

    /// Applies an observation of a unit. Units of pools that are not known are ignored.
    #[must_use]
    pub fn unit_observed(
        &mut self,
        observation: UnitObservation,
        now: Timestamp,
        random: u32,
    ) -> Vec<Effect> {
        let slot = observation.slot.clone();
        self.change(&slot, now, |pool| {
            pool.unit_observed(observation, now, random)
        })
    }

    /// Applies the answer to a start call.
    #[must_use]
    pub fn start_answered(
        &mut self,
        slot: &SlotId,
        result: Result<(), String>,
        now: Timestamp,
        random: u32,
    ) -> Vec<Effect> {
        self.change(slot, now, |pool| {
            pool.start_answered(slot.slot, result, now, random);
            None
        })
    }

    /// Applies the answer to a stop or kill call.
    #[must_use]
    pub fn end_answered(
        &mut self,
        slot: &SlotId,
        result: Result<(), String>,
        now: Timestamp,
        random: u32,
    ) -> Vec<Effect> {
        self.change(slot, now, |pool| {
            pool.end_answered(slot.slot, result, now, random);
            None
        })
    }

    /// Returns the name for a mint that has begun. No earlier mint may have used `random`.
    #[must_use]
    pub fn name_mint(
        &mut self,
        slot: &SlotId,
        now: Timestamp,
        random: u32,
    ) -> (RunnerName, Vec<Effect>) {
        let name = RunnerName::new(self.host.clone(), slot.clone(), random);
        let effects = self.change(slot, now, |pool| {
            pool.name_mint(slot.slot, name.clone());
            None
        });
        (name, effects)
    }

    /// Applies the result of a mint.
    #[must_use]
    pub fn mint_answered(
        &mut self,
        slot: &SlotId,
        name: &RunnerName,
        outcome: MintOutcome,
        now: Timestamp,
        random: u32,
    ) -> Vec<Effect> {
        if let MintOutcome::Failed {
            is_ambiguous: true, ..
        } = outcome
            && let Some(state) = self.scope_of(slot)
        {
            state.orphans.add_unconfirmed(name.clone(), now);
        }
        let mut orphan = None;
        let effects = self.change(slot, now, |pool| {
            orphan = pool.mint_answered(slot.slot, name, outcome, now, random);
            None
        });
        if let Some(id) = orphan
            && let Some(state) = self.scope_of(slot)
        {
            state.orphans.add(id, name.clone(), false, now);
        }
        effects
    }

    /// Applies the answer to the deregistration of a retiring runner. An error carries the delay that
    /// GitHub requested.
    #[must_use]
    pub fn deregistration_answered(
        &mut self,
        slot: &SlotId,
        id: RunnerId,
        result: Result<Deleted, Option<Duration>>,
        now: Timestamp,
        random: u32,
    ) -> Vec<Effect> {
        self.change(slot, now, |pool| {
            pool.deregistration_answered(slot.slot, id, result, now, random);
            None
        })
    }

    /// Applies the answer to the question for one runner of a scope, which lists do not have. An error
    /// carries the delay that GitHub requested.
    #[must_use]
    pub fn find_answered(
        &mut self,
        slot: &SlotId,
        id: RunnerId,
        result: Result<Option<ListedRunner>, Option<Duration>>,
        now: Timestamp,
        random: u32,
    ) -> Vec<Effect> {
        self.change(slot, now, |pool| {
            pool.find_answered(slot.slot, id, result, now, random);
            None
        })
    }

    /// Applies the answer to the deletion of an orphaned registration. An error carries the delay that
    /// GitHub requested.
    pub fn deletion_answered(
        &mut self,
        scope: &ScopeId,
        id: RunnerId,
        result: Result<Deleted, Option<Duration>>,
        now: Timestamp,
        random: u32,
    ) {
        match result {
            Ok(Deleted::Gone | Deleted::Busy) => self.orphans_of(scope).deletion_succeeded(id),
            Err(retry_after) => {
                (self.orphans_of(scope)).deletion_failed(id, retry_after, now, random);
            }
        }
    }

    /// Replaces the reason of a pool's last failure of a kind by a better one.
    pub fn explain(&mut self, pool: &PoolName, failure: FailureKind, explanation: String) {
        if let Some(pool) = self.by_name.get_mut(pool) {
            pool.backoffs.explain(failure, explanation);
        }
    }

    /// Forgets all delays, because an operator says that the causes are fixed.
    pub fn reset_backoffs(&mut self) {
        for pool in self.by_name.values_mut() {
            pool.backoffs.reset();
            for runner in pool.runners.values_mut() {
                runner.retry_at = None;
            }
        }
        for state in self.scopes.values_mut() {
            state.orphans.reset_backoff();
        }
    }
}
