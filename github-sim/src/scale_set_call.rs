//! Calls of the scale-set service by method and path.

use serde::{Deserialize, Serialize};

/// A call of the scale-set service, as fault rules and statistics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleSetCall {
    /// `POST /actions/runner-registration`: an admin token for a registration token
    AdminToken,
    /// `GET …/runnerscalesets`
    SetList,
    /// `POST …/runnerscalesets`
    SetCreate,
    /// `GET …/runnerscalesets/{set}`
    SetGet,
    /// `PATCH …/runnerscalesets/{set}`
    SetUpdate,
    /// `DELETE …/runnerscalesets/{set}`
    SetDelete,
    /// `GET …/runnergroups/`
    SetGroups,
    /// `POST …/runnerscalesets/{set}/sessions`
    SetSession,
    /// `PATCH …/runnerscalesets/{set}/sessions/{session}`
    SetSessionRefresh,
    /// `DELETE …/runnerscalesets/{set}/sessions/{session}`
    SetSessionDelete,
    /// `POST …/runnerscalesets/{set}/acquirejobs`
    SetAcquire,
    /// `GET …/runnerscalesets/{set}/acquirablejobs`
    SetAcquirable,
    /// `POST …/runnerscalesets/{set}/generatejitconfig`
    SetMint,
    /// `GET …/pools/0/agents`
    SetRunnerFind,
    /// `GET …/pools/0/agents/{agent}`
    SetRunnerGet,
    /// `DELETE …/pools/0/agents/{agent}`
    SetRunnerDelete,
    /// `GET /scalesets/message`
    SetPoll,
    /// `DELETE /scalesets/message/{message}`
    SetAck,
}

impl ScaleSetCall {
    pub(crate) const ALL: [Self; 18] = [
        Self::AdminToken,
        Self::SetList,
        Self::SetCreate,
        Self::SetGet,
        Self::SetUpdate,
        Self::SetDelete,
        Self::SetGroups,
        Self::SetSession,
        Self::SetSessionRefresh,
        Self::SetSessionDelete,
        Self::SetAcquire,
        Self::SetAcquirable,
        Self::SetMint,
        Self::SetRunnerFind,
        Self::SetRunnerGet,
        Self::SetRunnerDelete,
        Self::SetPoll,
        Self::SetAck,
    ];

    /// Returns the method and the path templates.
    pub(crate) fn route(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::AdminToken => ("POST", &["/actions/runner-registration"]),
            Self::SetList => ("GET", &["/rest/_apis/runtime/runnerscalesets"]),
            Self::SetCreate => ("POST", &["/rest/_apis/runtime/runnerscalesets"]),
            Self::SetGet => ("GET", &["/rest/_apis/runtime/runnerscalesets/{set}"]),
            Self::SetUpdate => ("PATCH", &["/rest/_apis/runtime/runnerscalesets/{set}"]),
            Self::SetDelete => ("DELETE", &["/rest/_apis/runtime/runnerscalesets/{set}"]),
            Self::SetGroups => ("GET", &["/rest/_apis/runtime/runnergroups/"]),
            Self::SetSession => (
                "POST",
                &["/rest/_apis/runtime/runnerscalesets/{set}/sessions"],
            ),
            Self::SetSessionRefresh => ("PATCH", &SESSION),
            Self::SetSessionDelete => ("DELETE", &SESSION),
            Self::SetAcquire => (
                "POST",
                &["/rest/_apis/runtime/runnerscalesets/{set}/acquirejobs"],
            ),
            Self::SetAcquirable => (
                "GET",
                &["/rest/_apis/runtime/runnerscalesets/{set}/acquirablejobs"],
            ),
            Self::SetMint => (
                "POST",
                &["/rest/_apis/runtime/runnerscalesets/{set}/generatejitconfig"],
            ),
            Self::SetRunnerFind => ("GET", &["/rest/_apis/distributedtask/pools/0/agents"]),
            Self::SetRunnerGet => ("GET", &AGENT),
            Self::SetRunnerDelete => ("DELETE", &AGENT),
            Self::SetPoll => ("GET", &["/scalesets/message"]),
            Self::SetAck => ("DELETE", &["/scalesets/message/{message}"]),
        }
    }

    /// Returns the name in fault rules and statistics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AdminToken => "admin_token",
            Self::SetList => "set_list",
            Self::SetCreate => "set_create",
            Self::SetGet => "set_get",
            Self::SetUpdate => "set_update",
            Self::SetDelete => "set_delete",
            Self::SetGroups => "set_groups",
            Self::SetSession => "set_session",
            Self::SetSessionRefresh => "set_session_refresh",
            Self::SetSessionDelete => "set_session_delete",
            Self::SetAcquire => "set_acquire",
            Self::SetAcquirable => "set_acquirable",
            Self::SetMint => "set_mint",
            Self::SetRunnerFind => "set_runner_find",
            Self::SetRunnerGet => "set_runner_get",
            Self::SetRunnerDelete => "set_runner_delete",
            Self::SetPoll => "set_poll",
            Self::SetAck => "set_ack",
        }
    }
}

const SESSION: [&str; 1] = ["/rest/_apis/runtime/runnerscalesets/{set}/sessions/{session}"];
const AGENT: [&str; 1] = ["/rest/_apis/distributedtask/pools/0/agents/{agent}"];
