//! Records of runners, sessions and jobs. Plain data without I/O.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    scope::Scope,
    view::{Assignment, Conclusion, GoneCause, JobSpec, JobState},
    wire::{BrokerMessage, Facts, LOG_TAIL_BYTES},
};

/// Commit of every job.
pub(crate) const SHA: &str = "6dcb09b5b57875f334f61aebed695e2e4193db5e";

/// A registered runner, or one that was registered. Records stay, because a listener whose runner is
/// gone is answered `RunnerNotFound` and not a bare 401.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RegisteredRunner {
    pub(crate) id: u64,
    pub(crate) group_id: u64,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    /// Id and name in lower case, in the order of the request.
    pub(crate) labels: Vec<(u64, String)>,
    pub(crate) os: String,
    pub(crate) version: Option<String>,
    pub(crate) ephemeral: bool,
    pub(crate) created_at: u64,
    /// Time before which the list does not show the runner.
    pub(crate) listed_from: u64,
    pub(crate) client_id: String,
    /// Modulus of the key of client assertions, in base64. Empty for a planted runner, which has no listener.
    pub(crate) modulus: String,
    /// Tokens of the listener that had not expired when the last of them was made.
    #[serde(default)]
    pub(crate) access_tokens: Vec<AccessToken>,
    pub(crate) session: Option<ListenerSession>,
    /// Start of the current time without a job, for the removal of idle runners.
    pub(crate) idle_since: u64,
    pub(crate) job: Option<u64>,
    /// True after a lost race for a job: the listener lives on without a registration.
    pub(crate) ghost: bool,
    pub(crate) gone: Option<Gone>,
    /// Online and busy as a test asked for, if the runner is planted.
    pub(crate) planted: Option<(bool, bool)>,
    /// Scale set whose runner this is.
    #[serde(default)]
    pub(crate) scale_set: Option<u64>,
}

/// An access token of a listener.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AccessToken {
    pub(crate) text: String,
    pub(crate) until: u64,
}

/// End of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gone {
    pub(crate) at: u64,
    pub(crate) cause: GoneCause,
}

/// A session that a listener opened.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListenerSession {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) messages: VecDeque<BrokerMessage>,
    pub(crate) next_message_id: u64,
    /// Polls in flight, which end with the program.
    #[serde(skip)]
    pub(crate) polls: u32,
    pub(crate) last_poll: u64,
    /// True after the first poll. A runner that has not polled is not offered a job.
    pub(crate) has_polled: bool,
}

/// A job from the queue to its end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    pub(crate) id: u64,
    pub(crate) spec: JobSpec,
    pub(crate) origin: Scope,
    pub(crate) state: JobState,
    pub(crate) conclusion: Option<Conclusion>,
    pub(crate) reason: Option<String>,
    pub(crate) created_at: u64,
    pub(crate) started_at: Option<u64>,
    pub(crate) completed_at: Option<u64>,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) held: bool,
    pub(crate) offer: Option<JobOffer>,
    pub(crate) facts: Facts,
    /// Lines that the job wrote about itself.
    pub(crate) witness: Vec<String>,
    pub(crate) uuid: String,
    pub(crate) plan: String,
    pub(crate) token: String,
    /// State of the job that the last webhook event told.
    #[serde(default)]
    pub(crate) told: ToldState,
}

/// State of a job that webhook events have told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToldState {
    #[default]
    Nothing,
    Waiting,
    Queued,
    InProgress,
    Completed,
}

/// The offer of a job to a runner, until the job's end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JobOffer {
    pub(crate) runner: u64,
    pub(crate) request_id: String,
    pub(crate) assigned_at: u64,
    /// Present once the runner has acquired the job.
    pub(crate) locked_until: Option<u64>,
}

/// A log in the blob store.
#[derive(Debug)]
pub(crate) struct LogBlob {
    pub(crate) job: u64,
    pub(crate) kind: LogKind,
    /// Secret part of the blob's URL.
    pub(crate) signature: String,
    /// The end of the log, a few times the log tail that a job keeps.
    pub(crate) bytes: Vec<u8>,
    pub(crate) exists: bool,
    pub(crate) sealed: bool,
}

/// Log that a blob holds. Steps have GitHub's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    Job,
    Step(String),
    Summary(String),
}

impl LogBlob {
    /// Adds bytes. The start of a long log is forgotten.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        const KEPT_BYTES: usize = 4 * LOG_TAIL_BYTES;
        self.bytes.extend_from_slice(bytes);
        let excess = self.bytes.len().saturating_sub(KEPT_BYTES);
        self.bytes.drain(..excess);
    }
}

impl RegisteredRunner {
    /// Tells whether the REST API knows the runner.
    pub(crate) fn is_registered(&self) -> bool {
        self.gone.is_none() && !self.ghost
    }

    /// Tells whether the REST API shows the runner as online.
    pub(crate) fn is_online(&self, now: u64, offline_after_ms: u64) -> bool {
        if let Some((online, _)) = self.planted {
            return online;
        }
        self.session.as_ref().is_some_and(|session| {
            session.polls > 0 || (session.has_polled && now < session.last_poll + offline_after_ms)
        })
    }

    /// Tells whether the runner could be offered a job.
    pub(crate) fn is_free(&self, now: u64, offline_after_ms: u64) -> bool {
        self.is_registered()
            && self.job.is_none()
            && self.planted.is_none()
            && self.is_online(now, offline_after_ms)
    }

    /// Tells whether the runner has all `wanted` labels.
    pub(crate) fn has_labels(&self, wanted: &[String]) -> bool {
        wanted.iter().all(|want| {
            self.labels
                .iter()
                .any(|(_, has)| has.eq_ignore_ascii_case(want))
        })
    }
}

impl ListenerSession {
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
    pub(crate) fn send(&mut self, message_type: &str, body: &impl Serialize) {
        self.messages.push_back(BrokerMessage {
            message_id: self.next_message_id,
            message_type: message_type.into(),
            body: serde_json::to_string(body).unwrap_or_default(),
        });
        self.next_message_id += 1;
    }
}

impl JobRecord {
    pub(crate) fn new(id: u64, spec: JobSpec, origin: Scope, now: u64) -> Self {
        let (uuid, plan) = (crate::random::uuid(), crate::random::uuid());
        let token = crate::random::jwt(&json!({
            "orchid": format!("{plan}.{uuid}"),
            "scp": format!("Actions.Results:{plan}:{uuid}"),
            "jti": crate::random::uuid(),
        }));
        Self {
            id,
            held: spec.hold || spec.needs_approval,
            spec,
            origin,
            state: JobState::Queued,
            conclusion: None,
            reason: None,
            created_at: now,
            started_at: None,
            completed_at: None,
            assignments: vec![],
            offer: None,
            facts: Facts::default(),
            witness: vec![],
            uuid,
            plan,
            token,
            told: ToldState::Nothing,
        }
    }

    /// Tells whether the job waits for the reviewers of its environment.
    pub(crate) fn waits_for_approval(&self) -> bool {
        self.held && self.spec.needs_approval
    }

    /// Tells whether the runner `id` has acquired the job and runs it.
    pub(crate) fn is_run_by(&self, id: u64) -> bool {
        self.state == JobState::InProgress
            && self.offer.as_ref().is_some_and(|offer| offer.runner == id)
    }

    /// Returns the `github` context of the job.
    pub(crate) fn github_context(&self, server_url: &str) -> BTreeMap<String, String> {
        let (owner, repository) = self.origin.repository();
        let full_name = format!("{owner}/{repository}");
        [
            ("actor", owner),
            ("api_url", server_url),
            ("event_name", "push"),
            ("graphql_url", &format!("{server_url}/graphql")),
            ("job", &self.spec.name),
            ("ref", "refs/heads/main"),
            ("ref_name", "main"),
            ("ref_protected", "false"),
            ("ref_type", "branch"),
            ("repository", &full_name),
            ("repository_id", "1296269"),
            ("repository_owner", owner),
            ("repository_owner_id", "1"),
            ("retention_days", "90"),
            ("run_attempt", &self.assignments.len().max(1).to_string()),
            ("run_id", &self.id.to_string()),
            ("run_number", "1"),
            ("server_url", server_url),
            ("sha", SHA),
            ("triggering_actor", owner),
            ("workflow", "ci"),
            (
                "workflow_ref",
                &format!("{full_name}/.github/workflows/ci.yml@refs/heads/main"),
            ),
            ("workflow_sha", SHA),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }
}
