//! A client that speaks the protocol.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use github_sim::{
    JobSpec, Settings, SignatureAlgorithm, client_assertion, jit_config, wire::RsaParametersFile,
};
use serde_json::{Value, json};

use crate::common::{Answer, Sim};

pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub(super) const JSON: (&str, &str) = ("content-type", "application/json");

/// A client that knows its JIT config and nothing else.
pub(super) struct Client<'a> {
    pub(super) sim: &'a Sim,
    pub(super) id: u64,
    pub(super) settings: Value,
    pub(super) credentials: Value,
    pub(super) key: RsaParametersFile,
    pub(super) token: String,
    pub(super) session: String,
}

pub(super) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

impl<'a> Client<'a> {
    /// Mints a runner and reads its JIT config.
    pub(super) fn mint(sim: &'a Sim, name: &str) -> Self {
        let minted = sim.mint(name, &["ci"]).json();
        let files = jit_config::decode(minted["encoded_jit_config"].as_str().unwrap()).unwrap();
        Self {
            sim,
            id: minted["runner"]["id"].as_u64().unwrap(),
            settings: serde_json::from_slice(&files[".runner"]).unwrap(),
            credentials: serde_json::from_slice(&files[".credentials"]).unwrap(),
            key: serde_json::from_slice(&files[".credentials_rsaparams"]).unwrap(),
            token: String::new(),
            session: String::new(),
        }
    }

    /// Mints a runner, gets a token, opens a session, and polls once, which makes the runner online.
    pub(super) fn connected(sim: &'a Sim, name: &str) -> Self {
        let mut client = Self::mint(sim, name);
        client.token = client.ask_token(SignatureAlgorithm::Rs256, |_| ()).json()["access_token"]
            .as_str()
            .unwrap()
            .into();
        client.session = client.open_session().json()["sessionId"]
            .as_str()
            .unwrap()
            .into();
        client
    }

    /// Makes a call at an absolute URL with a bearer token.
    pub(super) fn call(
        &self,
        method: &str,
        url: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Answer {
        let path = url.strip_prefix(self.sim.url()).unwrap();
        let bearer = format!("Bearer {token}");
        let text = body.map(ToString::to_string);
        let headers = [("authorization", bearer.as_str()), JSON];
        self.sim
            .call_with(method, path, &headers, text.as_deref())
            .unwrap()
    }

    /// Asks for a token with a form that `change` has changed.
    pub(super) fn ask_token(
        &self,
        algorithm: SignatureAlgorithm,
        change: impl FnOnce(&mut BTreeMap<&'static str, String>),
    ) -> Answer {
        let data = &self.credentials["Data"];
        let url = data["authorizationUrl"].as_str().unwrap();
        let client = data["clientId"].as_str().unwrap();
        let assertion = client_assertion::sign(client, url, &self.key, algorithm, now()).unwrap();
        let mut form = BTreeMap::from([
            ("grant_type", "client_credentials".to_owned()),
            ("client_assertion_type", ASSERTION_TYPE.to_owned()),
            ("client_assertion", assertion),
        ]);
        change(&mut form);
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&form)
            .finish();
        let headers = [
            ("authorization", ""),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let path = url.strip_prefix(self.sim.url()).unwrap();
        self.sim
            .call_with("POST", path, &headers, Some(&body))
            .unwrap()
    }

    pub(super) fn broker(&self) -> &str {
        self.settings["ServerUrlV2"].as_str().unwrap()
    }

    pub(super) fn open_session(&self) -> Answer {
        let body = json!({
            "sessionId": "00000000-0000-0000-0000-000000000000",
            "ownerName": "host (PID: 7)",
            "agent": {"id": self.id, "name": self.settings["AgentName"], "version": "2.336.0", "osDescription": "Linux"},
            "useFipsEncryption": false,
        });
        let url = format!("{}session", self.broker());
        self.call("POST", &url, &self.token, Some(&body))
    }

    pub(super) fn query(&self, status: &str) -> String {
        format!(
            "sessionId={}&status={status}&runnerVersion=2.336.0&os=Linux&architecture=X64&disableUpdate=true",
            self.session
        )
    }

    pub(super) fn poll(&self, status: &str) -> Answer {
        let url = format!("{}message?{}", self.broker(), self.query(status));
        self.call("GET", &url, &self.token, None)
    }

    /// Polls until a job is offered, and returns the body of the message.
    pub(super) fn offer(&self) -> Value {
        let message = self.poll("Online");
        assert_eq!(message.status, 200, "{}", message.text);
        let message = message.json();
        assert_eq!(message["messageType"], "RunnerJobRequest");
        serde_json::from_str(message["body"].as_str().unwrap()).unwrap()
    }

    pub(super) fn acquire(&self, offer: &Value) -> Answer {
        let base = offer["run_service_url"].as_str().unwrap();
        let body = json!({
            "jobMessageId": offer["runner_request_id"],
            "runnerOS": "Linux",
            "billingOwnerId": offer["billing_owner_id"],
        });
        self.call(
            "POST",
            &format!("{base}acquirejob"),
            &self.token,
            Some(&body),
        )
    }

    /// Makes a call of the run service about a job.
    pub(super) fn report(&self, job: &Value, verb: &str, more: &Value) -> Answer {
        let mut body = json!({"planId": job["plan"]["planId"], "jobId": job["jobId"]});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let endpoint = &job["resources"]["endpoints"][0];
        let url = format!("{}{verb}", endpoint["url"].as_str().unwrap());
        self.call("POST", &url, job_token(job), Some(&body))
    }

    /// Makes a call of the results service about a job.
    pub(super) fn results(&self, job: &Value, method: &str, more: &Value) -> Answer {
        let mut body = json!({
            "workflow_run_backend_id": job["plan"]["planId"],
            "workflow_job_run_backend_id": job["jobId"],
        });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        let base = &job["variables"]["system.github.results_endpoint"]["value"];
        let url = format!("{}twirp/{method}", base.as_str().unwrap());
        self.call("POST", &url, job_token(job), Some(&body))
    }
}

pub(super) fn job_token(job: &Value) -> &str {
    job["resources"]["endpoints"][0]["authorization"]["parameters"]["AccessToken"]
        .as_str()
        .unwrap()
}

/// Returns the claims of a token that has the form of a JWT.
pub(super) fn claims(token: &str) -> Value {
    let parts: Vec<_> = token.split('.').collect();
    assert_eq!(parts.len(), 3, "{token}");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap()
}

/// Polls are answered at once, so that a test need not wait.
pub(super) fn quick() -> Sim {
    Sim::with(Settings {
        poll_hold_ms: 100,
        ..Settings::default()
    })
}

/// Queues a job and has a connected client acquire it. Returns the id and the job message.
pub(super) fn running(sim: &Sim, spec: JobSpec) -> (Client<'_>, u64, Value) {
    let client = Client::connected(sim, "r1");
    let id = sim.control().add_job(spec);
    let offer = client.offer();
    let job = client.acquire(&offer);
    assert_eq!(job.status, 200, "{}", job.text);
    (client, id, job.json())
}

pub(super) fn simple() -> JobSpec {
    JobSpec::new("build", &["ci"], "echo hello")
}
