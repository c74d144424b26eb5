//! The sources that tell which jobs wait: the listener for deliveries, and readings of GitHub's API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::{Config, GitHubConfig, LoginConfig};
use crate::controller::Client;
use crate::github::{GitHub, HookDeliveries, JobQueue, Login, ScaleSetService};
use crate::pool::{Demand, KnownJob, PoolName, ScopeId};
use crate::queue::{BESIDE_DELIVERIES, FOR_DEMAND, Reader, Surroundings};
use crate::scale_set::{self, Keeper};
use crate::store::Store;
use crate::webhook::{self, Counts, Receiver, Secrets};
use crate::world::{Event, Hook, KnownHooks, Records as _, WantedSet, chain};
use crate::{clock, http, redelivery};

/// Returns the jobs on record, if the host knows which jobs wait.
pub(super) async fn jobs(config: &Config, store: &Store) -> Option<Vec<KnownJob>> {
    if !config.knows_jobs() {
        return None;
    }
    match store.jobs().await {
        Ok(jobs) => Some(jobs),
        Err(error) => {
            let error = chain(&error);
            warn!(
                error,
                "cannot read the jobs on record: {error}; new deliveries tell of jobs again"
            );
            Some(Vec::new())
        }
    }
}

/// Key of the setting with the hooks that sent deliveries.
const HOOKS_KEY: &str = "hooks";

/// Serves the listener for GitHub's deliveries, if one is configured, and asks for those that failed.
pub(super) async fn listen_for_deliveries(
    config: &Config,
    registries: &BTreeMap<ScopeId, Client<GitHub>>,
    store: &Store,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let Some(webhook) = &config.webhook else {
        return Ok(());
    };
    let counts = Counts::default();
    tokio::spawn(webhook::report(counts.subscribe(), events.clone()));
    let hooks = watch::Sender::new(known_hooks(config, store).await);
    let mut deliveries = BTreeMap::new();
    for scope in &config.scopes {
        let id = scope.scope_id();
        if let Some(client) = registries.get(&id) {
            deliveries.insert(id, hook_deliveries(scope, client)?);
        }
    }
    let outside = redelivery::Surroundings {
        inbox: store.clone(),
        events: events.clone(),
        unix_ms: clock::unix_ms,
    };
    tokio::spawn(redelivery::run(deliveries, hooks.clone(), outside));
    tokio::spawn(remember_hooks(hooks.subscribe(), store.clone()));
    let router = webhook::router(Receiver {
        secrets: Secrets::load(webhook)?,
        scopes: config.scopes.iter().map(GitHubConfig::scope_id).collect(),
        inbox: store.clone(),
        events: events.clone(),
        counts,
        hooks,
        unix_ms: clock::unix_ms,
    });
    let address = webhook.listen;
    let socket = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen for deliveries on {address}"))?;
    tokio::spawn(http::serve_tcp(socket, router, None, webhook::limits()));
    info!(%address, "taking GitHub's deliveries on {address}");
    Ok(())
}

/// Returns the hooks on record.
async fn known_hooks(config: &Config, store: &Store) -> KnownHooks {
    let text = store.setting(HOOKS_KEY).await.ok().flatten();
    let on_record: Vec<(ScopeId, Hook)> = text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let is_configured = |scope: &ScopeId| config.scopes.iter().any(|c| c.scope_id() == *scope);
    let mut known = KnownHooks::default();
    for (scope, hook) in on_record {
        if is_configured(&scope) {
            known.learn(&scope, hook);
        }
    }
    known
}

/// Puts the hooks on record whenever there are more. Without a record, the next delivery tells of its hook again.
async fn remember_hooks(mut hooks: watch::Receiver<KnownHooks>, store: Store) {
    while hooks.changed().await.is_ok() {
        let known: Vec<_> = hooks.borrow_and_update().iter().collect();
        let written = match serde_json::to_string(&known) {
            Ok(text) => store.set_setting(HOOKS_KEY, Some(text)).await,
            Err(_) => Ok(()),
        };
        if let Err(error) = written {
            let error = chain(&error);
            warn!(error, "cannot put the hooks on record: {error}");
        }
    }
}

fn hook_deliveries(
    scope: &GitHubConfig,
    client: &Client<GitHub>,
) -> anyhow::Result<Arc<HookDeliveries>> {
    let of_app = match &scope.login {
        LoginConfig::App { .. } => Some(Login::load(scope)?),
        LoginConfig::Token { .. } => None,
    };
    let login = Login::load(scope)?;
    let deliveries = HookDeliveries::beside(&client.registry, scope, login, of_app);
    let deliveries = deliveries.with_context(|| {
        let scope = &scope.scope;
        format!("cannot set up the client for the deliveries of {scope}")
    })?;
    Ok(Arc::new(deliveries))
}

/// Returns a reader of jobs from GitHub's API for each scope: with deliveries for all, and otherwise for those with a
/// pool whose demand is their queue.
pub(super) fn readers(
    config: &Config,
    registries: &BTreeMap<ScopeId, Client<GitHub>>,
    store: &Store,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<Vec<Reader<JobQueue, Store>>> {
    let mut readers = Vec::new();
    for scope in &config.scopes {
        let id = scope.scope_id();
        let mut pools = config.pools.iter().filter(|pool| pool.scope == id);
        let interval = if pools.any(|pool| pool.demand == Demand::Queue) {
            FOR_DEMAND
        } else if config.webhook.is_some() {
            BESIDE_DELIVERIES
        } else {
            continue;
        };
        let Some(client) = registries.get(&id) else {
            continue;
        };
        let queue = JobQueue::beside(&client.registry, scope, Login::load(scope)?);
        let queue = queue.with_context(|| {
            let scope = &scope.scope;
            format!("cannot set up the client for the jobs of {scope}")
        })?;
        let outside = Surroundings {
            records: store.clone(),
            events: events.clone(),
            unix_ms: clock::unix_ms,
        };
        readers.push(Reader::new(queue, id, interval, outside));
    }
    Ok(readers)
}

/// Maximum time for the sessions of all scale sets to close. A session that is not closed keeps the next one away.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);

/// The scale sets, whose tasks did not start so far.
pub(super) struct ScaleSets {
    /// Number of jobs that each pool can have altogether.
    pub(super) capacities: BTreeMap<PoolName, watch::Sender<u32>>,
    /// Their tasks, to start.
    pub(super) keepers: Vec<Keeper<ScaleSetService, Store>>,
}

/// The tasks of the scale sets, which close their sessions when the daemon stops.
pub(super) struct RunningScaleSets {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// Returns the scale sets of the pools.
pub(super) fn scale_sets(
    config: &Config,
    registries: &BTreeMap<ScopeId, Client<GitHub>>,
    store: &Store,
    events: &mpsc::Sender<Event>,
) -> ScaleSets {
    let mut sets = ScaleSets {
        capacities: BTreeMap::new(),
        keepers: Vec::new(),
    };
    // A set would draw jobs away from the system that serves them.
    if config.observes {
        return sets;
    }
    for pool in &config.pools {
        let (Some(name), Some(client)) = (&pool.scale_set, registries.get(&pool.scope)) else {
            continue;
        };
        let capacity = watch::Sender::new(0);
        let wanted = WantedSet {
            name: name.clone(),
            runner_group: pool.runner_group.clone(),
            labels: pool.labels.clone(),
        };
        let outside = scale_set::Surroundings {
            records: store.clone(),
            events: events.clone(),
            unix_ms: clock::unix_ms,
            now: clock::now,
        };
        let names = (pool.name.clone(), config.host.to_string());
        let service = client.registry.scale_sets();
        let keeper = Keeper::new(service, wanted, names, capacity.subscribe(), outside);
        sets.keepers.push(keeper);
        sets.capacities.insert(pool.name.clone(), capacity);
    }
    sets
}

/// Starts the tasks, once the loop has adopted what runs.
pub(super) fn start(keepers: Vec<Keeper<ScaleSetService, Store>>) -> RunningScaleSets {
    let (stop, mut tasks) = (watch::Sender::new(false), JoinSet::new());
    for keeper in keepers {
        tasks.spawn(keeper.run(stop.subscribe()));
    }
    RunningScaleSets { tasks, stop }
}

impl RunningScaleSets {
    /// Closes the sessions.
    pub(super) async fn close(self) {
        let Self { mut tasks, stop } = self;
        stop.send_replace(true);
        let closed = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            warn!("cannot close the sessions of all scale sets in time");
        }
    }
}
