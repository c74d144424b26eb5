//! Endpoints by method and path.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::scale_set_call::ScaleSetCall;

/// An endpoint, as fault rules and statistics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST …/actions/runners/generate-jitconfig`
    Mint,
    /// `POST …/actions/runners/registration-token`
    RegistrationToken,
    /// `GET …/actions/runners`
    List,
    /// `GET …/actions/runners/{runner_id}`
    Get,
    /// `DELETE …/actions/runners/{runner_id}`
    Delete,
    /// `GET /orgs/{org}/actions/runner-groups`
    Groups,
    /// `GET …/actions/runners/deprecations/{version}`
    Deprecation,
    /// `GET /repos/{owner}/{repo}/actions/runs`
    Runs,
    /// `GET /repos/{owner}/{repo}/actions/runs/{run_id}/jobs`
    RunJobs,
    /// `GET /repos/{owner}/{repo}/actions/jobs/{job_id}`
    Job,
    /// `GET …/deliveries` of a hook, or of a GitHub App's hook
    HookDeliveries,
    /// `GET …/deliveries/{delivery_id}`
    HookDelivery,
    /// `POST …/deliveries/{delivery_id}/attempts`
    HookAttempt,
    /// `GET …/installation`, called by a GitHub App
    Installation,
    /// `POST /app/installations/{installation_id}/access_tokens`
    AccessToken,
    /// `GET /rate_limit`
    RateLimit,
    /// `GET /meta`
    Meta,
    /// `POST /oauth2/token`: a listener's access token
    Token,
    /// `POST /broker/session`
    Session,
    /// `DELETE /broker/session`
    SessionDelete,
    /// `GET /broker/message`
    Message,
    /// `POST /broker/acknowledge`
    Acknowledge,
    /// `POST /run/{request}/acquirejob`
    Acquire,
    /// `POST /run/{request}/renewjob`
    Renew,
    /// `POST /run/{request}/completejob`
    Complete,
    /// `POST /run/{request}/facts`, which GitHub does not have
    Facts,
    /// `POST /twirp/…/Get…SignedBlobURL`: the address for a log
    LogUrl,
    /// `POST /twirp/…/Create…Metadata`: a log is complete
    LogMetadata,
    /// `POST /twirp/…/WorkflowStepsUpdate`
    StepsUpdate,
    /// `PUT /actions-results/{blob}`: a log's bytes
    Blob,
    /// Any other method and path
    Unknown,
    /// A call of the scale-set service
    #[serde(untagged)]
    ScaleSet(ScaleSetCall),
}

impl Endpoint {
    /// All endpoints that are served, except those of scale sets.
    const PLAIN: [Self; 30] = [
        Self::Mint,
        Self::RegistrationToken,
        Self::List,
        Self::Get,
        Self::Delete,
        Self::Groups,
        Self::Deprecation,
        Self::Runs,
        Self::RunJobs,
        Self::Job,
        Self::HookDeliveries,
        Self::HookDelivery,
        Self::HookAttempt,
        Self::Installation,
        Self::AccessToken,
        Self::RateLimit,
        Self::Meta,
        Self::Token,
        Self::Session,
        Self::SessionDelete,
        Self::Message,
        Self::Acknowledge,
        Self::Acquire,
        Self::Renew,
        Self::Complete,
        Self::Facts,
        Self::LogUrl,
        Self::LogMetadata,
        Self::StepsUpdate,
        Self::Blob,
    ];

    /// Returns all endpoints that are served.
    pub(crate) fn served() -> impl Iterator<Item = Self> {
        let scale_sets = ScaleSetCall::ALL.into_iter().map(Self::ScaleSet);
        Self::PLAIN.into_iter().chain(scale_sets)
    }

    /// Returns the endpoint of a method and a path template of [`paths`](Self::paths).
    pub(crate) fn of(method: &str, path: &str) -> Self {
        Self::served()
            .find(|endpoint| {
                let (served, paths) = endpoint.route();
                served == method && paths.contains(&path)
            })
            .unwrap_or(Self::Unknown)
    }

    /// Returns the path templates of all endpoints.
    pub(crate) fn paths() -> BTreeSet<&'static str> {
        Self::served()
            .flat_map(|endpoint| endpoint.route().1)
            .copied()
            .collect()
    }

    /// Returns the method and the path templates. The templates of REST endpoints are those of GitHub's
    /// `OpenAPI` description, by which requests and answers are checked.
    fn route(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Mint => (
                "POST",
                &[
                    "/orgs/{org}/actions/runners/generate-jitconfig",
                    "/repos/{owner}/{repo}/actions/runners/generate-jitconfig",
                ],
            ),
            Self::RegistrationToken => (
                "POST",
                &[
                    "/orgs/{org}/actions/runners/registration-token",
                    "/repos/{owner}/{repo}/actions/runners/registration-token",
                ],
            ),
            Self::List => (
                "GET",
                &[
                    "/orgs/{org}/actions/runners",
                    "/repos/{owner}/{repo}/actions/runners",
                ],
            ),
            Self::Get => ("GET", &RUNNER),
            Self::Delete => ("DELETE", &RUNNER),
            Self::Groups => ("GET", &["/orgs/{org}/actions/runner-groups"]),
            Self::Deprecation => (
                "GET",
                &[
                    "/orgs/{org}/actions/runners/deprecations/{version}",
                    "/repos/{owner}/{repo}/actions/runners/deprecations/{version}",
                ],
            ),
            Self::Runs => ("GET", &["/repos/{owner}/{repo}/actions/runs"]),
            Self::RunJobs => ("GET", &["/repos/{owner}/{repo}/actions/runs/{run_id}/jobs"]),
            Self::Job => ("GET", &["/repos/{owner}/{repo}/actions/jobs/{job_id}"]),
            Self::HookDeliveries => ("GET", &DELIVERIES),
            Self::HookDelivery => ("GET", &DELIVERY),
            Self::HookAttempt => ("POST", &ATTEMPTS),
            Self::Installation => (
                "GET",
                &[
                    "/orgs/{org}/installation",
                    "/repos/{owner}/{repo}/installation",
                ],
            ),
            Self::AccessToken => (
                "POST",
                &["/app/installations/{installation_id}/access_tokens"],
            ),
            Self::RateLimit => ("GET", &["/rate_limit"]),
            Self::Meta => ("GET", &["/meta"]),
            Self::Token => ("POST", &["/oauth2/token"]),
            Self::Session => ("POST", &["/broker/session"]),
            Self::SessionDelete => ("DELETE", &["/broker/session"]),
            Self::Message => ("GET", &["/broker/message"]),
            Self::Acknowledge => ("POST", &["/broker/acknowledge"]),
            Self::Acquire => ("POST", &["/run/{request}/acquirejob"]),
            Self::Renew => ("POST", &["/run/{request}/renewjob"]),
            Self::Complete => ("POST", &["/run/{request}/completejob"]),
            Self::Facts => ("POST", &["/run/{request}/facts"]),
            Self::LogUrl => (
                "POST",
                &[
                    "/twirp/results.services.receiver.Receiver/GetJobLogsSignedBlobURL",
                    "/twirp/results.services.receiver.Receiver/GetStepLogsSignedBlobURL",
                    "/twirp/results.services.receiver.Receiver/GetStepSummarySignedBlobURL",
                ],
            ),
            Self::LogMetadata => (
                "POST",
                &[
                    "/twirp/results.services.receiver.Receiver/CreateJobLogsMetadata",
                    "/twirp/results.services.receiver.Receiver/CreateStepLogsMetadata",
                    "/twirp/results.services.receiver.Receiver/CreateStepSummaryMetadata",
                ],
            ),
            Self::StepsUpdate => (
                "POST",
                &[
                    "/twirp/github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate",
                ],
            ),
            // GitHub's worker builds its blob URL with a second slash after the host.
            Self::Blob => (
                "PUT",
                &["/actions-results/{blob}", "//actions-results/{blob}"],
            ),
            Self::Unknown => ("", &[]),
            Self::ScaleSet(call) => call.route(),
        }
    }

    /// Tells whether the endpoint belongs to the results service or its blob store.
    pub(crate) fn is_results(self) -> bool {
        matches!(
            self,
            Self::LogUrl | Self::LogMetadata | Self::StepsUpdate | Self::Blob
        )
    }

    /// Tells whether the endpoint belongs to the REST API.
    #[must_use]
    pub fn is_rest(self) -> bool {
        match self {
            Self::Mint
            | Self::RegistrationToken
            | Self::List
            | Self::Get
            | Self::Delete
            | Self::Groups
            | Self::Deprecation
            | Self::Runs
            | Self::RunJobs
            | Self::Job
            | Self::HookDeliveries
            | Self::HookDelivery
            | Self::HookAttempt
            | Self::Installation
            | Self::AccessToken
            | Self::RateLimit
            | Self::Meta => true,
            Self::Token
            | Self::Session
            | Self::SessionDelete
            | Self::Message
            | Self::Acknowledge
            | Self::Acquire
            | Self::Renew
            | Self::Complete
            | Self::Facts
            | Self::LogUrl
            | Self::LogMetadata
            | Self::StepsUpdate
            | Self::Blob
            | Self::Unknown
            | Self::ScaleSet(_) => false,
        }
    }

    /// Returns the name in fault rules and statistics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::RegistrationToken => "registration_token",
            Self::List => "list",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::Groups => "groups",
            Self::Deprecation => "deprecation",
            Self::Runs => "runs",
            Self::RunJobs => "run_jobs",
            Self::Job => "job",
            Self::HookDeliveries => "hook_deliveries",
            Self::HookDelivery => "hook_delivery",
            Self::HookAttempt => "hook_attempt",
            Self::Installation => "installation",
            Self::AccessToken => "access_token",
            Self::RateLimit => "rate_limit",
            Self::Meta => "meta",
            Self::Token => "token",
            Self::Session => "session",
            Self::SessionDelete => "session_delete",
            Self::Message => "message",
            Self::Acknowledge => "acknowledge",
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Complete => "complete",
            Self::Facts => "facts",
            Self::LogUrl => "log_url",
            Self::LogMetadata => "log_metadata",
            Self::StepsUpdate => "steps_update",
            Self::Blob => "blob",
            Self::Unknown => "unknown",
            Self::ScaleSet(call) => call.name(),
        }
    }
}

const RUNNER: [&str; 2] = [
    "/orgs/{org}/actions/runners/{runner_id}",
    "/repos/{owner}/{repo}/actions/runners/{runner_id}",
];

const DELIVERIES: [&str; 3] = [
    "/app/hook/deliveries",
    "/orgs/{org}/hooks/{hook_id}/deliveries",
    "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries",
];

const DELIVERY: [&str; 3] = [
    "/app/hook/deliveries/{delivery_id}",
    "/orgs/{org}/hooks/{hook_id}/deliveries/{delivery_id}",
    "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id}",
];

const ATTEMPTS: [&str; 3] = [
    "/app/hook/deliveries/{delivery_id}/attempts",
    "/orgs/{org}/hooks/{hook_id}/deliveries/{delivery_id}/attempts",
    "/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id}/attempts",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_serde_writes() {
        for endpoint in Endpoint::served().chain([Endpoint::Unknown]) {
            let written = serde_json::to_value(endpoint).unwrap();
            assert_eq!(written, endpoint.name());
            let read: Endpoint = serde_json::from_value(written).unwrap();
            assert_eq!(read, endpoint);
        }
    }

    #[test]
    fn each_route_leads_to_its_endpoint() {
        for endpoint in Endpoint::served() {
            let (method, paths) = endpoint.route();
            for path in paths {
                assert_eq!(Endpoint::of(method, path), endpoint);
                assert_eq!(Endpoint::of("HEAD", path), Endpoint::Unknown);
            }
        }
    }
}
