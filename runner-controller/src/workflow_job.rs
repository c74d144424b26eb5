//! A job as GitHub describes it: `workflow_job` in deliveries, and the same object in the answers of the REST API.
//! Its text comes from the authors of workflows.

use std::time::UNIX_EPOCH;

use serde::Deserialize;

use crate::pool::{
    Conclusion, Evidence, JobDescription, JobEnd, JobKey, JobReading, JobSource, KnownJob, ScopeId,
};
use crate::terminal;

/// Maximum length of a repository's name, in bytes: 39 of the owner, 100 of the repository, and the slash.
pub(crate) const MAX_REPOSITORY: usize = 140;
/// Maximum number of characters of a name that are kept.
pub(crate) const MAX_NAME: usize = 128;
/// Maximum length of all labels together, in bytes.
pub(crate) const MAX_LABELS: usize = 1024;

/// A job in GitHub's JSON, as far as it is used.
#[derive(Deserialize)]
pub(crate) struct WorkflowJob {
    pub(crate) id: u64,
    run_id: u64,
    /// Old servers do not send it.
    run_attempt: Option<u32>,
    pub(crate) status: Option<String>,
    conclusion: Option<String>,
    name: String,
    workflow_name: Option<String>,
    labels: Vec<String>,
    runner_name: Option<String>,
    created_at: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
}

/// Error of a job whose labels are too long.
#[derive(Debug, thiserror::Error)]
#[error("the job's labels are longer than {MAX_LABELS} bytes")]
pub(crate) struct LongLabels;

impl WorkflowJob {
    /// Returns the job as an event told of it at `unix_ms`.
    ///
    /// # Errors
    /// The labels are too long.
    pub(crate) fn told(
        self,
        evidence: Evidence,
        scope: ScopeId,
        repository: String,
        unix_ms: u64,
    ) -> Result<KnownJob, LongLabels> {
        if self.labels.iter().map(String::len).sum::<usize>() > MAX_LABELS {
            return Err(LongLabels);
        }
        let created = time(self.created_at.as_deref());
        let started = time(self.started_at.as_deref());
        let runner = self.runner_name.filter(|name| !name.is_empty());
        // GitHub's examples of `queued` name a runner, and an ended job without one was never started.
        let took_it = match evidence {
            Evidence::Held | Evidence::Queued => false,
            Evidence::Started => true,
            Evidence::Ended => runner.is_some(),
        };
        let waits = matches!(evidence, Evidence::Held | Evidence::Queued);
        let key = JobKey {
            scope,
            source: JobSource::Webhook,
            id: self.id,
        };
        let description = JobDescription {
            repository,
            run_id: self.run_id,
            workflow: short(self.workflow_name.as_deref().unwrap_or_default()),
            name: short(&self.name),
            labels: self.labels.iter().map(|label| short(label)).collect(),
        };
        let queued_unix_ms = created.or(started).unwrap_or(unix_ms);
        Ok(KnownJob {
            attempt: self.run_attempt.unwrap_or(1),
            runner: (runner.filter(|_| took_it)).map(|name| (evidence, short(&name))),
            told_unix_ms: if waits { unix_ms } else { 0 },
            started_unix_ms: took_it.then(|| started.unwrap_or(unix_ms)),
            end: (evidence == Evidence::Ended).then(|| JobEnd {
                unix_ms: time(self.completed_at.as_deref()).unwrap_or(unix_ms),
                conclusion: self
                    .conclusion
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(Conclusion::Other),
            }),
            ..KnownJob::new(key, evidence, description, queued_unix_ms)
        })
    }

    /// Returns the job as the REST API described it in the answer to a request of `unix_ms`.
    ///
    /// # Errors
    /// The labels are too long.
    pub(crate) fn read(
        self,
        scope: ScopeId,
        repository: String,
        unix_ms: u64,
    ) -> Result<KnownJob, LongLabels> {
        let evidence = match self.status.as_deref() {
            Some("in_progress") => Evidence::Started,
            Some("completed") => Evidence::Ended,
            // `pending` waits for its concurrency group.
            Some("waiting" | "pending" | "requested") => Evidence::Held,
            // A word that this version does not know must not hide a job that waits.
            Some(_) | None => Evidence::Queued,
        };
        let job = self.told(evidence, scope, repository, unix_ms)?;
        Ok(KnownJob {
            told_unix_ms: 0,
            read: Some(JobReading {
                unix_ms,
                is_held: evidence == Evidence::Held,
            }),
            ..job
        })
    }
}

/// Returns true if the text is `OWNER/REPOSITORY`, and not too long for a name at GitHub.
pub(crate) fn is_repository(text: &str) -> bool {
    let is_name = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
    text.len() <= MAX_REPOSITORY
        && text
            .split_once('/')
            .is_some_and(|(owner, name)| is_name(owner) && is_name(name) && !name.contains('/'))
}

/// Returns a text without anything that a terminal obeys, and not longer than it needs to be.
pub(crate) fn short(text: &str) -> String {
    let start: String = text.chars().take(MAX_NAME).collect();
    terminal::plain(&start).chars().take(MAX_NAME).collect()
}

/// Returns a time of GitHub's, in milliseconds since 1970.
pub(crate) fn time(text: Option<&str>) -> Option<u64> {
    let time = humantime::parse_rfc3339_weak(text?).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pool::JobStage;

    fn job(status: &str) -> Value {
        json!({
            "id": 5, "run_id": 4, "status": status, "name": "build", "labels": ["linux"],
            "created_at": "2026-01-01T00:00:01Z", "started_at": "2026-01-01T00:00:03Z",
            "runner_name": "fuzz-ci-1-0000beef",
        })
    }

    fn read(job: &Value) -> KnownJob {
        let job: WorkflowJob = serde_json::from_value(job.clone()).unwrap();
        let scope = ScopeId::new("https://api.github.com", "acme");
        job.read(scope, "acme/widgets".into(), 9_000).unwrap()
    }

    #[test]
    fn each_status_of_the_rest_api_is_a_stage() {
        for (status, stage) in [
            ("queued", JobStage::Queued),
            ("a new word", JobStage::Queued),
            ("waiting", JobStage::Held),
            ("pending", JobStage::Held),
            ("requested", JobStage::Held),
            ("in_progress", JobStage::Running),
            ("completed", JobStage::Ended),
        ] {
            assert_eq!(read(&job(status)).stage(), stage, "{status}");
        }
    }

    #[test]
    fn a_job_that_was_cancelled_in_the_queue_never_started() {
        let mut cancelled = job("completed");
        cancelled["conclusion"] = "cancelled".into();
        for runner in [Value::Null, "".into()] {
            cancelled["runner_name"] = runner;
            let job = read(&cancelled);
            assert_eq!((job.started_unix_ms, job.runner()), (None, None));
            assert_eq!(job.end.unwrap().conclusion, Conclusion::Cancelled);
        }
    }

    #[test]
    fn text_of_a_job_cannot_control_a_terminal_and_is_bounded() {
        let mut hostile = job("queued");
        hostile["name"] = format!("\u{1b}[2J{}", "x".repeat(500)).into();
        hostile["labels"] = json!(["a\nb"]);
        let job = read(&hostile);
        let description = job.description();
        assert!(description.name.starts_with("\\u{1b}[2Jxx"));
        assert_eq!(description.name.len(), MAX_NAME);
        assert_eq!(description.labels, ["a\\u{a}b"]);
    }

    #[test]
    fn a_repository_has_an_owner_and_a_name() {
        assert!(is_repository("acme/widgets"));
        for text in ["", "acme", "acme/", "/widgets", "a/b/c", "a b/c"] {
            assert!(!is_repository(text), "{text:?}");
        }
        assert!(!is_repository(&format!("acme/{}", "x".repeat(200))));
    }
}
