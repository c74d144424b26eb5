//! A receiver of deliveries.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use github_sim::{HookSpec, HookTarget, JobSpec};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::common::{PATIENCE, Sim};

pub(super) const SECRET: &str = "It's a Secret to Everybody";

/// A delivery as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Received {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Tells whether the signature is that of the body under the secret.
    pub(super) fn is_signed(&self) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(self.body.as_bytes());
        let own = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        self.header("x-hub-signature-256") == own
    }

    /// Returns action and status.
    pub(super) fn told(&self) -> (String, String) {
        let body = self.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&body["action"]), text(&body["workflow_job"]["status"]))
    }
}

/// A server that records every delivery and answers it with one status.
pub(super) struct Receiver {
    pub(super) url: String,
    all: Arc<(Mutex<Vec<Received>>, Condvar)>,
    status: Arc<AtomicU16>,
}

impl Receiver {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let receiver = Self {
            url: format!("http://{}/hook", listener.local_addr().unwrap()),
            all: Arc::default(),
            status: Arc::new(AtomicU16::new(202)),
        };
        let (all, status) = (Arc::clone(&receiver.all), Arc::clone(&receiver.status));
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut reader = BufReader::new(connection.try_clone().unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                assert!(line.starts_with("POST /hook "), "{line}");
                let mut headers = BTreeMap::new();
                loop {
                    line.clear();
                    reader.read_line(&mut line).unwrap();
                    let Some((name, value)) = line.split_once(':') else {
                        break;
                    };
                    headers.insert(name.to_lowercase(), value.trim().to_owned());
                }
                let mut body = vec![0; headers["content-length"].parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                let body = String::from_utf8(body).unwrap();
                all.0.lock().unwrap().push(Received { headers, body });
                let code = status.load(Ordering::SeqCst);
                let answer = format!(
                    "HTTP/1.1 {code} Status\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
                );
                connection.write_all(answer.as_bytes()).unwrap();
                all.1.notify_all();
            }
        });
        receiver
    }

    /// Answers further deliveries with `status`.
    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Waits for so many deliveries, and returns all of them.
    pub(super) fn wait(&self, count: usize) -> Vec<Received> {
        let all = self.all.0.lock().unwrap();
        let fewer = |all: &mut Vec<Received>| all.len() < count;
        let (all, _) = self.all.1.wait_timeout_while(all, PATIENCE, fewer).unwrap();
        assert!(all.len() >= count, "{} of {count}: {all:#?}", all.len());
        all.clone()
    }

    /// Adds a hook of a scope, and takes its `ping`.
    pub(super) fn hook(&self, sim: &Sim, scope: &str) -> u64 {
        let target = HookTarget::Scope(scope.parse().unwrap());
        self.add(sim, target)
    }

    /// Adds a hook, and takes its `ping`.
    pub(super) fn add(&self, sim: &Sim, target: HookTarget) -> u64 {
        let before = self.all.0.lock().unwrap().len();
        let id = sim
            .control()
            .add_hook(HookSpec::new(target, &self.url, SECRET));
        self.wait(before + 1);
        settle(sim);
        self.all.0.lock().unwrap().clear();
        id
    }
}

/// Waits until every delivery has a result.
pub(super) fn settle(sim: &Sim) {
    sim.wait("results", |control| {
        let all = control.deliveries();
        let done = all.iter().all(|delivery| delivery.code.is_some());
        done.then_some(())
    });
}

pub(super) fn job(name: &str) -> JobSpec {
    JobSpec::new(name, &["ci"], "true")
}

/// Returns action and status of each delivery.
pub(super) fn told(all: &[Received]) -> Vec<(String, String)> {
    all.iter().map(Received::told).collect()
}

/// Returns pairs of texts as [`told`] does.
pub(super) fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter()
        .map(|(action, status)| ((*action).into(), (*status).into()))
        .collect()
}
