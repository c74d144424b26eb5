//! Deviations of the service that users of GitHub reported.

use github_sim::{
    Conclusion, Endpoint, Fault, FaultRule, JobState, RequestMatch, ScaleSetCall, Standing,
};
use serde_json::json;

use crate::client::{Client, job, kind, quick, read, told, with};
use crate::common::{Listener, Sim, runner};

#[test]
fn statistics_may_lack_the_job_of_their_message() {
    let sim = Sim::with(with(|service| service.zero_assigned = true));
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    session.poll(0, 1);
    sim.control().add_job(job("one"));
    let answer = session.poll(0, 1);
    assert_eq!(answer.json()["statistics"]["totalAssignedJobs"], 0);
    assert_eq!(told(&read(&answer).1), [("JobAssigned", "one")]);
}

#[test]
fn a_job_may_be_reported_as_ended_while_it_runs() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 1);
    let id = sim
        .control()
        .add_job(github_sim::JobSpec::new("one", &["ci"], "sleep 600"));
    assert!(!sim.control().end_job_early(id));
    let minted = client.mint(set, "r1").json();
    let config = minted["encodedJITConfig"].as_str().unwrap();
    let listener = Listener::start(minted["runner"]["id"].as_u64().unwrap(), config, &[]);
    sim.wait_job(id, JobState::InProgress);
    assert!(sim.control().end_job_early(id));
    let told_all = session.drain(1);
    assert_eq!(told(&told_all)[2], ("JobCompleted", "one"));
    assert_eq!(told_all[2]["runnerId"], listener.id);
    assert_eq!(sim.control().job(id).unwrap().status, JobState::InProgress);
    assert_eq!(client.set(set)["statistics"]["totalAssignedJobs"], 0);
    // The real end has no item.
    assert!(sim.control().cancel_job(id));
    sim.wait_job(id, JobState::Completed);
    assert_eq!(session.drain(1), [json!(null); 0]);
}

#[test]
fn a_runner_may_be_named_by_a_job_that_was_cancelled_and_take_another() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 1);
    let cancelled = sim.control().add_job(job("cancelled"));
    let minted = client.mint(set, "r1").json();
    let id = minted["runner"]["id"].as_u64().unwrap();
    assert!(sim.control().start_and_cancel_job(cancelled, id));
    let (_, items) = session.message(0, 1);
    assert_eq!(
        told(&items[1..]),
        [("JobStarted", "cancelled"), ("JobCompleted", "cancelled")]
    );
    assert_eq!(
        (&items[1]["runnerId"], &items[2]["runnerId"]),
        (&json!(id), &json!(id))
    );
    assert_eq!(items[2]["result"], "canceled");
    assert_eq!(
        runner(sim.control(), id).unwrap().standing,
        Standing::Registered
    );
    let other = sim.control().add_job(job("other"));
    let config = minted["encodedJITConfig"].as_str().unwrap();
    let _listener = Listener::start(id, config, &[]);
    assert_eq!(sim.wait_job(other, JobState::Completed).runner_id, Some(id));
}

#[test]
fn a_cancelled_job_may_be_counted_for_ever() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 2);
    let id = sim.control().add_job(job("one"));
    assert_eq!(told(&session.drain(2)), [("JobAssigned", "one")]);
    assert!(sim.control().lose_job(id));
    let lost = sim.control().job(id).unwrap();
    assert_eq!(lost.conclusion, Some(Conclusion::Cancelled));
    assert_eq!(session.drain(2), [json!(null); 0]);
    assert_eq!(client.set(set)["statistics"]["totalAssignedJobs"], 1);
    assert!(!sim.control().lose_job(id));
}

#[test]
fn every_call_can_fail_by_its_name() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    let rule = |call| FaultRule::on(Endpoint::ScaleSet(call), 1, Fault::status(503));
    sim.control()
        .add_faults([rule(ScaleSetCall::SetPoll), rule(ScaleSetCall::SetAck)]);
    assert_eq!(session.poll(0, 1).status, 503);
    assert_eq!(session.poll(0, 1).status, 202);
    assert_eq!(session.delete(1).status, 503);
    let by_name =
        json!({"match": {"endpoint": "set_poll"}, "times": 1, "fault": {"status": {"code": 502}}});
    assert_eq!(sim.call("POST", "/_sim/faults", Some(&by_name)).status, 200);
    assert_eq!(session.poll(0, 1).status, 502);
    assert_eq!(sim.control().stats().answers("set_poll", 502), 1);
}

#[test]
fn an_outage_can_end_with_the_loss_of_the_set() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    let broken = |part: &str| FaultRule {
        matches: RequestMatch {
            path_contains: Some(part.into()),
            ..RequestMatch::default()
        },
        times: None,
        skip: 0,
        fault: Fault::status(503),
    };
    sim.control()
        .add_faults(["/scalesets/", "/rest/_apis/"].map(broken));
    assert_eq!(session.poll(0, 1).status, 503);
    assert_eq!(client.try_open(set).status, 503);
    // Meanwhile GitHub loses the set. The admin connection works again afterwards.
    assert!(sim.control().lose_scale_set(set));
    sim.control().clear_faults();
    let lost = client.try_open(set);
    assert_eq!(lost.status, 404);
    assert_eq!(kind(&lost), "RunnerScaleSetNotFoundException");
    let again = client.create("a", &["ci"]);
    assert_eq!(client.open(again).poll(0, 1).status, 202);
}

#[test]
fn the_control_api_has_each_fault_as_a_call() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    client.open(set).poll(0, 2);
    let id = sim.control().add_job(job("one"));
    let shown = sim.call("GET", "/_sim/scale-sets", None).json();
    assert_eq!(
        (&shown[0]["id"], &shown[0]["jobs"]),
        (&json!(set), &json!([id]))
    );
    for (path, status) in [
        (format!("/jobs/{id}/end-early"), 404),
        (format!("/jobs/{id}/lose"), 204),
        (format!("/scale-sets/{set}/restart-messages"), 204),
        (format!("/scale-sets/{set}/expire-queue-token"), 204),
        (format!("/scale-sets/{set}/evict-session"), 204),
        (format!("/scale-sets/{set}/evict-session"), 404),
        ("/scale-sets/expire-admin-tokens".to_owned(), 204),
    ] {
        let answer = sim.call("POST", &format!("/_sim{path}"), None);
        assert_eq!(answer.status, status, "{path}");
    }
    let named = json!({"runner_id": 1});
    let path = format!("/_sim/jobs/{id}/start-and-cancel");
    assert_eq!(sim.call("POST", &path, Some(&named)).status, 404);
    let path = format!("/_sim/scale-sets/{set}");
    assert_eq!(sim.call("DELETE", &path, None).status, 204);
    assert_eq!(sim.call("DELETE", &path, None).status, 404);
    let part = json!({"scale_sets": {"mode": "acquire", "poll_hold_ms": [5]}});
    let settings = sim.call("POST", "/_sim/settings", Some(&part)).json();
    assert_eq!(settings["scale_sets"]["mode"], "acquire");
    // The other fields stay.
    assert_eq!(settings["scale_sets"]["reassign_times"], 3);
    let unknown = json!({"scale_sets": {"polls": 1}});
    assert_eq!(
        sim.call("POST", "/_sim/settings", Some(&unknown)).status,
        400
    );
}
