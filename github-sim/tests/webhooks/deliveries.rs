//! Events of jobs, and how they are sent.

use github_sim::{HookSpec, HookTarget, JobState, ServerOptions};
use serde_json::Value;

use crate::common::Sim;
use crate::receiver::{Received, Receiver, job, pairs, settle, told};

/// GitHub's own examples of payloads (octokit/webhooks).
const EXAMPLES: &str = include_str!("examples.json");

#[test]
fn a_job_is_told_from_its_queue_to_its_end() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    receiver.hook(&sim, "acme/widgets");
    let id = sim.control().add_job(job("one"));
    receiver.wait(1);
    let listener = sim.listener("r1", &[]);
    sim.wait_job(id, JobState::Completed);
    let all = receiver.wait(3);
    assert_eq!(
        told(&all),
        pairs(&[
            ("queued", "queued"),
            ("in_progress", "in_progress"),
            ("completed", "completed")
        ])
    );
    let jobs: Vec<Value> = all
        .iter()
        .map(|one| one.json()["workflow_job"].clone())
        .collect();
    assert_eq!(
        (&jobs[0]["runner_id"], &jobs[0]["conclusion"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(jobs[0]["started_at"], jobs[0]["created_at"]);
    for told in &jobs[1..] {
        assert_eq!(told["runner_id"], listener.id);
        assert_eq!(told["runner_name"], "r1");
        assert_eq!(told["runner_group_name"], "Default");
    }
    assert_eq!(jobs[2]["conclusion"], "success");
    // It is the job of the REST API, by its id.
    let path = format!("/repos/acme/widgets/actions/jobs/{}", jobs[2]["id"]);
    assert_eq!(sim.call("GET", &path, None).json()["run_id"], id);
}

#[test]
fn a_delivery_has_github_s_headers_and_a_signature_of_its_bytes() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    let hook = receiver.hook(&sim, "acme/widgets");
    sim.control().add_job(job("one"));
    sim.control().add_job(job("two"));
    let all = receiver.wait(2);
    for one in &all {
        for (name, value) in [
            ("x-github-event", "workflow_job"),
            ("x-github-hook-id", &hook.to_string()),
            ("x-github-hook-installation-target-type", "repository"),
            ("x-github-hook-installation-target-id", "1296269"),
            ("content-type", "application/json"),
            ("accept", "*/*"),
        ] {
            assert_eq!(one.header(name), value, "{name}");
        }
        assert!(one.header("user-agent").starts_with("GitHub-Hookshot/"));
        assert_eq!(one.header("x-github-delivery").len(), 36);
        assert!(one.is_signed());
    }
    assert_ne!(
        all[0].header("x-github-delivery"),
        all[1].header("x-github-delivery")
    );
}

#[test]
fn a_new_hook_gets_a_ping() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    let targets = [
        (
            HookTarget::Scope("acme/widgets".parse().unwrap()),
            "Repository",
            "repository",
        ),
        (
            HookTarget::Scope("acme".parse().unwrap()),
            "Organization",
            "organization",
        ),
        (HookTarget::App, "App", "integration"),
    ];
    for (at, (target, kind, owner)) in targets.into_iter().enumerate() {
        let spec = HookSpec::new(target, &receiver.url, "s");
        let hook = sim.control().add_hook(spec);
        let ping = receiver.wait(at + 1)[at].clone();
        assert_eq!(ping.header("x-github-event"), "ping");
        assert_eq!(ping.header("x-github-hook-installation-target-type"), owner);
        let body = ping.json();
        assert_eq!(
            (&body["hook_id"], &body["hook"]["type"]),
            (&hook.into(), &kind.into())
        );
        assert_ne!(body["hook"]["config"]["secret"], "s");
    }
}

#[test]
fn each_hook_gets_the_events_of_its_scope() {
    let (sim, own, all) = (Sim::start(), Receiver::start(), Receiver::start());
    let (app, other) = (Receiver::start(), Receiver::start());
    own.hook(&sim, "acme/widgets");
    all.hook(&sim, "acme");
    app.add(&sim, HookTarget::App);
    other.hook(&sim, "acme/gears");
    sim.control().add_job(job("one"));
    assert_eq!(own.wait(1)[0].json().get("installation"), None);
    assert_eq!(all.wait(1)[0].json()["organization"]["login"], "acme");
    assert_eq!(app.wait(1)[0].json()["installation"]["id"], 50_000_000);
    settle(&sim);
    let jobs = sim
        .control()
        .deliveries()
        .into_iter()
        .filter(|d| d.event == "workflow_job");
    assert_eq!(jobs.count(), 3);
}

#[test]
fn the_app_gets_the_events_of_accounts_in_which_it_is_installed() {
    let scopes = ["acme/widgets", "other/gears"].map(|scope| scope.parse().unwrap());
    let sim = Sim::from_options(ServerOptions {
        scopes: scopes.into(),
        ..ServerOptions::default()
    });
    let receiver = Receiver::start();
    receiver.add(&sim, HookTarget::App);
    for scope in ["elsewhere/x", "other/gears"] {
        let mut job = job(scope);
        job.scope = Some(scope.parse().unwrap());
        sim.control().add_job(job);
    }
    let only = receiver.wait(1)[0].json();
    assert_eq!(only["repository"]["full_name"], "other/gears");
    // The installation of that account, whose tokens open it.
    assert_eq!(only["installation"]["id"], 50_000_001);
    settle(&sim);
    assert_eq!(sim.control().deliveries().len(), 2);
    sim.control()
        .change_settings(|settings| settings.app_suspended = true);
    sim.control().add_job(job("suspended"));
    assert_eq!(sim.control().deliveries().len(), 2);
}

#[test]
fn a_job_with_reviewers_waits_and_is_queued_again() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    receiver.hook(&sim, "acme/widgets");
    let mut gated = job("gated");
    gated.needs_approval = true;
    let id = sim.control().add_job(gated);
    let all = receiver.wait(2);
    assert_eq!(
        told(&all),
        pairs(&[("queued", "waiting"), ("waiting", "waiting")])
    );
    assert_eq!(all[0].json()["deployment"]["environment"], "production");
    let path = format!(
        "/repos/acme/widgets/actions/jobs/{}",
        all[0].json()["workflow_job"]["id"]
    );
    assert_eq!(sim.call("GET", &path, None).json()["status"], "waiting");
    assert!(sim.control().release_job(id));
    assert_eq!(
        told(&receiver.wait(3))[2],
        ("queued".into(), "queued".into())
    );
    assert_eq!(sim.call("GET", &path, None).json()["status"], "queued");
}

#[test]
fn a_job_that_is_cancelled_in_the_queue_has_no_start() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    receiver.hook(&sim, "acme/widgets");
    let id = sim.control().add_job(job("one"));
    assert!(sim.control().cancel_job(id));
    let all = receiver.wait(2);
    assert_eq!(
        told(&all),
        pairs(&[("queued", "queued"), ("completed", "completed")])
    );
    let last = all[1].json()["workflow_job"].clone();
    assert_eq!(
        (&last["conclusion"], &last["runner_id"]),
        (&"cancelled".into(), &Value::Null)
    );
}

#[test]
fn payloads_have_every_field_of_github_s_examples() {
    let (sim, receiver) = (Sim::start(), Receiver::start());
    receiver.add(&sim, HookTarget::App);
    let id = sim.control().add_job(job("one"));
    let mut gated = job("gated");
    gated.needs_approval = true;
    sim.control().add_job(gated);
    let _listener = sim.listener("r1", &[]);
    sim.wait_job(id, JobState::Completed);
    let sent: Vec<Value> = receiver.wait(5).iter().map(Received::json).collect();
    let examples: Value = serde_json::from_str(EXAMPLES).unwrap();
    let examples = examples["workflow_job"].as_array().unwrap();
    for payload in &sent {
        let like = examples.iter().filter(|example| {
            example["action"] == payload["action"]
                && example["workflow_job"]["status"] == payload["workflow_job"]["status"]
                // Examples without an attempt are of a time before attempts.
                && example["workflow_job"].get("run_attempt").is_some()
        });
        let mut found = 0;
        for example in like {
            found += 1;
            for part in [
                "workflow_job",
                "repository",
                "sender",
                "installation",
                "deployment",
            ] {
                for key in example[part]
                    .as_object()
                    .into_iter()
                    .flat_map(|part| part.keys())
                {
                    assert!(
                        payload[part].get(key).is_some(),
                        "{part}.{key} of {}",
                        payload["action"]
                    );
                }
            }
        }
        assert!(
            found > 0,
            "{} {}",
            payload["action"],
            payload["workflow_job"]["status"]
        );
    }
}
