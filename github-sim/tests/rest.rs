//! The REST API: endpoints, refusals, paging, tags and limits.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{Answer, Sim};
use github_sim::{
    Endpoint, Fault, FaultRule, JobSpec, JobState, PagingFault, PlantedRunner, ScopeToken, Settings,
};
use serde_json::{Value, json};

const ORG: &str = "/orgs/acme/actions/runners";
const REPO: &str = "/repos/acme/widgets/actions/runners";

/// A change to the body of a mint.
type Change = Box<dyn FnOnce(&mut Value)>;

fn mint_body() -> Value {
    json!({"name": "r1", "runner_group_id": 1, "labels": ["ci"]})
}

/// Mints with a change to a valid body.
fn mint_with(sim: &Sim, change: impl FnOnce(&mut Value)) -> Answer {
    let mut body = mint_body();
    change(&mut body);
    sim.call("POST", &format!("{ORG}/generate-jitconfig"), Some(&body))
}

fn plant(sim: &Sim, name: &str, busy: bool) -> u64 {
    sim.control().plant_runner(PlantedRunner {
        scope: "acme".parse().unwrap(),
        name: name.into(),
        status: "online".into(),
        busy,
        labels: vec!["CI".into()],
        runner_group_id: 1,
    })
}

#[test]
fn a_runner_is_minted_listed_and_deleted_in_both_scopes() {
    for scope in [ORG, REPO] {
        let sim = Sim::start();
        let body = json!({"name": "r1", "runner_group_id": 1, "labels": ["Linux", "CI", "ci"]});
        let minted = sim.call("POST", &format!("{scope}/generate-jitconfig"), Some(&body));
        assert_eq!(minted.status, 201, "{minted:?}");
        assert_eq!(
            minted.header("x-ratelimit-resource"),
            "actions_runner_registration"
        );
        let runner = &minted.json()["runner"];
        assert!(runner["id"].as_u64().unwrap() > 1 << 32);
        assert_eq!(runner["os"], "unknown");
        assert_eq!(runner["status"], "offline");
        assert_eq!(runner["busy"], false);
        let labels: Vec<_> = runner["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|l| &l["name"])
            .collect();
        assert_eq!(labels, ["linux", "ci"]);

        let list = sim.call("GET", scope, None);
        assert_eq!(
            (list.status, list.json()["total_count"].as_u64()),
            (200, Some(1))
        );
        let path = format!("{scope}/{}", runner["id"]);
        assert_eq!(sim.call("GET", &path, None).json(), *runner);
        let other = if scope == ORG { REPO } else { ORG };
        let wrong = sim.call("GET", &format!("{other}/{}", runner["id"]), None);
        assert_eq!(wrong.status, 404);
        assert_eq!(sim.call("DELETE", &path, None).status, 204);
        assert_eq!(sim.call("DELETE", &path, None).status, 404);
        assert_eq!(sim.call("GET", &path, None).status, 404);
    }
}

#[test]
fn a_jit_config_has_the_shape_of_githubs() {
    let sim = Sim::start();
    let minted = sim.mint("r1", &["ci"]).json();
    let files =
        github_sim::jit_config::decode(minted["encoded_jit_config"].as_str().unwrap()).unwrap();
    let runner: Value = serde_json::from_slice(&files[".runner"]).unwrap();
    assert_eq!(runner["AgentId"], minted["runner"]["id"].to_string());
    assert_eq!(runner["AgentName"], "r1");
    assert_eq!(runner["Ephemeral"], "True");
    assert_eq!(runner["DisableUpdate"], "True");
    assert_eq!(runner["WorkFolder"], "_work");
    assert_eq!(runner["ServerUrlV2"], format!("{}/broker/", sim.url()));
    let credentials: Value = serde_json::from_slice(&files[".credentials"]).unwrap();
    assert_eq!(credentials["Scheme"], "OAuth");
    assert!(files[".credentials_rsaparams"].len() > 1000);
}

#[test]
fn an_invalid_mint_is_refused() {
    let sim = Sim::start();
    let long = "x".repeat(65);
    let set = |key: &'static str, value: Value| -> Change { Box::new(move |b| b[key] = value) };
    let cases: Vec<(u16, &str, Change)> = vec![
        (422, "long name", set("name", json!(long))),
        (422, "empty name", set("name", json!(""))),
        (422, "odd name", set("name", json!("a/b"))),
        (422, "number as name", set("name", json!(7))),
        (422, "no labels", set("labels", json!([]))),
        (
            422,
            "101 labels",
            set(
                "labels",
                json!((0..101).map(|n| n.to_string()).collect::<Vec<_>>()),
            ),
        ),
        (422, "empty label", set("labels", json!(["ci", " "]))),
        (422, "label with comma", set("labels", json!(["a,b"]))),
        (422, "group as text", set("runner_group_id", json!("1"))),
        (422, "unknown key", set("group", json!(1))),
        (422, "empty work folder", set("work_folder", json!(""))),
        (404, "unknown group", set("runner_group_id", json!(99))),
        (403, "hosted group", set("runner_group_id", json!(2))),
    ];
    for (status, what, change) in cases {
        let answer = mint_with(&sim, change);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(answer.json()["message"].is_string(), "{what}");
    }
    let mut body = mint_body();
    body["runner_group_id"] = json!(2);
    let path = format!("{REPO}/generate-jitconfig");
    assert_eq!(
        sim.call("POST", &path, Some(&body)).status,
        404,
        "a repository has group 1 only"
    );
    for text in ["{", "", "[]", "\"x\""] {
        let answer = sim.call_with("POST", &path, &[], Some(text)).unwrap();
        assert_eq!(answer.status, 400, "{text}: {answer:?}");
    }
}

#[test]
fn a_name_can_be_registered_once_in_a_scope() {
    let sim = Sim::start();
    assert_eq!(sim.mint("r1", &["ci"]).status, 201);
    let again = sim.mint("R1", &["ci"]);
    assert_eq!(again.status, 409);
    assert!(again.text.contains("Already exists"));
    let path = format!("{REPO}/generate-jitconfig");
    assert_eq!(
        sim.call("POST", &path, Some(&mint_body())).status,
        201,
        "another scope"
    );
}

#[test]
fn a_full_group_refuses_a_mint() {
    let sim = Sim::with(Settings {
        group_capacity: 1,
        ..Settings::default()
    });
    assert_eq!(sim.mint("r1", &["ci"]).status, 201);
    let full = sim.mint("r2", &["ci"]);
    assert_eq!(full.status, 422);
    assert!(full.text.contains("max limit of 1 runners"));
}

#[test]
fn a_call_needs_a_token_a_user_agent_and_known_versions() {
    let sim = Sim::start();
    let get = |headers: &[(&str, &str)]| sim.call_with("GET", ORG, headers, None).unwrap();
    let bad = get(&[("authorization", "Bearer nonsense")]);
    assert_eq!(bad.status, 401);
    assert_eq!(bad.json()["message"], "Bad credentials");
    assert_eq!(bad.json()["status"], "401");
    assert_eq!(get(&[("authorization", "")]).status, 401);
    assert_eq!(get(&[("user-agent", "")]).status, 403);
    assert_eq!(get(&[("x-github-api-version", "2020-01-01")]).status, 400);
    assert_eq!(get(&[("x-github-api-version", "")]).status, 200);
    assert_eq!(get(&[("x-github-api-version", "2026-03-10")]).status, 200);
    assert_eq!(get(&[("accept", "text/html")]).status, 415);
    assert_eq!(get(&[("accept", "")]).status, 200);
    assert_eq!(get(&[("accept", "application/json")]).status, 200);

    sim.control().rotate_token("fresh");
    assert_eq!(get(&[]).status, 401);
    assert_eq!(get(&[("authorization", "Bearer fresh")]).status, 200);
}

#[test]
fn unknown_paths_scopes_and_ids_are_not_found() {
    let sim = Sim::start();
    for path in [
        "/",
        "/orgs/other/actions/runners",
        "/repos/acme/gears/actions/runners",
        "/orgs/acme/actions/runners/abc",
        "/orgs/acme/actions/runners/99999999999999999999999",
        "/orgs/acme/actions/runners/7",
    ] {
        let answer = sim.call("GET", path, None);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.header("x-github-request-id").is_empty());
    }
    let answer = sim.call("GET", "/orgs/other/actions/runners", None);
    assert_eq!(
        answer.header("x-accepted-github-permissions"),
        "organization_self_hosted_runners=write"
    );
    assert_eq!(
        sim.call("GET", &format!("{ORG}?perpage=3"), None).status,
        422
    );
    assert_eq!(
        sim.call("GET", &format!("{ORG}?per_page=x"), None).status,
        422
    );
}

#[test]
fn a_busy_runner_cannot_be_deleted() {
    let sim = Sim::start();
    let busy = plant(&sim, "theirs", true);
    let answer = sim.call("DELETE", &format!("{ORG}/{busy}"), None);
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.text.contains("still running a job"));
    assert!(sim.control().delete_runner(busy), "an operator can");
    assert_eq!(sim.call("GET", &format!("{ORG}/{busy}"), None).status, 404);
}

#[test]
fn a_planted_runner_does_not_get_a_job() {
    let sim = Sim::start();
    plant(&sim, "theirs", false);
    let job = sim
        .control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    assert_eq!(sim.control().job(job).unwrap().status, JobState::Queued);
    assert!(sim.control().cancel_job(job));
    assert_eq!(sim.control().job(job).unwrap().status, JobState::Completed);
}

/// Returns the names on all pages, by the `next` links.
fn walk(sim: &Sim, path: &str) -> Vec<String> {
    let mut names = vec![];
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let page = sim.call("GET", &path, None);
        assert_eq!(page.status, 200, "{page:?}");
        let json = page.json();
        let runners = json["runners"].as_array().unwrap();
        names.extend(
            runners
                .iter()
                .map(|r| r["name"].as_str().unwrap().to_owned()),
        );
        next = page
            .header("link")
            .split(", ")
            .find(|link| link.ends_with("rel=\"next\""))
            .map(|link| link[1..link.find('>').unwrap()].replace(sim.url(), ""));
    }
    names
}

#[test]
fn pages_link_to_each_other() {
    let sim = Sim::start();
    for n in 0..250 {
        plant(&sim, &format!("r{n:03}"), false);
    }
    let first = sim.call("GET", ORG, None);
    assert_eq!(first.json()["runners"].as_array().unwrap().len(), 30);
    let capped = sim.call("GET", &format!("{ORG}?per_page=1000&page=2"), None);
    assert_eq!(capped.json()["runners"].as_array().unwrap().len(), 100);
    for rel in ["first", "prev", "next", "last"] {
        assert!(
            capped.header("link").contains(&format!("rel=\"{rel}\"")),
            "{rel}"
        );
    }
    let names = walk(&sim, &format!("{ORG}?per_page=100"));
    assert_eq!(names.len(), 250);
    let one = sim.call("GET", &format!("{ORG}?name=r007"), None).json();
    assert_eq!(
        (&one["total_count"], &one["runners"][0]["name"]),
        (&json!(1), &json!("r007"))
    );

    sim.control()
        .change_settings(|s| s.paging_fault = PagingFault::Skip);
    assert_eq!(walk(&sim, &format!("{ORG}?per_page=100")).len(), 248);
    sim.control()
        .change_settings(|s| s.paging_fault = PagingFault::Repeat);
    assert_eq!(walk(&sim, &format!("{ORG}?per_page=100")).len(), 252);
}

#[test]
fn a_conditional_list_costs_nothing() {
    let sim = Sim::start();
    let first = sim.call("GET", ORG, None);
    assert!(first.header("etag").starts_with("W/\""));
    assert_eq!(first.header("x-ratelimit-used"), "1");
    let tag = [("if-none-match", first.header("etag"))];
    let second = sim.call_with("GET", ORG, &tag, None).unwrap();
    assert_eq!((second.status, second.text.as_str()), (304, ""));
    assert_eq!(second.header("x-ratelimit-used"), "1");
    plant(&sim, "new", false);
    let third = sim.call_with("GET", ORG, &tag, None).unwrap();
    assert_eq!((third.status, third.header("x-ratelimit-used")), (200, "2"));
    assert_eq!(sim.control().stats().answers("list", 304), 1);
    assert!(sim.control().stats().requests[1].conditional);
}

#[test]
fn a_list_lag_hides_a_new_runner() {
    let sim = Sim::with(Settings {
        list_lag_ms: 3_600_000,
        ..Settings::default()
    });
    let id = sim.mint("r1", &["ci"]).json()["runner"]["id"].clone();
    assert_eq!(sim.call("GET", ORG, None).json()["total_count"], 0);
    assert_eq!(sim.call("GET", &format!("{ORG}/{id}"), None).status, 200);
}

#[test]
fn an_empty_bucket_refuses_calls_and_counts_further_ones() {
    let sim = Sim::with(Settings {
        rate_limit: 2,
        ..Settings::default()
    });
    for left in ["1", "0"] {
        let answer = sim.call("GET", ORG, None);
        assert_eq!(
            (answer.status, answer.header("x-ratelimit-remaining")),
            (200, left)
        );
    }
    for _ in 0..2 {
        let refused = sim.call("GET", ORG, None);
        assert_eq!(refused.status, 403);
        assert!(refused.text.contains("API rate limit exceeded"));
        assert_eq!(refused.header("x-ratelimit-remaining"), "0");
        assert!(refused.header("x-ratelimit-reset").parse::<u64>().unwrap() > 1_700_000_000);
    }
    assert_eq!(sim.mint("r1", &["ci"]).status, 201, "another bucket");
    let limits = sim.call("GET", "/rate_limit", None).json();
    assert_eq!(limits["resources"]["core"]["remaining"], 0);
    assert_eq!(
        limits["resources"]["actions_runner_registration"]["used"],
        1
    );
    assert_eq!(sim.control().stats().while_limited, 2);
}

#[test]
fn a_burst_of_mints_meets_the_secondary_limit() {
    let sim = Sim::with(Settings {
        secondary_limits: true,
        points_per_minute: 10,
        ..Settings::default()
    });
    assert_eq!(sim.mint("r1", &["ci"]).status, 201);
    assert_eq!(sim.mint("r2", &["ci"]).status, 201);
    let refused = sim.mint("r3", &["ci"]);
    assert_eq!((refused.status, refused.header("retry-after")), (403, "60"));
    assert!(refused.text.contains("secondary rate limit"));
}

#[test]
fn too_many_calls_at_once_meet_the_secondary_limit() {
    let sim = Sim::with(Settings {
        secondary_limits: true,
        concurrent_calls: 1,
        ..Settings::default()
    });
    let slow = FaultRule::on(Endpoint::List, 1, Fault::Delay { ms: 1000 });
    sim.control().add_faults([slow]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| sim.call("GET", ORG, None).status);
        while sim.control().faults()[0].times == Some(1) {
            std::thread::yield_now();
        }
        assert_eq!(sim.call("GET", ORG, None).status, 403);
        assert_eq!(first.join().unwrap(), 200);
    });
}

#[test]
fn groups_are_paged_and_filtered() {
    let sim = Sim::start();
    let groups = "/orgs/acme/actions/runner-groups";
    let all = sim.call("GET", groups, None);
    assert_eq!(all.status, 200, "{all:?}");
    assert_eq!(all.json()["runner_groups"][0]["name"], "Default");
    assert_eq!(all.json()["runner_groups"][0]["default"], true);
    let page = sim.call("GET", &format!("{groups}?per_page=1&page=2"), None);
    assert_eq!(page.json()["runner_groups"][0]["id"], 2);
    let selected = json!({"groups": [
        {"id": 1, "name": "Default"},
        {"id": 7, "name": "secret", "visibility": "selected", "repositories": ["gears"]},
    ]});
    assert_eq!(
        sim.call("POST", "/_sim/settings", Some(&selected)).status,
        200
    );
    let count = |repo: &str| {
        let path = format!("{groups}?visible_to_repository={repo}");
        sim.call("GET", &path, None).json()["total_count"].clone()
    };
    assert_eq!((count("gears"), count("widgets")), (json!(2), json!(1)));
    assert_eq!(sim.call("GET", "/meta", None).status, 200);
}

#[test]
fn a_version_has_the_dates_of_its_refusal() {
    let sim = Sim::start();
    let dates = |version: &str| {
        let path = format!("{ORG}/deprecations/{version}");
        sim.call("GET", &path, None)
    };
    assert_eq!(dates("2.334.0").status, 404);
    let settings = json!({"runner_versions": {
        "2.334.0": {"runtime_deprecates_at": "2026-12-04T00:00:00Z"},
        "2.338.2": {},
    }});
    let set = |settings: &serde_json::Value| {
        let answer = sim.call("POST", "/_sim/settings", Some(settings));
        answer.status
    };
    assert_eq!(set(&settings), 200);
    let old = dates("2.334.0");
    assert_eq!(old.status, 200, "{old:?}");
    assert_eq!(
        old.json(),
        json!({
            "runner_version": "2.334.0",
            "registration_deprecates_at": null,
            "runtime_deprecates_at": "2026-12-04T00:00:00Z",
        })
    );
    assert_eq!(
        dates("2.338.2").json()["runtime_deprecates_at"],
        json!(null)
    );
    // The server gives no answer that GitHub cannot give.
    let wrong = json!({"runner_versions": {"2.334.0": {"runtime_deprecates_at": 17}}});
    assert_ne!(set(&wrong), 200);
}

#[test]
fn a_token_of_one_scope_is_refused_in_others() {
    let sim = Sim::start();
    let tokens = [("acme/widgets", "of_widgets"), ("acme", "of_acme")];
    let set = |tokens: &[(&str, &str)]| {
        sim.control()
            .set_scope_tokens(tokens.iter().map(|(scope, token)| ScopeToken {
                scope: scope.parse().unwrap(),
                token: (*token).into(),
            }));
    };
    let ask = |method: &str, path: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let body = (method == "POST").then(|| mint_body().to_string());
        let headers = [("authorization", bearer.as_str())];
        let answer = sim.call_with(method, path, &headers, body.as_deref());
        let answer = answer.unwrap();
        let message = if answer.status < 400 {
            String::new()
        } else {
            answer.json()["message"].as_str().unwrap().to_owned()
        };
        (answer.status, message)
    };
    set(&tokens);
    assert_eq!(ask("GET", REPO, "of_widgets").0, 200);
    assert_eq!(ask("GET", ORG, "of_acme").0, 200);
    let mint = |of: &str| format!("{of}/generate-jitconfig");
    assert_eq!(ask("POST", &mint(REPO), "of_widgets").0, 201);
    let hidden = (404, "Not Found".to_owned());
    let message = "Resource not accessible by personal access token";
    let forbidden = (403, message.to_owned());
    for (method, repo, org) in [
        ("GET", REPO.to_owned(), ORG.to_owned()),
        ("POST", mint(REPO), mint(ORG)),
    ] {
        assert_eq!(ask(method, &repo, "of_acme"), hidden);
        assert_eq!(ask(method, &org, "of_widgets"), forbidden);
    }
    assert_eq!(ask("GET", "/rate_limit", "of_acme").0, 200);
    // A token of every scope works beside them, and its rotation leaves them.
    assert_eq!(sim.call("GET", ORG, None).status, 200);
    sim.control().rotate_token("another");
    assert_eq!(ask("GET", ORG, "of_acme").0, 200);
    set(&[("acme", "of_acme_2")]);
    assert_eq!(
        ask("GET", ORG, "of_acme"),
        (401, "Bad credentials".to_owned())
    );
    assert_eq!(ask("GET", ORG, "of_acme_2").0, 200);
    assert_eq!(ask("GET", REPO, "of_widgets").0, 200);
}
