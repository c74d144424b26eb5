//! Settings of the scale-set service.

use serde::{Deserialize, Serialize};

/// Way in which a scale set gets its jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleSetMode {
    /// GitHub assigns jobs to sets, as github.com does. `acquirejobs` does not exist, and each
    /// `runnerRequestId` is 0.
    #[default]
    Auto,
    /// A set acquires the jobs that it is offered, as on GitHub Enterprise Server.
    Acquire,
}

/// Times and faults of the scale-set service. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScaleSetSettings {
    /// Way in which sets get their jobs.
    pub mode: ScaleSetMode,
    /// Times that a poll without a message may be held. Each poll takes one of them at random; GitHub's were
    /// seen to be 51 s and 88 s.
    pub poll_hold_ms: Vec<u64>,
    /// Time from the last contact until another session may replace one that was not closed.
    pub session_lapse_ms: u64,
    /// Lifetime of a registration token.
    pub registration_token_ms: u64,
    /// Lifetime of an admin token.
    pub admin_token_ms: u64,
    /// Lifetime of a message queue's token.
    pub queue_token_ms: u64,
    /// Time until an assigned job that no runner has started is assigned anew.
    pub reassign_after_ms: u64,
    /// Maximum number of times that a job is assigned anew.
    pub reassign_times: u32,
    /// Keeps all labels of a set. GitHub Enterprise Server 3.17 to 3.20 keeps the first alone.
    pub custom_labels: bool,
    /// Fault: new sessions have an empty `messageQueueUrl`.
    pub empty_queue_url: bool,
    /// Fault: statistics count no assigned jobs, also beside a `JobAssigned`.
    pub zero_assigned: bool,
}

impl Default for ScaleSetSettings {
    fn default() -> Self {
        Self {
            mode: ScaleSetMode::Auto,
            poll_hold_ms: vec![51_000, 88_000],
            session_lapse_ms: 92_000,
            registration_token_ms: 3_600_000,
            admin_token_ms: 1_020_000,
            queue_token_ms: 3_000_000,
            reassign_after_ms: 300_000,
            reassign_times: 3,
            custom_labels: true,
            empty_queue_url: false,
            zero_assigned: false,
        }
    }
}
