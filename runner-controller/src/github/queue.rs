//! [`Queue`] over GitHub's REST API: the jobs of a repository that wait or run, and one job of the scope.
//!
//! Its client has a token for reading alone, a memory for pages, and the limits of the scope's account.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use octocrab::FromResponse;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::app::Access;
use super::client::Client;
use super::endpoints::Endpoints;
use super::exchange::{Answer, Request};
use super::login::Login;
use super::operation::Operation;
use super::paged::Paged;
use super::registry::GitHub;
use super::setup::SetupError;
use super::transport::{self, Transport};
use crate::config::{GitHubConfig, Scope};
use crate::pool::{KnownJob, ScopeId};
use crate::workflow_job::WorkflowJob;
use crate::world::{Queue, QueueReading, ReadJob, RegistryError, RegistryErrorKind};

/// Statuses of the runs whose jobs may wait. A job with `needs` waits in a run that is in progress.
const STATUSES: [&str; 2] = ["queued", "in_progress"];
/// Maximum number of pages of 100 jobs of one run. GitHub allows 256 jobs in a matrix.
const MAX_JOB_PAGES: usize = 10;
/// Maximum size of the pages that are remembered. A larger queue costs quota and no more memory.
const MAX_REMEMBERED_BYTES: usize = 4 << 20;

/// The jobs of one scope at GitHub.
pub struct JobQueue {
    client: Client,
    endpoints: Endpoints,
    scope: ScopeId,
    /// `owner/repo`, if the scope is a repository.
    repository: Option<String>,
    /// Held while the queue is read, so that remembered pages do not change during a request.
    reading: Mutex<()>,
}

impl JobQueue {
    /// Returns a client that has sent nothing yet, and whose calls count for the limits of `github`. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// As [`GitHub::new`].
    pub fn beside(
        github: &GitHub,
        config: &GitHubConfig,
        login: impl Into<Login>,
    ) -> Result<Self, SetupError> {
        let transport = transport::network(config)?;
        Self::with(transport, github, config, login.into())
    }

    fn with(
        transport: Transport,
        github: &GitHub,
        config: &GitHubConfig,
        login: Login,
    ) -> Result<Self, SetupError> {
        let repository = match &config.scope {
            Scope::Repository { owner, repo } => Some(format!("{owner}/{repo}")),
            Scope::Organization { .. } | Scope::Enterprise { .. } => None,
        };
        Ok(Self {
            client: Client::new(transport, config, login, Access::Jobs, github.usage())?,
            endpoints: Endpoints::new(config),
            scope: config.scope_id(),
            repository,
            reading: Mutex::default(),
        })
    }

    async fn get<T: FromResponse>(
        &self,
        operation: Operation,
        target: String,
    ) -> Result<Answer<T>, RegistryError> {
        let request = Request {
            operation,
            method: Method::GET,
            target,
            body: None,
        };
        self.client.call(&request).await
    }

    /// Fetches a page from memory if GitHub confirms it, and adds it to the pages that were visited.
    async fn page<T: FromResponse>(
        &self,
        operation: Operation,
        target: &str,
        visited: &mut BTreeSet<String>,
    ) -> Result<T, RegistryError> {
        visited.insert(target.to_owned());
        let request = Request {
            operation,
            method: Method::GET,
            target: target.to_owned(),
            body: None,
        };
        let answer: Result<Answer<T>, RegistryError> = self.client.call_cached(&request).await;
        let answer = answer.inspect_err(|error| {
            // A success that cannot be read: GitHub would confirm it for as long as the page stays.
            if error.status == Some(StatusCode::OK.as_u16()) {
                self.client.pages.retain(|uri| uri != target);
            }
        })?;
        Ok(answer.body)
    }

    /// Fetches the newest runs that may have waiting jobs. Returns true as well if there are more.
    async fn runs(
        &self,
        repository: &str,
        visited: &mut BTreeSet<String>,
    ) -> Result<(BTreeSet<u64>, bool), RegistryError> {
        let (mut runs, mut has_more) = (BTreeSet::new(), false);
        for status in STATUSES {
            let target = self.endpoints.runs(repository, status);
            let page: Paged<Runs> = self.page(Operation::Runs, &target, visited).await?;
            has_more |= page.next.is_some();
            runs.extend(page.body.workflow_runs.iter().map(|run| run.id));
        }
        Ok((runs, has_more))
    }

    /// Fetches the jobs of a run; none if the run was deleted meanwhile.
    async fn jobs_of(
        &self,
        repository: &str,
        run: u64,
        visited: &mut BTreeSet<String>,
    ) -> Result<Vec<WorkflowJob>, RegistryError> {
        let mut jobs = Vec::new();
        let mut next = Some(self.endpoints.jobs_of_run(repository, run));
        for _ in 0..MAX_JOB_PAGES {
            let Some(target) = next else { break };
            let page: Result<Paged<Jobs>, RegistryError> =
                self.page(Operation::RunJobs, &target, visited).await;
            let page = match page {
                Ok(page) => page,
                Err(error) if error.kind == RegistryErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            jobs.extend(page.body.jobs);
            next = page.next;
        }
        Ok(jobs)
    }

    fn known(&self, job: WorkflowJob, repository: &str, unix_ms: u64) -> Option<KnownJob> {
        let id = job.id;
        let job = job.read(self.scope.clone(), repository.to_owned(), unix_ms);
        job.inspect_err(|error| {
            tracing::warn!(job_id = id, "leaving out job {id} of {repository}: {error}");
        })
        .ok()
    }
}

impl Queue for JobQueue {
    fn repository(&self) -> Option<&str> {
        self.repository.as_deref()
    }

    async fn job(&self, repository: &str, id: u64, unix_ms: u64) -> Result<ReadJob, RegistryError> {
        let target = self.endpoints.job(repository, id);
        let answer: Result<Answer<WorkflowJob>, RegistryError> =
            self.get(Operation::Job, target).await;
        match answer {
            Ok(answer) if answer.body.id == id => {
                let job = self.known(answer.body, repository, unix_ms);
                Ok(job.map_or(ReadJob::Unreadable, |job| ReadJob::Known(Box::new(job))))
            }
            Ok(answer) => Err(self.client.context.misshapen(
                Operation::Job,
                answer.status,
                &answer.headers,
                "the answer is about another job",
            )),
            Err(error) if error.kind == RegistryErrorKind::NotFound => {
                // GitHub also answers 404 to a token without access, and such an answer proves nothing.
                let target = self.endpoints.newest_run(repository);
                let access: Result<Answer<Runs>, RegistryError> =
                    self.get(Operation::Runs, target).await;
                access.map(|_| ReadJob::Gone)
            }
            Err(error) => Err(error),
        }
    }

    async fn jobs(&self, unix_ms: u64) -> Result<QueueReading, RegistryError> {
        let Some(repository) = &self.repository else {
            return Ok(QueueReading::default());
        };
        let _alone = self.reading.lock().await;
        let mut visited = BTreeSet::new();
        let (runs, has_more_runs) = self.runs(repository, &mut visited).await?;
        let mut jobs = Vec::new();
        for run in &runs {
            let of_run = self.jobs_of(repository, *run, &mut visited).await?;
            let known = of_run.into_iter();
            jobs.extend(known.filter_map(|job| self.known(job, repository, unix_ms)));
        }
        self.client.pages.retain(|uri| {
            uri.path_and_query()
                .is_some_and(|path| visited.contains(path.as_str()))
        });
        self.client.pages.bound(MAX_REMEMBERED_BYTES);
        Ok(QueueReading {
            jobs,
            runs: runs.len(),
            has_more_runs,
        })
    }
}

/// A page of runs, as far as it is used. octocrab's `Run` requires more fields than GitHub promises.
#[derive(Deserialize)]
struct Runs {
    workflow_runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    id: u64,
}

/// A page of jobs, as far as it is used.
#[derive(Deserialize)]
struct Jobs {
    jobs: Vec<WorkflowJob>,
}
