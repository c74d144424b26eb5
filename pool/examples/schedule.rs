//! Times of one decision pass over a large host: 1,000 pools and 10,000 waiting jobs.
//!
//! `cargo run --release -p pool --example schedule` prints them; with `--samples` each of them, as `cargo bench-demand` reads
//! them.

use std::time::{Duration, Instant};

use pool::{
    Admission, Budget, Cost, DEFAULT_SCALE_DOWN_AFTER, Demand, Evidence, HostId, InvalidName,
    JobDescription, JobKey, JobSource, JobTable, Jobs, KnownJob, Numbers, OrderRules, Pace,
    PoolLabels, PoolName, Pools, ScopeId, Spec, Timeouts, Timestamp,
};

const POOLS: u64 = 1_000;
const PASSES: u64 = 200;
const HOUR: Duration = Duration::from_hours(1);

fn scope() -> ScopeId {
    ScopeId::new("https://api.github.com", "acme")
}

fn name(number: u64) -> Result<PoolName, InvalidName> {
    format!("p{number}").parse()
}

fn spec(number: u64) -> Result<Spec, InvalidName> {
    Ok(Spec {
        name: name(number)?,
        scope: Some(scope()),
        slots: 8,
        numbers: Numbers {
            max_runners: 8,
            ..Numbers::default()
        },
        generation: "g".to_owned(),
        boots_at_once: 2,
        demand: Demand::Webhook,
        scale_down_after: DEFAULT_SCALE_DOWN_AFTER,
        cost: Some(Cost {
            memory_bytes: (1 + number % 8) << 30,
            millicores: 1_000,
            runners: 1,
        }),
        timeouts: Timeouts {
            boot: HOUR,
            registration: HOUR,
            spare_age: HOUR,
            idle_age: HOUR,
            job: HOUR,
            stop: HOUR,
        },
    })
}

fn job(id: u64) -> KnownJob {
    let pool = id % POOLS;
    KnownJob::new(
        JobKey {
            scope: scope(),
            source: JobSource::Webhook,
            id,
        },
        Evidence::Queued,
        JobDescription {
            repository: format!("acme/r{}", id % 50),
            run_id: id / 4,
            workflow: "CI".to_owned(),
            name: "build".to_owned(),
            labels: vec![format!("p{pool}")],
        },
        id * 100,
    )
}

/// Returns the median and the longest of some times.
fn summary(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    let (median, longest) = (at(times.len() / 2), at(times.len().saturating_sub(1)));
    format!("median {median:.2?}, longest {longest:.2?}")
}

/// Returns the times in milliseconds, for programs.
fn samples(times: &[Duration]) -> String {
    let millis = |time: &Duration| format!(" {:.6}", time.as_secs_f64() * 1000.0);
    times.iter().map(millis).collect()
}

/// Returns the times of events about one job in a host with `waiting` jobs, and of the pass that follows each.
fn passes(waiting: u64) -> Result<(Vec<Duration>, Vec<Duration>), InvalidName> {
    let host: HostId = "bench".parse()?;
    let names = (0..POOLS).map(name).collect::<Result<Vec<_>, _>>()?;
    let labels = names
        .iter()
        .map(|name| PoolLabels::new(name.clone(), scope(), &[name.to_string()]));
    let mut table = JobTable::new(host.clone(), labels.collect(), OrderRules::default());
    for id in 0..waiting {
        table.merge(job(id));
    }
    let specs = (0..POOLS).map(spec).collect::<Result<Vec<_>, _>>()?;
    let mut pools = Pools::new(host, "boot".to_owned(), [(scope(), Pace::new(100))], specs);
    pools.set_budget(Budget {
        memory_bytes: Some(256 << 30),
        ..Budget::default()
    });
    let (mut events, mut passes) = (Vec::new(), Vec::new());
    for pass in 0..PASSES {
        let event = job(waiting + pass);
        let began = Instant::now();
        table.merge(event);
        events.push(began.elapsed());
        let jobs = Jobs {
            table: &table,
            unix_ms: 2_000_000,
        };
        let began = Instant::now();
        let _ = pools.plan(Some(jobs), Admission::Open, Timestamp::from_millis(pass));
        passes.push(began.elapsed());
    }
    Ok((events, passes))
}

fn main() -> Result<(), InvalidName> {
    let for_programs = std::env::args().any(|argument| argument == "--samples");
    for waiting in [0, 1_000, 10_000] {
        let (events, passes) = passes(waiting)?;
        if for_programs {
            println!("{waiting} event{}", samples(&events));
            println!("{waiting} decision{}", samples(&passes));
            continue;
        }
        let (events, passes) = (summary(&events), summary(&passes));
        println!("{POOLS} pools, {waiting} waiting jobs: event {events}; pass {passes}");
    }
    Ok(())
}
