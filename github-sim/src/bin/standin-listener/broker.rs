//! The listener's calls, one method for each.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use github_sim::{
    RunnerKeyError, SignatureAlgorithm, client_assertion,
    job_message::{JobMessage, JobMessageError},
    wire::{
        Acknowledge, Acquire, BrokerError, BrokerMessage, Complete, Facts, JobRequest, JobResult,
        Renew, SessionAgent, SessionBody,
    },
};
use serde::{Serialize, de::DeserializeOwned};
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

/// A connection to the broker, with the runner's own token.
#[derive(Clone)]
pub(crate) struct Broker {
    agent: ureq::Agent,
    base: String,
    token: String,
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
    /// Exchanges the credentials for a token.
    pub(crate) fn connect(configuration: &Configuration) -> Result<Self, CallError> {
        let agent = agent();
        let data = &configuration.credentials.data;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let url = &data.authorization_url;
        let algorithm = if data.require_fips_cryptography == "True" {
            SignatureAlgorithm::Ps256
        } else {
            SignatureAlgorithm::Rs256
        };
        let assertion =
            client_assertion::sign(&data.client_id, url, &configuration.key, algorithm, now)?;
        let form = [
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", &assertion),
        ];
        let answer: serde_json::Value = read(agent.post(url).send_form(form)?)?;
        Ok(Self {
            agent,
            base: configuration.runner.server_url_v2.clone(),
            token: answer["access_token"].as_str().unwrap_or("").into(),
        })
    }

    /// Opens a session and returns its id.
    pub(crate) fn open_session(&self, configuration: &Configuration) -> Result<String, CallError> {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let body = SessionBody {
            session_id: "00000000-0000-0000-0000-000000000000".into(),
            owner_name: format!("{} (PID: {})", host.to_string_lossy(), std::process::id()),
            agent: SessionAgent {
                id: configuration.runner.agent_id.parse().unwrap_or(0),
                name: configuration.runner.agent_name.clone(),
                version: VERSION.into(),
                os_description: "Linux".into(),
            },
            use_fips_encryption: false,
        };
        let request = self.agent.post(format!("{}session", self.base));
        let answer = request
            .header("authorization", self.bearer())
            .send_json(&body)?;
        Ok(read::<SessionBody>(answer)?.session_id)
    }

    pub(crate) fn close_session(&self) -> Result<(), CallError> {
        let request = self.agent.delete(format!("{}session", self.base));
        let request = request.config().timeout_global(Some(QUICK_TIMEOUT)).build();
        refuse_failure(request.header("authorization", self.bearer()).call()?).map(drop)
    }

    /// Polls once. Returns `None` if there was no message.
    pub(crate) fn poll(
        &self,
        session: &str,
        status: &str,
    ) -> Result<Option<BrokerMessage>, CallError> {
        let url = format!("{}message?{}", self.base, query(session, status));
        let request = self
            .agent
            .get(url)
            .config()
            .timeout_global(Some(POLL_TIMEOUT))
            .build();
        let answer = request.header("authorization", self.bearer()).call()?;
        if answer.status() == 202 {
            return Ok(None);
        }
        read(answer).map(Some)
    }

    pub(crate) fn acknowledge(&self, session: &str, offer: &JobRequest) -> Result<(), CallError> {
        let url = format!("{}acknowledge?{}", self.base, query(session, "Online"));
        let body = Acknowledge {
            runner_request_id: offer.runner_request_id.clone(),
        };
        let request = self
            .agent
            .post(url)
            .config()
            .timeout_global(Some(QUICK_TIMEOUT))
            .build();
        refuse_failure(
            request
                .header("authorization", self.bearer())
                .send_json(&body)?,
        )
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
        let message: serde_json::Value = read(
            request
                .header("authorization", self.bearer())
                .send_json(&body)?,
        )?;
        Ok(JobMessage::read(&message)?)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
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

fn query(session: &str, status: &str) -> String {
    format!(
        "sessionId={session}&status={status}&runnerVersion={VERSION}&os=Linux&architecture={}&disableUpdate=true",
        architecture()
    )
}

/// Returns the runner's name of the architecture: `X64`, `ARM64`, …
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "ARM64",
        "arm" => "ARM",
        _ => "X64",
    }
}

fn read<T: DeserializeOwned>(answer: Response<ureq::Body>) -> Result<T, CallError> {
    Ok(refuse_failure(answer)?.into_body().read_json()?)
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
