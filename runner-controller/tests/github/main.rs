//! The GitHub client against two servers: the stand-in, which is strict, and a scripted server, which
//! gives answers that GitHub would not give. Some tests stand behind a proxy, or speak TLS.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with its line; clippy.toml exempts only #[test] functions"
)]

mod app;
mod hooks;
mod proxy;
mod queue;
mod scale_set;
mod scripted;
mod standin;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use runner_controller::config::{self, Scope};
use runner_controller::github::{AppKey, GitHub, Login, Token};
use runner_controller::pool::{HostId, RunnerName};
use runner_controller::world::MintRequest;

fn repository() -> Scope {
    Scope::Repository {
        owner: "acme".into(),
        repo: "widgets".into(),
    }
}

fn enterprise() -> Scope {
    Scope::Enterprise {
        enterprise: "acme".into(),
    }
}

fn organization() -> Scope {
    Scope::Organization { org: "acme".into() }
}

/// Timeout that is long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn connect(api_url: &str, token: &str, scope: Scope, timeout: Duration) -> GitHub {
    let login = config::LoginConfig::Token {
        file: PathBuf::from("/etc/runner-controller/token"),
    };
    let token = Token::new(token).unwrap();
    connect_as(api_url, login, token.into(), scope, timeout)
}

fn connect_app(api_url: &str, id: &str, scope: Scope) -> GitHub {
    let login = config::LoginConfig::App {
        id: id.into(),
        key_file: PathBuf::from("/etc/runner-controller/app.pem"),
    };
    let key = AppKey::new(id, github_sim::APP_KEY).unwrap();
    connect_as(api_url, login, Login::App(Box::new(key)), scope, PATIENCE)
}

fn connect_as(
    api_url: &str,
    configured: config::LoginConfig,
    login: Login,
    scope: Scope,
    timeout: Duration,
) -> GitHub {
    let config = config::GitHubConfig {
        scope,
        login: configured,
        timeout,
        ..config_of(api_url)
    };
    GitHub::new(&config, login).unwrap()
}

/// Returns the configuration of a repository with a token.
fn config_of(api_url: &str) -> config::GitHubConfig {
    config::GitHubConfig {
        name: None,
        scope: repository(),
        api_url: api_url.parse().unwrap(),
        server_url: "https://github.com".into(),
        api_version: "2022-11-28".into(),
        login: config::LoginConfig::Token {
            file: "/etc/runner-controller/token".into(),
        },
        mints_per_minute: 150,
        timeout: PATIENCE,
        proxy: None,
        ca_file: None,
    }
}

fn host() -> HostId {
    "fuzz".parse().unwrap()
}

/// Returns a request with the name that `random` determines.
fn request(random: u32) -> MintRequest {
    MintRequest {
        name: RunnerName::new(host(), "ci-1".parse().unwrap(), random),
        labels: vec!["self-hosted".into(), "ci".into()],
        runner_group: "default".into(),
        work_folder: "/var/lib/github-runner/_work".into(),
        scale_set: None,
    }
}
