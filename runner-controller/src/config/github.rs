//! The `[github]` table.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::proxy::ProxyConfig;
use crate::pool::ScopeId;

/// The `[github]` table.
#[derive(Debug, Clone)]
pub struct GitHubConfig {
    /// Repository, organisation or enterprise whose runners these are.
    pub scope: Scope,
    /// Base URL of the API. Its path has no slash at the end.
    pub api_url: Url,
    /// Address of the web pages, without a slash at the end: `https://github.com`.
    pub server_url: String,
    /// Value of the header `X-GitHub-Api-Version`.
    pub api_version: String,
    /// Credentials for the API.
    pub login: LoginConfig,
    /// Maximum number of registrations in a minute.
    pub mints_per_minute: usize,
    /// Timeout for one request.
    pub timeout: Duration,
    /// Proxy on the way to GitHub.
    pub proxy: Option<ProxyConfig>,
    /// File in PEM with certificate authorities, in addition to those of this host.
    pub ca_file: Option<PathBuf>,
}

impl GitHubConfig {
    /// Returns the identity of the scope at its API.
    #[must_use]
    pub fn scope_id(&self) -> ScopeId {
        ScopeId::new(self.api_url.as_str(), &self.scope.to_string())
    }
}

/// Credentials for GitHub's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginConfig {
    /// A personal access token.
    Token {
        /// File that holds the token alone.
        file: PathBuf,
    },
    /// A GitHub App that is installed in the scope.
    App {
        /// Client id or App id.
        id: String,
        /// File that holds a private key of the App, in PEM.
        key_file: PathBuf,
    },
}

impl LoginConfig {
    /// Returns the file that holds the secret.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Token { file } => file,
            Self::App { key_file, .. } => key_file,
        }
    }

    /// Returns the file's key in the configuration.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Token { .. } => "github.token_file",
            Self::App { .. } => "github.app.key_file",
        }
    }

    /// Returns the name of the systemd credential under which the daemon's unit loads the file.
    #[must_use]
    pub fn credential(&self) -> &'static str {
        match self {
            Self::Token { .. } => "github-token",
            Self::App { .. } => "github-app-key",
        }
    }
}

/// Repository, organisation or enterprise in which runners are registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// `https://github.com/<owner>/<repo>`
    Repository {
        /// Owner of the repository.
        owner: String,
        /// Name of the repository.
        repo: String,
    },
    /// `https://github.com/<org>`
    Organization {
        /// Name of the organisation.
        org: String,
    },
    /// `https://github.com/enterprises/<enterprise>`
    Enterprise {
        /// Name of the enterprise in the addresses of its pages.
        enterprise: String,
    },
}

impl Scope {
    /// Parses the text that the scope displays. It must be of a scope that a configuration had.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once('/') {
            // GitHub has pages at this address, so it is not an owner's name.
            Some(("enterprises", enterprise)) => Self::Enterprise {
                enterprise: enterprise.to_owned(),
            },
            Some((owner, repo)) => Self::Repository {
                owner: owner.to_owned(),
                repo: repo.to_owned(),
            },
            None => Self::Organization {
                org: text.to_owned(),
            },
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { owner, repo } => write!(f, "{owner}/{repo}"),
            Self::Organization { org } => f.write_str(org),
            Self::Enterprise { enterprise } => write!(f, "enterprises/{enterprise}"),
        }
    }
}
