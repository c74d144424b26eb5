//! The version of a pool's runners, and for how long GitHub accepts it.

use pool::{RunnerVersion, VersionEnd};
use serde::{Deserialize, Serialize};

/// Version of a pool's newest runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionStatus {
    /// The version, as the listener told it to GitHub.
    pub version: RunnerVersion,
    /// Dates from which GitHub refuses it; `None` before GitHub told them, and from a server that tells none.
    pub end: Option<VersionEnd>,
    /// Time of GitHub's last answer about it, in milliseconds since 1970.
    pub asked_unix_ms: Option<u64>,
    /// Way to a newer version.
    pub remedy: VersionRemedy,
}

impl VersionStatus {
    /// Returns the date from which no new runner of the pool gets a job, in milliseconds since 1970.
    #[must_use]
    pub fn end_unix_ms(&self) -> Option<u64> {
        self.end?.unix_ms()
    }
}

/// Way to a newer version of the runner in a pool's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionRemedy {
    /// The image is a NixOS system, which is evaluated with a newer nixpkgs.
    Nixpkgs,
    /// The image is a directory, which is built again.
    Rebuild,
}
