//! Sessions: one for each set, its end, and its tokens.

use github_sim::ServerOptions;
use serde_json::json;

use crate::client::{Client, SETS, Session, job, kind, quick, with};
use crate::common::Sim;

#[test]
fn a_set_has_one_session_until_it_is_closed() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    // The token is the identity.
    assert_eq!(session.url, format!("{}/scalesets/message", sim.url()));
    let second = client.try_open(set);
    assert_eq!(
        (second.status, kind(&second).as_str()),
        (409, "RunnerScaleSetSessionConflictException")
    );
    assert!(
        second
            .text
            .contains("already has an active session for owner h.")
    );
    assert_eq!(client.call("DELETE", &session.path(), None).status, 204);
    assert_eq!(session.poll(0, 1).status, 401);
    let again = client.call("DELETE", &session.path(), None);
    assert_eq!(
        (again.status, kind(&again).as_str()),
        (400, "RunnerScaleSetSessionExpiredException")
    );
    assert_ne!(client.open(set).id, session.id);
}

#[test]
fn a_session_without_a_clean_end_lapses() {
    let sim = Sim::with(quick());
    assert_eq!(sim.control().settings().scale_sets.session_lapse_ms, 92_000);
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let old = client.open(set);
    old.poll(0, 1);
    assert_eq!(client.try_open(set).status, 409);
    sim.control()
        .change_settings(|settings| settings.scale_sets.session_lapse_ms = 0);
    let new = client.open(set);
    assert_eq!(old.poll(0, 1).status, 401);
    assert_eq!(new.poll(0, 1).status, 202);
}

#[test]
fn a_session_needs_an_owner_and_no_id() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let path = format!("{SETS}/{set}/sessions");
    for body in [
        json!({}),
        json!({"ownerName": " "}),
        json!({"ownerName": "h", "sessionId": "6f1f9d5e-0000-4000-8000-000000000000"}),
        json!({"ownerName": "h", "capacity": 3}),
    ] {
        assert_eq!(
            client.call("POST", &path, Some(&body)).status,
            400,
            "{body}"
        );
    }
    assert_eq!(
        client
            .call("POST", &path, Some(&json!({"ownerName": "h"})))
            .status,
        200
    );
}

#[test]
fn an_expired_queue_token_is_replaced_by_a_refresh() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    assert!(sim.control().expire_queue_token(set));
    assert_eq!(session.poll(0, 1).status, 401);
    assert_eq!(session.delete(1).status, 401);
    let fresh = client.call("PATCH", &session.path(), None);
    assert_eq!(fresh.status, 200);
    let fresh = Session::of(&sim, set, &fresh.json());
    assert_eq!(fresh.id, session.id);
    assert_ne!(fresh.token, session.token);
    assert_eq!(fresh.poll(0, 1).status, 202);
    assert_eq!(session.poll(0, 1).status, 401);
}

#[test]
fn a_refresh_counts_anew() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 2);
    sim.control().add_job(job("one"));
    let counts = &client.call("PATCH", &session.path(), None).json()["statistics"];
    assert_eq!(counts["totalAssignedJobs"], 1);
}

#[test]
fn an_evicted_session_is_replaced_at_once() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 1);
    sim.control().add_job(job("one"));
    assert!(sim.control().evict_session(set));
    assert_eq!(session.poll(0, 1).status, 401);
    let refused = client.call("PATCH", &session.path(), None);
    assert_eq!(
        (refused.status, kind(&refused).as_str()),
        (404, "RunnerAdminException")
    );
    assert!(
        refused
            .text
            .contains("session ID that doesn't exist in redis")
    );
    // The queue belongs to the set.
    let (_, items) = client.open(set).message(0, 1);
    assert_eq!(items[0]["jobDisplayName"], "one");
}

#[test]
fn a_poll_in_flight_ends_with_its_session() {
    let sim = Sim::with(with(|service| service.poll_hold_ms = vec![88_000]));
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| session.poll(0, 1));
        sim.wait("poll in flight", |control| {
            (control.scale_sets()[0].polls == 1).then_some(())
        });
        assert!(sim.control().evict_session(set));
        assert_eq!(held.join().unwrap().status, 401);
    });
}

#[test]
fn an_outage_gives_sessions_without_a_queue() {
    let sim = Sim::with(with(|service| service.empty_queue_url = true));
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let body = client.try_open(set).json();
    assert_eq!(body["messageQueueUrl"], "");
    sim.control()
        .change_settings(|settings| settings.scale_sets.empty_queue_url = false);
    let path = format!(
        "{SETS}/{set}/sessions/{}",
        body["sessionId"].as_str().unwrap()
    );
    let healed = client.call("PATCH", &path, None).json();
    assert_ne!(healed["messageQueueUrl"], "");
}

#[test]
fn a_lost_set_is_not_found() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    assert!(sim.control().lose_scale_set(set));
    assert_eq!(session.poll(0, 1).status, 401);
    for answer in [
        client.call("PATCH", &session.path(), None),
        client.try_open(set),
    ] {
        assert_eq!(
            (answer.status, kind(&answer).as_str()),
            (404, "RunnerScaleSetNotFoundException")
        );
    }
    // The admin connection is healthy, and the name is free.
    client.create("a", &["ci"]);
}

#[test]
fn a_state_file_brings_back_sets_tokens_and_messages() {
    let dir = tempfile::tempdir().unwrap();
    let options = || ServerOptions {
        state: Some(dir.path().join("state")),
        settings: quick(),
        ..ServerOptions::default()
    };
    let first = Sim::from_options(options());
    let client = Client::connected(&first, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 1);
    first.control().add_job(job("one"));
    let (id, _) = session.message(0, 1);
    let (admin, queue) = (client.token.clone(), session.token.clone());
    drop(first);
    let second = Sim::from_options(options());
    let client = Client {
        sim: &second,
        token: admin,
    };
    assert_eq!(client.set(set)["statistics"]["totalAssignedJobs"], 1);
    let session = Session {
        sim: &second,
        set,
        id: String::new(),
        url: format!("{}/scalesets/message", second.url()),
        token: queue,
    };
    assert_eq!(session.message(0, 1).0, id);
    assert_eq!(session.delete(id).status, 204);
    assert_eq!(client.create("b", &["ci"]), set + 1);
}
