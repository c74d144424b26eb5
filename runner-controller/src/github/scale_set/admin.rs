//! The access to the service: its address, and a token that lives for minutes.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::wire::{self, Call};
use super::{refused, wire::Reply};
use crate::config::{GitHubConfig, Scope};
use crate::github::client::Client;
use crate::github::endpoints::Endpoints;
use crate::github::exchange::{Answer, Request};
use crate::github::operation::Operation;
use crate::github::token::Token;
use crate::github::transport::Transport;
use crate::world::{RegistryError, RegistryErrorKind, SetError};

/// Time before the end of the token at which it is replaced.
const RESERVE: Duration = Duration::from_mins(1);
/// Life of a token that does not tell it. Lives of 17 minutes were seen.
const UNKNOWN_LIFE: Duration = Duration::from_mins(10);
/// Number of attempts with a new registration token, which some of GitHub's servers know later than others.
const ATTEMPTS: u32 = 3;
/// Pause between them.
const PAUSE: Duration = Duration::from_secs(1);

/// Access to the service of one scope.
pub(super) struct Admin {
    pub(super) client: Arc<Client>,
    /// A transport can be moved between threads, and not shared.
    transport: std::sync::Mutex<Transport>,
    pub(super) timeout: Duration,
    endpoints: Endpoints,
    /// Address of the scope's pages, by which the service knows it.
    scope_url: String,
    /// True if the API is reached without TLS, so that the service may be, too.
    is_plain: bool,
    /// Held while access is asked for, so that all other calls wait for it.
    access: Mutex<Option<Access>>,
}

/// Access that was given.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) url: Url,
    pub(super) token: Token,
    until: Instant,
}

/// The answer to a registration, as far as it is used.
#[derive(Deserialize)]
struct Registered {
    url: String,
    token: String,
}

/// A registration token, as far as it is used. octocrab's has more fields than it needs.
#[derive(Deserialize)]
struct RegistrationToken {
    token: String,
}

impl Admin {
    pub(super) fn new(transport: Transport, config: &GitHubConfig, client: Arc<Client>) -> Self {
        let server = &config.server_url;
        let scope_url = match &config.scope {
            Scope::Repository { owner, repo } => format!("{server}/{owner}/{repo}"),
            Scope::Organization { org } => format!("{server}/{org}"),
            Scope::Enterprise { enterprise } => format!("{server}/enterprises/{enterprise}"),
        };
        Self {
            client,
            transport: std::sync::Mutex::new(transport),
            timeout: config.timeout,
            endpoints: Endpoints::new(config),
            scope_url,
            is_plain: config.api_url.scheme() == "http",
            access: Mutex::default(),
        }
    }

    /// Returns the way to the service.
    pub(super) fn transport(&self) -> Transport {
        let transport = self.transport.lock();
        transport.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns access that lasts, and asks for it first if there is none.
    pub(super) async fn access(&self) -> Result<Access, SetError> {
        let mut held = self.access.lock().await;
        if let Some(access) = held.as_ref().filter(|held| Instant::now() < held.until) {
            return Ok(access.clone());
        }
        let access = self.ask().await?;
        *held = Some(access.clone());
        Ok(access)
    }

    /// Drops access whose token the service refused.
    pub(super) async fn drop_access(&self, refused: &Token) {
        let mut held = self.access.lock().await;
        // Another call may have asked for the next one meanwhile.
        held.take_if(|held| held.token == *refused);
    }

    async fn ask(&self) -> Result<Access, SetError> {
        let request = Request {
            operation: Operation::RegistrationToken,
            method: Method::POST,
            target: self.endpoints.registration_token(),
            body: None,
        };
        let mut attempt = 1;
        let reply = loop {
            let answer: Answer<RegistrationToken> =
                (self.client.call(&request).await).map_err(refused::failed)?;
            let token = Token::new(&answer.body.token).map_err(|problem| {
                let context = &self.client.context;
                let (status, headers) = (answer.status, &answer.headers);
                refused::failed(context.misshapen(request.operation, status, headers, problem))
            })?;
            self.client.context.secrets.keep_of_service(token.clone());
            let reply = self.register(&token).await.map_err(refused::failed)?;
            let is_early = matches!(
                reply.status,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            );
            if !is_early || attempt == ATTEMPTS {
                break reply;
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        };
        if !reply.status.is_success() {
            return Err(refused::read(&self.client, &reply));
        }
        self.read(&reply).map_err(refused::failed)
    }

    async fn register(&self, token: &Token) -> Result<Reply, RegistryError> {
        let url = self.endpoints.runner_registration();
        let call = Call {
            operation: Operation::SetAccess,
            method: Method::POST,
            url: &url,
            authorization: format!("RemoteAuth {}", token.expose()),
            headers: HeaderMap::new(),
            body: Some(serde_json::json!({"url": self.scope_url, "runner_event": "register"})),
            timeout: self.timeout,
        };
        wire::send(self.transport(), &self.client, call).await
    }

    fn read(&self, reply: &Reply) -> Result<Access, RegistryError> {
        let registered: Registered = reply.read(&self.client)?;
        let url = self.address(reply, &registered.url)?;
        let token = Token::new(&registered.token)
            .map_err(|problem| reply.misshapen(&self.client, problem))?;
        self.client.context.secrets.keep_of_service(token.clone());
        let life = life(&token).unwrap_or(UNKNOWN_LIFE);
        Ok(Access {
            url,
            until: Instant::now() + life.saturating_sub(RESERVE),
            token,
        })
    }

    /// Reads an address that the service gave. A token never goes to an address without TLS, unless the API is one.
    pub(super) fn address(&self, reply: &Reply, text: &str) -> Result<Url, RegistryError> {
        let url: Result<Url, _> = text.parse();
        let is_good = |url: &Url| {
            let scheme = url.scheme();
            url.has_host() && (scheme == "https" || self.is_plain && scheme == "http")
        };
        url.ok().filter(is_good).ok_or_else(|| {
            let problem = if text.is_empty() {
                "GitHub gave no address of the service, as in some of its outages"
            } else {
                "the address of the service is not one that a token may go to"
            };
            reply.misshapen(&self.client, problem)
        })
    }

    /// Returns an error for a call that was not sent.
    pub(super) fn invalid(&self, operation: Operation, problem: &str) -> SetError {
        let context = &self.client.context;
        refused::failed(context.error(operation, RegistryErrorKind::Invalid, problem))
    }
}

/// Returns the life of a token that is a JWT, by this host's clock.
pub(super) fn life(token: &Token) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let claims = token.expose().split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD
        .decode(claims.trim_end_matches('='))
        .ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(claims.exp).saturating_sub(now))
}
