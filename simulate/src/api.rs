//! Requests to GitHub's REST API and to its scale-set service, and the answers, as they travel over the network; and the
//! JIT config in them.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use runner_controller::pool::RunnerId;
use serde_json::{Value, json};

/// The scale-set service in the place of a resource with a limit.
const SERVICE: &str = "scale sets";

/// A call of GitHub's REST API or of its scale-set service.
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
    /// A token for registrations, which gives access to scale sets.
    RegistrationToken,
    /// Access to the scale-set service.
    SetAccess,
    /// The scale sets with a name.
    SetFind,
    /// A new scale set.
    SetCreate,
    /// The deletion of a scale set.
    SetDelete,
    /// `generate-jitconfig` for a runner of a scale set.
    SetMint,
    /// A new session of a scale set.
    SessionOpen,
    /// A new token of a session.
    SessionRefresh,
    /// The end of a session.
    SessionClose,
    /// The next message of a scale set, for which GitHub waits.
    SetPoll,
    /// The deletion of a message.
    SetAcknowledge,
}

impl Endpoint {
    /// Returns the resource whose primary limit the call counts for.
    #[must_use]
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Mint | Self::RegistrationToken => "actions_runner_registration",
            Self::List | Self::Page | Self::Find | Self::Delete => "core",
            Self::SetAccess
            | Self::SetFind
            | Self::SetCreate
            | Self::SetDelete
            | Self::SetMint
            | Self::SessionOpen
            | Self::SessionRefresh
            | Self::SessionClose
            | Self::SetPoll
            | Self::SetAcknowledge => SERVICE,
        }
    }

    /// Returns true for calls of the scale-set service, which has no limits.
    #[must_use]
    pub(crate) fn is_of_service(self) -> bool {
        self.resource() == SERVICE
    }

    /// Returns true for both ways to make a registration.
    #[must_use]
    pub(crate) fn is_mint(self) -> bool {
        matches!(self, Self::Mint | Self::SetMint)
    }
}

/// A request of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct ApiRequest {
    /// The call.
    pub(crate) endpoint: Endpoint,
    /// Path of its URL.
    pub(crate) path: String,
    /// Query of its URL.
    pub(crate) query: String,
    /// Number of the page, from 1.
    pub(crate) page: usize,
    /// `if-none-match`.
    pub(crate) etag: Option<String>,
    /// Secret of `authorization`.
    pub(crate) token: String,
    /// Number of jobs that a scale set can have.
    pub(crate) capacity: Option<u32>,
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

    /// Returns a parameter of the query.
    #[must_use]
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self
            .query
            .split('&')
            .filter_map(|part| part.split_once('='));
        parameters.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Returns the scale set in the path.
    #[must_use]
    pub(crate) fn set(&self) -> Option<u64> {
        let mut parts = self
            .path
            .split('/')
            .skip_while(|part| *part != "runnerscalesets");
        parts.nth(1)?.parse().ok()
    }

    /// Returns the last part of the path.
    #[must_use]
    pub(crate) fn last_part(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
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

    /// Returns an error answer in the form of the scale-set service.
    #[must_use]
    pub(crate) fn exception(status: u16, name: &str) -> Self {
        let name = format!("GitHub.Actions.Runtime.WebApi.{name}, GitHub.Actions.Runtime.WebApi");
        Self::new(
            status,
            json!({ "typeName": name, "message": "refused" }).to_string(),
        )
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
