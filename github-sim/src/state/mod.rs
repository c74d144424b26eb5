//! The state of the stand-in GitHub, and the changes that time makes to it.

mod common;
mod file;
mod hub;
mod limits;
mod records;

use std::collections::BTreeMap;

use crate::{
    faults::FaultInjector,
    github_app::{GitHubApp, InstallationToken},
    scale_sets::ScaleSets,
    scope::Scope,
    settings::Settings,
    stats::Stats,
    view::{Assignment, Conclusion, GoneCause, JobState, Outcome, ScopeToken},
    webhooks::{Sender, Webhooks},
    wire::{CANCEL_TIMEOUT_S, JobCancellation, JobRequest},
};

pub(crate) use crate::time::{rfc3339, unix_ms};
use common::CommonRecord;
pub(crate) use file::StateFile;
pub(crate) use hub::Hub;
pub(crate) use limits::{Bucket, RateLimits, Usage};
pub(crate) use records::{
    AccessToken, JobRecord, ListenerSession, LogBlob, LogKind, RegisteredRunner, SHA, ToldState,
};
use records::{Gone, JobOffer};

/// Smallest id of a runner. Ids are above 2³², so a client that stores them in 32 bits fails. They start
/// elsewhere in each process: GitHub never gives an id twice, and a client that outlives a stand-in
/// must not delete the next stand-in's runners by the ids of the last.
const LEAST_RUNNER_ID: u64 = 1 << 33;
/// Distance between the ids of successive runners.
pub(crate) const RUNNER_ID_STEP: u64 = 3;
const FIRST_JOB_ID: u64 = (1 << 34) + 5;

/// Everything that the stand-in knows.
#[derive(Debug)]
pub(crate) struct GitHubState {
    pub(crate) settings: Settings,
    pub(crate) tokens: Vec<String>,
    /// Tokens with all permissions in one scope, and with none elsewhere.
    pub(crate) scope_tokens: Vec<ScopeToken>,
    pub(crate) app: Option<GitHubApp>,
    /// Tokens that the GitHub App's installations were given.
    pub(crate) installation_tokens: Vec<InstallationToken>,
    pub(crate) scopes: Vec<Scope>,
    /// Base URL for listeners, without a slash at the end.
    pub(crate) public_url: String,
    pub(crate) runners: BTreeMap<u64, RegisteredRunner>,
    pub(crate) jobs: BTreeMap<u64, JobRecord>,
    pub(crate) scale_sets: ScaleSets,
    pub(crate) webhooks: Webhooks,
    /// Logs that are not complete, by blob id. They are not in the state file.
    pub(crate) blobs: BTreeMap<String, LogBlob>,
    pub(crate) limits: RateLimits,
    pub(crate) faults: FaultInjector,
    pub(crate) stats: Stats,
    next_runner_id: u64,
    next_job_id: u64,
    next_label_id: u64,
}

impl GitHubState {
    pub(crate) fn new(
        settings: Settings,
        tokens: Vec<String>,
        app: Option<GitHubApp>,
        scopes: Vec<Scope>,
        public_url: String,
    ) -> Self {
        Self {
            settings,
            tokens,
            scope_tokens: vec![],
            app,
            installation_tokens: vec![],
            scopes,
            public_url,
            runners: BTreeMap::new(),
            jobs: BTreeMap::new(),
            scale_sets: ScaleSets::default(),
            webhooks: Webhooks::default(),
            blobs: BTreeMap::new(),
            limits: RateLimits::default(),
            faults: FaultInjector::default(),
            stats: Stats::default(),
            next_runner_id: LEAST_RUNNER_ID + u64::from(rand::random::<u32>()),
            next_job_id: FIRST_JOB_ID,
            next_label_id: 1,
        }
    }

    /// Returns the record of everything that is neither a runner nor a job.
    fn common(&self) -> CommonRecord {
        CommonRecord {
            settings: self.settings.clone(),
            tokens: self.tokens.clone(),
            scope_tokens: self.scope_tokens.clone(),
            rules: self.faults.rules.clone(),
            announced: [self.limits.announced_at, self.limits.announced_until],
            while_limited: self.stats.while_limited,
            calls: self.stats.calls.clone(),
            next_ids: [self.next_runner_id, self.next_job_id, self.next_label_id],
            scale_set_service: self.scale_sets.service.clone(),
            webhook_rules: self.webhooks.rules.clone(),
        }
    }

    /// Takes over a record of [`common`](Self::common).
    fn restore(&mut self, common: CommonRecord) {
        self.settings = common.settings;
        self.tokens = common.tokens;
        self.scope_tokens = common.scope_tokens;
        self.faults.rules = common.rules;
        [self.limits.announced_at, self.limits.announced_until] = common.announced;
        self.stats.while_limited = common.while_limited;
        self.stats.calls = common.calls;
        [self.next_runner_id, self.next_job_id, self.next_label_id] = common.next_ids;
        self.scale_sets.service = common.scale_set_service;
        self.webhooks.rules = common.webhook_rules;
    }

    pub(crate) fn take_runner_id(&mut self) -> u64 {
        // Ids of GitHub are not consecutive either.
        let id = self.next_runner_id;
        self.next_runner_id += RUNNER_ID_STEP;
        id
    }

    pub(crate) fn take_job_id(&mut self) -> u64 {
        let id = self.next_job_id;
        self.next_job_id += 1;
        id
    }

    pub(crate) fn take_label_id(&mut self) -> u64 {
        let id = self.next_label_id;
        self.next_label_id += 1;
        id
    }

    pub(crate) fn is_busy(&self, runner: &RegisteredRunner) -> bool {
        runner.planted.is_some_and(|(_, busy)| busy)
            || runner
                .job
                .and_then(|id| self.jobs.get(&id))
                .is_some_and(|job| job.is_run_by(runner.id))
    }

    /// Returns the runner whose listener has this access token, also if it is gone. A token expires.
    pub(crate) fn runner_by_token(&self, token: &str, now: u64) -> Option<u64> {
        let is = |known: &AccessToken| known.text == token && now < known.until;
        self.runners
            .values()
            .find(|runner| runner.access_tokens.iter().any(is))
            .map(|runner| runner.id)
    }

    /// Returns the job that a runner was offered under this request id.
    pub(crate) fn offered_job(&mut self, runner: u64, request: &str) -> Option<&mut JobRecord> {
        self.jobs.values_mut().find(|job| {
            job.offer
                .as_ref()
                .is_some_and(|offer| offer.runner == runner && offer.request_id == request)
        })
    }

    /// Makes the changes that are due at `now`, and offers jobs. Tells whether anything changed.
    fn advance(&mut self, now: u64) -> bool {
        let expired = self.expire_runners(now);
        let lapsed = self.lapse_jobs(now);
        let assigned = self.assign_jobs(now);
        // After the runners without a set, which take a job that they match at once.
        let settled = self.scale_sets.settle(
            &self.jobs,
            &self.runners,
            &self.settings,
            &self.public_url,
            now,
        );
        let assigned_in_sets = settled && self.assign_jobs(now);
        let told = self.tell_hooks(now);
        expired || lapsed || assigned || settled || assigned_in_sets || told
    }

    /// Makes webhook deliveries of what happened to jobs.
    fn tell_hooks(&mut self, now: u64) -> bool {
        let sender = Sender {
            public_url: &self.public_url,
            settings: &self.settings,
            app: self.app.as_ref().map(|app| app.id),
            scopes: &self.scopes,
        };
        self.webhooks
            .observe(&sender, &mut self.jobs, &self.runners, now)
    }

    fn expire_runners(&mut self, now: u64) -> bool {
        let settings = &self.settings;
        let due: Vec<_> = self
            .runners
            .values()
            .filter(|r| r.is_registered() && r.planted.is_none() && r.job.is_none())
            .filter_map(|r| Some((r.id, due_cause(r, settings, now)?)))
            .collect();
        for (id, cause) in &due {
            self.remove_runner(*id, *cause, now);
        }
        !due.is_empty()
    }

    fn lapse_jobs(&mut self, now: u64) -> bool {
        let mut changed = false;
        let timeout = self.settings.assignment_timeout_ms;
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            let Some(offer) = &job.offer else { continue };
            let runner = offer.runner;
            match offer.locked_until {
                None if now >= offer.assigned_at + timeout => {
                    self.withdraw(id, Outcome::NotAcquired, now);
                }
                Some(until) if now >= until => {
                    // First, because the first cause stays on record.
                    self.remove_runner(runner, GoneCause::LostCommunication, now);
                    self.end_job(
                        id,
                        Conclusion::Failure,
                        Some("The self-hosted runner lost communication with the server."),
                        now,
                    );
                }
                None | Some(_) => continue,
            }
            changed = true;
        }
        changed
    }

    fn assign_jobs(&mut self, now: u64) -> bool {
        let mut changed = false;
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            if job.state != JobState::Queued || job.held {
                continue;
            }
            let set = self.scale_sets.holder_of(id);
            let free = self.runners.values().find(|runner| {
                runner.is_free(now, self.settings.offline_after_ms)
                    && match set {
                        // Each idle runner of a set may take each of its jobs.
                        Some(_) => runner.scale_set == set,
                        None => {
                            runner.scale_set.is_none()
                                && runner.scope.serves(&job.origin)
                                && runner.has_labels(&job.spec.labels)
                                && self
                                    .settings
                                    .group_admits(&runner.scope, runner.group_id, job)
                        }
                    }
            });
            if let Some(runner) = free.map(|runner| runner.id) {
                self.offer(id, runner, now);
                changed = true;
            }
        }
        changed
    }

    fn offer(&mut self, job: u64, runner: u64, now: u64) {
        let base = self.public_url.clone();
        let (Some(job), Some(runner)) = (self.jobs.get_mut(&job), self.runners.get_mut(&runner))
        else {
            return;
        };
        let request_id = crate::random::uuid();
        job.state = JobState::Assigned;
        job.assignments.push(Assignment {
            runner_id: runner.id,
            runner_name: runner.name.clone(),
            assigned_at: now,
            outcome: Outcome::Offered,
        });
        job.offer = Some(JobOffer {
            runner: runner.id,
            request_id: request_id.clone(),
            assigned_at: now,
            locked_until: None,
        });
        runner.job = Some(job.id);
        if let Some(session) = &mut runner.session {
            session.send(
                "RunnerJobRequest",
                &JobRequest {
                    id: crate::random::uuid(),
                    run_service_url: format!("{base}/run/{request_id}/"),
                    runner_request_id: request_id,
                    billing_owner_id: "O_standin".into(),
                    should_acknowledge: true,
                },
            );
        }
    }

    /// Puts an offered job back into the queue and frees its runner.
    pub(crate) fn withdraw(&mut self, job: u64, outcome: Outcome, now: u64) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        job.state = JobState::Queued;
        if let Some(last) = job.assignments.last_mut() {
            last.outcome = outcome;
        }
        let Some(offer) = job.offer.take() else {
            return;
        };
        if let Some(runner) = self.runners.get_mut(&offer.runner) {
            runner.job = None;
            runner.idle_since = now;
            drop_offer_message(runner, &offer.request_id);
        }
    }

    /// Ends a job and frees its runner. An ephemeral runner ends with its job.
    pub(crate) fn end_job(&mut self, id: u64, end: Conclusion, reason: Option<&str>, now: u64) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.state = JobState::Completed;
        job.conclusion = Some(end);
        job.reason = reason.map(Into::into);
        job.completed_at = Some(now);
        let Some(offer) = job.offer.take() else {
            return;
        };
        if let Some(runner) = self.runners.get_mut(&offer.runner) {
            runner.job = None;
            runner.idle_since = now;
            if runner.ephemeral && offer.locked_until.is_some() {
                self.remove_runner(offer.runner, GoneCause::JobDone, now);
            }
        }
    }

    /// Cancels a job: by a message to the listener that runs it, or at once if no listener does.
    pub(crate) fn cancel_job(&mut self, id: u64, now: u64) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        match job.state {
            JobState::Completed => {}
            JobState::Queued => self.end_job(id, Conclusion::Cancelled, None, now),
            JobState::Assigned => {
                // The listener that asks for the job from now on has lost the race.
                let runner = job.offer.as_ref().map(|offer| offer.runner);
                if let Some(last) = job.assignments.last_mut() {
                    last.outcome = Outcome::Cancelled;
                }
                self.end_job(id, Conclusion::Cancelled, None, now);
                if let Some(runner) = runner.and_then(|id| self.runners.get_mut(&id)) {
                    runner.ghost = true;
                }
            }
            JobState::InProgress => {
                let hours = CANCEL_TIMEOUT_S / 3600;
                let message = JobCancellation {
                    job_id: job.uuid.clone(),
                    timeout: format!(
                        "{hours:02}:{:02}:{:02}",
                        CANCEL_TIMEOUT_S / 60 % 60,
                        CANCEL_TIMEOUT_S % 60
                    ),
                };
                let runner = job.offer.as_ref().map(|offer| offer.runner);
                if let Some(session) = runner
                    .and_then(|id| self.runners.get_mut(&id))
                    .and_then(|runner| runner.session.as_mut())
                {
                    session.send("JobCancellation", &message);
                }
            }
        }
    }

    /// Ends a scale set. Its runners live on as orphans: registered, online, without a label, and without a
    /// job for ever.
    pub(crate) fn end_scale_set(&mut self, id: u64) {
        if let Some(set) = self.scale_sets.get_mut(id) {
            set.end();
        }
        for runner in self.runners.values_mut() {
            if runner.scale_set == Some(id) {
                runner.labels.clear();
                runner.os = "unknown".into();
            }
        }
    }

    /// Ends a registration. A job that was only offered to the runner goes back to the queue.
    pub(crate) fn remove_runner(&mut self, id: u64, cause: GoneCause, now: u64) {
        let offered = self.runners.get(&id).and_then(|runner| runner.job);
        if let Some(job) = offered
            && self
                .jobs
                .get(&job)
                .is_some_and(|job| job.state == JobState::Assigned)
        {
            self.withdraw(job, Outcome::RunnerGone, now);
        }
        if let Some(runner) = self.runners.get_mut(&id)
            && runner.gone.is_none()
        {
            runner.gone = Some(Gone { at: now, cause });
        }
    }
}

fn due_cause(runner: &RegisteredRunner, settings: &Settings, now: u64) -> Option<GoneCause> {
    let online = runner.is_online(now, settings.offline_after_ms);
    let last_seen = runner
        .session
        .as_ref()
        .map_or(runner.idle_since, |session| session.last_poll);
    if runner.version.is_none()
        && let Some(limit) = settings.unused_config_ms
        && now >= runner.created_at + limit
    {
        return Some(GoneCause::ConfigExpired);
    }
    if !online && runner.ephemeral && now >= last_seen + settings.offline_expiry_ms {
        return Some(GoneCause::OfflineExpired);
    }
    let limit = settings.idle_reap_ms?;
    (online && now >= runner.idle_since + limit).then_some(GoneCause::IdleReaped)
}

fn drop_offer_message(runner: &mut RegisteredRunner, request_id: &str) {
    if let Some(session) = &mut runner.session {
        session
            .messages
            .retain(|message| !message.body.contains(request_id));
    }
}
