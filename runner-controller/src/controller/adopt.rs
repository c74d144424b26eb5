//! Adoption: everything that a new daemon finds, read for [`Pools::adopt`].
//!
//! [`Pools::adopt`]: crate::pool::Pools::adopt

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Controller;
use super::writes::{LIMIT_KEY, MODE_KEY, PACE_KEY, Write, scope_key};
use crate::pool::{Found, JobNote, Mode, PaceRecord, RateLimit, Rest, ScopeId, SlotId};
use crate::world::{Event, Handshake, Machines, Records, Registry, chain};

/// Number of verdicts that a new daemon reads: many times the number of slots of a host.
const VERDICTS: usize = 2_000;

/// Knowledge that the sockets of slots reported before the adoption.
#[derive(Default)]
struct Drained {
    /// Slots whose container waits for a JIT config.
    waiting: BTreeSet<SlotId>,
    /// Slots whose container has no JIT config.
    without_config: BTreeSet<SlotId>,
    /// Job-started reports.
    notes: BTreeMap<SlotId, JobNote>,
}

impl<M: Machines, R: Registry, H: Handshake, D: Records> Controller<M, R, H, D> {
    /// Adopts the runners of an earlier daemon, from units, sockets and records.
    ///
    /// Called once, before [`Controller::run`] and after the sockets were opened, so that the requests
    /// of waiting containers are in `events` already.
    ///
    /// # Errors
    /// Fails if systemd cannot observe the units, because no decision is possible without them.
    pub async fn adopt(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<(), M::Error> {
        let records = match self.environment.records.load().await {
            Ok(records) => records,
            Err(error) => {
                let error = chain(&error);
                warn!(
                    error,
                    "cannot read the records: {error}; adopting by units and sockets"
                );
                self.conditions.records_error = Some(error);
                Vec::new()
            }
        };
        let strays = self.environment.records.strays().await.unwrap_or_default();
        let verdicts = self.environment.records.recent(VERDICTS).await;
        let verdicts = verdicts.unwrap_or_default();
        self.history.restore(&verdicts);
        self.restore_mode().await;
        for (scope, account) in self.accounts() {
            self.restore_limit(&scope, &account).await;
            self.restore_pace(&scope, &account).await;
        }
        // A runner that ends now is found by its unit.
        let mut ends = self.environment.machines.ends().await;
        ends.sort_by_key(|ended| ended.end.at);
        let units = self.environment.machines.observe().await?;
        let ended = ends.iter().map(|ended| &ended.end);
        let ended = ended.chain(units.iter().filter_map(|unit| unit.end.as_ref()));
        let ended = ended.map(|end| end.invocation.clone()).collect();
        let judged = self.environment.records.judged(ended).await.ok();
        let Drained {
            waiting,
            without_config,
            notes,
        } = self.drain_events(events);
        let found = Found {
            records,
            strays,
            verdicts,
            ends,
            units,
            judged,
            waiting,
            without_config,
            notes,
        };
        let (now, random) = ((self.environment.now)(), (self.environment.random)());
        let effects = self.pools.adopt(found, now, random);
        self.carry_out(effects);
        self.publish();
        Ok(())
    }

    /// Applies the events that arrived before the adoption.
    fn drain_events(&mut self, events: &mut mpsc::Receiver<Event>) -> Drained {
        let Drained {
            mut waiting,
            mut without_config,
            mut notes,
        } = Drained::default();
        while let Ok(event) = events.try_recv() {
            match event {
                Event::ConfigRequested { slot } => {
                    waiting.insert(slot);
                }
                Event::ConfigNotGiven { slot } => {
                    without_config.insert(slot);
                }
                Event::RequestDropped { slot } => {
                    waiting.remove(&slot);
                }
                // The observation of all units is newer than a signal that came before it.
                Event::Unit(_) | Event::LinksWithoutAddress(_) => {}
                Event::JobStarted { slot, note } => {
                    notes.insert(slot, note);
                }
                Event::Firewall { problem } => self.conditions.set_firewall(problem),
                Event::Shortages(shortages) => self.conditions.set_shortages(shortages),
                event @ (Event::Job(_)
                | Event::Deliveries(_)
                | Event::Queue(_)
                | Event::Redelivery(_)
                | Event::ScaleSet(_)) => {
                    self.handle_event(event);
                }
            }
        }
        Drained {
            waiting,
            without_config,
            notes,
        }
    }

    async fn restore_mode(&mut self) {
        let setting = self.environment.records.setting(MODE_KEY).await;
        let setting = setting.ok().flatten();
        let mode = Mode::from_setting(setting.as_deref(), &self.environment.boot_id);
        self.mode = mode.unwrap_or_else(|| {
            let setting = setting.unwrap_or_default();
            warn!(
                setting,
                "cannot read the daemon's mode in the records: this version does not know {setting:?}; runners start"
            );
            Mode::Running
        });
        if matches!(self.mode, Mode::Clearing | Mode::ClearingToRefill) {
            self.clearings.restore((self.environment.unix_ms)());
        }
        if self.mode != Mode::Running {
            info!(mode = %self.mode, "keeping the mode of the earlier daemon: {}", self.mode);
        }
    }

    /// Returns the scopes that can be asked, each with the account that a rate limit is about.
    fn accounts(&self) -> Vec<(ScopeId, String)> {
        let configured = self.environment.registries.iter();
        let former = self.environment.former.iter();
        let former = former.filter_map(|(scope, client)| Some((scope, client.as_ref().ok()?)));
        let all = configured.chain(former);
        all.map(|(scope, client)| (scope.clone(), client.account.clone()))
            .collect()
    }

    /// Reads the setting of a scope. A version with one scope wrote it without the scope.
    async fn scope_setting(records: &D, key: &str, scope: &ScopeId) -> Option<String> {
        let own = records.setting(&scope_key(key, scope)).await.ok().flatten();
        match own {
            Some(own) => Some(own),
            None => records.setting(key).await.ok().flatten(),
        }
    }

    async fn restore_pace(&mut self, scope: &ScopeId, account: &str) {
        let records = Arc::clone(&self.environment.records);
        let setting = Self::scope_setting(&records, PACE_KEY, scope).await;
        // A version without this setting sent at most 60 in its last minute.
        let Some(Ok(record)) = setting.map(|text| text.parse::<PaceRecord>()) else {
            return;
        };
        let (now, unix_ms) = ((self.environment.now)(), (self.environment.unix_ms)());
        if let Some(pace) = self.pools.pace_mut(scope) {
            pace.restore(&record, account, &self.environment.boot_id, now, unix_ms);
        }
    }

    async fn restore_limit(&mut self, scope: &ScopeId, account: &str) {
        let records = Arc::clone(&self.environment.records);
        let setting = Self::scope_setting(&records, LIMIT_KEY, scope).await;
        let Some(Ok(limit)) = setting.map(|text| text.parse::<RateLimit>()) else {
            return;
        };
        let (now, unix_ms) = ((self.environment.now)(), (self.environment.unix_ms)());
        match limit.rest(account, &self.environment.boot_id, now, unix_ms) {
            Rest::Over => {}
            // No later daemon is to find it again.
            Rest::TooLong => {
                for key in [LIMIT_KEY.to_owned(), scope_key(LIMIT_KEY, scope)] {
                    self.writes.push(Write::Setting(key, None));
                }
            }
            Rest::Lasts(rest) => {
                info!(
                    %scope,
                    rest_s = rest.as_secs(),
                    "keeping GitHub's rate limit of the earlier daemon: no call for {scope} for {} s",
                    rest.as_secs()
                );
                self.limited_until.insert(scope.clone(), now + rest);
                if let Some(registry) = self.registry(scope) {
                    registry.hold(rest);
                }
            }
        }
    }
}
