//! The keepers of all scale sets of a host, and their tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::{Keeper, Surroundings};
use crate::config::Config;
use crate::pool::{PoolName, ScopeId};
use crate::world::{JobRecords, ScaleSets, WantedSet};

/// Maximum time for the sessions of all scale sets to close. A session that is not closed keeps the next one away.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(8);

/// The keepers of a host, whose tasks did not start so far.
pub struct Keepers<S: ScaleSets, R> {
    capacities: BTreeMap<PoolName, watch::Sender<u32>>,
    keepers: Vec<Keeper<S, R>>,
}

impl<S: ScaleSets, R: JobRecords> Keepers<S, R> {
    /// Returns a keeper for each pool with a scale set; none while the host only observes, because a set would draw
    /// jobs away from the system that serves them.
    ///
    /// `service` returns the service of a scope.
    pub fn of(
        config: &Config,
        service: impl Fn(&ScopeId) -> Option<Arc<S>>,
        outside: impl Fn() -> Surroundings<R>,
    ) -> Self {
        let (mut capacities, mut keepers) = (BTreeMap::new(), Vec::new());
        let pools = config.pools.iter().filter(|_| !config.observes);
        for pool in pools {
            let (Some(name), Some(service)) = (&pool.scale_set, service(&pool.scope)) else {
                continue;
            };
            let capacity = watch::Sender::new(0);
            let wanted = WantedSet {
                name: name.clone(),
                runner_group: pool.runner_group.clone(),
                labels: pool.labels.clone(),
            };
            let names = (pool.name.clone(), config.host.to_string());
            let keeper = Keeper::new(service, wanted, names, capacity.subscribe(), outside());
            keepers.push(keeper);
            capacities.insert(pool.name.clone(), capacity);
        }
        Self {
            capacities,
            keepers,
        }
    }

    /// Takes the senders of the number of jobs that each pool can have altogether. A second call returns none.
    pub fn take_capacities(&mut self) -> BTreeMap<PoolName, watch::Sender<u32>> {
        std::mem::take(&mut self.capacities)
    }

    /// Starts the tasks, once the loop has adopted what runs.
    #[must_use]
    pub fn start(self) -> KeeperTasks {
        let (mut stops, mut tasks) = (Vec::new(), JoinSet::new());
        for keeper in self.keepers {
            let stop = watch::Sender::new(false);
            tasks.spawn(keeper.run(stop.subscribe()));
            stops.push(stop);
        }
        KeeperTasks { tasks, stops }
    }
}

/// The tasks of the keepers. They end with this value.
pub struct KeeperTasks {
    tasks: JoinSet<()>,
    /// One for each task: a channel wakes its receivers in random order, and a simulated history has one order.
    stops: Vec<watch::Sender<bool>>,
}

impl KeeperTasks {
    /// Closes the sessions. The next daemon waits for those that could not be closed.
    pub async fn close(self) {
        let Self { mut tasks, stops } = self;
        for stop in &stops {
            stop.send_replace(true);
        }
        let closed = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            warn!("cannot close the sessions of all scale sets in time");
        }
    }
}
