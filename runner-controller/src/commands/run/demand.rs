//! The sources that tell which jobs wait: the listener for deliveries, and readings of GitHub's API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::config::{Config, GitHubConfig, LoginConfig, Scope};
use crate::controller::Client;
use crate::github::{GitHub, HookDeliveries, JobQueue, Login, ScaleSetService};
use crate::pool::{Demand, KnownJob, ScopeId};
use crate::queue::{BESIDE_OTHERS, FOR_DEMAND, Reader, Surroundings};
use crate::scale_set::{self, Keepers};
use crate::store::Store;
use crate::webhook::{self, Counts, Receiver, Secrets};
use crate::world::{Event, Hook, KnownHooks, Records as _, chain};
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
/// pool whose demand is their queue, and for repositories with a scale set, which may not tell of a job.
pub(super) fn readers(
    config: &Config,
    registries: &BTreeMap<ScopeId, Client<GitHub>>,
    store: &Store,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<Vec<Reader<JobQueue, Store>>> {
    let mut readers = Vec::new();
    for scope in &config.scopes {
        let id = scope.scope_id();
        let Some(interval) = reading_interval(config, scope) else {
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

/// Returns the interval between readings of a scope's queue; `None` if nothing needs them.
fn reading_interval(config: &Config, scope: &GitHubConfig) -> Option<Duration> {
    let id = scope.scope_id();
    let pools = config.pools.iter().filter(|pool| pool.scope == id);
    let demands: BTreeSet<Demand> = pools.map(|pool| pool.demand).collect();
    // Other scopes have no queue to read.
    let is_repository = matches!(scope.scope, Scope::Repository { .. });
    if demands.contains(&Demand::Queue) {
        Some(FOR_DEMAND)
    } else if config.webhook.is_some() || (is_repository && demands.contains(&Demand::ScaleSet)) {
        Some(BESIDE_OTHERS)
    } else {
        None
    }
}

/// Returns the keepers of the pools' scale sets.
pub(super) fn scale_sets(
    config: &Config,
    registries: &BTreeMap<ScopeId, Client<GitHub>>,
    store: &Store,
    events: &mpsc::Sender<Event>,
) -> Keepers<ScaleSetService, Store> {
    let service = |scope: &ScopeId| Some(registries.get(scope)?.registry.scale_sets());
    Keepers::of(config, service, || scale_set::Surroundings {
        records: store.clone(),
        events: events.clone(),
        unix_ms: clock::unix_ms,
        now: clock::now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_read_if_pools_follow_it_or_another_source_may_miss_a_job() {
        const WEBHOOK: &str = "[webhook]\nlisten = \"127.0.0.1:1\"\nsecret_file = \"/s\"\n";
        for (url, webhook, demand, interval) in [
            ("acme/widgets", "", "fixed", None),
            ("acme/widgets", "", "queue", Some(FOR_DEMAND)),
            ("acme/widgets", "", "scale-set", Some(BESIDE_OTHERS)),
            ("acme", "", "scale-set", None),
            ("acme", WEBHOOK, "scale-set", Some(BESIDE_OTHERS)),
            ("acme/widgets", WEBHOOK, "fixed", Some(BESIDE_OTHERS)),
        ] {
            let text = format!(
                "host = \"h\"\n{webhook}[github]\nurl = \"https://github.com/{url}\"\ntoken_file = \"/t\"\n\
                 [network]\nblock = \"10.200.0.0/24\"\nresolvers = [\"9.9.9.9\"]\n[pools.ci]\nlabels = [\"ci\"]\n\
                 max_runners = 3\ndemand = \"{demand}\"\nimage = {{ kind = \"directory\", path = \"/i\" }}\n"
            );
            let config = crate::config::parse(std::path::Path::new("test"), &text).unwrap();
            let found = reading_interval(&config, &config.scopes[0]);
            assert_eq!(found, interval, "{url} {webhook} {demand}");
        }
    }
}
