//! Events, outcomes of tasks and commands, applied to the pools; and the effects that follow.

use std::time::Duration;

use tracing::{error, info, warn};

use super::history::verdict_record;
use super::outcome::{ListKind, Outcome};
use super::writes::{LIMIT_KEY, MODE_KEY, PACE_KEY, Write, scope_key};
use super::{Command, Controller};
use crate::pool::{
    Cause, Effect, Ended, Ending, Exit, FailureKind, Invocation, JobResult, ListedRunner, Mode,
    RateLimit, ScopeId, ScopeState, SlotId, Step, Timestamp,
};
use crate::world::{
    Event, Handshake, Machines, Records, Registry, RegistryError, RegistryErrorKind,
};

/// Difference between two times that are the end of the same rate limit, because they are in whole milliseconds.
const ROUNDING: Duration = Duration::from_millis(2);

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// Applies an event.
    pub(super) fn handle_event(&mut self, event: Event) {
        let (now, random) = ((self.environment.now)(), (self.environment.random)());
        let effects = match event {
            Event::Unit(unit) => self.pools.unit_observed(unit, now, random),
            Event::ConfigRequested { slot } => self.pools.config_requested(&slot, now),
            Event::RequestDropped { slot } => self.pools.request_dropped(&slot, now),
            Event::JobStarted { slot, note } => {
                self.environment.job_started.send_replace(());
                let job_url = note.run_url(self.server_of(&slot, None));
                let run = job_url.as_ref().map(|url| format!(": {url}"));
                let run = run.unwrap_or_default();
                let trace_id = self.trace_id(&slot);
                info!(
                    pool = %slot.pool, slot = %slot, trace_id, job = note.job, workflow = note.workflow, job_url,
                    "{slot}: job started{run}"
                );
                self.pools.job_started(&slot, note, now)
            }
            // Only a new daemon needs it, and reads it before it adopts.
            Event::ConfigNotGiven { slot: _ } => return,
            Event::LinksWithoutAddress(slots) => {
                self.pools.links_read(&slots);
                return;
            }
            Event::Firewall { problem } => {
                self.conditions.set_firewall(problem);
                return;
            }
            Event::Shortages(shortages) => {
                self.conditions.set_shortages(shortages);
                return;
            }
            Event::Job(job) => {
                let unix_ms = (self.environment.unix_ms)();
                if let Some(demand) = &mut self.demand {
                    demand.job_told(*job, unix_ms);
                }
                return;
            }
            Event::Deliveries(deliveries) => {
                if let Some(demand) = &mut self.demand {
                    demand.set_deliveries(deliveries);
                }
                return;
            }
            Event::Queue(queue) => {
                if let Some(demand) = &mut self.demand {
                    demand.set_queue(queue);
                }
                return;
            }
            Event::Redelivery(redelivery) => {
                if let Some(demand) = &mut self.demand {
                    demand.set_redelivery(redelivery);
                }
                return;
            }
            Event::ScaleSet(set) => {
                if let Some(demand) = &mut self.demand {
                    demand.set_scale_set(set);
                }
                return;
            }
        };
        self.carry_out(effects);
    }

    /// Applies GitHub's list of a scope.
    fn apply_list(
        &mut self,
        scope: &ScopeId,
        requested_at: Timestamp,
        result: Result<Vec<ListedRunner>, RegistryError>,
        now: Timestamp,
    ) -> Vec<Effect> {
        let kind = self.listing.remove(scope);
        self.note_call(scope, result.as_ref().err());
        let Ok(list) = result else {
            return Vec::new();
        };
        self.listed.insert(scope.clone(), list.len() as u64);
        let effects = match kind {
            Some(ListKind::Early) => self.pools.listed_early(scope, &list, requested_at, now),
            Some(ListKind::Full) | None => self.pools.listed(scope, &list, requested_at, now),
        };
        self.spawn_version_questions(now);
        effects
    }

    /// Applies the outcome of a task.
    pub(super) fn handle_outcome(&mut self, outcome: Outcome) {
        let (now, random) = ((self.environment.now)(), (self.environment.random)());
        let effects = match outcome {
            Outcome::Started { slot, result } => {
                if let Err(reason) = &result {
                    warn!(pool = %slot.pool, slot = %slot, reason, "{slot}: cannot start the container: {reason}");
                }
                self.pools.start_answered(&slot, result, now, random)
            }
            Outcome::Minted {
                scope,
                slot,
                name,
                outcome,
                error,
            } => {
                self.note_call(&scope, error.as_ref());
                self.note_pace(&scope, error.as_ref());
                self.pools.mint_answered(&slot, &name, outcome, now, random)
            }
            Outcome::Deregistered {
                scope,
                slot,
                id,
                result,
            } => {
                self.note_call(&scope, result.as_ref().err());
                let result = result.map_err(|error| error.retry_after);
                self.pools
                    .deregistration_answered(&slot, id, result, now, random)
            }
            Outcome::Found {
                scope,
                slot,
                id,
                result,
            } => {
                self.note_call(&scope, result.as_ref().err());
                let result = result.map_err(|error| error.retry_after);
                self.pools.find_answered(&slot, id, result, now, random)
            }
            Outcome::EndRequested { slot, result } => {
                if let Err(reason) = &result {
                    warn!(pool = %slot.pool, slot = %slot, reason, "{slot}: cannot end the container: {reason}");
                }
                self.pools.end_answered(&slot, result, now, random)
            }
            Outcome::Deleted { scope, id, result } => {
                self.note_call(&scope, result.as_ref().err());
                let result = result.map_err(|error| error.retry_after);
                self.pools
                    .deletion_answered(&scope, id, result, now, random);
                return;
            }
            Outcome::Listed {
                scope,
                requested_at,
                result,
            } => self.apply_list(&scope, requested_at, result, now),
            Outcome::GroupsListed { scope, result } => {
                self.groups.answered(&self.config, &scope, result, now);
                return;
            }
            Outcome::VersionAnswered {
                scope,
                version,
                result,
            } => {
                let (key, unix_ms) = ((scope, version), (self.environment.unix_ms)());
                (self.versions).answered(&self.config, key, result, now, unix_ms);
                return;
            }
            Outcome::Observed { began, result } => {
                self.is_observing = false;
                match result {
                    Ok(units) => {
                        self.conditions.set_systemd(None);
                        let effects = self.pools.reconcile(units, began, now, random);
                        report_missed_ends(&effects);
                        effects
                    }
                    Err(error) => {
                        self.conditions.set_systemd(Some(error));
                        return;
                    }
                }
            }
            Outcome::Written(result) => {
                self.conditions.set_records(result.as_ref().copied());
                self.writes.finish(result, now);
                return;
            }
        };
        self.carry_out(effects);
    }

    /// Applies a command of an operator.
    pub(super) fn execute(&mut self, command: &Command) {
        let (mode, name) = match command {
            Command::Drain => (Mode::Draining, "drain"),
            Command::Clear { number, refills } => {
                self.clearings.request(*number);
                match refills {
                    true => (Mode::ClearingToRefill, "clear"),
                    false => (Mode::Clearing, "clear"),
                }
            }
            Command::Refill(number) => {
                if !self.clearings.is_newest(*number) {
                    info!(
                        "keeping the mode {}: a newer clearing was requested",
                        self.mode
                    );
                    return;
                }
                (Mode::Running, "refill")
            }
            Command::Undrain => (Mode::Running, "undrain"),
            Command::Ping => return,
        };
        info!(before = %self.mode, "operator requested {name} (mode was {})", self.mode);
        self.mode = mode;
        if mode != Mode::Draining {
            self.pools.reset_backoffs();
        }
        let setting = mode.to_setting(&self.environment.boot_id);
        self.writes
            .push(Write::Setting(MODE_KEY.to_owned(), setting));
    }

    /// Carries out effects in their order.
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Step(slot, step) => self.carry_out_step(&slot, step),
                Effect::Delete(scope, id) => self.spawn_delete(scope, id),
                Effect::ListEarly(scope) => self.spawn_early_list(scope),
                Effect::OrphanInUse(id) => error!(
                    runner_id = %id,
                    "keeping registration {id} of a running container: GitHub gave its id to an orphan, too"
                ),
                Effect::NameInUse(name) => warn!(
                    runner = %name,
                    "another host uses the name {}: runner {name} is online and has no container here; give each host its own `host`",
                    name.host
                ),
                Effect::Stray(stray) => self.writes.push(Write::PutStray(stray)),
                Effect::ForgetStray(scope, id) => {
                    self.writes.push(Write::RemoveStray(scope, id));
                }
                Effect::Record(record) => self.writes.push(Write::Put(record)),
                Effect::Forget(slot) => self.writes.push(Write::Remove(slot)),
                Effect::Ended(ended) => self.report_end(&ended),
                Effect::SpareReady(slot) => {
                    let trace_id = self.trace_id(&slot);
                    info!(pool = %slot.pool, slot = %slot, trace_id, "{slot}: a spare is ready");
                }
                Effect::Adopted(slot) => self.report_adoption(&slot),
            }
        }
    }

    fn carry_out_step(&mut self, slot: &SlotId, step: Step) {
        let trace_id = self.trace_id(slot);
        match step {
            Step::Start { .. } => {
                info!(pool = %slot.pool, slot = %slot, "{slot}: starting a container");
                self.spawn_start(slot);
            }
            Step::Register { .. } => {
                let (now, random) = ((self.environment.now)(), (self.environment.random)());
                let (name, effects) = self.pools.name_mint(slot, now, random);
                self.carry_out(effects);
                info!(pool = %slot.pool, slot = %slot, trace_id, runner = %name, "{slot}: registering a spare as {name}");
                self.spawn_mint(slot, name);
                if let Some(pool) = self.config.pool(&slot.pool) {
                    self.keep_pace(&pool.scope.clone());
                }
            }
            Step::Retire {
                cause: cause @ Cause::JobTimeout,
                ..
            } => {
                let pool = self.config.pool(&slot.pool);
                let limit = pool.map(|pool| humantime::format_duration(pool.timeouts.job));
                let limit = limit.map(|limit| limit.to_string()).unwrap_or_default();
                warn!(
                    pool = %slot.pool, slot = %slot, trace_id, %cause, limit,
                    "{slot}: retiring the runner: {cause}; its job ran longer than timeouts.job, which is {limit}"
                );
            }
            Step::Retire { cause, .. } => {
                info!(pool = %slot.pool, slot = %slot, trace_id, %cause, "{slot}: retiring the runner: {cause}");
            }
            Step::Deregister { id, .. } => {
                info!(pool = %slot.pool, slot = %slot, trace_id, runner_id = %id, "{slot}: deregistering the runner with id {id}");
                self.spawn_deregister(slot, id);
            }
            Step::Find { id, .. } => {
                info!(pool = %slot.pool, slot = %slot, trace_id, runner_id = %id, "{slot}: asking GitHub for the runner with id {id}, which its lists do not have");
                self.spawn_find(slot, id);
            }
            Step::End { how, .. } => {
                let verb = match how {
                    Ending::Stop => "stopping",
                    Ending::Kill => "killing",
                };
                info!(pool = %slot.pool, slot = %slot, trace_id, %how, "{slot}: {verb} the container");
                self.spawn_end(slot, how);
            }
        }
    }

    fn report_adoption(&self, slot: &SlotId) {
        let Some(runner) = self.pools.runner(slot) else {
            return;
        };
        let phase = runner.phase.kind();
        let trace_id = runner.invocation.as_ref().map(Invocation::as_str);
        info!(pool = %slot.pool, slot = %slot, trace_id, %phase, "{slot}: adopted the runner, which is {phase}");
        if self.config.pool(&slot.pool).is_none() {
            warn!(
                pool = %slot.pool, slot = %slot,
                "{slot}: pool {} is not configured; the container ends when it has no job", slot.pool
            );
        }
    }

    /// Logs and counts the end of a runner, and writes its verdict.
    fn report_end(&mut self, ended: &Ended) {
        let (now, unix_ms) = ((self.environment.now)(), (self.environment.unix_ms)());
        let explanation = self.launcher_explanation(ended);
        let record = verdict_record(ended, explanation, now, unix_ms);
        if let Some(explanation) = explanation {
            // The launcher's last line has the object and the cause.
            let line = record.last_line.as_ref().map(|line| format!(": {line}"));
            let reason = format!(
                "{} {}: {explanation}{}; run `runner-controller check-config --host`",
                record.slot,
                record.verdict,
                line.unwrap_or_default()
            );
            self.pools
                .explain(&ended.slot.pool, FailureKind::Boot, reason);
        }
        let (slot, verdict) = (&record.slot, record.verdict);
        let runner = record.runner.as_deref().unwrap_or_default();
        let exit = record.exit.as_deref().unwrap_or_default();
        let server = self.server_of(slot, ended.runner.scope());
        let job_url = record.job.as_ref().and_then(|note| note.run_url(server));
        if let Some(traces) = &self.environment.traces {
            traces.add(&record, job_url.as_deref());
        }
        let job_url = job_url.unwrap_or_default();
        let trace_id = record.invocation.as_ref().map(Invocation::as_str);
        let result = record.result.as_ref().map_or("", AsRef::as_ref);
        let last_line = record.last_line.as_deref().unwrap_or_default();
        let job = record.result.map(|result| format!(", job {result}"));
        let details = format!(
            "{verdict} ({exit}{}) {runner} {job_url}",
            job.unwrap_or_default()
        );
        let details = details.trim_end();
        let is_cut_short = record.result.is_some_and(JobResult::is_cut_short);
        if verdict.is_failure() || is_cut_short {
            let wrote = record
                .last_line
                .as_ref()
                .map(|line| format!("; it wrote \"{line}\""));
            let wrote = wrote.unwrap_or_default();
            let remedy = verdict.remedy(slot).map(|remedy| format!("; {remedy}"));
            let remedy = remedy.unwrap_or_default();
            warn!(
                pool = %slot.pool, slot = %slot, trace_id, %verdict, result, runner, exit, job_url, last_line,
                "{slot}: ended, {details}{wrote}{remedy}"
            );
        } else {
            info!(pool = %slot.pool, slot = %slot, trace_id, %verdict, result, runner, exit, job_url, "{slot}: ended, {details}");
        }
        self.history.add(record.clone());
        self.writes.push(Write::Close(Box::new(record)));
    }

    /// Returns the trace id of the runner in a slot: the invocation of its unit, once it is known.
    fn trace_id(&self, slot: &SlotId) -> Option<String> {
        let invocation = self.pools.runner(slot)?.invocation.as_ref();
        invocation.map(ToString::to_string)
    }

    /// Returns the launcher's meaning of a runner's exit status.
    ///
    /// The container's own status arrives in the same place and may be any number, so only a runner that
    /// never was active has one of the launcher's.
    fn launcher_explanation(&self, ended: &Ended) -> Option<&'static str> {
        match ended.end.as_ref().map(|end| &end.exit) {
            Some(Exit::Status(status)) if !ended.runner.active => {
                (self.environment.explain_exit)(*status)
            }
            Some(Exit::Status(_) | Exit::Signal(_) | Exit::Unknown) | None => None,
        }
    }

    /// Returns the address of the web pages for the jobs of a slot, whose runner is registered in `scope` if
    /// that is known.
    fn server_of(&self, slot: &SlotId, scope: Option<&ScopeId>) -> &str {
        let registered = scope.or_else(|| self.pools.runner(slot)?.scope());
        let pool = || Some(&self.config.pool(&slot.pool)?.scope);
        let configured = registered.and_then(|scope| self.config.scope(scope));
        let configured = configured.or_else(|| self.config.scope(pool()?));
        let first = || self.config.scopes.first();
        let config = configured.or_else(first);
        config.map_or("https://github.com", |config| &config.server_url)
    }

    /// Notes whether a call for a scope succeeded.
    fn note_call(&mut self, scope: &ScopeId, error: Option<&RegistryError>) {
        let unix_ms = (self.environment.unix_ms)();
        if let Some(error) = error {
            self.keep_limit(scope, error);
        }
        if !self.environment.registries.contains_key(scope) {
            let error = error.map(ToString::to_string);
            self.conditions.set_former(scope, error);
        } else if let Some(error) = error {
            self.conditions.github_failed(scope, error, unix_ms);
        } else {
            self.conditions.github_succeeded(scope, unix_ms);
        }
    }

    /// Applies GitHub's answer to a mint to the pace of the next ones.
    fn note_pace(&mut self, scope: &ScopeId, error: Option<&RegistryError>) {
        let now = (self.environment.now)();
        let window = self.registry(scope).and_then(|r| r.mint_window());
        let Some(pace) = self.pools.pace_mut(scope) else {
            return;
        };
        pace.window(window, now);
        // An error without a status was not sent.
        let is_refused = |error: &RegistryError| {
            error.kind == RegistryErrorKind::Limited && error.status.is_some()
        };
        if error.is_some_and(is_refused) {
            pace.refused(now);
            self.keep_pace(scope);
        }
    }

    /// Writes the pace of a scope's mints to the records, so that the next daemon keeps to it too.
    fn keep_pace(&mut self, scope: &ScopeId) {
        let (now, unix_ms) = ((self.environment.now)(), (self.environment.unix_ms)());
        let pace = self.pools.scope(scope).and_then(ScopeState::pace);
        let (Some(pace), Some(client)) = (pace, self.client(scope)) else {
            return;
        };
        let boot_id = &self.environment.boot_id;
        let record = pace.record(&client.account, boot_id, now, unix_ms);
        let key = scope_key(PACE_KEY, scope);
        self.writes
            .push(Write::Setting(key, Some(record.to_string())));
    }

    /// Writes GitHub's rate limit to the records, so that the next daemon keeps to it too. It holds in every
    /// scope that is asked with the same credentials.
    fn keep_limit(&mut self, scope: &ScopeId, error: &RegistryError) {
        // An error without a status was not sent, because of a limit that is known already.
        let is_new = error.kind == RegistryErrorKind::Limited && error.status.is_some();
        if let Some(delay) = error.retry_after.filter(|_| is_new) {
            self.keep_hold(scope, delay);
        }
    }

    /// Writes the rate limits to the records that calls of other tasks met, such as those for scale sets.
    pub(super) fn keep_limits(&mut self) {
        let registries = self.environment.registries.iter();
        let held =
            registries.filter_map(|(scope, client)| Some((scope.clone(), client.registry.held()?)));
        let held: Vec<(ScopeId, Duration)> = held.collect();
        for (scope, rest) in held {
            self.keep_hold(&scope, rest);
        }
    }

    fn keep_hold(&mut self, scope: &ScopeId, delay: Duration) {
        // In whole milliseconds, and never too short.
        let delay_ms = u64::try_from(delay.as_micros().div_ceil(1_000)).unwrap_or_default();
        let until = (self.environment.now)() + Duration::from_millis(delay_ms);
        let until_unix_ms = (self.environment.unix_ms)() + delay_ms;
        for (scope, account) in self.limited_with(scope) {
            // Answers may come out of order, and the longer limit holds.
            let known = self.limited_until.get(&scope);
            if known.is_some_and(|at| *at + ROUNDING >= until) {
                continue;
            }
            let limit = RateLimit {
                boot_id: self.environment.boot_id.clone(),
                until,
                until_unix_ms,
                account,
            };
            let key = scope_key(LIMIT_KEY, &scope);
            self.writes
                .push(Write::Setting(key, Some(limit.to_string())));
            self.limited_until.insert(scope, until);
        }
    }

    /// Returns the scopes whose calls count for the same limits as those for `scope`, each with its account.
    fn limited_with(&self, scope: &ScopeId) -> Vec<(ScopeId, String)> {
        let Some(registry) = self.registry(scope) else {
            return Vec::new();
        };
        let configured = self.environment.registries.iter();
        let former = self.environment.former.iter();
        let former = former.filter_map(|(scope, client)| Some((scope, client.as_ref().ok()?)));
        let same = configured
            .chain(former)
            .filter(|(_, client)| client.registry.shares_limits(&registry));
        same.map(|(scope, client)| (scope.clone(), client.account.clone()))
            .collect()
    }
}

/// Warns of ends that a full reconcile found. A signal should have reported each.
fn report_missed_ends(effects: &[Effect]) {
    for effect in effects {
        if let Effect::Ended(ended) = effect {
            let slot = &ended.slot;
            warn!(
                pool = %slot.pool, slot = %slot,
                "{slot}: the full reconcile found the end; no signal reported it"
            );
        }
    }
}
