//! The network of the daemon's GitHub client, which is the real one.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use runner_controller::config::Config;
use runner_controller::github::OctoBody;
use runner_controller::pool::{PoolName, RunnerName};
use serde_json::Value;
use tokio::sync::oneshot;
use tower::Service;

use super::access::Access;
use crate::api::{ApiAnswer, ApiRequest, Endpoint};
use crate::event::SimEvent;
use crate::host::BusCall;
use crate::mutation::Mutation;
use crate::network::NoAnswer;

/// Additional calls that a mutation sends with each call.
const EXTRA_CALLS: usize = 30;
/// Registrations that a mutation makes with each mint.
const UNUSED_REGISTRATIONS: usize = 60;

/// The body of an answer.
type Body = BoxBody<Bytes, io::Error>;

/// The network.
#[derive(Clone)]
pub(super) struct Wire {
    access: Access,
    /// The configured scope.
    scope: String,
    config: Arc<Config>,
    /// The largest capacity that was announced, for a mutation.
    largest: Arc<AtomicU32>,
}

/// A poll that waits. The daemon may give it up at any moment.
struct Waiting {
    access: Access,
    call: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let call = self.call;
        (self.access.world).with(|world| world.network.hang_up(call, &mut world.schedule));
    }
}

impl Service<Request<OctoBody>> for Wire {
    type Response = Response<Body>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        Box::pin(self.clone().exchange(request))
    }
}

impl Wire {
    pub(super) fn new(access: Access, scope: String, config: Arc<Config>) -> Self {
        Self {
            access,
            scope,
            config,
            largest: Arc::default(),
        }
    }

    async fn exchange(self, request: Request<OctoBody>) -> Result<Response<Body>, io::Error> {
        let mut request = read(request).await?;
        let endpoint = request.endpoint;
        if self.access.has(Mutation::ScopeIgnored) && endpoint == Endpoint::Delete {
            request.path = request.path.replace(&request.scope(), &self.scope);
        }
        if self.access.has(Mutation::DeletionsDropped)
            && let Some(runner) = request.deleted_runner()
            && !(self.access.world).with(|world| world.github.has_job(runner))
        {
            return response(ApiAnswer::error(404, "Not Found"));
        }
        if let Some(capacity) = &mut request.capacity
            && self.access.has(Mutation::CapacityKept)
        {
            let before = self.largest.fetch_max(*capacity, Ordering::Relaxed);
            *capacity = before.max(*capacity);
        }
        self.send_more(&request);
        let mut answered = if endpoint == Endpoint::SetPoll {
            self.poll(&request).await
        } else {
            self.send(&request).await
        };
        if self.access.has(Mutation::CutOffMintRepeated)
            && endpoint == Endpoint::Mint
            && matches!(answered, Some(Err(NoAnswer::CutOff(_))))
        {
            answered = self.send(&request).await;
        }
        match answered {
            Some(Ok(answer)) => response(self.mutate(endpoint, answer)),
            Some(Err(reason)) => unanswered(reason),
            None => std::future::pending().await,
        }
    }

    /// Sends a request; `None` if nothing ever comes back.
    async fn send(&self, request: &ApiRequest) -> Option<Result<ApiAnswer, NoAnswer>> {
        let (incarnation, request) = (self.access.incarnation, request.clone());
        let call = self.access.world.ask(|world, client| {
            (world.network).send(incarnation, request, client, &mut world.schedule);
        });
        call.await
    }

    /// Sends a poll, and closes its connection when the daemon does not wait for the answer any more.
    async fn poll(&self, request: &ApiRequest) -> Option<Result<ApiAnswer, NoAnswer>> {
        let (incarnation, request) = (self.access.incarnation, request.clone());
        let (client, answered) = oneshot::channel();
        let call = self.access.world.with(|world| {
            let schedule = &mut world.schedule;
            let capacity = request.capacity.unwrap_or_default();
            let set = world.github.set_of(&request.token);
            let call = (world.network).send(incarnation, request, client, schedule);
            if let Some(pool) = set.and_then(|set| self.pool_of(&set)) {
                schedule.emit(SimEvent::PollSent {
                    call,
                    pool,
                    capacity,
                });
            }
            call
        });
        let _waiting = Waiting {
            access: self.access.clone(),
            call,
        };
        answered.await.ok()
    }

    /// Returns the pool of a scale set.
    fn pool_of(&self, set: &str) -> Option<PoolName> {
        let mut pools = self.config.pools.iter();
        let pool = pools.find(|pool| pool.scale_set.as_deref() == Some(set));
        pool.map(|pool| pool.name.clone())
    }

    /// Ends the runners whose jobs a message tells as completed.
    fn end_completed(&self, answer: &ApiAnswer) {
        let message: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let items = message["body"].as_str().unwrap_or_default();
        let items: Vec<Value> = serde_json::from_str(items).unwrap_or_default();
        for item in items
            .iter()
            .filter(|item| item["messageType"] == "JobCompleted")
        {
            let name = item["runnerName"].as_str().unwrap_or_default();
            if let Some(name) = RunnerName::parse(&self.config.host, name) {
                let (answer, _) = oneshot::channel();
                self.access.world.with(|world| {
                    let stop = BusCall::Stop(name.slot, answer);
                    world.host.call(stop, &mut world.schedule);
                });
            }
        }
    }

    /// Sends the additional calls of a mutation.
    fn send_more(&self, request: &ApiRequest) {
        let Some(mutation) = self.access.mutation else {
            return;
        };
        self.access.world.with(|world| {
            let schedule = &mut world.schedule;
            match (mutation, request.endpoint) {
                (Mutation::ExtraMints, Endpoint::Mint)
                | (Mutation::ExtraDeletions, Endpoint::Delete)
                | (Mutation::ExtraLists, Endpoint::List) => {
                    for _ in 0..EXTRA_CALLS {
                        world.network.send_in_vain(request, schedule);
                    }
                }
                (Mutation::UnusedRegistrations, Endpoint::Mint) => {
                    let count = UNUSED_REGISTRATIONS;
                    world
                        .github
                        .register_unused(count, "sim-ci-1", "ci", schedule);
                }
                (Mutation::NameReused, Endpoint::Mint) => {
                    let (client, _) = oneshot::channel();
                    let incarnation = self.access.incarnation;
                    (world.network).send(incarnation, request.clone(), client, schedule);
                }
                (Mutation::SetsDeleted, Endpoint::SessionClose) => {
                    let (client, _) = oneshot::channel();
                    let incarnation = self.access.incarnation;
                    let (set, _) = request.path.split_once("/sessions").unwrap_or_default();
                    let deletion = ApiRequest {
                        endpoint: Endpoint::SetDelete,
                        path: set.to_owned(),
                        ..request.clone()
                    };
                    (world.network).send(incarnation, deletion, client, schedule);
                }
                _ => {}
            }
        });
    }

    /// Returns the answer that the client gets.
    fn mutate(&self, endpoint: Endpoint, mut answer: ApiAnswer) -> ApiAnswer {
        if self.access.has(Mutation::CompletedTakenForEnd) && endpoint == Endpoint::SetPoll {
            self.end_completed(&answer);
        }
        if self.access.has(Mutation::BusyTakenForDeleted)
            && endpoint == Endpoint::Delete
            && answer.status == 422
        {
            answer.status = 404;
        }
        if self.access.has(Mutation::FailedDeletionTakenForDone)
            && endpoint == Endpoint::Delete
            && answer.status >= 500
        {
            answer.status = 404;
        }
        if self.access.has(Mutation::LimitsIgnored) {
            if answer.limits.refused_until.is_some() {
                answer.status = 500;
            }
            let announces = |name: &str| name == "retry-after" || name.starts_with("x-ratelimit");
            answer.headers.retain(|(name, _)| !announces(name));
        }
        if self.access.has(Mutation::OnlineTakenForOffline) {
            answer.body = answer.body.replace("\"online\"", "\"offline\"");
        }
        if self.access.has(Mutation::ForeignTakenForOwn) {
            answer.body = answer.body.replace("\"sim-a-", "\"sim-");
        }
        answer
    }
}

/// Returns what the client sees of a failed connection, as `hyper_util`'s tunnel and hyper report it.
fn unanswered(reason: NoAnswer) -> Result<Response<Body>, io::Error> {
    match reason {
        NoAnswer::ConnectionReset => Err(io::ErrorKind::ConnectionReset.into()),
        NoAnswer::ProxyRefused(407) => Err(io::Error::other(
            "tunnel error: proxy authorization required",
        )),
        NoAnswer::ProxyRefused(_) => Err(io::Error::other("tunnel error: unsuccessful")),
        NoAnswer::CutOff(answer) if answer.body.is_empty() => {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
        NoAnswer::CutOff(answer) => {
            response_until(answer, Some(io::ErrorKind::UnexpectedEof.into()))
        }
    }
}

/// Reads a request of the client.
async fn read(request: Request<OctoBody>) -> Result<ApiRequest, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let header = |name: &str| parts.headers.get(name)?.to_str().ok();
    let query = parts.uri.query().unwrap_or_default();
    let page = query
        .split('&')
        .find_map(|part| part.strip_prefix("page=")?.parse().ok());
    let path = parts.uri.path();
    let token = header("authorization").and_then(|value| value.rsplit(' ').next());
    Ok(ApiRequest {
        endpoint: endpoint(&parts.method, path, page.unwrap_or(1)),
        path: path.to_owned(),
        query: query.to_owned(),
        page: page.unwrap_or(1),
        etag: header("if-none-match").map(str::to_owned),
        token: token.unwrap_or_default().to_owned(),
        capacity: header("x-scalesetmaxcapacity").and_then(|value| value.parse().ok()),
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Returns the call that a request is.
fn endpoint(method: &Method, path: &str, page: usize) -> Endpoint {
    let is_post = *method == Method::POST;
    let is_delete = *method == Method::DELETE;
    if path.ends_with("/runner-registration") {
        return Endpoint::SetAccess;
    }
    if path.contains("/scalesets/message") {
        return if is_delete {
            Endpoint::SetAcknowledge
        } else {
            Endpoint::SetPoll
        };
    }
    if let Some((_, rest)) = path.split_once("/runnerscalesets") {
        let parts: Vec<&str> = rest.split('/').skip(1).collect();
        return match parts[..] {
            [] if is_post => Endpoint::SetCreate,
            [] => Endpoint::SetFind,
            [_] => Endpoint::SetDelete,
            [_, "generatejitconfig"] => Endpoint::SetMint,
            [_, "sessions"] => Endpoint::SessionOpen,
            _ if is_delete => Endpoint::SessionClose,
            _ => Endpoint::SessionRefresh,
        };
    }
    match *method {
        Method::POST if path.ends_with("/registration-token") => Endpoint::RegistrationToken,
        Method::POST => Endpoint::Mint,
        Method::DELETE => Endpoint::Delete,
        _ if page > 1 => Endpoint::Page,
        _ if !path.ends_with("/runners") => Endpoint::Find,
        _ => Endpoint::List,
    }
}

fn response(answer: ApiAnswer) -> Result<Response<Body>, io::Error> {
    response_until(answer, None)
}

/// Returns an answer whose connection fails after its body.
fn response_until(
    answer: ApiAnswer,
    failure: Option<io::Error>,
) -> Result<Response<Body>, io::Error> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    let body = Full::new(Bytes::from(answer.body)).map_err(|never| match never {});
    // Trailers are what comes after a body.
    let body = body.with_trailers(ready(failure.map(Err)));
    response.body(body.boxed()).map_err(io::Error::other)
}
