//! One daemon: the real controller and the real GitHub client over the simulated world, assembled as `run`
//! assembles them.
//!
//! ```text
//! access                       the world, as one daemon reaches it
//! systemd, handshake, records  the controller's environment, and the jobs on record for the keepers of scale sets
//! wire                         the GitHub client's network
//! ```
//! A mutation changes what passes through them.

mod access;
mod handshake;
mod records;
mod systemd;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runner_controller::config::{Config, GitHubConfig};
use runner_controller::controller::{Client, Controller, Environment, Request};
use runner_controller::github::{GitHub, Token};
use runner_controller::pool::Budget;
use runner_controller::scale_set::{Keepers, Surroundings};
use runner_controller::status::Status;
use runner_controller::world::Event;
use tokio::sync::{mpsc, oneshot, watch};

use crate::mutation::Mutation;
use crate::world::WorldHandle;
use crate::{clock, configs};

use access::Access;
use handshake::Sockets;
use records::{JobsFile, RecordsFile};
use systemd::Systemd;
use wire::Wire;

/// Capacity of the channel of events, as in `run`.
const EVENTS: usize = 1024;

/// A daemon that is to be started.
pub(crate) struct Start {
    /// The world.
    pub(crate) world: WorldHandle,
    /// Number of the daemon in its history.
    pub(crate) incarnation: u64,
    /// The configuration that it read.
    pub(crate) config: Arc<Config>,
    /// Its defect.
    pub(crate) mutation: Option<Mutation>,
    /// Commands of operators.
    pub(crate) requests: mpsc::Receiver<Request>,
    /// SIGTERM.
    pub(crate) stop: oneshot::Receiver<()>,
    /// Its status.
    pub(crate) status: watch::Sender<Status>,
}

fn client_of(github: GitHub, config: &GitHubConfig) -> Client<GitHub> {
    Client {
        registry: Arc::new(github),
        account: config.account(),
    }
}

/// Returns the configuration as a daemon with a defect knows it.
fn known_config(config: Arc<Config>, mutation: Option<Mutation>) -> Arc<Config> {
    let mut known = (*config).clone();
    match mutation {
        Some(Mutation::BudgetIgnored) => known.budget = Budget::default(),
        Some(Mutation::FairnessIgnored) => known.order.fairness_age = Duration::from_hours(24),
        _ => return config,
    }
    Arc::new(known)
}

/// Runs the daemon until it is told to stop, or cannot adopt what runs.
pub(crate) async fn run(start: Start) {
    let Start {
        world,
        incarnation,
        config,
        mutation,
        mut requests,
        stop,
        status,
    } = start;
    let (event, mut events) = mpsc::channel::<Event>(EVENTS);
    let access = Access {
        world: world.clone(),
        incarnation,
        mutation,
    };
    let Ok(token) = Token::new("ghp_simulated") else {
        return;
    };
    let Some(configured) = config.scopes.first() else {
        return;
    };
    let scope = configured.scope.to_string();
    let wire = Wire::new(access.clone(), scope, Arc::clone(&config));
    let Ok(github) = GitHub::over(configured, token, wire.clone()) else {
        return;
    };
    let mut former = BTreeMap::new();
    for scope in configs::scopes() {
        let other = GitHubConfig {
            scope,
            ..configured.clone()
        };
        let Ok(token) = Token::new("ghp_simulated") else {
            return;
        };
        if other.scope != configured.scope
            && let Ok(client) = github.over_beside(&other, token, wire.clone())
        {
            former.insert(other.scope_id(), Ok(client_of(client, &other)));
        }
    }
    let (boot_id, jobs) = world.with(|world| {
        let (event, config) = (event.clone(), Arc::clone(&config));
        (world.supervisor).connect(incarnation, event, config, &mut world.schedule);
        let mut jobs = world.deliveries.records();
        jobs.extend(world.disk.jobs());
        (world.host.boot_id(), jobs)
    });
    let service = github.scale_sets();
    let mut scale_sets = Keepers::of(
        &config,
        |_| Some(Arc::clone(&service)),
        || Surroundings {
            records: JobsFile::new(access.clone()),
            events: event.clone(),
            unix_ms: clock::unix_ms,
            now: clock::now,
        },
    );

    let environment = Environment {
        machines: Arc::new(Systemd::new(access.clone(), Arc::clone(&config))),
        registries: [(configured.scope_id(), client_of(github, configured))].into(),
        former,
        handshake: Arc::new(Sockets::new(access.clone())),
        records: Arc::new(RecordsFile::new(access)),
        now: clock::now,
        unix_ms: clock::unix_ms,
        random: clock::random,
        boot_id,
        calls: Box::new(BTreeMap::new),
        explain_exit: |_| None,
        notes: Vec::new(),
        jobs: config.webhook.as_ref().map(|_| jobs),
        job_started: watch::Sender::default(),
        capacities: scale_sets.take_capacities(),
        traces: None,
    };
    let config = known_config(config, mutation);
    let mut controller = Controller::new(config, environment, 2, status);
    if controller.adopt(&mut events).await.is_err() {
        return;
    }
    let scale_sets = scale_sets.start();
    let stopped = async {
        let _ = stop.await;
        scale_sets.close().await;
    };
    controller.run(events, &mut requests, stopped).await;
    // The descriptors that it opened last are on their way to systemd.
    tokio::time::sleep(Duration::from_millis(3)).await;
}
