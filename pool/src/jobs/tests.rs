//! Properties and examples of the job table.

use proptest::prelude::*;

use super::*;
use crate::{HostId, OrderRules, PoolName, ScopeId};

const HOUR_MS: u64 = 3_600_000;

fn scope() -> ScopeId {
    ScopeId::new("https://api.github.com", "acme")
}

fn key(id: u64) -> JobKey {
    JobKey {
        scope: scope(),
        source: JobSource::Webhook,
        id,
    }
}

/// Returns what one event tells.
fn told(id: u64, evidence: Evidence) -> KnownJob {
    let description = JobDescription {
        repository: "acme/widgets".into(),
        run_id: 7,
        workflow: "CI".into(),
        name: "build".into(),
        labels: vec!["self-hosted".into(), "Linux".into()],
    };
    KnownJob {
        started_unix_ms: (evidence == Evidence::Started).then_some(3_000),
        end: (evidence == Evidence::Ended).then_some(JobEnd {
            unix_ms: 9_000,
            conclusion: Conclusion::Success,
        }),
        ..KnownJob::new(key(id), evidence, description, 1_000)
    }
}

fn pool(name: &str, labels: &[&str]) -> PoolLabels {
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    PoolLabels::new(name.parse().unwrap(), scope(), &labels)
}

fn table(pools: Vec<PoolLabels>) -> JobTable {
    let host: HostId = "fuzz".parse().unwrap();
    JobTable::new(host, pools, OrderRules::default())
}

fn linux() -> JobTable {
    table(vec![pool("ci", &["self-hosted", "linux"])])
}

/// Returns the pool of a job with these labels.
fn serving(pools: &[PoolLabels], labels: &[&str]) -> Option<PoolName> {
    let mut job = told(1, Evidence::Queued);
    job.description.1.labels = labels.iter().map(|label| (*label).to_owned()).collect();
    super::matching::serving(pools, &job).cloned()
}

fn event() -> impl Strategy<Value = KnownJob> {
    let evidence = prop_oneof![
        Just(Evidence::Held),
        Just(Evidence::Queued),
        Just(Evidence::Started),
        Just(Evidence::Ended),
    ];
    let runner = proptest::option::of(prop_oneof![
        Just("fuzz-ci-1-0000beef".to_owned()),
        Just("other".to_owned())
    ]);
    let read = proptest::option::of((0..5_u64, any::<bool>()));
    (
        0..3_u64,
        1..3_u32,
        evidence,
        runner,
        0..5_u64,
        "[a-c]{1,2}",
        read,
    )
        .prop_map(|(id, attempt, evidence, runner, time, name, read)| {
            let mut job = told(id, evidence);
            job.told_unix_ms = time;
            job.read = read.map(|(unix_ms, is_held)| JobReading { unix_ms, is_held });
            job.attempt = attempt;
            job.runner = runner.map(|runner| (evidence, runner));
            job.queued_unix_ms += time;
            job.started_unix_ms = job.started_unix_ms.map(|at| at + time);
            job.description.1.name = name;
            job
        })
}

fn merged(events: &[KnownJob]) -> Vec<TableEntry> {
    let mut table = linux();
    for event in events {
        table.merge(event.clone());
    }
    let groups = [
        JobGroup::Held,
        JobGroup::Waiting,
        JobGroup::Unserved,
        JobGroup::Running,
        JobGroup::Ended,
        JobGroup::Elsewhere,
    ];
    let entries = groups.into_iter().flat_map(|group| table.in_group(group));
    entries.cloned().collect()
}

proptest! {
    #[test]
    fn the_order_of_events_does_not_matter(
        (events, shuffled) in proptest::collection::vec(event(), 0..12)
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
    ) {
        prop_assert_eq!(merged(&events), merged(&shuffled));
    }

    #[test]
    fn an_event_that_arrives_again_changes_nothing(
        events in proptest::collection::vec(event(), 1..12),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut doubled = events.clone();
        doubled.extend(again.iter().map(|index| index.get(&events).clone()));
        prop_assert_eq!(merged(&events), merged(&doubled));
    }

    #[test]
    fn the_queue_time_is_never_later_than_an_event_told(events in proptest::collection::vec(event(), 1..12)) {
        for entry in merged(&events) {
            let newest = events.iter().filter(|event| {
                event.key == entry.job.key && event.attempt == entry.job.attempt
            });
            let earliest = newest.map(|event| event.queued_unix_ms).min();
            prop_assert_eq!(Some(entry.job.queued_unix_ms), earliest);
        }
    }

    #[test]
    fn a_job_fits_a_pool_that_has_its_labels_and_no_other(
        asked in proptest::collection::vec("[a-cA-C]", 0..4),
        pools in proptest::collection::vec(proptest::collection::vec("[a-cA-C]", 1..4), 1..4),
    ) {
        let names = ["one", "two", "three"];
        let labels = |list: &[String]| {
            list.iter().map(|label| label.to_lowercase()).collect::<std::collections::BTreeSet<_>>()
        };
        let all: Vec<PoolLabels> = pools.iter().zip(names).map(|(list, name)| {
            pool(name, &list.iter().map(String::as_str).collect::<Vec<_>>())
        }).collect();
        let asked_texts: Vec<&str> = asked.iter().map(String::as_str).collect();
        let asked = labels(&asked);
        let fits = |list: &Vec<String>| !asked.is_empty() && asked.is_subset(&labels(list));
        match serving(&all, &asked_texts) {
            None => prop_assert!(!pools.iter().any(fits)),
            Some(found) => {
                let index = names.iter().position(|name| *name == found.as_str()).unwrap();
                prop_assert!(fits(&pools[index]));
                let surplus = |list: &Vec<String>| labels(list).len();
                for (other, list) in pools.iter().enumerate().filter(|(_, list)| fits(list)) {
                    let best = (surplus(&pools[index]), index);
                    prop_assert!(best <= (surplus(list), other));
                }
            }
        }
    }
}

#[test]
fn the_pool_with_the_fewest_further_labels_serves_a_job() {
    let pools = [
        pool("big", &["self-hosted", "linux", "gpu"]),
        pool("ci", &["self-hosted", "linux"]),
        pool("same", &["self-hosted", "linux"]),
    ];
    let serves = |labels: &[&str]| serving(&pools, labels).map(|pool| pool.to_string());
    assert_eq!(serves(&["Self-Hosted", "LINUX"]).as_deref(), Some("ci"));
    assert_eq!(serves(&["gpu"]).as_deref(), Some("big"));
    assert_eq!(serves(&["self-hosted", "windows"]), None);
    assert_eq!(serves(&[]), None);
}

#[test]
fn each_pool_tells_why_it_does_not_serve_a_job() {
    let elsewhere = PoolLabels::new(
        "other".parse().unwrap(),
        ScopeId::new("https://api.github.com", "umbrella"),
        &["linux".into()],
    );
    let pools = [
        pool("big", &["linux", "big", "gpu"]),
        pool("ci", &["Linux", "big"]),
        pool("mac", &["big", "macos"]),
        elsewhere,
    ];
    let job = |labels: &[&str]| {
        let mut job = told(1, Evidence::Queued);
        job.description.1.labels = labels.iter().map(|label| (*label).to_owned()).collect();
        job
    };
    let found: Vec<Fit> = fits(&pools, &job(&["LINUX", "big"]))
        .into_iter()
        .map(|(_, fit)| fit)
        .collect();
    let lacks = Fit::Lacks(vec!["linux".into()]);
    assert_eq!(
        found,
        [Fit::Further(1), Fit::Serves, lacks, Fit::OtherScope]
    );
    let none = fits(&pools, &job(&[]));
    assert_eq!(none[0].1, Fit::NoLabels);
    for labels in [&["linux"][..], &["big"], &["gpu"], &["none"], &[]] {
        let job = job(labels);
        let fits = fits(&pools, &job);
        let serves: Vec<_> = fits.iter().filter(|(_, fit)| *fit == Fit::Serves).collect();
        let chosen = super::matching::serving(&pools, &job);
        assert_eq!(
            serves.first().map(|(name, _)| name),
            chosen,
            "{labels:?}: {fits:?}"
        );
        assert!(serves.len() <= 1);
    }
}

#[test]
fn a_job_of_another_scope_fits_no_pool() {
    let elsewhere = ScopeId::new("https://api.github.com", "other");
    let labels = ["self-hosted".to_owned(), "linux".to_owned()];
    let pools = [PoolLabels::new("ci".parse().unwrap(), elsewhere, &labels)];
    assert_eq!(serving(&pools, &["linux"]), None);
}

#[test]
fn a_job_ends_although_its_end_arrives_first() {
    let mut table = linux();
    table.merge(told(1, Evidence::Ended));
    for evidence in [Evidence::Started, Evidence::Queued, Evidence::Held] {
        let (before, now) = table.merge(told(1, evidence));
        assert!(before.is_some());
        assert_eq!(now.job.stage(), JobStage::Ended, "{evidence:?}");
    }
    assert!(table.demand().is_empty());
}

#[test]
fn a_job_that_was_told_as_held_and_as_queued_waits_for_a_runner() {
    let mut table = linux();
    table.merge(told(1, Evidence::Held));
    assert_eq!(table.count(JobGroup::Held), 1);
    assert!(table.demand().is_empty(), "no runner may take it");
    table.merge(told(1, Evidence::Queued));
    assert_eq!(table.count(JobGroup::Waiting), 1);
}

#[test]
fn demand_counts_what_waits_for_each_pool_and_for_none() {
    let mut table = linux();
    table.merge(told(1, Evidence::Queued));
    let mut older = told(2, Evidence::Queued);
    older.queued_unix_ms = 500;
    table.merge(older);
    let mut running = told(3, Evidence::Started);
    running.runner = Some((Evidence::Started, "fuzz-ci-2-0000beef".into()));
    table.merge(running);
    let mut elsewhere = told(4, Evidence::Started);
    elsewhere.runner = Some((Evidence::Started, "GitHub Actions 4".into()));
    table.merge(elsewhere);
    let mut unserved = told(5, Evidence::Queued);
    unserved.description.1.labels = vec!["ubuntu-latest".into()];
    table.merge(unserved);
    let demand = table.demand();
    let ci = PoolDemand {
        waiting: 2,
        running: 1,
        oldest_unix_ms: Some(500),
    };
    let none = PoolDemand {
        waiting: 1,
        running: 0,
        oldest_unix_ms: Some(1_000),
    };
    assert_eq!(
        demand,
        [(Some("ci".parse().unwrap()), ci), (None, none)].into()
    );
    let waiting = table.in_group(JobGroup::Waiting);
    let ids: Vec<u64> = waiting.map(|entry| entry.job.key.id).collect();
    assert_eq!(ids, [2, 1]);
    assert_eq!(table.count(JobGroup::Unserved), 1);
}

#[test]
fn a_job_leaves_when_github_itself_has_ended_it() {
    for (evidence, leaves) in [
        (Evidence::Queued, 25 * HOUR_MS + 1_000),
        (Evidence::Held, 36 * 24 * HOUR_MS + 1_000),
        (Evidence::Started, 6 * 24 * HOUR_MS + 3_000),
        (Evidence::Ended, 25 * HOUR_MS + 9_000),
    ] {
        let mut table = linux();
        table.merge(told(1, evidence));
        assert_eq!(table.prune(leaves), [], "{evidence:?}");
        assert_eq!(table.prune(leaves + 1), [key(1)], "{evidence:?}");
    }
}

#[test]
fn the_table_is_bounded_and_keeps_the_jobs_that_wait_longest() {
    let mut table = linux();
    let count = u64::try_from(MAX_LIVE_JOBS).unwrap();
    for id in 0..count + 5 {
        let mut job = told(id, Evidence::Queued);
        job.queued_unix_ms = id;
        table.merge(job);
    }
    let ended = u64::try_from(MAX_ENDED_JOBS).unwrap();
    for id in 0..ended + 3 {
        let mut job = told(1_000_000 + id, Evidence::Ended);
        job.end = job.end.map(|end| JobEnd { unix_ms: id, ..end });
        table.merge(job);
    }
    assert!(table.is_over_full());
    let mut gone: Vec<u64> = table.prune(0).into_iter().map(|key| key.id).collect();
    gone.sort_unstable();
    let newest = count..count + 5;
    let oldest_ends = 1_000_000..1_000_003;
    assert_eq!(gone, newest.chain(oldest_ends).collect::<Vec<_>>());
    assert!(!table.is_over_full());
    assert_eq!(table.prune(0), []);
}

#[test]
fn a_wait_is_the_time_from_the_queue_to_the_start() {
    let waits = told(1, Evidence::Queued);
    assert_eq!(waits.wait_ms(), None);
    let started = waits.merge(told(1, Evidence::Started));
    assert_eq!(started.wait_ms(), Some(2_000));
    let held = started.merge(told(1, Evidence::Held));
    assert_eq!(held.wait_ms(), None, "it waited for an approval, too");
}

#[test]
fn github_says_whether_a_job_that_was_told_as_both_waits_for_an_approval() {
    let mut job = told(1, Evidence::Queued);
    job.held = true;
    job.told_unix_ms = 2_000;
    let read = |unix_ms, is_held| KnownJob {
        read: Some(JobReading { unix_ms, is_held }),
        ..job.clone()
    };
    assert_eq!(job.stage(), JobStage::Queued);
    assert_eq!(read(3_000, true).stage(), JobStage::Held);
    assert_eq!(read(3_000, false).stage(), JobStage::Queued);
    // A delivery after the reading may tell of the approval.
    assert_eq!(read(1_000, true).stage(), JobStage::Queued);
}

#[test]
fn a_job_is_read_soon_if_its_state_is_unclear_and_never_after_its_end() {
    let at = |evidence| {
        let mut job = told(1, evidence);
        job.told_unix_ms = 1_000_000;
        job
    };
    let due = |job: &KnownJob| job.read_due_unix_ms().map(|due| (due - 1_000_000) / 1_000);
    assert_eq!(due(&at(Evidence::Queued)), Some(300));
    assert_eq!(due(&at(Evidence::Held)), Some(1_800));
    assert_eq!(due(&at(Evidence::Started)), Some(1_800));
    assert_eq!(due(&at(Evidence::Ended)), None);
    let mut unclear = at(Evidence::Queued);
    unclear.held = true;
    assert_eq!(due(&unclear), Some(10));
    unclear.read = Some(JobReading {
        unix_ms: 1_100_000,
        is_held: false,
    });
    assert_eq!(due(&unclear), Some(400), "it is clear now");
}

#[test]
fn the_job_that_has_been_due_longest_is_read_first() {
    let mut jobs: Vec<KnownJob> = (1..4).map(|id| told(id, Evidence::Queued)).collect();
    for (job, told) in jobs.iter_mut().zip([30_000, 10_000, 900_000]) {
        job.told_unix_ms = told;
    }
    let due = |max| {
        let due = due_readings(&jobs, 400_000, max).into_iter();
        due.map(|job| job.key.id).collect::<Vec<_>>()
    };
    assert_eq!(due(10), [2, 1]);
    assert_eq!(due(1), [2]);
}

#[test]
fn only_waiting_jobs_of_the_repository_are_missing_in_its_queue() {
    let mut other = told(3, Evidence::Queued);
    other.description.1.repository = "acme/other".into();
    let mut here = told(4, Evidence::Queued);
    here.description.1.repository = "ACME/Widgets".into();
    let jobs = [
        told(1, Evidence::Queued),
        told(2, Evidence::Started),
        other,
        here,
    ];
    let reading = [key(1)].into();
    let missing = missing_jobs(&jobs, "acme/widgets", &reading, 10);
    assert_eq!(missing, [&jobs[3]]);
}

#[test]
fn a_pool_serves_no_repository_of_another_server() {
    let labels = ["self-hosted".to_owned(), "linux".to_owned()];
    let pool = |api: &str, scope: &str| {
        let scope = ScopeId::new(api, scope);
        PoolLabels::new("ci".parse().unwrap(), scope, &labels)
    };
    let job = told(1, Evidence::Queued);
    let serves = |pool| super::matching::serving(&[pool], &job).is_some();
    assert!(serves(pool("https://api.github.com", "acme/widgets")));
    assert!(!serves(pool("https://ghes.example/api/v3", "acme/widgets")));
    assert!(!serves(pool("https://ghes.example/api/v3", "acme")));
}
