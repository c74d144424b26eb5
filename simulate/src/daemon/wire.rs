//! The network of the daemon's GitHub client, which is the real one.

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use runner_controller::github::OctoBody;
use tokio::sync::oneshot;
use tower::Service;

use super::Access;
use crate::api::{ApiAnswer, ApiRequest, Endpoint};
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
    pub(super) fn new(access: Access, scope: String) -> Self {
        Self { access, scope }
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
        self.send_more(&request);
        let mut answered = self.send(&request).await;
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
                _ => {}
            }
        });
    }

    /// Returns the answer that the client gets.
    fn mutate(&self, endpoint: Endpoint, mut answer: ApiAnswer) -> ApiAnswer {
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
    let query = parts.uri.query().unwrap_or_default();
    let page = query
        .split('&')
        .find_map(|part| part.strip_prefix("page=")?.parse().ok());
    let endpoint = match parts.method {
        Method::POST => Endpoint::Mint,
        Method::DELETE => Endpoint::Delete,
        _ if page.is_some_and(|page| page > 1) => Endpoint::Page,
        _ if !parts.uri.path().ends_with("/runners") => Endpoint::Find,
        _ => Endpoint::List,
    };
    let etag = parts.headers.get("if-none-match");
    Ok(ApiRequest {
        endpoint,
        path: parts.uri.path().to_owned(),
        page: page.unwrap_or(1),
        etag: etag.and_then(|tag| tag.to_str().ok()).map(str::to_owned),
        body: String::from_utf8_lossy(&body).into_owned(),
    })
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
