//! The parser of deliveries. Their text comes from GitHub and from authors of workflows.

use serde::Deserialize;

use crate::pool::{Evidence, KnownJob, ScopeId};
use crate::workflow_job::{LongLabels, WorkflowJob, is_repository};

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
    #[error(transparent)]
    Labels(#[from] LongLabels),
}

#[derive(Deserialize)]
struct Payload {
    action: String,
    workflow_job: WorkflowJob,
    repository: Repository,
    enterprise: Option<Enterprise>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
    /// Its address at the API of its server.
    #[serde(default)]
    url: String,
}

#[derive(Deserialize)]
struct Enterprise {
    slug: String,
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
            url,
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
    if !is_repository(&repository) {
        return Err(Malformed::Repository);
    }
    let enterprise = enterprise
        .as_ref()
        .map(|enterprise| enterprise.slug.as_str());
    let covering = || {
        let covers = |scope: &&ScopeId| scope.covers(&repository, enterprise);
        scopes.iter().filter(covers)
    };
    let scope = covering().find(|scope| is_at(scope, &url));
    // The host may reach the server by another name than GitHub writes, unless one of its scopes has that name.
    let is_known = scopes.iter().any(|scope| is_at(scope, &url));
    let scope = scope.or_else(|| covering().next().filter(|_| !is_known));
    let Some(scope) = scope else {
        return Ok(Delivery::OutsideScope);
    };
    let job = job.told(evidence, scope.clone(), repository, unix_ms)?;
    Ok(Delivery::Job(Box::new(job)))
}

/// Returns true if an address is one of the scope's API.
fn is_at(scope: &ScopeId, url: &str) -> bool {
    let (api_url, _) = scope.parts();
    let start = url.get(..api_url.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(api_url))
        && url[api_url.len()..].starts_with('/')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pool::{Conclusion, JobStage};

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
    fn repositories_of_one_name_on_two_servers_are_told_apart() {
        let at = |api: &str| ScopeId::new(api, "codertocat/hello-world");
        let both = ["https://api.github.com", "https://ghes.example/api/v3"].map(at);
        let scope_of = |scopes: &[ScopeId], url: &str| {
            let mut body = example("queued", "queued");
            body["repository"]["url"] = url.into();
            let body = serde_json::to_vec(&body).unwrap();
            match read("workflow_job", &body, scopes, 7).unwrap() {
                Delivery::Job(job) => Some(job.key.scope),
                Delivery::OutsideScope => None,
                other @ (Delivery::Ping | Delivery::Ignored) => panic!("{other:?}"),
            }
        };
        let github = "https://API.github.com/repos/Codertocat/Hello-World";
        let ghes = "https://ghes.example/api/v3/repos/Codertocat/Hello-World";
        assert_eq!(scope_of(&both, github).as_ref(), Some(&both[0]));
        assert_eq!(scope_of(&both, ghes).as_ref(), Some(&both[1]));
        let other = ScopeId::new("https://api.github.com", "acme");
        let scopes = [both[1].clone(), other];
        assert_eq!(scope_of(&scopes, github), None, "another server's");
        // GitHub writes a name of its server that the configuration does not have.
        assert_eq!(scope_of(&both[1..], github).as_ref(), Some(&both[1]));
        assert_eq!(scope_of(&both, "").as_ref(), Some(&both[0]));
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
}
