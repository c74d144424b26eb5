//! The daemon with a thousand slots: what a pass of its loop, its status, its lists of runners, its memory and its idle
//! time cost. A host with a hundred slots stands beside it.
//!
//! Loop, records, GitHub client, API and readings are those of the program. systemd, sockets and GitHub are simulated:
//! - `host`: units and sockets
//! - `github`: GitHub's list of runners
//! - `daemon`: a daemon over both
//! - `meter`: processor time and memory
//! - `table`: the figures

mod daemon;
mod github;
mod host;
mod meter;
mod table;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, gettid};
use tower::ServiceExt as _;

use crate::clock;
use crate::config::HistoryConfig;
use crate::pool::{
    Evidence, JobDescription, JobKey, JobResult, JobSource, KnownJob, PhaseEntry, PhaseKind,
    ScopeId, SlotId, Verdict, VerdictRecord,
};
use crate::status::{PoolStatus, Status};
use crate::store::Store;
use crate::world::{Invocation, JobNote, Records as _, ResourceUse};
use daemon::{Daemon, config};
use github::Server;
use host::Host;
use table::{Row, median};

/// Size of a host.
#[derive(Debug, Clone, Copy)]
struct Size {
    pools: usize,
}

impl Size {
    /// Slots of a pool. When the host is full, 25 have jobs, and two boot.
    const SLOTS: usize = 50;
    const IDLE: usize = 15;
    const SPARE: usize = 10;
    const BUSY: usize = 25;
    const BOOTING: usize = 2;

    fn slots(self) -> usize {
        self.pools * Self::SLOTS
    }
}

/// Runners of a pool that end with a job before anything is measured.
const TURNOVER: usize = 10;
/// Runners on record that ended, as after an hour of 64 jobs a minute.
const ON_RECORD: u64 = 3_840;
/// Jobs that wait for each pool that follows its jobs.
const WAITING: u64 = 20;
/// Descriptors that the daemon holds for a slot: socket, FIFO and note.
const DESCRIPTORS: usize = 3;
/// Runners of other hosts in GitHub's list.
const OTHERS: [usize; 2] = [100, 10_000];
const LISTS: usize = 6;
const IDLE_TIME: Duration = Duration::from_mins(1);
const SCRAPES: Duration = Duration::from_secs(15);
const WATCHDOG: Duration = Duration::from_secs(10);

/// Costs of a host of one size.
struct Costs {
    /// Processor time of the loop for a pass when nothing changed, in ms.
    pass: f64,
    /// The same for 1, 10 and 100 jobs that tell about themselves, with all that follows.
    changes: [f64; 3],
    /// Times of `/status`, `/metrics` and `/`, in ms.
    shown: [f64; 3],
    memory_mb: f64,
    idle_percent: f64,
    /// Of a reconcile over pages that changed, and over pages that did not: its time in ms, the processor time of the
    /// loop, and the highest memory, for each of [`OTHERS`].
    lists: Vec<[f64; 5]>,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Returns the milliseconds between two processor times.
fn between(before: Duration, after: Duration) -> f64 {
    ms(after.saturating_sub(before))
}

/// A host with a daemon, driven by the calling thread.
struct Bench {
    size: Size,
    server: Server,
    host: Host,
    daemon: Daemon,
    driver: Pid,
}

impl Bench {
    /// Returns the processor time of the daemon's threads so far.
    fn time(&self) -> Duration {
        meter::time_without(&[self.server.thread, self.driver])
    }

    /// Begins jobs and ends some of them, until every slot has a runner and 25 of each pool have a job.
    async fn fill(&mut self) {
        let (mut ended, mut run) = (BTreeMap::<String, usize>::new(), 0);
        let began = Instant::now();
        loop {
            self.daemon.ping().await;
            let status = self.daemon.status.borrow_and_update().clone();
            let mut is_full = true;
            for pool in &status.pools {
                let busy = slots(pool, &[PhaseKind::Busy]);
                let ended = ended.entry(pool.name.clone()).or_default();
                if busy.len() < Size::BUSY {
                    let listeners = slots(pool, &[PhaseKind::Registering, PhaseKind::Idle]);
                    for slot in listeners.iter().take(Size::BUSY - busy.len()) {
                        run += 1;
                        self.server.job_starts(slot);
                        self.host.job_starts(slot, run).await;
                    }
                    is_full = false;
                } else if *ended < TURNOVER {
                    *ended += 1;
                    self.server.ends(&busy[0]);
                    self.host.ends(&busy[0]).await;
                    is_full = false;
                } else {
                    let count = |phase| usize::try_from(pool.count(phase)).unwrap();
                    is_full &= pool.runners.len() == Size::SLOTS
                        && count(PhaseKind::Booting) == Size::BOOTING
                        && count(PhaseKind::Minting) + count(PhaseKind::Registering) == 0;
                }
            }
            if is_full && !status.pools.is_empty() {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_mins(2),
                "never full: {:#?}",
                phases(&status)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the median of reconciles while GitHub's pages change or do not: its time without the processor time of
    /// the stand-in, which makes one page after the other, and the processor time of the loop.
    async fn reconciles(&mut self, changes: bool) -> (f64, f64) {
        let (mut times, mut processor) = (Vec::new(), Vec::new());
        for _ in 0..LISTS {
            if changes {
                self.server.change_tags();
            }
            let ok = |status: &Status| status.github.last_ok_unix_ms;
            let before = ok(&self.daemon.status.borrow());
            let (spent, made) = (self.daemon.time(), meter::thread_time(self.server.thread));
            let listed = self.daemon.status.wait_for(|status| ok(status) > before);
            drop(listed.await.unwrap());
            let whole = ms(self.server.asked_at().unwrap().elapsed());
            // The kernel counts a thread's time when it stops.
            tokio::time::sleep(Duration::from_millis(20)).await;
            times.push(whole - between(made, meter::thread_time(self.server.thread)));
            processor.push(between(spent, self.daemon.time()));
        }
        // The first list may follow a change of what GitHub has, so it does not count.
        (median(&times[1..]), median(&processor[1..]))
    }

    async fn lists(&mut self, others: usize) -> [f64; 5] {
        self.server.set_others(others);
        self.reconciles(false).await;
        meter::reset_peak();
        let (changed, changed_processor) = self.reconciles(true).await;
        let (same, same_processor) = self.reconciles(false).await;
        [
            changed,
            changed_processor,
            same,
            same_processor,
            meter::peak_mb(),
        ]
    }

    /// Returns the processor time of the loop for a pass when nothing changed.
    async fn pass(&self) -> f64 {
        const PASSES: u32 = 100;
        let mut samples = Vec::new();
        for _ in 0..5 {
            let before = self.daemon.time();
            for _ in 0..PASSES {
                self.daemon.ping().await;
            }
            samples.push(between(before, self.daemon.time()) / f64::from(PASSES));
        }
        median(&samples)
    }

    /// Returns the processor time of the loop when `count` jobs tell about themselves at once, and are put on record.
    async fn changes(&mut self, count: usize, run: u64) -> f64 {
        let status = self.daemon.status.borrow_and_update().clone();
        let busy: Vec<SlotId> = status
            .pools
            .iter()
            .flat_map(|pool| slots(pool, &[PhaseKind::Busy]))
            .collect();
        let mut samples = Vec::new();
        for round in 0..7 {
            let step = busy.len() / count.min(busy.len());
            let slots = busy.iter().step_by(step.max(1)).cycle().take(count);
            let before = self.daemon.time();
            for slot in slots {
                self.host.job_starts(slot, run + round).await;
            }
            tokio::time::sleep(Duration::from_millis(100 + 3 * count as u64)).await;
            samples.push(between(before, self.daemon.time()));
        }
        median(&samples)
    }

    /// Returns the time of one document of the API.
    async fn shown(&self, path: &str) -> f64 {
        let mut samples = Vec::new();
        for _ in 0..21 {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let began = Instant::now();
            let answer = self.daemon.router.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            samples.push(ms(began.elapsed()));
            assert!(body.len() > 10_000);
        }
        median(&samples)
    }

    /// Returns the share of a core that the daemon takes when nothing happens.
    async fn idle(&self, api: &Path) -> f64 {
        let (began, before) = (Instant::now(), self.time());
        let (mut scraped, mut pinged) = (began, began);
        while began.elapsed() < IDLE_TIME {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if scraped.elapsed() >= SCRAPES {
                scraped = Instant::now();
                let mut stream = UnixStream::connect(api).unwrap();
                stream
                    .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    .unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                assert!(text.starts_with("HTTP/1.1 200"), "{text}");
            }
            if pinged.elapsed() >= WATCHDOG {
                pinged = Instant::now();
                self.daemon.ping().await;
            }
        }
        between(before, self.time()) / ms(began.elapsed()) * 100.0
    }
}

fn phases(status: &Status) -> Vec<&BTreeMap<PhaseKind, u64>> {
    status.pools.iter().map(|pool| &pool.phases).collect()
}

fn slots(pool: &PoolStatus, phases: &[PhaseKind]) -> Vec<SlotId> {
    let runners = pool.runners.iter();
    let found = runners.filter(|runner| phases.contains(&runner.phase));
    found.map(|runner| runner.slot.clone()).collect()
}

/// Puts runners on record that ended.
async fn put_on_record(dir: &Path) {
    let path = dir.join("state.db");
    let (store, _) =
        Store::open(&path, "bench".parse().unwrap(), HistoryConfig::default()).unwrap();
    for number in 0..ON_RECORD {
        store.close(ended(number)).await.unwrap();
    }
    store.close_file().await;
}

fn ended(number: u64) -> VerdictRecord {
    let after = |phase, after_ms| PhaseEntry { phase, after_ms };
    VerdictRecord {
        slot: format!("p{}-{}", number % 20, number % 50 + 1)
            .parse()
            .unwrap(),
        verdict: Verdict::JobDone,
        runner: Some(format!("bench-p0-1-{number:08x}")),
        runner_id: None,
        job: Some(note(number)),
        ended_unix_ms: clock::unix_ms() - (ON_RECORD - number) * 937,
        lived_ms: 60_000,
        asked_after_ms: Some(300),
        listening_after_ms: Some(1_900),
        job_ms: Some(40_000),
        result: Some(JobResult::Succeeded),
        exit: Some("status 100".into()),
        last_line: None,
        memory_peak_bytes: Some(1 << 30),
        oom_kills: 0,
        invocation: Invocation::parse(&format!("{:032x}", (1_u128 << 100) + u128::from(number))),
        phases: vec![
            after(PhaseKind::Booting, 0),
            after(PhaseKind::Spare, 300),
            after(PhaseKind::Minting, 1_000),
            after(PhaseKind::Busy, 20_000),
        ],
        cpu_ms: Some(40_000),
        usage: ResourceUse::default(),
        generation: None,
        version: None,
    }
}

fn note(run: u64) -> JobNote {
    JobNote {
        repository: "acme/widgets".into(),
        run_id: run.to_string(),
        job: "build (ubuntu, stable)".into(),
        workflow: "CI".into(),
    }
}

/// Returns the jobs that GitHub told of: those of the busy runners in pools that follow their jobs, and some that wait.
fn jobs(status: &Status, scope: &ScopeId) -> Vec<KnownJob> {
    let mut jobs = Vec::new();
    for pool in &status.pools {
        let number: u64 = pool.name[1..].parse().unwrap();
        if !number.is_multiple_of(4) {
            continue;
        }
        let busy = pool.runners.iter().filter(|runner| runner.job.is_some());
        let running = busy.map(|runner| runner.runner.clone());
        let waiting = std::iter::repeat_n(None, usize::try_from(WAITING).unwrap());
        for (id, runner) in running.chain(waiting).enumerate() {
            let id = number * 1_000 + id as u64;
            let evidence = if runner.is_some() {
                Evidence::Started
            } else {
                Evidence::Queued
            };
            let key = JobKey {
                scope: scope.clone(),
                source: JobSource::Webhook,
                id,
            };
            let description = JobDescription {
                repository: "acme/widgets".into(),
                run_id: id,
                workflow: "CI".into(),
                name: "build (ubuntu, stable)".into(),
                labels: vec!["self-hosted".into(), pool.name.clone()],
            };
            let now = clock::unix_ms();
            let mut job = KnownJob::new(key, evidence, description, now);
            job.started_unix_ms = runner.is_some().then_some(now);
            job.runner = runner.map(|runner| (Evidence::Started, runner));
            jobs.push(job);
        }
    }
    jobs
}

/// Measures a host. The lists of many runners are those of the large host alone.
async fn costs(size: Size, with_lists: bool) -> Costs {
    let dir = tempfile::tempdir().unwrap();
    put_on_record(dir.path()).await;
    let server = Server::start();
    let of = |reconcile| config(size, &server, dir.path(), reconcile);
    let filling = of(Duration::from_secs(1));
    let hangs = |slot: &SlotId| usize::from(slot.slot.number()) > Size::SLOTS - Size::BOOTING;
    let hanging = filling.slots().filter(hangs).collect();
    let host = Host::new(&filling, hanging);
    let scope = filling.scopes[0].scope_id();
    let descriptors: Vec<File> = (0..size.slots() * DESCRIPTORS)
        .map(|_| File::open("/dev/null").unwrap())
        .collect();
    let mut bench = Bench {
        size,
        daemon: Daemon::start(filling, host.clone(), Vec::new()).await,
        server: server.clone(),
        host,
        driver: gettid(),
    };
    bench.fill().await;
    let mut lists = Vec::new();
    if with_lists {
        for others in OTHERS {
            lists.push(bench.lists(others).await);
        }
        server.set_others(0);
        bench.reconciles(false).await;
    }
    let jobs = jobs(&bench.daemon.status.borrow(), &scope);
    let Bench { daemon, host, .. } = bench;
    daemon.stop();
    let mut bench = Bench {
        daemon: Daemon::start(of(Duration::from_mins(1)), host.clone(), jobs).await,
        host,
        server: server.clone(),
        driver: gettid(),
        size,
    };
    // The first list and the first observation.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pass = bench.pass().await;
    let mut changes = [0.0; 3];
    for (count, cost) in [1, 10, 100].into_iter().zip(&mut changes) {
        *cost = bench.changes(count, 1_000_000 * count as u64).await;
    }
    let mut shown = [0.0; 3];
    for (path, cost) in ["/status", "/metrics", "/"].into_iter().zip(&mut shown) {
        *cost = bench.shown(path).await;
    }
    let idle_percent = bench.idle(&dir.path().join("api")).await;
    let memory_mb = meter::resident_mb();
    let runners = bench.daemon.status.borrow().runners().count();
    assert_eq!(runners, bench.size.slots());
    bench.daemon.stop();
    drop(descriptors);
    Costs {
        pass,
        changes,
        shown,
        memory_mb,
        idle_percent,
        lists,
    }
}

/// Returns the figures. The goals are those of a large host.
fn rows(small: &Costs, large: &Costs) -> Vec<Row> {
    let [few, many] = &large.lists[..] else {
        panic!("the large host reads both lists")
    };
    let [one, ten, hundred] = large.changes;
    let shown = |at: usize, name| Row::new(name, small.shown[at], large.shown[at]).at_most(10.0);
    let listed = |at: usize, name| Row::new(name, few[at], many[at]);
    vec![
        Row::new(
            "pass of the loop, nothing changed, ms",
            small.pass,
            large.pass,
        )
        .at_most(1.0),
        Row::new(
            "a job tells about itself: the loop's time, ms",
            small.changes[0],
            one,
        ),
        Row::new("…10 jobs at once", small.changes[1], ten),
        Row::new("…100 jobs at once", small.changes[2], hundred),
        Row::new(
            "100 jobs / 100 × one job",
            small.changes[2] / small.changes[0] / 100.0,
            hundred / one / 100.0,
        )
        .at_most(1.0),
        shown(0, "/status, ms"),
        shown(1, "/metrics, ms"),
        shown(2, "the page, ms"),
        Row::new(
            "memory of the process, MB",
            small.memory_mb,
            large.memory_mb,
        )
        .at_most(40.0),
        Row::new(
            "share of a core, idle, %",
            small.idle_percent,
            large.idle_percent,
        )
        .at_most(0.1),
        listed(0, "reconcile, every page changed, ms").at_most(100.0),
        listed(1, "…processor time of the loop, ms"),
        listed(2, "reconcile, no page changed, ms").at_most(100.0),
        listed(3, "…processor time of the loop, ms"),
        Row::new(
            "memory that the longer list takes, MB",
            None,
            many[4] - few[4],
        )
        .at_most(20.0),
    ]
}

#[test]
#[ignore = "a benchmark of three minutes, for a quiet machine; see docs/benchmarks.md"]
fn a_thousand_slots_cost_little() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (small, large) = runtime.block_on(async {
        let small = costs(Size { pools: 2 }, false).await;
        (small, costs(Size { pools: 20 }, true).await)
    });
    let rows = rows(&small, &large);
    stdio::print(table::table(&rows)).unwrap();
    assert!(rows.iter().all(Row::is_good), "a goal is missed");
}
