use std::collections::BTreeSet;
use std::sync::Mutex;

use super::*;
use crate::pool::KnownJob;
use crate::world::testing::Full;
use crate::world::{Delivered, FailedAttempt, HookOwner, RegistryErrorKind};

const MINUTE: u64 = 60_000;

thread_local! {
    static BEGAN: std::cell::Cell<Option<tokio::time::Instant>> = const { std::cell::Cell::new(None) };
}

/// Returns the paused time, which begins two minutes after 1970.
fn unix_ms() -> u64 {
    let began = BEGAN.get().unwrap_or_else(tokio::time::Instant::now);
    BEGAN.set(Some(began));
    let since = u64::try_from(began.elapsed().as_millis()).unwrap();
    2 * MINUTE + since
}

/// GitHub's failed attempts, and the record of what arrived.
#[derive(Debug, Default)]
struct World {
    failed: Vec<FailedAttempt>,
    repeated: Vec<u64>,
    looks: usize,
    looks_at_others: usize,
    error: Option<RegistryErrorKind>,
    on_record: BTreeSet<String>,
    /// True if what is asked for arrives.
    arrives: bool,
}

#[derive(Debug, Clone, Default)]
struct Fake(Arc<Mutex<World>>);

impl Fake {
    fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

fn error(kind: RegistryErrorKind) -> RegistryError {
    RegistryError {
        kind,
        operation: "list deliveries",
        message: "refused".into(),
        advice: None,
        status: None,
        request_id: None,
        retry_after: None,
    }
}

impl Deliveries for Fake {
    async fn failed(
        &self,
        hook: &Hook,
        since: u64,
    ) -> Result<(Vec<FailedAttempt>, bool), RegistryError> {
        self.with(|world| {
            if *hook != self::hook() {
                world.looks_at_others += 1;
                return Err(error(RegistryErrorKind::NotFound));
            }
            world.looks += 1;
            if let Some(kind) = world.error {
                return Err(error(kind));
            }
            let failed = world.failed.iter();
            let failed = failed.filter(|attempt| attempt.unix_ms >= since);
            Ok((failed.cloned().collect(), false))
        })
    }

    async fn repeat(&self, _: &Hook, attempt: u64) -> Result<(), RegistryError> {
        self.with(|world| {
            world.repeated.push(attempt);
            let of = world.failed.iter().find(|failed| failed.id == attempt);
            let delivery = of.unwrap().delivery.clone();
            if world.arrives {
                world.on_record.insert(delivery);
            } else {
                let id = world.failed.iter().map(|failed| failed.id).max().unwrap() + 1;
                world.failed.push(FailedAttempt {
                    id,
                    delivery,
                    unix_ms: unix_ms(),
                });
            }
            Ok(())
        })
    }
}

impl Inbox for Fake {
    type Error = Full;

    async fn deliver(&self, _: String, job: KnownJob, _: u64) -> Result<Delivered, Full> {
        Ok(Delivered {
            is_new: true,
            job: Some(job),
        })
    }

    async fn on_record(&self, deliveries: BTreeSet<String>) -> Result<BTreeSet<String>, Full> {
        self.with(|world| Ok(&deliveries & &world.on_record))
    }
}

fn scope() -> ScopeId {
    ScopeId::new("https://api.github.com", "acme")
}

fn hook() -> Hook {
    Hook {
        owner: HookOwner::Organization("acme".into()),
        id: 7,
    }
}

struct Running {
    fake: Fake,
    hooks: watch::Sender<KnownHooks>,
    events: mpsc::Receiver<Event>,
}

/// Starts without a known hook.
fn start(world: World) -> Running {
    start_with(world, KnownHooks::default())
}

/// Starts with the hooks on record.
fn start_with(world: World, known: KnownHooks) -> Running {
    let fake = Fake(Arc::new(Mutex::new(world)));
    let (sender, events) = mpsc::channel(64);
    let outside = Surroundings {
        inbox: fake.clone(),
        events: sender,
        unix_ms,
    };
    let hooks = watch::Sender::new(known);
    let deliveries = BTreeMap::from([(scope(), Arc::new(fake.clone()))]);
    tokio::spawn(run(deliveries, hooks.clone(), outside));
    Running {
        fake,
        hooks,
        events,
    }
}

impl Running {
    fn learn(&self) {
        self.hooks.send_modify(|known| {
            known.learn(&scope(), hook());
        });
    }

    async fn wait(&self, minutes: u64) {
        tokio::time::sleep(Duration::from_millis(minutes * MINUTE)).await;
    }

    /// Returns what was told last.
    fn status(&mut self) -> Option<RedeliveryStatus> {
        let mut last = None;
        while let Ok(event) = self.events.try_recv() {
            if let Event::Redelivery(status) = event {
                last = Some(status);
            }
        }
        last
    }
}

fn attempt(id: u64, delivery: &str) -> FailedAttempt {
    FailedAttempt {
        id,
        delivery: delivery.into(),
        unix_ms: MINUTE,
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_asked_for_once_a_hook_is_known() {
    let mut running = start(World {
        failed: vec![attempt(1, "a"), attempt(2, "b"), attempt(3, "c")],
        on_record: BTreeSet::from(["b".to_owned()]),
        arrives: true,
        ..World::default()
    });
    running.wait(10).await;
    assert_eq!(running.fake.with(|world| world.looks), 0);
    running.learn();
    running.wait(1).await;
    assert_eq!(running.fake.with(|world| world.repeated.clone()), [1, 3]);
    let status = running.status().unwrap();
    assert_eq!((status.repeated, status.error), (2, None));
    let before = running.fake.with(|world| world.looks);
    running.wait(20).await;
    assert_eq!(running.fake.with(|world| world.repeated.clone()), [1, 3]);
    assert_eq!(running.fake.with(|world| world.looks) - before, 10);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_never_arrives_is_asked_for_ever_later_and_no_more_after_a_day() {
    let running = start(World {
        failed: vec![attempt(1, "a")],
        ..World::default()
    });
    running.learn();
    running.wait(60).await;
    let hour = running.fake.with(|world| world.repeated.len());
    assert!((5..=9).contains(&hour), "{hour}");
    running.wait(3 * 24 * 60).await;
    let days = running.fake.with(|world| world.repeated.len());
    assert!(days < 20, "{days}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_tried_again_after_an_hour() {
    let mut running = start(World {
        failed: vec![attempt(1, "a")],
        error: Some(RegistryErrorKind::Forbidden),
        arrives: true,
        ..World::default()
    });
    running.learn();
    running.wait(50).await;
    assert_eq!(running.fake.with(|world| world.looks), 1);
    let error = running.status().unwrap().error.unwrap();
    assert!(error.contains("refused"), "{error}");
    running.fake.with(|world| world.error = None);
    running.wait(30).await;
    assert_eq!(running.fake.with(|world| world.repeated.clone()), [1]);
    assert_eq!(running.status().unwrap().error, None);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_is_gone_delays_no_other_and_is_forgotten_if_only_the_records_know_it() {
    let gone = Hook {
        owner: HookOwner::Repository("acme/widgets".into()),
        id: 1,
    };
    let mut known = KnownHooks::default();
    known.learn(&scope(), gone.clone());
    known.learn(&scope(), hook());
    let mut running = start_with(
        World {
            failed: vec![attempt(1, "a")],
            arrives: true,
            ..World::default()
        },
        known,
    );
    running.wait(1).await;
    assert_eq!(running.fake.with(|world| world.repeated.clone()), [1]);
    let left: Vec<Hook> = running
        .hooks
        .borrow()
        .iter()
        .map(|(_, hook)| hook)
        .collect();
    assert_eq!(left, [hook()]);
    // A hook that sends deliveries exists, so its refusal is told.
    running.hooks.send_modify(|known| {
        known.learn(&scope(), gone.clone());
    });
    running.wait(1).await;
    let status = running.status().unwrap();
    assert_eq!(status.hook, gone.to_string());
    assert!(status.error.is_some());
    assert_eq!(running.hooks.borrow().iter().count(), 2);
    running.wait(50).await;
    assert_eq!(running.fake.with(|world| world.looks_at_others), 2);
}
