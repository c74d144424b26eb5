//! Adoption: everything that a new daemon finds, read for [`Pools::adopt`].
//!
//! [`Pools::adopt`]: crate::pool::Pools::adopt

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Controller;
use super::writes::{LIMIT_KEY, MODE_KEY, PACE_KEY, Write};
use crate::pool::{Found, JobNote, Mode, PaceRecord, RateLimit, Rest, SlotId};
use crate::world::{Event, Handshake, Machines, Records, Registry, chain};

/// Number of verdicts among which a runner that ended without a daemon may be: many times the number of
/// slots of a host.
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
        let verdicts = self.environment.records.recent(VERDICTS).await.ok();
        self.history
            .restore(verdicts.as_deref().unwrap_or_default());
        self.restore_mode().await;
        self.restore_limit().await;
        self.restore_pace().await;
        let units = self.environment.machines.observe().await?;
        let Drained {
            waiting,
            without_config,
            notes,
        } = self.drain_events(events);
        let found = Found {
            records,
            strays,
            verdicts,
            units,
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
                event @ (Event::Job(_) | Event::Deliveries(_)) => self.handle_event(event),
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

    async fn restore_pace(&mut self) {
        let setting = self.environment.records.setting(PACE_KEY).await;
        // A version without this setting sent at most 60 in its last minute.
        let Some(Ok(record)) = (setting.ok().flatten()).map(|text| text.parse::<PaceRecord>())
        else {
            return;
        };
        let (now, unix_ms) = ((self.environment.now)(), (self.environment.unix_ms)());
        let account = self.limited_account();
        let boot_id = &self.environment.boot_id;
        if let Some(pace) = self.pools.pace_mut(&self.config.github.scope_id()) {
            pace.restore(&record, &account, boot_id, now, unix_ms);
        }
    }

    async fn restore_limit(&mut self) {
        let setting = self.environment.records.setting(LIMIT_KEY).await;
        let setting = setting.ok().flatten();
        let Some(Ok(limit)) = setting.map(|text| text.parse::<RateLimit>()) else {
            return;
        };
        let (now, unix_ms) = ((self.environment.now)(), (self.environment.unix_ms)());
        let account = self.limited_account();
        match limit.rest(&account, &self.environment.boot_id, now, unix_ms) {
            Rest::Over => {}
            // No later daemon is to find it again.
            Rest::TooLong => self.writes.push(Write::Setting(LIMIT_KEY, None)),
            Rest::Lasts(rest) => {
                info!(
                    rest_s = rest.as_secs(),
                    "keeping GitHub's rate limit of the earlier daemon: no call for {} s",
                    rest.as_secs()
                );
                self.limited_until = now + rest;
                self.environment.registry.hold(rest);
            }
        }
    }
}
