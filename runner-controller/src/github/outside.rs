//! Entry points for [`crate::outside`], which tries any bytes.

use std::time::{Duration, Instant, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use url::Url;

use super::app::Access;
use super::budget::{Budget, LimitHeaders};
use super::context::Context;
use super::jit::{self, Content};
use super::operation::Operation;
use super::registry::JitConfigAnswer;
use super::secrets::Secrets;
use super::token::Token;
use super::{groups, link, listing, refusal, version};
use crate::pool::{HostId, RunnerName};
use crate::world::ListedRunner;

/// A token that is long enough to be found in messages.
const TOKEN: &str = "ghp_outside_of_everything";

/// Reads a body as the answer to each operation, and as a JIT config.
#[expect(clippy::expect_used, reason = "a check that fails panics")]
pub(crate) fn try_answer(body: &[u8]) {
    let host: HostId = "h".parse().expect("a host");
    if let Some(list) = read_by_octocrab::<listing::Body>(body) {
        for runner in list.runners.into_iter().map(ListedRunner::from) {
            if let Some(name) = RunnerName::parse(&host, &runner.name) {
                assert_eq!(name.to_string(), runner.name);
            }
        }
    }
    if let Some(page) = read_by_octocrab::<groups::Body>(body) {
        let _ = groups::find(&page.runner_groups, "Default");
    }
    if let Some(dates) = read_by_octocrab::<version::Dates>(body) {
        let _ = dates.read("2.336.0".parse().expect("a version"));
    }
    if let Some(made) = read_by_octocrab::<JitConfigAnswer>(body) {
        let _ = jit::read(&made.encoded_jit_config);
    }
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = jit::read(text);
    }
    // The same bytes as the file inside, which no mutation finds through two layers of base64.
    let files = serde_json::json!({ ".runner": BASE64_STANDARD.encode(body) });
    match jit::read(&BASE64_STANDARD.encode(files.to_string())) {
        // An escape may make a name shorter than its bytes, but never longer.
        Content::Names(name) => assert!(!body.is_empty() && name.len() <= body.len()),
        Content::Nameless => assert!(!body.is_empty()),
        Content::Opaque => {}
    }
}

fn read_by_octocrab<T: octocrab::FromResponse>(body: &[u8]) -> Option<T> {
    let body = Full::new(Bytes::copy_from_slice(body)).map_err(|never| match never {});
    let read = T::from_response(http::Response::new(body)).now_or_never();
    read.and_then(Result::ok)
}

/// Reads a refusal: a line with the status, header lines, an empty line, the body.
#[expect(clippy::expect_used, reason = "a check that fails panics")]
pub(crate) fn try_refusal(bytes: &[u8]) {
    let Some((status, headers, body)) = read_answer(bytes) else {
        return;
    };
    let limits = LimitHeaders::read(&headers, SystemTime::UNIX_EPOCH);
    let limit = refusal::limit_of(status, &limits, body);
    let context = Context {
        login: crate::config::LoginConfig::Token {
            file: "/run/token".into(),
        },
        table: "github".into(),
        scope: "acme/widgets".into(),
        access: Access::Runners,
        secrets: Secrets::of(Token::new(TOKEN).expect("a token")),
    };
    let now = Instant::now();
    let mut budget = Budget::default();
    for operation in [
        Operation::Mint,
        Operation::List,
        Operation::Find,
        Operation::Delete,
        Operation::Groups,
    ] {
        // Two in a row, because the second waits longer.
        budget.observe_refusal(operation, &limits, now);
        let _ = budget.observe(operation, &limits, limit, now);
        let limited = budget.observe(operation, &limits, limit, now);
        let longest = Duration::from_hours(2);
        assert!(limited.is_none_or(|wait| wait <= longest), "{limited:?}");
        if let Err(withheld) = budget.admit(operation, now) {
            assert!(withheld.wait <= longest, "{withheld:?}");
        }
        let error = refusal::translate(operation, status, &headers, body, limited, &context);
        for text in [Some(&error.message), error.advice.as_ref()] {
            let text = text.map_or("", String::as_str);
            assert!(
                !text.contains(TOKEN) && !text.contains(char::is_control),
                "{text:?}"
            );
            assert!(text.chars().count() <= 1000, "{text:?}");
        }
    }
    let _ = budget.quotas(now);
    let here: Url = "https://api.example/orgs/acme?page=1"
        .parse()
        .expect("a URL");
    let location = headers
        .get("location")
        .and_then(|value| value.to_str().ok());
    for target in link::next(&headers)
        .iter()
        .map(String::as_str)
        .chain(location)
    {
        if let Ok(url) = link::resolve(&here, target) {
            assert_eq!(url.origin(), here.origin());
        }
    }
}

fn read_answer(bytes: &[u8]) -> Option<(StatusCode, HeaderMap, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = StatusCode::from_bytes(lines.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        headers.append(name, value);
    }
    Some((status, headers, body))
}
