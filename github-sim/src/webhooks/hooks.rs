//! All hooks and deliveries.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    delivery::{self, Attempt, Delivery},
    fault::{self, WebhookFault, WebhookFaultRule},
    hook::{Hook, HookSpec, HookTarget},
    payload::{self, Sender},
};
use crate::{
    github_json::REPOSITORY_ID,
    rest::schema,
    scope::Scope,
    state::{JobRecord, RegisteredRunner, ToldState},
    view::JobState,
};

/// Id of the first hook. GitHub's are not small either.
const FIRST_HOOK: u64 = 450_000_001;
/// Id of the first delivery, beyond 2⁵³: a client that stores it as a float loses its end.
const FIRST_DELIVERY: u64 = (1 << 53) + 12_345;
/// Id of the default App, for a server without one.
const NO_APP: u64 = 0;

/// All hooks and deliveries.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    hooks: BTreeMap<u64, Hook>,
    deliveries: BTreeMap<u64, Delivery>,
    pub(crate) rules: Vec<WebhookFaultRule>,
}

/// A delivery on its way.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: u64,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// An event that a delivery tells.
struct Event {
    name: &'static str,
    action: Option<&'static str>,
    repository: Option<u64>,
    installation: Option<u64>,
    payload: Value,
}

impl Webhooks {
    pub(crate) fn hooks(&self) -> impl Iterator<Item = &Hook> {
        self.hooks.values()
    }

    /// Returns all deliveries, oldest first, also those that were not sent yet.
    pub(crate) fn deliveries(&self) -> impl DoubleEndedIterator<Item = &Delivery> {
        self.deliveries.values()
    }

    pub(crate) fn restore_hook(&mut self, hook: Hook) {
        self.hooks.insert(hook.id, hook);
    }

    pub(crate) fn restore_delivery(&mut self, delivery: Delivery) {
        self.deliveries.insert(delivery.id, delivery);
    }

    /// Returns the hook that an API path names: by its id, or the App's hook.
    pub(crate) fn find(&self, target: &HookTarget, id: Option<u64>) -> Option<&Hook> {
        self.hooks.values().find(|hook| {
            !hook.deleted && hook.spec.target == *target && id.is_none_or(|id| id == hook.id)
        })
    }

    /// Adds a hook, and sends it a `ping`.
    pub(crate) fn add(&mut self, sender: &Sender<'_>, spec: HookSpec, now: u64) -> u64 {
        let id = self
            .hooks
            .keys()
            .next_back()
            .map_or(FIRST_HOOK, |id| id + 1);
        let hook = Hook {
            id,
            spec,
            created_at: now,
            deleted: false,
        };
        let event = Event {
            name: "ping",
            action: None,
            installation: None,
            repository: match &hook.spec.target {
                HookTarget::Scope(Scope::Repository { .. }) => Some(REPOSITORY_ID),
                HookTarget::Scope(Scope::Organization(_)) | HookTarget::App => None,
            },
            payload: payload::ping(sender, &hook),
        };
        self.hooks.insert(id, hook.clone());
        self.make(sender, &hook, event, now);
        id
    }

    /// Removes a hook. Returns `false` if it does not exist.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        match self.hooks.get_mut(&id) {
            Some(hook) if !hook.deleted => {
                hook.deleted = true;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Makes the deliveries of what happened to jobs since the last call. Tells whether anything happened.
    pub(crate) fn observe(
        &mut self,
        sender: &Sender<'_>,
        jobs: &mut BTreeMap<u64, JobRecord>,
        runners: &BTreeMap<u64, RegisteredRunner>,
        now: u64,
    ) -> bool {
        let mut changed = false;
        for job in jobs.values_mut() {
            let (events, told) = news(job);
            if told == job.told {
                continue;
            }
            job.told = told;
            changed = true;
            for event in events {
                let owner = job.origin.owner();
                // The App gets the events of the accounts in which it is installed.
                let wants = |hook: &&Hook| {
                    hook.wants("workflow_job", &job.origin)
                        && (hook.spec.target != HookTarget::App
                            || (!sender.settings.app_suspended
                                && payload::installation(sender, hook, owner).is_some()))
                };
                for hook in self
                    .hooks
                    .values()
                    .filter(wants)
                    .cloned()
                    .collect::<Vec<_>>()
                {
                    let event = Event {
                        name: "workflow_job",
                        action: Some(event.0),
                        repository: Some(REPOSITORY_ID),
                        installation: payload::installation(sender, &hook, owner),
                        payload: payload::workflow_job(sender, runners, &hook, job, event),
                    };
                    self.make(sender, &hook, event, now);
                }
            }
        }
        changed
    }

    fn make(&mut self, sender: &Sender<'_>, hook: &Hook, event: Event, now: u64) {
        if let Err(problem) = schema::check_event(event.name, event.action, &event.payload) {
            // A test must not pass with a payload that GitHub cannot send.
            tracing::error!(%problem, event = event.name, "payload does not match GitHub's description");
            return;
        }
        let fault = fault::take(&mut self.rules, event.action.unwrap_or(event.name));
        if fault == Some(WebhookFault::Lost) {
            return;
        }
        let delays = &sender.settings.webhooks.delay_ms;
        let delay = delays
            .get(rand::random_range(0..delays.len().max(1)))
            .copied()
            .unwrap_or(0);
        let (guid, body) = (crate::random::uuid(), event.payload.to_string());
        let secret = match fault {
            Some(WebhookFault::WrongSecret) => Some(crate::random::text(16)),
            _ => hook.spec.secret.clone(),
        };
        let headers = headers(sender, hook, &event, &guid, secret.as_deref(), &body);
        let mut delivery = Delivery {
            id: 0,
            hook: hook.id,
            guid,
            event: event.name.into(),
            action: event.action.map(Into::into),
            repository: event.repository,
            installation: event.installation,
            body,
            headers,
            redelivery: false,
            due: now + delay,
            after_next: false,
            attempt: None,
            in_flight: false,
        };
        match fault {
            Some(WebhookFault::Late { ms }) => delivery.due += ms,
            Some(WebhookFault::Doubled) => self.push(delivery.clone()),
            Some(WebhookFault::Swapped) => delivery.after_next = true,
            Some(WebhookFault::Forged) => {
                let mut forged = event.payload;
                forged["workflow_job"]["labels"] = serde_json::json!(["forged"]);
                delivery.body = forged.to_string();
            }
            Some(WebhookFault::Failed) => {
                delivery.attempt = Some(Attempt {
                    at: now,
                    duration_ms: 0,
                    status: "failed to connect to host".into(),
                    code: 0,
                    response: String::new(),
                });
            }
            Some(WebhookFault::Lost | WebhookFault::WrongSecret) | None => {}
        }
        self.push(delivery);
    }

    fn push(&mut self, delivery: Delivery) {
        let last = self.deliveries.keys().next_back();
        // Ids of GitHub are not consecutive either.
        let id = last.map_or(FIRST_DELIVERY, |id| id + 7);
        self.deliveries.insert(id, Delivery { id, ..delivery });
    }

    /// Sends a delivery again: the same body, headers and `X-GitHub-Delivery`.
    pub(crate) fn repeat(&mut self, id: u64, now: u64) {
        if let Some(old) = self.deliveries.get(&id) {
            let new = Delivery {
                redelivery: true,
                due: now,
                after_next: false,
                attempt: None,
                in_flight: false,
                ..old.clone()
            };
            self.push(new);
        }
    }

    /// Tells whether a delivery can be sent.
    pub(crate) fn has_due(&self, now: u64) -> bool {
        self.due(now).next().is_some()
    }

    /// Takes the deliveries that can be sent, at most one for each hook.
    pub(crate) fn take_due(&mut self, now: u64) -> Vec<Outgoing> {
        let due: Vec<u64> = self.due(now).collect();
        let mut taken = vec![];
        for id in due {
            let Some(delivery) = self.deliveries.get_mut(&id) else {
                continue;
            };
            let Some(hook) = self.hooks.get(&delivery.hook) else {
                continue;
            };
            delivery.in_flight = true;
            taken.push(Outgoing {
                id,
                url: hook.spec.url.clone(),
                headers: delivery.headers.clone(),
                body: delivery.body.clone(),
            });
        }
        taken
    }

    fn due(&self, now: u64) -> impl Iterator<Item = u64> {
        let idle = self.hooks.values().filter(|hook| !hook.deleted);
        idle.filter_map(move |hook| {
            let own = || self.deliveries.values().filter(|d| d.hook == hook.id);
            if own().any(|delivery| delivery.in_flight) {
                return None;
            }
            own()
                .filter(|delivery| delivery.attempt.is_none() && delivery.due <= now)
                .filter(|delivery| {
                    let later = |other: &Delivery| other.id > delivery.id;
                    !delivery.after_next || own().any(|d| later(d) && d.attempt.is_some())
                })
                .min_by_key(|delivery| (delivery.due, delivery.id))
                .map(|delivery| delivery.id)
        })
    }

    /// Records the result of a delivery.
    pub(crate) fn finish(&mut self, id: u64, attempt: Attempt) {
        if let Some(delivery) = self.deliveries.get_mut(&id) {
            delivery.in_flight = false;
            delivery.attempt = Some(attempt);
        }
    }
}

/// Returns the actions, each with the job's status in it, that no event has told, and what they tell.
fn news(job: &JobRecord) -> (Vec<(&'static str, &'static str)>, ToldState) {
    let mut events = vec![];
    let mut told = job.told;
    if told == ToldState::Nothing && job.spec.needs_approval {
        events.extend([("queued", "waiting"), ("waiting", "waiting")]);
        told = ToldState::Waiting;
    }
    let approved = !job.waits_for_approval() && job.state != JobState::Completed;
    if told == ToldState::Nothing || (told == ToldState::Waiting && approved) {
        events.push(("queued", "queued"));
        told = ToldState::Queued;
    }
    if told < ToldState::InProgress && job.started_at.is_some() {
        events.push(("in_progress", "in_progress"));
        told = ToldState::InProgress;
    }
    if told < ToldState::Completed && job.state == JobState::Completed {
        events.push(("completed", "completed"));
        told = ToldState::Completed;
    }
    (events, told)
}

fn headers(
    sender: &Sender<'_>,
    hook: &Hook,
    event: &Event,
    guid: &str,
    secret: Option<&str>,
    body: &str,
) -> Vec<(String, String)> {
    let target = match &hook.spec.target {
        HookTarget::App => sender.app.unwrap_or(NO_APP),
        HookTarget::Scope(Scope::Organization(_)) => 1,
        HookTarget::Scope(Scope::Repository { .. }) => REPOSITORY_ID,
    };
    let mut headers = vec![
        ("Accept", "*/*".to_owned()),
        ("Content-Type", "application/json".into()),
        ("User-Agent", "GitHub-Hookshot/6d4c2a0".into()),
        ("X-GitHub-Delivery", guid.into()),
        ("X-GitHub-Event", event.name.into()),
        ("X-GitHub-Hook-ID", hook.id.to_string()),
        ("X-GitHub-Hook-Installation-Target-ID", target.to_string()),
        (
            "X-GitHub-Hook-Installation-Target-Type",
            hook.target_type().into(),
        ),
    ];
    let signature = secret.and_then(|secret| delivery::signature(secret, body));
    headers.extend(signature.map(|text| ("X-Hub-Signature-256", text)));
    headers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
