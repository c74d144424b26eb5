//! Messages of a set's queue. Their texts come from the authors of workflows.

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::pool::{
    Conclusion, Evidence, JobDescription, JobEnd, JobKey, JobSource, KnownJob, PoolName, ScopeId,
};
use crate::workflow_job::{MAX_LABELS, is_repository, short, time};
use crate::world::SetMessage;

/// Maximum number of items in a message. GitHub sends at most 50.
const MAX_ITEMS: usize = 1_000;
/// Maximum length of a job's id, in bytes. GitHub's are UUIDs.
const MAX_JOB_ID: usize = 128;

/// The set and the pool that a message is for.
pub(super) struct Addressee<'a> {
    pub(super) scope: &'a ScopeId,
    pub(super) set: u64,
    pub(super) pool: &'a PoolName,
}

/// Counts of a set, as far as they are used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Statistics {
    pub(super) total_assigned_jobs: u64,
}

/// A message as it is sent.
#[derive(Deserialize)]
pub(super) struct Message {
    #[serde(rename = "messageId")]
    id: u64,
    /// An array of items as text. It may be empty.
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    statistics: Option<Statistics>,
}

/// Change of one job, as far as it is used.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(default)]
    runner_request_id: i64,
    repository_name: String,
    owner_name: String,
    job_id: String,
    #[serde(default)]
    job_workflow_ref: String,
    #[serde(default)]
    job_display_name: String,
    #[serde(default)]
    workflow_run_id: u64,
    #[serde(default)]
    request_labels: Vec<String>,
    queue_time: Option<String>,
    scale_set_assign_time: Option<String>,
    runner_assign_time: Option<String>,
    finish_time: Option<String>,
    #[serde(default)]
    runner_name: String,
    #[serde(default)]
    result: String,
}

impl Message {
    /// Reads what a message tells at `unix_ms`. Items of types that this version does not know are left out.
    pub(super) fn read(self, to: &Addressee<'_>, unix_ms: u64) -> SetMessage {
        let mut message = SetMessage {
            id: self.id,
            assigned: self.statistics.map(|counts| counts.total_assigned_jobs),
            jobs: Vec::new(),
            available: Vec::new(),
            unreadable: None,
        };
        let body = self.body.unwrap_or_default();
        if body.trim().is_empty() {
            return message;
        }
        let Ok(items) = serde_json::from_str::<Vec<Value>>(&body) else {
            message.unreadable = Some("its body is not a list".to_owned());
            return message;
        };
        for item in items.into_iter().take(MAX_ITEMS) {
            if let Err(problem) = message.add(item, to, unix_ms) {
                message.unreadable.get_or_insert_with(|| problem.to_owned());
            }
        }
        message
    }
}

impl SetMessage {
    fn add(&mut self, item: Value, to: &Addressee<'_>, unix_ms: u64) -> Result<(), &'static str> {
        let kind = item.get("messageType").and_then(Value::as_str);
        let evidence = match kind.ok_or("an item has no type")? {
            "JobAvailable" => None,
            "JobAssigned" => Some(Evidence::Queued),
            "JobStarted" => Some(Evidence::Started),
            "JobCompleted" => Some(Evidence::Ended),
            _ => return Ok(()),
        };
        let item: Item =
            serde_json::from_value(item).map_err(|_| "an item has other fields or types")?;
        match evidence {
            // Requests of a service that assigns jobs by itself have no id.
            None if item.runner_request_id > 0 => self.available.push(item.runner_request_id),
            None => {}
            Some(evidence) => self.jobs.push(item.job(evidence, to, unix_ms)?),
        }
        Ok(())
    }
}

impl Item {
    fn job(
        self,
        evidence: Evidence,
        to: &Addressee<'_>,
        unix_ms: u64,
    ) -> Result<KnownJob, &'static str> {
        let repository = format!("{}/{}", self.owner_name, self.repository_name);
        if !is_repository(&repository) {
            return Err("an item names no repository");
        }
        if self.job_id.is_empty() || self.job_id.len() > MAX_JOB_ID {
            return Err("an item names no job");
        }
        if self.request_labels.iter().map(String::len).sum::<usize>() > MAX_LABELS {
            return Err("the labels of a job are too long");
        }
        let assigned = time(self.scale_set_assign_time.as_deref());
        let queued = time(self.queue_time.as_deref()).or(assigned);
        let began = time(self.runner_assign_time.as_deref());
        // A job that was cancelled in the queue has no runner.
        let runner = Some(self.runner_name).filter(|name| !name.is_empty());
        let runner = runner.filter(|_| evidence != Evidence::Queued);
        let key = JobKey {
            scope: to.scope.clone(),
            source: JobSource::ScaleSet,
            id: identity(to.set, &self.job_id, assigned),
        };
        let description = JobDescription {
            repository,
            run_id: self.workflow_run_id,
            workflow: short(workflow(&self.job_workflow_ref)),
            name: short(&self.job_display_name),
            labels: self
                .request_labels
                .iter()
                .map(|label| short(label))
                .collect(),
        };
        let job = KnownJob::new(key, evidence, description, queued.unwrap_or(unix_ms));
        Ok(KnownJob {
            started_unix_ms: (evidence == Evidence::Started || runner.is_some())
                .then(|| began.unwrap_or(unix_ms)),
            runner: runner.map(|name| (evidence, short(&name))),
            told_unix_ms: if evidence == Evidence::Queued {
                unix_ms
            } else {
                0
            },
            end: (evidence == Evidence::Ended).then(|| JobEnd {
                unix_ms: time(self.finish_time.as_deref()).unwrap_or(unix_ms),
                conclusion: conclusion(&self.result),
            }),
            pool: Some(to.pool.clone()),
            set: Some(to.set),
            ..job
        })
    }
}

/// Returns the identity of one assignment of a job to a set.
///
/// Request ids are 0 at github.com, and ids of messages start anew. A job that no runner took is assigned again under
/// its id, at another time.
fn identity(set: u64, job: &str, assigned_unix_ms: Option<u64>) -> u64 {
    let assigned = assigned_unix_ms.unwrap_or_default();
    let digest = Sha256::digest(format!("{set} {} {assigned}", job.to_ascii_lowercase()));
    let number = digest
        .iter()
        .take(8)
        .fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    // Programs that read JSON as JavaScript does know integers of 53 bits.
    number >> 11
}

/// Returns the file name of the workflow in `acme/widgets/.github/workflows/ci.yml@refs/heads/main`. Messages do not
/// have its name.
fn workflow(reference: &str) -> &str {
    let path = reference.split('@').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

fn conclusion(result: &str) -> Conclusion {
    match result.to_ascii_lowercase().as_str() {
        "succeeded" => Conclusion::Success,
        "failed" => Conclusion::Failure,
        "canceled" | "cancelled" => Conclusion::Cancelled,
        "skipped" => Conclusion::Skipped,
        _ => Conclusion::Other,
    }
}

/// Reads a message as from a queue, for fuzzing. Checks that text of a job is bounded and cannot control a terminal.
#[cfg(any(test, fuzzing))]
pub(crate) fn try_message(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<Message>(bytes) else {
        return;
    };
    let (Ok(pool), scope) = ("ci".parse(), ScopeId::new("https://api.github.com", "acme")) else {
        return;
    };
    let to = Addressee {
        scope: &scope,
        set: 3,
        pool: &pool,
    };
    let read = message.read(&to, 1_000);
    assert!(read.jobs.len() + read.available.len() <= MAX_ITEMS);
    for job in &read.jobs {
        let about = job.description();
        let texts = [&about.name, &about.workflow].into_iter();
        for text in texts
            .chain(&about.labels)
            .map(String::as_str)
            .chain(job.runner())
        {
            assert!(text.chars().count() <= crate::workflow_job::MAX_NAME);
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        assert_eq!(job.pool.as_ref(), Some(&pool));
        assert_eq!(job.clone().merge(job.clone()), *job);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pool::JobStage;

    fn item(kind: &str) -> Value {
        json!({
            "messageType": kind, "runnerRequestId": 0, "repositoryName": "widgets", "ownerName": "acme",
            "jobId": "5C0A1D8E-0000-4000-8000-000000000001",
            "jobWorkflowRef": "acme/widgets/.github/workflows/ci.yml@refs/heads/main",
            "jobDisplayName": "build", "workflowRunId": 77, "eventName": "push",
            "requestLabels": ["linux"], "queueTime": "2026-01-01T00:00:01.1234567Z",
            "scaleSetAssignTime": "2026-01-01T00:00:02Z",
            "runnerAssignTime": "0001-01-01T00:00:00Z", "finishTime": "0001-01-01T00:00:00Z",
        })
    }

    fn read(items: &Value) -> SetMessage {
        let message = json!({
            "messageId": 100_000_001, "messageType": "RunnerScaleSetJobMessages", "body": items.to_string(),
            "statistics": {"totalAssignedJobs": 4, "totalIdleRunners": 1},
        });
        let bytes = message.to_string();
        try_message(bytes.as_bytes());
        let message: Message = serde_json::from_str(&bytes).unwrap();
        let (scope, pool) = (
            ScopeId::new("https://api.github.com", "acme"),
            "ci".parse().unwrap(),
        );
        let to = Addressee {
            scope: &scope,
            set: 3,
            pool: &pool,
        };
        message.read(&to, 9_000)
    }

    const QUEUED: u64 = 1_767_225_601_123;

    #[test]
    fn items_of_one_assignment_are_one_job() {
        let mut started = item("JobStarted");
        started["runnerName"] = "fuzz-ci-1-0000beef".into();
        started["runnerAssignTime"] = "2026-01-01T00:00:05Z".into();
        let mut completed = started.clone();
        completed["messageType"] = "JobCompleted".into();
        completed["result"] = "failed".into();
        let message = read(&json!([item("JobAssigned"), started, completed]));
        assert_eq!((message.id, message.assigned), (100_000_001, Some(4)));
        let stages: Vec<JobStage> = message.jobs.iter().map(KnownJob::stage).collect();
        assert_eq!(
            stages,
            [JobStage::Queued, JobStage::Running, JobStage::Ended]
        );
        let job = message.jobs.into_iter().reduce(KnownJob::merge).unwrap();
        assert_eq!(job.runner(), Some("fuzz-ci-1-0000beef"));
        assert_eq!(job.queued_unix_ms, QUEUED);
        assert_eq!(job.wait_ms(), Some(3_877));
        assert_eq!(job.end.unwrap().conclusion, Conclusion::Failure);
        assert_eq!(job.description().workflow, "ci.yml");
        assert_eq!(job.key.source, JobSource::ScaleSet);
    }

    #[test]
    fn a_job_that_is_assigned_again_is_another_assignment_with_its_first_queue_time() {
        let mut cancelled = item("JobCompleted");
        cancelled["result"] = "canceled".into();
        let mut again = item("JobAssigned");
        again["scaleSetAssignTime"] = "2026-01-01T00:05:02Z".into();
        let jobs = read(&json!([item("JobAssigned"), cancelled, again])).jobs;
        assert_eq!(jobs[0].key, jobs[1].key);
        assert_eq!((jobs[1].started_unix_ms, jobs[1].runner()), (None, None));
        assert_ne!(jobs[2].key, jobs[0].key);
        assert_eq!(jobs[2].queued_unix_ms, QUEUED);
    }

    #[test]
    fn an_unreadable_item_does_not_hide_the_rest() {
        let mut hostile = item("JobAssigned");
        hostile["ownerName"] = "\u{1b}[2J".into();
        let mut available = item("JobAvailable");
        available["runnerRequestId"] = 12.into();
        let message = read(&json!([
            {"messageType": "JobOfTomorrow"}, {"messageType": "JobStarted"}, 5, hostile,
            available, item("JobAvailable"), item("JobAssigned"),
        ]));
        assert_eq!(message.jobs.len(), 1);
        assert_eq!(message.available, [12]);
        assert_eq!(
            message.unreadable.as_deref(),
            Some("an item has other fields or types")
        );
        for body in [json!({}), json!("text")] {
            assert!(read(&body).unreadable.is_some());
        }
        assert_eq!(read(&json!([])).unreadable, None);
    }
}
