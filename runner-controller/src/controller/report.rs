//! The status document, from the state of the controller.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use super::history::millis;
use super::{Controller, STATUS_INTERVAL};
use crate::config::GitHubConfig;
use crate::pool::{
    MAX_ORPHANS, Mode, Orphans, Pace, PaceReason, PhaseKind, Pool, Runner, SLOW_MINTS_PER_MINUTE,
    ScopeId, ScopeState, TableEntry, Timestamp, WaitReason, wait_reason,
};
use crate::status::{
    BackoffStatus, BudgetResource, BudgetUse, DaemonState, FormerScopeStatus, Gate, GateStatus,
    GitHubStatus, JobStatus, PaceStatus, PoolStatus, RunnerStatus, ScopeStatus, Status,
    TargetStatus, VERSION, Wanted,
};
use crate::world::{Handshake, Machines, Records, Registry};

fn runner_status(pool: &Pool, runner: &Runner, now: Timestamp) -> RunnerStatus {
    RunnerStatus {
        cause: runner.phase.cause(),
        unreachable: runner.is_unreachable(),
        address_lost: runner.has_lost_address(),
        age_ms: millis(now.since(runner.started_at)),
        phase_ms: millis(now.since(runner.since)),
        phases: runner.timeline.since(runner.started_at),
        runner: runner.name().map(ToString::to_string),
        runner_id: runner.id(),
        invocation: runner.invocation.clone(),
        version: runner.version,
        job: runner.job.as_ref().map(|job| JobStatus {
            note: job.note.clone(),
            running_ms: millis(now.since(job.since)),
            timeout_ms: Some(millis(pool.spec.timeouts.job)),
        }),
        ..RunnerStatus::new(pool.slot_id(runner.slot), runner.phase.kind())
    }
}

fn pace_status(pace: &Pace, now: Timestamp) -> PaceStatus {
    let (bound, paced_by) = pace.bound(now);
    PaceStatus {
        mints_per_minute: bound as u64,
        configured: pace.configured() as u64,
        last_minute: pace.recent(now).count() as u64,
        paced_by,
    }
}

/// Returns the reason for which registrations wait, in words. `key` is that of the configured maximum.
fn pace_reason(pace: &PaceStatus, key: &str) -> String {
    let (bound, configured) = (pace.mints_per_minute, pace.configured);
    match pace.paced_by {
        PaceReason::Configured => {
            format!("paced by {key}: at most {bound} registrations a minute")
        }
        PaceReason::Refused => format!(
            "paced by GitHub's refusals: at most {bound} registrations a minute; \
             each minute without a refusal allows more, up to {configured}"
        ),
        PaceReason::Window => format!(
            "paced by GitHub's rate limit, of which little is left: \
             at most {bound} registrations a minute until its reset"
        ),
    }
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// Publishes the status if it may have changed, and the last one is not too new. Otherwise returns the time at which
    /// that is due.
    pub(super) fn publish_in_time(&mut self) -> Option<Timestamp> {
        if !self.is_stale {
            return None;
        }
        let now = (self.environment.now)();
        let runners: usize = self.pools.iter().map(|pool| pool.runners.len()).sum();
        let interval = STATUS_INTERVAL * u32::try_from(runners).unwrap_or(u32::MAX);
        let due = self.published_at + interval;
        if now < due {
            return Some(due);
        }
        self.publish();
        (self.published_at, self.is_stale) = (now, false);
        None
    }

    /// Publishes the status as it is now.
    pub(super) fn publish(&self) {
        let now = (self.environment.now)();
        let conditions = &self.conditions;
        let is_shown =
            |pool: &&Pool| self.config.pool(&pool.spec.name).is_some() || !pool.runners.is_empty();
        let scopes = self.scopes(now);
        let strays = scopes.iter().flat_map(|scope| scope.strays.clone());
        let foreign = scopes.iter().flat_map(|scope| scope.foreign.clone());
        let pools = self.pools.iter().filter(is_shown);
        let status = Status {
            version: VERSION,
            host: self.config.host.to_string(),
            scope: self.config.scope_list(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.state(),
            clearing: self.clearings.status(self.mode),
            closed: self.closed(),
            at_unix_ms: (self.environment.unix_ms)(),
            since_unix_ms: self.started_unix_ms,
            github: GitHubStatus::of(&scopes),
            systemd_error: conditions.systemd_error.clone(),
            firewall_error: conditions.firewall_problem.clone(),
            shortages: conditions.shortages.clone(),
            records_error: conditions.records_error.clone(),
            notes: self.environment.notes.clone(),
            strays: strays.collect(),
            foreign: foreign.collect(),
            scopes,
            gates: self.gates(now),
            former: self.former(),
            demand: (self.demand.as_ref()).map(|demand| {
                demand.status(
                    |entry| self.wait_reason(entry),
                    self.pools.schedule().probes(),
                )
            }),
            traces: (self.environment.traces.as_ref()).map(|traces| traces.status()),
            budget: self.budget(),
            pools: pools.map(|pool| self.pool_status(pool, now)).collect(),
            recent: self.history.recent(),
        };
        self.status.send_replace(status);
    }

    /// Returns the configured scopes.
    fn scopes(&self, now: Timestamp) -> Vec<ScopeStatus> {
        let mut calls = (self.environment.calls)();
        let mut status = |config: &GitHubConfig| {
            let id = config.scope_id();
            let condition = self.conditions.github.get(&id);
            let failed = condition.and_then(|condition| condition.error.clone());
            let (error, error_unix_ms) = failed.unzip();
            let state = self.pools.scope(&id);
            let pace = state.and_then(ScopeState::pace);
            let orphans = || state.map(ScopeState::orphans).into_iter();
            let strays = orphans().flat_map(Orphans::iter);
            let foreign = orphans().flat_map(Orphans::foreign);
            let calls = calls.remove(&id).unwrap_or_default();
            ScopeStatus {
                name: config.name.as_ref().map(ToString::to_string),
                scope: config.scope.to_string(),
                github: GitHubStatus {
                    server_url: Some(config.server_url.clone()),
                    last_ok_unix_ms: condition.and_then(|condition| condition.ok_unix_ms),
                    error,
                    error_unix_ms,
                    calls: calls.counts,
                    listed: self.listed.get(&id).copied(),
                    pace: pace.map(|pace| pace_status(pace, now)),
                },
                answer_times: calls.answer_times,
                rate_limits: calls.rate_limits,
                strays: strays.map(|(_, name)| name.to_string()).collect(),
                foreign: foreign.map(ToString::to_string).collect(),
            }
        };
        self.config.scopes.iter().map(&mut status).collect()
    }

    /// Returns the name of a scope in the status: `None` for a configured scope without a name.
    fn scope_name(&self, scope: &ScopeId) -> Option<String> {
        match self.config.scope(scope) {
            Some(config) => config.name.as_ref().map(ToString::to_string),
            None => Some(scope.to_string()),
        }
    }

    /// Logs each gate that closes or opens.
    pub(super) fn report_gates(&mut self, now: Timestamp) {
        let closed = self.gates(now);
        let of = |scope: &Option<String>| {
            let name = scope.as_ref();
            name.map(|name| format!(" of {name}")).unwrap_or_default()
        };
        for GateStatus {
            gate,
            scope,
            reason,
        } in &closed
        {
            if !self.gates.contains(&(scope.clone(), *gate)) {
                let of = of(scope);
                warn!(%gate, scope, reason, "closing the gate {gate}{of}: {reason}");
            }
        }
        let closed = closed.into_iter();
        let closed: BTreeSet<_> = closed.map(|closed| (closed.scope, closed.gate)).collect();
        for (scope, gate) in self.gates.difference(&closed) {
            let of = of(scope);
            info!(%gate, scope, "the gate {gate}{of} is open again");
        }
        self.gates = closed;
    }

    /// Returns the gates that are closed, and that no condition of the host closes.
    fn gates(&self, now: Timestamp) -> Vec<GateStatus> {
        let mut gates = Vec::new();
        for (id, scope) in self.pools.configured() {
            let name = self.scope_name(id);
            let mut close = |gate, reason| {
                gates.push(GateStatus {
                    gate,
                    scope: name.clone(),
                    reason,
                });
            };
            let limited = self.limited_until.get(id).map(|until| until.since(now));
            if let Some(rest) = limited.filter(|rest| !rest.is_zero()) {
                let reason = format!("GitHub limits the rate: no call for {} s", rest.as_secs());
                close(Gate::RateLimit, reason);
            }
            if scope.is_slowed_down(now) {
                let reason = format!(
                    "{MAX_ORPHANS} or more registrations of the last ten minutes have no runner: \
                     at most {SLOW_MINTS_PER_MINUTE} registrations a minute"
                );
                close(Gate::Orphans, reason);
            }
            if let Some(pace) = scope.pace().filter(|pace| pace.is_felt(now)) {
                let config = self.config.scope(id);
                let key = config.map(|config| config.key("mints_per_minute"));
                let reason = pace_reason(&pace_status(pace, now), &key.unwrap_or_default());
                close(Gate::Pace, reason);
            }
        }
        let configured = self.pools.configured();
        let configured = configured.map(|(id, scope)| (id, scope.orphans()));
        for (id, orphans) in configured.chain(self.pools.former()) {
            let deletions = orphans.deletions();
            let rest = deletions.retry_at.since(now);
            if deletions.failures > 0 && !rest.is_zero() {
                let (failures, rest) = (deletions.failures, rest.as_secs());
                let reason = format!(
                    "deletions of registrations without a container failed {failures} times in a row: \
                     the next one in {rest} s; registrations go on"
                );
                gates.push(GateStatus {
                    gate: Gate::Deletions,
                    scope: self.scope_name(id),
                    reason,
                });
            }
        }
        gates
    }

    /// Returns the scopes of earlier configurations, and the runners whose scope is not on record.
    fn former(&self) -> Vec<FormerScopeStatus> {
        let mut by_scope: BTreeMap<Option<ScopeId>, FormerScopeStatus> = BTreeMap::new();
        for (scope, client) in &self.environment.former {
            let asked = self.conditions.former_errors.get(scope).cloned();
            let of_scope = by_scope.entry(Some(scope.clone())).or_default();
            of_scope.error = client.as_ref().err().cloned().or(asked);
        }
        for (name, scope) in self.pools.elsewhere() {
            let of_scope = by_scope.entry(scope.cloned()).or_default();
            of_scope.runners.push(name.to_string());
        }
        for (scope, orphans) in self.pools.former() {
            let of_scope = by_scope.entry(Some(scope.clone())).or_default();
            let strays = orphans.iter().map(|(_, name)| name.to_string());
            of_scope.strays.extend(strays);
        }
        by_scope
            .into_iter()
            .map(|(scope, status)| FormerScopeStatus {
                scope: scope.map(|scope| scope.to_string()),
                ..status
            })
            .collect()
    }

    pub(super) fn state(&self) -> DaemonState {
        let is_vacant = self.pools.is_vacant();
        match self.mode {
            Mode::Running if self.config.observes => DaemonState::Observing,
            Mode::Running => DaemonState::Running,
            Mode::Draining if is_vacant => DaemonState::Drained,
            Mode::Draining => DaemonState::Draining,
            Mode::Clearing | Mode::ClearingToRefill if is_vacant && self.pools.has_no_orphans() => {
                DaemonState::Cleared
            }
            Mode::Clearing | Mode::ClearingToRefill => DaemonState::Clearing,
        }
    }

    /// Returns the reasons for which no runner starts.
    fn closed(&self) -> Vec<String> {
        let mode = match self.mode {
            Mode::Running if self.config.observes => {
                Some("only observing, until `mode = \"observe\"` is removed from the configuration")
            }
            Mode::Running => None,
            Mode::Draining => Some("draining, until `runner-controller undrain`"),
            Mode::Clearing | Mode::ClearingToRefill => {
                Some("removing all containers, until `runner-controller undrain`")
            }
        };
        let mode = mode.map(str::to_owned);
        mode.into_iter().chain(self.conditions.blocks()).collect()
    }

    fn pool_status(&self, pool: &Pool, now: Timestamp) -> PoolStatus {
        let configured = self.config.pool(&pool.spec.name);
        let count = |phase: &PhaseKind| {
            let count = pool.count(|p| p.kind() == *phase);
            (*phase, count as u64)
        };
        let verdicts = self.history.counts(&pool.spec.name);
        let failures = verdicts.iter().filter(|(verdict, _)| verdict.is_failure());
        let backoffs = pool.backoffs.iter();
        let runners = pool.runners.values();
        PoolStatus {
            name: pool.spec.name.to_string(),
            scope: pool
                .spec
                .scope
                .as_ref()
                .and_then(|scope| self.scope_name(scope)),
            labels: configured.map_or_else(Vec::new, |pool| pool.labels.clone()),
            group: self.groups.of(&pool.spec.name),
            runner_version: self.versions.of(&self.config, &pool.spec.name),
            wanted: Wanted {
                idle: pool.spec.numbers.min_idle,
                spare: pool.spec.numbers.min_spare,
                max: pool.spec.numbers.max_runners,
                schedule: self.calendar.entry(&pool.spec.name),
            },
            phases: PhaseKind::ALL.iter().map(count).collect(),
            failed: failures.map(|(_, count)| count).sum(),
            verdicts,
            results: self.history.results(&pool.spec.name),
            measures: self.history.measures(&pool.spec.name),
            backoffs: backoffs
                .map(|(failure, backoff)| BackoffStatus {
                    failure,
                    failures: backoff.failures,
                    retry_in_ms: millis(backoff.until.since(now)),
                    reason: backoff.reason.clone(),
                })
                .collect(),
            demand: self.demand.as_ref().map(|demand| {
                let reason = self.pools.schedule().reason_of_pool(&pool.spec.name);
                demand.pool_status(&pool.spec.name, self.wait_reason_in(pool, reason))
            }),
            target: self.target(pool),
            runners: runners
                .map(|runner| runner_status(pool, runner, now))
                .collect(),
        }
    }

    /// Returns the use of each resource that the budget bounds.
    fn budget(&self) -> BTreeMap<BudgetResource, BudgetUse> {
        let (budget, used) = (self.config.budget, self.pools.schedule().used);
        let amounts = [
            (
                BudgetResource::MemoryBytes,
                used.memory_bytes,
                budget.memory_bytes,
            ),
            (
                BudgetResource::Millicores,
                used.millicores,
                budget.millicores,
            ),
            (BudgetResource::Runners, used.runners, budget.runners),
        ];
        let bounded = amounts.into_iter().filter_map(|(resource, used, max)| {
            let max = max?;
            Some((resource, BudgetUse { used, max }))
        });
        bounded.collect()
    }

    /// Returns the numbers of runners that a pool should have now, by the schedule of the last plan.
    fn target(&self, pool: &Pool) -> Option<TargetStatus> {
        let target = self.pools.schedule().targets.get(&pool.spec.name)?;
        let starts = target.max.saturating_sub(pool.runners.len());
        Some(TargetStatus {
            listeners: target.listeners as u64,
            spares: target.spares as u64,
            starts: starts as u64,
            preempted: target.preempted as u64,
        })
    }

    /// Returns the reason for which a job waits that a pool serves.
    fn wait_reason(&self, entry: &TableEntry) -> Option<WaitReason> {
        let name = entry.place.pool()?;
        let pool = self.pools.iter().find(|pool| pool.spec.name == *name)?;
        Some(self.wait_reason_in(pool, self.pools.schedule().reason(entry)))
    }

    /// Returns the reason for which jobs of a pool wait. `scheduled` is that of the schedule, if it has one.
    fn wait_reason_in(&self, pool: &Pool, scheduled: Option<WaitReason>) -> WaitReason {
        let is_closed = !self.closed().is_empty();
        let scheduled = scheduled.filter(|_| !is_closed);
        scheduled.unwrap_or_else(|| wait_reason(pool, is_closed))
    }
}
