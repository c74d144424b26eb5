//! The list of deliveries, and further attempts.

use github_sim::{HookTarget, ServerOptions, WebhookFault, WebhookFaultRule};
use serde_json::{Value, json};

use crate::common::{Answer, Sim, app_jwt};
use crate::receiver::{Receiver, job, settle};

fn list(sim: &Sim, path: &str) -> Vec<Value> {
    let answer = sim.call("GET", path, None);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json().as_array().unwrap().clone()
}

#[test]
fn deliveries_are_listed_newest_first_in_pages() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    let hook = receiver.hook(&sim, "acme/widgets");
    for name in ["one", "two", "three"] {
        sim.control().add_job(job(name));
    }
    receiver.wait(3);
    settle(&sim);
    let path = format!("/repos/acme/widgets/hooks/{hook}/deliveries");
    let all = list(&sim, &path);
    assert_eq!(all.len(), 4);
    assert_eq!(
        (&all[3]["event"], &all[3]["action"]),
        (&json!("ping"), &Value::Null)
    );
    assert_eq!(
        (&all[0]["event"], &all[0]["action"]),
        (&json!("workflow_job"), &json!("queued"))
    );
    assert_eq!(
        (&all[0]["status"], &all[0]["status_code"]),
        (&json!("OK"), &json!(202))
    );
    assert_eq!(
        (&all[0]["redelivery"], &all[0]["repository_id"]),
        (&json!(false), &json!(1_296_269))
    );
    let first = sim.call("GET", &format!("{path}?per_page=3"), None);
    assert_eq!(first.json().as_array().unwrap()[..], all[..3]);
    let link = first.header("link").to_owned();
    let next = link
        .strip_prefix('<')
        .unwrap()
        .split_once(">; rel=\"next\"")
        .unwrap()
        .0;
    assert_eq!(list(&sim, next.strip_prefix(sim.url()).unwrap()), all[3..]);
    for (query, status) in [("?page=2", 422), ("?cursor=x", 400), ("?status=lost", 422)] {
        assert_eq!(
            sim.call("GET", &format!("{path}{query}"), None).status,
            status,
            "{query}"
        );
    }
    let one = sim
        .call("GET", &format!("{path}/{}", all[0]["id"]), None)
        .json();
    assert_eq!(one["request"]["payload"]["workflow_job"]["name"], "three");
    assert_eq!(
        one["request"]["headers"]["X-GitHub-Delivery"],
        all[0]["guid"]
    );
    assert_eq!(
        (&one["response"]["payload"], &one["url"]),
        (&json!("hi"), &json!(receiver.url))
    );
}

#[test]
fn a_failed_delivery_is_repeated_with_the_same_bytes() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    let hook = receiver.hook(&sim, "acme");
    receiver.answer(503);
    sim.control().add_job(job("one"));
    receiver.wait(1);
    settle(&sim);
    let path = format!("/orgs/acme/hooks/{hook}/deliveries");
    let failed = list(&sim, &format!("{path}?status=failure"));
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["status"], "Invalid HTTP Response: 503");
    receiver.answer(202);
    let again = format!("{path}/{}/attempts", failed[0]["id"]);
    assert_eq!(sim.call("POST", &again, None).status, 202);
    let all = receiver.wait(2);
    assert_eq!(all[0].body, all[1].body);
    assert_eq!(
        all[0].headers["x-hub-signature-256"],
        all[1].headers["x-hub-signature-256"]
    );
    settle(&sim);
    let listed = list(&sim, &format!("{path}?status=success"));
    assert_eq!(listed[0]["guid"], failed[0]["guid"]);
    assert_ne!(listed[0]["id"], failed[0]["id"]);
    assert_eq!(listed[0]["redelivery"], true);
    // GitHub does not repeat by itself.
    assert_eq!(list(&sim, &path).len(), 3);
}

#[test]
fn a_receiver_that_cannot_be_reached_is_listed() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    let hook = receiver.hook(&sim, "acme/widgets");
    let rule = WebhookFaultRule::on("queued", 1, WebhookFault::Failed);
    sim.control().add_webhook_faults([rule]);
    sim.control().add_job(job("one"));
    let path = format!("/repos/acme/widgets/hooks/{hook}/deliveries");
    let failed = list(&sim, &format!("{path}?status=failure"));
    assert_eq!(
        (&failed[0]["status_code"], &failed[0]["status"]),
        (&json!(0), &json!("failed to connect to host"))
    );
    assert_eq!(
        sim.call(
            "POST",
            &format!("{path}/{}/attempts", failed[0]["id"]),
            None
        )
        .status,
        202
    );
    assert_eq!(receiver.wait(1).len(), 1);
}

#[test]
fn an_app_lists_its_deliveries_with_its_jwt() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    receiver.add(&sim, HookTarget::App);
    sim.control().add_job(job("one"));
    receiver.wait(1);
    settle(&sim);
    let bearer = format!("Bearer {}", app_jwt());
    let call = |method: &str, path: &str| -> Answer {
        let headers = [("authorization", bearer.as_str())];
        sim.call_with(method, path, &headers, None).unwrap()
    };
    let path = "/app/hook/deliveries";
    let all = call("GET", path).json();
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(all[0]["installation_id"], 50_000_000);
    let one = format!("{path}/{}", all[0]["id"]);
    assert_eq!(call("GET", &one).json()["guid"], all[0]["guid"]);
    assert_eq!(call("POST", &format!("{one}/attempts")).status, 202);
    receiver.wait(2);
    assert_eq!(sim.call("GET", path, None).status, 401);
}

#[test]
fn deliveries_of_another_hook_are_not_found() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    let hook = receiver.hook(&sim, "acme/widgets");
    let delivery = sim.control().deliveries()[0].id;
    for path in [
        format!("/orgs/acme/hooks/{hook}/deliveries"),
        "/repos/acme/widgets/hooks/1/deliveries".to_owned(),
        format!("/repos/acme/widgets/hooks/{hook}/deliveries/1"),
        format!("/repos/acme/gears/hooks/{hook}/deliveries/{delivery}"),
    ] {
        assert_eq!(sim.call("GET", &path, None).status, 404, "{path}");
    }
    let refused = sim.call("GET", "/repos/acme/widgets/hooks/1/deliveries", None);
    assert_eq!(
        refused.header("x-accepted-github-permissions"),
        "repository_hooks=read"
    );
    // GitHub keeps them for three days.
    let path = format!("/repos/acme/widgets/hooks/{hook}/deliveries");
    assert_eq!(list(&sim, &path).len(), 1);
    sim.control()
        .change_settings(|settings| settings.webhooks.retention_ms = 0);
    assert_eq!(list(&sim, &path).len(), 0);
}

#[test]
fn a_state_file_brings_back_hooks_and_deliveries() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    let options = || ServerOptions {
        state: Some(dir.path().join("state")),
        ..ServerOptions::default()
    };
    let first = Sim::from_options(options());
    let hook = receiver.hook(&first, "acme/widgets");
    first.control().add_job(job("one"));
    receiver.wait(1);
    settle(&first);
    let before = first.control().deliveries();
    let rule = WebhookFaultRule::on("completed", 2, WebhookFault::Doubled);
    first.control().add_webhook_faults([rule.clone()]);
    drop(first);
    let second = Sim::from_options(options());
    assert_eq!(second.control().webhook_faults(), [rule]);
    let path = format!("/repos/acme/widgets/hooks/{hook}/deliveries");
    assert_eq!(list(&second, &path).len(), before.len());
    second.control().add_job(job("two"));
    assert_eq!(receiver.wait(2)[1].json()["workflow_job"]["name"], "two");
}
