//! The controller over a simulated world, with paused time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

mod adoption;
mod bounds;
mod calendar;
mod cost;
mod failures;
mod fake;
mod groups;
mod lifecycle;
mod observing;
mod probe;
mod scopes;
mod versions;

use super::*;
use crate::config::GitHubConfig;
use crate::pool::{
    Deleted, EndRecord, Exit, FailureKind, Invocation, JobNote, ListedRunner, PhaseKind,
    RecordedEnd, Registration, Resource, RunnerGroup, RunnerId, RunnerName, RunnerRecord,
    RunnerVersion, SlotId, StartRecord, StrayRecord, UnitObservation, UnitState, Verdict,
    VerdictRecord, VersionEnd,
};
use crate::status::{DaemonState, RunnerStatus, TracesStatus};
use crate::world::{
    Failure, JitConfig, MintRequest, MintWindow, Minted, RegistryError, RegistryErrorKind,
};
use fake::{Fake, Machine, World, now};

const MINUTE: Duration = Duration::from_mins(1);

/// Configured pace of mints.
const MINTS_PER_MINUTE: usize = 60;

/// Length of GitHub's rate limit.
const LIMIT: Duration = Duration::from_mins(10);

fn config() -> Config {
    let text = r#"
host = "fuzz"
[github]
url = "https://github.com/acme/widgets"
token_file = "/t"
mints_per_minute = 60
[network]
block = "10.200.0.0/24"
resolvers = ["9.9.9.9"]
[pools.ci]
labels = ["ci"]
max_runners = 3
image = { kind = "directory", path = "/i" }
"#;
    crate::config::parse(std::path::Path::new("test"), text).unwrap()
}

/// Returns the same pool in the scope `one`, and a pool like it in the scope `two`.
fn two_scopes() -> Config {
    let mut config = config();
    let mut second = config.scopes[0].clone();
    second.scope = crate::config::Scope::parse("acme/gadgets");
    for (scope, name) in [(&mut config.scopes[0], "one"), (&mut second, "two")] {
        scope.name = Some(name.parse().unwrap());
    }
    let mut pool = config.pools[0].clone();
    pool.name = "two".parse().unwrap();
    pool.offset = 10;
    pool.scope = second.scope_id();
    config.scopes.push(second);
    config.pools.push(pool);
    config
}

/// A daemon over the simulated world, until `stop`.
struct Daemon {
    fake: Fake,
    status: watch::Receiver<Status>,
    requests: mpsc::Sender<Request>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Daemon {
    async fn start(world: Arc<Mutex<World>>) -> Self {
        let (events, mut seen) = mpsc::channel(64);
        let fake = Fake { world, events };
        let waiting = fake.with(|world| {
            world
                .machines
                .iter()
                .filter(|(_, m)| m.waiting)
                .map(|(slot, _)| slot.clone())
                .collect::<Vec<_>>()
        });
        for slot in waiting {
            fake.events
                .send(Event::ConfigRequested { slot })
                .await
                .unwrap();
        }
        let former = fake
            .with(|world| world.former.clone())
            .map(|(scope, world)| {
                let events = fake.events.clone();
                (scope, Ok(client(Fake { world, events })))
            });
        let former = former.into_iter().collect();
        let config = fake.config();
        let second = fake.with(|world| world.second.clone()).map(|world| {
            let events = fake.events.clone();
            Fake { world, events }
        });
        let scopes = config.scopes.iter().map(GitHubConfig::scope_id);
        let registries = std::iter::once(fake.clone()).chain(second);
        let registries = registries.map(client);
        let environment = Environment {
            machines: Arc::new(fake.clone()),
            registries: scopes.zip(registries).collect(),
            former,
            handshake: Arc::new(fake.clone()),
            records: Arc::new(fake.clone()),
            now,
            // The wall clock stands at zero, unless a schedule needs it.
            unix_ms: if config.pools.iter().all(|pool| pool.schedule.is_empty()) {
                || 0
            } else {
                || now().millis()
            },
            random: rand::random,
            boot_id: "boot".into(),
            calls: Box::new(BTreeMap::new),
            explain_exit: |_| None,
            notes: Vec::new(),
            jobs: (config.pools.iter())
                .any(|pool| pool.demand.follows_jobs())
                .then(Vec::new),
            job_started: watch::Sender::default(),
            capacities: BTreeMap::new(),
            traces: Some(Arc::new(fake.clone())),
        };
        let (show, status) = watch::channel(Status::default());
        let (requests, mut asked) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel::<()>();
        let mut controller = Controller::new(Arc::new(config), environment, 2, show);
        controller.adopt(&mut seen).await.unwrap();
        let task = tokio::spawn(async move {
            controller
                .run(seen, &mut asked, async {
                    let _ = stopped.await;
                })
                .await;
        });
        Self {
            fake,
            status,
            requests,
            stop: Some(stop),
            task,
        }
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let hour = Duration::from_hours(1);
        let seen = tokio::time::timeout(hour, self.status.wait_for(|status| holds(status))).await;
        if let Ok(status) = seen.map(|status| status.unwrap().clone()) {
            return status;
        }
        panic!("never {what}: {:#?}", *self.status.borrow())
    }

    async fn ask(&self, command: Command) {
        let (reply, answer) = oneshot::channel();
        self.requests.send((command, reply)).await.unwrap();
        answer.await.unwrap();
    }

    async fn stop(mut self) -> Arc<Mutex<World>> {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap();
        self.fake.world
    }
}

fn client(fake: Fake) -> Client<Fake> {
    Client {
        registry: Arc::new(fake),
        account: "account".into(),
    }
}

fn count(status: &Status, phase: PhaseKind) -> u64 {
    status.pools[0].count(phase)
}

fn is_settled(status: &Status) -> bool {
    !status.pools.is_empty()
        && count(status, PhaseKind::Idle) == 1
        && count(status, PhaseKind::Spare) == 1
        && count(status, PhaseKind::Booting) == 0
}

fn verdict(status: &Status, verdict: Verdict) -> u64 {
    status.pools[0]
        .verdicts
        .get(&verdict)
        .copied()
        .unwrap_or_default()
}

fn slot(text: &str) -> SlotId {
    text.parse().unwrap()
}

async fn daemon() -> Daemon {
    let mut daemon = Daemon::start(Arc::default()).await;
    daemon.until("settled", is_settled).await;
    daemon
}

fn shared(world: World) -> Arc<Mutex<World>> {
    Arc::new(Mutex::new(world))
}
