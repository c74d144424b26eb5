//! The message queue: polls, messages, and their deletion.

use serde_json::json;

use crate::client::{Client, job, kind, quick, read, told, with};
use crate::common::Sim;

#[test]
fn a_poll_without_a_message_is_held_and_then_empty() {
    let sim = Sim::with(with(|service| service.poll_hold_ms = vec![88_000]));
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| session.poll(0, 1));
        sim.wait("poll in flight", |control| {
            (control.scale_sets()[0].polls == 1).then_some(())
        });
        sim.control().add_job(job("one"));
        assert_eq!(
            told(&read(&held.join().unwrap()).1),
            [("JobAssigned", "one")]
        );
    });
    sim.control()
        .change_settings(|settings| settings.scale_sets.poll_hold_ms = vec![0]);
    let empty = session.poll(100_000_001, 1);
    assert_eq!((empty.status, empty.text.as_str()), (202, ""));
    let holds = &github_sim::ScaleSetSettings::default().poll_hold_ms;
    assert_eq!(holds, &[51_000, 88_000]);
}

#[test]
fn a_poll_needs_its_headers() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    let capacity = ("x-scalesetmaxcapacity", "1");
    for (cursor, headers) in [
        ("0", vec![]),
        ("0", vec![("x-scalesetmaxcapacity", "-1")]),
        ("0", vec![("x-scalesetmaxcapacity", "many")]),
        ("0", vec![capacity, ("accept", "application/json")]),
        ("last", vec![capacity]),
        ("1&status=Online", vec![capacity]),
    ] {
        let refused = session.poll_with(cursor, &headers);
        assert_eq!(refused.status, 400, "{cursor} {headers:?}");
    }
    assert_eq!(session.poll_with("0", &[capacity]).status, 202);
    let stranger = [capacity, ("authorization", "Bearer stranger")];
    assert_eq!(session.poll_with("0", &stranger).status, 401);
    let admin = format!("Bearer {}", client.token);
    assert_eq!(
        session
            .poll_with("0", &[capacity, ("authorization", &admin)])
            .status,
        401
    );
}

#[test]
fn an_assigned_job_has_everything_but_a_request_id() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci", "big"]));
    session.poll(0, 3);
    let id = sim.control().add_job(job("one"));
    let answer = session.poll(0, 3);
    assert_eq!(answer.json()["statistics"]["totalAssignedJobs"], 1);
    let (message, items) = read(&answer);
    assert_eq!(message, 100_000_001);
    let item = &items[0];
    for (key, value) in [
        ("messageType", json!("JobAssigned")),
        ("runnerRequestId", json!(0)),
        ("repositoryName", json!("widgets")),
        ("ownerName", json!("acme")),
        ("jobDisplayName", json!("one")),
        ("workflowRunId", json!(id)),
        ("requestLabels", json!(["ci"])),
        ("runnerAssignTime", json!("0001-01-01T00:00:00Z")),
        ("finishTime", json!("0001-01-01T00:00:00Z")),
    ] {
        assert_eq!(item[key], value, "{key}");
    }
    assert_eq!(item["jobId"].as_str().unwrap().len(), 36);
    assert!(item["scaleSetAssignTime"].as_str().unwrap() >= item["queueTime"].as_str().unwrap());
}

#[test]
fn a_message_comes_back_until_it_is_deleted() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 5);
    sim.control().add_job(job("one"));
    let (first, _) = session.message(0, 5);
    sim.control().add_job(job("two"));
    let (second, items) = session.message(first, 5);
    assert_eq!(second, first + 1);
    assert_eq!(told(&items), [("JobAssigned", "two")]);
    assert_eq!(session.poll(second, 5).status, 202);
    // The cursor is the session's. The log is the set's.
    assert_eq!(client.call("DELETE", &session.path(), None).status, 204);
    let next = client.open(set);
    assert_eq!(told(&next.message(0, 5).1), [("JobAssigned", "one")]);
    assert_eq!(next.delete(first).status, 204);
    let gone = next.delete(first);
    assert_eq!(
        (gone.status, kind(&gone).as_str()),
        (404, "MessageNotFoundException")
    );
    assert_eq!(next.message(0, 5).0, second);
    assert_eq!(next.delete(second).status, 204);
    assert_eq!(next.poll(0, 5).status, 202);
}

#[test]
fn ids_of_messages_can_start_anew() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let set = client.create("a", &["ci"]);
    let session = client.open(set);
    session.poll(0, 9);
    for n in 1..=3 {
        sim.control().add_job(job("early"));
        let (id, _) = session.message(100_000_000 + n - 1, 9);
        assert_eq!(id, 100_000_000 + n);
        assert_eq!(session.delete(id).status, 204);
    }
    assert!(sim.control().restart_messages(set));
    sim.control().add_job(job("late"));
    // A client that still has the old cursor is served, too.
    let (id, items) = session.message(100_000_003, 9);
    assert_eq!(
        (id, told(&items)),
        (100_000_001, vec![("JobAssigned", "late")])
    );
}

#[test]
fn a_message_has_at_most_fifty_items() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    session.poll(0, 200);
    for _ in 0..70 {
        sim.control().add_job(job("one"));
    }
    let (first, items) = session.message(0, 200);
    assert_eq!(items.len(), 50);
    assert_eq!(session.message(first, 200).1.len(), 20);
}

#[test]
fn an_empty_poll_carries_no_statistics() {
    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let session = client.open(client.create("a", &["ci"]));
    session.poll(0, 1);
    sim.control().add_job(job("one"));
    let (id, _) = session.message(0, 1);
    assert_eq!(session.delete(id).status, 204);
    let empty = session.poll(id, 1);
    assert_eq!((empty.status, empty.text.as_str()), (202, ""));
}
