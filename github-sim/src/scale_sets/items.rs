//! Items of messages: what happened to one job.

use serde_json::{Value, json};

use super::set::Claim;
use crate::{
    state::{JobRecord, RegisteredRunner},
    time::rfc3339,
    view::Conclusion,
};

/// Time that stands for "not yet".
const UNSET: &str = "0001-01-01T00:00:00Z";

/// Returns the address at which a set acquires jobs.
pub(crate) fn acquire_url(public_url: &str, set: u64) -> String {
    format!("{public_url}/rest/_apis/runtime/runnerscalesets/{set}/acquirejobs")
}

/// Returns a `JobAvailable`.
pub(crate) fn available(job: &JobRecord, request_id: u64, acquire_url: &str) -> Value {
    let mut item = base("JobAvailable", job, request_id, None);
    item["acquireJobUrl"] = acquire_url.into();
    item
}

/// Returns a `JobAssigned`.
pub(super) fn assigned(job: &JobRecord, claim: &Claim) -> Value {
    base("JobAssigned", job, claim.request_id, Some(claim))
}

/// Returns a `JobStarted`.
pub(super) fn started(job: &JobRecord, claim: &Claim, runner: (u64, &str)) -> Value {
    let mut item = base("JobStarted", job, claim.request_id, Some(claim));
    item["runnerId"] = runner.0.into();
    item["runnerName"] = runner.1.into();
    item["runnerAssignTime"] = time(job.assignments.last().map(|last| last.assigned_at)).into();
    item
}

/// Returns a `JobCompleted`.
pub(super) fn completed(
    job: &JobRecord,
    claim: &Claim,
    result: &str,
    runner: (u64, &str),
    finished: u64,
) -> Value {
    let mut item = base("JobCompleted", job, claim.request_id, Some(claim));
    item["result"] = result.into();
    item["runnerId"] = runner.0.into();
    item["runnerName"] = runner.1.into();
    if runner.0 != 0 {
        item["runnerAssignTime"] = time(job.assignments.last().map(|last| last.assigned_at)).into();
    }
    item["finishTime"] = rfc3339(finished).into();
    item
}

/// Returns id and name of the runner that has started the job, or 0 and nothing.
pub(super) fn runner_of(job: &JobRecord) -> (u64, &str) {
    job.assignments
        .last()
        .filter(|_| job.started_at.is_some())
        .map_or((0, ""), |last| (last.runner_id, last.runner_name.as_str()))
}

/// Returns id and name of a runner.
pub(super) fn named(runner: &RegisteredRunner) -> (u64, &str) {
    (runner.id, runner.name.as_str())
}

/// Returns the word of a message for a conclusion.
pub(super) fn result(conclusion: Option<Conclusion>) -> &'static str {
    match conclusion {
        Some(Conclusion::Success) => "succeeded",
        Some(Conclusion::Failure) | None => "failed",
        Some(Conclusion::Cancelled) => "canceled",
    }
}

fn time(unix_ms: Option<u64>) -> String {
    unix_ms.map_or_else(|| UNSET.into(), rfc3339)
}

fn base(kind: &str, job: &JobRecord, request_id: u64, claim: Option<&Claim>) -> Value {
    let (owner, repository) = job.origin.repository();
    json!({
        "messageType": kind,
        "runnerRequestId": request_id,
        "repositoryName": repository,
        "ownerName": owner,
        "jobId": job.uuid,
        "jobWorkflowRef": format!("{owner}/{repository}/.github/workflows/ci.yml@refs/heads/main"),
        "jobDisplayName": job.spec.name,
        "workflowRunId": job.id,
        "eventName": "push",
        "requestLabels": job.spec.labels,
        "queueTime": rfc3339(job.created_at),
        "scaleSetAssignTime": time(claim.map(|claim| claim.assigned_at)),
        "runnerAssignTime": UNSET,
        "finishTime": UNSET,
    })
}
