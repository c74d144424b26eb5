//! The token of each request: the configured one, or those that an App asks for.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::DATE;
use http::{HeaderMap, Method};
use octocrab::Octocrab;
use tokio::time::Instant;

use super::app::{self, Access, AppKey, InstallationToken, TokenAnswer};
use super::context::Context;
use super::endpoints::Endpoints;
use super::exchange::{Answer, Request, exchange};
use super::login::Login;
use super::operation::Operation;
use super::token::Token;
use crate::config::GitHubConfig;
use crate::world::{RegistryError, RegistryErrorKind};

/// The source of tokens.
pub(super) enum Authority {
    Token(Token),
    App(Box<App>),
    /// An App that is about itself, and not about one of its installations.
    Itself(Box<AppKey>, Arc<Context>),
}

/// A GitHub App and what is known of its installation.
///
/// octocrab's App authentication (`AuthState::Installation`, octocrab 0.54.9) is not used:
/// - it cannot narrow a token to a permission (src/lib.rs:1437), and ours may manage runners only;
/// - it knows Apps by their number only, not by their client id (src/auth.rs:30);
/// - each request that meets no valid token asks for one (src/lib.rs:2620), and ours wait for the
///   first;
/// - it renews 30 s before the end by this host's clock (src/lib.rs:1341-1360), and a renewal that
///   fails is an error. Ours is early, spread over a fleet, by GitHub's clock, and while it fails the
///   old token serves to its end;
/// - its `jwt` feature needs aws-lc-rs or the `rsa` crate (src/lib.rs:376), and this program has ring.
///
/// Each token reaches octocrab as [`AuthState::AccessToken`](octocrab::AuthState).
pub(super) struct App {
    key: AppKey,
    access: Access,
    octocrab: Octocrab,
    endpoints: Endpoints,
    scope: crate::config::Scope,
    context: Arc<Context>,
    /// Held while a token is asked for, so that all other requests wait for it.
    session: tokio::sync::Mutex<Session>,
}

#[derive(Default)]
struct Session {
    installation: Option<u64>,
    token: Option<InstallationToken>,
}

impl Authority {
    /// Returns the source of tokens for `login`, with `access` alone. An App asks for its tokens through `octocrab`.
    pub(super) fn new(
        login: Login,
        access: Access,
        config: &GitHubConfig,
        octocrab: Octocrab,
        context: Arc<Context>,
    ) -> Self {
        match login {
            Login::Token(token) => {
                context.secrets.keep(token.clone());
                Self::Token(token)
            }
            Login::App(key) if access == Access::Itself => Self::Itself(key, context),
            Login::App(key) => Self::App(Box::new(App {
                key: *key,
                access,
                octocrab,
                endpoints: Endpoints::new(config),
                scope: config.scope.clone(),
                context,
                session: tokio::sync::Mutex::default(),
            })),
        }
    }

    /// Returns the token for a request, which an App may have to ask for first.
    pub(super) async fn token(&self, operation: Operation) -> Result<Token, RegistryError> {
        match self {
            Self::Token(token) => Ok(token.clone()),
            Self::App(app) => app.token(operation).await,
            Self::Itself(key, context) => jwt(key, context, operation),
        }
    }

    /// Drops a token that GitHub refused. Returns true if another one can be had.
    pub(super) async fn replace(&self, refused: &Token) -> bool {
        match self {
            // A new JWT says the same.
            Self::Token(_) | Self::Itself(..) => false,
            Self::App(app) => {
                let mut session = app.session.lock().await;
                // Another request may have asked for the next one meanwhile.
                session.token.take_if(|held| held.token == *refused);
                true
            }
        }
    }
}

impl App {
    async fn token(&self, operation: Operation) -> Result<Token, RegistryError> {
        let mut session = self.session.lock().await;
        let now = Instant::now();
        if let Some(held) = session.token.as_ref().filter(|held| held.is_fresh(now)) {
            return Ok(held.token.clone());
        }
        match self.ask_for_token(&mut session.installation).await {
            Ok(held) => {
                let token = held.token.clone();
                session.token = Some(held);
                Ok(token)
            }
            Err(error) => {
                if let Some(held) = session.token.as_mut()
                    && held.postpone_renewal(now)
                {
                    tracing::warn!(%error, "cannot renew the App's token: {error}; the current token still works");
                    return Ok(held.token.clone());
                }
                session.token = None;
                Err(RegistryError {
                    message: format!("cannot get a token: {}", error.message),
                    operation: operation.name(),
                    ..error
                })
            }
        }
    }

    async fn ask_for_token(
        &self,
        installation: &mut Option<u64>,
    ) -> Result<InstallationToken, RegistryError> {
        let operation = Operation::AccessToken;
        let jwt = jwt(&self.key, &self.context, operation)?;
        let id = match *installation {
            Some(id) => id,
            None => *installation.insert(self.ask_for_installation(&jwt).await?),
        };
        let request = Request {
            operation,
            method: Method::POST,
            target: self.endpoints.access_tokens(id),
            body: Some(self.access.narrowed(&self.scope)),
        };
        let answer: Result<Answer<TokenAnswer>, RegistryError> =
            exchange(&self.octocrab, &jwt, &request, &self.context).await;
        let answer = answer.inspect_err(|error| {
            // An App that was installed anew has another installation id.
            if error.kind == RegistryErrorKind::NotFound {
                *installation = None;
            }
        })?;
        let token = answer
            .body
            .read(answered_at(&answer.headers), Instant::now(), rand::random());
        let token = token.map_err(|problem| {
            let Answer {
                status, headers, ..
            } = &answer;
            self.context.misshapen(operation, *status, headers, problem)
        })?;
        self.context.secrets.keep(token.token.clone());
        Ok(token)
    }

    async fn ask_for_installation(&self, jwt: &Token) -> Result<u64, RegistryError> {
        let request = Request {
            operation: Operation::Installation,
            method: Method::GET,
            target: self.endpoints.installation(),
            body: None,
        };
        let answer: Answer<app::Installation> =
            exchange(&self.octocrab, jwt, &request, &self.context).await?;
        Ok(answer.body.id)
    }
}

/// Returns a JWT of an App.
fn jwt(key: &AppKey, context: &Context, operation: Operation) -> Result<Token, RegistryError> {
    let jwt = key.jwt(SystemTime::now());
    let jwt =
        jwt.map_err(|problem| context.error(operation, RegistryErrorKind::Invalid, problem))?;
    context.secrets.keep(jwt.clone());
    Ok(jwt)
}

/// Returns the time of an answer by GitHub's clock, or by this host's if the answer has none.
fn answered_at(headers: &HeaderMap) -> SystemTime {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    date.unwrap_or_else(SystemTime::now)
}
