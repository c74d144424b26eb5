//! The `[notify]` table.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

/// Command that is told of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyConfig {
    /// Program, an absolute path, and its arguments.
    pub command: Vec<String>,
    /// Events of which it is told.
    pub events: BTreeSet<NotifyEvent>,
    /// Maximum run time.
    pub timeout: Duration,
}

/// Event that an operator can be told of.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotifyEvent {
    /// The host has not been healthy for two minutes.
    Unhealthy,
    /// The same step failed three times in a row for a pool.
    PoolStopped,
    /// The version of a pool's runners is near its end.
    VersionEnds,
    /// A drain is done: no runner is left.
    Drained,
}
