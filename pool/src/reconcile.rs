//! Full comparisons: every unit that systemd has, and every runner that GitHub lists.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::Effect;
use super::names::{PoolName, RunnerName, Slot, SlotId};
use super::observation::{EndRecord, ListedRunner, RunnerId, UnitObservation};
use super::orphans::Owner;
use super::pools::Pools;
use super::runner::{Phase, RunnerRecord};
use super::scope::ScopeId;
use super::state::Pool;
use super::time::Timestamp;

impl Pools {
    /// Applies an observation of all units that began at `began`.
    ///
    /// It says nothing about a slot with a newer call or observation, because it may have been answered
    /// before that and be applied only now.
    #[must_use]
    pub fn reconcile(
        &mut self,
        observations: Vec<UnitObservation>,
        began: Timestamp,
        now: Timestamp,
        random: u32,
    ) -> Vec<Effect> {
        let is_news = |slot: &SlotId| {
            let pool = self.by_name.get(&slot.pool);
            pool.is_none_or(|pool| !pool.has_newer_observation(slot.slot, began))
        };
        let observed: BTreeMap<SlotId, UnitObservation> = observations
            .into_iter()
            .filter(|unit| is_news(&unit.slot))
            .map(|unit| (unit.slot.clone(), unit))
            .collect();
        let occupied: Vec<SlotId> = self.occupied().filter(|slot| is_news(slot)).collect();
        let mut effects = Vec::new();
        for slot in occupied {
            let end: Option<EndRecord> = match observed.get(&slot) {
                Some(unit) if unit.is_alive() => continue,
                Some(unit) => unit.end.clone(),
                None => None,
            };
            effects.extend(self.change(&slot, now, |pool| {
                pool.unit_missing(slot.slot, end, now, random)
            }));
        }
        for unit in observed.into_values().filter(UnitObservation::is_alive) {
            effects.extend(self.unit_observed(unit, now, random));
        }
        effects
    }

    /// Applies GitHub's whole list of a scope, which was requested at `requested_at`.
    #[must_use]
    pub fn listed(
        &mut self,
        scope: &ScopeId,
        list: &[ListedRunner],
        requested_at: Timestamp,
        now: Timestamp,
    ) -> Vec<Effect> {
        let before: Vec<Option<RunnerRecord>> =
            self.occupied().map(|slot| self.record(&slot)).collect();
        let by_name: BTreeMap<&str, &ListedRunner> =
            list.iter().map(|r| (r.name.as_str(), r)).collect();
        let mut scopes: BTreeSet<ScopeId> = self.scopes.keys().cloned().collect();
        scopes.insert(scope.clone());
        for (name, by_slot) in self.likely_by_slot(list) {
            if let Some(pool) = self.by_name.get_mut(&name) {
                pool.listed(scope, &by_name, &by_slot, &scopes, requested_at, now);
            }
        }
        let runners = self.by_name.values().flat_map(|pool| pool.runners.values());
        let named: BTreeSet<&RunnerName> = runners.filter_map(|runner| runner.name()).collect();
        // A runner whose record was lost has a job under a name that only GitHub knows.
        let is_nameless = |slot: &SlotId| {
            let runner = self.by_name.get(&slot.pool);
            let runner = runner.and_then(|pool| pool.runners.get(&slot.slot));
            runner.is_some_and(|runner| runner.name().is_none() && may_have_a_job(&runner.phase))
        };
        let nameless: BTreeSet<SlotId> = self.occupied().filter(is_nameless).collect();
        let claiming: BTreeSet<SlotId> = self
            .occupied()
            .filter(|slot| self.runner(slot).is_some_and(|runner| runner.is_claimed))
            .collect();
        let owner = |name: &RunnerName| {
            if named.contains(name) || nameless.contains(&name.slot) {
                Owner::Runner
            } else if claiming.contains(&name.slot) {
                Owner::Unclear
            } else {
                Owner::Nobody
            }
        };
        let state = self.scopes.entry(scope.clone()).or_default();
        let foreign = (state.orphans).listed(&self.host, list, owner, requested_at, now);
        // A list changes runners, and vacates no slot.
        let after = self.occupied().map(|slot| self.record(&slot));
        let changed = after.zip(before).filter(|(after, before)| after != before);
        let mut effects: Vec<Effect> = changed
            .filter_map(|(after, _)| Some(Effect::Record(Box::new(after?))))
            .collect();
        effects.extend(foreign.into_iter().map(Effect::NameInUse));
        effects
    }

    /// Notes that the list of a scope is requested.
    pub fn list_requested(&mut self, scope: &ScopeId, now: Timestamp) {
        let state = self.scopes.get_mut(scope);
        if let Some(minting) = state.and_then(|state| state.minting.as_mut()) {
            minting.early_lists.requested(now);
        }
    }

    /// Returns the times of the next early lists, each with its scope.
    pub(super) fn early_lists(&self) -> impl Iterator<Item = (&ScopeId, Timestamp)> {
        self.configured().filter_map(|(scope, state)| {
            let wanted = self.iter().flat_map(|pool| pool.wanted_lists(scope));
            let at = state.minting.as_ref()?.early_lists.next(wanted)?;
            Some((scope, at))
        })
    }

    /// Begins the early lists that are due.
    pub(super) fn begin_early_lists(&mut self, now: Timestamp) -> Vec<Effect> {
        let due = self.early_lists().filter(|(_, at)| *at <= now);
        let due: Vec<ScopeId> = due.map(|(scope, _)| scope.clone()).collect();
        for scope in &due {
            let state = self.scopes.get_mut(scope);
            if let Some(minting) = state.and_then(|state| state.minting.as_mut()) {
                minting.early_lists.begin(now);
            }
        }
        due.into_iter().map(Effect::ListEarly).collect()
    }

    /// Applies an early list of a scope, which was requested at `requested_at`.
    #[must_use]
    pub fn listed_early(
        &mut self,
        scope: &ScopeId,
        list: &[ListedRunner],
        requested_at: Timestamp,
        now: Timestamp,
    ) -> Vec<Effect> {
        let by_name: BTreeMap<&str, &ListedRunner> =
            list.iter().map(|r| (r.name.as_str(), r)).collect();
        let slots: Vec<SlotId> = self.occupied().collect();
        let mut effects = Vec::new();
        for slot in slots {
            effects.extend(self.change(&slot, now, |pool| {
                pool.listed_early(slot.slot, scope, &by_name, requested_at, now);
                None
            }));
        }
        effects
    }

    /// Returns for each pool the entry of the list that most likely is the runner in each slot.
    ///
    /// A slot may be in several names. A busy entry is more likely than an online one, and that than
    /// the newest.
    fn likely_by_slot(
        &self,
        list: &[ListedRunner],
    ) -> BTreeMap<PoolName, BTreeMap<Slot, (RunnerName, RunnerId)>> {
        let mut by_likelihood: Vec<&ListedRunner> = list.iter().collect();
        by_likelihood.sort_by_key(|r| (r.busy, r.online, r.id));
        let mut likely: BTreeMap<_, BTreeMap<_, _>> = self
            .by_name
            .keys()
            .map(|name| (name.clone(), BTreeMap::new()))
            .collect();
        for listed in by_likelihood {
            if let Some(name) = RunnerName::parse(&self.host, &listed.name)
                && !self.has_ended(&name)
                && let Some(slots) = likely.get_mut(&name.slot.pool)
            {
                slots.insert(name.slot.slot, (name, listed.id));
            }
        }
        likely
    }

    fn occupied(&self) -> impl Iterator<Item = SlotId> {
        self.iter().flat_map(occupied)
    }
}

/// Returns true if a runner in this phase may run a job, also while a clean-up ends it.
fn may_have_a_job(phase: &Phase) -> bool {
    match phase {
        Phase::Busy => true,
        Phase::Retiring {
            deregister_first, ..
        } => !deregister_first,
        Phase::Booting | Phase::Spare | Phase::Minting | Phase::Registering | Phase::Idle => false,
    }
}

fn occupied(pool: &Pool) -> impl Iterator<Item = SlotId> {
    pool.runners.keys().map(|slot| pool.slot_id(*slot))
}
