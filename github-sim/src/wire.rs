//! JSON between broker and listener.
//!
//! The shapes are those that GitHub's listener sends and reads. [`job_message`](crate::job_message) has the
//! answer to `acquirejob`.

use serde::{Deserialize, Serialize};

/// Time in seconds that a listener has to end a cancelled job.
pub const CANCEL_TIMEOUT_S: u64 = 300;

/// Body of `POST session`, and of its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionBody {
    /// UUID. The listener uses the one in the answer.
    pub session_id: String,
    /// `HOST (PID: n)`.
    pub owner_name: String,
    /// The runner that opens the session.
    pub agent: SessionAgent,
    /// True if the server requires FIPS. Bodies are plain here.
    #[serde(default)]
    pub use_fips_encryption: bool,
}

/// The runner that opens a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionAgent {
    /// The runner's id.
    pub id: u64,
    /// The runner's name.
    pub name: String,
    /// Version of the listener, three numbers.
    pub version: String,
    /// Output of `uname`.
    #[serde(default)]
    pub os_description: String,
}

/// Answer to `GET message`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerMessage {
    /// Number of the message in its session, from 1.
    pub message_id: u64,
    /// `RunnerJobRequest` or `JobCancellation`.
    pub message_type: String,
    /// JSON in a string, as at GitHub.
    pub body: String,
}

/// Body of a `RunnerJobRequest`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRequest {
    /// Id of the message.
    pub id: String,
    /// Id of the offer for `acknowledge` and `acquirejob`.
    pub runner_request_id: String,
    /// Base of `acquirejob`, `renewjob`, `completejob`; ends in a slash.
    pub run_service_url: String,
    /// Value that `acquirejob` returns.
    pub billing_owner_id: String,
    /// True if the listener must `acknowledge` before it acquires.
    pub should_acknowledge: bool,
}

/// Body of a `JobCancellation`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobCancellation {
    /// UUID of the job.
    pub job_id: String,
    /// Time that the job has to end, `HH:MM:SS`.
    pub timeout: String,
}

/// Body of `acknowledge`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acknowledge {
    /// Id of the offer.
    pub runner_request_id: String,
}

/// Body of `acquirejob`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acquire {
    /// `runner_request_id` of the offer.
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
    /// Result of the job.
    pub conclusion: JobResult,
}

/// Result of a job as the listener reports it. The number is `n` in exit code 100 + n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobResult {
    /// Every step ended with 0.
    Succeeded = 0,
    /// A hook or step failed.
    Failed = 2,
    /// The job was cancelled.
    Canceled = 3,
}

impl JobResult {
    /// Returns the word for the log line `Job NAME completed with result: …`.
    #[must_use]
    pub fn log_word(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }

    /// Returns the exit code of a worker, and of a listener that returns the job's result.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        100 + self as u8
    }

    /// Returns the result for a worker's exit code. Another code means that the worker died.
    #[must_use]
    pub fn from_exit_code(code: i32) -> Option<Self> {
        [Self::Succeeded, Self::Failed, Self::Canceled]
            .into_iter()
            .find(|result| i32::from(result.exit_code()) == code)
    }
}

/// One step of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobStep {
    /// Name in the log.
    pub name: String,
    /// A bash script.
    pub run: String,
}

/// Faults of a stand-in listener while it runs a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerFaults {
    /// Ends with this code inside the job, without a report to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_with: Option<u8>,
    /// Time from the job's start to `crash_with`, in milliseconds.
    pub crash_after_ms: u64,
    /// Does not renew the job's lock.
    pub skip_renew: bool,
    /// Does not report the job's end.
    pub skip_complete: bool,
    /// Ignores cancellation and signals while the job runs.
    pub ignore_cancel: bool,
    /// Ends with this code after a job without other faults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_with: Option<u8>,
    /// Time from the report of the job's end to the listener's end, in milliseconds.
    pub linger_ms: u64,
}

/// Report of a stand-in listener about the machine of a job. GitHub has no such call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Host name.
    pub hostname: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Effective user id of the listener in its user namespace.
    pub uid: u32,
    /// The end of the job's log, at most 64 KiB.
    pub log_tail: String,
}

/// Maximum size of a job's log tail, in bytes.
pub const LOG_TAIL_BYTES: usize = 64 * 1024;

/// An error of the broker or of the run service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerError {
    /// `actions-broker-listener` or `actions-run-service`.
    pub source: String,
    /// `RunnerNotFound`, `RunnerVersionTooOld`, `RunnerSessionInvalid`, … The run service has no such field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error_kind: String,
    /// HTTP status of the answer.
    pub status_code: u16,
    /// Text for people.
    pub error_message: String,
}

/// The file `.runner` of a JIT config. Booleans are strings, as at GitHub.
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
    /// `True`: the runner ends with its first job.
    pub ephemeral: String,
    /// The same as `server_url_v2` here.
    pub server_url: String,
    /// Address of the repository or organisation.
    #[serde(rename = "GitHubUrl")]
    pub github_url: String,
    /// Relative to the runner root, or absolute.
    pub work_folder: String,
    /// `True`: the listener uses the broker.
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
    /// Token endpoint and client.
    pub data: CredentialsData,
}

/// Contents of `.credentials`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsData {
    /// UUID: issuer and subject of the client assertion.
    pub client_id: String,
    /// Token endpoint, which is the audience of the client assertion.
    pub authorization_url: String,
    /// `True`: the client assertion is signed with PS256, otherwise with RS256.
    pub require_fips_cryptography: String,
}

/// The file `.credentials_rsaparams` of a JIT config: an RSA key of 2048 bits. Each number is base64 of its
/// big-endian bytes at full length.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RsaParametersFile {
    /// Private exponent.
    pub d: String,
    /// `d` modulo `p - 1`.
    pub dp: String,
    /// `d` modulo `q - 1`.
    pub dq: String,
    /// Public exponent.
    pub exponent: String,
    /// Inverse of `q` modulo `p`.
    pub inverse_q: String,
    /// Product of `p` and `q`.
    pub modulus: String,
    /// Larger prime.
    pub p: String,
    /// Smaller prime.
    pub q: String,
}
