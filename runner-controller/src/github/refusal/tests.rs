use std::time::{Duration, SystemTime};

use super::super::app::Access;
use super::super::secrets::Secrets;
use super::super::token::Token;
use super::*;

fn context() -> Context {
    Context {
        login: crate::config::LoginConfig::Token {
            file: "/etc/token".into(),
        },
        table: "github".into(),
        scope: "acme/widgets".into(),
        access: Access::Runners,
        secrets: Secrets::of(Token::new("ghp_secret").unwrap()),
    }
}

fn refused(
    operation: Operation,
    status: u16,
    pairs: &[(&'static str, &str)],
    body: &str,
) -> RegistryError {
    let status = StatusCode::from_u16(status).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(*name, value.parse().unwrap());
    }
    let limits = LimitHeaders::read(&headers, SystemTime::UNIX_EPOCH);
    let limited = match limit_of(status, &limits, body.as_bytes()) {
        Limit::None => None,
        Limit::Primary | Limit::Secondary => Some(Duration::from_mins(1)),
    };
    translate(
        operation,
        status,
        &headers,
        body.as_bytes(),
        limited,
        &context(),
    )
}

#[test]
fn every_status_has_its_kind() {
    use RegistryErrorKind as Kind;
    for (operation, status, kind) in [
        (Operation::Mint, 401, Kind::Unauthorized),
        (Operation::Mint, 403, Kind::Forbidden),
        (Operation::Mint, 404, Kind::NotFound),
        (Operation::Mint, 409, Kind::NameTaken),
        (Operation::List, 409, Kind::Server),
        (Operation::Mint, 422, Kind::Invalid),
        (Operation::Mint, 400, Kind::Invalid),
        (Operation::List, 302, Kind::Invalid),
        (Operation::Mint, 429, Kind::Limited),
        (Operation::Mint, 408, Kind::Server),
        (Operation::Mint, 500, Kind::Server),
        (Operation::Mint, 502, Kind::Server),
        (Operation::Mint, 503, Kind::Server),
    ] {
        let error = refused(operation, status, &[], r#"{"message":"x"}"#);
        assert_eq!(error.kind, kind, "{operation:?} {status}");
        assert_eq!(error.status, Some(status));
    }
}

#[test]
fn the_text_of_a_403_tells_a_limit_from_a_permission() {
    let none_left: &[(&str, &str)] = &[("x-ratelimit-remaining", "0")];
    let kind = |headers, message: &str| {
        let body = format!(r#"{{"message":"{message}"}}"#);
        refused(Operation::Mint, 403, headers, &body).kind
    };
    assert_eq!(
        kind(none_left, "Resource not accessible by integration"),
        RegistryErrorKind::Forbidden
    );
    assert_eq!(
        kind(none_left, "API rate limit exceeded for user ID 1."),
        RegistryErrorKind::Limited
    );
    assert_eq!(
        kind(&[], "You have exceeded a secondary rate limit."),
        RegistryErrorKind::Limited
    );
    assert_eq!(
        kind(&[("retry-after", "5")], "wait"),
        RegistryErrorKind::Limited
    );
    assert_eq!(kind(&[], "no"), RegistryErrorKind::Forbidden);
}

#[test]
fn advice_says_what_to_change() {
    let advice = |status, headers: &[(&'static str, &str)], message: &str| {
        let body = serde_json::json!({ "message": message }).to_string();
        let error = refused(Operation::Mint, status, headers, &body);
        error.advice.unwrap_or_default()
    };
    assert!(advice(401, &[], "Bad credentials").contains("/etc/token"));
    let accepted = [("x-accepted-github-permissions", "administration=write")];
    assert!(
        advice(403, &accepted, "Resource not accessible by integration")
            .contains("administration=write")
    );
    for (message, word) in [
        (
            "Repository level self-hosted runners are disabled",
            "organisation",
        ),
        (
            "GitHub Actions is disabled on this repository",
            "enable Actions",
        ),
        (
            "Although you appear to have the correct authorization credentials, the `acme` organization has an IP allow list enabled, and your IP address is not permitted to access this resource.",
            "allow list",
        ),
        (
            "Resource not accessible by integration",
            "Administration: write",
        ),
    ] {
        let advice = advice(403, &[], message);
        assert!(advice.contains(word), "{message}: {advice}");
    }
    assert!(advice(404, &[], "Not Found").contains("github.url"));
    assert!(advice(422, &[], "max limit of 10000 runners").contains("cleanup-github-runners"));
    assert!(advice(409, &[], "Already exists").contains("new name"));
    let moved = [("location", "https://elsewhere.example/x")];
    assert!(advice(301, &moved, "").contains("elsewhere.example"));
}

#[test]
fn a_message_is_one_bounded_line_without_the_token() {
    let long = "x".repeat(5_000);
    let body = serde_json::json!({ "message": format!("a\u{1b}[31m\nb ghp_secret {long}") });
    let error = refused(Operation::List, 500, &[], &body.to_string());
    assert!(error.message.starts_with("HTTP 500: a [31m b [token] xxx"));
    assert!(error.message.chars().count() <= 301);
}

#[test]
fn the_details_of_a_422_are_kept() {
    let body = r#"{"message":"Validation Failed","errors":["labels is empty",{"field":"name","code":"invalid"},{"message":"m"}]}"#;
    let error = refused(Operation::Mint, 422, &[], body);
    assert_eq!(
        error.message,
        "HTTP 422: Validation Failed; labels is empty; name invalid; m"
    );
}

#[test]
fn a_proxys_page_is_described_and_not_quoted() {
    let page =
        "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>…</body></html>";
    let error = refused(Operation::List, 502, &[], page);
    assert_eq!(error.message, "HTTP 502: a web page, \"502 Bad Gateway\"");
    let error = refused(Operation::List, 502, &[], "");
    assert_eq!(error.message, "HTTP 502: Bad Gateway");
}

#[test]
fn the_request_id_is_kept_if_it_looks_like_one() {
    let with = |id| refused(Operation::List, 500, &[("x-github-request-id", id)], "{}").request_id;
    assert_eq!(with("A1:B2").as_deref(), Some("A1:B2"));
    assert_eq!(with("a b"), None);
}

#[test]
fn an_advice_names_the_keys_of_the_scope_that_it_is_about() {
    let context = Context {
        table: "scopes.widgets".into(),
        ..context()
    };
    let texts = [
        context
            .unreachable(Operation::List, "certificate unknown")
            .advice,
        context
            .misshapen(
                Operation::List,
                StatusCode::OK,
                &HeaderMap::new(),
                "no list",
            )
            .advice,
        advice(
            Operation::List,
            RegistryErrorKind::NotFound,
            StatusCode::NOT_FOUND,
            "not found",
            &HeaderMap::new(),
            &context,
        ),
        advice(
            Operation::Mint,
            RegistryErrorKind::Forbidden,
            StatusCode::FORBIDDEN,
            "repository was archived",
            &HeaderMap::new(),
            &context,
        ),
    ];
    for text in texts {
        let text = text.unwrap();
        assert!(text.contains("scopes.widgets."), "{text}");
        assert!(!text.contains("github.") && !text.contains('{'), "{text}");
    }
}
