//! Endpoints of a job's logs: the results service and the blob store behind it.
//!
//! GitHub's worker asks for a signed URL, puts the log there (in one block, or in several that are appended),
//! and then reports the log as complete. The log of a complete job replaces `log_tail` of the job's facts.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::{
    endpoint::Endpoint,
    http::{ApiReply, ApiRequest},
    run_api::keep_tail,
    state::{GitHubState, LogBlob, LogKind},
};

/// Kind of a blob store. With another kind, GitHub's worker uploads nothing.
const STORAGE: &str = "BLOB_STORAGE_TYPE_AZURE";
/// Maximum size of a step's summary in bytes, as GitHub documents it.
const SUMMARY_BYTES: u64 = 1024 * 1024;
/// Length of `2026-11-28T14:00:00.1234567Z `, with which each line of a log starts.
const TIMESTAMP_CHARS: usize = 29;

/// Body of every call of the results service.
#[derive(Deserialize)]
struct ResultsBody {
    workflow_run_backend_id: String,
    workflow_job_run_backend_id: String,
    #[serde(default)]
    step_backend_id: Option<String>,
    #[serde(default)]
    steps: Option<Vec<Value>>,
}

/// Answers a request of a worker.
pub(crate) fn answer(state: &mut GitHubState, request: &ApiRequest) -> ApiReply {
    let answer = if request.endpoint == Endpoint::Blob {
        put_blob(state, request)
    } else {
        results(state, request)
    };
    answer.unwrap_or_else(|refusal| refusal)
}

/// Returns an error in the form of a twirp server.
fn refuse(status: StatusCode, code: &str, message: &str) -> ApiReply {
    ApiReply::json(status, &json!({"code": code, "msg": message}))
}

fn results(state: &mut GitHubState, request: &ApiRequest) -> Result<ApiReply, ApiReply> {
    let token = request.bearer().unwrap_or("");
    let job = state.jobs.values().find(|job| job.token == token);
    let job = job.ok_or_else(|| {
        refuse(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "job token not valid",
        )
    })?;
    let invalid = |message: &str| refuse(StatusCode::BAD_REQUEST, "invalid_argument", message);
    let body: ResultsBody = request
        .json()
        .map_err(|error| invalid(&error.to_string()))?;
    if body.workflow_run_backend_id != job.plan || body.workflow_job_run_backend_id != job.uuid {
        return Err(refuse(
            StatusCode::FORBIDDEN,
            "permission_denied",
            "the ids are not those of the job",
        ));
    }
    let job = job.id;
    let step = || {
        body.step_backend_id
            .clone()
            .filter(|id| !id.is_empty())
            .ok_or_else(|| invalid("step_backend_id is missing"))
    };
    let done = Ok(ApiReply::json(StatusCode::OK, &json!({"ok": true})));
    let method = request.path.rsplit('/').next().unwrap_or("");
    match method {
        "GetJobLogsSignedBlobURL" => {
            let url = blob_url(state, job, LogKind::Job);
            Ok(ApiReply::json(
                StatusCode::OK,
                &json!({"logs_url": url, "blob_storage_type": STORAGE}),
            ))
        }
        "GetStepLogsSignedBlobURL" => {
            let url = blob_url(state, job, LogKind::Step(step()?));
            Ok(ApiReply::json(
                StatusCode::OK,
                &json!({"logs_url": url, "blob_storage_type": STORAGE, "soft_size_limit": SUMMARY_BYTES}),
            ))
        }
        "GetStepSummarySignedBlobURL" => {
            let url = blob_url(state, job, LogKind::Summary(step()?));
            Ok(ApiReply::json(
                StatusCode::OK,
                &json!({"summary_url": url, "blob_storage_type": STORAGE, "soft_size_limit": SUMMARY_BYTES}),
            ))
        }
        "CreateJobLogsMetadata" => {
            let blob = take_blob(state, job, &LogKind::Job)?;
            if let Some(job) = state.jobs.get_mut(&job) {
                job.facts.log_tail = plain(&String::from_utf8_lossy(&blob.bytes));
                keep_tail(&mut job.facts.log_tail);
            }
            done
        }
        "CreateStepLogsMetadata" => {
            take_blob(state, job, &LogKind::Step(step()?))?;
            done
        }
        "CreateStepSummaryMetadata" => {
            take_blob(state, job, &LogKind::Summary(step()?))?;
            done
        }
        _ if body.steps.is_some() => done,
        _ => Err(invalid("steps is missing")),
    }
}

/// Returns the signed URL of a blob. A second request for the same log has the same URL.
fn blob_url(state: &mut GitHubState, job: u64, kind: LogKind) -> String {
    let known = state
        .blobs
        .iter()
        .find(|(_, blob)| blob.job == job && blob.kind == kind)
        .map(|(id, blob)| (id.clone(), blob.signature.clone()));
    let (id, signature) = known.unwrap_or_else(|| {
        let (id, signature) = (crate::random::uuid(), crate::random::text(32));
        let blob = LogBlob {
            job,
            kind,
            signature: signature.clone(),
            bytes: vec![],
            exists: false,
            sealed: false,
        };
        state.blobs.insert(id.clone(), blob);
        (id, signature)
    });
    format!(
        "{}/actions-results/{id}?sv=2025-11-05&sp=cw&sig={signature}",
        state.public_url
    )
}

/// Removes a blob whose log is complete.
fn take_blob(state: &mut GitHubState, job: u64, kind: &LogKind) -> Result<LogBlob, ApiReply> {
    let id = state
        .blobs
        .iter()
        .find(|(_, blob)| blob.job == job && blob.kind == *kind && blob.exists)
        .map(|(id, _)| id.clone());
    id.and_then(|id| state.blobs.remove(&id)).ok_or_else(|| {
        refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "the blob does not exist",
        )
    })
}

/// Writes to a blob as Azure's store does (`Put Blob`, `Append Block`, `Append Blob Seal`).
fn put_blob(state: &mut GitHubState, request: &ApiRequest) -> Result<ApiReply, ApiReply> {
    let failed = |status, code: &str| {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
        );
        ApiReply::with_type(status, "application/xml", body.into_bytes())
            .header("x-ms-error-code", code)
    };
    let given = request.query_param("sig").unwrap_or("").as_bytes();
    let blob = request
        .path_param("blob")
        .and_then(|id| state.blobs.get_mut(id))
        .filter(|blob| bool::from(blob.signature.as_bytes().ct_eq(given)))
        .ok_or_else(|| failed(StatusCode::FORBIDDEN, "AuthenticationFailed"))?;
    let written = |status| {
        Ok(ApiReply::empty(status)
            .header("etag", "\"0x8DE2E8C0FFEE000\"")
            .header("last-modified", "Sat, 28 Nov 2026 12:00:00 GMT")
            .header("x-ms-version", "2025-11-05"))
    };
    let has_block = request.query_param("comp") == Some("appendblock");
    let seals =
        request.query_param("comp") == Some("seal") || request.query_param("seal") == Some("true");
    if has_block || seals {
        if !blob.exists {
            return Err(failed(StatusCode::NOT_FOUND, "BlobNotFound"));
        }
        if blob.sealed {
            return Err(failed(StatusCode::CONFLICT, "BlobIsSealed"));
        }
        if has_block {
            blob.append(&request.body);
        }
        blob.sealed = seals;
        return written(if has_block {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        });
    }
    if blob.exists && request.header("if-none-match") == Some("*") {
        return Err(failed(StatusCode::CONFLICT, "BlobAlreadyExists"));
    }
    let bytes = match request.header("x-ms-blob-type") {
        Some("BlockBlob") => &request.body[..],
        Some("AppendBlob") if request.body.is_empty() => &[],
        Some("AppendBlob") => {
            return Err(failed(StatusCode::BAD_REQUEST, "InvalidHeaderValue"));
        }
        _ => return Err(failed(StatusCode::BAD_REQUEST, "MissingRequiredHeader")),
    };
    blob.exists = true;
    blob.bytes.clear();
    blob.append(bytes);
    written(StatusCode::CREATED)
}

/// Returns a log without the time at the start of each line.
fn plain(log: &str) -> String {
    let mut text = String::with_capacity(log.len());
    for line in log.trim_start_matches('\u{feff}').lines() {
        let (start, rest) = line.split_at_checked(TIMESTAMP_CHARS).unwrap_or(("", line));
        let timed = start.ends_with("Z ") && start.as_bytes().get(10) == Some(&b'T');
        text.push_str(if timed { rest } else { line });
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_log_loses_its_times_only() {
        let log =
            "\u{feff}2026-11-28T14:00:00.1234567Z hello\n2026-11-28T14:00:00.1234567Z \nshort\n";
        assert_eq!(super::plain(log), "hello\n\nshort\n");
    }
}
