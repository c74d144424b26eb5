//! The tasks that keep scale sets, assembled as `run` assembles them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runner_controller::config::Config;
use runner_controller::github::ScaleSetService;
use runner_controller::pool::PoolName;
use runner_controller::scale_set::{Keeper, Surroundings};
use runner_controller::world::{Event, WantedSet};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::access::Access;
use super::records::JobsFile;
use crate::clock;

/// Maximum time for the sessions of all scale sets to close, as in `run`.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);

/// The scale sets, whose tasks did not start so far.
pub(super) struct ScaleSets {
    pub(super) capacities: BTreeMap<PoolName, watch::Sender<u32>>,
    pub(super) keepers: Vec<Keeper<ScaleSetService, JobsFile>>,
}

/// The tasks. They end with the daemon.
pub(super) struct RunningScaleSets {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// Returns the scale sets of the pools.
pub(super) fn of(
    config: &Config,
    service: &Arc<ScaleSetService>,
    access: &Access,
    events: mpsc::Sender<Event>,
) -> ScaleSets {
    let (mut capacities, mut keepers) = (BTreeMap::new(), Vec::new());
    for pool in &config.pools {
        let Some(name) = &pool.scale_set else {
            continue;
        };
        let capacity = watch::Sender::new(0);
        let wanted = WantedSet {
            name: name.clone(),
            runner_group: pool.runner_group.clone(),
            labels: pool.labels.clone(),
        };
        let outside = Surroundings {
            records: JobsFile::new(access.clone()),
            events: events.clone(),
            unix_ms: clock::unix_ms,
            now: clock::now,
        };
        let names = (pool.name.clone(), config.host.to_string());
        let service = Arc::clone(service);
        let keeper = Keeper::new(service, wanted, names, capacity.subscribe(), outside);
        keepers.push(keeper);
        capacities.insert(pool.name.clone(), capacity);
    }
    ScaleSets {
        capacities,
        keepers,
    }
}

/// Starts the tasks.
pub(super) fn start(keepers: Vec<Keeper<ScaleSetService, JobsFile>>) -> RunningScaleSets {
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
        // The next daemon waits for sessions that could not be closed.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
    }
}
