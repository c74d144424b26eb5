//! The loop over a fake world, with paused time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

mod course;
mod failures;

use super::*;
use crate::pool::{
    EndRecord, Exit, FailureKind, Invocation, JobNote, ListedRunner, PhaseKind, Resource, RunnerId,
    StartRecord, UnitObservation, UnitState,
};
use crate::status::DaemonState;
use crate::world::{
    Deleted, Failure, JitConfig, MintRequest, Minted, RegistryError, RegistryErrorKind,
    RunnerRecord,
};

/// How long GitHub wants to be left alone, when it limits.
const LIMIT: Duration = Duration::from_mins(10);

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Paused time as the core's time.
fn now() -> Timestamp {
    let began = BEGAN.get().unwrap_or_else(Instant::now);
    BEGAN.set(Some(began));
    Timestamp::from_millis(
        1_000_000 + u64::try_from(began.elapsed().as_millis()).unwrap_or_default(),
    )
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Fault(String);

impl Failure for Fault {
    fn is_transient(&self) -> bool {
        true
    }
}

#[derive(Debug, Clone)]
struct Machine {
    invocation: Invocation,
    started_at: Timestamp,
    active: bool,
    asking: bool,
}

/// What is really there. Remembers every call and can be told to fail.
#[derive(Default)]
struct Inner {
    machines: BTreeMap<SlotId, Machine>,
    ends: BTreeMap<SlotId, EndRecord>,
    github: BTreeMap<u64, ListedRunner>,
    records: BTreeMap<SlotId, RunnerRecord>,
    verdicts: Vec<VerdictRecord>,
    settings: BTreeMap<String, String>,
    calls: Vec<&'static str>,
    minted_at: Vec<Timestamp>,
    next: u64,
    mint_fails: Option<RegistryErrorKind>,
    held: Option<Duration>,
    disk_full: bool,
    never_asks: bool,
    /// The waiting connection goes away in the moment it would be answered.
    hangs_up: bool,
}

#[derive(Clone)]
struct Fake {
    inner: Arc<Mutex<Inner>>,
    events: mpsc::Sender<Event>,
}

impl Fake {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap())
    }

    fn event(&self, slot: &SlotId) -> UnitObservation {
        self.with(|inner| {
            let machine = inner.machines.get(slot);
            UnitObservation {
                slot: slot.clone(),
                state: match machine {
                    Some(machine) if machine.active => UnitState::Active,
                    Some(_) => UnitState::Activating,
                    None => UnitState::Inactive,
                },
                invocation: machine.map(|machine| machine.invocation.clone()),
                start: machine.map(|machine| StartRecord {
                    invocation: machine.invocation.clone(),
                    generation: config().pools[0].generation(),
                    at: machine.started_at,
                }),
                end: inner.ends.get(slot).cloned().filter(|_| machine.is_none()),
            }
        })
    }

    async fn tell(&self, slot: &SlotId) {
        let _ = self.events.send(Event::Unit(self.event(slot))).await;
    }

    async fn ends(&self, slot: &SlotId, status: i32) {
        let ended = self.with(|inner| {
            let machine = inner.machines.remove(slot)?;
            let end = EndRecord {
                invocation: machine.invocation,
                service_result: "exit-code".into(),
                exit: Exit::Status(status),
                memory_peak_bytes: None,
                oom_kills: 0,
                at: now(),
            };
            inner.ends.insert(slot.clone(), end);
            inner
                .github
                .retain(|_, r| !(r.busy && r.name.contains(&format!("-{slot}-"))));
            Some(())
        });
        if ended.is_some() {
            self.tell(slot).await;
        }
    }

    async fn job_starts(&self, slot: &SlotId) {
        self.with(|inner| {
            for listed_runner in inner.github.values_mut() {
                listed_runner.busy |= listed_runner.name.contains(&format!("-{slot}-"));
            }
        });
        let note = JobNote {
            repository: "acme/widgets".into(),
            run_id: "7".into(),
            ..JobNote::default()
        };
        let _ = self
            .events
            .send(Event::JobStarted {
                slot: slot.clone(),
                note,
            })
            .await;
    }
}

impl Machines for Fake {
    type Error = Fault;

    async fn start(&self, slot: &SlotId) -> Result<(), Fault> {
        self.with(|inner| {
            inner.next += 1;
            let invocation = Invocation::parse(&format!("{:032x}", inner.next)).unwrap();
            let machine = Machine {
                invocation,
                started_at: now(),
                active: false,
                asking: false,
            };
            assert!(
                inner.machines.insert(slot.clone(), machine).is_none(),
                "two lives in {slot}"
            );
        });
        self.tell(slot).await;
        let (fake, slot) = (self.clone(), slot.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let asks = fake.with(|inner| {
                let asks = !inner.never_asks;
                if let Some(machine) = inner.machines.get_mut(&slot) {
                    machine.asking = asks;
                    machine.active = true;
                }
                asks
            });
            if asks {
                let _ = fake
                    .events
                    .send(Event::ConfigRequested { slot: slot.clone() })
                    .await;
            }
            fake.tell(&slot).await;
        });
        Ok(())
    }

    async fn stop(&self, slot: &SlotId) -> Result<(), Fault> {
        self.with(|inner| inner.calls.push("stop"));
        self.ends(slot, 0).await;
        Ok(())
    }

    async fn kill(&self, slot: &SlotId) -> Result<(), Fault> {
        self.with(|inner| inner.calls.push("kill"));
        self.ends(slot, 137).await;
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<UnitObservation>, Fault> {
        let mut slots: BTreeSet<SlotId> = config().slots().collect();
        slots.extend(self.with(|inner| inner.machines.keys().cloned().collect::<Vec<_>>()));
        Ok(slots.iter().map(|slot| self.event(slot)).collect())
    }
}

impl Registry for Fake {
    async fn mint(&self, request: &MintRequest) -> Result<Minted, RegistryError> {
        self.with(|inner| {
            inner.calls.push("mint");
            inner.minted_at.push(now());
            if let Some(kind) = inner.mint_fails {
                return Err(RegistryError {
                    operation: "generate-jitconfig",
                    kind,
                    status: Some(403),
                    message: "Resource not accessible".into(),
                    advice: None,
                    request_id: Some("AB12".into()),
                    retry_after: (kind == RegistryErrorKind::Limited).then_some(LIMIT),
                });
            }
            inner.next += 1;
            let id = RunnerId((1 << 40) + inner.next);
            let name = request.name.to_string();
            inner.github.insert(
                id.0,
                ListedRunner {
                    id,
                    name,
                    online: true,
                    busy: false,
                },
            );
            Ok(Minted {
                id,
                config: JitConfig::new("secret".into()),
            })
        })
    }

    async fn list(&self) -> Result<Vec<ListedRunner>, RegistryError> {
        Ok(self.with(|inner| {
            inner.calls.push("list");
            inner.github.values().cloned().collect()
        }))
    }

    fn hold(&self, wait: Duration) {
        self.with(|inner| inner.held = Some(wait));
    }

    async fn delete(&self, id: RunnerId) -> Result<Deleted, RegistryError> {
        Ok(self.with(|inner| {
            inner.calls.push("delete");
            if inner
                .github
                .get(&id.0)
                .is_some_and(|listed_runner| listed_runner.busy)
            {
                return Deleted::Busy;
            }
            inner.github.remove(&id.0);
            Deleted::Gone
        }))
    }
}

impl Handshake for Fake {
    type Error = Fault;

    async fn prepare(&self, _: &SlotId) -> Result<(), Fault> {
        Ok(())
    }

    async fn answer(&self, slot: &SlotId, _: JitConfig) -> Result<(), Fault> {
        self.with(|inner| match inner.machines.get_mut(slot) {
            Some(machine) if machine.asking && inner.hangs_up => {
                machine.asking = false;
                Err(Fault("the connection is gone".into()))
            }
            Some(machine) if machine.asking => {
                machine.asking = false;
                Ok(())
            }
            Some(_) | None => Err(Fault("nobody waits".into())),
        })
    }
}

impl Records for Fake {
    type Error = Fault;

    async fn load(&self) -> Result<Vec<RunnerRecord>, Fault> {
        Ok(self.with(|inner| inner.records.values().cloned().collect()))
    }

    async fn put(&self, record: RunnerRecord) -> Result<(), Fault> {
        self.with(|inner| {
            if inner.disk_full {
                return Err(Fault("disk full".into()));
            }
            inner.records.insert(record.slot.clone(), record);
            Ok(())
        })
    }

    async fn remove(&self, slot: SlotId) -> Result<(), Fault> {
        self.with(|inner| {
            if inner.disk_full {
                return Err(Fault("disk full".into()));
            }
            inner.records.remove(&slot);
            Ok(())
        })
    }

    async fn close(&self, verdict: VerdictRecord) -> Result<(), Fault> {
        self.with(|inner| {
            if inner.disk_full {
                return Err(Fault("disk full".into()));
            }
            inner.records.remove(&verdict.slot);
            inner.verdicts.push(verdict);
            Ok(())
        })
    }

    async fn recent(&self, count: usize) -> Result<Vec<VerdictRecord>, Fault> {
        Ok(self.with(|inner| inner.verdicts.iter().rev().take(count).cloned().collect()))
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, Fault> {
        Ok(self.with(|inner| inner.settings.get(key).cloned()))
    }

    async fn set_setting(&self, key: &str, value: Option<String>) -> Result<(), Fault> {
        self.with(|inner| {
            if inner.disk_full {
                return Err(Fault("disk full".into()));
            }
            match value {
                Some(value) => inner.settings.insert(key.to_owned(), value),
                None => inner.settings.remove(key),
            };
            Ok(())
        })
    }
}

fn config() -> Config {
    let text = r#"
host = "fuzz"
[github]
url = "https://github.com/acme/widgets"
token_file = "/t"
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

/// A daemon over the fake world, until `stop`.
struct Daemon {
    fake: Fake,
    status: watch::Receiver<Status>,
    requests: mpsc::Sender<Request>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Daemon {
    async fn start(inner: Arc<Mutex<Inner>>) -> Self {
        let (events, mut seen) = mpsc::channel(64);
        let fake = Fake { inner, events };
        let waiting = fake.with(|inner| {
            inner
                .machines
                .iter()
                .filter(|(_, m)| m.asking)
                .map(|(slot, _)| slot.clone())
                .collect::<Vec<_>>()
        });
        for slot in waiting {
            fake.events
                .send(Event::ConfigRequested { slot })
                .await
                .unwrap();
        }
        let environment = Environment {
            machines: Arc::new(fake.clone()),
            registry: Arc::new(fake.clone()),
            handshake: Arc::new(fake.clone()),
            records: Arc::new(fake.clone()),
            now,
            unix_ms: || 0,
            random: rand::random,
            boot_id: "boot".into(),
            calls: Box::new(BTreeMap::new),
            explain_exit: |_| None,
        };
        let (show, status) = watch::channel(Status::default());
        let (requests, mut asked) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel::<()>();
        let mut controller = Controller::new(Arc::new(config()), environment, 2, show);
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

    async fn stop(mut self) -> Arc<Mutex<Inner>> {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap();
        self.fake.inner
    }
}

fn count(status: &Status, phase: PhaseKind) -> u64 {
    status.pools[0].count(phase)
}

fn waits(status: &Status) -> bool {
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
    daemon.until("at rest", waits).await;
    daemon
}
