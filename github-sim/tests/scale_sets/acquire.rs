//! Sets that acquire their jobs, as on GitHub Enterprise Server.

use github_sim::{JobState, ScaleSetMode};
use serde_json::{Value, json};

use crate::client::{Client, JSON, SETS, Session, VERSION, job, read, told, with};
use crate::common::{Answer, Listener, Sim};

fn start() -> Sim {
    Sim::with(with(|service| service.mode = ScaleSetMode::Acquire))
}

fn acquire(session: &Session<'_>, requests: &Value) -> Answer {
    let path = format!("/rest{SETS}/{}/acquirejobs?{VERSION}", session.set);
    let bearer = format!("Bearer {}", session.token);
    let headers = [("authorization", bearer.as_str()), JSON];
    session
        .sim
        .call_with("POST", &path, &headers, Some(&requests.to_string()))
        .unwrap()
}

fn acquirable(client: &Client<'_>, set: u64) -> Answer {
    client.call("GET", &format!("{SETS}/{set}/acquirablejobs"), None)
}

#[test]
fn an_available_job_is_the_sets_once_it_acquires_it() {
    let sim = start();
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    assert!(session.url.contains(&format!("?sessionId={}", session.id)));
    assert_eq!(acquirable(&client, set).status, 204);
    session.poll(0, 1);
    let id = sim.control().add_job(job("one"));
    let answer = session.poll(0, 1);
    let counts = &answer.json()["statistics"];
    assert_eq!(
        (&counts["totalAvailableJobs"], &counts["totalAssignedJobs"]),
        (&json!(1), &json!(0))
    );
    let (message, items) = read(&answer);
    assert_eq!(told(&items), [("JobAvailable", "one")]);
    let request = items[0]["runnerRequestId"].clone();
    assert_ne!(request, 0);
    assert!(
        items[0]["acquireJobUrl"]
            .as_str()
            .unwrap()
            .ends_with("/acquirejobs")
    );
    let peek = acquirable(&client, set).json();
    assert_eq!(
        (&peek["count"], &peek["value"][0]["runnerRequestId"]),
        (&json!(1), &request)
    );
    assert_eq!(session.delete(message).status, 204);
    let won = acquire(&session, &json!([request]));
    assert_eq!(
        (won.status, won.json()),
        (200, json!({"count": 1, "value": [request]}))
    );
    assert_eq!(acquire(&session, &json!([request])).json()["count"], 0);
    assert_eq!(acquirable(&client, set).status, 204);

    let minted = client.mint(set, "r1").json();
    let config = minted["encodedJITConfig"].as_str().unwrap();
    let _listener = Listener::start(minted["runner"]["id"].as_u64().unwrap(), config, &[]);
    sim.wait_job(id, JobState::Completed);
    let items = session.drain(1);
    assert_eq!(
        told(&items),
        [
            ("JobAssigned", "one"),
            ("JobStarted", "one"),
            ("JobCompleted", "one")
        ]
    );
    assert!(items.iter().all(|item| item["runnerRequestId"] == request));
}

#[test]
fn one_of_two_sets_wins_a_job() {
    let sim = start();
    let client = Client::connected(&sim, "acme");
    let sessions = ["a", "b"].map(|name| client.open(client.create(name, &["ci"])));
    for session in &sessions {
        session.poll(0, 1);
    }
    sim.control().add_job(job("one"));
    let requests = sessions
        .each_ref()
        .map(|session| session.message(0, 1).1[0]["runnerRequestId"].clone());
    assert_ne!(requests[0], requests[1]);
    assert_eq!(
        acquire(&sessions[1], &json!([requests[1]])).json()["count"],
        1
    );
    assert_eq!(
        acquire(&sessions[0], &json!([requests[0]])).json()["count"],
        0
    );
    assert_eq!(
        acquire(&sessions[0], &json!([requests[1]])).json()["count"],
        0
    );
}

#[test]
fn offers_stay_within_the_capacity() {
    let sim = start();
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    session.poll(0, 2);
    for _ in 0..3 {
        sim.control().add_job(job("one"));
    }
    assert_eq!(session.drain(2).len(), 2);
    assert_eq!(session.drain(3).len(), 1);
}

#[test]
fn a_cancelled_job_is_not_available_any_more() {
    let sim = start();
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 1);
    let id = sim.control().add_job(job("one"));
    let request = session.message(0, 1).1[0]["runnerRequestId"].clone();
    assert!(sim.control().cancel_job(id));
    assert_eq!(acquirable(&client, set).status, 204);
    assert_eq!(acquire(&session, &json!([request])).json()["count"], 0);
}

#[test]
fn an_acquisition_needs_the_queue_token_and_a_list_of_numbers() {
    let sim = start();
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    let other = client.create("b", &["ci"]);
    let path = format!("{SETS}/{}/acquirejobs", session.set);
    assert_eq!(client.call("POST", &path, Some(&json!([1]))).status, 401);
    assert_eq!(acquire(&session, &json!({"ids": [1]})).status, 400);
    let elsewhere = Session {
        set: other,
        ..session
    };
    assert_eq!(acquire(&elsewhere, &json!([1])).status, 404);
}

#[test]
fn a_queue_url_with_a_session_needs_it() {
    let sim = start();
    let client = Client::connected(&sim, "acme");
    let mut session = client.open(client.create("a", &["ci"]));
    assert_eq!(session.poll(0, 1).status, 202);
    session.url = session.url.split('?').next().unwrap().to_owned();
    assert_eq!(session.poll(0, 1).status, 400);
    assert_eq!(session.delete(1).status, 400);
}

#[test]
fn sets_that_are_assigned_jobs_have_no_acquisition() {
    let sim = Sim::with(with(|_| ()));
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 1);
    sim.control().add_job(job("one"));
    assert_eq!(acquire(&session, &json!([0])).status, 404);
    assert_eq!(acquirable(&client, set).status, 204);
}
