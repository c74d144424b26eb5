//! A client of scale sets.

use github_sim::{JobSpec, ScaleSetSettings, Settings};
use serde_json::{Value, json};

use crate::common::{Answer, Sim};

pub(super) const SETS: &str = "/_apis/runtime/runnerscalesets";
pub(super) const AGENTS: &str = "/_apis/distributedtask/pools/0/agents";
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");
pub(super) const VERSION: &str = "api-version=6.0-preview";

/// Settings in which an empty poll ends at once.
pub(super) fn quick() -> Settings {
    with(|_| ())
}

/// Settings in which an empty poll ends at once, after a change.
pub(super) fn with(change: impl FnOnce(&mut ScaleSetSettings)) -> Settings {
    let mut settings = Settings::default();
    settings.scale_sets.poll_hold_ms = vec![0];
    change(&mut settings.scale_sets);
    settings
}

pub(super) fn job(name: &str) -> JobSpec {
    JobSpec::new(name, &["ci"], "true")
}

/// A client with an admin token of one scope.
pub(super) struct Client<'a> {
    pub(super) sim: &'a Sim,
    pub(super) token: String,
}

impl<'a> Client<'a> {
    /// Gets a registration token, and an admin token for it.
    pub(super) fn connected(sim: &'a Sim, scope: &str) -> Self {
        let registration = registration_token(sim, scope);
        let answer = exchange(sim, &format!("RemoteAuth {registration}"), scope);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let body = answer.json();
        assert_eq!(body["url"], format!("{}/rest", sim.url()));
        Self {
            sim,
            token: body["token"].as_str().unwrap().into(),
        }
    }

    /// Makes a call with the version.
    pub(super) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let sign = if path.contains('?') { '&' } else { '?' };
        self.bare(method, &format!("/rest{path}{sign}{VERSION}"), body)
    }

    /// Makes a call at a path of the server, with the admin token.
    pub(super) fn bare(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let text = body.map(ToString::to_string);
        let headers = [("authorization", bearer.as_str()), JSON];
        self.sim
            .call_with(method, path, &headers, text.as_deref())
            .unwrap()
    }

    /// Creates a set in the default group with these labels.
    pub(super) fn create(&self, name: &str, labels: &[&str]) -> u64 {
        let labels: Vec<Value> = labels
            .iter()
            .map(|name| json!({"name": name, "type": "System"}))
            .collect();
        let body = json!({"name": name, "runnerGroupId": 1, "labels": labels});
        let answer = self.call("POST", SETS, Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["id"].as_u64().unwrap()
    }

    pub(super) fn try_open(&self, set: u64) -> Answer {
        let body = json!({"sessionId": "00000000-0000-0000-0000-000000000000", "ownerName": "h"});
        self.call("POST", &format!("{SETS}/{set}/sessions"), Some(&body))
    }

    pub(super) fn open(&self, set: u64) -> Session<'a> {
        let answer = self.try_open(set);
        assert_eq!(answer.status, 200, "{}", answer.text);
        Session::of(self.sim, set, &answer.json())
    }

    pub(super) fn mint(&self, set: u64, name: &str) -> Answer {
        let body = json!({"name": name, "workFolder": "_work"});
        self.call(
            "POST",
            &format!("{SETS}/{set}/generatejitconfig"),
            Some(&body),
        )
    }

    /// Returns the set as the service shows it.
    pub(super) fn set(&self, set: u64) -> Value {
        let answer = self.call("GET", &format!("{SETS}/{set}"), None);
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }
}

/// A session of a set.
pub(super) struct Session<'a> {
    pub(super) sim: &'a Sim,
    pub(super) set: u64,
    pub(super) id: String,
    pub(super) url: String,
    pub(super) token: String,
}

impl<'a> Session<'a> {
    pub(super) fn of(sim: &'a Sim, set: u64, body: &Value) -> Self {
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        Self {
            sim,
            set,
            id: text("sessionId"),
            url: text("messageQueueUrl"),
            token: text("messageQueueAccessToken"),
        }
    }

    pub(super) fn path(&self) -> String {
        format!("{SETS}/{}/sessions/{}", self.set, self.id)
    }

    pub(super) fn poll(&self, cursor: u64, capacity: u64) -> Answer {
        let capacity = capacity.to_string();
        let headers = [("x-scalesetmaxcapacity", capacity.as_str())];
        self.poll_with(&cursor.to_string(), &headers)
    }

    pub(super) fn poll_with(&self, cursor: &str, headers: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![
            ("authorization", bearer.as_str()),
            ("accept", "application/json; api-version=6.0-preview"),
        ];
        all.extend(headers);
        let path = self.url.strip_prefix(self.sim.url()).unwrap();
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = if cursor == "0" {
            path.to_owned()
        } else {
            format!("{path}{sign}lastMessageId={cursor}")
        };
        self.sim.call_with("GET", &path, &all, None).unwrap()
    }

    /// Polls, and returns id and items of the message.
    pub(super) fn message(&self, cursor: u64, capacity: u64) -> (u64, Vec<Value>) {
        let answer = self.poll(cursor, capacity);
        assert_eq!(answer.status, 200, "{}", answer.text);
        read(&answer)
    }

    /// Deletes a message. The id goes to the end of the path, and a query stays.
    pub(super) fn delete(&self, message: u64) -> Answer {
        let path = self.url.strip_prefix(self.sim.url()).unwrap();
        let path = match path.split_once('?') {
            Some((path, query)) => format!("{path}/{message}?{query}"),
            None => format!("{path}/{message}"),
        };
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", bearer.as_str()), JSON];
        self.sim.call_with("DELETE", &path, &headers, None).unwrap()
    }

    /// Polls and deletes until the queue is empty. Returns all items.
    pub(super) fn drain(&self, capacity: u64) -> Vec<Value> {
        let mut all = vec![];
        loop {
            let answer = self.poll(0, capacity);
            if answer.status == 202 {
                return all;
            }
            let (id, items) = read(&answer);
            assert_eq!(self.delete(id).status, 204);
            all.extend(items);
        }
    }
}

/// Returns id and items of a message.
pub(super) fn read(answer: &Answer) -> (u64, Vec<Value>) {
    let body = answer.json();
    assert_eq!(body["messageType"], "RunnerScaleSetJobMessages");
    let items = serde_json::from_str(body["body"].as_str().unwrap()).unwrap();
    (body["messageId"].as_u64().unwrap(), items)
}

/// Returns kind and job name of each item.
pub(super) fn told(items: &[Value]) -> Vec<(&str, &str)> {
    items
        .iter()
        .map(|item| {
            (
                item["messageType"].as_str().unwrap(),
                item["jobDisplayName"].as_str().unwrap(),
            )
        })
        .collect()
}

pub(super) fn kind(answer: &Answer) -> String {
    answer.json()["typeKey"].as_str().unwrap().to_owned()
}

pub(super) fn registration_token(sim: &Sim, scope: &str) -> String {
    let prefix = if scope.contains('/') { "repos" } else { "orgs" };
    let path = format!("/{prefix}/{scope}/actions/runners/registration-token");
    let answer = sim.call("POST", &path, None);
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["token"].as_str().unwrap().to_owned()
}

/// Asks for an admin token.
pub(super) fn exchange(sim: &Sim, authorization: &str, scope: &str) -> Answer {
    let body = json!({"url": format!("{}/{scope}", sim.url()), "runner_event": "register"});
    let headers = [("authorization", authorization), JSON];
    let path = "/actions/runner-registration";
    sim.call_with("POST", path, &headers, Some(&body.to_string()))
        .unwrap()
}
