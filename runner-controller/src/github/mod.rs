//! The runners GitHub knows: [`Registry`] over its REST API.
//!
//! A mint is one request under a name that is never sent again. The list is one conditional
//! request per page. Every failure is put into words for the person who must act on it, and while
//! GitHub limits us nothing leaves. Tokens and JIT configs never reach a log or an error.

mod app;
mod authority;
mod budget;
mod cleanup;
mod client;
mod groups;
mod jit;
mod link;
mod listing;
mod operation;
#[cfg(any(test, fuzzing))]
mod outside;
mod refusal;
mod secrets;
mod token;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use hyper::body::{Body, Bytes};
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tower::Service;
use url::Url;

use crate::config::{self, Scope};
use crate::world::{
    Deleted, JitConfig, ListedRunner, MintRequest, Minted, Registry, RegistryError,
    RegistryErrorKind, RunnerId,
};

pub use octocrab::OctoBody;

pub use app::AppKey;
pub use budget::Quota;
pub use cleanup::cleanup_candidates;
#[cfg(any(test, fuzzing))]
pub(crate) use outside::{try_answer, try_refusal};
pub use token::{Login, Token, TokenError};

use client::{Answer, Client, Request};
use groups::Groups;
use jit::Content;
use listing::Pages;
use operation::Operation;

/// Mints under way at once. GitHub wants mutations in a row, but a pool that refills after a
/// reboot should not wait for one answer at a time; four stay far below its limit of 100 calls at
/// once and 180 mints a minute.
const CONCURRENT_MINTS: usize = 4;

/// GitHub's "Best practices for using the REST API": at least a second between mutations.
const BETWEEN_DELETIONS: Duration = Duration::from_secs(1);

/// The runner takes its config from an environment variable, and Linux takes no longer one
/// (`MAX_ARG_STRLEN` in linux/binfmts.h). GitHub's have some 4 KiB.
const MAX_JIT_CONFIG: usize = 120 * 1024;

/// A repository has one runner group, and no call to ask for it.
const REPOSITORY_GROUP: u64 = 1;

/// Why GitHub cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// This host has no certificate authorities.
    #[error(
        "cannot load this host's certificate authorities; install ca-certificates or set SSL_CERT_FILE"
    )]
    Roots(#[source] std::io::Error),
    /// A value does not fit into its header.
    #[error("the value for the header {0} has characters that no header may have")]
    Header(&'static str),
}

/// GitHub's runners of one repository or organisation.
pub struct GitHub {
    client: Client,
    scope: Scope,
    api_url: Url,
    groups: Mutex<Groups>,
    pages: Mutex<Pages>,
    mints: Semaphore,
    /// Held by every other mutation, so that deletes go one after the other.
    mutation: Mutex<Option<Instant>>,
    warned_of_opaque: AtomicBool,
}

impl GitHub {
    /// Prepares to talk to GitHub and sends nothing yet. Must be called within a tokio runtime,
    /// as octocrab starts a task.
    ///
    /// # Errors
    /// This host has no certificate authorities and `api_url` is `https`, or the configured API
    /// version does not fit a header.
    pub fn new(config: &config::GitHubConfig, login: impl Into<Login>) -> Result<Self, SetupError> {
        Ok(Self::with_client(
            config,
            Client::new(config, login.into())?,
        ))
    }

    /// The same over any HTTP service in place of the network, for tests that are to see what is
    /// sent. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`GitHub::new`], without the certificates.
    pub fn over<S, B>(
        config: &config::GitHubConfig,
        login: impl Into<Login>,
        service: S,
    ) -> Result<Self, SetupError>
    where
        S: Service<http::Request<OctoBody>, Response = http::Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let octocrab = client::octocrab_over_service(service);
        Ok(Self::with_client(
            config,
            Client::over(octocrab, config, login.into())?,
        ))
    }

    fn with_client(config: &config::GitHubConfig, client: Client) -> Self {
        Self {
            client,
            scope: config.scope.clone(),
            api_url: config.api_url.clone(),
            groups: Mutex::default(),
            pages: Mutex::default(),
            mints: Semaphore::new(CONCURRENT_MINTS),
            mutation: Mutex::default(),
            warned_of_opaque: AtomicBool::new(false),
        }
    }

    /// Requests so far: operation, outcome, count. Outcomes are few and fixed: `ok`,
    /// `not_modified`, `redirected`, `withheld` (never sent, to stay within a limit), and one per
    /// [`RegistryErrorKind`] in lower case. Each page of a list is a request.
    #[must_use]
    pub fn calls(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.client.calls()
    }

    /// The rate-limit windows that answers have told of, as last seen.
    #[must_use]
    pub fn quotas(&self) -> Vec<Quota> {
        self.client.quotas()
    }

    /// The address of something in our scope.
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            match &self.scope {
                Scope::Repository { owner, repo } => segments.extend(["repos", owner, repo]),
                Scope::Organization { org } => segments.extend(["orgs", org]),
            };
            segments.push("actions").extend(path);
        }
        url
    }

    async fn group_id(&self, name: &str) -> Result<u64, RegistryError> {
        match &self.scope {
            Scope::Repository { .. } => Ok(REPOSITORY_GROUP),
            Scope::Organization { .. } => self.groups.lock().await.id(self, name).await,
        }
    }

    /// After a 404: was it the group? Asks for the groups once and improves the error.
    async fn explain_not_found(
        &self,
        group: &str,
        used: u64,
        error: RegistryError,
    ) -> RegistryError {
        match &self.scope {
            Scope::Repository { .. } => error,
            Scope::Organization { .. } => {
                let mut groups = self.groups.lock().await;
                groups.forget();
                match groups.id(self, group).await {
                    Ok(id) if id == used => error,
                    Ok(id) => RegistryError {
                        advice: Some(format!(
                            "runner group {group} was made anew (id {used}, now {id}): the next attempt uses the new one"
                        )),
                        ..error
                    },
                    Err(other) if other.kind == RegistryErrorKind::NotFound => RegistryError {
                        advice: other.advice,
                        ..error
                    },
                    Err(_) => error,
                }
            }
        }
    }

    /// Refuses a config that would make our container somebody else's runner.
    fn verify(
        &self,
        request: &MintRequest,
        made: &Made,
        answer: &Answer,
    ) -> Result<(), RegistryError> {
        let name = request.name.to_string();
        let refuse = |what: &str| Err(self.client.misshapen(Operation::Mint, answer, what));
        if made.encoded_jit_config.is_empty() || made.encoded_jit_config.len() > MAX_JIT_CONFIG {
            return refuse("the JIT config is empty or too long for a runner to take");
        }
        match jit::read(&made.encoded_jit_config) {
            Content::Names(other) if other != name => {
                refuse("the JIT config is for a runner of another name")
            }
            Content::Names(_) | Content::Nameless => Ok(()),
            Content::Opaque => {
                if !self.warned_of_opaque.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "the JIT config is of an unknown shape, so whom it is for cannot be checked"
                    );
                }
                Ok(())
            }
        }
    }

    async fn mint_in(&self, group: u64, request: &MintRequest) -> Result<Minted, RegistryError> {
        let body = serde_json::json!({
            "name": request.name.to_string(),
            "runner_group_id": group,
            "labels": request.labels,
            "work_folder": request.work_folder,
        });
        let answer = self
            .client
            .send(Request {
                operation: Operation::Mint,
                method: Method::POST,
                url: self.url(&["runners", "generate-jitconfig"]),
                body: Some(body.to_string()),
                etag: None,
            })
            .await?;
        let made: Made = parse(&self.client, Operation::Mint, &answer)?;
        let name = request.name.to_string();
        if made.runner.name != name {
            // Whose that registration is nobody can say, so it is left alone.
            let what = "the new runner has another name than the one asked for";
            return Err(self.client.misshapen(Operation::Mint, &answer, what));
        }
        let id = RunnerId(made.runner.id);
        if let Err(mut error) = self.verify(request, &made, &answer) {
            if let Err(left) = self.delete(id).await {
                error.message = format!("{}; runner {id} is left behind: {left}", error.message);
            }
            return Err(error);
        }
        Ok(Minted {
            id,
            config: JitConfig::new(made.encoded_jit_config),
        })
    }
}

impl Registry for GitHub {
    async fn mint(&self, request: &MintRequest) -> Result<Minted, RegistryError> {
        // Never closed; if it were, a mint too many at once would be the lesser evil.
        let _permit = self.mints.acquire().await.ok();
        let group = self.group_id(&request.runner_group).await?;
        match self.mint_in(group, request).await {
            Err(error) if error.kind == RegistryErrorKind::NotFound => {
                let group_name = &request.runner_group;
                Err(self.explain_not_found(group_name, group, error).await)
            }
            result => result,
        }
    }

    async fn list(&self) -> Result<Vec<ListedRunner>, RegistryError> {
        let mut first = self.url(&["runners"]);
        first.set_query(Some("per_page=100"));
        self.pages.lock().await.fetch(&self.client, first).await
    }

    fn hold(&self, wait: Duration) {
        self.client.hold(wait);
    }

    async fn delete(&self, id: RunnerId) -> Result<Deleted, RegistryError> {
        let mut last = self.mutation.lock().await;
        if let Some(last) = *last {
            tokio::time::sleep_until(last + BETWEEN_DELETIONS).await;
        }
        *last = Some(Instant::now());
        let request = Request {
            operation: Operation::Delete,
            method: Method::DELETE,
            url: self.url(&["runners", &id.to_string()]),
            body: None,
            etag: None,
        };
        match self.client.send(request).await {
            Ok(_) => Ok(Deleted::Gone),
            Err(error) if error.status == Some(StatusCode::NOT_FOUND.as_u16()) => Ok(Deleted::Gone),
            Err(error) if means_busy(&error) => Ok(Deleted::Busy),
            Err(error) => Err(error),
        }
    }
}

/// 422, or an older server's 500 that says so.
fn means_busy(error: &RegistryError) -> bool {
    let message = error.message.to_ascii_lowercase();
    match error.status {
        Some(422) => true,
        Some(500) => message.contains("running a job") || message.contains("still running"),
        _ => false,
    }
}

/// The answer to a mint, as far as it is used.
#[derive(Deserialize)]
struct Made {
    runner: MadeRunner,
    encoded_jit_config: String,
}

#[derive(Deserialize)]
struct MadeRunner {
    id: u64,
    name: String,
}

/// Reads an answer. The error says where it differs from what is documented, and quotes nothing:
/// a JIT config may be in it.
fn parse<T: serde::de::DeserializeOwned>(
    client: &Client,
    operation: Operation,
    answer: &Answer,
) -> Result<T, RegistryError> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "has other fields or types than GitHub documents",
            serde_json::error::Category::Eof => "is JSON that breaks off",
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => "is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        let what = format!("the answer {what} (line {line}, column {column})");
        client.misshapen(operation, answer, &what)
    })
}
