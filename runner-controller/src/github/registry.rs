//! [`Registry`] over GitHub's REST API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use hyper::body::{Body, Bytes};
use octocrab::OctoBody;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tower::{BoxError, Service};

use super::app::Access;
use super::budget::Quota;
use super::client::Client;
use super::endpoints::Endpoints;
use super::exchange::{Answer, Request, Unread};
use super::groups::{self, Groups};
use super::jit::{self, Content};
use super::listing::{self, LabelledRunner};
use super::login::Login;
use super::operation::Operation;
use super::scale_set::ScaleSetService;
use super::setup::SetupError;
use super::transport::{self, Transport};
use super::usage::Usage;
use super::version;
use crate::config::{GitHubConfig, Scope};
use crate::pool::{RunnerGroup, RunnerVersion, VersionEnd};
use crate::status::Histogram;
use crate::world::{
    Deleted, JitConfig, ListedRunner, MintRequest, MintWindow, Minted, Registry, RegistryError,
    RegistryErrorKind, RunnerId, WantedSet,
};

/// Maximum number of mints at once. GitHub asks for mutations in sequence, but a pool that refills
/// after a reboot should not wait for each answer. Four stay far below GitHub's limits of 100 calls at
/// once and 180 mints a minute.
const CONCURRENT_MINTS: usize = 4;

/// Interval between deletions. GitHub's "Best practices for using the REST API" asks for at least a
/// second between mutations.
const BETWEEN_DELETIONS: Duration = Duration::from_secs(1);

/// Maximum size of a JIT config. The runner reads it from an environment variable, and Linux limits
/// the length of a variable (`MAX_ARG_STRLEN` in linux/binfmts.h). GitHub's configs have some 4 KiB.
const MAX_JIT_CONFIG_BYTES: usize = 120 * 1024;

/// Id of the runner group of a repository, which has only this group and no call to list groups.
const REPOSITORY_GROUP: u64 = 1;

/// Id that no runner has.
const NO_RUNNER: RunnerId = RunnerId(0);

/// The runners of one repository or organisation at GitHub.
pub struct GitHub {
    client: Arc<Client>,
    scale_sets: Arc<ScaleSetService>,
    scope: Scope,
    endpoints: Endpoints,
    groups: Mutex<Groups>,
    /// Held while the list is fetched, so that remembered pages do not change during a request.
    listing: Mutex<()>,
    mints: Semaphore,
    /// Time of the last deletion. Held during each deletion, so that they happen in sequence.
    last_deletion: Mutex<Option<Instant>>,
    warned_of_opaque: AtomicBool,
}

impl GitHub {
    /// Returns a client that has sent nothing yet. Must be called within a tokio runtime, because
    /// octocrab starts tasks.
    ///
    /// # Errors
    /// This host has no certificate authorities and `api_url` is `https`, or the configured API
    /// version does not fit into a header.
    pub fn new(config: &GitHubConfig, login: impl Into<Login>) -> Result<Self, SetupError> {
        let transport = transport::network(config)?;
        Self::with(transport, config, login.into(), Arc::default())
    }

    /// Returns a client that sends requests to `service` instead of the network, for tests. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// As [`GitHub::new`], without the certificates.
    pub fn over<S, B>(
        config: &GitHubConfig,
        login: impl Into<Login>,
        service: S,
    ) -> Result<Self, SetupError>
    where
        S: Service<http::Request<OctoBody>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let transport = transport::over(service);
        Self::with(transport, config, login.into(), Arc::default())
    }

    /// Returns a client for another scope, whose calls count for the same limits. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// As [`GitHub::new`].
    pub fn beside(
        &self,
        config: &GitHubConfig,
        login: impl Into<Login>,
    ) -> Result<Self, SetupError> {
        let transport = transport::network(config)?;
        Self::with(
            transport,
            config,
            login.into(),
            Arc::new(self.client.usage.beside()),
        )
    }

    /// Returns a client as [`GitHub::beside`] does, over `service`, for tests.
    ///
    /// # Errors
    /// As [`GitHub::over`].
    pub fn over_beside<S, B>(
        &self,
        config: &GitHubConfig,
        login: impl Into<Login>,
        service: S,
    ) -> Result<Self, SetupError>
    where
        S: Service<http::Request<OctoBody>, Response = http::Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let transport = transport::over(service);
        Self::with(
            transport,
            config,
            login.into(),
            Arc::new(self.client.usage.beside()),
        )
    }

    fn with(
        transport: Transport,
        config: &GitHubConfig,
        login: Login,
        usage: Arc<Usage>,
    ) -> Result<Self, SetupError> {
        let client = Client::new(transport.clone(), config, login, Access::Runners, usage)?;
        let client = Arc::new(client);
        let scale_sets = ScaleSetService::new(transport, config, Arc::clone(&client));
        Ok(Self {
            client,
            scale_sets: Arc::new(scale_sets),
            scope: config.scope.clone(),
            endpoints: Endpoints::new(config),
            groups: Mutex::default(),
            listing: Mutex::default(),
            mints: Semaphore::new(CONCURRENT_MINTS),
            last_deletion: Mutex::default(),
            warned_of_opaque: AtomicBool::new(false),
        })
    }

    /// Returns the requests so far: operation, outcome, count. The outcomes are `ok`, `not_modified`,
    /// `redirected`, `withheld` (not sent because of a limit), and each [`RegistryErrorKind`] in lower
    /// case. Each page of a list is a request.
    #[must_use]
    pub fn calls(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.client.usage.calls()
    }

    /// Returns the times from a request until its whole answer so far, by operation. Polls of a scale set are not
    /// among them, because GitHub answers them when it has a message.
    #[must_use]
    pub fn answer_times(&self) -> Vec<(&'static str, Histogram)> {
        self.client.usage.answer_times()
    }

    /// Returns the rate-limit windows of the answers so far, as last seen.
    #[must_use]
    pub fn quotas(&self) -> Vec<Quota> {
        self.client.usage.quotas()
    }

    /// Returns the scale sets of the scope.
    #[must_use]
    pub fn scale_sets(&self) -> Arc<ScaleSetService> {
        Arc::clone(&self.scale_sets)
    }

    /// Returns the limits and counts, for another client of the scope.
    pub(super) fn usage(&self) -> Arc<Usage> {
        Arc::clone(&self.client.usage)
    }

    /// Returns all runners of the scope with their labels.
    ///
    /// # Errors
    /// As [`Registry::list`].
    pub async fn list_with_labels(&self) -> Result<Vec<LabelledRunner>, RegistryError> {
        let _alone = self.listing.lock().await;
        listing::fetch(&self.client, self.endpoints.runners()).await
    }

    /// Finds out whether the credentials may change runners. Deletes runner 0, which never exists, and GitHub
    /// looks for a permission before it looks for a runner.
    ///
    /// # Errors
    /// As [`Registry::delete`]. The advice of a refusal names the permission.
    pub async fn try_write(&self) -> Result<(), RegistryError> {
        self.delete(NO_RUNNER).await.map(drop)
    }

    /// Returns how far GitHub's clock was ahead of this host's at the last answer, in milliseconds. The clock
    /// of an answer has whole seconds.
    #[must_use]
    pub fn clock_ahead_ms(&self) -> Option<i64> {
        self.client.clock_ahead_ms()
    }

    async fn group_id(&self, name: &str) -> Result<u64, RegistryError> {
        match &self.scope {
            Scope::Repository { .. } => Ok(REPOSITORY_GROUP),
            Scope::Organization { .. } | Scope::Enterprise { .. } => {
                let mut groups = self.groups.lock().await;
                groups.id(&self.client, self.endpoints.groups(), name).await
            }
        }
    }

    /// Improves the error of a mint that met a 404, by asking whether the group still exists.
    async fn explain_not_found(
        &self,
        group: &str,
        used: u64,
        error: RegistryError,
    ) -> RegistryError {
        match &self.scope {
            Scope::Repository { .. } => error,
            Scope::Organization { .. } | Scope::Enterprise { .. } => {
                let mut groups = self.groups.lock().await;
                groups.forget();
                match groups
                    .id(&self.client, self.endpoints.groups(), group)
                    .await
                {
                    Ok(id) if id == used => error,
                    Ok(id) => RegistryError {
                        advice: Some(format!(
                            "runner group {group} was recreated (id {used}, now {id}); the next attempt uses the new id"
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

    /// Refuses a config that would make the container another runner.
    fn verify(
        &self,
        request: &MintRequest,
        answer: &Answer<JitConfigAnswer>,
    ) -> Result<(), RegistryError> {
        let made = &answer.body;
        let name = request.name.to_string();
        let refuse = |problem: &str| Err(self.misshapen(answer, problem));
        if made.encoded_jit_config.is_empty()
            || made.encoded_jit_config.len() > MAX_JIT_CONFIG_BYTES
        {
            return refuse("the JIT config is empty or too long for a runner to take");
        }
        match jit::read(&made.encoded_jit_config) {
            Content::Names(other) if other != name => {
                refuse("the JIT config is for a runner with another name")
            }
            Content::Names(_) | Content::Nameless => Ok(()),
            Content::Opaque => {
                if !self.warned_of_opaque.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "cannot check which runner the JIT config is for: it has an unknown shape"
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
        let request_for_config = Request {
            operation: Operation::Mint,
            method: Method::POST,
            target: self.endpoints.jit_config(),
            body: Some(body),
        };
        let answer: Answer<JitConfigAnswer> = self.client.call(&request_for_config).await?;
        self.minted(request, &answer).await
    }

    /// Registers a runner of a scale set.
    async fn mint_in_set(&self, set: &str, request: &MintRequest) -> Result<Minted, RegistryError> {
        let wanted = WantedSet {
            name: set.to_owned(),
            runner_group: request.runner_group.clone(),
            labels: request.labels.clone(),
        };
        let name = request.name.to_string();
        let registered = self.scale_sets.mint(&wanted, &name, &request.work_folder);
        let (registered, status, headers) = registered.await?;
        let answer = Answer {
            status,
            not_modified: false,
            headers,
            body: JitConfigAnswer {
                runner: NewRunner {
                    id: registered.runner.id,
                    name: registered.runner.name,
                },
                encoded_jit_config: registered.config,
            },
        };
        self.minted(request, &answer).await
    }

    /// Checks what GitHub answered to a mint.
    async fn minted(
        &self,
        request: &MintRequest,
        answer: &Answer<JitConfigAnswer>,
    ) -> Result<Minted, RegistryError> {
        let runner = &answer.body.runner;
        if runner.name != request.name.to_string() {
            // The registration may belong to another host, so it is not deleted.
            let problem = "the new runner has another name than the requested name";
            return Err(self.misshapen(answer, problem));
        }
        let id = RunnerId(runner.id);
        if let Err(mut error) = self.verify(request, answer) {
            if let Err(left) = self.delete(id).await {
                error.message = format!(
                    "{}; runner {id} is left behind, because it cannot be deleted: {left}",
                    error.message
                );
            }
            return Err(error);
        }
        Ok(Minted {
            id,
            config: JitConfig::new(answer.body.encoded_jit_config.clone()),
        })
    }

    fn misshapen(&self, answer: &Answer<JitConfigAnswer>, problem: &str) -> RegistryError {
        let context = &self.client.context;
        context.misshapen(Operation::Mint, answer.status, &answer.headers, problem)
    }
}

impl Registry for GitHub {
    async fn mint(&self, request: &MintRequest) -> Result<Minted, RegistryError> {
        // The semaphore is never closed. If it were, too many mints would be better than none.
        let _permit = self.mints.acquire().await.ok();
        if let Some(set) = &request.scale_set {
            return self.mint_in_set(set, request).await;
        }
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
        let _alone = self.listing.lock().await;
        listing::fetch(&self.client, self.endpoints.runners()).await
    }

    async fn find(&self, id: RunnerId) -> Result<Option<ListedRunner>, RegistryError> {
        let request = Request {
            operation: Operation::Find,
            method: Method::GET,
            target: self.endpoints.runner(id),
            body: None,
        };
        let answer: Result<Answer<listing::Runner>, RegistryError> =
            self.client.call(&request).await;
        match answer {
            Ok(answer) => Ok(Some(answer.body.into())),
            Err(error) if error.status == Some(StatusCode::NOT_FOUND.as_u16()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn groups(&self) -> Result<Vec<RunnerGroup>, RegistryError> {
        let first = self.endpoints.groups();
        let groups = groups::fetch(&self.client, first, Operation::GroupCheck).await?;
        Ok(groups.into_iter().map(RunnerGroup::from).collect())
    }

    async fn version_end(
        &self,
        version: RunnerVersion,
    ) -> Result<Option<VersionEnd>, RegistryError> {
        version::fetch(&self.client, self.endpoints.version(version), version).await
    }

    fn hold(&self, wait: Duration) {
        self.client.usage.hold(wait);
    }

    fn held(&self) -> Option<Duration> {
        self.client.usage.held()
    }

    fn shares_limits(&self, other: &Self) -> bool {
        self.client.usage.shares_limits(&other.client.usage)
    }

    fn mint_window(&self) -> Option<MintWindow> {
        self.client.usage.mint_window()
    }

    async fn delete(&self, id: RunnerId) -> Result<Deleted, RegistryError> {
        let mut last = self.last_deletion.lock().await;
        if let Some(last) = *last {
            tokio::time::sleep_until(last + BETWEEN_DELETIONS).await;
        }
        *last = Some(Instant::now());
        let request = Request {
            operation: Operation::Delete,
            method: Method::DELETE,
            target: self.endpoints.runner(id),
            body: None,
        };
        let answer: Result<Answer<Unread>, RegistryError> = self.client.call(&request).await;
        match answer {
            Ok(_) => Ok(Deleted::Gone),
            Err(error) if error.status == Some(StatusCode::NOT_FOUND.as_u16()) => Ok(Deleted::Gone),
            Err(error) if means_busy(&error) => Ok(Deleted::Busy),
            Err(error) => Err(error),
        }
    }
}

/// Returns true for a 422, and for an older server's 500 that names a job.
fn means_busy(error: &RegistryError) -> bool {
    let message = error.message.to_ascii_lowercase();
    match error.status {
        Some(422) => true,
        Some(500) => message.contains("running a job") || message.contains("still running"),
        _ => false,
    }
}

/// The answer to a mint, as far as it is used. octocrab's `SelfHostedRunnerJitConfig` requires an id
/// of every label, which is optional in GitHub's schema (octocrab 0.54.9, src/models/actions.rs:19).
#[derive(Deserialize)]
pub(super) struct JitConfigAnswer {
    runner: NewRunner,
    pub(super) encoded_jit_config: String,
}

#[derive(Deserialize)]
struct NewRunner {
    id: u64,
    name: String,
}
