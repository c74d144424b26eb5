//! Options of a server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::{github_app::GitHubApp, scope::Scope, settings::Settings};

/// Token of [`ServerOptions::default`]. It has the length of the installation tokens of 2026, because a client
/// must not rely on 40 characters.
const DEFAULT_TOKEN: &str = concat!(
    "ghs_123456_eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.",
    "c3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUg",
    "c3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUg",
    "c3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUg",
    "c3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUg.sig",
);

/// Options of a server. The default suits tests: a free port on loopback, one token, and the scopes
/// `acme/widgets` and `acme`.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Addresses to listen on. Port 0 stands for a free port.
    pub listen: Vec<SocketAddr>,
    /// Base URL in JIT configs and links; the first address when absent.
    pub public_url: Option<String>,
    /// Tokens with all permissions in every scope.
    pub tokens: Vec<String>,
    /// A GitHub App that is installed in every account.
    pub app: Option<GitHubApp>,
    /// Organisations and repositories that exist. Others are answered with 404.
    pub scopes: Vec<Scope>,
    /// Settings at the start.
    pub settings: Settings,
    /// A file in which the state outlives the program. The server writes each change to it, and reads it at
    /// the start, where it replaces tokens and settings. Without a file the state is in memory alone.
    pub state: Option<PathBuf>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            public_url: None,
            tokens: vec![DEFAULT_TOKEN.into()],
            app: None,
            scopes: vec![
                Scope::Repository {
                    owner: "acme".into(),
                    name: "widgets".into(),
                },
                Scope::Organization("acme".into()),
            ],
            settings: Settings::default(),
            state: None,
        }
    }
}
