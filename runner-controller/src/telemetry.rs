//! Logs with fields, readiness and the watchdog.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends logs to journald with their fields (`POOL=`, `SLOT=`, `RUNNER=`, `VERDICT=`, `JOB_URL=`)
/// when systemd runs us, and as lines to stderr otherwise. `RUST_LOG` chooses what is logged.
pub fn init() {
    // The client's own chatter would say each request thrice.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,octocrab=warn,hyper=warn,tower=warn,zbus=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        match tracing_journald::layer() {
            Ok(layer) => {
                registry
                    .with(
                        layer
                            .with_field_prefix(None)
                            .with_syslog_identifier("runner-controller".into()),
                    )
                    .init();
                return;
            }
            Err(error) => {
                stdio::error(format_args!(
                    "journald does not take fields, so these are plain lines: {error}"
                ));
            }
        }
    }
    registry
        .with(
            tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_writer(std::io::stderr),
        )
        .init();
}

/// Tells systemd; nothing happens where it does not listen.
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd did not take a notification");
    }
}

/// Everything is adopted and the loop runs.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// On the way out.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Keeps the watchdog quiet for as long as `alive` says that the loop turns.
pub async fn watchdog(alive: impl AsyncFn() -> bool) {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut beat = tokio::time::interval((period / 3).max(Duration::from_millis(100)));
    loop {
        beat.tick().await;
        if alive().await {
            notify(&[NotifyState::Watchdog]);
        }
    }
}
