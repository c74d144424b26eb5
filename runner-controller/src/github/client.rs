//! The client of one scope: its token, its limits, its timeout, its counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::header::DATE;
use http::{HeaderMap, Uri};
use octocrab::{FromResponse, Octocrab};

use super::app::Access;
use super::authority::Authority;
use super::context::{Context, request_id};
use super::exchange::{Answer, Request, exchange};
use super::layers::{self, Octocrabs, Pages, Shared};
use super::login::Login;
use super::operation::{Operation, outcome_of};
use super::secrets::Secrets;
use super::setup::SetupError;
use super::transport::Transport;
use super::usage::Usage;
use crate::config::GitHubConfig;
use crate::world::{RegistryError, RegistryErrorKind};

/// A client of GitHub's API for one scope. Clients share a budget if their calls count for one account.
pub(super) struct Client {
    octocrabs: Octocrabs,
    authority: Authority,
    timeout: Duration,
    pub(super) usage: Arc<Usage>,
    /// The pages that [`Client::call_cached`] remembers.
    pub(super) pages: Pages,
    pub(super) context: Arc<Context>,
    /// Lead of GitHub's clock at the last success.
    clock_ahead_ms: Mutex<Option<i64>>,
}

impl Client {
    /// Returns a client that sends nothing yet, and whose limits and counts are in `usage`. The tokens of an App are
    /// narrowed to `access`. Must be
    /// called within a tokio runtime.
    pub(super) fn new(
        transport: Transport,
        config: &GitHubConfig,
        login: Login,
        access: Access,
        usage: Arc<Usage>,
    ) -> Result<Self, SetupError> {
        let context = Arc::new(Context {
            login: config.login.clone(),
            table: config.table(),
            scope: config.scope.to_string(),
            access,
            secrets: Secrets::default(),
        });
        let pages = Pages::default();
        let shared = Shared {
            origin: origin(config)?,
            headers: layers::common_headers(config)?,
            usage: Arc::clone(&usage),
            context: Arc::clone(&context),
        };
        let octocrabs = Octocrabs::over(transport, &shared, &pages);
        let octocrab = octocrabs.uncached.clone();
        Ok(Self {
            authority: Authority::new(login, access, config, octocrab, Arc::clone(&context)),
            octocrabs,
            timeout: config.timeout,
            usage,
            pages,
            context,
            clock_ahead_ms: Mutex::default(),
        })
    }

    /// Sends a request, unless a limit forbids it now.
    ///
    /// Nothing is sent twice, except what GitHub answers before it does anything: redirects within
    /// the origin, and a refused token of an App, which is replaced once. Takes at most the
    /// configured timeout, a new token and the body included. Cancelling drops the connection;
    /// GitHub may carry the request out all the same.
    pub(super) async fn call<T: FromResponse>(
        &self,
        request: &Request,
    ) -> Result<Answer<T>, RegistryError> {
        self.timed(&self.octocrabs.uncached, request).await
    }

    /// Sends a request as [`Client::call`] does. A page that is remembered and still holds comes from
    /// memory and costs nothing.
    pub(super) async fn call_cached<T: FromResponse>(
        &self,
        request: &Request,
    ) -> Result<Answer<T>, RegistryError> {
        self.timed(&self.octocrabs.cached, request).await
    }

    async fn timed<T: FromResponse>(
        &self,
        octocrab: &Octocrab,
        request: &Request,
    ) -> Result<Answer<T>, RegistryError> {
        let operation = request.operation;
        let started = Instant::now();
        let attempts = tokio::time::timeout(self.timeout, self.authorized(octocrab, request));
        let result = attempts.await.unwrap_or_else(|_| {
            let limit = humantime::format_duration(self.timeout);
            let message = format!("no complete answer within {limit}");
            Err(self.context.unreachable(operation, &message))
        });
        self.record(operation, started.elapsed(), &result);
        result
    }

    async fn authorized<T: FromResponse>(
        &self,
        octocrab: &Octocrab,
        request: &Request,
    ) -> Result<Answer<T>, RegistryError> {
        let token = self.authority.token(request.operation).await?;
        let result = exchange(octocrab, &token, request, &self.context).await;
        match &result {
            Err(error)
                if error.kind == RegistryErrorKind::Unauthorized
                    && self.authority.replace(&token).await =>
            {
                let token = self.authority.token(request.operation).await?;
                exchange(octocrab, &token, request, &self.context).await
            }
            _ => result,
        }
    }

    /// Returns the lead of GitHub's clock at the last success, in milliseconds.
    pub(super) fn clock_ahead_ms(&self) -> Option<i64> {
        *self
            .clock_ahead_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note_clock(&self, headers: &HeaderMap) {
        let mut ahead = self
            .clock_ahead_ms
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *ahead = clock_ahead_ms(headers, SystemTime::now()).or(*ahead);
    }

    /// Counts and logs one call.
    fn record<T>(
        &self,
        operation: Operation,
        elapsed: Duration,
        result: &Result<Answer<T>, RegistryError>,
    ) {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(answer) => {
                let outcome = if answer.not_modified {
                    "not_modified"
                } else {
                    "ok"
                };
                self.usage.count(operation, outcome);
                self.note_clock(&answer.headers);
                tracing::debug!(
                    operation = operation.name(),
                    status = answer.status.as_u16(),
                    request_id = request_id(&answer.headers),
                    elapsed_ms,
                    outcome,
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
                self.usage.count(operation, outcome);
                tracing::debug!(
                    operation = operation.name(),
                    status = error.status,
                    request_id = error.request_id,
                    elapsed_ms,
                    outcome,
                    "github call failed"
                );
            }
        }
    }
}

/// Returns the lead of the clock in an answer's `Date` over this host's clock, in milliseconds.
fn clock_ahead_ms(headers: &HeaderMap, now: SystemTime) -> Option<i64> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(date).ok()?;
    let ms = |apart: Duration| i64::try_from(apart.as_millis()).unwrap_or(i64::MAX);
    Some(match date.duration_since(now) {
        Ok(ahead) => ms(ahead),
        Err(behind) => -ms(behind.duration()),
    })
}

/// Returns scheme, host and port of the API.
fn origin(config: &GitHubConfig) -> Result<Uri, SetupError> {
    let origin = config.api_url.origin().ascii_serialization();
    origin.parse().map_err(|_| SetupError::Header("Host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_an_answer_is_compared_with_this_hosts() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let ahead = |date: Option<SystemTime>| {
            let mut headers = HeaderMap::new();
            if let Some(date) = date {
                headers.insert(DATE, httpdate::fmt_http_date(date).parse().unwrap());
            }
            clock_ahead_ms(&headers, now)
        };
        assert_eq!(ahead(None), None);
        assert_eq!(ahead(Some(now + Duration::from_mins(2))), Some(120_000));
        assert_eq!(ahead(Some(now - Duration::from_secs(7))), Some(-7_000));
    }
}
