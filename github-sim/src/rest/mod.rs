//! The REST API: what every call must bring, what every answer carries, and who answers.

pub(crate) mod app;
pub(crate) mod errors;
mod paging;
mod runners;

use hyper::StatusCode;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::{
    http::{Call, Reply},
    limits::{Bucket, Usage},
    route::{Endpoint, Route},
    schema,
    scope::Scope,
    state::State,
};

const API_VERSIONS: [&str; 2] = ["2022-11-28", "2026-03-10"];
const SECONDARY_RETRY_S: u64 = 60;

/// Answers one REST call, with all its headers.
pub(crate) fn answer(state: &mut State, now: u64, call: &Call, route: &Route) -> Reply {
    let endpoint = route.endpoint();
    let caller = caller(state, now, call, endpoint);
    let token = caller.as_ref().ok().map(Caller::account);
    let bucket = bucket_of(endpoint);
    let mut reply = admit(state, now, call, route, caller)
        .and_then(|caller| handle(state, now, call, route, &caller))
        .unwrap_or_else(|refusal| refusal);

    if let Route::Rest { template, .. } = route {
        let body = reply.value();
        let checked =
            schema::check_response(template, &call.method, reply.status.as_u16(), body.as_ref());
        if let Err(problem) = checked {
            // Loud on purpose: a stand-in that lies is worse than none.
            tracing::error!(%problem, path = call.target, "own answer breaks the description");
            reply = errors::plain(StatusCode::INTERNAL_SERVER_ERROR, &problem);
        }
    }
    if call.method == "GET" && reply.status == StatusCode::OK && endpoint != Endpoint::RateLimit {
        reply = paging::with_etag(reply, call);
        if reply.status == StatusCode::NOT_MODIFIED
            && let Some(token) = &token
        {
            state.limits.refund(token, bucket);
        }
    }
    let usage = state
        .limits
        .usage(token.as_deref().unwrap_or(""), bucket, &state.settings, now);
    add_headers(&mut reply, call, route, bucket, usage);
    reply
}

/// The headers of every REST answer, also of those a fault made up.
pub(crate) fn add_common_headers(reply: &mut Reply, call: &Call) {
    let version = call
        .header("x-github-api-version")
        .filter(|version| API_VERSIONS.contains(version))
        .unwrap_or(API_VERSIONS[0]);
    reply.set("x-github-api-version-selected", version);
    reply.set("x-github-media-type", "github.v3; format=json");
    reply.set("server", "github.com");
}

/// The state of the caller's bucket, for answers that a fault made up.
pub(crate) fn usage_of(
    state: &State,
    now: u64,
    call: &Call,
    endpoint: Endpoint,
) -> (Bucket, Usage) {
    let bucket = bucket_of(endpoint);
    let account =
        caller(state, now, call, endpoint).map_or_else(|_| String::new(), |c| c.account());
    let usage = state.limits.usage(&account, bucket, &state.settings, now);
    (bucket, usage)
}

pub(crate) fn add_limit_headers(reply: &mut Reply, bucket: Bucket, usage: Usage) {
    reply.set("x-ratelimit-limit", &usage.limit.to_string());
    reply.set("x-ratelimit-remaining", &usage.remaining().to_string());
    reply.set("x-ratelimit-used", &usage.used.to_string());
    reply.set("x-ratelimit-reset", &usage.reset.to_string());
    reply.set("x-ratelimit-resource", bucket.name());
}

fn add_headers(reply: &mut Reply, call: &Call, route: &Route, bucket: Bucket, usage: Usage) {
    add_common_headers(reply, call);
    add_limit_headers(reply, bucket, usage);
    if matches!(reply.status, StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
        && let Route::Rest {
            scope: Some(scope), ..
        } = route
    {
        let permission = match scope {
            Scope::Organization(_) => "organization_self_hosted_runners=write",
            Scope::Repository { .. } => "administration=write",
        };
        reply.set("x-accepted-github-permissions", permission);
    }
}

/// What must hold before the endpoint matters. In the order in which GitHub complains.
fn admit(
    state: &mut State,
    now: u64,
    call: &Call,
    route: &Route,
    caller: Result<Caller, Reply>,
) -> Result<Caller, Reply> {
    if call
        .header("user-agent")
        .is_none_or(|agent| agent.trim().is_empty())
    {
        return Err(Reply::with_type(
            StatusCode::FORBIDDEN,
            "text/html; charset=utf-8",
            b"\r\nRequest forbidden by administrative rules. Please make sure your request has a User-Agent header (https://docs.github.com/en/rest/overview/resources-in-the-rest-api#user-agent-required). Check https://developer.github.com for other possible causes.\r\n".to_vec(),
        ));
    }
    if let Some(version) = call.header("x-github-api-version")
        && !API_VERSIONS.contains(&version)
    {
        let message = format!("{version:?} is not a supported API version.");
        return Err(errors::plain(StatusCode::BAD_REQUEST, &message));
    }
    if !accepts_json(call) {
        return Err(errors::plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Unsupported 'Accept' header. Must accept 'application/json'.",
        ));
    }
    let caller = caller?;
    let endpoint = route.endpoint();
    if endpoint == Endpoint::RateLimit {
        return Ok(caller);
    }
    let token = &caller.account();
    let points = if call.method == "GET" { 1 } else { 5 };
    let State {
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
    if !limits.spend_points(endpoint.name(), points, settings, now) {
        limits.announce(now, now + SECONDARY_RETRY_S * 1000);
        return Err(errors::secondary_limit(Some(SECONDARY_RETRY_S)));
    }
    Ok(caller)
}

fn handle(
    state: &mut State,
    now: u64,
    call: &Call,
    route: &Route,
    caller: &Caller,
) -> Result<Reply, Reply> {
    let Route::Rest {
        endpoint,
        template,
        scope,
        id,
    } = route
    else {
        return Err(errors::not_found());
    };
    if let Some(scope) = scope {
        may_use(state, scope, caller)?;
    }
    for (name, value) in &call.query {
        schema::check_param(template, &call.method, "query", name, value)
            .map_err(|problem| errors::invalid(&problem))?;
    }
    if *endpoint == Endpoint::AccessToken {
        let body = if call.body.is_empty() {
            Value::Null
        } else {
            json_body(call, template)?
        };
        return app::access_token(state, now, id.as_deref().unwrap_or(""), &body);
    }
    let id = match id {
        None => 0,
        // GitHub's router knows only digits here.
        Some(text) => {
            schema::check_param(template, &call.method, "path", "runner_id", text)
                .map_err(|_| errors::not_found())?;
            text.parse().map_err(|_| errors::not_found())?
        }
    };
    match (endpoint, scope) {
        (Endpoint::Mint, Some(scope)) => {
            runners::mint(state, now, scope, &json_body(call, template)?)
        }
        (Endpoint::List, Some(scope)) => Ok(runners::list(state, now, scope, call)),
        (Endpoint::Get, Some(scope)) => runners::get(state, now, scope, id),
        (Endpoint::Delete, Some(scope)) => runners::delete(state, now, scope, id),
        (Endpoint::Groups, Some(scope)) => Ok(runners::groups(state, scope, call)),
        (Endpoint::Installation, Some(scope)) => app::installation(state, scope),
        (Endpoint::RateLimit, _) => Ok(rate_limit(state, now, caller)),
        (Endpoint::Meta, _) => Ok(Reply::json(
            StatusCode::OK,
            &json!({"verifiable_password_authentication": false, "hooks": [], "api": [], "actions": []}),
        )),
        _ => Err(errors::not_found()),
    }
}

fn json_body(call: &Call, template: &str) -> Result<Value, Reply> {
    let body: Value = call
        .json()
        .map_err(|_| errors::plain(StatusCode::BAD_REQUEST, "Problems parsing JSON"))?;
    if !body.is_object() {
        return Err(errors::plain(
            StatusCode::BAD_REQUEST,
            "Body should be a JSON object",
        ));
    }
    schema::check_body(template, &call.method, &body)
        .map_err(|problem| errors::invalid(&problem))?;
    Ok(body)
}

fn rate_limit(state: &State, now: u64, caller: &Caller) -> Reply {
    let token = caller.account();
    let show = |bucket| {
        let usage = state.limits.usage(&token, bucket, &state.settings, now);
        json!({"limit": usage.limit, "used": usage.used, "remaining": usage.remaining(), "reset": usage.reset})
    };
    let core = show(Bucket::Core);
    Reply::json(
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

/// Who calls.
enum Caller {
    /// A token that was configured.
    User(String),
    /// A token of an App's installation.
    Installation(app::Issued),
    /// An App itself, by a JWT.
    App,
}

impl Caller {
    /// Whose limits are spent.
    fn account(&self) -> String {
        match self {
            Self::User(token) => token.clone(),
            Self::Installation(issued) => issued.account(),
            Self::App => "app".into(),
        }
    }
}

/// Who shows what the endpoint wants to see.
fn caller(state: &State, now: u64, call: &Call, endpoint: Endpoint) -> Result<Caller, Reply> {
    if matches!(endpoint, Endpoint::Installation | Endpoint::AccessToken) {
        return app::check_jwt(state, call, now).map(|()| Caller::App);
    }
    let given = call.bearer().unwrap_or_default();
    let is = |known: &str| bool::from(known.as_bytes().ct_eq(given.as_bytes()));
    let user = state.tokens.iter().find(|known| is(known));
    let issued = state
        .issued
        .iter()
        .find(|issued| issued.is_valid(now) && is(&issued.token));
    match (user, issued) {
        (Some(token), _) => Ok(Caller::User(token.clone())),
        (None, Some(issued)) => Ok(Caller::Installation(issued.clone())),
        (None, None) => Err(errors::plain(
            StatusCode::UNAUTHORIZED,
            if call.header("authorization").is_some() {
                "Bad credentials"
            } else {
                "Requires authentication"
            },
        )),
    }
}

fn may_use(state: &State, scope: &Scope, caller: &Caller) -> Result<(), Reply> {
    if !state.scopes.contains(scope) {
        return Err(errors::not_found());
    }
    match caller {
        Caller::User(_) | Caller::App => Ok(()),
        Caller::Installation(issued) => issued.may_use(state, scope),
    }
}

fn accepts_json(call: &Call) -> bool {
    let Some(accept) = call.header("accept") else {
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
