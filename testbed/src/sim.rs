//! A client for the control side of the stand-in GitHub, `/_sim/…`.
//!
//! The stand-in listens in a network namespace of the test host. A thread that joins the host's
//! network namespace reaches it like any program of the host would, and costs no process.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bed::last_lines;
use crate::host::TestHost;
use crate::net::GITHUB;
use crate::wait::{Seen, wait_until};

/// The stand-in's port.
pub const PORT: u16 = 8080;

/// What the stand-in knows of a runner; it tells more.
#[derive(Debug, Clone, Deserialize)]
pub struct Runner {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `registered` while the API shows it, else `ghost` or `gone`.
    pub standing: String,
    /// Why it is gone.
    pub gone: Option<String>,
    /// Whether it listens.
    pub online: bool,
    /// The job it was offered or runs.
    pub job: Option<u64>,
    /// Whether a test made it, not the daemon.
    pub planted: bool,
}

/// Which calls came, and what they were answered.
#[derive(Debug, Clone, Deserialize)]
pub struct Stats {
    /// Endpoint → status → calls.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// REST calls that came although a limit had been announced.
    pub while_limited: u64,
    /// The last 1000 requests, oldest first.
    pub requests: Vec<Request>,
}

/// One request.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// Name of the endpoint.
    pub endpoint: String,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// Whether it carried `If-None-Match`.
    pub conditional: bool,
    /// If it came while a limit held: for how long that had been announced, in milliseconds.
    pub limited_ms: Option<u64>,
}

impl Stats {
    /// Calls of one endpoint, whatever the answer.
    #[must_use]
    pub fn of(&self, endpoint: &str) -> u64 {
        self.calls
            .get(endpoint)
            .map_or(0, |statuses| statuses.values().sum())
    }

    /// Calls of GitHub's REST API, which are the daemon's; the others are the listeners'.
    #[must_use]
    pub fn rest(&self) -> u64 {
        [
            "mint",
            "list",
            "get",
            "delete",
            "groups",
            "installation",
            "access_token",
            "rate_limit",
            "meta",
        ]
        .iter()
        .map(|endpoint| self.of(endpoint))
        .sum()
    }
}

/// A job to queue: bash steps, for a runner that has all the labels.
#[derive(Debug, Clone)]
pub struct NewJob {
    name: String,
    labels: Vec<String>,
    run: String,
    listener: Value,
    lose_races: u32,
}

impl NewJob {
    /// A job of one step for a pool's label. As with the real runner the first command that fails
    /// ends it.
    #[must_use]
    pub fn new(name: &str, label: &str, run: &str) -> Self {
        Self {
            name: name.into(),
            labels: vec!["self-hosted".into(), label.into()],
            run: run.into(),
            listener: Value::Object(serde_json::Map::new()),
            lose_races: 0,
        }
    }

    /// Makes so many runners that try to take it hear that another one has it: ghosts from then on.
    #[must_use]
    pub fn lost_by(mut self, runners: u32) -> Self {
        self.lose_races = runners;
        self
    }

    /// Makes the listener misbehave, in the stand-in's own words: `{"crash_with": 3}`.
    #[must_use]
    pub fn with_listener(mut self, misbehaviour: Value) -> Self {
        self.listener = misbehaviour;
        self
    }

    fn to_json(&self) -> Value {
        let Self {
            name,
            labels,
            run,
            listener,
            lose_races,
        } = self;
        json!({
            "name": name,
            "labels": labels,
            "steps": [{ "name": "run", "run": run }],
            "listener_faults": listener,
            "lose_races": lose_races,
        })
    }
}

/// A job as the stand-in shows it; it tells more. Times are milliseconds of its clock.
#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    /// Its id; `GITHUB_RUN_ID` to itself.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `queued`, `assigned`, `in_progress`, `completed`.
    pub status: String,
    /// `success`, `failure`, `cancelled`.
    pub conclusion: Option<String>,
    /// Why, when the listener did not say.
    pub reason: Option<String>,
    /// Who has it, or had it last.
    pub runner_name: Option<String>,
    /// When it was queued.
    pub created_at: u64,
    /// When a runner took it.
    pub started_at: Option<u64>,
    /// When it was over.
    pub completed_at: Option<u64>,
    /// How often it was given to a runner.
    pub attempts: usize,
    /// Each of these times.
    pub assignments: Vec<Assignment>,
    /// What it said of itself.
    pub witness: Vec<String>,
    /// Where it ran and what it printed.
    pub facts: Facts,
}

/// One try to give a job to a runner.
#[derive(Debug, Clone, Deserialize)]
pub struct Assignment {
    /// What came of it: `acquired`, or why not.
    pub outcome: String,
}

impl Job {
    /// In one line, for a person.
    #[must_use]
    pub fn summary(&self) -> String {
        let end = self
            .conclusion
            .as_deref()
            .or(self.reason.as_deref())
            .unwrap_or("-");
        format!(
            "{} {} {end} on {}",
            self.name,
            self.status,
            self.runner_name.as_deref().unwrap_or("-")
        )
    }
}

/// What the listener tells of a job.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Its container's host name.
    pub hostname: String,
    /// The boot id that its container has for itself.
    pub boot_id: String,
    /// The end of its output.
    pub log_tail: String,
}

/// Speaks to the stand-in.
#[derive(Debug, Clone)]
pub struct Sim {
    network: PathBuf,
    base: String,
}

impl Sim {
    /// The stand-in of this host, which may not be running yet.
    #[must_use]
    pub fn of(host: &TestHost) -> Self {
        Self {
            network: host.network_namespace(),
            base: format!("http://{GITHUB}:{PORT}"),
        }
    }

    /// The API's base URL as the daemon sees it.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.base
    }

    /// `GET`, with the answer as it is documented by the stand-in.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.typed("GET", path, None)
    }

    /// `POST` of a JSON body.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        self.typed("POST", path, Some(body))
    }

    /// Names of the runners that are registered, those that a test planted left out.
    pub fn registered(&self) -> Result<Vec<String>> {
        let runners = self.runners()?.into_iter();
        Ok(runners
            .filter(|runner| runner.standing == "registered" && !runner.planted)
            .map(|runner| runner.name)
            .collect())
    }

    /// Every runner since the stand-in started, those that are gone included.
    pub fn runners(&self) -> Result<Vec<Runner>> {
        self.get("/_sim/runners")
    }

    /// Deletes a runner as a person would in the browser.
    pub fn delete_runner(&self, id: u64) -> Result<()> {
        self.nothing("DELETE", &format!("/_sim/runners/{id}"), None)
    }

    /// Registers runners that nobody runs, in the stand-in's own words.
    pub fn plant(&self, runners: &Value) -> Result<()> {
        self.post::<Value>("/_sim/runners", runners).map(drop)
    }

    /// Makes an endpoint misbehave: so many times, or until [`Sim::clear_faults`].
    pub fn fault(&self, endpoint: &str, times: Option<u64>, fault: &Value) -> Result<()> {
        let rule = json!({ "match": { "endpoint": endpoint }, "times": times, "fault": fault });
        self.post::<Value>("/_sim/faults", &rule).map(drop)
    }

    /// Ends all misbehaviour.
    pub fn clear_faults(&self) -> Result<()> {
        self.nothing("DELETE", "/_sim/faults", None)
    }

    /// Changes some settings; the others stay.
    pub fn set(&self, settings: &Value) -> Result<()> {
        self.post::<Value>("/_sim/settings", settings).map(drop)
    }

    /// All settings.
    pub fn settings(&self) -> Result<Value> {
        self.get("/_sim/settings")
    }

    /// Makes this the only token that is accepted.
    pub fn rotate_token(&self, token: &str) -> Result<()> {
        self.nothing("POST", "/_sim/token", Some(&json!({ "token": token })))
    }

    /// What was called since the last [`Sim::forget_calls`].
    pub fn stats(&self) -> Result<Stats> {
        self.get("/_sim/stats")
    }

    /// Counts calls from zero.
    pub fn forget_calls(&self) -> Result<()> {
        self.nothing("POST", "/_sim/stats/reset", None)
    }

    /// Queues a job; returns its id.
    pub fn queue(&self, job: &NewJob) -> Result<u64> {
        let ids = self.queue_all(std::slice::from_ref(job))?;
        ids.first().copied().context("the stand-in queued no job")
    }

    /// Queues jobs in this order, at once; returns their ids.
    pub fn queue_all(&self, jobs: &[NewJob]) -> Result<Vec<u64>> {
        #[derive(Deserialize)]
        struct Queued {
            ids: Vec<u64>,
        }
        let body = jobs.iter().map(NewJob::to_json).collect();
        let queued: Queued = self.post("/_sim/jobs", &Value::Array(body))?;
        Ok(queued.ids)
    }

    /// Every job since the stand-in started.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        self.get("/_sim/jobs")
    }

    /// One job.
    pub fn job(&self, id: u64) -> Result<Job> {
        self.get(&format!("/_sim/jobs/{id}"))
    }

    /// Waits until a job has this status.
    pub fn await_job(&self, id: u64, status: &str, limit: Duration) -> Result<Job> {
        wait_until(&format!("job {id} to be {status}"), limit, || {
            let job = self.job(id)?;
            Ok(if job.status == status {
                Seen::Done(job)
            } else {
                Seen::NotYet(job.summary())
            })
        })
    }

    /// Waits until a job is over, and is not content unless it went well.
    pub fn await_success(&self, id: u64, limit: Duration) -> Result<Job> {
        let job = self.await_job(id, "completed", limit)?;
        ensure!(
            job.conclusion.as_deref() == Some("success"),
            "{}; it said:\n{}",
            job.summary(),
            last_lines(&job.facts.log_tail, 20)
        );
        Ok(job)
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

    /// Any request; any status is an answer. A body that is not JSON comes back as a string.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let call = || -> Result<(u16, Value)> {
            let namespace = File::open(&self.network).context("the test host is gone")?;
            setns(namespace, CloneFlags::CLONE_NEWNET).context("join the host's network")?;
            // The agent is made in here: sockets belong to the namespace of the thread that made them.
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
        // The thread takes its changed namespace with it when it ends.
        std::thread::scope(|scope| scope.spawn(call).join())
            .map_err(|_| anyhow!("the request panicked"))?
    }
}
