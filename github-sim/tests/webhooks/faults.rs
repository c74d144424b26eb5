//! Deliveries that are late, doubled, swapped, lost, forged or signed by another.

use github_sim::{WebhookFault, WebhookFaultRule, WebhookSettings};
use serde_json::json;

use crate::common::Sim;
use crate::receiver::{Received, Receiver, job, pairs, settle, told};

fn start(rules: impl IntoIterator<Item = WebhookFaultRule>) -> (Sim, Receiver) {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    receiver.hook(&sim, "acme/widgets");
    sim.control().add_webhook_faults(rules);
    (sim, receiver)
}

fn queued(fault: WebhookFault) -> [WebhookFaultRule; 1] {
    [WebhookFaultRule::on("queued", 1, fault)]
}

fn names(all: &[Received]) -> Vec<String> {
    let name = |one: &Received| {
        one.json()["workflow_job"]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    all.iter().map(name).collect()
}

#[test]
fn a_late_delivery_comes_after_newer_ones() {
    let (sim, receiver) = start(queued(WebhookFault::Late { ms: 300 }));
    sim.control().add_job(job("late"));
    sim.control().add_job(job("two"));
    assert_eq!(names(&receiver.wait(2)), ["two", "late"]);
}

#[test]
fn a_doubled_delivery_has_one_id() {
    let (sim, receiver) = start(queued(WebhookFault::Doubled));
    sim.control().add_job(job("one"));
    let all = receiver.wait(2);
    assert_eq!(all[0].body, all[1].body);
    assert_eq!(
        all[0].header("x-github-delivery"),
        all[1].header("x-github-delivery")
    );
}

#[test]
fn waiting_and_queued_may_be_swapped() {
    let (sim, receiver) = start([WebhookFaultRule::on("waiting", 1, WebhookFault::Swapped)]);
    let mut gated = job("gated");
    gated.needs_approval = true;
    let id = sim.control().add_job(gated);
    assert!(sim.control().release_job(id));
    assert_eq!(
        told(&receiver.wait(3)),
        pairs(&[
            ("queued", "waiting"),
            ("queued", "queued"),
            ("waiting", "waiting")
        ])
    );
}

#[test]
fn a_lost_delivery_is_not_listed() {
    let (sim, receiver) = start(queued(WebhookFault::Lost));
    sim.control().add_job(job("lost"));
    sim.control().add_job(job("two"));
    assert_eq!(names(&receiver.wait(1)), ["two"]);
    settle(&sim);
    let listed = sim
        .control()
        .deliveries()
        .into_iter()
        .filter(|d| d.event == "workflow_job");
    assert_eq!(listed.count(), 1);
}

#[test]
fn forged_deliveries_have_a_wrong_signature() {
    let (sim, receiver) = start(queued(WebhookFault::Forged));
    sim.control().add_job(job("one"));
    let forged = receiver.wait(1)[0].clone();
    assert_eq!(forged.json()["workflow_job"]["labels"], json!(["forged"]));
    assert!(!forged.is_signed());

    let (sim, receiver) = start(queued(WebhookFault::WrongSecret));
    sim.control().add_job(job("one"));
    sim.control().add_job(job("two"));
    let all = receiver.wait(2);
    assert_eq!(all[0].json()["workflow_job"]["labels"], json!(["ci"]));
    assert!(all[0].header("x-hub-signature-256").starts_with("sha256="));
    assert_eq!((all[0].is_signed(), all[1].is_signed()), (false, true));
}

#[test]
fn measured_delays_have_the_published_distribution() {
    let delays = WebhookSettings::measured_delays_ms();
    let within =
        |limit| delays.iter().filter(|delay| **delay <= limit).count() * 100 / delays.len();
    assert_eq!(
        (within(2_000), within(3_000), within(150_000)),
        (50, 90, 95)
    );
    let mean = delays.iter().sum::<u64>() / delays.len() as u64;
    assert!((655_000..968_000).contains(&mean), "{mean}");
}

#[test]
fn rules_and_hooks_come_by_the_control_api() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    let hook = json!({"target": {"scope": "acme/widgets"}, "url": receiver.url});
    let answer = sim.call("POST", "/_sim/hooks", Some(&hook));
    assert_eq!(answer.status, 201, "{}", answer.text);
    let id = answer.json()["ids"][0].as_u64().unwrap();
    // A hook without a secret does not sign.
    assert_eq!(receiver.wait(1)[0].header("x-hub-signature-256"), "");
    let rule = json!({"action": "queued", "times": 1, "fault": {"late": {"ms": 1}}});
    assert_eq!(
        sim.call("POST", "/_sim/webhook-faults", Some(&rule))
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(sim.call("DELETE", "/_sim/webhook-faults", None).status, 204);
    assert_eq!(sim.control().webhook_faults(), []);
    settle(&sim);
    assert_eq!(
        sim.call("GET", "/_sim/deliveries", None).json()[0]["code"],
        202
    );
    assert_eq!(
        sim.call("DELETE", &format!("/_sim/hooks/{id}"), None)
            .status,
        204
    );
    sim.control().add_job(job("one"));
    assert_eq!(sim.control().deliveries().len(), 1);
}
