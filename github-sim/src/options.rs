//! How a server is started.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::{rest::app::App, scope::Scope, settings::Settings};

/// As long as the installation tokens of 2026, so that nobody counts on 40 characters.
pub const DEFAULT_TOKEN: &str = concat!(
    "ghs_123456_eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.",
    "c3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUg",
    "c3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUg",
    "c3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUg",
    "c3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUgc3RhbmQtaW4gdG9rZW4gb2Ygbm8gdmFsdWUg.sig",
);

/// The private key of [`App::example`](crate::App::example), made for it alone: it opens nothing.
pub const APP_KEY: &str = include_str!("app-key.pem");

/// How a server is started. The default suits tests: an ephemeral port on loopback,
/// [`DEFAULT_TOKEN`], scopes `acme/widgets` and `acme`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// Base URL that JIT configs and links name; the first address when absent.
    pub public_url: Option<String>,
    /// Tokens that may do everything in every scope.
    pub tokens: Vec<String>,
    /// A GitHub App that is installed in every account; its tokens are accepted, too.
    pub app: Option<App>,
    /// What exists. Anything else is 404.
    pub scopes: Vec<Scope>,
    /// What is enforced at the start.
    pub settings: Settings,
    /// A file in which the state outlives the program: read at the start, where it overrules tokens
    /// and settings, and written with each change. In memory alone when absent.
    pub state: Option<PathBuf>,
}

impl Default for Options {
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
