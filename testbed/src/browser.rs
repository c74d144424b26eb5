//! A real browser on the test host's network: Chromium, driven over the W3C's `WebDriver` protocol, which is JSON over
//! HTTP.

use std::fs::{File, create_dir_all, write};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::host::TestHost;
use crate::packages::tools;
use crate::wait::{Seen, wait_until};

/// Address of the driver in the network of the test host.
const DRIVER: &str = "127.0.0.1:9515";
/// Timeout for one answer of the driver.
const ANSWER: Duration = Duration::from_secs(30);
/// Timeout for the driver's start.
const START: Duration = Duration::from_secs(20);

/// Appearance of the operating system, which a page may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Dark text on a light background.
    Light,
    /// Light text on a dark background.
    Dark,
}

/// A browser with one window. It ends when this value is dropped.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    network: PathBuf,
    session: String,
}

impl Browser {
    /// Starts a browser on the network of a test host, with or without JavaScript.
    pub fn start(bed: &Bed, host: &TestHost, with_scripts: bool) -> Result<Self> {
        tools::install_these(bed, tools::FOR_BROWSER)?;
        let network = host.network_namespace();
        let log = File::create(bed.path("browser.log")).context("create the browser's log")?;
        let driver = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", network.display()))
            .args(["chromedriver", "--port=9515", "--log-level=WARNING"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start chromedriver")?;
        let mut browser = Self {
            driver,
            network,
            session: String::new(),
        };
        wait_until("the browser's driver", START, || {
            Ok(match browser.call("GET", "/status", None) {
                Ok(_) => Seen::Done(()),
                Err(error) => Seen::NotYet(error.to_string()),
            })
        })?;
        // 2 forbids scripts in pages. Those of the driver run all the same.
        let scripts = if with_scripts { 1 } else { 2 };
        let options = json!({
            // Chromium's sandbox needs a user other than root.
            "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
            "prefs": { "profile.managed_default_content_settings.javascript": scripts },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let answer = browser.call("POST", "/session", Some(&wanted))?;
        let id = answer["sessionId"]
            .as_str()
            .context("a session has an id")?;
        browser.session = format!("/session/{id}");
        Ok(browser)
    }

    /// Loads a page.
    pub fn open(&self, url: &str) -> Result<()> {
        self.in_session("POST", "/url", &json!({ "url": url }))
            .map(drop)
    }

    /// Runs the body of a JavaScript function in the page and returns its value.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.in_session(
            "POST",
            "/execute/sync",
            &json!({ "script": script, "args": [] }),
        )
    }

    /// Waits until a JavaScript expression is true.
    pub fn wait(&self, what: &str, limit: Duration, expression: &str) -> Result<()> {
        wait_until(what, limit, || {
            let seen = self.run(&format!("return Boolean({expression})"))?;
            Ok(if seen == true {
                Seen::Done(())
            } else {
                let text = self.run("return document.body.innerText")?;
                Seen::NotYet(format!("the page {text}"))
            })
        })
    }

    /// Sets the size of the page and the theme.
    pub fn show(&self, width: u16, height: u16, theme: Theme) -> Result<()> {
        let is_phone = width < 600;
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone }),
        )?;
        let value = match theme {
            Theme::Light => "light",
            Theme::Dark => "dark",
        };
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] }),
        )
    }

    /// Writes a picture of the page as PNG, from its top to its end.
    pub fn picture(&self, file: &Path) -> Result<()> {
        let answer = self.in_session("GET", "/screenshot", &Value::Null)?;
        let text = answer.as_str().context("a picture is a text")?;
        let bytes = STANDARD.decode(text).context("a picture is Base64")?;
        if let Some(dir) = file.parent() {
            create_dir_all(dir)?;
        }
        write(file, bytes).with_context(|| format!("write {}", file.display()))
    }

    /// Returns the errors that the browser reported since the last call: refused loads and scripts, and failures of
    /// scripts.
    pub fn errors(&self) -> Result<Vec<String>> {
        let entries = self.in_session("POST", "/se/log", &json!({ "type": "browser" }))?;
        let entries = entries.as_array().context("a log is a list")?;
        let errors = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        Ok(errors.map(|entry| entry["message"].to_string()).collect())
    }

    fn devtools(&self, command: &str, params: &Value) -> Result<()> {
        let body = json!({ "cmd": command, "params": params });
        self.in_session("POST", "/goog/cdp/execute", &body)
            .map(drop)
    }

    fn in_session(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let path = format!("{}{path}", self.session);
        self.call(method, &path, (!body.is_null()).then_some(body))
    }

    /// Makes one call and returns its value.
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let call = || -> Result<Value> {
            let namespace = File::open(&self.network).context("the test host is gone")?;
            setns(namespace, CloneFlags::CLONE_NEWNET).context("join the host's network")?;
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .proxy(None)
                .timeout_global(Some(ANSWER))
                .build()
                .into();
            let request = ureq::http::Request::builder()
                .method(method)
                .uri(format!("http://{DRIVER}{path}"))
                .header("content-type", "application/json");
            let mut answer =
                agent.run(request.body(body.map_or_else(String::new, Value::to_string))?)?;
            let mut text = String::new();
            answer.body_mut().as_reader().read_to_string(&mut text)?;
            let value: Value = serde_json::from_str(&text)?;
            ensure!(
                answer.status().is_success(),
                "{method} {path}: {}",
                value["value"]
            );
            Ok(value["value"].clone())
        };
        // The changed namespace ends with the thread.
        std::thread::scope(|scope| scope.spawn(call).join())
            .map_err(|_| anyhow!("the call panicked"))?
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends Chromium, whose processes are not children of this one.
            let _ = self.call("DELETE", &self.session, None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
