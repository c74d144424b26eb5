//! The dates from which GitHub refuses a version of its runner.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::client::Client;
use super::exchange::{Answer, Request};
use super::operation::Operation;
use crate::pool::{RunnerVersion, VersionEnd};
use crate::workflow_job;
use crate::world::{RegistryError, RegistryErrorKind};

/// The answer for one version. octocrab has no call for it.
#[derive(Deserialize)]
pub(super) struct Dates {
    runner_version: String,
    registration_deprecates_at: Option<String>,
    runtime_deprecates_at: Option<String>,
}

impl Dates {
    /// Returns the dates; `None` if one cannot be read, or if they are another version's.
    pub(super) fn read(&self, version: RunnerVersion) -> Option<VersionEnd> {
        // GitHub's tags begin with a letter, its lists do not.
        let named = self.runner_version.trim_start_matches('v').parse();
        if named != Ok(version) {
            return None;
        }
        let date = |text: &Option<String>| match text {
            None => Some(None),
            Some(text) => workflow_job::time(Some(text)).map(Some),
        };
        Some(VersionEnd {
            registration_unix_ms: date(&self.registration_deprecates_at)?,
            runtime_unix_ms: date(&self.runtime_deprecates_at)?,
        })
    }
}

/// Asks GitHub for the dates of a version. A server that does not know the call answers 404, as for a version that it
/// does not know.
pub(super) async fn fetch(
    client: &Client,
    target: String,
    version: RunnerVersion,
) -> Result<Option<VersionEnd>, RegistryError> {
    let request = Request {
        operation: Operation::Version,
        method: Method::GET,
        target,
        body: None,
    };
    let answer: Answer<Dates> = match client.call(&request).await {
        Ok(answer) => answer,
        Err(error) if error.status == Some(StatusCode::NOT_FOUND.as_u16()) => return Ok(None),
        Err(error) => return Err(error),
    };
    let context = &client.context;
    let misread = "the answer has no dates of the version that was asked for";
    let read = answer.body.read(version);
    read.map(Some)
        .ok_or_else(|| context.error(Operation::Version, RegistryErrorKind::Server, misread))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Option<VersionEnd> {
        let dates: Dates = serde_json::from_value(json).unwrap();
        dates.read("2.334.0".parse().unwrap())
    }

    #[test]
    fn each_date_may_be_missing_and_none_is_guessed() {
        let with = |registration: Option<&str>, runtime: Option<&str>| {
            read(serde_json::json!({
                "runner_version": "2.334.0",
                "registration_deprecates_at": registration,
                "runtime_deprecates_at": runtime,
            }))
        };
        assert_eq!(with(None, None), Some(VersionEnd::default()));
        let day = VersionEnd {
            registration_unix_ms: None,
            runtime_unix_ms: Some(1_796_342_400_000),
        };
        assert_eq!(with(None, Some("2026-12-04T00:00:00Z")), Some(day));
        assert_eq!(with(None, Some("soon")), None);
        assert_eq!(with(Some("2026-13-04T00:00:00Z"), None), None);
        // GitHub's schema requires neither.
        let bare = serde_json::json!({"runner_version": "v2.334.0"});
        assert_eq!(read(bare), Some(VersionEnd::default()));
    }

    #[test]
    fn dates_of_another_version_are_not_taken() {
        let other = serde_json::json!({"runner_version": "2.335.0"});
        assert_eq!(read(other), None);
    }
}
