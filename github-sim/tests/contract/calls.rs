//! The table of calls, row by row.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use github_sim::{
    Conclusion, GoneCause, JobContainer, JobState, JobStep, Settings, SignatureAlgorithm, Standing,
    client_assertion, job_message::JobMessage,
};
use serde_json::{Value, json};

use crate::client::{Client, claims, job_token, now, quick, running, simple};
use crate::common::{Answer, Sim, runner};

#[test]
fn row_0_a_jit_config_holds_strings_slashes_and_a_whole_rsa_key() {
    let sim = Sim::start();
    let client = Client::mint(&sim, "r1");
    let settings = &client.settings;
    for key in ["AgentId", "PoolId"] {
        assert!(settings[key].is_string(), "{key}");
    }
    assert_eq!(settings["UseV2Flow"], "True");
    assert_eq!(settings["ServerUrl"], settings["ServerUrlV2"]);
    assert!(client.broker().ends_with('/'));
    assert_eq!(settings["GitHubUrl"], format!("{}/acme", sim.url()));
    assert_eq!(client.credentials["Scheme"], "OAuth");
    assert_eq!(
        client.credentials["Data"]["requireFipsCryptography"],
        "False"
    );
    let key = serde_json::to_value(&client.key).unwrap();
    let lengths = [
        ("d", 256),
        ("dp", 128),
        ("dq", 128),
        ("exponent", 3),
        ("inverseQ", 128),
        ("modulus", 256),
        ("p", 128),
        ("q", 128),
    ];
    assert_eq!(key.as_object().unwrap().len(), lengths.len());
    for (name, length) in lengths {
        let bytes = STANDARD.decode(key[name].as_str().unwrap()).unwrap();
        assert_eq!(bytes.len(), length, "{name}");
    }
    let other = Client::mint(&sim, "r2");
    assert_ne!(client.key.modulus, other.key.modulus);
}

#[test]
fn row_1_a_token_is_given_for_rs256_and_ps256() {
    let sim = Sim::start();
    let client = Client::mint(&sim, "r1");
    for algorithm in [SignatureAlgorithm::Rs256, SignatureAlgorithm::Ps256] {
        let answer = client.ask_token(algorithm, |_| ());
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(
            answer
                .header("content-type")
                .starts_with("application/json")
        );
        assert_eq!(
            answer.header("content-length"),
            answer.text.len().to_string()
        );
        let body = answer.json();
        assert_eq!(
            (&body["token_type"], &body["expires_in"]),
            (&json!("bearer"), &json!(3600))
        );
        let token = claims(body["access_token"].as_str().unwrap());
        assert!(token["exp"].as_u64().unwrap() > now());
    }
}

#[test]
fn row_1_a_listener_under_fips_is_told_so() {
    let sim = Sim::with(Settings {
        require_fips: true,
        ..Settings::default()
    });
    let client = Client::mint(&sim, "r1");
    assert_eq!(
        client.credentials["Data"]["requireFipsCryptography"],
        "True"
    );
    let mut listener = sim.listener("r2", &[]);
    sim.wait_online(listener.id);
    assert!(sim.control().delete_runner(listener.id));
    assert_eq!(listener.code(), 0);
}

#[test]
fn row_1_a_wrong_assertion_or_a_deleted_runner_is_an_invalid_client() {
    let sim = Sim::start();
    let (client, other) = (Client::mint(&sim, "r1"), Client::mint(&sim, "r2"));
    let data = &client.credentials["Data"];
    let (id, url) = (
        data["clientId"].as_str().unwrap(),
        data["authorizationUrl"].as_str().unwrap(),
    );
    let algorithm = SignatureAlgorithm::Rs256;
    let sign = |id, url, key, at| client_assertion::sign(id, url, key, algorithm, at).unwrap();
    let mut wrong = vec![
        ("other key", sign(id, url, &other.key, now())),
        (
            "other audience",
            sign(id, "http://other/", &client.key, now()),
        ),
        ("unknown client", sign("nobody", url, &client.key, now())),
        ("expired", sign(id, url, &client.key, now() - 400)),
        ("from the future", sign(id, url, &client.key, now() + 4000)),
        ("empty", String::new()),
    ];
    assert!(sim.control().delete_runner(other.id));
    let gone = other.ask_token(algorithm, |_| ());
    wrong.push(("garbage", "a.b.c".into()));
    let answers = wrong.into_iter().map(|(case, assertion)| {
        let put = |form: &mut BTreeMap<_, _>| drop(form.insert("client_assertion", assertion));
        (case, client.ask_token(algorithm, put))
    });
    for (case, answer) in answers.chain([("deleted", gone)]) {
        assert_eq!(answer.status, 400, "{case}");
        assert_eq!(answer.json()["error"], "invalid_client", "{case}");
        assert_eq!(
            answer.header("content-length"),
            answer.text.len().to_string()
        );
        assert!(
            answer
                .header("content-type")
                .starts_with("application/json")
        );
    }
    let grant = client.ask_token(algorithm, |form| {
        form.insert("grant_type", "password".into());
    });
    assert_eq!(grant.json()["error"], "unsupported_grant_type");
    let kind = client.ask_token(algorithm, |form| {
        form.remove("client_assertion_type");
    });
    assert_eq!(kind.json()["error"], "invalid_request");
}

#[test]
fn row_2_a_session_is_opened_once() {
    let sim = Sim::start();
    let mut client = Client::mint(&sim, "r1");
    let refused = client.open_session();
    assert_eq!(
        (refused.status, &refused.json()["source"]),
        (401, &json!("actions-broker-listener"))
    );
    client.token = client.ask_token(SignatureAlgorithm::Ps256, |_| ()).json()["access_token"]
        .as_str()
        .unwrap()
        .into();
    let opened = client.open_session();
    assert_eq!(opened.status, 200);
    assert!(
        opened
            .header("content-type")
            .starts_with("application/json")
    );
    let body = opened.json();
    assert_eq!(body["sessionId"].as_str().unwrap().len(), 36);
    assert_ne!(body["sessionId"], "00000000-0000-0000-0000-000000000000");
    assert_eq!(
        (&body["agent"]["id"], &body["agent"]["name"]),
        (&json!(client.id), &json!("r1"))
    );
    assert!(body.get("encryptionKey").is_none());
    assert_eq!(client.open_session().status, 409);
    let intruder = Client::connected(&sim, "r2");
    let foreign = Client {
        token: intruder.token,
        ..client
    };
    assert_eq!(foreign.open_session().status, 403);
}

#[test]
fn row_3_a_poll_without_a_message_is_202_and_empty() {
    let sim = quick();
    let client = Client::connected(&sim, "r1");
    let answer = client.poll("Online");
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
    assert_eq!(client.poll("Asleep").status, 400);
}

#[test]
fn row_3_each_refusal_of_a_poll_names_its_kind() {
    let sim = quick();
    let client = Client::connected(&sim, "r1");
    let kind = |answer: &Answer, status: u16, kind: &str| {
        let body = answer.json();
        assert_eq!(answer.status, status, "{kind}");
        assert_eq!(body["source"], "actions-broker-listener");
        assert_eq!(body["errorKind"], kind);
        assert_eq!(body["statusCode"], status);
        assert!(body["errorMessage"].is_string());
    };
    let stranger = Client::mint(&sim, "r2");
    let lost = Client {
        token: client.token.clone(),
        session: "other".into(),
        ..stranger
    };
    kind(&lost.poll("Online"), 404, "RunnerSessionInvalid");
    sim.control()
        .change_settings(|settings| settings.minimum_version = Some("9.0.0".into()));
    kind(&client.poll("Online"), 400, "RunnerVersionTooOld");
    sim.control()
        .change_settings(|settings| settings.minimum_version = None);
    assert!(sim.control().delete_runner(client.id));
    kind(&client.poll("Online"), 404, "RunnerNotFound");
}

#[test]
fn row_3b_an_offer_has_its_ids_and_a_base_that_ends_in_a_slash() {
    let sim = quick();
    let client = Client::connected(&sim, "r1");
    let _job = sim.control().add_job(simple());
    let offer = client.offer();
    for key in ["id", "runner_request_id", "billing_owner_id"] {
        assert!(offer[key].is_string(), "{key}");
    }
    assert!(offer["run_service_url"].as_str().unwrap().ends_with('/'));
    assert_eq!(offer["should_acknowledge"], true);
}

#[test]
fn row_4_an_offer_is_acknowledged_by_its_runner_alone() {
    let sim = quick();
    let client = Client::connected(&sim, "r1");
    let _job = sim.control().add_job(simple());
    let offer = client.offer();
    let url = format!("{}acknowledge?{}", client.broker(), client.query("Online"));
    let body = json!({"runnerRequestId": offer["runner_request_id"]});
    let other = Client::connected(&sim, "r2");
    let refused = other.call("POST", &url, &other.token, Some(&body));
    assert_eq!(refused.status, 404);
    assert_eq!(refused.json()["errorKind"], "AcknowledgeJobNotFound");
    assert_eq!(
        client.call("POST", &url, &client.token, Some(&body)).status,
        200
    );
}

#[test]
fn row_5_a_job_message_is_complete() {
    let sim = quick();
    let mut spec = simple();
    spec.env
        .insert("A".into(), "${{ not an expression }}".into());
    spec.steps.push(JobStep {
        name: "second".into(),
        run: "exit 3".into(),
    });
    let (_client, id, job) = running(&sim, spec);
    assert_eq!(job["messageType"], "RunnerJobRequest");
    assert_eq!(job["plan"]["planType"], "actions");
    assert_eq!(job["plan"]["version"], 9);
    for pointer in [
        "/plan/planId",
        "/plan/scopeIdentifier",
        "/timeline/id",
        "/jobId",
        "/steps/0/id",
    ] {
        let text = job.pointer(pointer).and_then(Value::as_str);
        assert_eq!(text.map(str::len), Some(36), "{pointer}");
    }
    assert_eq!(
        (&job["jobDisplayName"], &job["jobName"]),
        (&json!("build"), &json!("build"))
    );
    let endpoint = &job["resources"]["endpoints"][0];
    assert_eq!(endpoint["name"], "SystemVssConnection");
    assert_eq!(endpoint["authorization"]["scheme"], "OAuth");
    assert!(endpoint["url"].as_str().unwrap().ends_with('/'));
    assert!(claims(job_token(&job))["orchid"].is_string());
    assert_eq!(job["variables"]["system.github.job"]["value"], "build");
    assert_eq!(
        job["variables"]["system.runnerEnvironment"]["value"],
        "self-hosted"
    );
    assert_eq!(job["variables"]["system.github.token"]["isSecret"], true);
    let results = &job["variables"]["system.github.results_endpoint"]["value"];
    assert!(results.as_str().unwrap().ends_with('/'));
    assert!(job["variables"].get("standin.listener_faults").is_none());
    for key in [
        "jobContainer",
        "jobServiceContainers",
        "jobOutputs",
        "workspace",
        "actionsEnvironment",
    ] {
        assert!(job.get(key).is_some_and(Value::is_null), "{key}");
    }
    assert_eq!((&job["mask"], &job["defaults"]), (&json!([]), &json!([])));
    assert_eq!(job["fileTable"], json!([".github/workflows/ci.yml"]));
    assert_eq!(
        job["environmentVariables"],
        json!([{"type": 2, "map": [{"Key": "A", "Value": "${{ not an expression }}"}]}])
    );
    let github = &job["contextData"]["github"];
    assert_eq!(github["t"], 2);
    let context = |key: &str| {
        let entries = github["d"].as_array().unwrap();
        entries.iter().find(|entry| entry["k"] == key).unwrap()["v"].clone()
    };
    assert_eq!(context("repository"), "acme/widgets");
    assert_eq!(context("run_id"), id.to_string());
    assert_eq!(context("event"), json!({"t": 2, "d": []}));
    for key in ["needs", "vars"] {
        assert_eq!(job["contextData"][key], json!({"t": 2, "d": []}));
    }
    assert_eq!(
        job["steps"][1],
        json!({
            "type": "action",
            "id": job["steps"][1]["id"],
            "name": "__run_2",
            "contextName": "__run_2",
            "enabled": true,
            "condition": "success()",
            "displayNameToken": "second",
            "reference": {"type": "script"},
            "inputs": {"type": 2, "map": [{"Key": "script", "Value": "exit 3"}, {"Key": "shell", "Value": "bash"}]},
        })
    );
}

#[test]
fn row_5_containers_are_template_tokens() {
    let sim = quick();
    let mut spec = simple();
    spec.container = Some(JobContainer {
        image: "debian:13".into(),
        env: [("A".to_owned(), "b".to_owned())].into(),
        volumes: vec!["/a:/b".into()],
        options: Some("--cpus 1".into()),
        ..JobContainer::default()
    });
    let redis = JobContainer {
        image: "redis".into(),
        ports: vec!["6379".into()],
        ..JobContainer::default()
    };
    spec.services.insert("redis".into(), redis);
    let (_client, _id, job) = running(&sim, spec);
    let entry = |key: &str, value: Value| json!({"Key": key, "Value": value});
    let map = |entries: &[Value]| json!({"type": 2, "map": entries});
    assert_eq!(
        job["jobContainer"],
        map(&[
            entry("image", json!("debian:13")),
            entry("env", map(&[entry("A", json!("b"))])),
            entry("volumes", json!({"type": 1, "seq": ["/a:/b"]})),
            entry("options", json!("--cpus 1")),
        ])
    );
    let redis = map(&[
        entry("image", json!("redis")),
        entry("ports", json!({"type": 1, "seq": ["6379"]})),
    ]);
    assert_eq!(job["jobServiceContainers"], map(&[entry("redis", redis)]));
}

#[test]
fn row_5_a_container_job_fails_at_the_standin_listener() {
    let sim = Sim::start();
    let mut listener = sim.listener("r1", &[]);
    let mut spec = simple();
    spec.container = Some(JobContainer {
        image: "debian:13".into(),
        ..JobContainer::default()
    });
    let job = sim.control().add_job(spec);
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Failure));
    assert!(
        job.facts.log_tail.contains("does not run containers"),
        "{job:#?}"
    );
    assert_eq!(listener.code(), 0);
}

#[test]
fn row_5_a_message_without_a_required_part_is_unreadable() {
    let sim = quick();
    let (_client, _id, whole) = running(&sim, simple());
    JobMessage::read(&whole).unwrap();
    for pointer in [
        "/messageType",
        "/plan/planId",
        "/timeline/id",
        "/jobId",
        "/fileTable",
        "/variables",
        "/environmentVariables",
        "/resources/endpoints/0/url",
        "/resources/endpoints/0/authorization/parameters/AccessToken",
        "/contextData/github/t",
        "/steps/0/reference/type",
        "/steps/0/inputs/type",
    ] {
        let mut damaged = whole.clone();
        *damaged.pointer_mut(pointer).unwrap() = Value::Null;
        assert!(JobMessage::read(&damaged).is_err(), "{pointer}");
    }
    let mut older = whole;
    older["messageType"] = "PipelineAgentJobRequest".into();
    assert!(JobMessage::read(&older).is_err());
}

/// Checks a refusal of the run service.
fn assert_run_refusal(answer: &Answer, status: u16) {
    let body = answer.json();
    assert_eq!(answer.status, status, "{body}");
    assert_eq!(body["source"], "actions-run-service");
    assert_eq!(body["statusCode"], status);
    assert!(body["errorMessage"].is_string());
    assert!(body.get("errorKind").is_none(), "{body}");
}

#[test]
fn row_5_a_refused_acquire_names_the_run_service() {
    let sim = quick();
    let mut spec = simple();
    spec.lose_races = 1;
    let client = Client::connected(&sim, "r1");
    let job = sim.control().add_job(spec);
    let offer = client.offer();
    assert_run_refusal(&client.acquire(&offer), 409);
    assert_run_refusal(&client.acquire(&offer), 404);
    let view = runner(sim.control(), client.id).unwrap();
    assert_eq!(view.standing, Standing::Ghost);
    let next = Client::connected(&sim, "r2");
    let offer = next.offer();
    let without_token = Client {
        token: String::new(),
        ..Client::mint(&sim, "r3")
    };
    assert_run_refusal(&without_token.acquire(&offer), 401);
    assert_eq!(next.acquire(&offer).status, 200);
    assert_run_refusal(&next.acquire(&offer), 409);
    assert_eq!(sim.control().job(job).unwrap().status, JobState::InProgress);
}

#[test]
fn row_6_a_renewal_moves_the_lock_and_is_404_after_the_job() {
    let sim = quick();
    let (client, id, job) = running(&sim, simple());
    let renewed = client.report(&job, "renewjob", &json!({}));
    assert_eq!(renewed.status, 200);
    let until = renewed.json()["lockedUntil"].as_str().unwrap().to_owned();
    assert!(until.ends_with('Z') && until.as_str() >= job["lockedUntil"].as_str().unwrap());
    let wrong = client.report(&job, "renewjob", &json!({"jobId": "other"}));
    assert_run_refusal(&wrong, 400);
    let done = client.report(&job, "completejob", &json!({"conclusion": "succeeded"}));
    assert_eq!(done.status, 200);
    assert_run_refusal(&client.report(&job, "renewjob", &json!({})), 404);
    assert_eq!(
        sim.control().job(id).unwrap().conclusion,
        Some(Conclusion::Success)
    );
}

#[test]
fn row_7_the_worker_reports_each_conclusion_and_the_runner_is_gone() {
    for (told, seen) in [
        ("succeeded", Conclusion::Success),
        ("failed", Conclusion::Failure),
        ("canceled", Conclusion::Cancelled),
    ] {
        let sim = quick();
        let (client, id, job) = running(&sim, simple());
        let report = json!({
            "conclusion": told, "outputs": {}, "stepResults": [{"number": 1}], "annotations": [], "telemetry": [],
            "environmentUrl": null, "billingOwnerId": "o", "infrastructureFailureCategory": null,
        });
        assert_eq!(client.report(&job, "completejob", &report).status, 200);
        assert_run_refusal(&client.report(&job, "completejob", &report), 404);
        assert_eq!(sim.control().job(id).unwrap().conclusion, Some(seen));
        let view = runner(sim.control(), client.id).unwrap();
        assert_eq!(view.gone, Some(GoneCause::JobDone));
        assert_eq!(client.poll("Online").json()["errorKind"], "RunnerNotFound");
    }
}

#[test]
fn row_8_a_session_is_deleted_and_may_be_opened_again() {
    let sim = quick();
    let client = Client::connected(&sim, "r1");
    let url = format!("{}session", client.broker());
    for _ in 0..2 {
        assert_eq!(client.call("DELETE", &url, &client.token, None).status, 200);
    }
    assert_eq!(
        client.poll("Online").json()["errorKind"],
        "RunnerSessionInvalid"
    );
    assert_eq!(client.open_session().status, 200);
}

#[test]
fn a_cancel_is_a_message_with_the_job_and_a_timeout() {
    let sim = quick();
    let (client, id, job) = running(&sim, simple());
    assert!(sim.control().cancel_job(id));
    let message = client.poll("Busy").json();
    assert_eq!(message["messageType"], "JobCancellation");
    let body: Value = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
    assert_eq!(body, json!({"jobId": job["jobId"], "timeout": "00:05:00"}));
}
