//! A server, a client, and listeners.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses a part of this, and tests may panic"
)]

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};

use github_sim::{
    APP_KEY, Control, GitHubApp, JobState, JobView, RunnerView, Server, ServerHandle,
    ServerOptions, Settings,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::Method;

/// Timeout for everything in these tests, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Sim {
    handle: ServerHandle,
    /// Declared after the server, because the server is dropped first and needs it.
    runtime: tokio::runtime::Runtime,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Sim {
    pub(crate) fn start() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::from_options(ServerOptions {
            settings,
            ..ServerOptions::default()
        })
    }

    /// Starts a server on an address that no other test uses.
    pub(crate) fn alone(address: Ipv4Addr) -> Self {
        Self::from_options(ServerOptions {
            listen: vec![(address, 0).into()],
            ..ServerOptions::default()
        })
    }

    pub(crate) fn from_options(options: ServerOptions) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let options = ServerOptions {
            app: Some(GitHubApp::example()),
            ..options
        };
        let handle = runtime.block_on(Server::start(options)).unwrap();
        Self { handle, runtime }
    }

    pub(crate) fn control(&self) -> &Control {
        self.handle.control()
    }

    pub(crate) fn url(&self) -> &str {
        self.handle.url()
    }

    pub(crate) fn token(&self) -> &str {
        self.handle.token()
    }

    /// Ends the server, and returns its runtime: a test that drops it ends all tasks, too.
    pub(crate) fn end(self) -> tokio::runtime::Runtime {
        drop(self.handle);
        self.runtime
    }

    /// Makes a call with all headers that GitHub asks for.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let text = body.map(ToString::to_string);
        self.call_with(method, path, &[], text.as_deref()).unwrap()
    }

    /// Makes a call with headers added, replaced, or (if empty) left out.
    pub(crate) fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Result<Answer, ureq::Error> {
        let bearer = format!("Bearer {}", self.handle.token());
        let mut all = HashMap::from([
            ("accept", "application/vnd.github+json"),
            ("authorization", &bearer),
            ("user-agent", "github-sim-tests"),
            ("x-github-api-version", "2022-11-28"),
        ]);
        all.extend(headers.iter().copied());
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(PATIENCE))
            .user_agent(all["user-agent"])
            .accept(all["accept"])
            .build()
            .into();
        let mut request = ureq::http::Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{path}", self.url()));
        for (name, value) in all {
            if !value.is_empty() && !matches!(name, "user-agent" | "accept") {
                request = request.header(name, value);
            }
        }
        let answer = match body {
            Some(body) => agent.run(request.body(body.to_owned()).unwrap())?,
            None => agent.run(request.body(()).unwrap())?,
        };
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        Ok(Answer {
            status: answer.status().as_u16(),
            headers,
            text: answer
                .into_body()
                .into_with_config()
                .limit(100 << 20)
                .read_to_string()?,
        })
    }

    pub(crate) fn mint(&self, name: &str, labels: &[&str]) -> Answer {
        let body =
            json!({"name": name, "runner_group_id": 1, "labels": labels, "work_folder": "_work"});
        self.call(
            "POST",
            "/orgs/acme/actions/runners/generate-jitconfig",
            Some(&body),
        )
    }

    /// Mints a runner and starts a listener for it.
    pub(crate) fn listener(&self, name: &str, env: &[(&str, &str)]) -> Listener {
        let minted = self.mint(name, &["ci"]).json();
        let blob = minted["encoded_jit_config"].as_str().unwrap();
        Listener::start(minted["runner"]["id"].as_u64().unwrap(), blob, env)
    }

    pub(crate) fn wait<T>(&self, what: &str, look: impl FnMut(&Control) -> Option<T>) -> T {
        self.runtime
            .block_on(self.control().wait_for(PATIENCE, look))
            .unwrap_or_else(|| {
                panic!(
                    "{what}: never; last seen {:#?}\n{:#?}",
                    self.control().jobs(),
                    self.control().runners()
                )
            })
    }

    pub(crate) fn wait_online(&self, id: u64) {
        self.wait("runner online", |control| {
            runner(control, id).filter(|runner| runner.online)
        });
    }

    pub(crate) fn wait_job(&self, id: u64, status: JobState) -> JobView {
        self.wait("job status", |control| {
            control.job(id).filter(|job| job.status == status)
        })
    }
}

pub(crate) fn runner(control: &Control, id: u64) -> Option<RunnerView> {
    control.runners().into_iter().find(|runner| runner.id == id)
}

/// Waits until a file exists.
pub(crate) fn wait_for_file(path: &Path) {
    let since = Instant::now();
    while !path.exists() {
        assert!(since.elapsed() < PATIENCE, "{} is missing", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A stand-in listener with its own root.
pub(crate) struct Listener {
    pub(crate) id: u64,
    pub(crate) root: TempDir,
    child: Child,
}

impl Listener {
    pub(crate) fn start(id: u64, blob: &str, env: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let out = std::fs::File::create(root.path().join("out")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_standin-listener"))
            .args(["run", "--startuptype", "service"])
            .env("RUNNER_ROOT", root.path())
            // A machine that builds may lack libicu.
            .env("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
            .env("RUNNER_ALLOW_RUNASROOT", "1")
            .env("ACTIONS_RUNNER_INPUT_JITCONFIG", blob)
            .env("STANDIN_BACKOFF_MS", "20")
            .env("STANDIN_SPEED", "20")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { id, root, child }
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.root.path().join("out")).unwrap()
    }

    /// Waits for the listener's end and returns its exit code.
    pub(crate) fn code(&mut self) -> i32 {
        self.end().code().unwrap()
    }

    /// Waits for the listener's end and returns the number of the signal that ended it.
    pub(crate) fn end_signal(&mut self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.end())
    }

    fn end(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "listener still runs: {}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns unix time in seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Returns a JWT that the App signed.
pub(crate) fn app_jwt_of(header: &Value, claims: &Value) -> String {
    let der = BASE64_STANDARD
        .decode(
            APP_KEY
                .lines()
                .filter(|line| !line.starts_with('-'))
                .collect::<String>(),
        )
        .unwrap();
    let pair = RsaKeyPair::from_der(&der).unwrap();
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// Returns a JWT that the App's endpoints accept.
pub(crate) fn app_jwt() -> String {
    let claims = json!({"iss": "123456", "iat": now() - 60, "exp": now() + 540});
    app_jwt_of(&json!({"alg": "RS256", "typ": "JWT"}), &claims)
}
