//! Checks of the simulation against what queues are known to do.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{ByteSize, Config, JobKind, TraceJob, Workload, testing};
use crate::pool::{Budget, Demand, PoolName};

const HOUR: Duration = Duration::from_hours(1);

fn ci() -> PoolName {
    "ci".parse().unwrap()
}

/// A host whose pool has this many runners, all of which wait for jobs.
fn host(runners: u16) -> Config {
    let mut config = testing::config();
    let pool = &mut config.pools[0];
    (pool.min_idle, pool.min_spare, pool.max_runners) = (runners, 0, runners);
    config.reconcile = Duration::from_mins(10);
    config
}

/// Steps of runners that take no time, so that only the jobs do.
fn no_times() -> Times {
    let none = || Samples::fixed(0, Source::Option);
    Times {
        boot: none(),
        register: none(),
        start_job: none(),
        remove: none(),
    }
}

fn setup(config: &Config) -> Setup<'_> {
    Setup {
        config,
        hosts: 1,
        cores: 4,
        memory_bytes: None,
        numbers: BTreeMap::new(),
        has_budget: true,
        seed: 7,
    }
}

fn kind(per_hour: f64, duration: Duration) -> JobKind {
    JobKind {
        name: "build".into(),
        pool: ci(),
        per_hour,
        duration,
        duration_p95: duration,
        burst: 1.0,
        memory: None,
    }
}

fn arrivals(config: &Config, kind: JobKind, span: Duration) -> Arrivals {
    generate(&Workload::Kinds(vec![kind]), config, span, 7).unwrap()
}

fn trace(config: &Config, jobs: &[(u64, u64)]) -> Arrivals {
    let jobs = jobs.iter().map(|(after, seconds)| TraceJob {
        pool: ci(),
        after: Duration::from_secs(*after),
        duration: Duration::from_secs(*seconds),
        memory: None,
    });
    generate(&Workload::Trace(jobs.collect()), config, HOUR, 7).unwrap()
}

fn outcome(config: &Config, arrivals: &Arrivals, times: &Times) -> PoolOutcome {
    let outcome = play(&setup(config), arrivals, times);
    outcome.pool(&ci()).unwrap().clone()
}

#[test]
fn without_jobs_nothing_waits_and_nothing_is_used() {
    let config = host(2);
    let none = Arrivals {
        jobs: Vec::new(),
        span: Span::Ongoing(3_600_000),
        start_unix_ms: 0,
    };
    let found = outcome(&config, &none, &Times::default());
    assert_eq!((found.jobs, found.peak_runners), (0, 2));
    assert_eq!((found.utilisation, found.load), (0.0, 0.0));
    assert!(!found.never_catches_up && found.waits_ms.is_empty());
    assert_eq!(found.wait_ms(95), 0);
}

#[test]
fn jobs_that_come_at_once_wait_for_each_other() {
    let config = host(2);
    let jobs = trace(&config, &[(0, 10), (0, 10), (0, 10), (0, 10), (0, 10)]);
    let found = outcome(&config, &jobs, &no_times());
    assert_eq!(found.waits_ms, [0, 0, 10_000, 10_000, 20_000]);
    // 50 of 2 times 30 seconds.
    assert!((found.utilisation - 50.0 / 60.0).abs() < 0.001, "{found:?}");
}

#[test]
fn each_step_of_a_runner_delays_the_next_job_in_its_slot() {
    let config = host(1);
    let jobs = trace(&config, &[(0, 10), (0, 10)]);
    let found = outcome(&config, &jobs, &Times::default());
    // The job's start, the job, the removal, a boot and a registration.
    assert_eq!(found.waits_ms, [0, 1_000 + 10_000 + 1_000 + 400 + 2_000]);
}

#[test]
fn a_spare_saves_the_boot() {
    let mut config = host(1);
    (config.pools[0].min_spare, config.pools[0].max_runners) = (1, 2);
    // They come after a reconcile, which would show the job at once.
    let jobs = trace(&config, &[(1, 10), (1, 10)]);
    let found = outcome(&config, &jobs, &Times::default());
    // The core learns of the job when it starts, and then registers the spare.
    assert_eq!(found.waits_ms, [0, 1_000 + 2_000]);
}

/// A queue whose arrivals are random and whose jobs all take the same time. With one runner, the mean wait is
/// `load / (2 (1 - load))` run times (Pollaczek and Khinchine).
#[test]
fn one_runner_behaves_as_queueing_theory_tells() {
    let config = host(1);
    let run = Duration::from_mins(1);
    let (per_hour, load) = (30.0, 0.5_f64);
    let jobs = arrivals(&config, kind(per_hour, run), 80 * HOUR);
    let found = outcome(&config, &jobs, &no_times());
    let mean = Duration::from_millis(found.mean_wait_ms()).as_secs_f64();
    let expected = load / (2.0 * (1.0 - load)) * run.as_secs_f64();
    assert!(
        (mean / expected - 1.0).abs() < 0.1,
        "{mean} s, expected {expected} s"
    );
    assert!(
        (found.utilisation - load).abs() < 0.02,
        "{}",
        found.utilisation
    );
    assert!(!found.never_catches_up);
}

#[test]
fn utilisation_is_the_load_divided_by_the_runners() {
    for runners in [4, 16] {
        let config = host(runners);
        let jobs = arrivals(&config, kind(120.0, Duration::from_mins(1)), 15 * HOUR);
        let found = outcome(&config, &jobs, &no_times());
        let expected = 2.0 / f64::from(runners);
        assert!(
            (found.utilisation / expected - 1.0).abs() < 0.05,
            "{found:?}"
        );
        assert!((found.load - found.utilisation).abs() < 0.01);
    }
}

#[test]
fn a_pool_with_too_few_runners_never_catches_up() {
    let config = host(2);
    let jobs = |per_hour| arrivals(&config, kind(per_hour, Duration::from_mins(1)), 8 * HOUR);
    // 120 an hour fill both runners.
    let over = outcome(&config, &jobs(150.0), &no_times());
    assert!(over.never_catches_up && over.load > 1.0, "{}", over.load);
    assert!(over.waiting_at_end > 100, "{}", over.waiting_at_end);
    assert!(!outcome(&config, &jobs(90.0), &no_times()).never_catches_up);
    // Half of the time is lost between two jobs, so the jobs alone are less than the runners could take.
    let slow = Times {
        boot: Samples::fixed(60_000, Source::Option),
        ..no_times()
    };
    let over = outcome(&config, &jobs(90.0), &slow);
    assert!(over.never_catches_up && over.load < 1.0, "{}", over.load);
}

#[test]
fn a_second_host_takes_half_of_the_jobs() {
    let config = host(2);
    let jobs = arrivals(&config, kind(96.0, Duration::from_mins(1)), 12 * HOUR);
    let one = outcome(&config, &jobs, &no_times());
    let hosts = Setup {
        hosts: 2,
        ..setup(&config)
    };
    let two = play(&hosts, &jobs, &no_times());
    let two = two.pool(&ci()).unwrap();
    assert!(
        (two.utilisation * 2.0 - one.utilisation).abs() < 0.02,
        "{two:?}"
    );
    assert!(two.wait_ms(95) < one.wait_ms(95));
    assert_eq!((one.runners, two.runners), (2, 4));
}

#[test]
fn pools_that_follow_jobs_start_for_each() {
    for demand in [Demand::Webhook, Demand::Queue, Demand::ScaleSet] {
        let mut config = host(4);
        let pool = &mut config.pools[0];
        (pool.demand, pool.min_idle) = (demand, 0);
        pool.scale_set = (demand == Demand::ScaleSet).then(|| "set".into());
        pool.scale_down_after = Duration::ZERO;
        // They come a moment after a reading of the queue.
        let jobs = trace(&config, &[(1, 10), (1, 10), (601, 10)]);
        let found = outcome(&config, &jobs, &Times::default());
        let told = if demand == Demand::Queue {
            29_000
        } else {
            1_000
        };
        assert_eq!(found.waits_ms, vec![told + 400 + 2_000; 3], "{demand}");
        assert_eq!(found.peak_runners, 2, "{demand}");
    }
}

#[test]
fn the_budget_of_the_host_bounds_its_runners() {
    let mut config = host(4);
    config.budget = Budget {
        runners: Some(2),
        ..Budget::default()
    };
    let jobs = trace(&config, &[(0, 10), (0, 10), (0, 10), (0, 10)]);
    let bounded = outcome(&config, &jobs, &no_times());
    assert_eq!((bounded.peak_runners, bounded.wait_ms(100)), (2, 10_000));
    let free = Setup {
        has_budget: false,
        ..setup(&config)
    };
    let free = play(&free, &jobs, &no_times());
    assert_eq!(free.pool(&ci()).unwrap().wait_ms(100), 0);
}

#[test]
fn no_runner_starts_while_the_memory_is_short() {
    let config = host(4);
    let jobs: Vec<(u64, u64)> = (0..4).map(|job| (job, 100)).collect();
    let mut jobs = trace(&config, &jobs);
    jobs.jobs.push(Arrival {
        at_ms: 20_000,
        ..jobs.jobs[0].clone()
    });
    for job in &mut jobs.jobs {
        (job.memory_bytes, job.duration_ms) = (Some(2 << 30), 100_000);
    }
    // The first job ends early, so that its slot could have another runner.
    jobs.jobs[0].duration_ms = 10_000;
    let large = play(&setup(&config), &jobs, &no_times());
    assert_eq!(
        (large.pool(&ci()).unwrap().wait_ms(100), large.closed_ms),
        (0, 0)
    );
    // Three jobs leave less than the reserve, and four did before.
    let small = Setup {
        memory_bytes: Some(7 << 30),
        ..setup(&config)
    };
    let small = play(&small, &jobs, &no_times());
    assert!(small.closed_ms > 80_000, "{}", small.closed_ms);
    assert!(small.pool(&ci()).unwrap().wait_ms(100) > 70_000);
    assert_eq!(ByteSize(small.memory_peak_bytes).to_string(), "8.1 GiB");
}

#[test]
fn a_job_beyond_its_time_limit_is_cut_short() {
    let mut config = host(1);
    config.pools[0].timeouts.job = Duration::from_mins(10);
    let jobs = trace(&config, &[(0, 3_600), (0, 10)]);
    let found = play(&setup(&config), &jobs, &no_times());
    assert_eq!(found.cut_short, 1);
    let waits = &found.pool(&ci()).unwrap().waits_ms;
    assert_eq!(waits[0], 0);
    assert!((600_000..605_000).contains(&waits[1]), "{waits:?}");
}

#[test]
fn the_runners_for_a_target_are_the_fewest() {
    let config = host(2);
    let jobs = arrivals(&config, kind(240.0, Duration::from_mins(1)), 2 * HOUR);
    let setup = setup(&config);
    let target = Duration::from_secs(20);
    let found = needed(&setup, &jobs, &no_times(), &ci(), target).unwrap();
    let runners = found.numbers.max_runners;
    assert!(
        runners > 4 && found.outcome.wait_ms(95) <= 20_000,
        "{found:?}"
    );
    let fewer = outcome(&host(runners - 1), &jobs, &no_times());
    assert!(fewer.wait_ms(95) > 20_000, "{fewer:?}");
}

#[test]
fn idle_runners_are_raised_if_boots_take_longer_than_the_target() {
    let mut config = host(1);
    config.pools[0].max_runners = 8;
    let bursts = JobKind {
        burst: 6.0,
        ..kind(30.0, Duration::from_mins(1))
    };
    let jobs = arrivals(&config, bursts, 5 * HOUR);
    let slow = Times {
        boot: Samples::fixed(30_000, Source::Option),
        ..no_times()
    };
    let target = Duration::from_secs(5);
    let found = needed(&setup(&config), &jobs, &slow, &ci(), target).unwrap();
    assert!(
        found.numbers.min_idle > 1 && found.outcome.wait_ms(95) <= 5_000,
        "{found:?}"
    );
    let mut followed = host(1);
    (followed.pools[0].demand, followed.pools[0].min_idle) = (Demand::Webhook, 0);
    let first = needed(
        &setup(&followed),
        &jobs,
        &slow,
        &ci(),
        Duration::from_mins(5),
    );
    assert!(first.is_some_and(|found| found.numbers.min_idle == 0));
}

#[test]
fn equal_seeds_give_equal_outcomes() {
    let config = host(3);
    let random = JobKind {
        duration_p95: Duration::from_mins(5),
        burst: 3.0,
        ..kind(60.0, Duration::from_mins(1))
    };
    let run = |seed| {
        let jobs = generate(
            &Workload::Kinds(vec![random.clone()]),
            &config,
            4 * HOUR,
            seed,
        );
        play(
            &Setup {
                seed,
                ..setup(&config)
            },
            &jobs.unwrap(),
            &Times::default(),
        )
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn generated_jobs_have_the_rate_and_the_durations_of_their_kind() {
    let config = host(1);
    let random = JobKind {
        duration_p95: Duration::from_mins(4),
        burst: 5.0,
        ..kind(100.0, Duration::from_mins(1))
    };
    let mut jobs = arrivals(&config, random, 1_000 * HOUR).jobs;
    let count = i32::try_from(jobs.len()).unwrap();
    assert!((f64::from(count) / 100_000.0 - 1.0).abs() < 0.05, "{count}");
    let bursts: std::collections::BTreeSet<u64> = jobs.iter().map(|job| job.at_ms).collect();
    let bursts = i32::try_from(bursts.len()).unwrap();
    assert!(
        (f64::from(count) / f64::from(bursts) / 5.0 - 1.0).abs() < 0.05,
        "{bursts}"
    );
    jobs.sort_by_key(|job| job.duration_ms);
    let at = |percent: usize| jobs[jobs.len() * percent / 100].duration_ms;
    assert!((58_000..62_000).contains(&at(50)), "{}", at(50));
    assert!((230_000..250_000).contains(&at(95)), "{}", at(95));
}

#[test]
fn too_many_jobs_are_refused() {
    let config = host(1);
    let many = Workload::Kinds(vec![kind(100_000.0, HOUR)]);
    assert_eq!(
        generate(&many, &config, 168 * HOUR, 1),
        Err(GenerateError::TooManyJobs)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Each job runs once, waits never grow with more runners, and no pool has more runners than it may.
    #[test]
    fn more_runners_never_make_jobs_wait_longer(
        jobs in proptest::collection::vec((0_u64..600, 1_u64..120), 1..60),
        runners in 1_u16..6,
        seed in any::<u64>(),
    ) {
        let few = host(runners);
        let arrivals = trace(&few, &jobs);
        let more = host(runners + 1);
        let of = |config: &Config| {
            let outcome = play(&Setup { seed, ..setup(config) }, &arrivals, &no_times());
            outcome.pool(&ci()).unwrap().clone()
        };
        let (few, more) = (of(&few), of(&more));
        let total = |outcome: &PoolOutcome| outcome.waits_ms.iter().sum::<u64>();
        prop_assert!(total(&more) <= total(&few), "{} {}", total(&more), total(&few));
        prop_assert_eq!(few.waits_ms.len(), jobs.len());
        prop_assert!(few.peak_runners <= usize::from(runners));
        prop_assert!(few.utilisation <= 1.0);
    }
}
