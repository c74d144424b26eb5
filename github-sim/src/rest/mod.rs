//! The REST API: requirements of every request, headers of every answer, and the endpoints.

mod app;
pub(crate) mod errors;
mod hooks;
mod paging;
mod runners;
mod runs;
pub(crate) mod schema;
mod versions;

use axum::http::StatusCode;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::{
    endpoint::Endpoint,
    github_app::InstallationToken,
    http::{ApiReply, ApiRequest},
    scope::Scope,
    state::{Bucket, GitHubState, Usage},
};

const API_VERSIONS: [&str; 2] = ["2022-11-28", "2026-03-10"];
const SECONDARY_RETRY_S: u64 = 60;

/// Answers a request, with all headers.
pub(crate) fn answer(state: &mut GitHubState, now: u64, request: &ApiRequest) -> ApiReply {
    let caller = caller(state, now, request);
    let token = caller.as_ref().ok().map(Caller::account);
    let bucket = bucket_of(request.endpoint);
    let mut reply = admit(state, now, request, caller)
        .and_then(|caller| handle(state, now, request, &caller))
        .unwrap_or_else(|refusal| refusal);

    if request.endpoint.is_rest() {
        let body = reply.value();
        let status = reply.status.as_u16();
        let checked =
            schema::check_response(&request.template, &request.method, status, body.as_ref());
        if let Err(problem) = checked {
            // A test must not pass with an answer that GitHub cannot give.
            tracing::error!(%problem, path = request.target, "answer does not match GitHub's description");
            reply = errors::plain(StatusCode::INTERNAL_SERVER_ERROR, &problem);
        }
    }
    if request.method == "GET"
        && reply.status == StatusCode::OK
        && request.endpoint != Endpoint::RateLimit
    {
        reply = paging::with_etag(reply, request);
        if reply.status == StatusCode::NOT_MODIFIED
            && let Some(token) = &token
        {
            state.limits.refund(token, bucket);
        }
    }
    let usage = state
        .limits
        .usage(token.as_deref().unwrap_or(""), bucket, &state.settings, now);
    add_headers(&mut reply, request, bucket, usage);
    reply
}

/// Adds the headers of every REST answer.
pub(crate) fn add_common_headers(reply: &mut ApiReply, request: &ApiRequest) {
    let version = request
        .header("x-github-api-version")
        .filter(|version| API_VERSIONS.contains(version))
        .unwrap_or(API_VERSIONS[0]);
    reply.set("x-github-api-version-selected", version);
    reply.set("x-github-media-type", "github.v3; format=json");
    reply.set("server", "github.com");
}

/// Returns the usage of the caller's bucket.
pub(crate) fn usage_of(state: &GitHubState, now: u64, request: &ApiRequest) -> (Bucket, Usage) {
    let bucket = bucket_of(request.endpoint);
    let account = caller(state, now, request).map_or_else(|_| String::new(), |c| c.account());
    let usage = state.limits.usage(&account, bucket, &state.settings, now);
    (bucket, usage)
}

/// Adds the headers that announce a limit.
pub(crate) fn add_limit_headers(reply: &mut ApiReply, bucket: Bucket, usage: Usage) {
    reply.set("x-ratelimit-limit", &usage.limit.to_string());
    reply.set("x-ratelimit-remaining", &usage.remaining().to_string());
    reply.set("x-ratelimit-used", &usage.used.to_string());
    reply.set("x-ratelimit-reset", &usage.reset.to_string());
    reply.set("x-ratelimit-resource", bucket.name());
}

fn add_headers(reply: &mut ApiReply, request: &ApiRequest, bucket: Bucket, usage: Usage) {
    add_common_headers(reply, request);
    add_limit_headers(reply, bucket, usage);
    if matches!(reply.status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
        && request.endpoint.is_rest()
        && let Some(scope) = request.scope()
    {
        let (name, level) = permission_of(request.endpoint, &scope);
        reply.set("x-accepted-github-permissions", &format!("{name}={level}"));
    }
}

/// Returns the permission and the level that an endpoint needs in a scope.
fn permission_of(endpoint: Endpoint, scope: &Scope) -> (&'static str, &'static str) {
    let reads_runs = matches!(endpoint, Endpoint::Runs | Endpoint::RunJobs | Endpoint::Job);
    let reads_hooks = matches!(endpoint, Endpoint::HookDeliveries | Endpoint::HookDelivery);
    if reads_hooks || endpoint == Endpoint::HookAttempt {
        let name = match scope {
            Scope::Organization(_) => "organization_hooks",
            Scope::Repository { .. } => "repository_hooks",
        };
        return (name, if reads_hooks { "read" } else { "write" });
    }
    match scope {
        _ if reads_runs => ("actions", "read"),
        Scope::Organization(_) => ("organization_self_hosted_runners", "write"),
        Scope::Repository { .. } => ("administration", "write"),
    }
}

/// Checks the requirements of every request, in the order in which GitHub reports them.
fn admit(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
    caller: Result<Caller, ApiReply>,
) -> Result<Caller, ApiReply> {
    if request
        .header("user-agent")
        .is_none_or(|agent| agent.trim().is_empty())
    {
        return Err(ApiReply::with_type(
            StatusCode::FORBIDDEN,
            "text/html; charset=utf-8",
            b"\r\nRequest forbidden by administrative rules. Please make sure your request has a User-Agent header (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required). Check https://developer.github.com for other possible causes.\r\n".to_vec(),
        ));
    }
    if let Some(version) = request.header("x-github-api-version")
        && !API_VERSIONS.contains(&version)
    {
        let message = format!("{version:?} is not a supported API version.");
        return Err(errors::plain(StatusCode::BAD_REQUEST, &message));
    }
    if !accepts_json(request) {
        return Err(errors::plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported 'Accept' header. Must accept 'application/json'.",
        ));
    }
    let caller = caller?;
    let endpoint = request.endpoint;
    if endpoint == Endpoint::RateLimit {
        return Ok(caller);
    }
    let token = &caller.account();
    let points = if request.method == "GET" { 1 } else { 5 };
    let GitHubState {
        limits, settings, ..
    } = state;
    if limits
        .spend(token, bucket_of(endpoint), settings, now)
        .is_none()
    {
        let reset = limits
            .usage(token, bucket_of(endpoint), settings, now)
            .reset;
        limits.announce(now, reset * 1000);
        return Err(errors::primary_limit());
    }
    let is_within = limits.spend_points(endpoint.name(), points, settings, now)
        && (endpoint != Endpoint::Mint || limits.spend_registration(token, settings, now));
    if !is_within {
        limits.announce(now, now + SECONDARY_RETRY_S * 1000);
        return Err(errors::secondary_limit(Some(SECONDARY_RETRY_S)));
    }
    Ok(caller)
}

fn handle(
    state: &mut GitHubState,
    now: u64,
    request: &ApiRequest,
    caller: &Caller,
) -> Result<ApiReply, ApiReply> {
    if !request.endpoint.is_rest() {
        return Err(errors::not_found());
    }
    let scope = &request.scope();
    if let Some(scope) = scope {
        may_use(state, request.endpoint, scope, caller)?;
    }
    for (name, value) in &request.query {
        schema::check_param(&request.template, &request.method, "query", name, value)
            .map_err(|problem| errors::invalid(&problem))?;
    }
    if request.endpoint == Endpoint::AccessToken {
        let body = if request.body.is_empty() {
            Value::Null
        } else {
            json_body(request)?
        };
        let installation = request.path_param("installation_id").unwrap_or("");
        return app::access_token(state, now, installation, &body);
    }
    let id = match request.path_param("runner_id") {
        None => 0,
        // GitHub's router takes only digits here.
        Some(text) => {
            schema::check_param(
                &request.template,
                &request.method,
                "path",
                "runner_id",
                text,
            )
            .map_err(|_| errors::not_found())?;
            text.parse().map_err(|_| errors::not_found())?
        }
    };
    match (request.endpoint, scope) {
        (Endpoint::Mint, Some(scope)) => runners::mint(state, now, scope, &json_body(request)?),
        (Endpoint::RegistrationToken, Some(scope)) => {
            Ok(runners::registration_token(state, now, scope))
        }
        (Endpoint::List, Some(scope)) => Ok(runners::list(state, now, scope, request)),
        (Endpoint::Get, Some(scope)) => runners::get(state, now, scope, id),
        (Endpoint::Delete, Some(scope)) => runners::delete(state, now, scope, id),
        (Endpoint::Groups, Some(scope)) => Ok(runners::groups(state, scope, request)),
        (Endpoint::Deprecation, Some(_)) => versions::get(state, request),
        (Endpoint::Runs, Some(scope)) => runs::list(state, scope, request),
        (Endpoint::RunJobs, Some(scope)) => runs::jobs(state, scope, request),
        (Endpoint::Job, Some(scope)) => runs::job(state, scope, request),
        (Endpoint::Installation, Some(scope)) => app::installation(state, scope),
        (Endpoint::HookDeliveries, scope) => hooks::list(state, now, scope.as_ref(), request),
        (Endpoint::HookDelivery, scope) => hooks::get(state, now, scope.as_ref(), request),
        (Endpoint::HookAttempt, scope) => hooks::repeat(state, now, scope.as_ref(), request),
        (Endpoint::RateLimit, _) => Ok(rate_limit(state, now, caller)),
        (Endpoint::Meta, _) => Ok(ApiReply::json(
            StatusCode::OK,
            &json!({"verifiable_password_authentication": false, "hooks": [], "api": [], "actions": []}),
        )),
        _ => Err(errors::not_found()),
    }
}

fn json_body(request: &ApiRequest) -> Result<Value, ApiReply> {
    let body: Value = request
        .json()
        .map_err(|_| errors::plain(StatusCode::BAD_REQUEST, "Problems parsing JSON"))?;
    if !body.is_object() {
        return Err(errors::plain(
            StatusCode::BAD_REQUEST,
            "Body should be a JSON object",
        ));
    }
    schema::check_body(&request.template, &request.method, &body)
        .map_err(|problem| errors::invalid(&problem))?;
    Ok(body)
}

fn rate_limit(state: &GitHubState, now: u64, caller: &Caller) -> ApiReply {
    let token = caller.account();
    let show = |bucket| {
        let usage = state.limits.usage(&token, bucket, &state.settings, now);
        json!({"limit": usage.limit, "used": usage.used, "remaining": usage.remaining(), "reset": usage.reset})
    };
    let core = show(Bucket::Core);
    ApiReply::json(
        StatusCode::OK,
        &json!({
            "resources": {
                "core": core,
                "search": {"limit": 30, "used": 0, "remaining": 30, "reset": now / 1000 + 60},
                "actions_runner_registration": show(Bucket::Registration),
            },
            "rate": core,
        }),
    )
}

fn bucket_of(endpoint: Endpoint) -> Bucket {
    if endpoint == Endpoint::Mint {
        Bucket::Registration
    } else {
        Bucket::Core
    }
}

/// The caller of a request.
enum Caller {
    /// A configured token.
    User(String),
    /// A token of one scope.
    OfScope(String),
    /// A token of a GitHub App's installation.
    Installation(InstallationToken),
    /// A GitHub App itself, by a JWT.
    App,
}

impl Caller {
    /// Returns the account whose limits the caller spends.
    fn account(&self) -> String {
        match self {
            Self::User(token) | Self::OfScope(token) => token.clone(),
            Self::Installation(token) => token.account(),
            Self::App => "app".into(),
        }
    }
}

/// Returns the caller, by the kind of credential that the endpoint takes.
fn caller(state: &GitHubState, now: u64, request: &ApiRequest) -> Result<Caller, ApiReply> {
    if matches!(
        request.endpoint,
        Endpoint::Installation | Endpoint::AccessToken
    ) || request.template.starts_with("/app/")
    {
        return app::check_jwt(state, request, now).map(|()| Caller::App);
    }
    let given = request.bearer().unwrap_or_default();
    let is = |known: &str| bool::from(known.as_bytes().ct_eq(given.as_bytes()));
    let user = state.tokens.iter().find(|known| is(known));
    let is_of_scope = state.scope_tokens.iter().any(|known| is(&known.token));
    let installation = state
        .installation_tokens
        .iter()
        .find(|token| token.is_valid(now) && is(&token.token));
    match (user, installation) {
        (Some(token), _) => Ok(Caller::User(token.clone())),
        (None, Some(token)) => Ok(Caller::Installation(token.clone())),
        (None, None) if is_of_scope => Ok(Caller::OfScope(given.into())),
        (None, None) => Err(errors::plain(
            StatusCode::UNAUTHORIZED,
            if request.header("authorization").is_some() {
                "Bad credentials"
            } else {
                "Requires authentication"
            },
        )),
    }
}

fn may_use(
    state: &GitHubState,
    endpoint: Endpoint,
    scope: &Scope,
    caller: &Caller,
) -> Result<(), ApiReply> {
    if !state.scopes.contains(scope) {
        return Err(errors::not_found());
    }
    match caller {
        Caller::User(_) | Caller::App => Ok(()),
        Caller::OfScope(token) => {
            let mut known = state.scope_tokens.iter();
            if known.any(|known| known.scope == *scope && known.token == *token) {
                return Ok(());
            }
            // GitHub hides a private repository. An organisation is public.
            Err(match scope {
                Scope::Repository { .. } => errors::not_found(),
                Scope::Organization(_) => errors::plain(
                    StatusCode::FORBIDDEN,
                    "Resource not accessible by personal access token",
                ),
            })
        }
        Caller::Installation(token) => {
            app::check_token(state, token, scope, permission_of(endpoint, scope))
        }
    }
}

fn accepts_json(request: &ApiRequest) -> bool {
    let Some(accept) = request.header("accept") else {
        return true;
    };
    accept.split(',').any(|range| {
        let media = range
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        matches!(media.as_str(), "*/*" | "application/*" | "application/json")
            || (media.starts_with("application/vnd.github") && media.ends_with("+json"))
    })
}
