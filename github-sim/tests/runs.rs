//! Workflow runs and jobs of the REST API.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::Sim;
use github_sim::{JobSpec, JobState};
use serde_json::{Value, json};

const RUNS: &str = "/repos/acme/widgets/actions/runs";

fn job(name: &str) -> JobSpec {
    JobSpec::new(name, &["ci"], "true")
}

/// Lists runs and returns their ids.
fn ids(sim: &Sim, query: &str) -> Vec<u64> {
    let answer = sim.call("GET", &format!("{RUNS}{query}"), None);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    let runs = body["workflow_runs"].as_array().unwrap();
    runs.iter().map(|run| run["id"].as_u64().unwrap()).collect()
}

#[test]
fn runs_are_listed_newest_first_and_by_status() {
    let sim = Sim::start();
    let done = sim.control().add_job(job("done"));
    let mut listener = sim.listener("r1", &[]);
    sim.wait_job(done, JobState::Completed);
    assert_eq!(listener.code(), 0);
    let first = sim.control().add_job(job("first"));
    let second = sim.control().add_job(job("second"));
    assert_eq!(ids(&sim, ""), [second, first, done]);
    assert_eq!(ids(&sim, "?status=queued"), [second, first]);
    assert_eq!(ids(&sim, "?status=queued&per_page=1&page=2"), [first]);
    assert_eq!(ids(&sim, "?status=in_progress"), [0; 0]);
    assert_eq!(ids(&sim, "?status=completed"), [done]);
    assert_eq!(ids(&sim, "?status=success"), [done]);
    assert_eq!(ids(&sim, "?status=failure"), [0; 0]);
    let page = sim.call("GET", &format!("{RUNS}?per_page=2"), None);
    assert_eq!(page.json()["total_count"], 3);
    assert!(page.header("link").contains("rel=\"next\""));
    for refused in ["?status=asleep", "?branch=main", "?color=red"] {
        assert_eq!(
            sim.call("GET", &format!("{RUNS}{refused}"), None).status,
            422,
            "{refused}"
        );
    }
}

#[test]
fn a_list_that_has_not_changed_costs_nothing() {
    let paths: [fn(u64) -> String; 2] = [
        |_| format!("{RUNS}?status=queued"),
        |run| format!("{RUNS}/{run}/jobs?filter=latest"),
    ];
    for path in paths {
        let sim = Sim::start();
        let run = sim.control().add_job(job("build"));
        let path = path(run);
        let first = sim.call("GET", &path, None);
        assert_eq!(first.status, 200, "{}", first.text);
        let used = first.header("x-ratelimit-used").to_owned();
        let tag = [("if-none-match", first.header("etag"))];
        let again = sim.call_with("GET", &path, &tag, None).unwrap();
        assert_eq!((again.status, again.text.as_str()), (304, ""));
        assert_eq!(again.header("x-ratelimit-used"), used);
        assert!(sim.control().cancel_job(run));
        let changed = sim.call_with("GET", &path, &tag, None).unwrap();
        assert_eq!(changed.status, 200, "{path}");
    }
}

/// Lists the jobs of a run.
fn jobs(sim: &Sim, run: u64) -> Value {
    let answer = sim.call("GET", &format!("{RUNS}/{run}/jobs"), None);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["jobs"].clone()
}

#[test]
fn a_job_has_its_labels_and_then_its_runner() {
    let sim = Sim::start();
    let run = sim.control().add_job(job("build"));
    let queued = jobs(&sim, run)[0].clone();
    assert_eq!(queued["run_id"], run);
    assert_ne!(queued["id"], run);
    assert_eq!(
        (&queued["status"], &queued["labels"]),
        (&json!("queued"), &json!(["ci"]))
    );
    assert_eq!(
        (&queued["runner_id"], &queued["conclusion"]),
        (&Value::Null, &Value::Null)
    );
    let listener = sim.listener("r1", &[]);
    sim.wait_job(run, JobState::Completed);
    let done = jobs(&sim, run)[0].clone();
    assert_eq!(
        (&done["status"], &done["conclusion"]),
        (&json!("completed"), &json!("success"))
    );
    assert_eq!(
        (&done["runner_id"], &done["runner_name"]),
        (&json!(listener.id), &json!("r1"))
    );
    assert_eq!(done["runner_group_name"], "Default");
    let alone = format!("/repos/acme/widgets/actions/jobs/{}", done["id"]);
    assert_eq!(sim.call("GET", &alone, None).json(), done);
    let mistaken = format!("/repos/acme/widgets/actions/jobs/{run}");
    assert_eq!(sim.call("GET", &mistaken, None).status, 404);
    let other = sim.call("GET", &format!("{RUNS}/7/jobs"), None);
    assert_eq!(other.status, 404);
    assert_eq!(
        other.header("x-accepted-github-permissions"),
        "actions=read"
    );
}
