//! Health, status and metrics over HTTP, and what an operator can ask.
//!
//! Reads one watch channel. A GET changes nothing; a POST is passed to the controller, if who sent it
//! may. Who may connect to the Unix socket is said by its group and mode, and asked of the kernel
//! again for each change. TCP listeners only show, unless a token is configured.

mod access;
pub mod client;
mod metrics;
mod serve;
#[cfg(test)]
mod sockets;

pub use access::{Access, ApiToken, ApiTokenError, CREDENTIAL, Peer};
pub use serve::{Limits, serve_tcp, serve_unix};

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
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
            .firewall_error
            .iter()
            .map(|error| format!("firewall: {error}")),
    );
    reasons.extend(
        status
            .short
            .iter()
            .map(|(resource, why)| format!("{resource}: {why}")),
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

/// All routes. Each request comes with the [`Access`] of its connection.
pub fn router(status: watch::Receiver<Status>, requests: mpsc::Sender<Request>) -> Router {
    let command = |command: fn() -> Command| {
        post(async move |State(shared): State<Shared>| ask(shared, command()).await)
            .route_layer(from_fn(access::guard))
    };
    Router::new()
        .route("/health", get(get_health))
        .route("/status", get(get_status))
        .route("/metrics", get(get_metrics))
        .route("/drain", command(|| Command::Drain))
        .route("/undrain", command(|| Command::Undrain))
        .route("/clear", command(|| Command::Clear))
        .with_state(Shared { status, requests })
}

/// What [`crate::outside`] tries: a request, through each door. Only a POST of root on the socket may
/// ask the controller for something.
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "to panic is how it tells")]
pub(crate) fn try_request(bytes: &[u8]) {
    use tower::ServiceExt as _;
    let Some(request) = read_request(bytes) else {
        return;
    };
    let asks = request.method() == axum::http::Method::POST;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let token = ApiToken::of(b"a token that no input has by chance");
    let root = Peer {
        uid: 0,
        gid: 0,
        pid: None,
    };
    let doors = [
        (Access::ReadOnly, false),
        (Access::Token(token), false),
        (Access::Peer(root), asks),
    ];
    for (access, may_ask) in doors {
        let (requests, mut asked) = mpsc::channel::<Request>(1);
        let (_show, status) = watch::channel(Status::default());
        let answered = runtime.block_on(async {
            let mut sent = request.clone().map(axum::body::Body::from);
            sent.extensions_mut().insert(access);
            let answer = router(status, requests).oneshot(sent);
            let controller = async {
                while let Some((command, reply)) = asked.recv().await {
                    assert!(may_ask, "{command:?} was asked for by {request:?}");
                    let _ = reply.send(());
                }
                std::future::pending().await
            };
            tokio::select! { answer = answer => answer, never = controller => never }
        });
        let answered = answered.expect("an answer");
        assert!(answered.status().as_u16() >= 200, "{answered:?}");
    }
}

/// `METHOD PATH`, header lines, an empty line, the body.
#[cfg(any(test, fuzzing))]
fn read_request(bytes: &[u8]) -> Option<axum::http::Request<Vec<u8>>> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = axum::http::Request::builder().method(method).uri(path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(body.as_bytes().to_vec()).ok()
}

/// What [`crate::outside`] tries: metrics of a status have one line each.
#[cfg(any(test, fuzzing))]
#[expect(clippy::expect_used, reason = "to panic is how it tells")]
pub(crate) fn try_metrics(status: &Status) {
    let text = metrics::render(status).expect("text");
    for line in text.lines() {
        assert!(
            line.starts_with("# ") || line.starts_with("runner_controller_"),
            "{line:?}"
        );
    }
    let _ = health(status);
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
