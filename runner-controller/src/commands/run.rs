//! `run`: the daemon, assembled.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::block_on;
use crate::config::{self, Config};
use crate::controller::{Command, Controller, Ports, Request};
use crate::github::{GitHub, Login};
use crate::handshake::{Sockets, fdstore};
use crate::http::{ApiToken, Limits};
use crate::launch::Refusal;
use crate::machine::Systemd;
use crate::status::Status;
use crate::store::Store;
use crate::{clock, firewall, http, readings, telemetry};

/// Sights that may wait for the loop. Each slot has a few at a time, and a host some dozens of
/// slots; a full channel delays the shells and loses nothing.
const EVENTS: usize = 1024;
/// Operators' requests that may wait. Each is taken at once.
const REQUESTS: usize = 16;

/// Runs until told to stop. Containers run on.
pub fn run(config_path: &Path) -> anyhow::Result<()> {
    // Before anything else opens a descriptor: the numbers are only known by their order.
    let handed = fdstore::take();
    telemetry::init();
    let config = config::load(config_path)?;
    let done = block_on(serve(config_path, Arc::new(config), handed))?;
    if let Err(error) = &done {
        error!(error = format!("{error:#}"), "ending");
    }
    done
}

async fn serve(
    config_path: &Path,
    config: Arc<Config>,
    handed: Vec<(String, OwnedFd)>,
) -> anyhow::Result<()> {
    let path = config.state_dir.join("runner-controller.db");
    let (store, warning) = Store::open(&path, config.host.clone())
        .with_context(|| format!("open {}", path.display()))?;
    if let Some(warning) = warning {
        warn!("{warning}");
    }
    let login = Login::load(&config.github).context("GitHub")?;
    let github = Arc::new(GitHub::new(&config.github, login).context("a client for GitHub")?);
    let (event, mut events) = mpsc::channel(EVENTS);
    // Before anything can be started.
    event.try_send(firewall::event(&config))?;
    event.try_send(readings::event(&config))?;
    let watching = (Arc::clone(&config), event.clone());
    std::thread::spawn(move || firewall::watch(&watching.0, &watching.1));
    let watching = (Arc::clone(&config), event.clone());
    std::thread::spawn(move || readings::watch(&watching.0, &watching.1));
    let sockets = Arc::new(Sockets::open(Arc::clone(&config), event.clone(), handed));
    let systemd = Systemd::connect(Arc::clone(&config), event)
        .await
        .context("connect to systemd")?;

    let (requests, mut asked) = mpsc::channel(REQUESTS);
    let (show, status) = watch::channel(Status::default());
    let calls = Arc::clone(&github);
    let ports = Ports {
        machines: Arc::new(systemd),
        registry: github,
        handshake: Arc::clone(&sockets),
        records: Arc::new(store),
        now: clock::now,
        unix_ms: clock::unix_ms,
        random: rand::random,
        boot_id: clock::boot_id(),
        calls: Box::new(move || counted(&calls)),
        explain_exit,
    };
    // Booting is bound by the processor.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut controller = Controller::new(
        Arc::clone(&config),
        ports,
        u16::try_from(cores).unwrap_or(u16::MAX),
        show,
    );
    controller
        .adopt(&mut events)
        .await
        .context("take over what runs")?;
    listen(&config, &status, &requests).await?;
    telemetry::ready();
    info!(host = %config.host, scope = %config.github.scope, pools = config.pools.len(), "ready");
    tokio::spawn(telemetry::watchdog(async move || turns(&requests).await));

    controller
        .run(events, &mut asked, told_to_stop(config_path))
        .await;
    telemetry::stopping();
    sockets.flush().await;
    Ok(())
}

fn counted(github: &GitHub) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut calls: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (operation, outcome, count) in github.calls() {
        calls
            .entry(operation.to_string())
            .or_default()
            .insert(outcome.to_string(), count);
    }
    calls
}

fn explain_exit(status: i32) -> Option<&'static str> {
    Refusal::from_code(status).map(Refusal::reason)
}

/// True if the loop takes a request in good time.
async fn turns(requests: &mpsc::Sender<Request>) -> bool {
    let (reply, answer) = oneshot::channel();
    requests.send((Command::Ping, reply)).await.is_ok() && answer.await.is_ok()
}

/// Opens the API's socket and what the configuration names besides.
async fn listen(
    config: &Config,
    status: &watch::Receiver<Status>,
    requests: &mpsc::Sender<Request>,
) -> anyhow::Result<()> {
    // The run directory is root's; outside a host that was set up, it may be our own.
    let dir = config.api_dir();
    let path = if dir.is_dir() {
        dir.join("api.sock")
    } else {
        config.api_socket()
    };
    // An earlier daemon's; it does not listen any more.
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("remove {}", path.display()));
    }
    let socket =
        UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    let token = ApiToken::load(config).context("the API's token")?;
    let router = http::router(status.clone(), requests.clone());
    let limits = Limits::default();
    tokio::spawn(http::serve_unix(socket, router.clone(), limits));
    for address in &config.listen {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        tokio::spawn(http::serve_tcp(
            socket,
            router.clone(),
            token.clone(),
            limits,
        ));
    }
    Ok(())
}

/// Done at SIGTERM and SIGINT, and at SIGHUP if the configuration is good: the next daemon, which
/// systemd starts at once, takes everything over. A bad one is reported and changes nothing.
async fn told_to_stop(config_path: &Path) {
    let mut signals = Vec::new();
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        match signal(kind) {
            Ok(stream) => signals.push(stream),
            Err(error) => warn!(?kind, %error, "a signal cannot be heard"),
        }
    }
    let [terminate, interrupt, hangup] = &mut signals[..] else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => match config::load(config_path) {
                Ok(_) => {
                    info!("the configuration is good; restarting with it");
                    return;
                }
                Err(mistakes) => error!(%mistakes, "the new configuration has mistakes; going on with the old one"),
            },
        }
    }
}
