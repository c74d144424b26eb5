//! What happened, folded into the pools: sights, outcomes of steps, operators' commands.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};

use super::work::{self, Done};
use super::{Command, Controller, Mode, RECENT, adopt, job_url};
use crate::pool::{
    Ended, FailureKind, ListedRunner, Phase, Pool, RunnerName, Shortages, Slot, SlotId, Timestamp,
};
use crate::world::{
    Event, Handshake, Machines, Records, Registry, RegistryError, RegistryErrorKind,
};

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    pub(super) fn see(&mut self, event: Event) {
        let (now, random) = ((self.environment.now)(), (self.environment.random)());
        let id = match &event {
            Event::Unit(unit) => unit.slot.clone(),
            Event::ConfigRequested { slot }
            | Event::RequestDropped { slot }
            | Event::JobStarted { slot, .. } => slot.clone(),
            Event::Firewall { problem } => {
                self.firewall(problem.clone());
                return;
            }
            Event::Shortages(shortages) => {
                self.shortages(shortages.clone());
                return;
            }
        };
        let Some(pool) = self.pools.get_mut(&id.pool) else {
            debug!(slot = %id, "a sight of a pool that is not configured");
            return;
        };
        let before = pool
            .runners
            .get(&id.slot)
            .map(|runner| runner.phase.clone());
        let closed = match event {
            Event::Unit(unit) => pool.unit(unit, now, random),
            Event::ConfigRequested { .. } => {
                pool.asked(id.slot, now);
                None
            }
            Event::RequestDropped { .. } => {
                pool.hung_up(id.slot, now);
                None
            }
            Event::JobStarted { note, .. } => {
                info!(
                    pool = %id.pool, slot = %id, job = %note.job, workflow = %note.workflow,
                    job_url = %job_url(&note.repository, &note.run_id), "{id}: a job says that it started"
                );
                pool.job_started(id.slot, note, now);
                None
            }
            Event::Firewall { .. } | Event::Shortages(_) => None,
        };
        let after = pool
            .runners
            .get(&id.slot)
            .map(|runner| runner.phase.clone());
        let was_closed = closed.is_some();
        if let Some(closed) = closed {
            self.close(&id, closed);
        }
        // A verdict takes the record of its life with it; another life may be there already.
        if after.is_some() && (was_closed || before != after) {
            if after == Some(Phase::Spare) {
                info!(pool = %id.pool, slot = %id, "{id}: a spare is ready");
            }
            self.record(&id);
        }
    }

    /// Remembers how the firewall is, and says so once per change.
    pub(super) fn firewall(&mut self, wrong: Option<String>) {
        match (&self.shown.firewall_error, &wrong) {
            (Some(_), None) => info!("the firewall is as configured again"),
            (old, Some(wrong)) if old.as_ref() != Some(wrong) => warn!(
                reason = wrong,
                "the firewall is not as it should be, so nothing new is started or registered: {wrong}"
            ),
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
        self.shown.firewall_error = wrong;
    }

    /// Remembers what the host runs short of, and says so once per change.
    pub(super) fn shortages(&mut self, shortages: Shortages) {
        let before = std::mem::replace(&mut self.shown.shortages, shortages);
        for (resource, why) in &self.shown.shortages {
            if !before.contains_key(resource) {
                warn!(
                    %resource,
                    why, "the host runs short of {resource}, so nothing new is started or registered: {why}"
                );
            }
        }
        for resource in before.keys() {
            if !self.shown.shortages.contains_key(resource) {
                info!(%resource, "the host has enough of {resource} again");
            }
        }
    }

    /// A life is over: say so, write it down, and take over what it left at GitHub.
    pub(super) fn close(&mut self, id: &SlotId, closed: Ended) {
        let now = (self.environment.now)();
        let record = self.verdict_record(id, &closed, now);
        let runner = record.runner.clone().unwrap_or_default();
        let exit = record.exit.clone().unwrap_or_default();
        let job_url = closed
            .runner
            .job
            .as_ref()
            .map(|job| job_url(&job.note.repository, &job.note.run_id))
            .unwrap_or_default();
        let told = format!("{} ({exit}) {runner} {job_url}", closed.verdict);
        let told = told.trim_end();
        if closed.verdict.is_failure() {
            warn!(pool = %id.pool, slot = %id, verdict = %closed.verdict, runner, exit, job_url, "{id}: ended, {told}");
        } else {
            info!(pool = %id.pool, slot = %id, verdict = %closed.verdict, runner, exit, job_url, "{id}: ended, {told}");
        }
        *self
            .shown
            .verdicts
            .entry(id.pool.clone())
            .or_default()
            .entry(closed.verdict)
            .or_default() += 1;
        self.shown.recent.push_front(record.clone());
        self.shown.recent.truncate(RECENT);
        if let Some(why) = self.launcher_reason(&closed)
            && let Some(pool) = self.pools.get_mut(&id.pool)
        {
            pool.backoffs.explain(FailureKind::Boot, why);
        }
        if let Some(registration) = &closed.runner.registration {
            self.ledger.over(registration.name.clone(), now);
        }
        if let Some(registration) = &closed.orphan
            && let Some(runner_id) = registration.id
        {
            self.ledger
                .orphan(runner_id, registration.name.clone(), now);
        }
        self.unwritten
            .push_back(work::Write::Close(Box::new(record)));
    }

    pub(super) fn obey(&mut self, command: &Command) {
        let now = (self.environment.now)();
        let mode = match command {
            Command::Drain => Mode::Draining,
            Command::Clear => Mode::Clearing,
            Command::Undrain => Mode::Running,
            Command::Ping => return,
        };
        info!("told by an operator: {}, was {}", mode, self.mode);
        self.mode = mode;
        if matches!(mode, Mode::Running | Mode::Clearing) {
            for pool in self.pools.values_mut() {
                pool.backoffs.reset();
                for runner in pool.runners.values_mut() {
                    runner.retry_at = None;
                }
            }
            self.ledger.reset_backoff(now);
        }
        let kept =
            (mode != Mode::Running).then(|| format!("{} {}", self.environment.boot_id, mode));
        self.unwritten
            .push_back(work::Write::Setting(adopt::MODE_KEY, kept));
    }

    pub(super) fn fold(&mut self, done: Done) {
        let (now, random) = ((self.environment.now)(), (self.environment.random)());
        match done {
            Done::Started { slot, result } => {
                if let Err(reason) = &result {
                    warn!(pool = %slot.pool, slot = %slot, reason, "{slot}: the container could not be started: {reason}");
                }
                self.change(&slot, |pool| pool.started(slot.slot, result, now, random));
            }
            Done::Minted {
                slot,
                name,
                outcome,
                error,
            } => {
                self.heard(error.as_ref());
                if error.as_ref().is_some_and(RegistryError::is_ambiguous) {
                    self.ledger.doubt(name.clone(), now);
                }
                let orphan = self
                    .pools
                    .get_mut(&slot.pool)
                    .and_then(|pool| pool.minted(slot.slot, &name, outcome, now, random));
                if let Some((id, name)) = orphan {
                    self.ledger.orphan(id, name, now);
                }
                self.record(&slot);
            }
            Done::Deregistered { slot, id, result } => {
                self.heard(result.as_ref().err());
                let result = result.map_err(|error| error.retry_after);
                self.change(&slot, |pool| {
                    pool.deregistered(slot.slot, id, result, now, random);
                });
            }
            Done::EndAsked { slot, result } => {
                if let Err(reason) = &result {
                    warn!(pool = %slot.pool, slot = %slot, reason, "{slot}: the container could not be ended: {reason}");
                }
                self.change(&slot, |pool| pool.end_asked(slot.slot, result, now, random));
            }
            Done::Deleted { id, result } => {
                self.deleting = false;
                self.heard(result.as_ref().err());
                let asked = result.as_ref().err().and_then(|error| error.retry_after);
                self.ledger.deleted(id, result.is_ok(), asked, now, random);
            }
            Done::Listed { asked, result } => {
                self.listing = false;
                self.heard(result.as_ref().err());
                if let Ok(list) = result {
                    self.listed(&list, asked, now);
                }
            }
            Done::Observed { began, result } => {
                self.reconciling = false;
                let error = result.map(|events| self.observed(events, began, now)).err();
                self.systemd(error);
            }
            Done::Written(result) => self.written(result),
        }
    }

    /// Remembers whether systemd can be looked at, and says so once per change.
    fn systemd(&mut self, error: Option<String>) {
        if let Some(reason) = &error
            && self.shown.systemd_error.as_ref() != Some(reason)
        {
            warn!(
                reason,
                "systemd cannot be looked at, so nothing new is started: {reason}"
            );
        }
        self.shown.systemd_error = error;
    }

    pub(super) fn change(&mut self, slot: &SlotId, change: impl FnOnce(&mut Pool)) {
        if let Some(pool) = self.pools.get_mut(&slot.pool) {
            change(pool);
        }
        self.record(slot);
    }

    /// Remembers whether GitHub works, and says so once per change.
    pub(super) fn heard(&mut self, error: Option<&RegistryError>) {
        let at = (self.environment.unix_ms)();
        let Some(error) = error else {
            if let Some((last, _)) = self.shown.github_error.take() {
                info!(last, "GitHub answers again; it last said: {last}");
            }
            self.shown.github_ok_unix_ms = Some(at);
            return;
        };
        self.limited(error);
        warn!(operation = error.operation, status = error.status, request_id = error.request_id, %error, "GitHub did not do what was asked: {error}");
        self.shown.github_error = Some((error.to_string(), at));
    }

    /// Writes down until when GitHub wants to be left alone: the next daemon keeps to it too.
    fn limited(&mut self, error: &RegistryError) {
        // Without a status nothing was sent, because of what is known already.
        let told = error.kind == RegistryErrorKind::Limited && error.status.is_some();
        let Some(wait) = error.retry_after.filter(|_| told) else {
            return;
        };
        let (now, unix_ms) = ((self.environment.now)(), (self.environment.unix_ms)());
        // Answers may come out of order: the longer wait holds.
        if now + wait <= self.limited_until {
            return;
        }
        self.limited_until = now + wait;
        let unix_ms = unix_ms + u64::try_from(wait.as_millis()).unwrap_or_default();
        let in_boot = (now + wait).millis();
        let (boot, party) = (&self.environment.boot_id, self.limited_party());
        let until = format!("{boot} {in_boot} {unix_ms} {party}");
        self.unwritten
            .push_back(work::Write::Setting(adopt::LIMIT_KEY, Some(until)));
    }

    pub(super) fn listed(&mut self, list: &[ListedRunner], asked: Timestamp, now: Timestamp) {
        self.shown.listed = Some(list.len() as u64);
        let by_name: BTreeMap<String, ListedRunner> =
            list.iter().map(|r| (r.name.clone(), r.clone())).collect();
        // A slot's name may be listed more than once; the last of these is who most likely lives.
        let mut likely: Vec<&ListedRunner> = list.iter().collect();
        likely.sort_by_key(|r| (r.busy, r.online, r.id));
        for (name, pool) in &mut self.pools {
            let ours = likely
                .iter()
                .filter_map(|r| Some((RunnerName::parse(&self.config.host, &r.name)?, r.id)));
            let by_slot: BTreeMap<Slot, _> = ours
                .filter(|(runner, _)| runner.slot.pool == *name && !self.ledger.is_over(runner))
                .map(|(runner, id)| (runner.slot.slot, (runner, id)))
                .collect();
            pool.listed(&by_name, &by_slot, asked, now);
        }
        let owners: Vec<&RunnerName> = self
            .pools
            .values()
            .flat_map(|pool| pool.runners.values())
            .filter_map(|runner| {
                runner
                    .registration
                    .as_ref()
                    .map(|registration| &registration.name)
            })
            .collect();
        self.ledger.listed(
            &self.config.host,
            list,
            |_, name| owners.contains(&name),
            now,
        );
        let slots: Vec<SlotId> = self
            .pools
            .values()
            .flat_map(|pool| pool.runners.keys().map(|slot| pool.slot_id(*slot)))
            .collect();
        for slot in slots {
            self.record(&slot);
        }
    }
}
