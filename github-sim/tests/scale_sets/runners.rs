//! Runners of sets, from their JIT config to the end of their job.

use github_sim::{GoneCause, JobState};
use serde_json::{Value, json};

use crate::client::{AGENTS, Client, Session, job, kind, quick, told};
use crate::common::{Listener, Sim, runner};

/// Mints a runner of a set and starts a listener for it.
fn listener(client: &Client<'_>, set: u64, name: &str) -> Listener {
    let minted = client.mint(set, name);
    assert_eq!(minted.status, 200, "{}", minted.text);
    let minted = minted.json();
    let config = minted["encodedJITConfig"].as_str().unwrap();
    let listener = Listener::start(minted["runner"]["id"].as_u64().unwrap(), config, &[]);
    client.sim.wait_online(listener.id);
    listener
}

fn counts(answer: &Value, key: &str) -> u64 {
    answer["statistics"][key].as_u64().unwrap()
}

fn opened<'a>(client: &Client<'a>, name: &str) -> (u64, Session<'a>) {
    let set = client.create(name, &["ci"]);
    let session = client.open(set);
    session.poll(0, 9);
    (set, session)
}

#[test]
fn a_runner_of_a_set_runs_a_job_of_the_set() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let (set, session) = opened(&client, "a");
    let id = sim.control().add_job(job("one"));
    let mut listener = listener(&client, set, "r1");
    sim.wait_job(id, JobState::Completed);
    assert_eq!(listener.code(), 0);
    let items = session.drain(9);
    assert_eq!(
        told(&items),
        [
            ("JobAssigned", "one"),
            ("JobStarted", "one"),
            ("JobCompleted", "one")
        ]
    );
    for item in &items[1..] {
        assert_eq!(
            (&item["runnerId"], &item["runnerName"]),
            (&json!(listener.id), &json!("r1"))
        );
        assert_ne!(item["runnerAssignTime"], "0001-01-01T00:00:00Z");
    }
    assert_eq!(items[2]["result"], "succeeded");
    assert_ne!(items[2]["finishTime"], "0001-01-01T00:00:00Z");
    let gone = runner(sim.control(), listener.id).unwrap();
    assert_eq!(gone.gone, Some(GoneCause::JobDone));
    assert_eq!(counts(&client.set(set), "totalAssignedJobs"), 0);
    assert_eq!(counts(&client.set(set), "totalRegisteredRunners"), 0);
}

#[test]
fn statistics_count_idle_and_busy_runners() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let (set, _session) = opened(&client, "a");
    let idle = listener(&client, set, "r1");
    client.mint(set, "r2");
    let shown = client.set(set);
    assert_eq!(counts(&shown, "totalRegisteredRunners"), 2);
    assert_eq!(
        (
            counts(&shown, "totalIdleRunners"),
            counts(&shown, "totalBusyRunners")
        ),
        (1, 0)
    );
    let endless = github_sim::JobSpec::new("one", &["ci"], "sleep 600");
    let id = sim.control().add_job(endless);
    sim.wait_job(id, JobState::InProgress);
    let shown = client.set(set);
    assert_eq!(
        (
            counts(&shown, "totalIdleRunners"),
            counts(&shown, "totalBusyRunners")
        ),
        (0, 1)
    );
    assert_eq!(
        (
            counts(&shown, "totalAssignedJobs"),
            counts(&shown, "totalRunningJobs")
        ),
        (1, 1)
    );
    let path = format!("{AGENTS}/{}", idle.id);
    let busy = client.call("DELETE", &path, None);
    assert_eq!(
        (busy.status, kind(&busy).as_str()),
        (400, "JobStillRunningException")
    );
    assert!(sim.control().cancel_job(id));
    sim.wait_job(id, JobState::Completed);
}

#[test]
fn a_job_goes_to_the_runner_that_idles_longest() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let (set, session) = opened(&client, "a");
    let old = listener(&client, set, "old");
    let _new = listener(&client, set, "new");
    let id = sim.control().add_job(job("one"));
    let done = sim.wait_job(id, JobState::Completed);
    assert_eq!(done.runner_id, Some(old.id));
    assert_eq!(session.drain(9)[1]["runnerName"], "old");
}

#[test]
fn a_runner_without_a_set_takes_its_jobs_first() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let (_, session) = opened(&client, "a");
    let plain = sim.listener("plain", &[]);
    sim.wait_online(plain.id);
    let id = sim.control().add_job(job("one"));
    assert_eq!(
        sim.wait_job(id, JobState::Completed).runner_id,
        Some(plain.id)
    );
    assert_eq!(session.drain(9), [json!(null); 0]);
}

#[test]
fn a_runner_of_a_set_takes_no_job_of_another() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let empty = client.create("empty", &["ci"]);
    let _idle = listener(&client, empty, "idle");
    let (set, session) = opened(&client, "a");
    let id = sim.control().add_job(job("one"));
    let own = listener(&client, set, "own");
    assert_eq!(
        sim.wait_job(id, JobState::Completed).runner_id,
        Some(own.id)
    );
    assert_eq!(told(&session.drain(9)).len(), 3);
}

#[test]
fn a_hidden_job_appears_when_a_runner_registers() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let (set, session) = opened(&client, "a");
    let mut hidden = job("again");
    hidden.hidden_rerun = true;
    let id = sim.control().add_job(hidden);
    assert_eq!(session.poll(0, 9).status, 202);
    assert_eq!(counts(&client.set(set), "totalAssignedJobs"), 0);
    let _probe = listener(&client, set, "probe");
    sim.wait_job(id, JobState::Completed);
    assert_eq!(told(&session.drain(9))[0], ("JobAssigned", "again"));
}

#[test]
fn a_runner_is_found_by_name_and_deleted_once() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let (set, _session) = opened(&client, "a");
    let id = client.mint(set, "r1").json()["runner"]["id"]
        .as_u64()
        .unwrap();
    let shown = json!({"id": id, "name": "r1", "runnerScaleSetId": set});
    let found = client.call("GET", &format!("{AGENTS}?agentName=r1"), None);
    assert_eq!(found.json(), json!({"count": 1, "value": [shown]}));
    let prefix = client.call("GET", &format!("{AGENTS}?agentName=r"), None);
    assert_eq!(prefix.json(), json!({"count": 0, "value": []}));
    let path = format!("{AGENTS}/{id}");
    assert_eq!(client.call("GET", &path, None).json(), shown);
    let other = Client::connected(&sim, "acme/widgets");
    assert_eq!(other.call("GET", &path, None).status, 404);
    assert_eq!(client.call("DELETE", &path, None).status, 204);
    let gone = client.call("DELETE", &path, None);
    assert_eq!(
        (gone.status, kind(&gone).as_str()),
        (404, "AgentNotFoundException")
    );
}

#[test]
fn a_mint_needs_a_free_name_and_no_other_fields() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let (set, _session) = opened(&client, "a");
    assert_eq!(client.mint(set, "r1").status, 200);
    let taken = client.mint(set, "R1");
    assert_eq!(
        (taken.status, kind(&taken).as_str()),
        (409, "AgentExistsException")
    );
    assert_eq!(sim.mint("r1", &["ci"]).status, 409);
    assert_eq!(client.mint(set, "a/b").status, 400);
    assert_eq!(client.mint(set + 9, "r2").status, 404);
    let path = format!("/_apis/runtime/runnerscalesets/{set}/generatejitconfig");
    let body = json!({"name": "r2", "labels": ["x"]});
    assert_eq!(client.call("POST", &path, Some(&body)).status, 400);
}
