//! Taking over what was there before: at start, and in every full look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::work::Write;
use super::{Controller, Mode, RECENT, show};
use crate::config::{GitHubConfig, LoginConfig};
use crate::pool::{
    Job, JobNote, PhaseKind, Pool, RunnerName, SlotId, Timestamp, UnitObservation, UnitState,
};
use crate::world::{
    Event, Handshake, Machines, Records, Registry, RunnerRecord, VerdictRecord, chain,
};

/// Where the mode is kept: this boot's id and the mode's name.
pub(super) const MODE_KEY: &str = "mode";

/// Until when GitHub wants to be left alone: this boot's id, milliseconds after this boot,
/// milliseconds since 1970, and whom it told that.
pub(super) const LIMIT_KEY: &str = "limited";

/// No limit is written down for longer; see `github::budget`.
const LONGEST_LIMIT: Duration = Duration::from_mins(66);

/// Verdicts that are looked through for lives that ended unseen: many times the slots of a host.
const HISTORY: usize = 2_000;

fn is_alive(observation: &UnitObservation) -> bool {
    match observation.state {
        UnitState::Activating | UnitState::Active | UnitState::Deactivating => true,
        UnitState::Inactive | UnitState::Failed => false,
    }
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// Rebuilds the pools from units, sockets and records. Called once, before [`Controller::run`]
    /// and after the sockets were opened, so that who waits for an answer is already in `sights`.
    ///
    /// # Errors
    /// If systemd cannot be looked at: without that, nothing may be decided.
    pub async fn adopt(
        &mut self,
        observations: &mut mpsc::Receiver<Event>,
    ) -> Result<(), M::Error> {
        let records = match self.environment.records.load().await {
            Ok(records) => records,
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "records cannot be read; lives are adopted by what is seen of them"
                );
                self.shown.records_error = Some(chain(&error));
                Vec::new()
            }
        };
        let history = self.environment.records.recent(HISTORY).await.ok();
        self.shown.recent = history.iter().flatten().take(RECENT).cloned().collect();
        let over = history
            .iter()
            .flatten()
            .filter_map(|verdict| RunnerName::parse(&self.config.host, verdict.runner.as_ref()?));
        let began = (self.environment.now)();
        over.for_each(|name| self.ledger.over(name, began));
        self.restore_mode().await;
        self.restore_limit().await;
        let units = self.environment.machines.observe().await?;
        let mut asked = BTreeSet::new();
        let mut notes = BTreeMap::new();
        while let Ok(observation) = observations.try_recv() {
            match observation {
                Event::ConfigRequested { slot } => {
                    asked.insert(slot);
                }
                Event::RequestDropped { slot } => {
                    asked.remove(&slot);
                }
                // The look is newer than any signal that came before it.
                Event::Unit(_) => {}
                Event::JobStarted { slot, note } => {
                    notes.insert(slot, note);
                }
                Event::Firewall { problem } => self.firewall(problem),
                Event::Shortages(shortages) => self.shortages(shortages),
            }
        }
        let mut records: BTreeMap<SlotId, RunnerRecord> = records
            .into_iter()
            .map(|record| (record.slot.clone(), record))
            .collect();
        let now = (self.environment.now)();
        let (alive, gone): (Vec<UnitObservation>, Vec<UnitObservation>) =
            units.into_iter().partition(is_alive);
        for observation in alive {
            let slot = observation.slot.clone();
            let record = records.remove(&slot);
            let same_boot = |record: &RunnerRecord| record.boot_id == self.environment.boot_id;
            let own = |record: &RunnerRecord| {
                record.invocation.is_none() || record.invocation == observation.invocation
            };
            let keep = record
                .as_ref()
                .is_some_and(|record| same_boot(record) && own(record));
            if !keep && let Some(record) = record {
                // Another life was here before this one.
                self.bury(record, None, now);
            } else if let Some(record) = record {
                self.adopt_one(observation, Some(record), &asked, now);
                continue;
            }
            self.adopt_one(observation, None, &asked, now);
        }
        let mut ends: BTreeMap<SlotId, UnitObservation> = gone
            .into_iter()
            .map(|observation| (observation.slot.clone(), observation))
            .collect();
        for (slot, mut record) in records {
            // Started and ended while nobody looked. A slot's line is of its newest life: the one
            // before is forgotten when the next is prepared.
            if let Some(note) = notes.remove(&slot)
                && record.job.is_none()
            {
                record.job = Some(Job { note, since: now });
            }
            // The newest end may be of a later life than the record.
            let own = |observation: &UnitObservation| {
                let end = observation.end.as_ref().map(|end| &end.invocation);
                record.invocation.is_none() || end.is_none() || end == record.invocation.as_ref()
            };
            let observation = ends.get(&slot).is_some_and(own).then(|| ends.remove(&slot));
            self.bury(record, observation.flatten(), now);
        }
        if let Some(history) = history {
            self.bury_unrecorded(ends.into_values(), &history, &mut notes, now);
        }
        for (slot, note) in notes {
            self.see(Event::JobStarted { slot, note });
        }
        Ok(())
    }

    async fn restore_mode(&mut self) {
        let kept = self
            .environment
            .records
            .setting(MODE_KEY)
            .await
            .ok()
            .flatten()
            .unwrap_or_default();
        let Some((boot, mode)) = kept.split_once(' ') else {
            return;
        };
        // A drain is for what the operator was about to do; a reboot was that.
        if boot == self.environment.boot_id {
            self.mode = mode.parse().unwrap_or_else(|_| {
                warn!(
                    mode,
                    "cannot read the mode that the daemon before was in; starting runners"
                );
                Mode::Running
            });
            info!(mode = %self.mode, "keeping the mode that the daemon before was in");
        }
    }

    /// Whom a limit is about. Another token of the same account shares it; another App does not.
    pub(super) fn limited_party(&self) -> String {
        let GitHubConfig {
            api_url,
            scope,
            login,
            ..
        } = &self.config.github;
        let login = match login {
            LoginConfig::Token { .. } => "token".to_owned(),
            LoginConfig::App { id, .. } => format!("app {id}"),
        };
        format!("{api_url} {scope} {login}")
    }

    async fn restore_limit(&mut self) {
        let kept = self
            .environment
            .records
            .setting(LIMIT_KEY)
            .await
            .ok()
            .flatten();
        let kept = kept.unwrap_or_default();
        let mut words = kept.splitn(4, ' ');
        let boot = words.next();
        let mut millis = || words.next()?.parse::<u64>().ok();
        let (Some(in_boot), Some(unix_ms)) = (millis(), millis()) else {
            return;
        };
        if words.next() != Some(self.limited_party().as_str()) {
            return;
        }
        // Only within one boot is there a clock that nobody sets.
        let wait = if boot == Some(self.environment.boot_id.as_str()) {
            in_boot.saturating_sub((self.environment.now)().millis())
        } else {
            unix_ms.saturating_sub((self.environment.unix_ms)())
        };
        let wait = Duration::from_millis(wait);
        if wait > LONGEST_LIMIT {
            // The wall clock was wrong when it was written, or is now. Another daemon is not to
            // find it again.
            self.unwritten.push_back(Write::Setting(LIMIT_KEY, None));
        } else if !wait.is_zero() {
            info!(
                wait_s = wait.as_secs(),
                "GitHub asked the daemon before to be left alone; nothing is sent for {} s",
                wait.as_secs()
            );
            self.limited_until = (self.environment.now)() + wait;
            self.environment.registry.hold(wait);
        }
    }

    fn adopt_one(
        &mut self,
        observation: UnitObservation,
        record: Option<RunnerRecord>,
        asked: &BTreeSet<SlotId>,
        now: Timestamp,
    ) {
        let slot = observation.slot.clone();
        let pool = self.pools.entry(slot.pool.clone()).or_insert_with(|| {
            warn!(pool = %slot.pool, "{slot}: a container of a pool that is not configured; it ends when it has no job");
            Pool::new(show::unconfigured(&slot.pool))
        });
        pool.adopt(observation, record, asked.contains(&slot), now);
        if let Some(runner) = pool.runners.get(&slot.slot) {
            let phase = runner.phase.kind();
            info!(pool = %slot.pool, slot = %slot, %phase, "{slot}: adopted, {phase}");
        }
        self.record(&slot);
    }

    /// Lives that root wrote an end of, and that are neither on record nor judged: the last daemon
    /// could not write down that they began.
    fn bury_unrecorded(
        &mut self,
        ends: impl Iterator<Item = UnitObservation>,
        history: &[VerdictRecord],
        notes: &mut BTreeMap<SlotId, JobNote>,
        now: Timestamp,
    ) {
        for observation in ends {
            let Some(end) = &observation.end else {
                continue;
            };
            let known =
                |verdict: &VerdictRecord| verdict.invocation.as_ref() == Some(&end.invocation);
            if history.iter().any(known) {
                continue;
            }
            let start = observation.start.as_ref();
            let start = start.filter(|start| start.invocation == end.invocation);
            let started_at = start.map_or(end.at, |start| start.at);
            let job = notes.remove(&observation.slot);
            let record = RunnerRecord {
                slot: observation.slot.clone(),
                boot_id: self.environment.boot_id.clone(),
                invocation: Some(end.invocation.clone()),
                phase: PhaseKind::Registering,
                since: started_at,
                started_at,
                registration: None,
                job: job.map(|note| Job {
                    note,
                    since: started_at,
                }),
            };
            self.bury(record, Some(observation), now);
        }
    }

    fn bury(
        &mut self,
        mut record: RunnerRecord,
        observation: Option<UnitObservation>,
        now: Timestamp,
    ) {
        let slot = record.slot.clone();
        let rebooted = record.boot_id != self.environment.boot_id;
        let gone = UnitObservation {
            slot: slot.clone(),
            state: UnitState::Inactive,
            invocation: None,
            start: None,
            end: None,
        };
        let observation = observation.unwrap_or(gone);
        if rebooted {
            // Timestamps of another boot mean nothing in this one.
            (record.since, record.started_at) = (now, now);
        }
        // A pool that is gone from the configuration still gets its verdict.
        let mut scratch = None;
        let pool = match self.pools.get_mut(&slot.pool) {
            Some(pool) => pool,
            None => scratch.insert(Pool::new(show::unconfigured(&slot.pool))),
        };
        let random = (self.environment.random)();
        if let Some(closed) = pool.bury(slot.slot, record, observation, rebooted, now, random) {
            self.close(&slot, closed);
        }
    }

    /// Folds in a full look that began at `began`. It says nothing of a slot of which something was
    /// heard since: it may have been answered before that, and be folded in only now.
    pub(super) fn observed(
        &mut self,
        observations: Vec<UnitObservation>,
        began: Timestamp,
        now: Timestamp,
    ) {
        let news = |slot: &SlotId| {
            let pool = self.pools.get(&slot.pool);
            pool.is_none_or(|pool| !pool.knows_better(slot.slot, began))
        };
        let mut seen = BTreeMap::new();
        for observation in observations
            .into_iter()
            .filter(|observation| news(&observation.slot))
        {
            seen.insert(observation.slot.clone(), observation);
        }
        let known: Vec<SlotId> = self
            .pools
            .values()
            .flat_map(|pool| pool.runners.keys().map(|slot| pool.slot_id(*slot)))
            .filter(news)
            .collect();
        for slot in known {
            let end = match seen.get(&slot) {
                Some(observation) if is_alive(observation) => continue,
                Some(observation) => observation.end.clone(),
                None => None,
            };
            let random = (self.environment.random)();
            let closed = self
                .pools
                .get_mut(&slot.pool)
                .and_then(|pool| pool.absent(slot.slot, end, now, random));
            if let Some(closed) = closed {
                warn!(slot = %slot, "{slot}: the end was found by the full look and not by a signal");
                self.close(&slot, closed);
            }
        }
        for observation in seen.into_values().filter(is_alive) {
            self.see(Event::Unit(observation));
        }
    }
}
