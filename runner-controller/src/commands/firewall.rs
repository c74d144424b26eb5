//! `firewall`: the process that owns the firewall's table.

use std::path::Path;

use tracing::error;

use super::common::block_on;
use crate::config::Config;
use crate::world::chain;
use crate::{firewall, privileged, telemetry};

/// Owns the table until systemd stops the unit.
pub fn firewall(config_path: &Path, config: Config) -> anyhow::Result<()> {
    telemetry::init();
    let read = || privileged::read_config(config_path).map_err(|error| chain(&error));
    let ended = block_on(firewall::own(config, read))?;
    if let Err(error) = &ended {
        let reason = chain(error);
        error!(reason, "the firewall's owner ends: {reason}");
    }
    Ok(ended?)
}
