//! Questions about the runners that ended, and their answers.

use serde::{Deserialize, Serialize};

use crate::{Verdict, VerdictRecord};

/// Maximum number of runners in one answer. The next question continues after them.
pub const MAX_PAGE: u32 = 500;

/// Question for the runners that ended. Absent values allow every runner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryQuery {
    /// Name of a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// A slot, such as `ci-3`, or the name of a runner at GitHub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// A verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// `owner/name` of the repository whose job the runner had, in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Id of the workflow run whose job the runner had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Earliest end, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_unix_ms: Option<u64>,
    /// True for the runners that failed, and for those whose job failed or was cut short.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// [`HistoryPage::next`] of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Maximum number of runners in the answer, at most [`MAX_PAGE`], which is also the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl HistoryQuery {
    /// Returns the number of runners that an answer may have.
    #[must_use]
    pub fn page(&self) -> u32 {
        self.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE)
    }
}

/// Runners that ended, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// The runners.
    pub runners: Vec<VerdictRecord>,
    /// [`HistoryQuery::before`] of the next question; `None` if there are no older runners.
    pub next: Option<u64>,
}
