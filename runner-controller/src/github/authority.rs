//! Who we are to GitHub, request by request: a token as it is, or those that an App asks for.

use std::time::SystemTime;

use http::Method;
use http::header::DATE;
use url::Url;

use super::app::{AppKey, Held, Installation, Issued, Pass, narrowed};
use super::client::{Client, Request};
use super::operation::Operation;
use super::{Login, Token, parse};
use crate::config;
use crate::world::{RegistryError, RegistryErrorKind};

/// What each request shows.
pub(super) enum Authority {
    Token(Token),
    App(Box<App>),
}

pub(super) struct App {
    key: Box<AppKey>,
    api_url: Url,
    scope: config::Scope,
    /// Held while a token is asked for, so that nobody else does meanwhile.
    pass: tokio::sync::Mutex<Pass>,
}

impl Authority {
    pub(super) fn new(login: Login, config: &config::GitHubConfig) -> Self {
        match login {
            Login::Token(token) => Self::Token(token),
            Login::App(key) => Self::App(Box::new(App {
                key,
                api_url: config.api_url.clone(),
                scope: config.scope.clone(),
                pass: tokio::sync::Mutex::default(),
            })),
        }
    }
}

impl Client {
    /// What is shown now: the one token, or an installation's that is good for a while.
    pub(super) async fn token(&self, operation: Operation) -> Result<Token, RegistryError> {
        let app = match &self.authority {
            Authority::Token(token) => return Ok(token.clone()),
            Authority::App(app) => app,
        };
        let mut pass = app.pass.lock().await;
        let now = tokio::time::Instant::now();
        if let Some(held) = pass.held.as_ref().filter(|held| held.is_fresh(now)) {
            return Ok(held.token.clone());
        }
        match self.ask_for_token(app, &mut pass.installation).await {
            Ok(held) => {
                let token = held.token.clone();
                pass.held = Some(held);
                Ok(token)
            }
            Err(error) => {
                if let Some(held) = pass.held.as_mut()
                    && held.hold_on(now)
                {
                    tracing::warn!(%error, "the App's token is not renewed yet");
                    return Ok(held.token.clone());
                }
                pass.held = None;
                Err(RegistryError {
                    message: format!("no token for it: {}", error.message),
                    operation: operation.name(),
                    ..error
                })
            }
        }
    }

    async fn ask_for_installation(&self, app: &App, jwt: &Token) -> Result<u64, RegistryError> {
        let operation = Operation::Installation;
        let request = Request {
            operation,
            method: Method::GET,
            url: app.installation_url(),
            body: None,
            etag: None,
        };
        let answer = self.exchange_as(&request, jwt).await?;
        let found: Installation = parse(self, operation, &answer)?;
        Ok(found.id)
    }

    /// Asks as the App.
    async fn ask_for_token(
        &self,
        app: &App,
        installation: &mut Option<u64>,
    ) -> Result<Held, RegistryError> {
        let operation = Operation::AccessToken;
        let invalid = |what: &str| self.error(operation, RegistryErrorKind::Invalid, what);
        let jwt = app.key.jwt(SystemTime::now()).map_err(invalid)?;
        self.context.secrets.keep(jwt.clone());
        let id = match *installation {
            Some(id) => id,
            None => *installation.insert(self.ask_for_installation(app, &jwt).await?),
        };
        let request = Request {
            operation,
            method: Method::POST,
            url: app.token_url(id),
            body: Some(narrowed(&app.scope).to_string()),
            etag: None,
        };
        let answer = self
            .exchange_as(&request, &jwt)
            .await
            .inspect_err(|error| {
                // Installed anew, it has another id.
                if error.kind == RegistryErrorKind::NotFound {
                    *installation = None;
                }
            })?;
        let issued: Issued = parse(self, operation, &answer)?;
        let wrong = |what: &str| self.misshapen(operation, &answer, what);
        let at = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
        let at = at.and_then(|date| httpdate::parse_http_date(date).ok());
        let lasts = issued
            .lasts(at.unwrap_or_else(SystemTime::now))
            .ok_or_else(|| wrong("the token has ended already, or says no time"))?;
        let token = Token::new(&issued.token).map_err(|_| wrong("there is no token in it"))?;
        self.context.secrets.keep(token.clone());
        let now = tokio::time::Instant::now();
        Ok(Held::new(token, lasts, now, rand::random()))
    }
}

impl App {
    pub(super) async fn drop_token(&self, token: &Token) {
        let mut pass = self.pass.lock().await;
        // Another request may have asked for the next one meanwhile.
        pass.held.take_if(|held| held.token == *token);
    }

    fn installation_url(&self) -> Url {
        match &self.scope {
            config::Scope::Repository { owner, repo } => {
                self.url(&["repos", owner, repo, "installation"])
            }
            config::Scope::Organization { org } => self.url(&["orgs", org, "installation"]),
        }
    }

    fn token_url(&self, installation: u64) -> Url {
        let id = installation.to_string();
        self.url(&["app", "installations", &id, "access_tokens"])
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}
