//! Cost of the records over an hour of load: the loop's processor time and the process's memory, with the database and
//! without it.

use nix::time::{ClockId, clock_gettime};

use super::*;
use crate::config::HistoryConfig;
use crate::store::Store;

/// Runners in an hour at 64 jobs a minute, unless `RUNNERS` says another number.
fn runners() -> u32 {
    let number = std::env::var("RUNNERS").ok();
    number.map_or(64 * 60, |number| number.parse().unwrap())
}

/// Turns of each kind.
const TURNS: usize = 2;
/// Maximum of the processor time with the database, divided by that without it.
const RATIO_MAX: f64 = 1.10;
/// Maximum of the memory that the database adds, in MB.
const MEMORY_MAX: f64 = 5.0;

/// Returns a host whose pool has 16 slots. Its pace bounds nothing, because the hour passes in minutes.
fn host() -> Config {
    let mut config = config();
    config.scopes[0].mints_per_minute = 100_000;
    let pool = &mut config.pools[0];
    (pool.min_idle, pool.min_spare, pool.max_runners) = (6, 6, 16);
    config
}

/// Cost of an hour of load.
struct Cost {
    /// Processor time of the loop's thread for each runner, in microseconds.
    loop_us: f64,
    /// Resident memory of the process afterwards, in MB.
    memory_mb: f64,
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

fn memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.unwrap().trim_end_matches("kB").trim().parse().unwrap();
    kib / 1024.0
}

/// Runs the load over the controller, whose records are `records`. The loop, the simulated world and this load share a
/// thread, so its processor time is all of theirs, and no other's.
async fn hour<D: Records>(fake: Fake, mut events: mpsc::Receiver<Event>, records: D) -> Cost {
    let config = fake.config();
    let environment = Environment {
        machines: Arc::new(fake.clone()),
        registries: [(config.scopes[0].scope_id(), client(fake.clone()))].into(),
        former: BTreeMap::new(),
        handshake: Arc::new(fake.clone()),
        records: Arc::new(records),
        now,
        unix_ms: crate::clock::unix_ms,
        random: rand::random,
        boot_id: "boot".into(),
        calls: Box::new(BTreeMap::new),
        explain_exit: |_| None,
        notes: Vec::new(),
        jobs: None,
        job_started: watch::Sender::default(),
        capacities: BTreeMap::new(),
        traces: None,
    };
    let (show, mut status) = watch::channel(Status::default());
    let (_requests, mut asked) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel::<()>();
    let mut controller = Controller::new(Arc::new(config), environment, 16, show);
    controller.adopt(&mut events).await.unwrap();
    let before = thread_time();
    let task = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        controller.run(events, &mut asked, stopped).await;
    });
    // The list of runners is older than a job that comes at once.
    let listener = |status: &Status| {
        let listens = |phase| matches!(phase, PhaseKind::Registering | PhaseKind::Idle);
        let runner = status.runners().find(|runner| listens(runner.phase));
        runner.map(|runner| runner.slot.clone())
    };
    for _ in 0..runners() {
        let slot = {
            let found = status.wait_for(|status| listener(status).is_some());
            listener(&found.await.unwrap()).unwrap()
        };
        fake.job_starts(&slot).await;
        let busy = status.wait_for(|status| count(status, PhaseKind::Busy) == 1);
        drop(busy.await.unwrap());
        fake.ends(&slot, 100).await;
        let over = status.wait_for(|status| count(status, PhaseKind::Busy) == 0);
        drop(over.await.unwrap());
    }
    let spent = thread_time().saturating_sub(before);
    let _ = stop.send(());
    task.await.unwrap();
    Cost {
        loop_us: spent.as_secs_f64() * 1e6 / f64::from(runners()),
        memory_mb: memory_mb(),
    }
}

fn world() -> (Fake, mpsc::Receiver<Event>) {
    let (events, seen) = mpsc::channel(64);
    let world = shared(World {
        config: Some(host()),
        ..World::default()
    });
    (Fake { world, events }, seen)
}

fn least(costs: &[Cost]) -> f64 {
    let times = costs.iter().map(|cost| cost.loop_us);
    times.fold(f64::INFINITY, f64::min)
}

#[tokio::test]
#[ignore = "a benchmark of some minutes, for a quiet machine; see docs/benchmarks.md"]
async fn an_hour_of_history_costs_the_loop_nothing() {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (fake, events) = world();
        without.push(hour(fake.clone(), events, fake).await);
        let (fake, events) = world();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let keep = HistoryConfig::default();
        let (store, warning) = Store::open(&path, fake.config().host, keep).unwrap();
        assert_eq!(warning, None);
        with.push(hour(fake, events, store.clone()).await);
        let wanted = usize::try_from(runners()).unwrap();
        let rows = store.recent(wanted).await.unwrap();
        assert_eq!(rows.len(), wanted);
        store.close_file().await;
    }
    let ratio = least(&with) / least(&without);
    let memory = with[0].memory_mb - without[0].memory_mb;
    for (name, costs) in [("without", &without), ("with", &with)] {
        for cost in costs {
            let Cost { loop_us, memory_mb } = cost;
            let text = format!("{name} the database: {loop_us:.0} µs a runner, {memory_mb:.1} MB");
            stdio::print_line(text).unwrap();
        }
    }
    let text = format!("processor time × {ratio:.3}, memory + {memory:.1} MB");
    stdio::print_line(&text).unwrap();
    assert!(ratio <= RATIO_MAX && memory <= MEMORY_MAX, "{text}");
}
