//! One request, one answer: the rules that hold for every call.
//!
//! octocrab is used without its own client: that one sends a second `User-Agent`, turns a
//! redirected POST into a GET and logs failures that we return. Nothing is retried, except that
//! hyper takes a new connection for a request of which it could not begin to send a byte.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, IF_NONE_MATCH, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as HyperClient, connect::Connect};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use tower::Service;
use url::Url;

use super::authority::Authority;
use super::budget::{Budget, Limit, LimitHeaders, Quota, Withheld};
use super::link::{self, Astray};
use super::operation::{Operation, Tally, outcome_of};
use super::refusal::{self, Context};
use super::secrets::Secrets;
use super::{Login, SetupError, Token};
use crate::config;
use crate::world::{RegistryError, RegistryErrorKind};

/// The largest answer that is read. A page of 100 runners with many labels has some 200 KiB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// GitHub redirects once when a repository was renamed.
const MAX_REDIRECTS: usize = 4;

/// Mints go four at a time, a list and a delete beside them.
const MAX_IDLE_CONNECTIONS: usize = 6;

/// An idle connection is given up before a server or a router on the way may do so: a request that
/// meets the end of its connection is one of which nobody knows whether it was carried out.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// What to send.
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) method: Method,
    pub(super) url: Url,
    /// JSON.
    pub(super) body: Option<String>,
    /// Answered with 304 and no body if it still holds.
    pub(super) etag: Option<HeaderValue>,
}

/// A success, or the 304 that was asked for.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// How long not to call, if it announced a limit.
    limited: Option<Duration>,
}

pub(super) struct Client {
    octocrab: Octocrab,
    headers: HeaderMap,
    pub(super) authority: Authority,
    timeout: Duration,
    pub(super) context: Context,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    budget: Budget,
    tally: Tally,
}

impl Client {
    pub(super) fn new(config: &config::GitHubConfig, login: Login) -> Result<Self, SetupError> {
        Self::over(connect(config)?, config, login)
    }

    pub(super) fn over(
        octocrab: Octocrab,
        config: &config::GitHubConfig,
        login: Login,
    ) -> Result<Self, SetupError> {
        let secrets = Secrets::default();
        if let Login::Token(token) = &login {
            secrets.keep(token.clone());
        }
        Ok(Self {
            octocrab,
            headers: common_headers(config)?,
            authority: Authority::new(login, config),
            timeout: config.timeout,
            context: Context {
                login: config.login.clone(),
                scope: config.scope.to_string(),
                secrets,
            },
            books: Mutex::default(),
        })
    }

    /// Sends it, unless a limit forbids that now. Never sends it twice, but follows redirects
    /// within the origin, and shows an App's next token where one was refused: GitHub answers both
    /// before doing anything. Takes at most the configured
    /// timeout, body included. Cancelling drops the connection; GitHub may carry it out all the same.
    pub(super) async fn send(&self, request: Request) -> Result<Answer, RegistryError> {
        let operation = request.operation;
        let started = Instant::now();
        let exchange = tokio::time::timeout(self.timeout, self.exchange(request));
        let result = exchange.await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(self.timeout);
            Err(self.unreachable(operation, &format!("no whole answer within {limit}")))
        });
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let operation_name = operation.name();
        match &result {
            Ok(answer) => {
                let outcome = if answer.status == StatusCode::NOT_MODIFIED {
                    "not_modified"
                } else {
                    "ok"
                };
                self.books().tally.count(operation, outcome);
                tracing::debug!(
                    operation = operation_name,
                    status = answer.status.as_u16(),
                    request_id = refusal::request_id(&answer.headers),
                    elapsed_ms,
                    "github answered"
                );
            }
            Err(error) => {
                let withheld = error.kind == RegistryErrorKind::Limited && error.status.is_none();
                let outcome = if withheld {
                    "withheld"
                } else {
                    outcome_of(error)
                };
                self.books().tally.count(operation, outcome);
                tracing::debug!(
                    operation = operation_name,
                    status = error.status,
                    request_id = error.request_id,
                    elapsed_ms,
                    outcome,
                    "github did not do it"
                );
            }
        }
        result
    }

    async fn exchange(&self, request: Request) -> Result<Answer, RegistryError> {
        let token = self.token(request.operation).await?;
        let result = self.exchange_as(&request, &token).await;
        match (&self.authority, &result) {
            // GitHub answers that before it does anything, so the request may go once more.
            (Authority::App(app), Err(error)) if error.kind == RegistryErrorKind::Unauthorized => {
                app.drop_token(&token).await;
                let token = self.token(request.operation).await?;
                self.exchange_as(&request, &token).await
            }
            _ => result,
        }
    }

    /// One request as whoever this token belongs to, redirects followed.
    pub(super) async fn exchange_as(
        &self,
        request: &Request,
        token: &Token,
    ) -> Result<Answer, RegistryError> {
        let mut url = request.url.clone();
        for _ in 0..MAX_REDIRECTS {
            let answer = self.once(request, &url, token).await?;
            let Some(target) = redirect_target(&answer) else {
                return self.settle(request, answer);
            };
            match link::resolve(&url, &target) {
                Ok(next) => url = next,
                // Its refusal says where it leads.
                Err(Astray::OtherOrigin(_) | Astray::Unreadable) => {
                    return self.settle(request, answer);
                }
            }
            self.books().tally.count(request.operation, "redirected");
        }
        let message = format!("more than {MAX_REDIRECTS} redirects in a row");
        Err(self.error(request.operation, RegistryErrorKind::Server, &message))
    }

    /// One request and its whole answer, whatever its status.
    async fn once(
        &self,
        request: &Request,
        url: &Url,
        token: &Token,
    ) -> Result<Answer, RegistryError> {
        let operation = request.operation;
        let http = self.build(request, url, token).map_err(|error| {
            self.error(operation, RegistryErrorKind::Invalid, &error.to_string())
        })?;
        // The last look before it leaves: another call may have met a limit since this one began.
        let admitted = self.books().budget.admit(operation, now());
        admitted.map_err(|withheld| self.withheld(operation, &withheld))?;

        let response = self.octocrab.send(http).await;
        let response = response.map_err(|error| self.broken(operation, &error))?;
        let (parts, body) = response.into_parts();
        let body = read_bounded(body).await;
        let seen = match &body {
            Ok(bytes) => bytes.as_slice(),
            Err(_) => &[],
        };
        let limited = self.observe(operation, parts.status, &parts.headers, seen);
        match body {
            Ok(body) => Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
                limited,
            }),
            Err(fault) => {
                let mut error = match fault {
                    BodyFault::TooLarge => self.error(
                        operation,
                        RegistryErrorKind::Server,
                        &format!("the answer is larger than {MAX_ANSWER} bytes"),
                    ),
                    BodyFault::Broken(error) => {
                        let mut broken = self.broken(operation, &error);
                        broken.message = format!("the answer broke off: {}", broken.message);
                        broken
                    }
                };
                if limited.is_some() {
                    error.kind = RegistryErrorKind::Limited;
                    error.retry_after = limited;
                }
                error.status = Some(parts.status.as_u16());
                error.request_id = refusal::request_id(&parts.headers);
                Err(error)
            }
        }
    }

    fn build(
        &self,
        request: &Request,
        url: &Url,
        token: &Token,
    ) -> Result<http::Request<OctoBody>, http::Error> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))?;
        bearer.set_sensitive(true);
        let body = request.body.clone();
        let is_json = body.is_some();
        let body = body.map_or_else(OctoBody::empty, OctoBody::from);
        let mut http = http::Request::builder()
            .method(request.method.clone())
            .uri(url.as_str())
            .body(body)?;
        let headers = http.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(AUTHORIZATION, bearer);
        if is_json {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(etag) = &request.etag {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        Ok(http)
    }

    /// Sends nothing for this long.
    pub(super) fn hold(&self, wait: Duration) {
        self.books().budget.hold(wait, now());
    }

    /// Puts an answer's limits into the books. Returns how long not to call, if it was a limit.
    fn observe(
        &self,
        operation: Operation,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Option<Duration> {
        let limits = LimitHeaders::read(headers, SystemTime::now());
        let limit = refusal::limit_of(status, &limits, body);
        if operation.is_of_app() && matches!(limit, Limit::None) {
            // Its windows are not those of the installation, which has our budget.
            return None;
        }
        // Only a call that was carried out shows that we are not too fast any more.
        let books = &mut *self.books();
        match limit {
            Limit::None if !status.is_success() && status != StatusCode::NOT_MODIFIED => {
                books.budget.observe_refusal(operation, &limits, now());
                None
            }
            Limit::None | Limit::Primary | Limit::Secondary => {
                books.budget.observe(operation, &limits, limit, now())
            }
        }
    }

    fn settle(&self, request: &Request, answer: Answer) -> Result<Answer, RegistryError> {
        let status = answer.status;
        let asked = request.etag.is_some();
        if status.is_success() || (status == StatusCode::NOT_MODIFIED && asked) {
            return Ok(answer);
        }
        Err(refusal::translate(
            request.operation,
            status,
            &answer.headers,
            &answer.body,
            answer.limited,
            &self.context,
        ))
    }

    /// An error without an answer behind it.
    pub(super) fn error(
        &self,
        operation: Operation,
        kind: RegistryErrorKind,
        message: &str,
    ) -> RegistryError {
        RegistryError {
            operation: operation.name(),
            kind,
            status: None,
            message: self.context.clean(message),
            advice: None,
            request_id: None,
            retry_after: None,
        }
    }

    /// An answer that came whole and is not what GitHub documents. `what` quotes nothing of it.
    pub(super) fn misshapen(
        &self,
        operation: Operation,
        answer: &Answer,
        what: &str,
    ) -> RegistryError {
        RegistryError {
            status: Some(answer.status.as_u16()),
            advice: Some("check that github.api_url is the base of GitHub's REST API".to_owned()),
            request_id: refusal::request_id(&answer.headers),
            ..self.error(operation, RegistryErrorKind::Server, what)
        }
    }

    fn withheld(&self, operation: Operation, withheld: &Withheld) -> RegistryError {
        RegistryError {
            retry_after: Some(withheld.wait),
            ..self.error(
                operation,
                RegistryErrorKind::Limited,
                &format!("not sent: {}", withheld.why),
            )
        }
    }

    fn broken(&self, operation: Operation, error: &octocrab::Error) -> RegistryError {
        self.unreachable(operation, &innermost(error))
    }

    fn unreachable(&self, operation: Operation, message: &str) -> RegistryError {
        let advice = if message.contains("lookup") {
            Some("check github.api_url and this host's DNS")
        } else if message.contains("certificate") {
            Some(
                "install the authority that signed the server's certificate on this host, or name it in SSL_CERT_FILE",
            )
        } else {
            None
        };
        RegistryError {
            advice: advice.map(str::to_owned),
            ..self.error(operation, RegistryErrorKind::Unreachable, message)
        }
    }

    /// See [`Context::clean`].
    pub(super) fn clean(&self, text: &str) -> String {
        self.context.clean(text)
    }

    pub(super) fn calls(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.books().tally.rows()
    }

    pub(super) fn quotas(&self) -> Vec<Quota> {
        self.books().budget.quotas(now())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing that can panic runs under this lock.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(config: &config::GitHubConfig) -> Result<Octocrab, SetupError> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(config.timeout));
    connector.set_nodelay(true);
    if config.api_url.scheme() == "http" {
        return Ok(octocrab_over(connector));
    }
    connector.enforce_http(false);
    let tls = hyper_rustls::HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(SetupError::Roots)?
        .https_only()
        .enable_http1()
        .wrap_connector(connector);
    Ok(octocrab_over(tls))
}

fn octocrab_over<C>(connector: C) -> Octocrab
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client: HyperClient<C, OctoBody> = HyperClient::builder(TokioExecutor::new())
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_timer(TokioTimer::new())
        .build(connector);
    octocrab_over_service(client)
}

/// A client whose requests go to `service`, whatever that is.
pub(super) fn octocrab_over_service<S, B>(service: S) -> Octocrab
where
    S: Service<http::Request<OctoBody>, Response = http::Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let built = OctocrabBuilder::new_empty()
        .with_service(service)
        .with_auth(AuthState::None)
        .build();
    match built {
        Ok(octocrab) => octocrab,
        Err(never) => match never {},
    }
}

fn common_headers(config: &config::GitHubConfig) -> Result<HeaderMap, SetupError> {
    let version = HeaderValue::from_str(&config.api_version)
        .map_err(|_| SetupError::Header("X-GitHub-Api-Version"))?;
    let agent = concat!("runner-controller/", env!("CARGO_PKG_VERSION"));
    Ok(HeaderMap::from_iter([
        (
            ACCEPT,
            HeaderValue::from_static("application/vnd.github+json"),
        ),
        (USER_AGENT, HeaderValue::from_static(agent)),
        (HeaderName::from_static("x-github-api-version"), version),
    ]))
}

/// Tokio's clock, so that tests can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Where an answer sends us, if it does. GitHub asks to repeat the request as it was.
fn redirect_target(answer: &Answer) -> Option<String> {
    match answer.status {
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => {
            Some(answer.headers.get(LOCATION)?.to_str().ok()?.to_owned())
        }
        _ => None,
    }
}

enum BodyFault {
    TooLarge,
    Broken(octocrab::Error),
}

async fn read_bounded<B>(mut body: B) -> Result<Vec<u8>, BodyFault>
where
    B: Body<Error = octocrab::Error> + Unpin,
    B::Data: AsRef<[u8]>,
{
    if body.size_hint().lower() > MAX_ANSWER as u64 {
        return Err(BodyFault::TooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(BodyFault::Broken)?;
        if let Ok(data) = frame.into_data() {
            let data = data.as_ref();
            if bytes.len() + data.len() > MAX_ANSWER {
                return Err(BodyFault::TooLarge);
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}

/// The causes behind octocrab's wrapping, outermost first, none said twice.
fn innermost(error: &octocrab::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    if parts.is_empty() {
        "the connection failed".to_owned()
    } else {
        parts.join(": ")
    }
}
