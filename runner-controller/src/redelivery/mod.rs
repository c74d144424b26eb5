//! Asks GitHub for deliveries that failed: those of the time in which the daemon was down, or could not put them on
//! record. GitHub itself does not repeat a delivery.
//!
//! A delivery that arrives names its hook, so the host knows which hooks to ask, and the records keep them for the next
//! daemon. `due` says which deliveries are asked for. Each goes the way of every delivery, and one that is on record
//! has no second effect.

mod due;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use crate::pool::ScopeId;
use crate::status::RedeliveryStatus;
use crate::world::{
    Deliveries, Event, Hook, Inbox, KnownHooks, RegistryError, RegistryErrorKind, chain,
};
use due::{Asked, MAX_AGE};

/// Interval between sweeps. With nothing to repeat, each costs one call. A sweep comes earlier if a delivery is due
/// before.
const INTERVAL: Duration = Duration::from_mins(2);
/// Shortest pause between sweeps.
const SHORTEST: Duration = Duration::from_secs(1);

/// Outside of the sweepers: records, loop and clock.
#[derive(Debug, Clone)]
pub struct Surroundings<I> {
    /// Record of the deliveries.
    pub inbox: I,
    /// The loop.
    pub events: mpsc::Sender<Event>,
    /// Clock in milliseconds since 1970.
    pub unix_ms: fn() -> u64,
}

/// Sweeps every hook that is known or becomes known, in the scopes that have `deliveries`, until it is dropped.
pub async fn run<D: Deliveries, I: Inbox>(
    deliveries: BTreeMap<ScopeId, Arc<D>>,
    hooks: watch::Sender<KnownHooks>,
    outside: Surroundings<I>,
) {
    let mut known = hooks.subscribe();
    let mut sweepers: BTreeMap<(ScopeId, Hook), AbortHandle> = BTreeMap::new();
    let mut running = JoinSet::new();
    let mut is_on_record = true;
    loop {
        let now: Vec<(ScopeId, Hook)> = known.borrow_and_update().iter().collect();
        sweepers.retain(|key, sweeper| {
            let is_known = now.contains(key);
            if !is_known {
                sweeper.abort();
            }
            is_known
        });
        for (scope, hook) in now {
            let key = (scope, hook);
            if let (false, Some(deliveries)) = (sweepers.contains_key(&key), deliveries.get(&key.0))
            {
                let sweeper = Sweeper::new(Arc::clone(deliveries), key.clone(), outside.clone());
                sweepers.insert(key, running.spawn(sweeper.run(is_on_record)));
            }
        }
        // The others were learned from deliveries to this daemon.
        is_on_record = false;
        tokio::select! {
            // `hooks` is a sender, so another one is always there.
            _ = known.changed() => {}
            Some(ended) = running.join_next() => {
                if let Ok((scope, hook)) = ended {
                    hooks.send_if_modified(|known| known.forget(&scope, &hook));
                }
            }
        }
    }
}

/// Asks for the failed deliveries of one hook. Each hook has a sweeper, so that none delays another.
struct Sweeper<D, I> {
    deliveries: Arc<D>,
    scope: ScopeId,
    hook: Hook,
    outside: Surroundings<I>,
    asked: Asked,
    status: RedeliveryStatus,
}

/// A sweep that failed.
struct Failed {
    text: String,
    pause: Duration,
    /// True if GitHub does not know the hook, or does not show it to this token.
    is_gone: bool,
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        Self {
            text: error.to_string(),
            pause: error.pause(INTERVAL),
            is_gone: error.kind == RegistryErrorKind::NotFound,
        }
    }
}

impl<D: Deliveries, I: Inbox> Sweeper<D, I> {
    fn new(deliveries: Arc<D>, (scope, hook): (ScopeId, Hook), outside: Surroundings<I>) -> Self {
        Self {
            deliveries,
            outside,
            asked: Asked::default(),
            status: RedeliveryStatus {
                scope: scope.to_string(),
                hook: hook.to_string(),
                ..RedeliveryStatus::default()
            },
            scope,
            hook,
        }
    }

    /// Sweeps until the hook is gone, and returns it. A hook from the records counts as gone as soon as GitHub does not
    /// know it; one that sent a delivery to this daemon exists.
    async fn run(mut self, is_on_record: bool) -> (ScopeId, Hook) {
        loop {
            let before = self.status.clone();
            let pause = match self.sweep().await {
                Ok(pause) => {
                    self.succeeded();
                    pause
                }
                Err(failed) if failed.is_gone && is_on_record => return (self.scope, self.hook),
                Err(failed) => {
                    let pause = failed.pause;
                    self.failed(failed);
                    pause
                }
            };
            if self.status != before {
                // The loop is gone only if the daemon ends.
                let told = Event::Redelivery(self.status.clone());
                let _ = self.outside.events.send(told).await;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn succeeded(&mut self) {
        self.status.last_unix_ms = Some((self.outside.unix_ms)());
        if self.status.error.take().is_some() {
            let (scope, hook) = (&self.scope, &self.hook);
            info!(%scope, %hook, "asking for the failed deliveries of {hook} in {scope} again");
        }
    }

    fn failed(&mut self, Failed { text, .. }: Failed) {
        if self.status.error.as_ref() != Some(&text) {
            let (scope, hook, error) = (&self.scope, &self.hook, &text);
            warn!(
                %scope,
                %hook,
                error,
                "cannot ask for the failed deliveries of {hook} in {scope}: {error}; deliveries that arrive are taken"
            );
        }
        self.status.error = Some(text);
    }

    /// Asks for the deliveries that are due. Returns the pause before the next sweep.
    async fn sweep(&mut self) -> Result<Duration, Failed> {
        let unix_ms = (self.outside.unix_ms)();
        let age = u64::try_from(MAX_AGE.as_millis()).unwrap_or(u64::MAX);
        let since = unix_ms.saturating_sub(age);
        let (failed, has_more) = self.deliveries.failed(&self.hook, since).await?;
        self.status.has_more = has_more;
        let ids = failed.iter().map(|attempt| attempt.delivery.clone());
        let on_record = self.outside.inbox.on_record(ids.collect()).await;
        let on_record = on_record.map_err(|error| Failed {
            text: chain(&error),
            pause: INTERVAL,
            is_gone: false,
        })?;
        let (due, next) = self
            .asked
            .due(&failed, |delivery| on_record.contains(delivery), unix_ms);
        for attempt in due {
            self.deliveries.repeat(&self.hook, attempt.id).await?;
            self.asked.asked(&attempt.delivery);
            self.status.repeated += 1;
            let (scope, hook, delivery) = (&self.scope, &self.hook, &attempt.delivery);
            info!(
                %scope,
                %hook,
                delivery,
                "asked GitHub for delivery {delivery} of {hook} in {scope} once more"
            );
        }
        self.asked.retain(&failed);
        let next = next.map(|at| Duration::from_millis(at.saturating_sub(unix_ms)));
        Ok(next.unwrap_or(INTERVAL).clamp(SHORTEST, INTERVAL))
    }
}

#[cfg(test)]
mod tests;
