//! The listener's calls, one method for each.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use github_sim::{
    RunnerKeyError, SignatureAlgorithm, client_assertion,
    job_message::{JobMessage, JobMessageError},
    wire::{
        Acknowledge, Acquire, BrokerError, BrokerMessage, Complete, Facts, JobRequest, JobResult,
        Renew, SessionAgent, SessionBody,
    },
};
use serde::{Deserialize, Serialize};
use ureq::http::Response;

use crate::{VERSION, root::Configuration};

const USER_AGENT: &str = concat!("VSServices/standin-listener/", env!("CARGO_PKG_VERSION"));

/// Timeout for a poll, which the server holds for 50 s.
const POLL_TIMEOUT: Duration = Duration::from_secs(100);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const QUICK_TIMEOUT: Duration = Duration::from_secs(5);

/// Failure of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The answer is missing or cannot be read.
    #[error("{0}")]
    Transport(#[from] ureq::Error),
    /// The key of the JIT config cannot sign.
    #[error("cannot sign the client assertion: {0}")]
    Key(#[from] RunnerKeyError),
    /// The job message cannot be used.
    #[error("{0}")]
    JobMessage(#[from] JobMessageError),
    /// The server refused. `kind` is empty if the answer does not name an error.
    #[error("{status} {kind} {message}")]
    Refused {
        status: u16,
        kind: String,
        message: String,
    },
}

impl CallError {
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { kind, .. } if kind == wanted)
    }

    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Transport(_) | Self::Key(_) | Self::JobMessage(_) => None,
            Self::Refused { status, .. } => Some(*status),
        }
    }
}

/// Connections to the broker, with the runner's own token. The listener's threads share it.
#[derive(Clone)]
pub(crate) struct Broker {
    agent: ureq::Agent,
    configuration: Arc<Configuration>,
    access: Arc<Mutex<Access>>,
}

/// The token and the session of the listener.
#[derive(Default)]
struct Access {
    /// The token, and the time until which it is valid.
    token: Option<(String, Instant)>,
    session: String,
    /// True once the listener leaves.
    closed: bool,
}

/// Answer of the token endpoint.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

/// Connections to the run service, with the job's token.
#[derive(Clone)]
pub(crate) struct RunService {
    agent: ureq::Agent,
    base: String,
    token: String,
    plan_id: String,
    job_id: String,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(CALL_TIMEOUT))
        .user_agent(USER_AGENT)
        .build()
        .into()
}

impl Broker {
    /// Returns a broker without a token, which its first call requests.
    pub(crate) fn new(configuration: &Arc<Configuration>) -> Self {
        Self {
            agent: agent(),
            configuration: Arc::clone(configuration),
            access: Arc::default(),
        }
    }

    /// Opens a session, with which later calls are made.
    pub(crate) fn open_session(&self) -> Result<(), CallError> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let runner = &self.configuration.runner;
        let body = SessionBody {
            session_id: "00000000-0000-0000-0000-000000000000".into(),
            owner_name: format!("{} (PID: {})", host.to_string_lossy(), std::process::id()),
            agent: SessionAgent {
                id: runner.agent_id.parse().unwrap_or(0),
                name: runner.agent_name.clone(),
                version: VERSION.into(),
                os_description: "Linux".into(),
            },
            use_fips_encryption: false,
        };
        let request = self.agent.post(self.url("session"));
        let answer =
            self.authorized(|bearer| request.header("authorization", bearer).send_json(&body))?;
        self.access().session = answer.into_body().read_json::<SessionBody>()?.session_id;
        Ok(())
    }

    /// Closes the session. A poll in flight opens no other.
    pub(crate) fn close_session(&self) -> Result<(), CallError> {
        self.access().closed = true;
        let request = self.agent.delete(self.url("session"));
        let request = request.config().timeout_global(Some(QUICK_TIMEOUT)).build();
        self.authorized(|bearer| request.header("authorization", bearer).call())
            .map(drop)
    }

    /// Opens another session, unless the listener leaves.
    pub(crate) fn reopen_session(&self) -> Result<(), CallError> {
        if self.access().closed {
            return Ok(());
        }
        self.open_session()
    }

    /// Polls once. Returns `None` if there was no message, or none that can be read.
    pub(crate) fn poll(&self, status: &str) -> Result<Option<BrokerMessage>, CallError> {
        let request = self
            .agent
            .get(self.url(&format!("message?{}", self.query(status))))
            .config()
            .timeout_global(Some(POLL_TIMEOUT))
            .build();
        let answer = self.authorized(|bearer| request.header("authorization", bearer).call())?;
        // GitHub's listener polls again at once after 202, 204, and an answer that is not a message.
        let text = answer.into_body().read_to_string()?;
        Ok(serde_json::from_str(&text).ok())
    }

    pub(crate) fn acknowledge(&self, offer: &JobRequest) -> Result<(), CallError> {
        let body = Acknowledge {
            runner_request_id: offer.runner_request_id.clone(),
        };
        let request = self
            .agent
            .post(self.url(&format!("acknowledge?{}", self.query("Online"))))
            .config()
            .timeout_global(Some(QUICK_TIMEOUT))
            .build();
        self.authorized(|bearer| request.header("authorization", bearer).send_json(&body))
            .map(drop)
    }

    pub(crate) fn acquire(&self, offer: &JobRequest) -> Result<JobMessage, CallError> {
        let body = Acquire {
            job_message_id: offer.runner_request_id.clone(),
            runner_os: "Linux".into(),
            billing_owner_id: offer.billing_owner_id.clone(),
        };
        let request = self
            .agent
            .post(format!("{}acquirejob", offer.run_service_url));
        let answer =
            self.authorized(|bearer| request.header("authorization", bearer).send_json(&body))?;
        Ok(JobMessage::read(&answer.into_body().read_json()?)?)
    }

    /// Makes a call with a token that has not expired. A token that the server refuses is dropped, and
    /// the next call requests another.
    fn authorized(
        &self,
        call: impl FnOnce(&str) -> Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response<ureq::Body>, CallError> {
        let token = self.token()?;
        let answer = call(&format!("Bearer {token}"))?;
        if answer.status() == 401 {
            let mut access = self.access();
            if access
                .token
                .as_ref()
                .is_some_and(|(known, _)| *known == token)
            {
                access.token = None;
            }
        }
        refuse_failure(answer)
    }

    /// Returns the token, after a new one took the place of one that has expired.
    fn token(&self) -> Result<String, CallError> {
        let mut access = self.access();
        if let Some((token, until)) = &access.token
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let asked = Instant::now();
        let answer = self.request_token()?;
        let until = asked + Duration::from_secs(answer.expires_in);
        access.token = Some((answer.access_token.clone(), until));
        Ok(answer.access_token)
    }

    /// Exchanges the credentials for a token.
    fn request_token(&self) -> Result<TokenAnswer, CallError> {
        let data = &self.configuration.credentials.data;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let url = &data.authorization_url;
        let algorithm = if data.require_fips_cryptography == "True" {
            SignatureAlgorithm::Ps256
        } else {
            SignatureAlgorithm::Rs256
        };
        let key = &self.configuration.key;
        let assertion = client_assertion::sign(&data.client_id, url, key, algorithm, now)?;
        let form = [
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", &assertion),
        ];
        let answer = refuse_failure(self.agent.post(url).send_form(form)?)?;
        Ok(answer.into_body().read_json()?)
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.configuration.runner.server_url_v2)
    }

    fn query(&self, status: &str) -> String {
        let session = self.access().session.clone();
        format!(
            "sessionId={session}&status={status}&runnerVersion={VERSION}&os=Linux&architecture={}&disableUpdate=true",
            architecture()
        )
    }
}

impl RunService {
    pub(crate) fn of(job: &JobMessage) -> Self {
        Self {
            agent: agent(),
            base: job.report_url.clone(),
            token: job.access_token.clone(),
            plan_id: job.plan_id.clone(),
            job_id: job.job_id.clone(),
        }
    }

    pub(crate) fn renew(&self, timeout: Duration) -> Result<(), CallError> {
        let body = Renew {
            plan_id: self.plan_id.clone(),
            job_id: self.job_id.clone(),
        };
        let request = self.agent.post(format!("{}renewjob", self.base));
        let request = request.config().timeout_global(Some(timeout)).build();
        let answer = request
            .header("authorization", format!("Bearer {}", self.token))
            .send_json(&body)?;
        refuse_failure(answer).map(drop)
    }

    pub(crate) fn complete(&self, conclusion: JobResult) -> Result<(), CallError> {
        let body = Complete {
            plan_id: self.plan_id.clone(),
            job_id: self.job_id.clone(),
            conclusion,
        };
        self.post("completejob", &body)
    }

    pub(crate) fn tell(&self, facts: &Facts) -> Result<(), CallError> {
        self.post("facts", facts)
    }

    fn post(&self, verb: &str, body: &impl Serialize) -> Result<(), CallError> {
        let request = self.agent.post(format!("{}{verb}", self.base));
        let answer = request
            .header("authorization", format!("Bearer {}", self.token))
            .send_json(body)?;
        refuse_failure(answer).map(drop)
    }
}

/// Returns the runner's name of the architecture: `X64`, `ARM64`, …
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "ARM64",
        "arm" => "ARM",
        _ => "X64",
    }
}

fn refuse_failure(answer: Response<ureq::Body>) -> Result<Response<ureq::Body>, CallError> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let text = answer.into_body().read_to_string().unwrap_or_default();
    let refused = |kind: String, message: String| CallError::Refused {
        status,
        kind,
        message,
    };
    if let Ok(error) = serde_json::from_str::<BrokerError>(&text) {
        return Err(refused(error.error_kind, error.error_message));
    }
    // The token endpoint uses OAuth's error shape.
    let oauth: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    Err(refused(oauth["error"].as_str().unwrap_or("").into(), text))
}
