//! The stand-in's own side: what tests and the demo use to set scenes and to see what happened.

use std::{sync::Arc, time::Duration};

use hyper::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    broker,
    faults::Rule,
    http::{Call, Reply},
    model::{Job, Runner},
    settings::Settings,
    state::{Hub, State},
    stats::{Recorder, Stats},
    view::{JobSpec, JobStatus, JobView, PlantedRunner, RunnerView, Standing},
};

/// Lines that a job can say of itself.
const MOST_WITNESS: usize = 100;
/// And how long one may be, in bytes.
const LONGEST_WITNESS: usize = 200;

/// The control API as methods. Cheap to clone; all clones steer the same server.
#[derive(Clone)]
pub struct Control {
    hub: Arc<Hub>,
}

/// A change to the settings that they cannot take.
#[derive(Debug, thiserror::Error)]
#[error("these settings cannot be used")]
pub struct SettingsError(#[from] serde_json::Error);

#[expect(
    clippy::must_use_candidate,
    reason = "a scene is set by calls whose answer often does not matter"
)]
impl Control {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Queues a job and returns its id.
    pub fn add_job(&self, spec: JobSpec) -> u64 {
        self.hub.change(|state, now| {
            let origin = spec
                .scope
                .clone()
                .or_else(|| {
                    state
                        .scopes
                        .iter()
                        .find(|s| s.to_string().contains('/'))
                        .cloned()
                })
                .or_else(|| state.scopes.first().cloned())
                .unwrap_or_else(|| crate::Scope::Organization("acme".into()));
            let id = state.take_job_id();
            state.jobs.insert(id, Job::new(id, spec, origin, now));
            id
        })
    }

    /// All jobs, oldest first.
    pub fn jobs(&self) -> Vec<JobView> {
        self.hub
            .look(|state, _| state.jobs.values().map(view_job).collect())
    }

    /// One job.
    pub fn job(&self, id: u64) -> Option<JobView> {
        self.hub.look(|state, _| state.jobs.get(&id).map(view_job))
    }

    /// Cancels a job. `false` if there is no such job; one that is over stays as it is.
    pub fn cancel_job(&self, id: u64) -> bool {
        self.with_job(id, |state, now| state.cancel_job(id, now))
    }

    /// Lets a job go that was queued with `hold`. `false` if there is no such job.
    pub fn release_job(&self, id: u64) -> bool {
        self.with_job(id, |state, _| {
            if let Some(job) = state.jobs.get_mut(&id) {
                job.held = false;
            }
        })
    }

    /// Keeps what a job says of itself, at most [`MOST_WITNESS`] lines. `false` if there is no such
    /// job.
    pub fn witness(&self, id: u64, text: String) -> bool {
        self.with_job(id, |state, _| {
            if let Some(job) = state.jobs.get_mut(&id)
                && job.witness.len() < MOST_WITNESS
            {
                job.witness.push(text);
            }
        })
    }

    fn with_job(&self, id: u64, act: impl FnOnce(&mut State, u64)) -> bool {
        self.hub.change(|state, now| {
            let known = state.jobs.contains_key(&id);
            if known {
                act(state, now);
            }
            known
        })
    }

    /// All runners there ever were, oldest first.
    pub fn runners(&self) -> Vec<RunnerView> {
        self.hub.look(|state, now| {
            let view = |runner| view_runner(state, runner, now);
            state.runners.values().map(view).collect()
        })
    }

    /// Registers a runner that nobody runs, and returns its id.
    pub fn plant_runner(&self, planted: PlantedRunner) -> u64 {
        self.hub.change(|state, now| {
            let id = state.take_runner_id();
            let labels = planted
                .labels
                .iter()
                .map(|label| label.to_lowercase())
                .collect::<Vec<_>>();
            let labels = labels
                .into_iter()
                .map(|label| (state.take_label_id(), label))
                .collect();
            let runner = Runner {
                id,
                group_id: planted.runner_group_id,
                name: planted.name,
                scope: planted.scope,
                labels,
                os: "linux".into(),
                version: None,
                ephemeral: true,
                created_at: now,
                listed_from: now,
                client_id: crate::random::uuid(),
                secret: vec![],
                access_token: None,
                session: None,
                idle_since: now,
                job: None,
                ghost: false,
                gone: None,
                planted: Some((planted.status == "online", planted.busy)),
            };
            state.runners.insert(id, runner);
            id
        })
    }

    /// Deletes a runner as a person would in the user interface: a running job does not prevent
    /// it. `false` if it is not registered.
    pub fn delete_runner(&self, id: u64) -> bool {
        self.hub
            .change(|state, now| broker::delete_in_ui(state, id, now))
    }

    /// Adds fault rules behind those in force.
    pub fn add_faults(&self, rules: impl IntoIterator<Item = Rule>) {
        self.hub.change(|state, _| state.faults.rules.extend(rules));
    }

    /// The rules in force, with what is left of `skip` and `times`.
    pub fn faults(&self) -> Vec<Rule> {
        self.hub.look(|state, _| state.faults.rules.clone())
    }

    /// Drops all fault rules.
    pub fn clear_faults(&self) {
        self.hub.change(|state, _| state.faults.rules.clear());
    }

    /// What was called.
    pub fn stats(&self) -> Stats {
        self.hub.look(|state, _| state.stats.stats.clone())
    }

    /// Forgets all calls. What they spent of the limits stays spent.
    pub fn reset_stats(&self) {
        self.hub
            .change(|state, _| state.stats = Recorder::default());
    }

    /// Makes `token` the only one that is accepted.
    pub fn rotate_token(&self, token: &str) {
        self.hub
            .change(|state, _| state.tokens = vec![token.into()]);
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.hub.look(|state, _| state.settings.clone())
    }

    /// Changes settings.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        self.hub.change(|state, _| change(&mut state.settings));
    }

    fn patch_settings(&self, patch: &Value) -> Result<Settings, SettingsError> {
        self.hub.change(|state, _| {
            let mut all = serde_json::to_value(&state.settings)?;
            for (key, value) in patch.as_object().into_iter().flatten() {
                all[key] = value.clone();
            }
            state.settings = serde_json::from_value(all)?;
            Ok(state.settings.clone())
        })
    }

    /// Waits until `look` finds something, for at most `limit`. It is asked again after every
    /// change of the server's state.
    pub async fn wait_for<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.hub.watch();
        let search = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look(self) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(limit, search).await.ok().flatten()
    }

    /// Answers a call of the control API; `path` is what follows `/_sim`.
    pub(crate) fn answer(&self, call: &Call, path: &[String]) -> Reply {
        self.dispatch(call, path).unwrap_or_else(|refusal| refusal)
    }

    fn dispatch(&self, call: &Call, path: &[String]) -> Result<Reply, Reply> {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        match (call.method.as_str(), parts.as_slice()) {
            ("GET", ["health"]) => Ok(ok(&json!({"status": "ok"}))),
            ("GET", ["jobs"]) => Ok(ok(&self.jobs())),
            ("POST", ["jobs"]) => {
                let jobs = one_or_many::<JobSpec>(call)?;
                let ids: Vec<u64> = jobs.into_iter().map(|spec| self.add_job(spec)).collect();
                Ok(Reply::json(StatusCode::CREATED, &json!({"ids": ids})))
            }
            ("GET", ["jobs", id]) => Ok(ok(&self.job(number(id)?).ok_or_else(missing)?)),
            ("POST", ["jobs", id, "cancel"]) => done(self.cancel_job(number(id)?)),
            ("POST", ["jobs", id, "release"]) => done(self.release_job(number(id)?)),
            ("POST", ["jobs", id, "witness"]) => {
                let body: Value = parse(call)?;
                let text = body["text"]
                    .as_str()
                    .filter(|text| text.len() <= LONGEST_WITNESS);
                let text = text.ok_or_else(|| refusal("text is a string, and not a long one"))?;
                done(self.witness(number(id)?, text.to_owned()))
            }
            ("GET", ["runners"]) => Ok(ok(&self.runners())),
            ("POST", ["runners"]) => {
                let planted = one_or_many::<PlantedRunner>(call)?;
                let ids: Vec<u64> = planted.into_iter().map(|p| self.plant_runner(p)).collect();
                Ok(Reply::json(StatusCode::CREATED, &json!({"ids": ids})))
            }
            ("DELETE", ["runners", id]) => done(self.delete_runner(number(id)?)),
            ("GET", ["faults"]) => Ok(ok(&self.faults())),
            ("POST", ["faults"]) => {
                self.add_faults(one_or_many::<Rule>(call)?);
                Ok(ok(&self.faults()))
            }
            ("DELETE", ["faults"]) => {
                self.clear_faults();
                done(true)
            }
            ("GET", ["stats"]) => Ok(ok(&self.stats())),
            ("POST", ["stats", "reset"]) => {
                self.reset_stats();
                done(true)
            }
            ("POST", ["token"]) => {
                let body: Value = parse(call)?;
                let token = body["token"].as_str().filter(|token| !token.is_empty());
                self.rotate_token(token.ok_or_else(|| refusal("token is a string"))?);
                done(true)
            }
            ("GET", ["settings"]) => Ok(ok(&self.settings())),
            ("POST", ["settings"]) => {
                let patched = self.patch_settings(&parse(call)?);
                Ok(ok(&patched.map_err(|error| refusal(&error.0.to_string()))?))
            }
            _ => Err(missing()),
        }
    }
}

fn ok(body: &impl Serialize) -> Reply {
    Reply::json(StatusCode::OK, body)
}

fn done(known: bool) -> Result<Reply, Reply> {
    if known {
        Ok(Reply::empty(StatusCode::NO_CONTENT))
    } else {
        Err(missing())
    }
}

fn missing() -> Reply {
    Reply::json(StatusCode::NOT_FOUND, &json!({"message": "no such thing"}))
}

fn refusal(message: &str) -> Reply {
    Reply::json(StatusCode::BAD_REQUEST, &json!({"message": message}))
}

fn number(text: &str) -> Result<u64, Reply> {
    text.parse().map_err(|_| missing())
}

fn parse<T: DeserializeOwned>(call: &Call) -> Result<T, Reply> {
    call.json().map_err(|error| refusal(&error.to_string()))
}

fn one_or_many<T: DeserializeOwned>(call: &Call) -> Result<Vec<T>, Reply> {
    let body: Value = parse(call)?;
    let items = if let Value::Array(items) = body {
        items
    } else {
        vec![body]
    };
    items
        .into_iter()
        .map(|item| serde_json::from_value(item).map_err(|error| refusal(&error.to_string())))
        .collect()
}

fn view_job(job: &Job) -> JobView {
    let last = job.assignments.last();
    let with_runner = job.status != JobStatus::Queued;
    JobView {
        id: job.id,
        name: job.spec.name.clone(),
        scope: job.origin.clone(),
        labels: job.spec.labels.clone(),
        status: job.status,
        conclusion: job.conclusion,
        reason: job.reason.clone(),
        runner_id: last.filter(|_| with_runner).map(|a| a.runner_id),
        runner_name: last.filter(|_| with_runner).map(|a| a.runner_name.clone()),
        created_at: job.created_at,
        started_at: job.started_at,
        completed_at: job.completed_at,
        attempts: job.assignments.len(),
        assignments: job.assignments.clone(),
        held: job.held,
        facts: job.facts.clone(),
        witness: job.witness.clone(),
    }
}

fn view_runner(state: &State, runner: &Runner, now: u64) -> RunnerView {
    RunnerView {
        id: runner.id,
        name: runner.name.clone(),
        scope: runner.scope.clone(),
        runner_group_id: runner.group_id,
        labels: runner
            .labels
            .iter()
            .map(|(_, label)| label.clone())
            .collect(),
        online: runner.is_online(now, state.settings.offline_after_ms),
        busy: state.is_busy(runner),
        job: runner.job,
        standing: match runner.gone {
            Some(_) => Standing::Gone,
            None if runner.ghost => Standing::Ghost,
            None => Standing::Registered,
        },
        gone: runner.gone.map(|gone| gone.cause),
        gone_at: runner.gone.map(|gone| gone.at),
        planted: runner.planted.is_some(),
        version: runner.version.clone(),
        session_owner: runner.session.as_ref().map(|session| session.owner.clone()),
        polls: runner.session.as_ref().map_or(0, |session| session.polls),
        created_at: runner.created_at,
    }
}
