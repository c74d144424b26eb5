//! Asks GitHub for deliveries that failed: those of the time in which the daemon was down, or could not put them on
//! record. GitHub itself does not repeat a delivery.
//!
//! A delivery that arrives names its hook, so the host knows which hooks to ask, and the records keep them for the next
//! daemon. `due` says which deliveries are asked for. Each goes the way of every delivery, and one that is on record
//! has no second effect.

mod due;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::pool::ScopeId;
use crate::status::RedeliveryStatus;
use crate::world::{
    Deliveries, Event, Failure as _, Hook, Inbox, KnownHooks, RegistryError, chain,
};
use due::{Asked, MAX_AGE};

/// Interval between sweeps. With nothing to repeat, each costs one call for each hook. A sweep comes earlier if a delivery
/// is due before.
const INTERVAL: Duration = Duration::from_mins(2);
/// Shortest pause between sweeps.
const SHORTEST: Duration = Duration::from_secs(1);
/// Pause after a sweep that GitHub refused, until an operator changed something.
const REFUSED: Duration = Duration::from_hours(1);

/// Outside of a sweeper: records, loop and clock.
pub struct Surroundings<I> {
    /// Record of the deliveries.
    pub inbox: I,
    /// The loop.
    pub events: mpsc::Sender<Event>,
    /// Clock in milliseconds since 1970.
    pub unix_ms: fn() -> u64,
}

/// Asks for the failed deliveries of one scope. Each scope has a sweeper, so that a slow answer delays no other scope.
pub struct Sweeper<D, I> {
    deliveries: Arc<D>,
    scope: ScopeId,
    outside: Surroundings<I>,
    asked: Asked,
    status: RedeliveryStatus,
}

/// A sweep that failed.
struct Failed {
    text: String,
    pause: Duration,
}

impl From<RegistryError> for Failed {
    fn from(error: RegistryError) -> Self {
        let pause = if error.is_transient() {
            INTERVAL
        } else {
            REFUSED
        };
        Self {
            text: error.to_string(),
            pause: error.retry_after.unwrap_or_default().max(pause),
        }
    }
}

impl<D: Deliveries, I: Inbox> Sweeper<D, I> {
    /// Returns a sweeper that has asked for nothing.
    #[must_use]
    pub fn new(deliveries: Arc<D>, scope: ScopeId, outside: Surroundings<I>) -> Self {
        Self {
            deliveries,
            outside,
            asked: Asked::default(),
            status: RedeliveryStatus {
                scope: scope.to_string(),
                ..RedeliveryStatus::default()
            },
            scope,
        }
    }

    /// Sweeps until the sender of `hooks` is gone.
    pub async fn run(mut self, mut hooks: watch::Receiver<KnownHooks>) {
        loop {
            let known = hooks.borrow_and_update().get(&self.scope).cloned();
            let pause = match known {
                Some(known) => self.sweep(&known).await,
                None => INTERVAL,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // The first delivery tells of a hook.
                changed = hooks.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Asks for the failed deliveries of these hooks. Returns the pause before the next sweep.
    async fn sweep(&mut self, hooks: &BTreeSet<Hook>) -> Duration {
        let before = self.status.clone();
        let pause = match self.repeat(hooks).await {
            Ok(pause) => {
                self.status.last_unix_ms = Some((self.outside.unix_ms)());
                if self.status.error.take().is_some() {
                    let scope = &self.scope;
                    info!(%scope, "asking GitHub for the failed deliveries of {scope} again");
                }
                pause
            }
            Err(failed) => {
                if self.status.error.as_ref() != Some(&failed.text) {
                    let (scope, error) = (&self.scope, &failed.text);
                    warn!(
                        %scope,
                        error,
                        "cannot ask GitHub for the failed deliveries of {scope}: {error}; deliveries that arrive are taken"
                    );
                }
                self.status.error = Some(failed.text);
                failed.pause
            }
        };
        if self.status != before {
            // The loop is gone only if the daemon ends.
            let told = Event::Redelivery(self.status.clone());
            let _ = self.outside.events.send(told).await;
        }
        pause
    }

    async fn repeat(&mut self, hooks: &BTreeSet<Hook>) -> Result<Duration, Failed> {
        let mut pause = INTERVAL;
        self.status.has_more = false;
        let unix_ms = (self.outside.unix_ms)();
        let age = u64::try_from(MAX_AGE.as_millis()).unwrap_or(u64::MAX);
        let mut all = Vec::new();
        for hook in hooks {
            let since = unix_ms.saturating_sub(age);
            let (failed, has_more) = self.deliveries.failed(hook, since).await?;
            self.status.has_more |= has_more;
            let ids = failed.iter().map(|attempt| attempt.delivery.clone());
            let on_record = self.outside.inbox.on_record(ids.collect()).await;
            let on_record = on_record.map_err(|error| Failed {
                text: chain(&error),
                pause: INTERVAL,
            })?;
            let (due, next) =
                self.asked
                    .due(&failed, |delivery| on_record.contains(delivery), unix_ms);
            if let Some(next) = next {
                pause = pause.min(Duration::from_millis(next.saturating_sub(unix_ms)));
            }
            for attempt in due {
                self.deliveries.repeat(hook, attempt.id).await?;
                self.asked.asked(&attempt.delivery);
                self.status.repeated += 1;
                let (scope, delivery) = (&self.scope, &attempt.delivery);
                info!(%scope, delivery, "asked GitHub for delivery {delivery} of {hook}, for {scope}, once more");
            }
            all.extend(failed);
        }
        self.asked.retain(&all);
        Ok(pause.max(SHORTEST))
    }
}

#[cfg(test)]
mod tests;
