//! Requests to GitHub's REST API and its answers, as they travel over the network; and the JIT config in them.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use runner_controller::pool::RunnerId;
use serde_json::{Value, json};

/// A call of GitHub's REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `generate-jitconfig`.
    Mint,
    /// The first page of the list of runners.
    List,
    /// A later page of the list.
    Page,
    /// One runner.
    Find,
    /// The deletion of a runner.
    Delete,
}

impl Endpoint {
    /// Returns the resource whose primary limit the call counts for.
    #[must_use]
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Mint => "actions_runner_registration",
            Self::List | Self::Page | Self::Find | Self::Delete => "core",
        }
    }
}

/// A request of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct ApiRequest {
    /// The call.
    pub(crate) endpoint: Endpoint,
    /// Path of its URL.
    pub(crate) path: String,
    /// Number of the page, from 1.
    pub(crate) page: usize,
    /// `if-none-match`.
    pub(crate) etag: Option<String>,
    /// Its body.
    pub(crate) body: String,
}

impl ApiRequest {
    /// Returns the registration that the request deletes; `None` if it is another call.
    #[must_use]
    pub(crate) fn deleted_runner(&self) -> Option<RunnerId> {
        self.runner().filter(|_| self.endpoint == Endpoint::Delete)
    }

    /// Returns the registration in the path.
    #[must_use]
    pub(crate) fn runner(&self) -> Option<RunnerId> {
        self.path.rsplit('/').next()?.parse().ok().map(RunnerId)
    }

    /// Returns the scope in the path: `owner/repo`.
    #[must_use]
    pub(crate) fn scope(&self) -> String {
        let parts = self.path.split('/').skip_while(|part| *part != "repos");
        let parts: Vec<&str> = parts.skip(1).take(2).collect();
        parts.join("/")
    }
}

/// The limits that an answer announces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AnnouncedLimits {
    /// GitHub refused the call and wants none before this time.
    pub(crate) refused_until: Option<u64>,
    /// The resource is used up until this time.
    pub(crate) empty_until: Option<(&'static str, u64)>,
}

/// An answer of GitHub.
#[derive(Debug, Clone)]
pub(crate) struct ApiAnswer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Body.
    pub(crate) body: String,
    /// The limits that it announces.
    pub(crate) limits: AnnouncedLimits,
}

impl ApiAnswer {
    /// Returns an answer without headers.
    #[must_use]
    pub(crate) fn new(status: u16, body: String) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
            limits: AnnouncedLimits::default(),
        }
    }

    /// Returns an error answer in GitHub's form.
    #[must_use]
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::new(status, json!({ "message": message }).to_string())
    }
}

/// Returns the JIT config of a registration, in GitHub's form.
#[must_use]
pub(crate) fn jit_config(runner: RunnerId, name: &str) -> String {
    let settings = json!({ "AgentId": runner.to_string(), "AgentName": name });
    let files = json!({ ".runner": BASE64_STANDARD.encode(settings.to_string()) });
    BASE64_STANDARD.encode(files.to_string())
}

/// Returns the registration that a JIT config is for; `None` if it is not a JIT config.
#[must_use]
pub(crate) fn configured_runner(config: &str) -> Option<RunnerId> {
    let read = |text: &str| -> Option<Value> {
        serde_json::from_slice(&BASE64_STANDARD.decode(text).ok()?).ok()
    };
    let settings = read(read(config)?[".runner"].as_str()?)?;
    settings["AgentId"].as_str()?.parse().ok().map(RunnerId)
}
