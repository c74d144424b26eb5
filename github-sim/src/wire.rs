//! What the broker and a listener say to each other, as JSON.
//!
//! The shapes follow what the real listener speaks where that is known; the job message is much
//! smaller than the real one, which is undocumented, and its `listener` part is our own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Seconds a listener is given to end a cancelled job when the message does not say.
pub const CANCEL_TIMEOUT_S: u64 = 300;

/// Body of `POST session`, and of its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionBody {
    /// UUID; the one in the answer counts.
    pub session_id: String,
    /// `HOST (PID: n)`.
    pub owner_name: String,
    /// Who opens it.
    pub agent: Agent,
    /// Asked for by servers that require FIPS; plain bodies otherwise.
    #[serde(default)]
    pub use_fips_encryption: bool,
}

/// The runner that opens a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// The runner's id.
    pub id: u64,
    /// The runner's name.
    pub name: String,
    /// Version of the listener, three numbers.
    pub version: String,
    /// What `uname` would say.
    #[serde(default)]
    pub os_description: String,
}

/// What a poll of `GET message` brings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Grows by one per message of a session.
    pub message_id: u64,
    /// `RunnerJobRequest` or `JobCancellation`.
    pub message_type: String,
    /// JSON in a string, as the real one has it.
    pub body: String,
}

/// Body of a `RunnerJobRequest`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRequest {
    /// The message's own id.
    pub id: String,
    /// Names the offer in `acknowledge` and `acquirejob`.
    pub runner_request_id: String,
    /// Base of `acquirejob`, `renewjob`, `completejob`; ends in a slash.
    pub run_service_url: String,
    /// Passed back in `acquirejob`.
    pub billing_owner_id: String,
    /// Whether to `acknowledge` before acquiring.
    pub should_acknowledge: bool,
}

/// Body of a `JobCancellation`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobCancellation {
    /// UUID of the job.
    pub job_id: String,
    /// Time the job gets to end, `HH:MM:SS`.
    pub timeout: String,
}

/// Body of `acknowledge`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledge {
    /// The offer.
    pub runner_request_id: String,
}

/// Body of `acquirejob`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acquire {
    /// The offer's `runner_request_id`.
    pub job_message_id: String,
    /// `Linux`.
    #[serde(rename = "runnerOS")]
    pub runner_os: String,
    /// From the offer.
    pub billing_owner_id: String,
}

/// Body of `renewjob`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Renew {
    /// From the job message.
    pub plan_id: String,
    /// UUID of the job.
    pub job_id: String,
}

/// Body of `completejob`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Complete {
    /// From the job message.
    pub plan_id: String,
    /// UUID of the job.
    pub job_id: String,
    /// How it ended.
    pub conclusion: JobResult,
}

/// How a listener says a job ended. As a number it is the `n` in exit code 100 + n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// Every step ended with 0.
    Succeeded = 0,
    /// A hook or step failed.
    Failed = 2,
    /// It was told to stop.
    Canceled = 3,
}

impl JobResult {
    /// The word in the log line `Job NAME completed with result: …`.
    #[must_use]
    pub fn log_word(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }

    /// Exit code of a worker, and of a listener that was asked to return the job's result.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        100 + self as u8
    }

    /// The inverse of [`exit_code`](Self::exit_code); a code that is none means the worker died.
    #[must_use]
    pub fn from_exit_code(code: i32) -> Option<Self> {
        [Self::Succeeded, Self::Failed, Self::Canceled]
            .into_iter()
            .find(|result| i32::from(result.exit_code()) == code)
    }
}

/// The answer to `acquirejob`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobMessage {
    /// Always `PipelineAgentJobRequest`.
    pub message_type: String,
    /// What `renewjob` and `completejob` want back.
    pub plan: Plan,
    /// UUID of the job.
    pub job_id: String,
    /// The job's name.
    pub job_display_name: String,
    /// Where to report, and with which token.
    pub resources: Resources,
    /// The `github` context: `repository`, `run_id`, …
    pub context_data: ContextData,
    /// The job's own `env`.
    pub environment_variables: BTreeMap<String, String>,
    /// What to run, in order.
    pub steps: Vec<Step>,
    /// How a stand-in listener shall misbehave; the real message has no such part.
    #[serde(default)]
    pub listener: Misbehaviour,
}

/// The plan a job belongs to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// UUID.
    pub plan_id: String,
}

/// Endpoints of a job message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resources {
    /// One, named `SystemVssConnection`.
    pub endpoints: Vec<Endpoint>,
}

/// An address with a token for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// `SystemVssConnection`.
    pub name: String,
    /// Base URL; ends in a slash.
    pub url: String,
    /// How to be let in.
    pub authorization: Authorization,
}

/// How to be let in at an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Authorization {
    /// `OAuth`.
    pub scheme: String,
    /// Holds `AccessToken`.
    pub parameters: BTreeMap<String, String>,
}

/// Contexts of a job message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContextData {
    /// The `github` context; each key becomes `GITHUB_KEY`.
    pub github: BTreeMap<String, String>,
}

/// One step of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Shown in the log.
    pub name: String,
    /// A bash script.
    pub run: String,
}

/// What a stand-in listener does wrong with a job, on request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Misbehaviour {
    /// End with this code in the middle of the job, without a word to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_with: Option<u8>,
    /// How long after the job's start `crash_with` strikes, in milliseconds.
    pub crash_after_ms: u64,
    /// Never renew the job's lock.
    pub skip_renew: bool,
    /// Do not report the job's end.
    pub skip_complete: bool,
    /// Ignore cancellation and signals while the job runs.
    pub ignore_cancel: bool,
    /// End with this code after everything else was done right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_with: Option<u8>,
    /// Stay this long, in milliseconds, between reporting the job's end and ending.
    pub linger_ms: u64,
}

/// What a stand-in listener tells about where a job ran. Our own; GitHub has no such call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// `gethostname` where the listener ran.
    pub hostname: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Effective user id of the listener in its own user namespace.
    pub uid: u32,
    /// The end of the job's log, at most 64 KiB.
    pub log_tail: String,
}

/// The longest log tail that is kept for a job, in bytes.
pub const LOG_TAIL_BYTES: usize = 64 * 1024;

/// An error of the broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerError {
    /// `actions-broker-listener`.
    pub source: String,
    /// `RunnerNotFound`, `RunnerVersionTooOld`, `RunnerSessionInvalid`, …
    pub error_kind: String,
    /// The HTTP status once more.
    pub status_code: u16,
    /// For people.
    pub error_message: String,
}

/// The file `.runner` of a JIT config. Booleans are strings, as in the real one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunnerFile {
    /// The runner's id.
    pub agent_id: String,
    /// The runner's name.
    pub agent_name: String,
    /// Always 1 here.
    pub pool_id: String,
    /// Name of the runner group.
    pub pool_name: String,
    /// `True`: the listener must not update itself.
    pub disable_update: String,
    /// `True`: one job, then gone.
    pub ephemeral: String,
    /// Same as `server_url_v2` here.
    pub server_url: String,
    /// Empty for JIT configs.
    #[serde(rename = "GitHubUrl")]
    pub github_url: String,
    /// Relative to the runner root, or absolute.
    pub work_folder: String,
    /// `True`: speak to the broker.
    #[serde(rename = "UseV2Flow")]
    pub use_v2_flow: String,
    /// Base URL of the broker; ends in a slash.
    #[serde(rename = "ServerUrlV2")]
    pub server_url_v2: String,
}

/// The file `.credentials` of a JIT config.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CredentialsFile {
    /// `OAuth`.
    pub scheme: String,
    /// Where to get a token, and as whom.
    pub data: CredentialsData,
}

/// What `.credentials` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsData {
    /// UUID, issuer and subject of the client assertion.
    pub client_id: String,
    /// The token endpoint, and the audience of the client assertion.
    pub authorization_url: String,
}
