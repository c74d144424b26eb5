//! Cells of tables: facts about a scope, a pool, a runner or a job.

use super::span;
use crate::config::ByteSize;
use crate::status::{
    Cause, JobResult, JobRow, JobStatus, PhaseKind, PoolStatus, RunnerStatus, ScopeStatus, Status,
    Verdict, VerdictRecord,
};

/// Returns when GitHub last answered a call for a scope.
pub(super) fn answered(scope: &ScopeStatus, now_unix_ms: u64) -> String {
    scope.github.last_ok_unix_ms.map_or_else(
        || "has not answered yet".to_owned(),
        |at| format!("answered {} ago", span(now_unix_ms.saturating_sub(at))),
    )
}

/// Returns the state of the calls for a scope.
#[must_use]
pub fn scope_state(scope: &ScopeStatus, now_unix_ms: u64) -> String {
    match &scope.github.error {
        Some(_) => "fails".to_owned(),
        None => answered(scope, now_unix_ms),
    }
}

/// Numbers of a pool's runners: those that are there, and after a slash the configured ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCounts {
    /// Idle runners.
    pub idle: String,
    /// Spares.
    pub spare: String,
    /// Runners with a job.
    pub busy: String,
    /// Runners that boot or register.
    pub starting: String,
    /// Runners that are being ended.
    pub ending: String,
    /// All runners.
    pub all: String,
}

impl PoolCounts {
    /// Counts the runners of a pool.
    #[must_use]
    pub fn of(pool: &PoolStatus) -> Self {
        let count = |phase| pool.count(phase);
        let starting = [
            PhaseKind::Booting,
            PhaseKind::Minting,
            PhaseKind::Registering,
        ];
        let all: u64 = pool.phases.values().sum();
        // The numbers of a pool that follows jobs or has a share of a budget are those of the schedule.
        let target = pool.target.as_ref();
        let idle = target.map_or(u64::from(pool.wanted.idle), |target| target.listeners);
        let spare = target.map_or(u64::from(pool.wanted.spare), |target| target.spares);
        Self {
            idle: format!("{}/{idle}", count(PhaseKind::Idle)),
            spare: format!("{}/{spare}", count(PhaseKind::Spare)),
            busy: count(PhaseKind::Busy).to_string(),
            starting: starting.map(count).iter().sum::<u64>().to_string(),
            ending: count(PhaseKind::Retiring).to_string(),
            all: format!("{all}/{}", pool.wanted.max),
        }
    }
}

/// Returns the address of the web pages on which a pool's jobs are.
#[must_use]
pub fn server<'s>(status: &'s Status, pool: &PoolStatus) -> &'s str {
    let github = status.scope_of(pool).map_or(&status.github, |s| &s.github);
    // A daemon of an earlier version does not tell its server.
    let server = github.server_url.as_deref();
    server.unwrap_or("https://github.com")
}

/// Returns the state of a runner, as this host and GitHub see it.
#[must_use]
pub fn state(runner: &RunnerStatus) -> String {
    if runner.address_lost {
        format!("{}, link without address", runner.phase)
    } else if runner.unreachable {
        format!("{}, offline at GitHub", runner.phase)
    } else {
        runner.phase.to_string()
    }
}

/// Occupation of a runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupation {
    /// Its job, the cause of its end, or else its name at GitHub.
    pub text: String,
    /// Address of its job's run.
    pub url: Option<String>,
}

impl Occupation {
    /// Describes a runner's occupation. `server` is the address of the web pages.
    #[must_use]
    pub fn of(runner: &RunnerStatus, server: &str) -> Self {
        let text = match (&runner.job, &runner.cause) {
            (Some(job), Some(cause @ Cause::JobTimeout)) => {
                let limit = job
                    .timeout_ms
                    .map(|limit| format!(", after {}", span(limit)));
                format!("ends with {cause}{}", limit.unwrap_or_default())
            }
            (_, Some(cause)) => format!("ends with {cause}"),
            (Some(JobStatus { note, .. }), None) if !note.run_id.is_empty() => {
                return Self {
                    text: format!("{}: {} / {}", note.repository, note.workflow, note.job),
                    url: note.run_url(server),
                };
            }
            (Some(_), None) => "a job without a name".to_owned(),
            (None, None) => runner.runner.clone().unwrap_or_default(),
        };
        Self { text, url: None }
    }
}

/// Facts about a runner that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its slot.
    pub slot: String,
    /// Its verdict.
    pub verdict: String,
    /// Time since its end.
    pub ago: String,
    /// Result and duration of its job.
    pub job: String,
    /// Peak of its memory.
    pub memory: String,
    /// Its exit status or signal.
    pub exit: String,
}

impl Ended {
    /// Describes a runner that ended.
    #[must_use]
    pub fn of(ended: &VerdictRecord, now_unix_ms: u64) -> Self {
        let job = match (ended.result, ended.job_ms) {
            (None, None) => "no job".to_owned(),
            (Some(result), None) => result.to_string(),
            (None, Some(job_ms)) => span(job_ms),
            (Some(result), Some(job_ms)) => format!("{result}, {}", span(job_ms)),
        };
        let memory = ended
            .memory_peak_bytes
            .map(|bytes| ByteSize(bytes).to_string());
        Self {
            slot: ended.slot.to_string(),
            verdict: ended.verdict.to_string(),
            ago: span(now_unix_ms.saturating_sub(ended.ended_unix_ms)),
            job,
            memory: memory.unwrap_or_default(),
            // The status of a listener that ran its job is the job's result, which has its own column.
            exit: match (ended.verdict, ended.exit.as_deref()) {
                (Verdict::JobDone, Some(_)) => String::new(),
                (_, exit) => exit.unwrap_or("no record").to_owned(),
            },
        }
    }
}

/// Returns why a runner ended as it did, and what to do: its last line and the remedy of its verdict. Returns
/// `None` for a runner that did its work.
#[must_use]
pub fn failure(ended: &VerdictRecord) -> Option<String> {
    let remedy = ended.verdict.remedy(&ended.slot);
    if remedy.is_none() && !ended.result.is_some_and(JobResult::is_cut_short) {
        return None;
    }
    // A listener that waits for a job gives no reason.
    let wrote = ended.last_line.as_ref();
    let wrote = wrote.filter(|line| !line.ends_with("Listening for Jobs"));
    let wrote = wrote.map(|line| format!("it wrote \"{line}\""));
    let notes: Vec<String> = wrote.into_iter().chain(remedy).collect();
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// Returns the name of a job of the queue.
#[must_use]
pub fn job_title(job: &JobRow) -> String {
    format!("{}: {} / {}", job.repository, job.workflow, job.name)
}
