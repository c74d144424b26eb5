//! Requests with deliveries, and their answers.

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{debug, warn};

use super::counts::Counts;
use super::delivery::{self, Delivery};
use super::secrets::{Secrets, Signature};
use crate::pool::{KnownJob, ScopeId};
use crate::status::DeliveryOutcome;
use crate::world::{Delivered, Event, Hook, HookOwner, Inbox, KnownHooks, MAX_DELIVERY_ID, chain};

/// Path of deliveries.
pub(super) const PATH: &str = "/webhook";
/// Maximum size of a delivery: GitHub sends none that is larger.
const MAX_BYTES: usize = 25 * 1024 * 1024;
/// Memory for the bodies of all deliveries that arrive at once, in KiB: one of the maximum size and many usual ones,
/// which have about 20 KiB.
const BODIES_KIB: usize = 32 * 1024;

/// Receiver of deliveries.
#[derive(Debug)]
pub struct Receiver<I> {
    /// Secrets of the hook.
    pub secrets: Secrets,
    /// Scopes of this host.
    pub scopes: Vec<ScopeId>,
    /// Records.
    pub inbox: I,
    /// Events for the controller.
    pub events: mpsc::Sender<Event>,
    /// Deliveries by outcome.
    pub counts: Counts,
    /// Hooks that sent a delivery about a job.
    pub hooks: watch::Sender<KnownHooks>,
    /// Wall clock in milliseconds since 1970.
    pub unix_ms: fn() -> u64,
}

struct Shared<I> {
    receiver: Receiver<I>,
    bodies: Arc<Semaphore>,
}

/// Returns the one route.
pub fn router<I: Inbox>(receiver: Receiver<I>) -> Router {
    let shared = Shared {
        receiver,
        bodies: Arc::new(Semaphore::new(BODIES_KIB)),
    };
    Router::new()
        .route(PATH, post(receive::<I>))
        .with_state(Arc::new(shared))
}

/// A refusal or an acceptance: how it counts, and what GitHub's page of the delivery shows.
struct Answer {
    outcome: DeliveryOutcome,
    status: StatusCode,
    text: String,
}

impl Answer {
    fn new(outcome: DeliveryOutcome, status: StatusCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            outcome,
            status,
            text,
        }
    }

    fn malformed(status: StatusCode, text: impl Into<String>) -> Self {
        Self::new(DeliveryOutcome::Malformed, status, text)
    }
}

async fn receive<I: Inbox>(State(shared): State<Arc<Shared<I>>>, request: Request) -> Response {
    let receiver = &shared.receiver;
    let (answer, is_signed) = match signed_body(&shared, request).await {
        Ok((headers, body)) => (take(receiver, &headers, &body).await, true),
        Err(answer) => (answer, false),
    };
    let signed_at = is_signed.then(receiver.unix_ms);
    receiver.counts.add(answer.outcome, signed_at);
    if !answer.status.is_success() {
        let (outcome, text) = (answer.outcome, &answer.text);
        debug!(%outcome, "delivery refused: {outcome}: {text}");
    }
    (answer.status, answer.text).into_response()
}

/// Returns the headers and the body of a request whose signature is right.
async fn signed_body<I: Inbox>(
    shared: &Shared<I>,
    request: Request,
) -> Result<(HeaderMap, Vec<u8>), Answer> {
    let (head, body) = request.into_parts();
    let length = head.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let Some(length) = length else {
        let text = "the request has no Content-Length";
        return Err(Answer::malformed(StatusCode::LENGTH_REQUIRED, text));
    };
    let too_large = || {
        let text = format!("a delivery has at most {MAX_BYTES} bytes");
        Answer::new(
            DeliveryOutcome::TooLarge,
            StatusCode::PAYLOAD_TOO_LARGE,
            text,
        )
    };
    if length > MAX_BYTES {
        return Err(too_large());
    }
    let kib = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
    // The listener's timeout bounds the wait. The semaphore is never closed.
    let _room = shared.bodies.acquire_many(kib).await.ok();
    let Ok(body) = to_bytes(body, length).await else {
        let text = "the body is not as long as Content-Length";
        return Err(Answer::malformed(StatusCode::BAD_REQUEST, text));
    };
    match shared.receiver.secrets.judge(&head.headers, &body) {
        Signature::Right => Ok((head.headers, body.to_vec())),
        Signature::Missing => Err(Answer::new(
            DeliveryOutcome::Unsigned,
            StatusCode::UNAUTHORIZED,
            "the delivery has no X-Hub-Signature-256; set the hook's secret at GitHub",
        )),
        Signature::Wrong => Err(Answer::new(
            DeliveryOutcome::WrongSignature,
            StatusCode::UNAUTHORIZED,
            "the signature is wrong; the hook's secret at GitHub must be that of webhook.secret_file",
        )),
    }
}

/// Takes a delivery whose signature is right.
async fn take<I: Inbox>(receiver: &Receiver<I>, headers: &HeaderMap, body: &[u8]) -> Answer {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let text = "set the hook's content type to application/json at GitHub";
        return Answer::malformed(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    let is_id = |id: &&str| {
        (1..=MAX_DELIVERY_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let id = text("x-github-delivery").filter(is_id);
    let (Some(id), Some(event)) = (id, text("x-github-event")) else {
        let text = "the request has no X-GitHub-Delivery or no X-GitHub-Event";
        return Answer::malformed(StatusCode::BAD_REQUEST, text);
    };
    let unix_ms = (receiver.unix_ms)();
    let accepted = |outcome, text: &str| Answer::new(outcome, StatusCode::ACCEPTED, text);
    match delivery::read(event, body, &receiver.scopes, unix_ms) {
        Ok(Delivery::Ping) => Answer::new(DeliveryOutcome::Ping, StatusCode::OK, "pong"),
        Ok(Delivery::Ignored) => accepted(DeliveryOutcome::Ignored, "ignored"),
        // A refusal would be repeated, and an App sends deliveries of all its installations.
        Ok(Delivery::OutsideScope) => accepted(
            DeliveryOutcome::OutsideScope,
            "ignored: the repository is not in a scope of this host",
        ),
        Ok(Delivery::Job(job)) => {
            if let Some(hook) = hook_of(headers, &job.description().repository) {
                let scope = &job.key.scope;
                let hooks = &receiver.hooks;
                hooks.send_if_modified(|known| known.learn(scope, hook));
            }
            record(receiver, id.to_owned(), *job, unix_ms).await
        }
        Err(error) => Answer::malformed(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

/// Returns the hook that sent a delivery about a job of a repository. Source: GitHub, "Webhook events and payloads",
/// "Delivery headers".
fn hook_of(headers: &HeaderMap, repository: &str) -> Option<Hook> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let owner = match text("x-github-hook-installation-target-type")? {
        "integration" => HookOwner::App,
        "organization" => {
            let (organization, _) = repository.split_once('/')?;
            HookOwner::Organization(organization.to_ascii_lowercase())
        }
        "repository" => HookOwner::Repository(repository.to_ascii_lowercase()),
        // Enterprises have no such list of deliveries.
        _ => return None,
    };
    let id = text("x-github-hook-id")?.parse().ok()?;
    Some(Hook { owner, id })
}

/// Puts a job on record, and then tells the controller.
async fn record<I: Inbox>(
    receiver: &Receiver<I>,
    id: String,
    job: KnownJob,
    unix_ms: u64,
) -> Answer {
    let (inbox, events) = (receiver.inbox.clone(), receiver.events.clone());
    // A task, because the controller must learn of the job although the client goes away meanwhile.
    let recorded = tokio::spawn(async move {
        let Delivered { is_new, job } = inbox.deliver(id, job, unix_ms).await?;
        // A delivery on record may not have reached the controller, and a job merges with itself.
        if let Some(job) = job {
            let _ = events.send(Event::Job(Box::new(job))).await;
        }
        Ok::<bool, I::Error>(is_new)
    });
    match recorded.await {
        Ok(Ok(true)) => Answer::new(DeliveryOutcome::Accepted, StatusCode::ACCEPTED, "accepted"),
        Ok(Ok(false)) => Answer::new(
            DeliveryOutcome::Duplicate,
            StatusCode::ACCEPTED,
            "on record already",
        ),
        Ok(Err(error)) => {
            let error = chain(&error);
            warn!(
                error,
                "cannot put a delivery on record: {error}; GitHub has to send it again"
            );
            not_recorded()
        }
        Err(_) => not_recorded(),
    }
}

fn not_recorded() -> Answer {
    Answer::new(
        DeliveryOutcome::NotRecorded,
        StatusCode::SERVICE_UNAVAILABLE,
        "the delivery could not be put on record",
    )
}

#[cfg(test)]
mod tests;
