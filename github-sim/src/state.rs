//! Everything the server knows, behind one lock, and what time does to it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use crate::{
    faults::FaultList,
    keep::{Ground, Keeper},
    limits::Limits,
    model::{Gone, Job, Offer, Runner},
    rest::app::{App, Issued},
    scope::Scope,
    settings::Settings,
    stats::Recorder,
    view::{Assignment, Conclusion, GoneCause, JobStatus, Outcome},
    wire::{CANCEL_TIMEOUT_S, JobCancellation, JobRequest},
};

/// Ids start above 2³² so that a client that stores them in 32 bits is found out. Runners' start
/// somewhere else in each process: GitHub gives none twice, and a client that outlives a stand-in
/// must not delete the next one's runners by the last one's ids.
const LEAST_RUNNER_ID: u64 = 1 << 33;
const FIRST_JOB_ID: u64 = (1 << 34) + 5;

/// The state and the bell that rings when it changed.
pub(crate) struct Hub {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) tokens: Vec<String>,
    pub(crate) app: Option<App>,
    /// Tokens of the App's installations.
    pub(crate) issued: Vec<Issued>,
    pub(crate) scopes: Vec<Scope>,
    /// Where listeners reach this server; no slash at the end.
    pub(crate) public_url: String,
    pub(crate) runners: BTreeMap<u64, Runner>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) limits: Limits,
    pub(crate) faults: FaultList,
    pub(crate) stats: Recorder,
    /// If the state is to outlive the program.
    pub(crate) keeper: Option<Keeper>,
    next_runner_id: u64,
    next_job_id: u64,
    next_label_id: u64,
}

/// Unix time in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

impl Hub {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        }
    }

    /// Runs `act` on the state as it is now, and wakes those who wait for a change.
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut State, u64) -> T) -> T {
        let now = unix_ms();
        let mut state = self.lock();
        state.advance(now);
        let result = act(&mut state, now);
        state.advance(now);
        state.keep();
        drop(state);
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Reads the state as it is now.
    pub(crate) fn look<T>(&self, read: impl FnOnce(&State, u64) -> T) -> T {
        let now = unix_ms();
        let mut state = self.lock();
        let moved = state.advance(now);
        let result = read(&state, now);
        if moved {
            state.keep();
        }
        drop(state);
        if moved {
            self.changed.send_modify(|version| *version += 1);
        }
        result
    }

    /// Like `change`, for bookkeeping that nobody waits for.
    pub(crate) fn note<T>(&self, act: impl FnOnce(&mut State, u64) -> T) -> T {
        let mut state = self.lock();
        let result = act(&mut state, unix_ms());
        state.keep();
        result
    }

    /// Lets time pass, and wakes those who wait if that changed anything.
    pub(crate) fn tick(&self) {
        self.look(|_, _| ());
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held is a bug that its own test reports; the state is still
        // the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn new(
        settings: Settings,
        tokens: Vec<String>,
        app: Option<App>,
        scopes: Vec<Scope>,
        public_url: String,
    ) -> Self {
        Self {
            settings,
            tokens,
            app,
            issued: vec![],
            scopes,
            public_url,
            runners: BTreeMap::new(),
            jobs: BTreeMap::new(),
            limits: Limits::default(),
            faults: FaultList::default(),
            stats: Recorder::default(),
            keeper: None,
            next_runner_id: LEAST_RUNNER_ID + u64::from(rand::random::<u32>()),
            next_job_id: FIRST_JOB_ID,
            next_label_id: 1,
        }
    }

    /// What is kept beside runners and jobs.
    pub(crate) fn ground(&self) -> Ground {
        Ground {
            settings: self.settings.clone(),
            tokens: self.tokens.clone(),
            rules: self.faults.rules.clone(),
            announced: [self.limits.announced_at, self.limits.announced_until],
            while_limited: self.stats.stats.while_limited,
            calls: self.stats.stats.calls.clone(),
            next_ids: [self.next_runner_id, self.next_job_id, self.next_label_id],
        }
    }

    /// The inverse of [`ground`](Self::ground).
    pub(crate) fn stand_on(&mut self, ground: Ground) {
        self.settings = ground.settings;
        self.tokens = ground.tokens;
        self.faults.rules = ground.rules;
        [self.limits.announced_at, self.limits.announced_until] = ground.announced;
        self.stats.stats.while_limited = ground.while_limited;
        self.stats.stats.calls = ground.calls;
        [self.next_runner_id, self.next_job_id, self.next_label_id] = ground.next_ids;
    }

    /// Writes down what changed, if that is wanted.
    fn keep(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            if let Err(error) = keeper.write(self) {
                tracing::error!(%error, "cannot write down the state");
            }
            self.keeper = Some(keeper);
        }
    }

    pub(crate) fn take_runner_id(&mut self) -> u64 {
        // Not consecutive, as in life.
        let id = self.next_runner_id;
        self.next_runner_id += 3;
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

    pub(crate) fn is_busy(&self, runner: &Runner) -> bool {
        runner.planted.is_some_and(|(_, busy)| busy)
            || runner
                .job
                .and_then(|id| self.jobs.get(&id))
                .is_some_and(|job| job.is_run_by(runner.id))
    }

    /// Does what is due at `now`, and hands out jobs. Says whether anything changed.
    fn advance(&mut self, now: u64) -> bool {
        let expired = self.expire_runners(now);
        let lapsed = self.lapse_jobs(now);
        let assigned = self.assign_jobs(now);
        expired || lapsed || assigned
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
                    // First, so that this is the cause on record.
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
            if job.status != JobStatus::Queued || job.held {
                continue;
            }
            let free = self.runners.values().find(|runner| {
                runner.is_registered()
                    && runner.job.is_none()
                    && runner.planted.is_none()
                    && runner.is_online(now, self.settings.offline_after_ms)
                    && runner.scope.serves(&job.origin)
                    && runner.has_labels(&job.spec.labels)
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
        job.status = JobStatus::Assigned;
        job.assignments.push(Assignment {
            runner_id: runner.id,
            runner_name: runner.name.clone(),
            assigned_at: now,
            outcome: Outcome::Offered,
        });
        job.offer = Some(Offer {
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
        job.status = JobStatus::Queued;
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

    /// Ends a job and frees its runner, which an ephemeral one does not outlive.
    pub(crate) fn end_job(&mut self, id: u64, end: Conclusion, reason: Option<&str>, now: u64) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.status = JobStatus::Completed;
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

    /// Cancels a job: at once if nobody runs it, else by a message to its listener.
    pub(crate) fn cancel_job(&mut self, id: u64, now: u64) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        match job.status {
            JobStatus::Completed => {}
            JobStatus::Queued => self.end_job(id, Conclusion::Cancelled, None, now),
            JobStatus::Assigned => {
                // The listener that asks for it now has lost the race; it is told so then.
                let runner = job.offer.as_ref().map(|offer| offer.runner);
                if let Some(last) = job.assignments.last_mut() {
                    last.outcome = Outcome::Cancelled;
                }
                self.end_job(id, Conclusion::Cancelled, None, now);
                if let Some(runner) = runner.and_then(|id| self.runners.get_mut(&id)) {
                    runner.ghost = true;
                }
            }
            JobStatus::InProgress => {
                job.cancelling = true;
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

    /// Ends a registration. A job that was only offered to it goes back to the queue.
    pub(crate) fn remove_runner(&mut self, id: u64, cause: GoneCause, now: u64) {
        let offered = self.runners.get(&id).and_then(|runner| runner.job);
        if let Some(job) = offered
            && self
                .jobs
                .get(&job)
                .is_some_and(|job| job.status == JobStatus::Assigned)
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

fn due_cause(runner: &Runner, settings: &Settings, now: u64) -> Option<GoneCause> {
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

fn drop_offer_message(runner: &mut Runner, request_id: &str) {
    if let Some(session) = &mut runner.session {
        session
            .messages
            .retain(|message| !message.body.contains(request_id));
    }
}
