//! Tokens of the service, and what each call must have.

use serde_json::json;

use crate::client::{Client, JSON, SETS, VERSION, exchange, kind, quick, registration_token, with};
use crate::common::Sim;

#[test]
fn an_admin_token_costs_a_registration_token_of_the_same_scope() {
    let sim = Sim::start();
    let token = registration_token(&sim, "acme");
    let good = format!("RemoteAuth {token}");
    assert_eq!(exchange(&sim, &good, "acme").status, 200);
    assert_eq!(exchange(&sim, &good, "Acme/").status, 200);
    for (authorization, scope, status) in [
        (good.as_str(), "acme/widgets", 404),
        (good.as_str(), "other", 404),
        ("RemoteAuth nonsense", "acme", 401),
        (&format!("Bearer {token}"), "acme", 401),
        (&format!("RemoteAuth {}", sim.token()), "acme", 401),
    ] {
        let refused = exchange(&sim, authorization, scope);
        assert_eq!(refused.status, status, "{authorization} {scope}");
    }
}

#[test]
fn a_registration_needs_its_two_fields_and_no_other() {
    let sim = Sim::start();
    let authorization = format!("RemoteAuth {}", registration_token(&sim, "acme"));
    let url = format!("{}/acme", sim.url());
    for (body, kind, status) in [
        (json!({"url": url}), JSON, 400),
        (
            json!({"url": url, "runner_event": "register", "x": 1}),
            JSON,
            400,
        ),
        (json!({"url": url, "runner_event": "remove"}), JSON, 422),
        (
            json!({"url": url, "runner_event": "register"}),
            ("content-type", "text/plain"),
            415,
        ),
    ] {
        let headers = [("authorization", authorization.as_str()), kind];
        let path = "/actions/runner-registration";
        let answer = sim.call_with("POST", path, &headers, Some(&body.to_string()));
        assert_eq!(answer.unwrap().status, status, "{body}");
    }
}

#[test]
fn expired_tokens_are_refused() {
    let sim = Sim::with(with(|service| service.registration_token_ms = 0));
    let token = registration_token(&sim, "acme");
    let refused = exchange(&sim, &format!("RemoteAuth {token}"), "acme");
    assert_eq!(refused.status, 401);

    let sim = Sim::with(quick());
    let client = Client::connected(&sim, "acme");
    let list = format!("{SETS}?runnerGroupId=1");
    assert_eq!(client.call("GET", &list, None).status, 200);
    sim.control().expire_admin_tokens();
    let refused = client.call("GET", &list, None);
    assert_eq!(
        (refused.status, kind(&refused).as_str()),
        (401, "UnauthorizedRequestException")
    );
    let again = Client::connected(&sim, "acme");
    assert_eq!(again.call("GET", &list, None).status, 200);
}

#[test]
fn a_call_needs_the_version_and_no_unknown_parameter() {
    let sim = Sim::start();
    let client = Client::connected(&sim, "acme");
    let list = format!("/rest{SETS}");
    for (query, status) in [
        (format!("?runnerGroupId=1&{VERSION}"), 200),
        ("?runnerGroupId=1".to_owned(), 400),
        ("?runnerGroupId=1&api-version=5.0".to_owned(), 400),
        (format!("?{VERSION}"), 400),
        (format!("?runnerGroupId=one&{VERSION}"), 400),
        (format!("?runnerGroupId=1&label=x&{VERSION}"), 400),
    ] {
        let answer = client.bare("GET", &format!("{list}{query}"), None);
        assert_eq!(answer.status, status, "{query}");
    }
    let body = json!({"name": "a"}).to_string();
    let bearer = format!("Bearer {}", client.token);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "text/plain"),
    ];
    let path = format!("{list}?{VERSION}");
    let answer = sim.call_with("POST", &path, &headers, Some(&body)).unwrap();
    assert_eq!(answer.status, 415);
}

#[test]
fn a_scope_does_not_see_the_sets_of_another() {
    let sim = Sim::start();
    let organization = Client::connected(&sim, "acme");
    let repository = Client::connected(&sim, "acme/widgets");
    let set = organization.create("a", &["ci"]);
    let path = format!("{SETS}/{set}");
    assert_eq!(organization.call("GET", &path, None).status, 200);
    for method in ["GET", "DELETE"] {
        let hidden = repository.call(method, &path, None);
        assert_eq!(hidden.status, 404);
        assert_eq!(kind(&hidden), "RunnerScaleSetNotFoundException");
    }
    let list = repository.call("GET", &format!("{SETS}?runnerGroupId=1"), None);
    assert_eq!(list.json(), json!({"count": 0, "value": []}));
    // The name is free in the other scope.
    assert_ne!(repository.create("a", &["ci"]), set);
}

#[test]
fn the_paths_of_an_enterprise_server_lead_to_the_same_endpoints() {
    let sim = Sim::start();
    let path = "/api/v3/orgs/acme/actions/runners/registration-token";
    let token = sim.call("POST", path, None).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let authorization = format!("RemoteAuth {token}");
    let body = json!({"url": format!("{}/acme", sim.url()), "runner_event": "register"});
    let headers = [("authorization", authorization.as_str()), JSON];
    let path = "/api/v3/actions/runner-registration";
    let answer = sim
        .call_with("POST", path, &headers, Some(&body.to_string()))
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(sim.call("GET", "/api/v3/_sim/health", None).status, 404);
    assert_eq!(sim.control().stats().calls_of("admin_token"), 1);
}
