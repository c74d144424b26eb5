//! Sample deliveries, by which an operator tests the hook. Their ids are those of no real job.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::delivery::{self, Delivery};
use crate::pool::{KnownJob, ScopeId};

/// Smallest id of a sample's job. GitHub's ids are far below it, and a program that reads numbers as floating point
/// still reads it without loss.
const LEAST_ID: u64 = 1 << 52;

/// A delivery of `workflow_job`.
#[derive(Debug, Clone)]
pub struct Sample(Value);

/// Failure to read a recorded delivery.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// It is not JSON.
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    /// It is not about a job.
    #[error("it has no workflow_job, so it is not the payload of a workflow_job event")]
    NoJob,
    /// The daemon would refuse it.
    #[error("the daemon refuses it: {0}")]
    Refused(String),
}

impl Sample {
    /// Returns a delivery that tells of a new job in the queue. `number` makes its id unique.
    #[must_use]
    pub fn queued(
        repository: &str,
        enterprise: Option<&str>,
        labels: &[String],
        number: u32,
        unix_ms: u64,
    ) -> Self {
        let (at, id) = (time(unix_ms), id(number));
        let mut body = json!({
            "action": "queued",
            "workflow_job": {
                "id": id, "run_id": id, "run_attempt": 1, "status": "queued", "conclusion": null,
                "name": "webhook-test", "workflow_name": "webhook-test", "labels": labels,
                "runner_name": null, "created_at": at, "started_at": at, "completed_at": null,
            },
            "repository": {"full_name": repository},
        });
        if let Some(slug) = enterprise {
            body["enterprise"] = json!({"slug": slug});
        }
        Self(body)
    }

    /// Returns a recorded delivery with the ids of a sample, so that it changes no real job, and with other labels if
    /// there are any.
    ///
    /// # Errors
    /// Fails if the text is not a delivery of `workflow_job`.
    pub fn recorded(text: &str, labels: &[String], number: u32) -> Result<Self, SampleError> {
        let mut body: Value = serde_json::from_str(text)?;
        let Some(job) = body.get_mut("workflow_job").and_then(Value::as_object_mut) else {
            return Err(SampleError::NoJob);
        };
        for key in ["id", "run_id"] {
            job.insert(key.to_owned(), id(number).into());
        }
        if !labels.is_empty() {
            job.insert("labels".to_owned(), labels.into());
        }
        Ok(Self(body))
    }

    /// Returns the delivery that ends the job, so that it leaves the queue.
    #[must_use]
    pub fn ended(&self, unix_ms: u64) -> Self {
        let mut body = self.0.clone();
        body["action"] = "completed".into();
        let job = &mut body["workflow_job"];
        job["status"] = "completed".into();
        job["conclusion"] = "cancelled".into();
        job["runner_name"] = Value::Null;
        job["completed_at"] = time(unix_ms).into();
        Self(body)
    }

    /// Returns the body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.0.to_string().into_bytes()
    }

    /// Returns the repository of the job.
    #[must_use]
    pub fn repository(&self) -> &str {
        self.0["repository"]["full_name"].as_str().unwrap_or("")
    }

    /// Returns the job as a daemon with these scopes reads it; `None` if the repository is in none of them.
    ///
    /// # Errors
    /// Fails if the daemon would refuse the delivery, or if its action does not tell of a job.
    pub fn job(&self, scopes: &[ScopeId], unix_ms: u64) -> Result<Option<KnownJob>, SampleError> {
        match delivery::read("workflow_job", &self.body(), scopes, unix_ms) {
            Ok(Delivery::Job(job)) => Ok(Some(*job)),
            Ok(Delivery::OutsideScope) => Ok(None),
            Ok(Delivery::Ping | Delivery::Ignored) => {
                let action = self.0["action"].as_str().unwrap_or("missing").to_owned();
                let problem = format!("the action {action:?} tells nothing of a job");
                Err(SampleError::Refused(problem))
            }
            Err(error) => Err(SampleError::Refused(error.to_string())),
        }
    }
}

fn id(number: u32) -> u64 {
    LEAST_ID + u64::from(number)
}

fn time(unix_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Conclusion, JobStage};

    const EXAMPLES: &str = include_str!("../../../github-sim/tests/webhooks/examples.json");

    fn scopes(names: &[&str]) -> Vec<ScopeId> {
        let of = |name: &&str| ScopeId::new("https://api.github.com", name);
        names.iter().map(of).collect()
    }

    #[test]
    fn a_sample_is_a_queued_job_that_leaves_with_its_end() {
        let labels = ["linux".to_owned()];
        let sample = Sample::queued("acme/app", None, &labels, 7, 5_000);
        let scopes = scopes(&["acme"]);
        let job = sample.job(&scopes, 6_000).unwrap().unwrap();
        assert_eq!((job.stage(), job.queued_unix_ms), (JobStage::Queued, 5_000));
        assert_eq!(job.description().labels, labels);
        let end = sample.ended(9_000).job(&scopes, 9_000).unwrap().unwrap();
        assert_eq!(end.key, job.key);
        let merged = job.merge(end);
        assert_eq!(merged.stage(), JobStage::Ended);
        let told = merged.end.unwrap();
        assert_eq!(
            (told.conclusion, told.unix_ms),
            (Conclusion::Cancelled, 9_000)
        );
        assert_eq!(merged.started_unix_ms, None, "no runner had it");
    }

    #[test]
    fn a_sample_of_an_enterprise_is_in_its_scope() {
        let sample = Sample::queued("any/app", Some("big"), &["linux".into()], 7, 5_000);
        assert!(
            sample
                .job(&scopes(&["enterprises/big"]), 0)
                .unwrap()
                .is_some()
        );
        assert!(sample.job(&scopes(&["acme"]), 0).unwrap().is_none());
    }

    #[test]
    fn a_recorded_delivery_loses_the_ids_of_its_job() {
        let examples: Value = serde_json::from_str(EXAMPLES).unwrap();
        for example in examples["workflow_job"].as_array().unwrap() {
            let repository = example["repository"]["full_name"].as_str().unwrap();
            let scopes = scopes(&[repository]);
            let sample = Sample::recorded(&example.to_string(), &[], 3).unwrap();
            let job = sample.job(&scopes, 0).unwrap().unwrap();
            assert_eq!(job.key.id, LEAST_ID + 3);
            assert_eq!(job.description().run_id, LEAST_ID + 3);
            let labels = example["workflow_job"]["labels"].as_array().unwrap();
            assert_eq!(job.description().labels.len(), labels.len());
            let other = Sample::recorded(&example.to_string(), &["x".into()], 3).unwrap();
            let job = other.job(&scopes, 0).unwrap().unwrap();
            assert_eq!(job.description().labels, ["x"]);
        }
    }

    #[test]
    fn a_file_without_a_job_is_refused_with_a_reason() {
        for (text, reason) in [
            ("{", "not JSON"),
            ("{}", "no workflow_job"),
            ("[1]", "no workflow_job"),
        ] {
            let error = Sample::recorded(text, &[], 1).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let renamed = r#"{"action": "renamed", "workflow_job": {"name": "a", "labels": []}, "repository": {"full_name": "acme/app"}}"#;
        let sample = Sample::recorded(renamed, &[], 1).unwrap();
        let error = sample.job(&scopes(&["acme"]), 0).unwrap_err().to_string();
        assert!(error.contains("\"renamed\""), "{error}");
    }
}
