//! Logs and summaries of the results service and its blob store.

use serde_json::json;

use crate::client::{quick, running, simple};
use crate::common::Sim;

const RECEIVER: &str = "results.services.receiver.Receiver";

/// Puts bytes at a signed URL as a blob client does, and returns the status.
fn put(sim: &Sim, url: &str, kind: &str, body: &str) -> u16 {
    let path = url.strip_prefix(sim.url()).unwrap();
    let headers = [("authorization", ""), ("x-ms-blob-type", kind)];
    sim.call_with("PUT", path, &headers, Some(body))
        .unwrap()
        .status
}

#[test]
fn a_job_log_in_one_block_becomes_the_log_tail() {
    let sim = quick();
    let (client, id, job) = running(&sim, simple());
    let steps = json!({"change_order": 1, "steps": [{"external_id": job["steps"][0]["id"], "number": 1, "name": "run", "status": 3, "conclusion": 0}]});
    let update = "github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate";
    assert_eq!(
        client.results(&job, update, &steps).json(),
        json!({"ok": true})
    );
    let ask = format!("{RECEIVER}/GetJobLogsSignedBlobURL");
    let answer = client.results(&job, &ask, &json!({})).json();
    assert_eq!(answer["blob_storage_type"], "BLOB_STORAGE_TYPE_AZURE");
    let url = answer["logs_url"].as_str().unwrap();
    let complete = format!("{RECEIVER}/CreateJobLogsMetadata");
    let early = client.results(&job, &complete, &json!({"line_count": 1}));
    assert_eq!(early.status, 404);
    let log = "2026-11-28T14:00:00.1234567Z hello\n";
    assert_eq!(
        put(&sim, &url.replace("sig=", "sig=x"), "BlockBlob", log),
        403
    );
    assert_eq!(put(&sim, url, "", log), 400);
    // GitHub's worker puts a second slash after the host.
    let doubled = url.replace("/actions-results", "//actions-results");
    assert_eq!(put(&sim, &doubled, "BlockBlob", log), 201);
    let done = client.results(
        &job,
        &complete,
        &json!({"line_count": 1, "uploaded_at": "2026-11-28T14:00:00.000Z"}),
    );
    assert_eq!(done.json(), json!({"ok": true}));
    assert_eq!(sim.control().job(id).unwrap().facts.log_tail, "hello\n");
}

#[test]
fn a_log_may_be_appended_until_it_is_sealed() {
    let sim = quick();
    let (client, _id, job) = running(&sim, simple());
    let step = json!({"step_backend_id": job["steps"][0]["id"]});
    let answer = client
        .results(&job, &format!("{RECEIVER}/GetStepLogsSignedBlobURL"), &step)
        .json();
    let url = answer["logs_url"].as_str().unwrap();
    let append = format!("{url}&comp=appendblock");
    assert_eq!(put(&sim, &append, "", "early"), 404);
    assert_eq!(put(&sim, url, "AppendBlob", ""), 201);
    assert_eq!(put(&sim, &append, "", "one\n"), 201);
    assert_eq!(put(&sim, &format!("{append}&seal=true"), "", "two\n"), 201);
    assert_eq!(put(&sim, &append, "", "late"), 409);
    let complete = format!("{RECEIVER}/CreateStepLogsMetadata");
    assert_eq!(
        client.results(&job, &complete, &step).json(),
        json!({"ok": true})
    );
}

#[test]
fn the_results_service_takes_the_jobs_own_token_and_ids() {
    let sim = quick();
    let (client, _id, job) = running(&sim, simple());
    let ask = format!("{RECEIVER}/GetJobLogsSignedBlobURL");
    let foreign = client.results(&job, &ask, &json!({"workflow_job_run_backend_id": "other"}));
    assert_eq!(foreign.status, 403);
    let url = format!("{}/twirp/{ask}", sim.url());
    assert_eq!(
        client
            .call("POST", &url, &client.token, Some(&json!({})))
            .status,
        401
    );
    let step = client.results(
        &job,
        &format!("{RECEIVER}/GetStepLogsSignedBlobURL"),
        &json!({}),
    );
    assert_eq!(step.status, 400);
}
