//! Health, status and metrics over HTTP; and, on the Unix socket alone, what an operator can ask.
//!
//! Reads one watch channel. A GET changes nothing; a POST is passed to the controller. Who may
//! connect to the socket is said by its group and mode; TCP listeners serve GETs only.

pub mod client;
mod metrics;

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::controller::{Command, Request};
use crate::status::Status;

/// How long a command may wait for the controller, which never blocks: far more than it needs.
const ACCEPT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Shared {
    status: watch::Receiver<Status>,
    requests: mpsc::Sender<Request>,
}

/// Whether it works, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// True if every pool has, or is about to have, what is wanted of it.
    pub healthy: bool,
    /// Each thing that stands in the way.
    pub reasons: Vec<String>,
}

/// Judges a status. A pool that was told to be empty is healthy.
#[must_use]
pub fn health(status: &Status) -> Health {
    let mut reasons = Vec::new();
    reasons.extend(
        status
            .systemd_error
            .iter()
            .map(|error| format!("systemd: {error}")),
    );
    reasons.extend(
        status
            .records_error
            .iter()
            .map(|error| format!("records: {error}")),
    );
    if status.state == "running" {
        reasons.extend(
            status
                .github
                .error
                .iter()
                .map(|error| format!("GitHub: {error}")),
        );
        for pool in &status.pools {
            let count = |phase: &str| pool.phases.get(phase).copied().unwrap_or_default();
            let full = pool.phases.values().sum::<u64>() >= u64::from(pool.wanted.max);
            if count("idle") + count("registering") + count("minting") == 0 && !full {
                let why = pool
                    .backoffs
                    .first()
                    .map_or("it is starting", |backoff| backoff.reason.as_str());
                reasons.push(format!(
                    "pool {} has no runner that waits for a job: {why}",
                    pool.name
                ));
            }
        }
    }
    Health {
        healthy: reasons.is_empty(),
        reasons,
    }
}

/// The routes that change nothing, for any listener.
fn readers() -> Router<Shared> {
    Router::new()
        .route("/health", get(get_health))
        .route("/status", get(get_status))
        .route("/metrics", get(get_metrics))
}

/// The routes of a TCP listener.
pub fn public(status: watch::Receiver<Status>, requests: mpsc::Sender<Request>) -> Router {
    readers().with_state(Shared { status, requests })
}

/// The routes of the Unix socket.
pub fn local(status: watch::Receiver<Status>, requests: mpsc::Sender<Request>) -> Router {
    readers()
        .route(
            "/drain",
            post(|State(shared): State<Shared>| ask(shared, Command::Drain)),
        )
        .route(
            "/undrain",
            post(|State(shared): State<Shared>| ask(shared, Command::Undrain)),
        )
        .route(
            "/clear",
            post(|State(shared): State<Shared>| ask(shared, Command::Clear)),
        )
        .with_state(Shared { status, requests })
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
    axum::Json(shared.status.borrow().clone()).into_response()
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

async fn ask(shared: Shared, command: Command) -> Response {
    let (reply, accepted) = oneshot::channel();
    let sent = shared.requests.send((command, reply)).await.is_ok();
    let answered = sent && matches!(tokio::time::timeout(ACCEPT, accepted).await, Ok(Ok(())));
    if answered {
        StatusCode::ACCEPTED.into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the controller is stopping",
        )
            .into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{PoolStatus, Wanted};

    #[test]
    fn a_pool_that_takes_no_job_is_not_healthy() {
        let wanted = Wanted {
            idle: 1,
            spare: 1,
            max: 2,
        };
        let mut pool = PoolStatus {
            name: "ci".into(),
            wanted,
            ..PoolStatus::default()
        };
        pool.phases.insert("spare".into(), 1);
        let mut status = Status {
            state: "running".into(),
            pools: vec![pool],
            ..Status::default()
        };
        assert_eq!(
            health(&status).reasons,
            ["pool ci has no runner that waits for a job: it is starting"]
        );
        status.pools[0].phases.insert("busy".into(), 2);
        assert!(health(&status).healthy, "it is full of jobs");
        status.pools[0].phases.clear();
        status.state = "drained".into();
        assert!(health(&status).healthy, "it was told to be empty");
    }
}
