//! The job message: GitHub's answer to `acquirejob`.
//!
//! [`write`] builds it with GitHub's encodings, complete enough for GitHub's own worker. A stand-in listener
//! reads it with [`JobMessage::read`], which refuses a message that GitHub's listener or worker refuses.
//!
//! Two encodings occur. Template tokens are scalars, or objects with a `type`: 1 for a sequence, 2 for a
//! mapping. Context data are scalars, or objects with a `t`: 1 for an array, 2 for a dictionary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    view::{JobContainer, JobSpec},
    wire::{JobStep, ListenerFaults},
};

/// Type of the message. With another type, GitHub's listener calls services that no longer exist.
const MESSAGE_TYPE: &str = "RunnerJobRequest";
/// Name of the endpoint that a job reports to.
const REPORT_ENDPOINT: &str = "SystemVssConnection";
/// Variable with the faults of a stand-in listener. GitHub's worker ignores unknown variables.
const FAULTS_VARIABLE: &str = "standin.listener_faults";

/// A job message, as a stand-in listener uses it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobMessage {
    /// Value that `renewjob` and `completejob` return.
    pub plan_id: String,
    /// UUID of the job.
    pub job_id: String,
    /// Name of the job.
    pub job_display_name: String,
    /// Base URL for reports; ends in a slash.
    pub report_url: String,
    /// Token for reports.
    pub access_token: String,
    /// Texts of the `github` context: `repository`, `run_id`, …
    pub github: BTreeMap<String, String>,
    /// `env` of the job.
    pub environment_variables: BTreeMap<String, String>,
    /// Steps in their order.
    pub steps: Vec<JobStep>,
    /// True if the job needs containers, which a stand-in listener does not run.
    pub needs_containers: bool,
    /// Faults of the stand-in listener.
    pub listener_faults: ListenerFaults,
}

/// Part of a job message that is missing or has another form than GitHub's listener and worker read.
#[derive(Debug, thiserror::Error)]
#[error("the job message has no usable {0}")]
pub struct JobMessageError(&'static str);

/// Values of a job message that are not in the job's specification.
pub(crate) struct JobMessageParts<'a> {
    pub(crate) spec: &'a JobSpec,
    pub(crate) job_id: &'a str,
    pub(crate) plan_id: &'a str,
    pub(crate) token: &'a str,
    /// Base URL of the server, without a slash at the end.
    pub(crate) server_url: &'a str,
    /// Base URL for reports; ends in a slash.
    pub(crate) report_url: &'a str,
    /// End of the job's lock, RFC 3339.
    pub(crate) locked_until: &'a str,
    /// Texts of the `github` context.
    pub(crate) github: &'a BTreeMap<String, String>,
}

/// Returns the job message in GitHub's form.
pub(crate) fn write(parts: &JobMessageParts<'_>) -> Value {
    let spec = parts.spec;
    let mut variables = json!({
        "system.github.token": {"value": crate::random::secret("ghs"), "isSecret": true},
        "system.github.job": {"value": spec.name},
        "system.runnerEnvironment": {"value": "self-hosted"},
        "system.github.results_endpoint": {"value": format!("{}/", parts.server_url)},
    });
    if spec.listener_faults != ListenerFaults::default() {
        let faults = serde_json::to_string(&spec.listener_faults).unwrap_or_default();
        variables[FAULTS_VARIABLE] = json!({"value": faults});
    }
    let mut github: Vec<Value> = parts.github.iter().map(context_entry).collect();
    github.push(json!({"k": "event", "v": {"t": 2, "d": []}}));
    json!({
        "messageType": MESSAGE_TYPE,
        "plan": {
            "scopeIdentifier": crate::random::uuid(),
            "planType": "actions",
            "version": 9,
            "planId": parts.plan_id,
            "planGroup": "free",
            "definition": {"id": 1, "name": "ci"},
            "owner": {"id": 1, "name": "1"},
        },
        "timeline": {"id": crate::random::uuid(), "changeId": 1, "location": null},
        "jobId": parts.job_id,
        "jobDisplayName": spec.name,
        "jobName": spec.name,
        "requestId": 1,
        "lockedUntil": parts.locked_until,
        "resources": {"endpoints": [{
            "name": REPORT_ENDPOINT,
            "url": parts.report_url,
            "authorization": {"scheme": "OAuth", "parameters": {"AccessToken": parts.token}},
            "data": {},
        }]},
        "variables": variables,
        "mask": [],
        "fileTable": [".github/workflows/ci.yml"],
        "jobContainer": spec.container.as_ref().map(container_token),
        "jobServiceContainers": (!spec.services.is_empty()).then(|| {
            mapping(spec.services.iter().map(|(name, service)| (name.as_str(), container_token(service))))
        }),
        "jobOutputs": null,
        "environmentVariables": if spec.env.is_empty() { vec![] } else { vec![texts(&spec.env)] },
        "defaults": [],
        "workspace": null,
        "actionsEnvironment": null,
        "contextData": {
            "github": {"t": 2, "d": github},
            "needs": {"t": 2, "d": []},
            "strategy": null,
            "matrix": null,
            "inputs": null,
            "vars": {"t": 2, "d": []},
        },
        "steps": spec.steps.iter().enumerate().map(step).collect::<Vec<_>>(),
    })
}

fn context_entry((key, value): (&String, &String)) -> Value {
    json!({"k": key, "v": value})
}

fn step((number, step): (usize, &JobStep)) -> Value {
    // GitHub's names of steps without an id: __run, __run_2, …
    let name = match number {
        0 => "__run".to_owned(),
        _ => format!("__run_{}", number + 1),
    };
    json!({
        "type": "action",
        "id": crate::random::uuid(),
        "name": name,
        "contextName": name,
        "enabled": true,
        "condition": "success()",
        "displayNameToken": step.name,
        "reference": {"type": "script"},
        "inputs": mapping([
            ("script", Value::from(step.run.as_str())),
            // Without it, a failure inside a pipe is not the script's.
            ("shell", Value::from("bash")),
        ]),
    })
}

fn container_token(container: &JobContainer) -> Value {
    let mut entries = vec![("image", Value::from(container.image.as_str()))];
    if !container.env.is_empty() {
        entries.push(("env", texts(&container.env)));
    }
    for (key, values) in [("ports", &container.ports), ("volumes", &container.volumes)] {
        if !values.is_empty() {
            entries.push((key, json!({"type": 1, "seq": values})));
        }
    }
    if let Some(options) = &container.options {
        entries.push(("options", Value::from(options.as_str())));
    }
    mapping(entries)
}

fn texts(values: &BTreeMap<String, String>) -> Value {
    mapping(
        values
            .iter()
            .map(|(key, value)| (key.as_str(), Value::from(value.as_str()))),
    )
}

fn mapping<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let entries: Vec<Value> = entries
        .into_iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    json!({"type": 2, "map": entries})
}

impl JobMessage {
    /// Reads the answer to `acquirejob`. Fails where GitHub's listener or worker fails.
    pub fn read(message: &Value) -> Result<Self, JobMessageError> {
        if message["messageType"] != MESSAGE_TYPE {
            return Err(JobMessageError("messageType"));
        }
        let text = |pointer: &str, part| {
            let value = message.pointer(pointer).and_then(Value::as_str);
            value
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
                .ok_or(JobMessageError(part))
        };
        text("/timeline/id", "timeline")?;
        if !message["fileTable"].is_array() {
            return Err(JobMessageError("fileTable"));
        }
        let endpoint = message["resources"]["endpoints"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["name"] == REPORT_ENDPOINT))
            .ok_or(JobMessageError("endpoint SystemVssConnection"))?;
        let report_url = endpoint["url"]
            .as_str()
            .filter(|url| url.ends_with('/'))
            .ok_or(JobMessageError("URL for reports"))?;
        let access_token = endpoint["authorization"]["parameters"]["AccessToken"]
            .as_str()
            .filter(|token| token.split('.').count() == 3)
            .ok_or(JobMessageError("AccessToken"))?;
        let github = dictionary(&message["contextData"]["github"])
            .filter(|github| github.contains_key("repository"))
            .ok_or(JobMessageError("github context"))?;
        let variables = message["variables"]
            .as_object()
            .ok_or(JobMessageError("variables"))?;
        let listener_faults = variables
            .get(FAULTS_VARIABLE)
            .map(|faults| {
                let text = faults["value"].as_str().unwrap_or_default();
                serde_json::from_str(text).map_err(|_| JobMessageError("listener faults"))
            })
            .transpose()?
            .unwrap_or_default();
        let mut environment_variables = BTreeMap::new();
        for token in list(message, "environmentVariables")? {
            environment_variables
                .extend(text_map(token).ok_or(JobMessageError("environmentVariables"))?);
        }
        let steps = list(message, "steps")?
            .iter()
            .map(|step| read_step(step).ok_or(JobMessageError("steps")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            plan_id: text("/plan/planId", "plan")?,
            job_id: text("/jobId", "jobId")?,
            job_display_name: text("/jobDisplayName", "jobDisplayName")?,
            report_url: report_url.into(),
            access_token: access_token.into(),
            github,
            environment_variables,
            steps,
            needs_containers: !message["jobContainer"].is_null()
                || !message["jobServiceContainers"].is_null(),
            listener_faults,
        })
    }
}

fn list<'a>(message: &'a Value, part: &'static str) -> Result<&'a Vec<Value>, JobMessageError> {
    message[part].as_array().ok_or(JobMessageError(part))
}

/// Returns the texts of a context dictionary.
fn dictionary(value: &Value) -> Option<BTreeMap<String, String>> {
    let entries = value["d"].as_array().filter(|_| value["t"] == 2)?;
    let texts = entries.iter().filter_map(|entry| {
        let (key, value) = (entry["k"].as_str()?, entry["v"].as_str()?);
        Some((key.to_owned(), value.to_owned()))
    });
    Some(texts.collect())
}

/// Returns a mapping token whose values are texts.
fn text_map(token: &Value) -> Option<BTreeMap<String, String>> {
    let entries = token["map"].as_array().filter(|_| token["type"] == 2)?;
    entries
        .iter()
        .map(|entry| {
            let (key, value) = (entry["Key"].as_str()?, entry["Value"].as_str()?);
            Some((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn read_step(step: &Value) -> Option<JobStep> {
    if step["type"] != "action" || step["reference"]["type"] != "script" {
        return None;
    }
    Some(JobStep {
        name: step["displayNameToken"].as_str()?.into(),
        run: text_map(&step["inputs"])?.remove("script")?,
    })
}
