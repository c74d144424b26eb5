//! The control API, by which tests and the demo prepare the stand-in and observe it.

mod routes;
mod scale_sets;
mod webhooks;

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    faults::FaultRule,
    settings::Settings,
    state::{GitHubState, Hub, JobRecord, RegisteredRunner},
    stats::Stats,
    view::{
        GoneCause, JobSpec, JobState, JobView, PlantedRunner, RunnerView, ScopeToken, Standing,
    },
};

pub(crate) use routes::routes;

/// Maximum number of lines that a job can write about itself.
const WITNESS_LINES: usize = 100;

/// The control API as methods. All clones control the same server.
#[derive(Clone)]
pub struct Control {
    hub: Arc<Hub>,
}

/// A change that the settings cannot take.
#[derive(Debug, thiserror::Error)]
#[error("cannot use these settings")]
pub struct SettingsError(#[from] serde_json::Error);

#[expect(
    clippy::must_use_candidate,
    reason = "a test often ignores the result of a change"
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
            state.jobs.insert(id, JobRecord::new(id, spec, origin, now));
            id
        })
    }

    /// Returns all jobs, oldest first.
    pub fn jobs(&self) -> Vec<JobView> {
        self.hub
            .read(|state, _| state.jobs.values().map(view_job).collect())
    }

    /// Returns one job.
    pub fn job(&self, id: u64) -> Option<JobView> {
        self.hub.read(|state, _| state.jobs.get(&id).map(view_job))
    }

    /// Cancels a job, unless it has ended. Returns `false` if the job does not exist.
    pub fn cancel_job(&self, id: u64) -> bool {
        self.with_job(id, |state, now| state.cancel_job(id, now))
    }

    /// Releases a job that was queued with `hold`. Returns `false` if the job does not exist.
    pub fn release_job(&self, id: u64) -> bool {
        self.with_job(id, |state, _| {
            if let Some(job) = state.jobs.get_mut(&id) {
                job.held = false;
            }
        })
    }

    /// Adds a line that a job writes about itself, up to [`WITNESS_LINES`]. Returns `false` if the job does
    /// not exist.
    pub fn witness(&self, id: u64, text: String) -> bool {
        self.with_job(id, |state, _| {
            if let Some(job) = state.jobs.get_mut(&id)
                && job.witness.len() < WITNESS_LINES
            {
                job.witness.push(text);
            }
        })
    }

    fn with_job(&self, id: u64, act: impl FnOnce(&mut GitHubState, u64)) -> bool {
        self.hub.change(|state, now| {
            let known = state.jobs.contains_key(&id);
            if known {
                act(state, now);
            }
            known
        })
    }

    /// Returns all runners since the start, oldest first, also those that are gone.
    pub fn runners(&self) -> Vec<RunnerView> {
        self.hub.read(|state, now| {
            let view = |runner| view_runner(state, runner, now);
            state.runners.values().map(view).collect()
        })
    }

    /// Registers a runner without a listener, and returns its id.
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
            let runner = RegisteredRunner {
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
                modulus: String::new(),
                access_tokens: vec![],
                session: None,
                idle_since: now,
                job: None,
                ghost: false,
                gone: None,
                planted: Some((planted.status == "online", planted.busy)),
                scale_set: None,
            };
            state.runners.insert(id, runner);
            id
        })
    }

    /// Deletes a runner as an operator does in the browser, where a running job does not prevent it.
    /// Returns `false` if the runner is not registered.
    pub fn delete_runner(&self, id: u64) -> bool {
        self.hub.change(|state, now| {
            let registered = state
                .runners
                .get(&id)
                .is_some_and(|runner| runner.gone.is_none());
            state.remove_runner(id, GoneCause::DeletedInUi, now);
            registered
        })
    }

    /// Adds fault rules after those in force.
    pub fn add_faults(&self, rules: impl IntoIterator<Item = FaultRule>) {
        self.hub.change(|state, _| state.faults.rules.extend(rules));
    }

    /// Returns the rules in force, with what is left of `skip` and `times`.
    pub fn faults(&self) -> Vec<FaultRule> {
        self.hub.read(|state, _| state.faults.rules.clone())
    }

    /// Removes all fault rules.
    pub fn clear_faults(&self) {
        self.hub.change(|state, _| state.faults.rules.clear());
    }

    /// Returns the calls since the start or the last reset.
    pub fn stats(&self) -> Stats {
        self.hub.read(|state, _| state.stats.clone())
    }

    /// Resets the statistics. The limits keep their counts.
    pub fn reset_stats(&self) {
        self.hub.change(|state, _| state.stats = Stats::default());
    }

    /// Makes `token` the only token that is accepted in every scope. Tokens of one scope stay.
    pub fn rotate_token(&self, token: &str) {
        self.hub
            .change(|state, _| state.tokens = vec![token.into()]);
    }

    /// Makes each token the only one that is accepted in its scope alone. Elsewhere it is refused.
    pub fn set_scope_tokens(&self, tokens: impl IntoIterator<Item = ScopeToken>) {
        self.hub.change(|state, _| {
            for new in tokens {
                state.scope_tokens.retain(|old| old.scope != new.scope);
                state.scope_tokens.push(new);
            }
        });
    }

    /// Returns the settings in force.
    pub fn settings(&self) -> Settings {
        self.hub.read(|state, _| state.settings.clone())
    }

    /// Changes settings.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        self.hub.change(|state, _| change(&mut state.settings));
    }

    fn patch_settings(&self, patch: &Value) -> Result<Settings, SettingsError> {
        self.hub.change(|state, _| {
            let mut all = serde_json::to_value(&state.settings)?;
            for (key, value) in patch.as_object().into_iter().flatten() {
                match (key.as_str(), value.as_object()) {
                    // The other fields of this part stay as they are.
                    ("scale_sets" | "webhooks", Some(part)) => {
                        for (field, value) in part {
                            all[key][field] = value.clone();
                        }
                    }
                    _ => all[key] = value.clone(),
                }
            }
            state.settings = serde_json::from_value(all)?;
            Ok(state.settings.clone())
        })
    }

    /// Waits up to `limit` until `find` finds something. It is called again after every change of the
    /// server's state.
    pub async fn wait_for<T>(
        &self,
        limit: Duration,
        mut find: impl FnMut(&Self) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.hub.watch();
        let search = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = find(self) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(limit, search).await.ok().flatten()
    }
}

fn view_job(job: &JobRecord) -> JobView {
    let last = job.assignments.last();
    let with_runner = job.state != JobState::Queued;
    JobView {
        id: job.id,
        name: job.spec.name.clone(),
        scope: job.origin.clone(),
        labels: job.spec.labels.clone(),
        status: job.state,
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

fn view_runner(state: &GitHubState, runner: &RegisteredRunner, now: u64) -> RunnerView {
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
