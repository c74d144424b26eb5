//! The control API over HTTP, below `/_sim`.

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Request, State},
    http::{StatusCode, request::Parts},
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::Control;
use crate::{
    faults::FaultRule,
    http::ApiReply,
    view::{JobSpec, PlantedRunner, ScopeToken},
    webhooks::{HookSpec, WebhookFaultRule},
};

/// Maximum size of a line that a job writes about itself, in bytes.
const WITNESS_BYTES: usize = 200;

/// Returns the routes without the prefix `/_sim`.
pub(crate) fn routes<S>(control: Control) -> Router<S> {
    Router::new()
        .route("/health", get(async || ok(&json!({"status": "ok"}))))
        .route("/jobs", get(jobs).post(add_jobs))
        .route("/jobs/{id}", get(job))
        .route("/jobs/{id}/cancel", post(cancel_job))
        .route("/jobs/{id}/release", post(release_job))
        .route("/jobs/{id}/witness", post(witness))
        .route("/runners", get(runners).post(plant_runners))
        .route("/runners/{id}", delete(delete_runner))
        .route("/jobs/{id}/end-early", post(end_job_early))
        .route("/jobs/{id}/lose", post(lose_job))
        .route("/jobs/{id}/start-and-cancel", post(start_and_cancel_job))
        .route("/scale-sets", get(scale_sets))
        .route("/scale-sets/expire-admin-tokens", post(expire_admin_tokens))
        .route("/scale-sets/{id}", delete(lose_scale_set))
        .route("/scale-sets/{id}/evict-session", post(evict_session))
        .route(
            "/scale-sets/{id}/expire-queue-token",
            post(expire_queue_token),
        )
        .route("/scale-sets/{id}/restart-messages", post(restart_messages))
        .route("/hooks", post(add_hooks))
        .route("/hooks/{id}", delete(remove_hook))
        .route("/deliveries", get(deliveries))
        .route(
            "/webhook-faults",
            get(webhook_faults)
                .post(add_webhook_faults)
                .delete(clear_webhook_faults),
        )
        .route("/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/stats", get(stats))
        .route("/stats/reset", post(reset_stats))
        .route("/token", post(rotate_token))
        .route("/scope-tokens", post(set_scope_tokens))
        .route("/settings", get(settings).post(patch_settings))
        .fallback(async || missing())
        .with_state(control)
}

async fn jobs(State(control): State<Control>) -> ApiReply {
    ok(&control.jobs())
}

async fn add_jobs(State(control): State<Control>, Items(jobs): Items<JobSpec>) -> ApiReply {
    created(jobs.into_iter().map(|spec| control.add_job(spec)))
}

async fn job(State(control): State<Control>, Id(id): Id) -> ApiReply {
    control.job(id).map_or_else(missing, |job| ok(&job))
}

async fn cancel_job(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.cancel_job(id))
}

async fn release_job(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.release_job(id))
}

#[derive(Deserialize)]
struct WitnessBody {
    text: String,
}

async fn witness(
    State(control): State<Control>,
    Id(id): Id,
    Json(body): Json<WitnessBody>,
) -> ApiReply {
    if body.text.len() > WITNESS_BYTES {
        return refusal(&format!("text is longer than {WITNESS_BYTES} bytes"));
    }
    done(control.witness(id, body.text))
}

async fn runners(State(control): State<Control>) -> ApiReply {
    ok(&control.runners())
}

async fn plant_runners(
    State(control): State<Control>,
    Items(planted): Items<PlantedRunner>,
) -> ApiReply {
    created(
        planted
            .into_iter()
            .map(|runner| control.plant_runner(runner)),
    )
}

async fn delete_runner(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.delete_runner(id))
}

async fn end_job_early(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.end_job_early(id))
}

async fn lose_job(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.lose_job(id))
}

#[derive(Deserialize)]
struct RunnerBody {
    runner_id: u64,
}

async fn start_and_cancel_job(
    State(control): State<Control>,
    Id(id): Id,
    Json(body): Json<RunnerBody>,
) -> ApiReply {
    done(control.start_and_cancel_job(id, body.runner_id))
}

async fn scale_sets(State(control): State<Control>) -> ApiReply {
    ok(&control.scale_sets())
}

async fn expire_admin_tokens(State(control): State<Control>) -> ApiReply {
    control.expire_admin_tokens();
    done(true)
}

async fn lose_scale_set(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.lose_scale_set(id))
}

async fn evict_session(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.evict_session(id))
}

async fn expire_queue_token(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.expire_queue_token(id))
}

async fn restart_messages(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.restart_messages(id))
}

async fn add_hooks(State(control): State<Control>, Items(hooks): Items<HookSpec>) -> ApiReply {
    created(hooks.into_iter().map(|hook| control.add_hook(hook)))
}

async fn remove_hook(State(control): State<Control>, Id(id): Id) -> ApiReply {
    done(control.remove_hook(id))
}

async fn deliveries(State(control): State<Control>) -> ApiReply {
    ok(&control.deliveries())
}

async fn webhook_faults(State(control): State<Control>) -> ApiReply {
    ok(&control.webhook_faults())
}

async fn add_webhook_faults(
    State(control): State<Control>,
    Items(rules): Items<WebhookFaultRule>,
) -> ApiReply {
    control.add_webhook_faults(rules);
    ok(&control.webhook_faults())
}

async fn clear_webhook_faults(State(control): State<Control>) -> ApiReply {
    control.clear_webhook_faults();
    done(true)
}

async fn faults(State(control): State<Control>) -> ApiReply {
    ok(&control.faults())
}

async fn add_faults(State(control): State<Control>, Items(rules): Items<FaultRule>) -> ApiReply {
    control.add_faults(rules);
    ok(&control.faults())
}

async fn clear_faults(State(control): State<Control>) -> ApiReply {
    control.clear_faults();
    done(true)
}

async fn stats(State(control): State<Control>) -> ApiReply {
    ok(&control.stats())
}

async fn reset_stats(State(control): State<Control>) -> ApiReply {
    control.reset_stats();
    done(true)
}

#[derive(Deserialize)]
struct TokenBody {
    token: String,
}

async fn rotate_token(State(control): State<Control>, Json(body): Json<TokenBody>) -> ApiReply {
    if body.token.is_empty() {
        return refusal("token is empty");
    }
    control.rotate_token(&body.token);
    done(true)
}

async fn set_scope_tokens(
    State(control): State<Control>,
    Items(tokens): Items<ScopeToken>,
) -> ApiReply {
    if tokens.iter().any(|token| token.token.is_empty()) {
        return refusal("token is empty");
    }
    control.set_scope_tokens(tokens);
    done(true)
}

async fn settings(State(control): State<Control>) -> ApiReply {
    ok(&control.settings())
}

async fn patch_settings(State(control): State<Control>, Json(patch): Json<Value>) -> ApiReply {
    match control.patch_settings(&patch) {
        Ok(settings) => ok(&settings),
        Err(error) => refusal(&error.0.to_string()),
    }
}

/// The id in a path.
struct Id(u64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiReply;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiReply> {
        let Path(id) = Path::from_request_parts(parts, state)
            .await
            .map_err(|_| missing())?;
        Ok(Self(id))
    }
}

/// A JSON body. Unlike axum's own extractor it takes any `Content-Type`, so `curl -d` needs no header.
struct Json<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiReply;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiReply> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|error| ApiReply::empty(error.status()))?;
        let body = serde_json::from_slice(&body);
        body.map(Self).map_err(|error| refusal(&error.to_string()))
    }
}

/// A JSON body with one item or an array of them.
struct Items<T>(Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Items<T> {
    type Rejection = ApiReply;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiReply> {
        let Json(body) = Json::<Value>::from_request(request, state).await?;
        let items = if let Value::Array(items) = body {
            items
        } else {
            vec![body]
        };
        let items: Result<_, serde_json::Error> =
            items.into_iter().map(serde_json::from_value).collect();
        items.map(Self).map_err(|error| refusal(&error.to_string()))
    }
}

fn ok(body: &impl Serialize) -> ApiReply {
    ApiReply::json(StatusCode::OK, body)
}

fn created(ids: impl Iterator<Item = u64>) -> ApiReply {
    let ids: Vec<u64> = ids.collect();
    ApiReply::json(StatusCode::CREATED, &json!({"ids": ids}))
}

fn done(known: bool) -> ApiReply {
    if known {
        ApiReply::empty(StatusCode::NO_CONTENT)
    } else {
        missing()
    }
}

fn missing() -> ApiReply {
    ApiReply::json(StatusCode::NOT_FOUND, &json!({"message": "not found"}))
}

fn refusal(message: &str) -> ApiReply {
    ApiReply::json(StatusCode::BAD_REQUEST, &json!({"message": message}))
}
