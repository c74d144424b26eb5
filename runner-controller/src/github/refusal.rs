//! The translation of GitHub's refusals into errors that tell the operator what to change.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::budget::{Limit, LimitHeaders};
use super::context::{Context, request_id};
use super::operation::{Operation, Subject};
use crate::config::LoginConfig;
use crate::world::{RegistryError, RegistryErrorKind};

/// Parts of messages of a 403, 404 or 422, with the advice for each; see [`Context::advise`].
const KNOWN: &[(&str, &str)] = &[
    (
        "repository level self-hosted runners are disabled",
        "the organisation forbids runners in repositories; allow them under the organisation's Settings, Actions, Runners, or point {table}.url at the organisation",
    ),
    (
        "github actions is disabled",
        "enable Actions in the settings of the repository or organisation",
    ),
    (
        "actions has been disabled",
        "enable Actions in the settings of the repository or organisation",
    ),
    (
        "ip address is not permitted",
        "the organisation has an IP allow list; add this host's public address to it",
    ),
    (
        "ip allow list",
        "the organisation has an IP allow list; add this host's public address to it",
    ),
    (
        "saml",
        "authorise the token for the organisation's single sign-on, or use an app's token",
    ),
    (
        "installation has been suspended",
        "the App's installation is suspended; unsuspend it in the settings of the organisation or owner, under GitHub Apps",
    ),
    (
        "account was suspended",
        "the account or App behind the token is suspended; use another",
    ),
    (
        "max limit of",
        "the runner group is full; remove offline runners (cleanup-github-runners), or use another group",
    ),
    (
        "archived",
        "the repository is archived and runs no jobs; unarchive it or point {table}.url elsewhere",
    ),
];

/// The body of GitHub's errors. Every part may be missing.
#[derive(Debug, Default, Deserialize)]
struct Body {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    errors: Option<serde_json::Value>,
}

/// Returns the limit that a refusal announces. The text of a 403 is read first, because most are
/// missing permissions, for which waiting does not help.
pub(super) fn limit_of(status: StatusCode, headers: &LimitHeaders, body: &[u8]) -> Limit {
    let message = message_of(body).to_ascii_lowercase();
    let secondary = message.contains("secondary rate limit") || message.contains("abuse detection");
    if status != StatusCode::FORBIDDEN && status != StatusCode::TOO_MANY_REQUESTS {
        Limit::None
    } else if secondary || headers.retry_after.is_some() {
        Limit::Secondary
    } else if message.contains("rate limit exceeded") {
        Limit::Primary
    } else if is_permission(&message) {
        Limit::None
    } else if headers.remaining == Some(0) {
        Limit::Primary
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        Limit::Secondary
    } else {
        Limit::None
    }
}

/// Returns true for refusals that are not limits, whatever the rate-limit headers say.
fn is_permission(lower: &str) -> bool {
    lower.contains("resource not accessible")
        || lower.contains("must have admin")
        || lower.contains("bad credentials")
        || KNOWN.iter().any(|(phrase, _)| lower.contains(phrase))
}

/// Translates an answer that is neither a success nor an expected 304.
pub(super) fn translate(
    operation: Operation,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    limited: Option<std::time::Duration>,
    context: &Context,
) -> RegistryError {
    let message = message_of(body);
    let lower = message.to_ascii_lowercase();
    let kind = if limited.is_some() {
        RegistryErrorKind::Limited
    } else {
        kind_of(operation, status, &lower)
    };
    let message = if message.is_empty() {
        let reason = status.canonical_reason().unwrap_or("no reason given");
        format!("HTTP {}: {reason}", status.as_u16())
    } else {
        format!("HTTP {}: {message}", status.as_u16())
    };
    let retry_after = limited.or_else(|| {
        let clock = std::time::SystemTime::now();
        LimitHeaders::read(headers, clock).retry_after
    });
    RegistryError {
        operation: operation.name(),
        kind,
        status: Some(status.as_u16()),
        message: context.clean(&message),
        advice: advice(operation, kind, status, &lower, headers, context),
        request_id: request_id(headers),
        retry_after,
    }
}

fn kind_of(operation: Operation, status: StatusCode, lower: &str) -> RegistryErrorKind {
    match status.as_u16() {
        401 => RegistryErrorKind::Unauthorized,
        403 => RegistryErrorKind::Forbidden,
        404 | 410 => RegistryErrorKind::NotFound,
        409 if operation == Operation::Mint => RegistryErrorKind::NameTaken,
        // Not documented. A conflict with something in progress passes.
        409 => RegistryErrorKind::Server,
        422 if operation == Operation::Mint && lower.contains("already exists") => {
            RegistryErrorKind::NameTaken
        }
        // A proxy waited too long. GitHub does not say that the request is wrong.
        408 => RegistryErrorKind::Server,
        // A 3xx is a redirect that was not followed, so the configured address is wrong.
        300..=499 => RegistryErrorKind::Invalid,
        _ => RegistryErrorKind::Server,
    }
}

fn advice(
    operation: Operation,
    kind: RegistryErrorKind,
    status: StatusCode,
    lower: &str,
    headers: &HeaderMap,
    context: &Context,
) -> Option<String> {
    let known = KNOWN.iter().find(|(phrase, _)| lower.contains(phrase));
    let Context { scope, table, .. } = context;
    match kind {
        RegistryErrorKind::Unauthorized => Some(match &context.login {
            LoginConfig::Token { file } => format!(
                "the token is wrong, expired or revoked; write a valid token to {} and restart runner-controller, which reads it only at its start",
                file.display()
            ),
            LoginConfig::App { id, key_file } => format!(
                "GitHub refuses App {id}; check that {table}.app.id and the key in {} belong to the same existing App and that this host's clock is right, then restart runner-controller",
                key_file.display()
            ),
        }),
        RegistryErrorKind::Forbidden | RegistryErrorKind::NotFound | RegistryErrorKind::Invalid
            if let Some((_, what)) = known =>
        {
            Some(context.advise(what))
        }
        RegistryErrorKind::Forbidden => Some(needed_permissions(headers, context)),
        RegistryErrorKind::NotFound if matches!(operation, Operation::Find | Operation::Delete) => {
            Some("the runner does not exist any more".to_owned())
        }
        RegistryErrorKind::NotFound => Some(match operation.subject() {
            Subject::Runners | Subject::ScaleSets => format!(
                "{scope} does not exist, or the token cannot see its runners; check {table}.url and {table}.api_url; {}",
                needed_permissions(headers, context)
            ),
            Subject::Version => "GitHub does not know the version".to_owned(),
            Subject::Jobs => format!(
                "the repository does not exist, or the token cannot see its jobs; {}",
                needed_permissions(headers, context)
            ),
            Subject::Deliveries => format!(
                "the hook or the delivery does not exist any more, or the token cannot see it; {}",
                needed_permissions(headers, context)
            ),
            Subject::Installation => format!(
                "the App is not installed for {scope}; install it there and check {table}.url"
            ),
        }),
        RegistryErrorKind::NameTaken => {
            Some("no action is needed; the next attempt uses a new name".to_owned())
        }
        RegistryErrorKind::Invalid if status.is_redirection() => Some(match location(headers) {
            Some(to) => format!(
                "GitHub redirects to {}; set {table}.url or {table}.api_url to the new address",
                context.clean(&to)
            ),
            None => context.advise("set {table}.url or {table}.api_url to the new address"),
        }),
        RegistryErrorKind::Invalid if operation == Operation::Mint => {
            Some("check the pool's labels, runner_group and work_folder".to_owned())
        }
        RegistryErrorKind::Invalid if operation == Operation::AccessToken => Some(format!(
            "the App's installation lacks a permission or access to {scope}; {}; new permissions of an App must be accepted where it is installed",
            context.access.permissions()
        )),
        RegistryErrorKind::Invalid => {
            Some(context.advise("check {table}.api_url and {table}.api_version"))
        }
        RegistryErrorKind::Limited | RegistryErrorKind::Server | RegistryErrorKind::Unreachable => {
            None
        }
    }
}

/// Returns GitHub's message, or a description of a body that is not GitHub's JSON.
fn message_of(body: &[u8]) -> String {
    if let Ok(Body { message, errors }) = serde_json::from_slice(body) {
        let mut parts: Vec<String> = message.into_iter().collect();
        match errors {
            Some(serde_json::Value::Array(list)) => {
                parts.extend(list.iter().take(5).map(detail));
            }
            Some(serde_json::Value::String(text)) => parts.push(text),
            // Other shapes are not documented.
            Some(
                serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::Object(_),
            )
            | None => {}
        }
        return parts.join("; ");
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]);
    let lower = text.to_ascii_lowercase();
    if !lower.contains("<html") && !lower.contains("<!doctype") {
        return text.trim().to_owned();
    }
    // A proxy's page, of which only the title is kept. Offsets in `lower` and `text` agree, because
    // only ASCII letters differ.
    let title = lower.find("<title>").map(|at| at + "<title>".len());
    match title.and_then(|start| Some((start, start + lower[start..].find("</title>")?))) {
        Some((start, end)) => format!("a web page, \"{}\"", text[start..end].trim()),
        None => "a web page".to_owned(),
    }
}

/// Returns one entry of `errors`: a string, or an object with `message`, or with `field` and `code`.
fn detail(error: &serde_json::Value) -> String {
    let part = |name: &str| error.get(name).and_then(serde_json::Value::as_str);
    if let Some(text) = error.as_str().or_else(|| part("message")) {
        return text.to_owned();
    }
    let parts = [part("resource"), part("field"), part("code")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Returns advice on permissions, in GitHub's words for this call if the answer has them.
fn needed_permissions(headers: &HeaderMap, context: &Context) -> String {
    let accepted = headers
        .get("x-accepted-github-permissions")
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.trim().is_empty());
    match accepted {
        Some(accepted) => format!(
            "the token needs the permission that GitHub names for this call: {}",
            context.clean(accepted)
        ),
        None => context.access.permissions().to_owned(),
    }
}

fn location(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("location")?.to_str().ok()?.to_owned())
}

#[cfg(test)]
mod tests;
