//! The simulated world: systemd, GitHub, the handshake with containers, and the records.

use super::*;
use crate::pool::ResourceUse;

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Returns the paused time as the core's time.
pub(super) fn now() -> Timestamp {
    let began = BEGAN.get().unwrap_or_else(Instant::now);
    BEGAN.set(Some(began));
    Timestamp::from_millis(
        1_000_000 + u64::try_from(began.elapsed().as_millis()).unwrap_or_default(),
    )
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Fault(String);

impl Failure for Fault {
    fn is_transient(&self) -> bool {
        true
    }
}

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) invocation: Invocation,
    pub(super) started_at: Timestamp,
    pub(super) active: bool,
    pub(super) waiting: bool,
}

/// State of the world. It counts calls, and has faults to inject.
#[derive(Default)]
pub(super) struct World {
    /// Configuration of the daemons, instead of the usual one.
    pub(super) config: Option<Config>,
    pub(super) machines: BTreeMap<SlotId, Machine>,
    pub(super) ends: BTreeMap<SlotId, EndRecord>,
    /// Ends before those in `ends`.
    pub(super) earlier_ends: Vec<RecordedEnd>,
    pub(super) github: BTreeMap<u64, ListedRunner>,
    pub(super) records: BTreeMap<SlotId, RunnerRecord>,
    pub(super) verdicts: Vec<VerdictRecord>,
    /// Runners whose traces were sent, with the addresses of their jobs.
    pub(super) traced: Vec<(VerdictRecord, Option<String>)>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) strays: BTreeMap<RunnerId, StrayRecord>,
    pub(super) calls: Vec<&'static str>,
    /// A scope of an earlier configuration, and the world with its runners.
    pub(super) former: Option<(ScopeId, Arc<Mutex<World>>)>,
    /// The world with the runners of a second configured scope, in which the pool `two` registers.
    pub(super) second: Option<Arc<Mutex<World>>>,
    /// True if calls for the second scope count for the same limits.
    pub(super) shares_limits: bool,
    pub(super) minted_at: Vec<Timestamp>,
    pub(super) next: u64,
    pub(super) mint_fails: Option<RegistryErrorKind>,
    pub(super) mint_window: Option<MintWindow>,
    /// Runner groups, or the failure of a look at them. With them, the scope is an organisation.
    pub(super) groups: Option<Result<Vec<RunnerGroup>, RegistryErrorKind>>,
    /// Version that new runners tell, and GitHub's dates for it, or the failure to tell them.
    pub(super) version: Option<RunnerVersion>,
    pub(super) version_end: Option<Result<Option<VersionEnd>, RegistryErrorKind>>,
    pub(super) held: Option<Duration>,
    /// End of a rate limit that a call of another task met.
    pub(super) limited_until: Option<tokio::time::Instant>,
    pub(super) disk_full: bool,
    pub(super) deletions_fail: bool,
    pub(super) never_requests: bool,
    /// The container drops its request at the moment of the delivery.
    pub(super) drops_request: bool,
}

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) events: mpsc::Sender<Event>,
}

impl Fake {
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.world.lock().unwrap())
    }

    /// Returns the configuration of the world's daemons.
    pub(super) fn config(&self) -> Config {
        if let Some(config) = self.with(|world| world.config.clone()) {
            return config;
        }
        if self.with(|world| world.second.is_some()) {
            two_scopes()
        } else if self.with(|world| world.groups.is_some()) {
            groups::config()
        } else {
            config()
        }
    }

    pub(super) fn observation(&self, slot: &SlotId) -> UnitObservation {
        let config = self.config();
        let pool = config.pool(&slot.pool).unwrap_or(&config.pools[0]);
        self.with(|world| {
            let machine = world.machines.get(slot);
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
                    generation: pool.generation(),
                    returns_result: true,
                    at: machine.started_at,
                }),
                end: world.ends.get(slot).cloned().filter(|_| machine.is_none()),
            }
        })
    }

    pub(super) async fn signal(&self, slot: &SlotId) {
        let _ = self.events.send(Event::Unit(self.observation(slot))).await;
    }

    pub(super) async fn ends(&self, slot: &SlotId, status: i32) {
        let ended = self.with(|world| {
            let machine = world.machines.remove(slot)?;
            let end = EndRecord {
                invocation: machine.invocation,
                service_result: "exit-code".into(),
                exit: Exit::Status(status),
                memory_peak_bytes: None,
                oom_kills: 0,
                cpu_ms: None,
                usage: ResourceUse::default(),
                listening_at: None,
                stop_requested: false,
                returns_result: true,
                last_line: None,
                at: now(),
            };
            world.ends.insert(slot.clone(), end);
            world
                .github
                .retain(|_, r| !(r.busy && r.name.contains(&format!("-{slot}-"))));
            Some(())
        });
        if ended.is_some() {
            self.signal(slot).await;
        }
    }

    pub(super) async fn job_starts(&self, slot: &SlotId) {
        self.with(|world| {
            for listed_runner in world.github.values_mut() {
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
        self.with(|world| {
            if !world.records.contains_key(slot) {
                world.calls.push("start without a record");
            }
            world.next += 1;
            let invocation = Invocation::parse(&format!("{:032x}", world.next)).unwrap();
            let machine = Machine {
                invocation,
                started_at: now(),
                active: false,
                waiting: false,
            };
            assert!(
                world.machines.insert(slot.clone(), machine).is_none(),
                "two containers in {slot}"
            );
        });
        self.signal(slot).await;
        let (fake, slot) = (self.clone(), slot.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let requests = fake.with(|world| {
                let requests = !world.never_requests;
                if let Some(machine) = world.machines.get_mut(&slot) {
                    machine.waiting = requests;
                    machine.active = true;
                }
                requests
            });
            if requests {
                let _ = fake
                    .events
                    .send(Event::ConfigRequested { slot: slot.clone() })
                    .await;
            }
            fake.signal(&slot).await;
        });
        Ok(())
    }

    async fn stop(&self, slot: &SlotId) -> Result<(), Fault> {
        self.with(|world| world.calls.push("stop"));
        self.ends(slot, 0).await;
        Ok(())
    }

    async fn kill(&self, slot: &SlotId) -> Result<(), Fault> {
        self.with(|world| world.calls.push("kill"));
        self.ends(slot, 137).await;
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<UnitObservation>, Fault> {
        let mut slots: BTreeSet<SlotId> = self.config().slots().collect();
        slots.extend(self.with(|world| world.machines.keys().cloned().collect::<Vec<_>>()));
        Ok(slots.iter().map(|slot| self.observation(slot)).collect())
    }

    async fn ends(&self) -> Vec<RecordedEnd> {
        self.with(|world| world.earlier_ends.clone())
    }
}

impl Registry for Fake {
    async fn mint(&self, request: &MintRequest) -> Result<Minted, RegistryError> {
        self.with(|world| {
            world.calls.push("mint");
            world.minted_at.push(now());
            if let Some(kind) = world.mint_fails {
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
            world.next += 1;
            let id = RunnerId((1 << 40) + world.next);
            let (name, version) = (request.name.to_string(), world.version);
            world.github.insert(
                id.0,
                ListedRunner {
                    id,
                    name,
                    online: true,
                    busy: false,
                    version,
                },
            );
            Ok(Minted {
                id,
                config: JitConfig::new("secret".into()),
            })
        })
    }

    async fn list(&self) -> Result<Vec<ListedRunner>, RegistryError> {
        Ok(self.with(|world| {
            world.calls.push("list");
            world.github.values().cloned().collect()
        }))
    }

    async fn find(&self, id: RunnerId) -> Result<Option<ListedRunner>, RegistryError> {
        Ok(self.with(|world| {
            world.calls.push("find");
            world.github.get(&id.0).cloned()
        }))
    }

    async fn version_end(
        &self,
        version: RunnerVersion,
    ) -> Result<Option<VersionEnd>, RegistryError> {
        self.with(|world| {
            world.calls.push("version");
            assert_eq!(Some(version), world.version);
            let end = world.version_end.unwrap_or(Ok(None));
            end.map_err(|kind| RegistryError {
                operation: "get runner version",
                kind,
                status: Some(403),
                message: "Resource not accessible".into(),
                advice: None,
                request_id: None,
                retry_after: None,
            })
        })
    }

    async fn groups(&self) -> Result<Vec<RunnerGroup>, RegistryError> {
        self.with(|world| {
            world.calls.push("groups");
            let groups = world.groups.clone().unwrap_or_else(|| Ok(vec![]));
            groups.map_err(|kind| RegistryError {
                operation: "check runner groups",
                kind,
                status: Some(403),
                message: "Resource not accessible".into(),
                advice: None,
                request_id: None,
                retry_after: None,
            })
        })
    }

    fn hold(&self, wait: Duration) {
        self.with(|world| world.held = Some(wait));
    }

    fn held(&self) -> Option<Duration> {
        let until = self.with(|world| world.limited_until)?;
        let rest = until.saturating_duration_since(tokio::time::Instant::now());
        (!rest.is_zero()).then_some(rest)
    }

    fn shares_limits(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.world, &other.world) || self.with(|world| world.shares_limits)
    }

    fn mint_window(&self) -> Option<MintWindow> {
        self.with(|world| world.mint_window)
    }

    async fn delete(&self, id: RunnerId) -> Result<Deleted, RegistryError> {
        self.with(|world| {
            world.calls.push("delete");
            if world.deletions_fail {
                return Err(RegistryError {
                    operation: "delete runner",
                    kind: RegistryErrorKind::Server,
                    status: Some(500),
                    message: "Server Error".into(),
                    advice: None,
                    request_id: None,
                    retry_after: None,
                });
            }
            if world
                .github
                .get(&id.0)
                .is_some_and(|listed_runner| listed_runner.busy)
            {
                return Ok(Deleted::Busy);
            }
            world.github.remove(&id.0);
            Ok(Deleted::Gone)
        })
    }
}

impl Handshake for Fake {
    type Error = Fault;

    async fn prepare(&self, _: &SlotId) -> Result<(), Fault> {
        Ok(())
    }

    async fn answer(&self, slot: &SlotId, _: JitConfig) -> Result<(), Fault> {
        self.with(|world| match world.machines.get_mut(slot) {
            Some(machine) if machine.waiting && world.drops_request => {
                machine.waiting = false;
                Err(Fault("the connection is gone".into()))
            }
            Some(machine) if machine.waiting => {
                machine.waiting = false;
                Ok(())
            }
            Some(_) | None => Err(Fault("no container waits".into())),
        })
    }
}

impl Traces for Fake {
    fn add(&self, ended: &VerdictRecord, job_url: Option<&str>) {
        let traced = (ended.clone(), job_url.map(str::to_owned));
        self.with(|world| world.traced.push(traced));
    }

    fn status(&self) -> TracesStatus {
        TracesStatus {
            sent: self.with(|world| world.traced.len() as u64),
            ..TracesStatus::default()
        }
    }
}

impl Records for Fake {
    type Error = Fault;

    async fn load(&self) -> Result<Vec<RunnerRecord>, Fault> {
        Ok(self.with(|world| world.records.values().cloned().collect()))
    }

    async fn put(&self, record: RunnerRecord) -> Result<(), Fault> {
        self.with(|world| {
            if world.disk_full {
                return Err(Fault("disk full".into()));
            }
            world.records.insert(record.slot.clone(), record);
            Ok(())
        })
    }

    async fn remove(&self, slot: SlotId) -> Result<(), Fault> {
        self.with(|world| {
            if world.disk_full {
                return Err(Fault("disk full".into()));
            }
            world.records.remove(&slot);
            Ok(())
        })
    }

    async fn close(&self, verdict: VerdictRecord) -> Result<(), Fault> {
        self.with(|world| {
            if world.disk_full {
                return Err(Fault("disk full".into()));
            }
            world.records.remove(&verdict.slot);
            world.verdicts.push(verdict);
            Ok(())
        })
    }

    async fn strays(&self) -> Result<Vec<StrayRecord>, Fault> {
        Ok(self.with(|world| world.strays.values().cloned().collect()))
    }

    async fn put_stray(&self, stray: StrayRecord) -> Result<(), Fault> {
        self.with(|world| world.strays.insert(stray.id, stray));
        Ok(())
    }

    async fn remove_stray(&self, _: ScopeId, id: RunnerId) -> Result<(), Fault> {
        self.with(|world| world.strays.remove(&id));
        Ok(())
    }

    async fn recent(&self, count: usize) -> Result<Vec<VerdictRecord>, Fault> {
        Ok(self.with(|world| world.verdicts.iter().rev().take(count).cloned().collect()))
    }

    async fn judged(&self, starts: BTreeSet<Invocation>) -> Result<BTreeSet<Invocation>, Fault> {
        let judged = self.with(|world| {
            let verdicts = world.verdicts.iter();
            let named = verdicts.filter_map(|verdict| verdict.invocation.clone());
            named.collect::<BTreeSet<_>>()
        });
        Ok(starts.intersection(&judged).cloned().collect())
    }

    async fn setting(&self, key: &str) -> Result<Option<String>, Fault> {
        Ok(self.with(|world| world.settings.get(key).cloned()))
    }

    async fn set_setting(&self, key: &str, value: Option<String>) -> Result<(), Fault> {
        self.with(|world| {
            if world.disk_full {
                return Err(Fault("disk full".into()));
            }
            match value {
                Some(value) => world.settings.insert(key.to_owned(), value),
                None => world.settings.remove(key),
            };
            Ok(())
        })
    }
}
