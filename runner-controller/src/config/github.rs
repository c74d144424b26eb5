//! A scope: the `[github]` table, or one of `[scopes.<name>]`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use super::proxy::ProxyConfig;
use crate::pool::{InvalidName, ScopeId};

/// Name of a scope in the configuration: `[a-z][a-z0-9-]{0,31}`.
///
/// It is a part of the names of systemd credentials, and a label of metrics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeName(String);

impl FromStr for ScopeName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut bytes = text.bytes();
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_valid = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(is_plain)
            && text.len() <= 32;
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName {
                given: text.to_owned(),
                rule: "a scope is named with 1 to 32 of a-z, 0-9 and dashes, beginning with a letter",
            })
        }
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `[github]` table, or a `[scopes.<name>]` table, which has the same keys.
#[derive(Debug, Clone)]
pub struct GitHubConfig {
    /// Name of the scope; `None` for `[github]`, which is the only scope of its file.
    pub name: Option<ScopeName>,
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

    /// Returns the dotted name of a key of this table, such as `github.url`.
    #[must_use]
    pub fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.table())
    }

    /// Returns the dotted name of this table.
    #[must_use]
    pub fn table(&self) -> String {
        match &self.name {
            Some(name) => format!("scopes.{name}"),
            None => "github".to_owned(),
        }
    }

    /// Returns the dotted name of the key with the file of the credentials.
    #[must_use]
    pub fn login_key(&self) -> String {
        match self.login {
            LoginConfig::Token { .. } => self.key("token_file"),
            LoginConfig::App { .. } => self.key("app.key_file"),
        }
    }

    /// Returns the name of the systemd credential under which the daemon's unit loads the credentials.
    #[must_use]
    pub fn login_credential(&self) -> String {
        match self.login {
            LoginConfig::Token { .. } => self.credential("github-token"),
            LoginConfig::App { .. } => self.credential("github-app-key"),
        }
    }

    /// Returns the name of the systemd credential with user and password for the proxy.
    #[must_use]
    pub fn proxy_credential(&self) -> String {
        self.credential("github-proxy")
    }

    fn credential(&self, secret: &str) -> String {
        match &self.name {
            Some(name) => format!("{secret}-{name}"),
            None => secret.to_owned(),
        }
    }

    /// Returns the account that a rate limit is about. Another token of the same person shares it, and
    /// another App does not.
    #[must_use]
    pub fn account(&self) -> String {
        let (api_url, scope) = (&self.api_url, &self.scope);
        match &self.login {
            // A token has one limit in all scopes.
            LoginConfig::Token { .. } => format!("{api_url} token"),
            LoginConfig::App { id, .. } => format!("{api_url} {scope} app {id}"),
        }
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
