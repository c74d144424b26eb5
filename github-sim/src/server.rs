//! Connections: from bytes to values and back, with faults in between.

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures_util::stream;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::{
    broker,
    control::Control,
    faults::Action,
    http::{Call, Reply},
    keep::Keeper,
    options::Options,
    rest,
    route::{Endpoint, Route},
    state::{Hub, State, unix_ms},
    stats::RequestRecord,
};

/// GitHub takes bodies up to 25 MB; what we serve needs far less.
const LARGEST_BODY: usize = 1024 * 1024;

/// How soon time-driven changes (lapses, reaping) reach those who wait.
const TICK: Duration = Duration::from_millis(20);

type ReplyBody = UnsyncBoxBody<Bytes, io::Error>;

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The state's file cannot be read or written.
    #[error("cannot keep the state in {}", path.display())]
    State {
        /// The file as configured.
        path: PathBuf,
        /// What the system or the parser said.
        #[source]
        source: io::Error,
    },
    /// No address, token or scope was given.
    #[error("no {0} was given")]
    Missing(&'static str),
}

/// The server; see [`Server::start`].
#[derive(Debug)]
pub struct Server;

/// A running server. Dropping it closes every connection.
pub struct Handle {
    control: Control,
    addresses: Vec<SocketAddr>,
    url: String,
    token: String,
    _stop: watch::Sender<()>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Starts serving on the current tokio runtime. When this returns, connections are accepted.
    pub async fn start(options: Options) -> Result<Handle, StartError> {
        let token = options
            .tokens
            .first()
            .cloned()
            .ok_or(StartError::Missing("token"))?;
        if options.scopes.is_empty() {
            return Err(StartError::Missing("scope"));
        }
        let mut listeners = vec![];
        let mut addresses = vec![];
        for address in &options.listen {
            let failed = |source| StartError::Listen {
                address: *address,
                source,
            };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let first = addresses.first().ok_or(StartError::Missing("address"))?;
        let url = options
            .public_url
            .unwrap_or_else(|| format!("http://{first}"));
        let url = url.trim_end_matches('/').to_owned();
        let mut state = State::new(
            options.settings,
            options.tokens,
            options.app,
            options.scopes,
            url.clone(),
        );
        if let Some(path) = options.state {
            let kept = Keeper::open(&path, &mut state);
            state.keeper = Some(kept.map_err(|source| StartError::State { path, source })?);
        }
        let hub = Arc::new(Hub::new(state));
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept(listener, Arc::clone(&hub), stopped.clone()));
        }
        let ticking = Arc::clone(&hub);
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.tick();
            }
        });
        Ok(Handle {
            control: Control::new(hub),
            addresses,
            url,
            token,
            _stop: stop,
            _tasks: tasks,
        })
    }
}

impl Handle {
    /// Base URL, without a slash at the end: where REST is served and what JIT configs name.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The addresses that are listened on, in the order of the options.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The first accepted token, as configured.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The control API as methods.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}

async fn accept(listener: TcpListener, hub: Arc<Hub>, stopped: watch::Receiver<()>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, Arc::clone(&hub), stopped.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely; others may be closed meanwhile.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, hub: Arc<Hub>, mut stopped: watch::Receiver<()>) {
    // Small answers, each awaited by the caller: do not wait for more to send.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| respond(Arc::clone(&hub), request));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
        _ = stopped.changed() => {}
    }
}

/// Marks a connection that a fault rule wants closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("dropped on request")]
struct Dropped;

async fn respond(
    hub: Arc<Hub>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Dropped> {
    let call = match read(request).await {
        Ok(call) => call,
        Err(reply) => return Ok(plain(reply)),
    };
    let route = Route::of(&call.method, &call.path);
    if let Route::Control(path) = &route {
        return Ok(plain(Control::new(hub).answer(&call, path)));
    }
    let endpoint = route.endpoint();
    let _in_flight = InFlight::begin(&hub, &route);
    let (delay_ms, fault) =
        hub.note(|state, _| state.faults.take(&call.method, &call.target, endpoint));
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
    let request_id = crate::random::request_id();
    let at = unix_ms();
    let limited_ms = note_limited(&hub, &route);
    let dropped = matches!(fault, Some(Action::DropBefore | Action::DropAfter));
    let made_up = fault
        .as_ref()
        .and_then(|fault| hub.note(|state, now| made_up(state, now, &call, endpoint, fault)));
    let mut reply = match (&fault, made_up) {
        (Some(Action::DropBefore), _) => None,
        (_, Some(reply)) => Some(reply),
        _ => Some(handle(&hub, &call, &route).await),
    };
    if let Some(reply) = &mut reply {
        reply.set("x-github-request-id", &request_id);
    }
    hub.note(|state, _| {
        state.stats.record(RequestRecord {
            at,
            method: call.method.clone(),
            path: call.target.clone(),
            endpoint: endpoint.name().into(),
            status: reply
                .as_ref()
                .filter(|_| !dropped)
                .map(|r| r.status.as_u16()),
            request_id,
            conditional: call.headers.contains_key("if-none-match"),
            limited_ms,
        });
    });
    match (reply, fault) {
        (None, _) | (_, Some(Action::DropAfter)) => Err(Dropped),
        (Some(reply), Some(fault)) => Ok(damaged(reply, &fault)),
        (Some(reply), None) => Ok(plain(reply)),
    }
}

/// Counts a call that comes although a limit was announced; says how long ago.
fn note_limited(hub: &Hub, route: &Route) -> Option<u64> {
    let counts = matches!(route, Route::Rest { .. }) && route.endpoint() != Endpoint::RateLimit;
    hub.note(|state, now| {
        let limited_ms = state.limits.announced_for(now).filter(|_| counts)?;
        state.stats.stats.while_limited += 1;
        Some(limited_ms)
    })
}

async fn read(request: Request<Incoming>) -> Result<Call, Reply> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, LARGEST_BODY)
        .collect()
        .await
        .map_err(|_| Reply::empty(StatusCode::PAYLOAD_TOO_LARGE))?;
    let query = parts.uri.query().unwrap_or("");
    Ok(Call {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        target: parts
            .uri
            .path_and_query()
            .map_or_else(|| "/".into(), ToString::to_string),
        headers: parts.headers,
        body: body.to_bytes(),
    })
}

/// One REST call in flight. Also when the caller hangs up, it ends.
struct InFlight<'a>(&'a Hub);

impl<'a> InFlight<'a> {
    fn begin(hub: &'a Hub, route: &Route) -> Option<Self> {
        matches!(route, Route::Rest { .. }).then(|| {
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

async fn handle(hub: &Arc<Hub>, call: &Call, route: &Route) -> Reply {
    match route {
        Route::Broker(endpoint, request) => broker::answer(hub, call, *endpoint, request).await,
        Route::Rest { .. } | Route::Unknown => {
            hub.change(|state, now| rest::answer(state, now, call, route))
        }
        Route::Control(_) => Reply::empty(StatusCode::NOT_FOUND),
    }
}

/// The answer of a fault that does not let the request through.
fn made_up(
    state: &mut State,
    now: u64,
    call: &Call,
    endpoint: Endpoint,
    fault: &Action,
) -> Option<Reply> {
    let (bucket, mut usage) = rest::usage_of(state, now, call, endpoint);
    let mut reply = match fault {
        Action::Status {
            code,
            body,
            headers,
        } => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut reply = match body {
                Some(body) => Reply::json(status, body),
                None if status == StatusCode::NO_CONTENT => Reply::empty(status),
                None => rest::errors::plain(status, status.canonical_reason().unwrap_or("Error")),
            };
            for (name, value) in headers {
                reply.set(name, value);
            }
            reply
        }
        Action::Html502 => {
            return Some(Reply::with_type(
                StatusCode::BAD_GATEWAY,
                "text/html",
                b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>".to_vec(),
            ));
        }
        Action::PrimaryLimit { reset_in_s } => {
            usage.used = usage.limit;
            usage.reset = (now / 1000) + reset_in_s;
            state.limits.announce(now, usage.reset * 1000);
            rest::errors::primary_limit()
        }
        Action::SecondaryLimit { retry_after_s } => {
            state
                .limits
                .announce(now, now + retry_after_s.unwrap_or(60) * 1000);
            rest::errors::secondary_limit(*retry_after_s)
        }
        Action::Forbidden { message } => {
            let permission = if call.path.starts_with("/orgs/") {
                "organization_self_hosted_runners=write"
            } else {
                "administration=write"
            };
            rest::errors::plain(StatusCode::FORBIDDEN, message)
                .header("x-accepted-github-permissions", permission)
        }
        Action::Redirect { to, code } => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::TEMPORARY_REDIRECT);
            rest::errors::plain(status, "Moved").header("location", to)
        }
        Action::Giant { bytes } => {
            let padding = " ".repeat(bytes.saturating_sub(2));
            Reply::with_type(
                StatusCode::OK,
                "application/json",
                format!("[{padding}]").into_bytes(),
            )
        }
        Action::Delay { .. }
        | Action::DropBefore
        | Action::DropAfter
        | Action::Truncate { .. }
        | Action::WrongTypes
        | Action::SlowDrip { .. } => return None,
    };
    rest::add_common_headers(&mut reply, call);
    rest::add_limit_headers(&mut reply, bucket, usage);
    Some(reply)
}

/// The answer of a fault that handles the request and then spoils what it says.
fn damaged(mut reply: Reply, fault: &Action) -> Response<ReplyBody> {
    match fault {
        Action::Truncate { bytes } => {
            let length = reply.body.len();
            let sent = reply.body.slice(..length.min(*bytes));
            let cut = io::Error::new(io::ErrorKind::ConnectionReset, Dropped);
            let frames = stream::iter([Ok(Frame::data(sent)), Err(cut)]);
            response(
                &reply,
                length,
                BodyExt::boxed_unsync(StreamBody::new(frames)),
            )
        }
        Action::SlowDrip { bytes_per_s } => {
            let pause = Duration::from_secs(1) / (*bytes_per_s).max(1);
            let length = reply.body.len();
            let frames = stream::unfold(reply.body.clone(), move |mut rest| async move {
                if rest.is_empty() {
                    return None;
                }
                tokio::time::sleep(pause).await;
                let byte = rest.split_to(1);
                Some((Ok(Frame::data(byte)), rest))
            });
            response(
                &reply,
                length,
                BodyExt::boxed_unsync(StreamBody::new(frames)),
            )
        }
        Action::WrongTypes => {
            if let Some(value) = reply.value() {
                reply.body = wrong_types(value).to_string().into_bytes().into();
            }
            plain(reply)
        }
        Action::Status { .. }
        | Action::Delay { .. }
        | Action::DropBefore
        | Action::DropAfter
        | Action::Html502
        | Action::PrimaryLimit { .. }
        | Action::SecondaryLimit { .. }
        | Action::Forbidden { .. }
        | Action::Redirect { .. }
        | Action::Giant { .. } => plain(reply),
    }
}

fn wrong_types(value: Value) -> Value {
    match value {
        Value::Null => Value::Bool(true),
        Value::Bool(yes) => Value::from(if yes { "yes" } else { "no" }),
        Value::Number(number) => Value::from(number.to_string()),
        Value::String(text) => Value::from(text.len()),
        Value::Array(items) => items.into_iter().map(wrong_types).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, wrong_types(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn plain(reply: Reply) -> Response<ReplyBody> {
    let never = |error: Infallible| match error {};
    let body = Full::new(reply.body.clone()).map_err(never);
    let mut response = Response::new(BodyExt::boxed_unsync(body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = *reply.headers;
    response
}

fn response(reply: &Reply, length: usize, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    response.headers_mut().clone_from(&reply.headers);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}
