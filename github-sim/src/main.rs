//! The stand-in GitHub as a program.

use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use github_sim::{App, Options, Scope, Server, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// A strict stand-in for the part of GitHub that a self-hosted runner meets.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to serve on; may be repeated.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: Vec<SocketAddr>,
    /// File that holds an accepted token; may be repeated.
    #[arg(long, value_name = "FILE")]
    token_file: Vec<PathBuf>,
    /// An accepted token.
    #[arg(skip = std::env::var("GITHUB_SIM_TOKEN").ok())]
    token: Option<String>,
    /// File that holds the private key of a GitHub App, installed in every account.
    #[arg(long, value_name = "FILE", requires = "app_id")]
    app_key_file: Option<PathBuf>,
    /// Its id.
    #[arg(long, value_name = "NUMBER")]
    app_id: Option<u64>,
    /// Organisation (acme) or repository (acme/widgets) that exists; may be repeated.
    #[arg(long, value_name = "SCOPE", required = true)]
    scope: Vec<Scope>,
    /// Base URL that JIT configs and links name [default: the first address].
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// REST calls per hour in the bucket `core`.
    #[arg(long, value_name = "CALLS", default_value_t = Settings::default().rate_limit)]
    rate_limit: u64,
    /// Let idle listening runners vanish after this long [default: never].
    #[arg(long, value_name = "SECONDS")]
    idle_reap: Option<u64>,
    /// Keep all that is known in this file, so that the next start goes on where this one ended
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .init();
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("github-sim: {error:#}");
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
            .with_context(|| format!("cannot read token file {}", file.display()))?;
        anyhow::ensure!(
            !text.trim().is_empty(),
            "token file {} is empty",
            file.display()
        );
        tokens.push(text.trim().to_owned());
    }
    anyhow::ensure!(
        !tokens.is_empty(),
        "give --token-file or set GITHUB_SIM_TOKEN"
    );
    let app = match (&args.app_key_file, args.app_id) {
        (Some(file), Some(id)) => {
            let key = fs::read_to_string(file)
                .with_context(|| format!("cannot read App key file {}", file.display()))?;
            Some(App::new(id, &format!("Iv23li{id:014}"), &key)?)
        }
        _ => None,
    };
    let sim = Server::start(Options {
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
