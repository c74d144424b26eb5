//! Scopes: the organisation or repository of a runner or a job.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An organisation (`acme`) or a repository (`acme/widgets`), compared without regard to case.
///
/// It is a string in JSON and on the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Every repository of one organisation.
    Organization(String),
    /// One repository.
    Repository {
        /// Organisation or user.
        owner: String,
        /// Name without the owner.
        name: String,
    },
}

/// Failure to read a scope.
#[derive(Debug, thiserror::Error)]
#[error("scope {0:?} is neither an organisation (acme) nor a repository (acme/widgets)")]
pub struct ScopeError(String);

impl Scope {
    /// Returns the organisation or user of the scope.
    #[must_use]
    pub fn owner(&self) -> &str {
        match self {
            Self::Organization(owner) | Self::Repository { owner, .. } => owner,
        }
    }

    /// Tells whether a runner of this scope may take a job of `origin`.
    #[must_use]
    pub fn serves(&self, origin: &Self) -> bool {
        match self {
            Self::Organization(owner) => owner.eq_ignore_ascii_case(origin.owner()),
            Self::Repository { .. } => self == origin,
        }
    }

    /// Returns owner and name of the repository of a job. An organisation's jobs come from `example`.
    #[must_use]
    pub fn repository(&self) -> (&str, &str) {
        match self {
            Self::Organization(owner) => (owner, "example"),
            Self::Repository { owner, name } => (owner, name),
        }
    }

    /// Returns the start of the scope's REST paths, without a slash at the end.
    #[must_use]
    pub fn rest_prefix(&self) -> String {
        match self {
            Self::Organization(owner) => format!("/orgs/{owner}"),
            Self::Repository { owner, name } => format!("/repos/{owner}/{name}"),
        }
    }
}

impl PartialEq for Scope {
    fn eq(&self, other: &Self) -> bool {
        self.to_string().eq_ignore_ascii_case(&other.to_string())
    }
}

impl Eq for Scope {}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organization(owner) => f.write_str(owner),
            Self::Repository { owner, name } => write!(f, "{owner}/{name}"),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        match parts.as_slice() {
            parts if !parts.iter().all(plain) => Err(ScopeError(text.into())),
            [owner] => Ok(Self::Organization((*owner).into())),
            [owner, name] => Ok(Self::Repository {
                owner: (*owner).into(),
                name: (*name).into(),
            }),
            _ => Err(ScopeError(text.into())),
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn an_organisation_serves_all_its_repositories() {
        assert!(scope("acme").serves(&scope("Acme/widgets")));
        assert!(!scope("acme").serves(&scope("other/widgets")));
    }

    #[test]
    fn a_repository_serves_only_itself() {
        assert!(scope("acme/widgets").serves(&scope("acme/Widgets")));
        assert!(!scope("acme/widgets").serves(&scope("acme/gears")));
        assert!(!scope("acme/widgets").serves(&scope("acme")));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "/", "a/", "/b", "a/b/c", "a b", "a?b"] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }
}
