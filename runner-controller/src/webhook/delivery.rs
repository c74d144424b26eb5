//! The parser of deliveries. Their text comes from GitHub and from authors of workflows.

use std::time::UNIX_EPOCH;

use serde::Deserialize;

use crate::pool::{
    Conclusion, Evidence, JobDescription, JobEnd, JobKey, JobSource, KnownJob, ScopeId,
};
use crate::terminal;

/// Maximum length of a repository's name, in bytes: 39 of the owner, 100 of the repository, and the slash.
pub(super) const MAX_REPOSITORY: usize = 140;
/// Maximum number of characters of a name that are kept.
pub(super) const MAX_NAME: usize = 128;
/// Maximum length of all labels together, in bytes.
pub(super) const MAX_LABELS: usize = 1024;

/// Content of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Delivery {
    /// GitHub's test of a new hook.
    Ping,
    /// Something about a job.
    Job(Box<KnownJob>),
    /// Something about a job of a repository that no scope of this host covers.
    OutsideScope,
    /// Something else.
    Ignored,
}

/// Reason for which a delivery cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    /// It is not the JSON of GitHub's description.
    #[error("the body is not a workflow_job event: {0}")]
    Json(#[from] serde_json::Error),
    /// The repository is not one.
    #[error("the repository's full_name is not OWNER/REPOSITORY")]
    Repository,
    /// The labels are too long.
    #[error("the job's labels are longer than {MAX_LABELS} bytes")]
    Labels,
}

#[derive(Deserialize)]
struct Payload {
    action: String,
    workflow_job: Job,
    repository: Repository,
    enterprise: Option<Enterprise>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Enterprise {
    slug: String,
}

#[derive(Deserialize)]
struct Job {
    id: u64,
    run_id: u64,
    /// Old servers do not send it.
    run_attempt: Option<u32>,
    status: Option<String>,
    conclusion: Option<String>,
    name: String,
    workflow_name: Option<String>,
    labels: Vec<String>,
    runner_name: Option<String>,
    created_at: Option<String>,
    started_at: Option<String>,
    completed_at: Option<String>,
}

/// Reads a delivery of `event`. `scopes` are those of this host, and `unix_ms` is the time of arrival.
pub(super) fn read(
    event: &str,
    body: &[u8],
    scopes: &[ScopeId],
    unix_ms: u64,
) -> Result<Delivery, Malformed> {
    match event {
        "ping" => return Ok(Delivery::Ping),
        "workflow_job" => {}
        _ => return Ok(Delivery::Ignored),
    }
    let Payload {
        action,
        workflow_job: job,
        repository: Repository {
            full_name: repository,
        },
        enterprise,
    } = serde_json::from_slice(body)?;
    let evidence = match action.as_str() {
        // The first delivery of a job that needs an approval is `queued`, too.
        "queued" if job.status.as_deref() == Some("waiting") => Evidence::Held,
        "queued" => Evidence::Queued,
        "waiting" => Evidence::Held,
        "in_progress" => Evidence::Started,
        "completed" => Evidence::Ended,
        _ => return Ok(Delivery::Ignored),
    };
    let is_name = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
    let is_repository = repository.len() <= MAX_REPOSITORY
        && repository
            .split_once('/')
            .is_some_and(|(owner, name)| is_name(owner) && is_name(name) && !name.contains('/'));
    if !is_repository {
        return Err(Malformed::Repository);
    }
    let enterprise = enterprise
        .as_ref()
        .map(|enterprise| enterprise.slug.as_str());
    let scope = scopes
        .iter()
        .find(|scope| scope.covers(&repository, enterprise));
    let Some(scope) = scope else {
        return Ok(Delivery::OutsideScope);
    };
    if job.labels.iter().map(String::len).sum::<usize>() > MAX_LABELS {
        return Err(Malformed::Labels);
    }
    Ok(Delivery::Job(Box::new(known(
        job,
        evidence,
        scope.clone(),
        repository,
        unix_ms,
    ))))
}

fn known(
    job: Job,
    evidence: Evidence,
    scope: ScopeId,
    repository: String,
    unix_ms: u64,
) -> KnownJob {
    let created = time(job.created_at.as_deref());
    let started = time(job.started_at.as_deref());
    let runner = job.runner_name.filter(|name| !name.is_empty());
    // GitHub's examples of `queued` name a runner, and an ended job without one was never started.
    let took_it = match evidence {
        Evidence::Held | Evidence::Queued => false,
        Evidence::Started => true,
        Evidence::Ended => runner.is_some(),
    };
    KnownJob {
        key: JobKey {
            scope,
            source: JobSource::Webhook,
            id: job.id,
        },
        attempt: job.run_attempt.unwrap_or(1),
        description: (
            evidence,
            JobDescription {
                repository,
                run_id: job.run_id,
                workflow: short(job.workflow_name.as_deref().unwrap_or_default()),
                name: short(&job.name),
                labels: job.labels.iter().map(|label| short(label)).collect(),
            },
        ),
        runner: (runner.filter(|_| took_it)).map(|name| (evidence, short(&name))),
        queued_unix_ms: created.or(started).unwrap_or(unix_ms),
        held: evidence == Evidence::Held,
        queued: evidence == Evidence::Queued,
        started_unix_ms: took_it.then(|| started.unwrap_or(unix_ms)),
        end: (evidence == Evidence::Ended).then(|| JobEnd {
            unix_ms: time(job.completed_at.as_deref()).unwrap_or(unix_ms),
            conclusion: job
                .conclusion
                .and_then(|text| text.parse().ok())
                .unwrap_or(Conclusion::Other),
        }),
    }
}

/// Returns a text without anything that a terminal obeys, and not longer than it needs to be.
fn short(text: &str) -> String {
    let start: String = text.chars().take(MAX_NAME).collect();
    terminal::plain(&start).chars().take(MAX_NAME).collect()
}

/// Returns a time of GitHub's, in milliseconds since 1970.
fn time(text: Option<&str>) -> Option<u64> {
    let time = humantime::parse_rfc3339_weak(text?).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pool::JobStage;

    /// GitHub's own examples of payloads (octokit/webhooks).
    const EXAMPLES: &str = include_str!("../../../github-sim/tests/webhooks/examples.json");

    fn scopes() -> Vec<ScopeId> {
        ["codertocat", "octo-org", "wolfy1339", "lineville"]
            .map(|owner| ScopeId::new("https://api.github.com", owner))
            .to_vec()
    }

    fn job(body: &Value) -> KnownJob {
        let body = serde_json::to_vec(body).unwrap();
        match read("workflow_job", &body, &scopes(), 7).unwrap() {
            Delivery::Job(job) => *job,
            other @ (Delivery::Ping | Delivery::OutsideScope | Delivery::Ignored) => {
                panic!("{other:?}")
            }
        }
    }

    fn example(action: &str, status: &str) -> Value {
        let examples: Value = serde_json::from_str(EXAMPLES).unwrap();
        let mut all = examples["workflow_job"].as_array().unwrap().iter();
        let found = all.find(|example| {
            example["action"] == action && example["workflow_job"]["status"] == status
        });
        found.unwrap().clone()
    }

    #[test]
    fn every_example_of_github_is_read() {
        let examples: Value = serde_json::from_str(EXAMPLES).unwrap();
        for example in examples["workflow_job"].as_array().unwrap() {
            let job = job(example);
            assert_eq!(job.key.id, example["workflow_job"]["id"]);
            assert!(job.queued_unix_ms > 1_600_000_000_000, "{example}");
        }
    }

    #[test]
    fn each_action_tells_the_stage_of_a_job() {
        for (action, status, stage) in [
            ("queued", "queued", JobStage::Queued),
            ("queued", "waiting", JobStage::Held),
            ("waiting", "waiting", JobStage::Held),
            ("in_progress", "in_progress", JobStage::Running),
            ("completed", "completed", JobStage::Ended),
        ] {
            let job = job(&example(action, status));
            assert_eq!(job.stage(), stage, "{action} {status}");
        }
        let queued = job(&example("queued", "queued"));
        assert_eq!(queued.runner(), None, "no runner has a queued job");
        let ended = job(&example("completed", "completed"));
        assert_eq!(ended.end.unwrap().conclusion, Conclusion::Failure);
        assert_eq!(ended.wait_ms(), Some(60_000));
    }

    #[test]
    fn a_job_that_was_cancelled_in_the_queue_never_started() {
        let mut body = example("completed", "completed");
        body["workflow_job"]["conclusion"] = "cancelled".into();
        for nobody in [Value::Null, "".into()] {
            body["workflow_job"]["runner_name"] = nobody;
            let job = job(&body);
            assert_eq!((job.started_unix_ms, job.runner()), (None, None));
            assert_eq!(job.end.unwrap().conclusion, Conclusion::Cancelled);
        }
    }

    #[test]
    fn other_events_actions_and_repositories_are_told_apart() {
        let read = |event: &str, body: &Value| {
            let body = serde_json::to_vec(body).unwrap();
            read(event, &body, &scopes(), 7).unwrap()
        };
        assert_eq!(read("ping", &json!({})), Delivery::Ping);
        assert_eq!(read("push", &json!({})), Delivery::Ignored);
        let mut body = example("queued", "queued");
        body["repository"]["full_name"] = "stranger/app".into();
        assert_eq!(read("workflow_job", &body), Delivery::OutsideScope);
        body["action"] = "renamed".into();
        assert_eq!(read("workflow_job", &body), Delivery::Ignored);
    }

    #[test]
    fn a_body_that_is_not_an_event_of_a_job_is_refused() {
        let mut long = example("queued", "queued");
        long["workflow_job"]["labels"] = json!(["x".repeat(1_025)]);
        let mut nameless = example("queued", "queued");
        nameless["repository"]["full_name"] = "Codertocat/a/b".into();
        for body in [
            json!(null),
            json!([]),
            json!({"action": "queued"}),
            long,
            nameless,
        ] {
            let body = serde_json::to_vec(&body).unwrap();
            assert!(read("workflow_job", &body, &scopes(), 7).is_err());
        }
    }

    #[test]
    fn text_of_a_job_cannot_control_a_terminal_and_is_bounded() {
        let mut body = example("queued", "queued");
        body["workflow_job"]["name"] = format!("\u{1b}[2J{}", "x".repeat(500)).into();
        body["workflow_job"]["labels"] = json!(["a\nb"]);
        let job = job(&body);
        let description = job.description();
        assert!(description.name.starts_with("\\u{1b}[2Jxx"));
        assert_eq!(description.name.len(), MAX_NAME);
        assert_eq!(description.labels, ["a\\u{a}b"]);
    }
}
