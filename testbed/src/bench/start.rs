//! The start of a daemon that is measured.

use std::time::Duration;

use anyhow::Result;

use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::settle::await_listening;

/// Timeout for a single step on a machine that is quick enough to measure on.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// Starts the daemon with this configuration and returns when its pools are full.
pub(super) fn begin(lab: &Lab, config: &Config) -> Result<()> {
    install_measured(lab, config)?;
    lab.start()?;
    await_listening(lab, SOON).map(drop)
}

/// Installs this configuration, and a daemon that logs all that is measured. Starts nothing.
pub(super) fn install_measured(lab: &Lab, config: &Config) -> Result<()> {
    lab.install(config)?;
    // One message that is needed has level debug.
    lab.host().write(
        &format!("/run/systemd/system/{DAEMON}.d/bench.conf"),
        b"[Service]\nEnvironment=RUST_LOG=info,runner_controller::controller=debug\n",
        0o644,
    )?;
    lab.host().run(&["systemctl", "daemon-reload"]).map(drop)
}
