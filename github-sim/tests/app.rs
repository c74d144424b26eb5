//! GitHub Apps: the check of a JWT, installations, and their tokens.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{Answer, Sim, app_jwt as jwt, app_jwt_of as jwt_of, now};
use github_sim::Settings;
use serde_json::{Value, json};

const REPO: &str = "/repos/acme/widgets";
const ORG: &str = "/orgs/acme";

fn with(sim: &Sim, bearer: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let bearer = format!("Bearer {bearer}");
    let text = body.map(ToString::to_string);
    sim.call_with(method, path, &[("authorization", &bearer)], text.as_deref())
        .unwrap()
}

fn token(sim: &Sim, body: Option<&Value>) -> Answer {
    let found = with(sim, &jwt(), "GET", &format!("{ORG}/installation"), None);
    assert_eq!(found.status, 200, "{found:?}");
    let path = format!("/app/installations/{}/access_tokens", found.json()["id"]);
    with(sim, &jwt(), "POST", &path, body)
}

fn list(sim: &Sim, bearer: &str, scope: &str) -> Answer {
    with(
        sim,
        bearer,
        "GET",
        &format!("{scope}/actions/runners"),
        None,
    )
}

#[test]
fn an_installation_gives_a_token_that_works_in_its_account() {
    let sim = Sim::start();
    let given = token(&sim, None);
    assert_eq!(given.status, 201, "{given:?}");
    let text = given.json()["token"].as_str().unwrap().to_owned();
    assert!(text.starts_with("ghs_123456_") && text.len() > 400);
    for scope in [REPO, ORG] {
        assert_eq!(list(&sim, &text, scope).status, 200);
    }
    // A token does not replace a JWT, nor a JWT a token.
    let path = format!("{REPO}/installation");
    assert_eq!(with(&sim, &text, "GET", &path, None).status, 401);
    assert_eq!(list(&sim, &jwt(), REPO).status, 401);
}

#[test]
fn a_jwt_of_another_app_or_time_is_refused() {
    let sim = Sim::start();
    let (header, good) = (
        json!({"alg": "RS256", "typ": "JWT"}),
        json!({"iss": "Iv23liSTANDIN", "iat": now() - 60, "exp": now() + 540}),
    );
    let path = format!("{REPO}/installation");
    let ask = |jwt: &str| with(&sim, jwt, "GET", &path, None);
    assert_eq!(ask(&jwt_of(&header, &good)).status, 200);
    for (key, value, said) in [
        ("iss", json!(7), "Issuer"),
        ("iat", json!(now() + 300), "Issued at"),
        ("iat", json!(null), "Issued at"),
        ("exp", json!(now() - 1), "Expiration time"),
        ("exp", json!(now() + 900), "too far"),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let refused = ask(&jwt_of(&header, &bad));
        assert_eq!(refused.status, 401, "{bad}");
        assert!(refused.text.contains(said), "{refused:?}");
    }
    assert_eq!(ask(&jwt_of(&json!({"alg": "none"}), &good)).status, 401);
    let mut forged = jwt_of(&header, &good);
    forged.truncate(forged.len() - 8);
    assert_eq!(ask(&format!("{forged}AAAAAAAA")).status, 401);
    assert_eq!(ask("a.b").status, 401);
}

#[test]
fn a_narrowed_token_opens_only_its_repositories() {
    let sim = Sim::start();
    let narrow = json!({"repositories": ["widgets"], "permissions": {"administration": "write"}});
    let text = token(&sim, Some(&narrow)).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(list(&sim, &text, REPO).status, 200);
    let refused = list(&sim, &text, ORG);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.text.contains("not accessible by integration"));
    for bad in [
        json!({"repositories": ["nothing"]}),
        json!({"permissions": {"contents": "write"}}),
        json!({"permission": {}}),
    ] {
        assert_eq!(token(&sim, Some(&bad)).status, 422, "{bad}");
    }
    let elsewhere = "/app/installations/7/access_tokens";
    assert_eq!(with(&sim, &jwt(), "POST", elsewhere, None).status, 404);
}

#[test]
fn an_expired_token_and_a_suspended_installation_are_refused() {
    let sim = Sim::with(Settings {
        app_token_ms: 0,
        ..Settings::default()
    });
    let text = token(&sim, None).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(list(&sim, &text, REPO).status, 401);

    sim.control()
        .change_settings(|settings| settings.app_token_ms = 60_000);
    let text = token(&sim, None).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(list(&sim, &text, REPO).status, 200);
    sim.control()
        .change_settings(|settings| settings.app_suspended = true);
    assert_eq!(list(&sim, &text, REPO).status, 403);
    assert_eq!(token(&sim, None).status, 403);
}

#[test]
fn the_tokens_of_an_installation_share_its_limits() {
    let sim = Sim::start();
    let one = token(&sim, None).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let two = token(&sim, None).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    list(&sim, &one, REPO);
    let used = list(&sim, &two, REPO);
    assert_eq!(used.header("x-ratelimit-used"), "2");
}

#[test]
fn a_token_reads_runs_only_with_the_permission_for_actions() {
    let sim = Sim::start();
    let runs = |bearer: &Answer| {
        let bearer = bearer.json()["token"].as_str().unwrap().to_owned();
        with(&sim, &bearer, "GET", &format!("{REPO}/actions/runs"), None)
    };
    let refused = runs(&token(&sim, None));
    assert_eq!(refused.status, 403);
    assert_eq!(
        refused.header("x-accepted-github-permissions"),
        "actions=read"
    );
    sim.control().change_settings(|settings| {
        settings
            .app_permissions
            .insert("actions".into(), "read".into());
    });
    assert_eq!(runs(&token(&sim, None)).status, 200);
}
