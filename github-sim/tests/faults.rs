//! Faults as a client sees them, and the control API over HTTP.

mod common;

use common::{Answer, Sim};
use github_sim::{Endpoint, Fault, FaultRule};
use serde_json::json;

const LIST: &str = "/orgs/acme/actions/runners";

/// Lists once while `fault` is in force.
fn list_under(sim: &Sim, fault: Fault) -> Result<Answer, ureq::Error> {
    sim.control()
        .add_faults([FaultRule::on(Endpoint::List, 1, fault)]);
    sim.call_with("GET", LIST, &[], None)
}

#[test]
fn a_fault_answers_in_place_of_the_server() {
    let sim = Sim::start();
    let status = list_under(
        &sim,
        Fault::Status {
            code: 503,
            body: Some(json!({"message": "later"})),
            headers: [("retry-after".into(), "7".into())].into(),
        },
    )
    .unwrap();
    assert_eq!((status.status, status.header("retry-after")), (503, "7"));
    assert_eq!(status.json()["message"], "later");
    assert!(!status.header("x-github-request-id").is_empty());

    let html = list_under(&sim, Fault::Html502).unwrap();
    assert_eq!(
        (html.status, html.header("content-type")),
        (502, "text/html")
    );

    let limited = list_under(&sim, Fault::PrimaryLimit { reset_in_s: 30 }).unwrap();
    assert_eq!(
        (limited.status, limited.header("x-ratelimit-remaining")),
        (403, "0")
    );

    let slow_down = list_under(
        &sim,
        Fault::SecondaryLimit {
            retry_after_s: None,
        },
    )
    .unwrap();
    assert_eq!(
        (slow_down.status, slow_down.header("retry-after")),
        (403, "")
    );
    assert!(slow_down.text.contains("secondary rate limit"));

    let message = "Resource not accessible by integration".to_owned();
    let forbidden = list_under(
        &sim,
        Fault::Forbidden {
            message: message.clone(),
        },
    )
    .unwrap();
    assert_eq!(
        (forbidden.status, &forbidden.json()["message"]),
        (403, &json!(message))
    );

    let to = "http://127.0.0.1:1/".to_owned();
    let redirect = list_under(
        &sim,
        Fault::Redirect {
            to: to.clone(),
            code: 302,
        },
    )
    .unwrap();
    assert_eq!(
        (redirect.status, redirect.header("location")),
        (302, to.as_str())
    );

    let giant = list_under(&sim, Fault::Giant { bytes: 3_000_000 }).unwrap();
    assert_eq!(giant.text.len(), 3_000_000);
    assert_eq!(sim.call("GET", LIST, None).status, 200, "all used up");
    // Each call after the primary limit counts.
    assert_eq!(sim.control().stats().while_limited, 5);
}

#[test]
fn a_dropped_request_is_handled_only_after_drop_after() {
    let sim = Sim::start();
    assert!(list_under(&sim, Fault::DropBefore).is_err());
    assert!(list_under(&sim, Fault::Truncate { bytes: 5 }).is_err());
    let stats = sim.control().stats();
    assert_eq!(stats.calls["list"]["dropped"], 1);
    assert_eq!(stats.answers("list", 200), 1);

    let lost = [FaultRule::on(Endpoint::Mint, 1, Fault::DropAfter)];
    sim.control().add_faults(lost);
    let body = json!({"name": "r1", "runner_group_id": 1, "labels": ["ci"]}).to_string();
    let path = "/orgs/acme/actions/runners/generate-jitconfig";
    assert!(sim.call_with("POST", path, &[], Some(&body)).is_err());
    assert_eq!(
        sim.mint("r1", &["ci"]).status,
        409,
        "it was registered all the same"
    );

    let refused = [FaultRule::on(Endpoint::Mint, 1, Fault::DropBefore)];
    sim.control().add_faults(refused);
    let body = body.replace("r1", "r2");
    assert!(sim.call_with("POST", path, &[], Some(&body)).is_err());
    assert_eq!(sim.mint("r2", &["ci"]).status, 201, "it was never seen");
}

#[test]
fn a_spoiled_answer_arrives_whole() {
    let sim = Sim::start();
    sim.control().add_faults([
        FaultRule::on(Endpoint::List, 1, Fault::Delay { ms: 1 }),
        FaultRule::on(Endpoint::List, 1, Fault::WrongTypes),
    ]);
    let wrong = sim.call("GET", LIST, None);
    assert_eq!(wrong.json()["total_count"], "0");
    let slow = list_under(&sim, Fault::SlowDrip { bytes_per_s: 1000 }).unwrap();
    assert_eq!(slow.json()["total_count"], 0);
}

#[test]
fn the_control_api_works_over_http() {
    let sim = Sim::start();
    let ask = |method: &str, path: &str, body: serde_json::Value| {
        let text = body.to_string();
        let body = (!body.is_null()).then_some(text.as_str());
        sim.call_with(method, path, &[("authorization", "")], body)
            .unwrap()
    };
    let none = serde_json::Value::Null;
    assert_eq!(ask("GET", "/_sim/health", none.clone()).status, 200);
    let job = json!({"name": "build", "labels": ["ci"], "hold": true, "steps": [{"name": "a", "run": "true"}]});
    let ids = ask("POST", "/_sim/jobs", json!([job, job]));
    assert_eq!(ids.status, 201, "{ids:?}");
    let id = ids.json()["ids"][0].clone();
    assert_eq!(
        ask("GET", &format!("/_sim/jobs/{id}"), none.clone()).json()["held"],
        true
    );
    assert_eq!(
        ask("POST", &format!("/_sim/jobs/{id}/release"), none.clone()).status,
        204
    );
    assert_eq!(
        ask("POST", &format!("/_sim/jobs/{id}/cancel"), none.clone()).status,
        204
    );
    let shown = ask("GET", "/_sim/jobs", none.clone()).json();
    assert_eq!(shown[0]["conclusion"], "cancelled");
    assert_eq!(ask("POST", "/_sim/jobs/7/cancel", none.clone()).status, 404);
    assert_eq!(ask("POST", "/_sim/jobs", json!({"nome": "x"})).status, 400);

    let planted = ask(
        "POST",
        "/_sim/runners",
        json!({"scope": "acme", "name": "old"}),
    );
    let runner = planted.json()["ids"][0].clone();
    assert_eq!(
        ask("GET", "/_sim/runners", none.clone()).json()[0]["standing"],
        "registered"
    );
    assert_eq!(
        ask("DELETE", &format!("/_sim/runners/{runner}"), none.clone()).status,
        204
    );
    assert_eq!(
        ask("GET", "/_sim/runners", none.clone()).json()[0]["gone"],
        "deleted_in_ui"
    );

    let rule =
        json!({"match": {"endpoint": "list"}, "times": 1, "fault": {"status": {"code": 500}}});
    assert_eq!(ask("POST", "/_sim/faults", rule).status, 200);
    assert_eq!(sim.call("GET", LIST, None).status, 500);
    assert_eq!(
        ask("GET", "/_sim/faults", none.clone()).json()[0]["times"],
        0
    );
    assert_eq!(ask("DELETE", "/_sim/faults", none.clone()).status, 204);
    assert_eq!(
        ask("GET", "/_sim/stats", none.clone()).json()["calls"]["list"]["500"],
        1
    );
    assert_eq!(ask("POST", "/_sim/stats/reset", none.clone()).status, 204);
    assert_eq!(
        ask("GET", "/_sim/stats", none.clone()).json()["calls"],
        json!({})
    );

    assert_eq!(
        ask("POST", "/_sim/settings", json!({"idle_reap_ms": 5})).json()["idle_reap_ms"],
        5
    );
    assert_eq!(
        ask("POST", "/_sim/settings", json!({"idle_reep": 5})).status,
        400
    );
    assert_eq!(
        ask("POST", "/_sim/token", json!({"token": "t2"})).status,
        204
    );
    assert_eq!(sim.call("GET", LIST, None).status, 401);
    assert_eq!(ask("GET", "/_sim/nothing", none).status, 404);
}
