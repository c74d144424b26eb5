//! [`Deliveries`] over GitHub's REST API.
//!
//! The hook of an App belongs to the App itself, and others to an organisation or a repository, for which a token needs
//! a further permission. So there are two clients.

use std::time::SystemTime;

use http::Method;
use octocrab::FromResponse;
use serde::Deserialize;

use super::app::Access;
use super::client::Client;
use super::endpoints::Endpoints;
use super::exchange::{Answer, Request};
use super::login::Login;
use super::operation::Operation;
use super::paged::Paged;
use super::registry::GitHub;
use super::setup::SetupError;
use super::transport;
use crate::config::GitHubConfig;
use crate::world::{
    Deliveries, FailedAttempt, Hook, HookOwner, MAX_DELIVERY_ID, RegistryError, RegistryErrorKind,
};

/// Maximum number of pages of 100 attempts in a sweep.
const MAX_PAGES: usize = 10;

/// Deliveries of the hooks of one scope.
pub struct HookDeliveries {
    endpoints: Endpoints,
    /// For hooks of an organisation or a repository.
    of_scope: Client,
    /// For the hook of the App, if the host logs in as one.
    of_app: Option<Client>,
}

impl HookDeliveries {
    /// Returns a client that has sent nothing yet. Calls for the scope's hooks count for the limits of `github`. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// As [`GitHub::new`].
    pub fn beside(
        github: &GitHub,
        config: &GitHubConfig,
        login: Login,
        of_app: Option<Login>,
    ) -> Result<Self, SetupError> {
        let client = |login, access, usage| {
            let transport = transport::network(config)?;
            Client::new(transport, config, login, access, usage)
        };
        let of_app = of_app.map(|login| client(login, Access::Itself, github.usage()));
        Ok(Self {
            endpoints: Endpoints::new(config),
            of_scope: client(login, Access::Hooks, github.usage())?,
            of_app: of_app.transpose()?,
        })
    }

    async fn call<T: FromResponse>(
        &self,
        hook: &Hook,
        [of_app, of_scope]: [Operation; 2],
        method: Method,
        target: String,
    ) -> Result<Answer<T>, RegistryError> {
        let (client, operation) = match (&hook.owner, &self.of_app) {
            (HookOwner::App, Some(client)) => (client, of_app),
            (HookOwner::App, None) => {
                let problem =
                    "the hook belongs to a GitHub App, and the host does not log in as one";
                let context = &self.of_scope.context;
                return Err(context.error(of_app, RegistryErrorKind::Invalid, problem));
            }
            (HookOwner::Organization(_) | HookOwner::Repository(_), _) => {
                (&self.of_scope, of_scope)
            }
        };
        let body = (method == Method::POST).then(|| serde_json::json!({}));
        let request = Request {
            operation,
            method,
            target,
            body,
        };
        client.call(&request).await
    }
}

impl Deliveries for HookDeliveries {
    async fn failed(
        &self,
        hook: &Hook,
        since_unix_ms: u64,
    ) -> Result<(Vec<FailedAttempt>, bool), RegistryError> {
        let operations = [Operation::AppDeliveries, Operation::Deliveries];
        let mut failed = Vec::new();
        let mut next = Some(self.endpoints.failed_deliveries(hook));
        for _ in 0..MAX_PAGES {
            let Some(target) = next else {
                return Ok((failed, false));
            };
            let page: Answer<Paged<Vec<Listed>>> =
                self.call(hook, operations, Method::GET, target).await?;
            let Paged { body, next: after } = page.body;
            let is_old = body
                .last()
                .is_some_and(|last| last.unix_ms().is_none_or(|at| at < since_unix_ms));
            let attempts = body.into_iter().filter_map(Listed::failed);
            failed.extend(attempts.filter(|attempt| attempt.unix_ms >= since_unix_ms));
            next = after.filter(|_| !is_old);
        }
        Ok((failed, next.is_some()))
    }

    async fn repeat(&self, hook: &Hook, attempt: u64) -> Result<(), RegistryError> {
        let operations = [Operation::AppRedeliver, Operation::Redeliver];
        let target = self.endpoints.delivery_attempts(hook, attempt);
        let asked: Result<Answer<Accepted>, RegistryError> =
            self.call(hook, operations, Method::POST, target).await;
        asked.map(drop)
    }
}

/// The answer that GitHub will deliver once more, of which nothing is used.
#[derive(Deserialize)]
struct Accepted {}

/// An attempt in GitHub's list, as far as it is used.
#[derive(Deserialize)]
struct Listed {
    id: u64,
    guid: String,
    /// RFC 3339.
    delivered_at: String,
    #[serde(default)]
    status_code: Option<u16>,
    event: String,
}

impl Listed {
    fn unix_ms(&self) -> Option<u64> {
        let at = humantime::parse_rfc3339_weak(&self.delivered_at).ok()?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    }

    /// Returns the attempt, if it failed and is about a job. A server that does not know the filter lists all.
    fn failed(self) -> Option<FailedAttempt> {
        let succeeded = self
            .status_code
            .is_some_and(|code| (200..300).contains(&code));
        let is_id = (1..=MAX_DELIVERY_ID).contains(&self.guid.len());
        if succeeded || self.event != "workflow_job" || !is_id {
            return None;
        }
        Some(FailedAttempt {
            id: self.id,
            unix_ms: self.unix_ms()?,
            delivery: self.guid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(code: Option<u16>, event: &str) -> Listed {
        Listed {
            id: 7,
            guid: "0b98".into(),
            delivered_at: "2026-11-28T20:17:04.25Z".into(),
            status_code: code,
            event: event.into(),
        }
    }

    #[test]
    fn failed_attempts_for_jobs_are_read() {
        let attempt = FailedAttempt {
            id: 7,
            delivery: "0b98".into(),
            unix_ms: 1_795_897_024_250,
        };
        for code in [None, Some(0), Some(401), Some(502)] {
            assert_eq!(listed(code, "workflow_job").failed(), Some(attempt.clone()));
        }
        assert_eq!(listed(Some(202), "workflow_job").failed(), None);
        assert_eq!(listed(Some(502), "push").failed(), None);
        let mut strange = listed(Some(502), "workflow_job");
        strange.delivered_at = "yesterday".into();
        assert_eq!(strange.failed(), None);
    }
}
