//! A client for the control API of the stand-in GitHub, `/_sim/…`.
//!
//! The stand-in listens in a network namespace of the test host. A thread that joins this namespace
//! reaches it as a program of the host does, without a process.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use github_sim::{
    Conclusion, DeliveryView, Endpoint, Fault, FaultRule, HookSpec, JobSpec, JobState, JobView,
    PlantedRunner, RunnerView, ScaleSetView, ScopeToken, Standing, Stats, WebhookFault,
    WebhookFaultRule,
};
use nix::sched::{CloneFlags, setns};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bed::last_lines;
use crate::host::TestHost;
use crate::net::GITHUB;
use crate::wait::{Seen, wait_until};

/// Port of the stand-in.
pub const PORT: u16 = 8080;

/// Returns a job of one step for a pool. As with GitHub's runner, the first command that fails ends it.
#[must_use]
pub fn pool_job(name: &str, pool: &str, run: &str) -> JobSpec {
    JobSpec::new(name, &["self-hosted", pool], run)
}

/// Returns an offline registration with the label `ci`, for [`Sim::plant`].
#[must_use]
pub fn planted_runner(name: &str) -> PlantedRunner {
    PlantedRunner {
        scope: github_sim::Scope::Repository {
            owner: "acme".into(),
            name: "widgets".into(),
        },
        name: name.into(),
        status: "offline".into(),
        busy: false,
        labels: vec!["ci".into()],
        runner_group_id: 1,
    }
}

/// A client of the control API.
#[derive(Debug, Clone)]
pub struct Sim {
    network: PathBuf,
    base: String,
}

impl Sim {
    /// Returns a client for the stand-in of a host. The stand-in need not run yet.
    #[must_use]
    pub fn of(host: &TestHost) -> Self {
        Self {
            network: host.network_namespace(),
            base: format!("http://{GITHUB}:{PORT}"),
        }
    }

    /// Returns the API's base URL as the daemon has it.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.base
    }

    /// Returns the names of the registered runners, without those of [`Sim::plant`].
    pub fn registered(&self) -> Result<Vec<String>> {
        let runners = self.runners()?.into_iter();
        Ok(runners
            .filter(|runner| runner.standing == Standing::Registered && !runner.planted)
            .map(|runner| runner.name)
            .collect())
    }

    /// Returns all runners since the stand-in's start, also those that are gone.
    pub fn runners(&self) -> Result<Vec<RunnerView>> {
        self.get("/_sim/runners")
    }

    /// Deletes a runner as an operator does in the browser.
    pub fn delete_runner(&self, id: u64) -> Result<()> {
        self.nothing("DELETE", &format!("/_sim/runners/{id}"), None)
    }

    /// Registers runners without a listener.
    pub fn plant(&self, runners: &[PlantedRunner]) -> Result<()> {
        self.post::<Value>("/_sim/runners", &runners).map(drop)
    }

    /// Returns all scale sets since the stand-in's start, also those that were deleted.
    pub fn scale_sets(&self) -> Result<Vec<ScaleSetView>> {
        self.get("/_sim/scale-sets")
    }

    /// Ends the session of a scale set, as GitHub does when it loses it.
    pub fn evict_session(&self, set: u64) -> Result<()> {
        let path = format!("/_sim/scale-sets/{set}/evict-session");
        self.nothing("POST", &path, None)
    }

    /// Loses a scale set, as GitHub does after a day without a session.
    pub fn lose_scale_set(&self, set: u64) -> Result<()> {
        self.nothing("DELETE", &format!("/_sim/scale-sets/{set}"), None)
    }

    /// Injects a fault into calls of an endpoint: so many times, or until [`Sim::clear_faults`].
    pub fn fault(&self, endpoint: Endpoint, times: Option<u64>, fault: &Fault) -> Result<()> {
        let rule = FaultRule::on(endpoint, times, fault.clone());
        self.post::<Value>("/_sim/faults", &rule).map(drop)
    }

    /// Removes all faults.
    pub fn clear_faults(&self) -> Result<()> {
        self.nothing("DELETE", "/_sim/faults", None)
    }

    /// Changes some fields of [`github_sim::Settings`].
    pub fn set(&self, settings: &Value) -> Result<()> {
        self.post::<Value>("/_sim/settings", settings).map(drop)
    }

    /// Makes this the only token that is accepted in every scope.
    pub fn rotate_token(&self, token: &str) -> Result<()> {
        self.nothing("POST", "/_sim/token", Some(&json!({ "token": token })))
    }

    /// Makes each token the only one of its scope alone.
    pub fn set_scope_tokens(&self, tokens: &[ScopeToken]) -> Result<()> {
        self.nothing(
            "POST",
            "/_sim/scope-tokens",
            Some(&serde_json::to_value(tokens)?),
        )
    }

    /// Adds a hook and returns its id.
    pub fn add_hook(&self, hook: &HookSpec) -> Result<u64> {
        #[derive(Deserialize)]
        struct Added {
            ids: Vec<u64>,
        }
        let added: Added = self.post("/_sim/hooks", hook)?;
        added
            .ids
            .first()
            .copied()
            .context("the stand-in added no hook")
    }

    /// Returns the deliveries of all hooks, also those that are not sent yet.
    pub fn deliveries(&self) -> Result<Vec<DeliveryView>> {
        self.get("/_sim/deliveries")
    }

    /// Injects a fault into the next delivery of an action.
    pub fn webhook_fault(&self, action: &str, fault: WebhookFault) -> Result<()> {
        let rule = WebhookFaultRule::on(action, 1, fault);
        self.post::<Value>("/_sim/webhook-faults", &rule).map(drop)
    }

    /// Requests another attempt of a delivery, as on the page of a hook of `acme/widgets`.
    pub fn redeliver(&self, delivery: &DeliveryView, token: &str) -> Result<()> {
        let path = format!(
            "/repos/acme/widgets/hooks/{}/deliveries/{}/attempts",
            delivery.hook, delivery.id
        );
        let (status, answer) = self.call("POST", &path, None, Some(token))?;
        ensure!(status == 202, "POST {path}: {status} {answer}");
        Ok(())
    }

    /// Returns the calls since the last [`Sim::forget_calls`].
    pub fn stats(&self) -> Result<Stats> {
        self.get("/_sim/stats")
    }

    /// Resets the statistics.
    pub fn forget_calls(&self) -> Result<()> {
        self.nothing("POST", "/_sim/stats/reset", None)
    }

    /// Queues a job and returns its id.
    pub fn queue(&self, job: &JobSpec) -> Result<u64> {
        let ids = self.queue_all(std::slice::from_ref(job))?;
        ids.first().copied().context("the stand-in queued no job")
    }

    /// Queues jobs at once, in this order, and returns their ids.
    pub fn queue_all(&self, jobs: &[JobSpec]) -> Result<Vec<u64>> {
        #[derive(Deserialize)]
        struct Queued {
            ids: Vec<u64>,
        }
        let queued: Queued = self.post("/_sim/jobs", &jobs)?;
        Ok(queued.ids)
    }

    /// Returns all jobs since the stand-in's start.
    pub fn jobs(&self) -> Result<Vec<JobView>> {
        self.get("/_sim/jobs")
    }

    /// Returns one job.
    pub fn job(&self, id: u64) -> Result<JobView> {
        self.get(&format!("/_sim/jobs/{id}"))
    }

    /// Lets GitHub give a job that was queued with `hold` to a runner.
    pub fn let_go(&self, id: u64) -> Result<()> {
        self.nothing("POST", &format!("/_sim/jobs/{id}/release"), None)
    }

    /// Cancels a job, as in the browser.
    pub fn cancel(&self, id: u64) -> Result<()> {
        self.nothing("POST", &format!("/_sim/jobs/{id}/cancel"), None)
    }

    /// Waits until a job has this state.
    pub fn await_job(&self, id: u64, state: JobState, limit: Duration) -> Result<JobView> {
        wait_until(&format!("job {id} to be {state}"), limit, || {
            let job = self.job(id)?;
            Ok(if job.status == state {
                Seen::Done(job)
            } else {
                Seen::NotYet(job.summary())
            })
        })
    }

    /// Waits until a job has ended, and fails unless it succeeded.
    pub fn await_success(&self, id: u64, limit: Duration) -> Result<JobView> {
        let job = self.await_job(id, JobState::Completed, limit)?;
        ensure!(
            job.conclusion == Some(Conclusion::Success),
            "{}; its log ends:\n{}",
            job.summary(),
            last_lines(&job.facts.log_tail, 20)
        );
        Ok(job)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.typed("GET", path, None)
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.typed("POST", path, Some(&serde_json::to_value(body)?))
    }

    fn nothing(&self, method: &str, path: &str, body: Option<&Value>) -> Result<()> {
        self.typed::<Value>(method, path, body).map(drop)
    }

    fn typed<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T> {
        let (status, answer) = self.request(method, path, body)?;
        if !(200..300).contains(&status) {
            bail!("{method} {path} at the stand-in: {status} {answer}");
        }
        serde_json::from_value(answer).with_context(|| format!("{method} {path} at the stand-in"))
    }

    /// Sends any request and returns any status. A body that is not JSON is returned as a string.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        self.call(method, path, body, None)
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<(u16, Value)> {
        let call = || -> Result<(u16, Value)> {
            let namespace = File::open(&self.network).context("the test host is gone")?;
            setns(namespace, CloneFlags::CLONE_NEWNET).context("join the host's network")?;
            // The agent is made here, because a socket belongs to the namespace of its thread.
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .proxy(None)
                .timeout_global(Some(Duration::from_secs(20)))
                .build()
                .into();
            let text = body.map(Value::to_string).unwrap_or_default();
            let mut request = ureq::http::Request::builder()
                .method(method)
                .uri(format!("{}{path}", self.base));
            if body.is_some() {
                request = request.header("content-type", "application/json");
            }
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let mut answer = agent
                .run(request.body(text)?)
                .with_context(|| format!("{method} {path} at the stand-in"))?;
            let text = answer
                .body_mut()
                .with_config()
                .limit(256 << 20)
                .read_to_string()?;
            let value = if text.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&text).unwrap_or(Value::String(text))
            };
            Ok((answer.status().as_u16(), value))
        };
        // The changed namespace ends with the thread.
        std::thread::scope(|scope| scope.spawn(call).join())
            .map_err(|_| anyhow!("the request panicked"))?
    }
}

/// A job that succeeded on no runner, for tests that change some of it.
#[cfg(test)]
#[must_use]
pub fn example_job() -> JobView {
    JobView {
        id: 1,
        name: "job".into(),
        scope: github_sim::Scope::Organization("acme".into()),
        labels: Vec::new(),
        status: JobState::Completed,
        conclusion: Some(Conclusion::Success),
        reason: None,
        runner_id: None,
        runner_name: None,
        created_at: 0,
        started_at: None,
        completed_at: None,
        attempts: 1,
        assignments: Vec::new(),
        held: false,
        facts: github_sim::Facts::default(),
        witness: Vec::new(),
    }
}
