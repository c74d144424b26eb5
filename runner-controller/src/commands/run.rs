//! `run`: assembles the daemon and runs it.

mod demand;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::common::{block_on, forbid_core_dumps};
use crate::config::{self, API_SOCKET, BOOTS_PER_CORE, Config, GitHubConfig, LoginConfig};
use crate::controller::{Calls, Client, Command, Controller, Environment, Request};
use crate::github::{GitHub, Login, known_scopes};
use crate::handshake::{Sockets, fdstore};
use crate::http::{ApiToken, ListenerLimits, ReadHistory};
use crate::machine::Systemd;
use crate::pool::ScopeId;
use crate::privileged::Refusal;
use crate::status::{RateLimitStatus, Status};
use crate::store::Store;
use crate::world::{Records, Traces, chain};
use crate::{clock, firewall, http, notify, readings, telemetry};

/// Maximum number of events that wait for the controller. A slot has a few at a time, and a host has
/// some dozens of slots. A full channel delays the senders and loses nothing.
const EVENTS: usize = 1024;
/// Maximum number of operators' requests that wait for the controller.
const REQUESTS: usize = 16;

/// Runs the daemon until a signal ends it. Containers keep running.
pub fn run(config_path: &Path) -> anyhow::Result<()> {
    // systemd's descriptors are known by their numbers alone, so they are taken before anything else
    // opens one.
    let stored = fdstore::take();
    telemetry::init();
    forbid_core_dumps()?;
    let config = config::load(config_path)?;
    let done = block_on(serve(config_path, Arc::new(config), stored))?;
    if let Err(error) = &done {
        let error = format!("{error:#}");
        error!(error, "daemon ends: {error}");
    }
    done
}

async fn serve(
    config_path: &Path,
    config: Arc<Config>,
    stored: Vec<(String, OwnedFd)>,
) -> anyhow::Result<()> {
    let path = config.state_dir.join("runner-controller.db");
    let (store, warning) = Store::open(&path, config.host.clone(), config.history)
        .with_context(|| format!("cannot open the database {}", path.display()))?;
    if let Some(warning) = warning {
        warn!("{warning}");
    }
    let clients = clients(&config.scopes)?;
    let former = former_scopes(&config.scopes, &clients, &store).await;
    let registries = config.scopes.iter().zip(clients);
    let registries: BTreeMap<ScopeId, Client<GitHub>> = registries
        .map(|(scope, registry)| {
            let account = scope.account();
            (scope.scope_id(), Client { registry, account })
        })
        .collect();
    let (event, mut events) = mpsc::channel(EVENTS);
    // The first plan must know the firewall and the host's resources.
    event.try_send(firewall::event(&config))?;
    event.try_send(readings::event(&config))?;
    let watching = (Arc::clone(&config), event.clone());
    std::thread::spawn(move || firewall::watch(&watching.0, &watching.1));
    let watching = (Arc::clone(&config), event.clone());
    std::thread::spawn(move || readings::watch(&watching.0, &watching.1));
    let sockets = Arc::new(Sockets::open(Arc::clone(&config), event.clone(), stored));
    let jobs = demand::jobs(&config, &store).await;
    demand::listen_for_deliveries(&config, &registries, &store, &event).await?;
    let job_started = watch::Sender::new(());
    let mut scale_sets = demand::scale_sets(&config, &registries, &store, &event);
    for reader in demand::readers(&config, &registries, &store, &event)? {
        tokio::spawn(reader.run(job_started.subscribe()));
    }
    let systemd = Systemd::connect(Arc::clone(&config), event)
        .await
        .context("cannot connect to systemd")?;

    let (requests, mut received) = mpsc::channel(REQUESTS);
    let (show, status) = watch::channel(Status::default());
    let history = read_history(store.clone());
    let sender = traces::start(&config)?.map(Arc::new);
    let calls = counter(&config, &registries);
    let environment = Environment {
        machines: Arc::new(systemd),
        registries,
        former,
        handshake: Arc::clone(&sockets),
        records: Arc::new(store.clone()),
        now: clock::now,
        unix_ms: clock::unix_ms,
        random: rand::random,
        boot_id: clock::boot_id(),
        calls,
        explain_exit,
        notes: readings::lacking_protections(),
        jobs,
        job_started,
        capacities: scale_sets.take_capacities(),
        traces: sender.clone().map(|sender| sender as Arc<dyn Traces>),
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = u16::try_from(cores).unwrap_or(u16::MAX);
    let mut controller = Controller::new(
        Arc::clone(&config),
        environment,
        cores.saturating_mul(BOOTS_PER_CORE),
        show,
    );
    controller
        .adopt(&mut events)
        .await
        .context("cannot adopt the running containers")?;
    listen(&config, &status, &requests, history).await?;
    if let Some(notify) = &config.notify {
        tokio::spawn(notify::run(
            notify.clone(),
            config.notify_socket(),
            status.clone(),
        ));
    }
    let scale_sets = scale_sets.start();
    // systemd 262 refuses a service that is ready and does not handle its reload signal.
    let signals = Signals::handle().context("cannot handle signals")?;
    telemetry::ready();
    let (host, scope, pools) = (&config.host, config.scope_list(), config.pools.len());
    info!(%host, %scope, pools, "daemon is ready: host {host} serves {scope} with {pools} pools");
    tokio::spawn(telemetry::watchdog(async move || responds(&requests).await));

    let stop = async {
        signals.stop(config_path).await;
        telemetry::stopping();
        // The loop goes on meanwhile, so what the last calls meet is on record for the next daemon.
        scale_sets.close().await;
    };
    controller.run(events, &mut received, stop).await;
    sockets.flush().await;
    traces::close(sender).await;
    store.close_file().await;
    Ok(())
}

/// Returns a client for each scope. Scopes with the same token have the same limits.
fn clients(scopes: &[GitHubConfig]) -> anyhow::Result<Vec<Arc<GitHub>>> {
    let mut clients: Vec<Arc<GitHub>> = Vec::new();
    for config in scopes {
        let login = Login::load(config)?;
        // Only scopes before this one have a client.
        let mut before = scopes.iter().zip(&clients);
        let sharing = before.find(|(other, _)| have_same_token(other, config));
        let client = match sharing {
            Some((_, client)) => client.beside(config, login),
            None => GitHub::new(config, login),
        };
        let client = client.with_context(|| {
            let scope = &config.scope;
            format!("cannot set up the GitHub client for {scope}")
        })?;
        clients.push(Arc::new(client));
    }
    Ok(clients)
}

/// Returns true if two scopes have the same token, and so the same limits.
fn have_same_token(one: &GitHubConfig, other: &GitHubConfig) -> bool {
    let is_token = matches!(one.login, LoginConfig::Token { .. });
    is_token && one.login == other.login && one.api_url == other.api_url
}

/// Returns the name of a scope's credential. Scopes with the same token have that of the first.
fn credential(scopes: &[GitHubConfig], config: &GitHubConfig) -> String {
    let mut scopes = scopes.iter();
    let first = scopes.find(|other| have_same_token(other, config));
    first.unwrap_or(config).login_credential()
}

/// Key of the setting with the scopes in which this host may have registrations.
const SCOPES_KEY: &str = "scopes";

/// Returns a client for each scope of an earlier configuration, or the reason why there is none. Writes
/// the configured scopes to the records, for the daemon after a change of them.
async fn former_scopes(
    configs: &[GitHubConfig],
    clients: &[Arc<GitHub>],
    store: &Store,
) -> BTreeMap<ScopeId, Result<Client<GitHub>, String>> {
    let known = store.setting(SCOPES_KEY).await.ok().flatten();
    let known = known.and_then(|text| serde_json::from_str(&text).ok());
    let records = store.load().await.unwrap_or_default().into_iter();
    let of_runners = records.filter_map(|record| record.registration?.scope);
    let strays = store.strays().await.unwrap_or_default().into_iter();
    let used = of_runners
        .chain(strays.map(|stray| stray.scope))
        .collect::<BTreeSet<_>>();
    let known = known_scopes(known.unwrap_or_default(), configs, &used, clock::unix_ms());
    let written = match serde_json::to_string(&known) {
        Ok(text) => store.set_setting(SCOPES_KEY, Some(text)).await,
        Err(_) => Ok(()),
    };
    if let Err(error) = written {
        let error = chain(&error);
        warn!(
            error,
            "cannot write the configured scopes to the records: {error}"
        );
    }
    let is_configured = |scope: &ScopeId| configs.iter().any(|c| c.scope_id() == *scope);
    let former = known.iter().filter(|k| !is_configured(&k.scope));
    let mut of_former: BTreeMap<_, _> = former
        .map(|known| {
            let client = known.connect(configs, clients);
            let client = client.map(|(github, config)| Client {
                registry: Arc::new(github),
                account: config.account(),
            });
            if let Err(reason) = &client {
                let scope = &known.scope;
                warn!(
                    %scope, reason,
                    "cannot remove the runners that this host left in the former scope {scope}: {reason}; delete them at GitHub, or leave them to GitHub, which removes them after a day"
                );
            }
            (known.scope.clone(), client)
        })
        .collect();
    // A record whose scope is not known any more.
    for scope in used.into_iter().filter(|used| !is_configured(used)) {
        let missing = || Err("its credentials are not on record".to_owned());
        of_former.entry(scope).or_insert_with(missing);
    }
    of_former
}

/// Returns the API's way to the history, beside the controller, which waits for nothing.
fn read_history(store: Store) -> ReadHistory {
    Arc::new(move |query| {
        let store = store.clone();
        Box::pin(async move { store.history(query).await.map_err(|error| chain(&error)) })
    })
}

/// Returns a function that reads the calls of all scopes.
fn counter(
    config: &Config,
    registries: &BTreeMap<ScopeId, Client<GitHub>>,
) -> Box<dyn Fn() -> BTreeMap<ScopeId, Calls> + Send> {
    let counted = config.scopes.iter().filter_map(|scope| {
        let id = scope.scope_id();
        let github = Arc::clone(&registries.get(&id)?.registry);
        Some((id, github, credential(&config.scopes, scope)))
    });
    let counted: Vec<(ScopeId, Arc<GitHub>, String)> = counted.collect();
    Box::new(move || {
        let counted = counted.iter();
        let counted =
            counted.map(|(scope, github, credential)| (scope.clone(), calls(github, credential)));
        counted.collect()
    })
}

/// Returns the calls of a client, whose credential has this name.
fn calls(github: &GitHub, credential: &str) -> Calls {
    let mut calls = Calls::default();
    for (operation, outcome, count) in github.calls() {
        let counts = calls.counts.entry(operation.to_owned()).or_default();
        counts.insert(outcome.to_owned(), count);
    }
    let times = github.answer_times().into_iter();
    calls.answer_times = times
        .map(|(operation, times)| (operation.to_owned(), times))
        .collect();
    let windows = github.quotas().into_iter();
    calls.rate_limits = windows
        .map(|window| RateLimitStatus {
            credential: credential.to_owned(),
            resource: window.resource,
            limit: window.limit,
            remaining: window.remaining,
            reset_unix_s: window.reset_unix_s,
        })
        .collect();
    calls
}

/// Returns the meaning of a launcher's exit status.
fn explain_exit(status: i32) -> Option<&'static str> {
    Refusal::from_code(status).map(Refusal::reason)
}

/// Returns true once the controller has answered a request, and false if it has stopped.
async fn responds(requests: &mpsc::Sender<Request>) -> bool {
    let (reply, answer) = oneshot::channel();
    requests.send((Command::Ping, reply)).await.is_ok() && answer.await.is_ok()
}

/// Serves the API on its Unix socket and on the addresses of `listen`.
async fn listen(
    config: &Config,
    status: &watch::Receiver<Status>,
    requests: &mpsc::Sender<Request>,
    history: ReadHistory,
) -> anyhow::Result<()> {
    // On a host that was set up, the run directory belongs to root and links to a socket in the
    // daemon's own directory.
    let dir = config.api_dir();
    let path = if dir.is_dir() {
        dir.join(API_SOCKET)
    } else {
        config.api_socket()
    };
    // A socket that an earlier daemon left prevents the bind.
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot remove {}", path.display()));
    }
    let socket = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    let token = ApiToken::load(config)?;
    let router = http::router(status.clone(), requests.clone(), history);
    let limits = ListenerLimits::default();
    tokio::spawn(http::serve_unix(socket, router.clone(), limits));
    for address in &config.listen {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        tokio::spawn(http::serve_tcp(
            socket,
            router.clone(),
            token.clone(),
            limits,
        ));
    }
    Ok(())
}

/// The signals of an operator and of systemd.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn handle() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM, SIGINT, or a SIGHUP while the configuration is valid. After SIGHUP, systemd
    /// starts the next daemon at once, which adopts everything. An invalid configuration is logged and
    /// changes nothing.
    async fn stop(mut self, config_path: &Path) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    telemetry::reloading();
                    let loaded = config::load(config_path);
                    // systemd ends the reload now. A reload that the end of the daemon interrupts would fail.
                    telemetry::ready();
                    match loaded {
                        Ok(_) => {
                            info!("new configuration is valid; restarting to apply it");
                            return;
                        }
                        Err(mistakes) => error!(
                            %mistakes,
                            "new configuration is invalid; keeping the old one: {mistakes}"
                        ),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
