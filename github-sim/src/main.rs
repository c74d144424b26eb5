//! The stand-in GitHub as a program.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use github_sim::{GitHubApp, Scope, Server, ServerOptions, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// Serves a strict stand-in for the part of GitHub that a self-hosted runner uses.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to listen on; may be repeated.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: Vec<SocketAddr>,
    /// File with an accepted token; may be repeated. The environment variable `GITHUB_SIM_TOKEN` holds
    /// one more.
    #[arg(long, value_name = "FILE")]
    token_file: Vec<PathBuf>,
    /// An accepted token.
    #[arg(skip = std::env::var("GITHUB_SIM_TOKEN").ok())]
    token: Option<String>,
    /// File with the private key of a GitHub App, which is installed in every account.
    #[arg(long, value_name = "FILE", requires = "app_id")]
    app_key_file: Option<PathBuf>,
    /// Id of the GitHub App.
    #[arg(long, value_name = "NUMBER", requires = "app_key_file")]
    app_id: Option<u64>,
    /// Organisation (acme) or repository (acme/widgets) that exists; may be repeated.
    #[arg(long, value_name = "SCOPE", required = true)]
    scope: Vec<Scope>,
    /// Base URL in JIT configs and links [default: the first address].
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Maximum number of REST calls per hour in the bucket `core`.
    #[arg(long, value_name = "CALLS", default_value_t = Settings::default().rate_limit)]
    rate_limit: u64,
    /// Time until an idle listening runner is removed [default: never].
    #[arg(long, value_name = "SECONDS")]
    idle_reap: Option<u64>,
    /// File in which the state outlives the program.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        // Its report of a log that cannot be written panics if standard error is closed.
        .log_internal_errors(false)
        .init();
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stdio::error(format_args!("github-sim: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let mut tokens: Vec<String> = args.token.into_iter().filter(|t| !t.is_empty()).collect();
    for file in &args.token_file {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read the token file {}", file.display()))?;
        anyhow::ensure!(
            !text.trim().is_empty(),
            "cannot use the token file {}: it is empty",
            file.display()
        );
        tokens.push(text.trim().to_owned());
    }
    anyhow::ensure!(
        !tokens.is_empty(),
        "cannot start without a token; give --token-file or set GITHUB_SIM_TOKEN"
    );
    let app = match (&args.app_key_file, args.app_id) {
        (Some(file), Some(id)) => {
            let key = fs::read_to_string(file)
                .with_context(|| format!("cannot read the App's key file {}", file.display()))?;
            Some(GitHubApp::new(id, &format!("Iv23li{id:014}"), &key)?)
        }
        _ => None,
    };
    let sim = Server::start(ServerOptions {
        listen: args.listen,
        public_url: args.public_url,
        tokens,
        app,
        scopes: args.scope,
        settings: Settings {
            rate_limit: args.rate_limit,
            idle_reap_ms: args.idle_reap.map(|seconds| seconds * 1000),
            ..Settings::default()
        },
        state: args.state,
    })
    .await?;
    tracing::info!(url = sim.url(), addresses = ?sim.addresses(), "serving");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopped");
    Ok(())
}
