//! What the server remembers: runners, sessions, jobs. Plain data; nothing here does I/O.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    scope::Scope,
    view::{Assignment, JobSpec, JobStatus},
    wire::{Facts, Message},
};

/// A registered runner, or what is left of one: records stay, so that a listener whose runner is
/// gone hears `RunnerNotFound` instead of a bare 401.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Runner {
    pub(crate) id: u64,
    pub(crate) group_id: u64,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    /// In lower case, in the order they came.
    pub(crate) labels: Vec<(u64, String)>,
    pub(crate) os: String,
    pub(crate) version: Option<String>,
    pub(crate) ephemeral: bool,
    pub(crate) created_at: u64,
    /// Missing from the list before this time.
    pub(crate) listed_from: u64,
    pub(crate) client_id: String,
    /// Signs client assertions. Empty for planted runners, which nobody can speak for.
    pub(crate) secret: Vec<u8>,
    pub(crate) access_token: Option<String>,
    pub(crate) session: Option<Session>,
    /// When it was last seen without a job; counts for idle reaping.
    pub(crate) idle_since: u64,
    pub(crate) job: Option<u64>,
    /// Lost the race for its job: the listener lives on, the registration is gone.
    pub(crate) ghost: bool,
    pub(crate) gone: Option<Gone>,
    /// For planted runners: status and busy as they were asked for.
    pub(crate) planted: Option<(bool, bool)>,
}

/// Why a runner is no longer registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    pub(crate) at: u64,
    pub(crate) cause: crate::view::GoneCause,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) messages: VecDeque<Message>,
    pub(crate) next_message_id: u64,
    /// Polls in flight; they end with the program.
    #[serde(skip)]
    pub(crate) polls: u32,
    pub(crate) last_poll: u64,
    /// Whether it has polled at all: only then can it be offered a job.
    pub(crate) has_polled: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) spec: JobSpec,
    pub(crate) origin: Scope,
    pub(crate) status: JobStatus,
    pub(crate) conclusion: Option<crate::view::Conclusion>,
    pub(crate) reason: Option<String>,
    pub(crate) created_at: u64,
    pub(crate) started_at: Option<u64>,
    pub(crate) completed_at: Option<u64>,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) held: bool,
    pub(crate) offer: Option<Offer>,
    pub(crate) cancelling: bool,
    pub(crate) facts: Facts,
    /// What the job said of itself.
    pub(crate) witness: Vec<String>,
    pub(crate) uuid: String,
    pub(crate) plan: String,
    pub(crate) token: String,
}

/// A job on its way to a runner, or with it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) runner: u64,
    pub(crate) request_id: String,
    pub(crate) assigned_at: u64,
    /// Set once acquired.
    pub(crate) locked_until: Option<u64>,
}

impl Runner {
    /// Whether REST calls can see it.
    pub(crate) fn is_registered(&self) -> bool {
        self.gone.is_none() && !self.ghost
    }

    pub(crate) fn is_online(&self, now: u64, offline_after_ms: u64) -> bool {
        if let Some((online, _)) = self.planted {
            return online;
        }
        self.session.as_ref().is_some_and(|session| {
            session.polls > 0 || (session.has_polled && now < session.last_poll + offline_after_ms)
        })
    }

    pub(crate) fn has_labels(&self, wanted: &[String]) -> bool {
        wanted.iter().all(|want| {
            self.labels
                .iter()
                .any(|(_, has)| has.eq_ignore_ascii_case(want))
        })
    }
}

impl Session {
    pub(crate) fn new(id: String, owner: String, now: u64) -> Self {
        Self {
            id,
            owner,
            messages: VecDeque::new(),
            next_message_id: 1,
            polls: 0,
            last_poll: now,
            has_polled: false,
        }
    }

    /// Queues a message for the next poll.
    pub(crate) fn send(&mut self, message_type: &str, body: &impl serde::Serialize) {
        self.messages.push_back(Message {
            message_id: self.next_message_id,
            message_type: message_type.into(),
            body: serde_json::to_string(body).unwrap_or_default(),
        });
        self.next_message_id += 1;
    }
}

impl Job {
    pub(crate) fn new(id: u64, spec: JobSpec, origin: Scope, now: u64) -> Self {
        Self {
            id,
            held: spec.hold,
            spec,
            origin,
            status: JobStatus::Queued,
            conclusion: None,
            reason: None,
            created_at: now,
            started_at: None,
            completed_at: None,
            assignments: vec![],
            offer: None,
            cancelling: false,
            facts: Facts::default(),
            witness: vec![],
            uuid: crate::random::uuid(),
            plan: crate::random::uuid(),
            token: crate::random::secret("job"),
        }
    }

    /// Whether the runner `id` holds this job and has acquired it.
    pub(crate) fn is_run_by(&self, id: u64) -> bool {
        self.status == JobStatus::InProgress
            && self.offer.as_ref().is_some_and(|offer| offer.runner == id)
    }
}

/// The `github` context of a job.
pub(crate) fn github_context(job: &Job, server_url: &str) -> BTreeMap<String, String> {
    let (owner, repository) = job.origin.repository();
    let full_name = format!("{owner}/{repository}");
    [
        ("actor", owner.to_owned()),
        ("api_url", server_url.to_owned()),
        ("event_name", "push".into()),
        ("graphql_url", format!("{server_url}/graphql")),
        ("job", job.spec.name.clone()),
        ("ref", "refs/heads/main".into()),
        ("ref_name", "main".into()),
        ("ref_protected", "false".into()),
        ("ref_type", "branch".into()),
        ("repository", full_name.clone()),
        ("repository_id", "1296269".into()),
        ("repository_owner", owner.to_owned()),
        ("repository_owner_id", "1".into()),
        ("retention_days", "90".into()),
        ("run_attempt", job.assignments.len().max(1).to_string()),
        ("run_id", job.id.to_string()),
        ("run_number", "1".into()),
        ("server_url", server_url.to_owned()),
        ("sha", "6dcb09b5b57875f334f61aebed695e2e4193db5e".into()),
        ("triggering_actor", owner.to_owned()),
        ("workflow", "ci".into()),
        (
            "workflow_ref",
            format!("{full_name}/.github/workflows/ci.yml@refs/heads/main"),
        ),
        (
            "workflow_sha",
            "6dcb09b5b57875f334f61aebed695e2e4193db5e".into(),
        ),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}
