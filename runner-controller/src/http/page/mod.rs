//! The page: the status for a browser, as one HTML document that loads nothing else.
//!
//! `/` is the whole document. `/events` keeps it live: server-sent events with the document's main part. The page
//! has no button, because browsers may not send commands.
//!
//! - `document`: the status as HTML
//! - `events`: the stream

mod document;
mod events;

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::status::Status;
pub(super) use events::{Streams, events};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Content security policy (CSP level 3): the document's own style and script by their digests, and its stream.
/// A name of a job that got past the escaping could neither run nor load anything.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest(STYLE),
        digest(SCRIPT)
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Returns the page.
pub(super) fn page(status: &Status, now_unix_ms: u64) -> Response {
    let html = document::document(status, now_unix_ms, STYLE, SCRIPT);
    let mut answer = Html(html).into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(any(test, fuzzing))]
pub(super) use document::try_document;

#[cfg(test)]
mod tests;
