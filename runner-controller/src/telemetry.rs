//! Logs, and notifications to systemd: readiness, stop and watchdog.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging: under systemd to journald, with fields (`POOL=`, `SLOT=`, `RUNNER=`, `VERDICT=`,
/// `JOB_URL=`, `TRACE_ID=`), otherwise as lines to standard error. `RUST_LOG` filters the logs.
///
/// `journalctl` shows the text of a line and not its fields, so the text has every fact that an operator
/// needs. `cargo verify --only static` checks that. The fields are for filters and programs.
pub(crate) fn init() {
    // Otherwise the HTTP client logs each request three times.
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
                    "cannot log to journald: {error}; logging plain lines to standard error"
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

/// Notifies systemd. Does nothing without systemd.
fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot notify systemd: {error}");
    }
}

/// Reports that a reload began (`Type=notify-reload`). [`ready`] ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot read the monotonic clock: {error}"),
    }
}

/// Reports that the process does its work, or that a reload ended.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that the daemon is stopping.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Resets systemd's watchdog three times per period while `responds` returns true. Returns at once if
/// the unit has no watchdog.
pub(crate) async fn watchdog(responds: impl AsyncFn() -> bool) {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut interval = tokio::time::interval((period / 3).max(Duration::from_millis(100)));
    loop {
        interval.tick().await;
        if responds().await {
            notify(&[NotifyState::Watchdog]);
        }
    }
}
