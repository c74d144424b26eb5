//! Routes, and the way of a request from its connection to its answer.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{ConnectInfo, DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::any,
};

use super::{
    connection::ConnectionHandle,
    faulty::{self, Handling},
};
use crate::{
    control::{self, Control},
    endpoint::Endpoint,
    faults::Fault,
    http::{ApiReply, ApiRequest, ENTERPRISE},
    listener_api, rest, results_api, scale_set_api,
    state::{Hub, unix_ms},
    stats::RequestRecord,
};

/// Maximum size of a body. GitHub takes 25 MB; the endpoints that are served here need far less.
const BODY_BYTES: usize = 1024 * 1024;
/// Maximum size of a block of a log. GitHub's worker cuts logs into blocks of 2 MB.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// Returns the routes of all endpoints and of the control API.
///
/// Each path takes any method and leaves the choice to [`Endpoint::of`]. GitHub answers a wrong method
/// with 404, where axum's own method routing would answer 405 with `Allow`.
pub(crate) fn router(hub: &Arc<Hub>) -> Router {
    Endpoint::paths()
        .into_iter()
        .fold(Router::new(), |router, path| {
            let method = if Endpoint::of("PUT", path) == Endpoint::Blob {
                any(serve).layer(DefaultBodyLimit::max(BLOCK_BYTES))
            } else {
                any(serve)
            };
            let router = match enterprise_path(path) {
                Some(path) => router.route(&path, method.clone()),
                None => router,
            };
            router.route(path, method)
        })
        .fallback(serve)
        .with_state(Arc::clone(hub))
        .nest("/_sim", control::routes(Control::new(Arc::clone(hub))))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(restore))
}

/// Returns the path of a REST endpoint on GitHub Enterprise Server.
fn enterprise_path(path: &str) -> Option<String> {
    let rest = ["/orgs/", "/repos/", "/app/", "/actions/runner-registration"];
    rest.iter()
        .any(|start| path.starts_with(start))
        .then(|| format!("{ENTERPRISE}{path}"))
}

/// Ends the fault of the request before on the same connection.
async fn restore(
    ConnectInfo(connection): ConnectInfo<ConnectionHandle>,
    request: Request,
    next: Next,
) -> Response {
    connection.restore();
    next.run(request).await
}

/// Serves one request, with the faults that are injected into it.
async fn serve(
    State(hub): State<Arc<Hub>>,
    ConnectInfo(connection): ConnectInfo<ConnectionHandle>,
    request: ApiRequest,
) -> Response {
    let _in_flight = InFlight::begin(&hub, request.endpoint);
    let (delay_ms, fault) = hub.note(|state, _| {
        state
            .faults
            .take(&request.method, &request.target, request.endpoint)
    });
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    let request_id = crate::random::request_id();
    let at = unix_ms();
    let limited_ms = note_limited(&hub, request.endpoint);
    let handling = fault.as_ref().map_or(Handling::Handled, |fault| {
        hub.note(|state, now| faulty::handling(state, now, &request, fault))
    });
    let mut reply = match handling {
        Handling::Handled => Some(handle(&hub, &request).await),
        Handling::Refused(reply) => Some(reply),
        Handling::Ignored => None,
    };
    if let Some(reply) = &mut reply {
        reply.set("x-github-request-id", &request_id);
    }
    let sent = reply.as_ref().filter(|_| fault != Some(Fault::DropAfter));
    let status = sent.map(|reply| reply.status.as_u16());
    hub.note(|state, _| {
        state.stats.record(RequestRecord {
            at,
            method: request.method.clone(),
            path: request.target.clone(),
            endpoint: request.endpoint.name().into(),
            status,
            request_id,
            conditional: request.headers.contains_key("if-none-match"),
            limited_ms,
        });
    });
    faulty::send(reply, fault.as_ref(), &connection)
}

async fn handle(hub: &Arc<Hub>, request: &ApiRequest) -> ApiReply {
    if request.endpoint.is_rest() || request.endpoint == Endpoint::Unknown {
        hub.change(|state, now| rest::answer(state, now, request))
    } else if let Endpoint::ScaleSet(call) = request.endpoint {
        scale_set_api::answer(hub, request, call).await
    } else if request.endpoint.is_results() {
        hub.change(|state, _| results_api::answer(state, request))
    } else {
        listener_api::answer(hub, request).await
    }
}

/// Counts a call that arrives although a limit was announced. Returns the age of the announcement.
fn note_limited(hub: &Hub, endpoint: Endpoint) -> Option<u64> {
    let counts = endpoint.is_rest() && endpoint != Endpoint::RateLimit;
    hub.note(|state, now| {
        let limited_ms = state.limits.announced_for(now).filter(|_| counts)?;
        state.stats.while_limited += 1;
        Some(limited_ms)
    })
}

/// One REST call in flight. It also ends when the client closes the connection.
struct InFlight<'a>(&'a Hub);

impl<'a> InFlight<'a> {
    fn begin(hub: &'a Hub, endpoint: Endpoint) -> Option<Self> {
        endpoint.is_rest().then(|| {
            hub.note(|state, _| state.limits.in_flight += 1);
            Self(hub)
        })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.note(|state, _| state.limits.in_flight -= 1);
    }
}
