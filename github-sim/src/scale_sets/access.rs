//! Tokens of the service: a registration token, and the admin token that it is exchanged for.

use serde::{Deserialize, Serialize};

use crate::scope::Scope;

/// Purpose of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServiceTokenKind {
    Registration,
    Admin,
}

/// A token that gives access to the scale sets of one scope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceToken {
    pub(crate) kind: ServiceTokenKind,
    pub(crate) token: String,
    pub(crate) scope: Scope,
    /// Unix milliseconds.
    pub(crate) expires: u64,
}
