//! The `[logs]` table.

use std::time::Duration;

use strum::{AsRefStr, Display, EnumString, VariantArray};

use super::units::ByteSize;

/// Directory of the bundles with the listeners' log files.
///
/// Root owns it. The daemon's state directory belongs to the daemon, which could put a link there.
pub const LOG_BUNDLES_DIR: &str = "/var/log/runner-controller";

/// Log files of listeners that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogsConfig {
    /// Runners whose log files are kept.
    pub keep: KeptLogs,
    /// Maximum space on disk of all bundles.
    pub space: ByteSize,
    /// Maximum time since the end of a runner.
    pub age: Duration,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            keep: KeptLogs::Failed,
            space: ByteSize(1 << 30),
            age: Duration::from_hours(14 * 24),
        }
    }
}

/// Runners whose log files are kept.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptLogs {
    /// Those that failed, as far as root knows at their end.
    Failed,
    /// All of them.
    All,
    /// None of them.
    None,
}
