//! The loop over a fake world, with paused time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

mod trouble;

use super::*;
use crate::pool::{
    Exit, Invocation, JobNote, LifeEnd, LifeStart, Registration, Resource, RunnerId, UnitSight,
    UnitState,
};
use crate::world::{
    Deleted, Failure, JitConfig, LifeRecord, MintRequest, Minted, RegistryError, RegistryErrorKind,
    VerdictRecord,
};

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
    born: Timestamp,
    active: bool,
    asking: bool,
}

/// What is really there. Remembers every call and can be told to fail.
#[derive(Default)]
struct Inner {
    machines: BTreeMap<SlotId, Machine>,
    ends: BTreeMap<SlotId, LifeEnd>,
    github: BTreeMap<u64, Registration>,
    records: BTreeMap<SlotId, LifeRecord>,
    verdicts: Vec<VerdictRecord>,
    settings: BTreeMap<String, String>,
    calls: Vec<&'static str>,
    minted_at: Vec<Timestamp>,
    next: u64,
    mint_fails: Option<RegistryErrorKind>,
    disk_full: bool,
    never_asks: bool,
    /// The waiting connection goes away in the moment it would be answered.
    hangs_up: bool,
}

#[derive(Clone)]
struct Fake {
    inner: Arc<Mutex<Inner>>,
    sights: mpsc::Sender<Sight>,
}

impl Fake {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap())
    }

    fn sight(&self, slot: &SlotId) -> UnitSight {
        self.with(|inner| {
            let machine = inner.machines.get(slot);
            UnitSight {
                slot: slot.clone(),
                state: match machine {
                    Some(machine) if machine.active => UnitState::Active,
                    Some(_) => UnitState::Activating,
                    None => UnitState::Inactive,
                },
                invocation: machine.map(|machine| machine.invocation.clone()),
                start: machine.map(|machine| LifeStart {
                    invocation: machine.invocation.clone(),
                    generation: config().pools[0].generation(),
                    at: machine.born,
                }),
                end: inner.ends.get(slot).cloned().filter(|_| machine.is_none()),
            }
        })
    }

    async fn tell(&self, slot: &SlotId) {
        let _ = self.sights.send(Sight::Unit(self.sight(slot))).await;
    }

    async fn ends(&self, slot: &SlotId, status: i32) {
        let ended = self.with(|inner| {
            let machine = inner.machines.remove(slot)?;
            let end = LifeEnd {
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
            for registration in inner.github.values_mut() {
                registration.busy |= registration.name.contains(&format!("-{slot}-"));
            }
        });
        let note = JobNote {
            repository: "acme/widgets".into(),
            run_id: "7".into(),
            ..JobNote::default()
        };
        let _ = self
            .sights
            .send(Sight::JobStarted {
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
                born: now(),
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
                let _ = fake.sights.send(Sight::Asked { slot: slot.clone() }).await;
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

    async fn look(&self) -> Result<Vec<UnitSight>, Fault> {
        let mut slots: BTreeSet<SlotId> = config().slots().collect();
        slots.extend(self.with(|inner| inner.machines.keys().cloned().collect::<Vec<_>>()));
        Ok(slots.iter().map(|slot| self.sight(slot)).collect())
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
                    retry_after: None,
                });
            }
            inner.next += 1;
            let id = RunnerId((1 << 40) + inner.next);
            let name = request.name.to_string();
            inner.github.insert(
                id.0,
                Registration {
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

    async fn list(&self) -> Result<Vec<Registration>, RegistryError> {
        Ok(self.with(|inner| {
            inner.calls.push("list");
            inner.github.values().cloned().collect()
        }))
    }

    async fn delete(&self, id: RunnerId) -> Result<Deleted, RegistryError> {
        Ok(self.with(|inner| {
            inner.calls.push("delete");
            if inner
                .github
                .get(&id.0)
                .is_some_and(|registration| registration.busy)
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

    async fn load(&self) -> Result<Vec<LifeRecord>, Fault> {
        Ok(self.with(|inner| inner.records.values().cloned().collect()))
    }

    async fn put(&self, record: LifeRecord) -> Result<(), Fault> {
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
        let (sights, mut seen) = mpsc::channel(64);
        let fake = Fake { inner, sights };
        let waiting = fake.with(|inner| {
            inner
                .machines
                .iter()
                .filter(|(_, m)| m.asking)
                .map(|(slot, _)| slot.clone())
                .collect::<Vec<_>>()
        });
        for slot in waiting {
            fake.sights.send(Sight::Asked { slot }).await.unwrap();
        }
        let ports = Ports {
            machines: Arc::new(fake.clone()),
            registry: Arc::new(fake.clone()),
            handshake: Arc::new(fake.clone()),
            records: Arc::new(fake.clone()),
            now,
            unix_ms: || 0,
            dice: rand::random,
            boot_id: "boot".into(),
            calls: Box::new(BTreeMap::new),
            explain_exit: |_| None,
        };
        let (show, status) = watch::channel(Status::default());
        let (requests, mut asked) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel::<()>();
        let mut controller = Controller::new(Arc::new(config()), ports, 2, show);
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

fn count(status: &Status, phase: &str) -> u64 {
    status.pools[0]
        .phases
        .get(phase)
        .copied()
        .unwrap_or_default()
}

fn waits(status: &Status) -> bool {
    !status.pools.is_empty()
        && count(status, "idle") == 1
        && count(status, "spare") == 1
        && count(status, "booting") == 0
}

fn verdict(status: &Status, verdict: &str) -> u64 {
    status.pools[0]
        .verdicts
        .get(verdict)
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

#[tokio::test(start_paused = true)]
async fn a_job_costs_one_call_and_the_next_runner_is_there_before_it_ends() {
    let mut daemon = daemon().await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    let status = daemon
        .until("replaced", |s| {
            count(s, "busy") == 1 && count(s, "registering") == 1
        })
        .await;
    let job = status.pools[0].runners[0].job.clone().unwrap();
    assert_eq!(
        (job.repository.as_str(), job.run_id.as_str()),
        ("acme/widgets", "7")
    );
    daemon.fake.ends(&slot("ci-1"), 0).await;
    daemon
        .until("judged", |s| verdict(s, "job_done") == 1 && waits(s))
        .await;
    let calls = daemon.fake.with(|inner| inner.calls.clone());
    assert_eq!(calls.iter().filter(|call| **call == "mint").count(), 2);
    assert!(!calls.contains(&"delete"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_mint_keeps_the_spare_and_says_why() {
    let mut daemon = Daemon::start(Arc::new(Mutex::new(Inner {
        mint_fails: Some(RegistryErrorKind::Forbidden),
        ..Inner::default()
    })))
    .await;
    let status = daemon
        .until("refused", |s| {
            s.github.error.is_some() && s.pools[0].backoffs.iter().any(|b| b.failures > 3)
        })
        .await;
    assert_eq!(count(&status, "spare"), 2, "{status:#?}");
    assert!(
        status.github.error.unwrap().contains("AB12"),
        "the request id is there"
    );
    assert!(!crate::http::health(&daemon.status.borrow()).healthy);
    daemon.fake.with(|inner| inner.mint_fails = None);
    let status = daemon.until("mended", waits).await;
    assert_eq!(status.github.error, None);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_asks_is_replaced_after_its_time() {
    let mut daemon = Daemon::start(Arc::new(Mutex::new(Inner {
        never_asks: true,
        ..Inner::default()
    })))
    .await;
    let status = daemon
        .until("given up", |s| {
            !s.pools.is_empty() && verdict(s, "boot_timeout") >= 2
        })
        .await;
    assert!(
        status.pools[0]
            .backoffs
            .iter()
            .any(|backoff| backoff.trouble == "boot")
    );
    daemon.fake.with(|inner| inner.never_asks = false);
    daemon.until("mended", waits).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_every_life() {
    let mut first = daemon().await;
    first.fake.job_starts(&slot("ci-1")).await;
    let before = first
        .until("busy", |s| {
            count(s, "busy") == 1 && count(s, "idle") == 1 && count(s, "spare") == 1
        })
        .await;
    let world = first.stop().await;
    let mut second = Daemon::start(world).await;
    let after = second.until("adopted", |s| !s.pools.is_empty()).await;
    let lives = |status: &Status| -> Vec<_> {
        let runners = status.pools[0].runners.iter();
        runners
            .map(|r| {
                (
                    r.machine.clone(),
                    r.phase.clone(),
                    r.invocation.clone(),
                    r.runner_id,
                )
            })
            .collect()
    };
    assert_eq!(lives(&before), lives(&after));
    second.fake.ends(&slot("ci-1"), 0).await;
    second
        .until("judged", |s| verdict(s, "job_done") == 1 && waits(s))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_life_that_ended_while_nobody_watched_gets_its_verdict() {
    let mut first = daemon().await;
    first.fake.job_starts(&slot("ci-1")).await;
    first
        .until("busy", |s| count(s, "busy") == 1 && count(s, "idle") == 1)
        .await;
    let fake = first.fake.clone();
    let world = first.stop().await;
    fake.ends(&slot("ci-1"), 0).await;
    let mut second = Daemon::start(world).await;
    second
        .until("judged", |s| {
            !s.pools.is_empty() && verdict(s, "job_done") == 1 && waits(s)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_the_job_and_nothing_else() {
    let mut daemon = daemon().await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    daemon
        .until("busy", |s| count(s, "busy") == 1 && count(s, "idle") == 1)
        .await;
    daemon.ask(Command::Drain).await;
    let status = daemon
        .until("empty but for the job", |s| s.pools[0].runners.len() == 1)
        .await;
    assert_eq!(
        (count(&status, "busy"), status.state.as_str()),
        (1, "draining")
    );
    daemon.fake.ends(&slot("ci-1"), 0).await;
    daemon.until("drained", |s| s.state == "drained").await;
    assert!(daemon.fake.with(|inner| inner.github.is_empty()));
    let world = daemon.stop().await;
    let mut next = Daemon::start(world).await;
    next.until("still drained", |s| s.state == "drained").await;
    next.ask(Command::Undrain).await;
    next.until("at rest", waits).await;
}

#[tokio::test(start_paused = true)]
async fn clearing_ends_jobs_too_and_deregisters_them() {
    let mut daemon = daemon().await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    daemon
        .until("busy", |s| count(s, "busy") == 1 && count(s, "idle") == 1)
        .await;
    daemon.ask(Command::Clear).await;
    daemon.until("cleared", |s| s.state == "cleared").await;
    assert!(
        daemon
            .fake
            .with(|inner| inner.github.is_empty() && inner.machines.is_empty())
    );
    assert!(
        daemon.fake.with(|inner| inner.calls.contains(&"stop")),
        "the job was told"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_shown_stops_no_job_and_loses_no_verdict() {
    let mut daemon = Daemon::start(Arc::new(Mutex::new(Inner {
        disk_full: true,
        ..Inner::default()
    })))
    .await;
    daemon
        .until("at rest", |s| waits(s) && s.records_error.is_some())
        .await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    daemon.fake.ends(&slot("ci-1"), 0).await;
    daemon
        .until("judged", |s| verdict(s, "job_done") == 1 && waits(s))
        .await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(daemon.fake.with(|inner| inner.verdicts.len()), 0);
    daemon.fake.with(|inner| inner.disk_full = false);
    daemon.until("written", |s| s.records_error.is_none()).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let status = daemon.until("at rest", waits).await;
    daemon.fake.with(|inner| {
        let verdicts: Vec<&str> = inner.verdicts.iter().map(|v| v.verdict.as_str()).collect();
        assert_eq!(verdicts, ["job_done"]);
        let kept: Vec<(String, String)> = inner
            .records
            .values()
            .map(|record| (record.slot.to_string(), record.phase.clone()))
            .collect();
        let shown: Vec<(String, String)> = status.pools[0]
            .runners
            .iter()
            .map(|runner| (runner.machine.clone(), runner.phase.clone()))
            .collect();
        assert_eq!(kept, shown);
    });
}

#[tokio::test(start_paused = true)]
async fn a_stray_of_a_lost_mint_is_deleted() {
    let mut daemon = daemon().await;
    daemon.fake.with(|inner| {
        let name = "fuzz-ci-3-0000dead".to_owned();
        inner.github.insert(
            5,
            Registration {
                id: RunnerId(5),
                name,
                online: false,
                busy: false,
            },
        );
    });
    daemon
        .until("seen", |s| s.strays == ["fuzz-ci-3-0000dead"])
        .await;
    daemon.until("gone", |s| s.strays.is_empty()).await;
    assert!(!daemon.fake.with(|inner| inner.github.contains_key(&5)));
}

#[tokio::test(start_paused = true)]
async fn a_bad_firewall_closes_admission_and_ends_nothing() {
    let mut daemon = daemon().await;
    let firewall = |wrong: Option<&str>| Sight::Firewall {
        wrong: wrong.map(str::to_owned),
    };
    let sights = daemon.fake.sights.clone();
    sights.send(firewall(Some("a rule is gone"))).await.unwrap();
    daemon
        .until("closed", |s| s.closed == ["firewall: a rule is gone"])
        .await;
    // The job that comes is run by the runner that waits for it; nobody takes its place.
    daemon.fake.job_starts(&slot("ci-1")).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    let status = daemon.until("busy", |s| count(s, "busy") == 1).await;
    assert_eq!(status.firewall_error.as_deref(), Some("a rule is gone"));
    assert_eq!((count(&status, "spare"), count(&status, "idle")), (1, 0));
    assert_eq!(count(&status, "registering") + count(&status, "booting"), 0);
    sights.send(firewall(None)).await.unwrap();
    daemon
        .until("open again", |s| {
            s.closed.is_empty() && count(s, "busy") == 1 && waits(s)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_runs_short_takes_no_new_runner_until_it_has_enough() {
    let mut daemon = daemon().await;
    let sights = daemon.fake.sights.clone();
    let short = |what: &[(Resource, &str)]| Sight::Short {
        short: what
            .iter()
            .map(|(resource, why)| (*resource, (*why).to_owned()))
            .collect(),
    };
    let both = [
        (Resource::StateBytes, "1 MiB left"),
        (Resource::Memory, "2 MiB left"),
    ];
    sights.send(short(&both)).await.unwrap();
    daemon
        .until("closed", |s| {
            s.closed == ["state_bytes: 1 MiB left", "memory: 2 MiB left"]
        })
        .await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    // One of the two is not enough.
    sights.send(short(&both[1..])).await.unwrap();
    tokio::time::sleep(Duration::from_mins(10)).await;
    let status = daemon.until("busy", |s| count(s, "busy") == 1).await;
    assert_eq!(status.short.keys().collect::<Vec<_>>(), ["memory"]);
    assert_eq!((count(&status, "spare"), count(&status, "idle")), (1, 0));
    sights.send(short(&[])).await.unwrap();
    daemon
        .until("open again", |s| {
            s.closed.is_empty() && count(s, "busy") == 1 && waits(s)
        })
        .await;
}
