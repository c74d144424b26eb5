//! The routes of the API: a GET reads the status, a POST passes a command to the controller.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};

use super::page::{self, Streams};
use super::{access, metrics};
use crate::clock::unix_ms;
use crate::controller::{Command, Request};
use crate::status::{HistoryPage, HistoryQuery, Status};
use crate::view::health;

/// Timeout for the controller to accept a command. Its loop never blocks, so this is generous.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the history. The error is for the client.
pub type ReadHistory =
    Arc<dyn Fn(HistoryQuery) -> BoxFuture<'static, Result<HistoryPage, String>> + Send + Sync>;

#[derive(Clone)]
struct Shared {
    status: watch::Receiver<Status>,
    requests: mpsc::Sender<Request>,
    history: ReadHistory,
    streams: Streams,
}

/// Returns all routes. Each request must carry the [`access::Access`] of its connection.
pub fn router(
    status: watch::Receiver<Status>,
    requests: mpsc::Sender<Request>,
    history: ReadHistory,
) -> Router {
    let command = |command: fn() -> Command| {
        post(async move |State(shared): State<Shared>| send(shared, command()).await)
            .route_layer(from_fn(access::guard))
    };
    Router::new()
        .route("/", get(get_page))
        .route("/events", get(get_events))
        .route("/health", get(get_health))
        .route("/status", get(get_status))
        .route("/metrics", get(get_metrics))
        .route("/history", get(get_history))
        .route("/drain", command(|| Command::Drain))
        .route("/undrain", command(|| Command::Undrain))
        .route("/clear", post(clear).route_layer(from_fn(access::guard)))
        .route("/refill", post(refill).route_layer(from_fn(access::guard)))
        .with_state(Shared {
            status,
            requests,
            history,
            streams: Streams::default(),
        })
}

/// Query of `/clear` and `/refill`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Clearing {
    number: u64,
    refills: bool,
}

async fn clear(State(shared): State<Shared>, Query(clearing): Query<Clearing>) -> Response {
    let Clearing { number, refills } = clearing;
    send(shared, Command::Clear { number, refills }).await
}

async fn refill(State(shared): State<Shared>, Query(clearing): Query<Clearing>) -> Response {
    send(shared, Command::Refill(clearing.number)).await
}

async fn get_page(State(shared): State<Shared>) -> Response {
    page::page(&shared.status.borrow(), unix_ms())
}

async fn get_events(State(shared): State<Shared>) -> Response {
    page::events(shared.streams, shared.status)
}

async fn get_health(State(shared): State<Shared>) -> Response {
    let health = health(&shared.status.borrow());
    let code = if health.healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, axum::Json(health)).into_response()
}

async fn get_status(State(shared): State<Shared>) -> Response {
    axum::Json(&*shared.status.borrow()).into_response()
}

async fn get_metrics(State(shared): State<Shared>) -> Response {
    let text = metrics::render(&shared.status.borrow());
    match text {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn get_history(State(shared): State<Shared>, Query(query): Query<HistoryQuery>) -> Response {
    match (shared.history)(query).await {
        Ok(page) => axum::Json(page).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

/// Passes a command to the controller and answers once the controller has accepted it.
async fn send(shared: Shared, command: Command) -> Response {
    let (reply, accepted) = oneshot::channel();
    let sent = shared.requests.send((command, reply)).await.is_ok();
    if sent
        && matches!(
            tokio::time::timeout(ACCEPT_TIMEOUT, accepted).await,
            Ok(Ok(()))
        )
    {
        return StatusCode::ACCEPTED.into_response();
    }
    let reason = "the daemon is stopping; try again when it has restarted";
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}
