//! The sources that tell which jobs wait: the listener for deliveries, and readings of GitHub's API.

use std::collections::BTreeMap;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::{Config, GitHubConfig};
use crate::controller::Client;
use crate::github::{GitHub, JobQueue, Login};
use crate::pool::{Demand, KnownJob, ScopeId};
use crate::queue::{BESIDE_DELIVERIES, FOR_DEMAND, Reader, Surroundings};
use crate::store::Store;
use crate::webhook::{self, Counts, Receiver, Secrets};
use crate::world::{Event, chain};
use crate::{clock, http};

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

/// Serves the listener for GitHub's deliveries, if one is configured.
pub(super) async fn listen_for_deliveries(
    config: &Config,
    store: &Store,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let Some(webhook) = &config.webhook else {
        return Ok(());
    };
    let counts = Counts::default();
    tokio::spawn(webhook::report(counts.subscribe(), events.clone()));
    let router = webhook::router(Receiver {
        secrets: Secrets::load(webhook)?,
        scopes: config.scopes.iter().map(GitHubConfig::scope_id).collect(),
        inbox: store.clone(),
        events: events.clone(),
        counts,
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
