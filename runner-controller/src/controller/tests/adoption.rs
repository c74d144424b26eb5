//! Adoption: restarts, runners that ended without a daemon, and pools that were removed.

use super::*;
use crate::pool::ResourceUse;

fn invocation(number: u64) -> Invocation {
    Invocation::parse(&format!("{number:032x}")).unwrap()
}

fn end(number: u64, status: i32) -> EndRecord {
    EndRecord {
        invocation: invocation(number),
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
    }
}

fn on_record(slot: &SlotId, number: u64) -> RunnerRecord {
    RunnerRecord {
        slot: slot.clone(),
        boot_id: "boot".into(),
        invocation: Some(invocation(number)),
        phase: PhaseKind::Idle,
        since: now(),
        started_at: now(),
        timeline: None,
        registration: None,
        job: None,
    }
}

/// Returns the verdicts on record: the start, and its exit.
fn verdicts(daemon: &Daemon) -> Vec<(Option<Invocation>, Option<String>)> {
    let mut verdicts: Vec<_> = daemon.fake.with(|world| {
        let verdicts = world.verdicts.iter();
        verdicts
            .map(|v| (v.invocation.clone(), v.exit.clone()))
            .collect()
    });
    verdicts.sort();
    verdicts
}

fn verdict_on(number: u64, exit: Option<&str>) -> (Option<Invocation>, Option<String>) {
    (Some(invocation(number)), exit.map(str::to_owned))
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_every_runner() {
    let mut first = daemon().await;
    first.fake.job_starts(&slot("ci-1")).await;
    let before = first
        .until("busy", |s| {
            count(s, PhaseKind::Busy) == 1
                && count(s, PhaseKind::Idle) == 1
                && count(s, PhaseKind::Spare) == 1
        })
        .await;
    let world = first.stop().await;
    let mut second = Daemon::start(world).await;
    let after = second.until("adopted", |s| !s.pools.is_empty()).await;
    let runners = |status: &Status| -> Vec<_> {
        let runners = status.pools[0].runners.iter();
        runners
            .map(|r| (r.slot.clone(), r.phase, r.invocation.clone(), r.runner_id))
            .collect()
    };
    assert_eq!(runners(&before), runners(&after));
    second.fake.ends(&slot("ci-1"), 0).await;
    second
        .until("verdict given", |s| {
            verdict(s, Verdict::JobDone) == 1 && is_settled(s)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_ends_without_a_daemon_gets_its_verdict() {
    let mut first = daemon().await;
    first.fake.job_starts(&slot("ci-1")).await;
    first
        .until("busy", |s| {
            count(s, PhaseKind::Busy) == 1 && count(s, PhaseKind::Idle) == 1
        })
        .await;
    let fake = first.fake.clone();
    let world = first.stop().await;
    fake.ends(&slot("ci-1"), 0).await;
    let mut second = Daemon::start(world).await;
    second
        .until("verdict given", |s| {
            !s.pools.is_empty() && verdict(s, Verdict::JobDone) == 1 && is_settled(s)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_only_root_recorded_gets_one_verdict() {
    let world = shared(World {
        next: 1 << 20,
        ends: [(slot("ci-3"), end(9, 2))].into(),
        ..World::default()
    });
    // The second daemon finds the same end record, and the verdict on it.
    for _ in 0..2 {
        let mut daemon = Daemon::start(Arc::clone(&world)).await;
        daemon.until("settled", is_settled).await;
        assert_eq!(verdicts(&daemon), [verdict_on(9, Some("status 2"))]);
        daemon.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_runner_that_only_root_recorded_gets_one_verdict() {
    let at = |number| EndRecord {
        at: Timestamp::from_millis(number),
        ..end(number, 2)
    };
    let earlier = |number, name| RecordedEnd {
        slot: slot(name),
        start: None,
        end: at(number),
    };
    let world = shared(World {
        next: 1 << 20,
        ends: [(slot("ci-3"), at(9))].into(),
        // No pool has the last of these slots any more.
        earlier_ends: vec![earlier(8, "ci-3"), earlier(7, "ci-3"), earlier(6, "old-1")],
        ..World::default()
    });
    let judged = [6, 7, 8, 9].map(|number| verdict_on(number, Some("status 2")));
    for _ in 0..2 {
        let mut daemon = Daemon::start(Arc::clone(&world)).await;
        daemon.until("settled", is_settled).await;
        assert_eq!(verdicts(&daemon), judged);
        daemon.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_later_runner_is_not_that_of_the_recorded_one() {
    let mut daemon = Daemon::start(shared(World {
        next: 1 << 20,
        records: [(slot("ci-3"), on_record(&slot("ci-3"), 8))].into(),
        ends: [(slot("ci-3"), end(9, 2))].into(),
        ..World::default()
    }))
    .await;
    daemon.until("settled", is_settled).await;
    assert_eq!(
        verdicts(&daemon),
        [verdict_on(8, None), verdict_on(9, Some("status 2"))]
    );
}

#[tokio::test(start_paused = true)]
async fn the_runners_of_a_removed_pool_end_when_their_jobs_do() {
    let machine = |number| Machine {
        invocation: invocation(number),
        started_at: now(),
        active: true,
        waiting: false,
    };
    let (idle, busy) = (slot("old-1"), slot("old-2"));
    let mut working = on_record(&busy, 2);
    working.phase = PhaseKind::Busy;
    let listed_runner = |id, busy, name: &str| ListedRunner {
        id: RunnerId(id),
        name: name.to_owned(),
        online: true,
        busy,
        version: None,
    };
    let mut daemon = Daemon::start(shared(World {
        next: 1 << 20,
        machines: [(idle.clone(), machine(1)), (busy.clone(), machine(2))].into(),
        records: [(idle.clone(), on_record(&idle, 1)), (busy.clone(), working)].into(),
        github: [
            (5, listed_runner(5, false, "fuzz-old-1-0000dead")),
            (6, listed_runner(6, true, "fuzz-old-2-0000beef")),
        ]
        .into(),
        ..World::default()
    }))
    .await;
    let there = |s: &Status| -> Vec<String> {
        let old = s.pools.iter().filter(|pool| pool.name == "old");
        let runners = old.flat_map(|pool| pool.runners.iter());
        runners.map(|runner| runner.slot.to_string()).collect()
    };
    daemon
        .until("without the idle one", |s| there(s) == ["old-2"])
        .await;
    tokio::time::sleep(Duration::from_mins(30)).await;
    assert!(daemon.fake.with(|world| world.machines.contains_key(&busy)));
    daemon.fake.ends(&busy, 0).await;
    daemon
        .until("gone", |s| s.pools.iter().all(|pool| pool.name == "ci"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_call_for_a_former_scope_is_that_scopes_error_alone() {
    let former = ScopeId::new("https://api.github.com", "acme/former");
    let idle = slot("ci-1");
    let name = RunnerName::new(config().host, idle.clone(), 0xdead);
    let listed = ListedRunner {
        id: RunnerId(5),
        name: name.to_string(),
        online: true,
        busy: false,
        version: None,
    };
    let mut record = on_record(&idle, 1);
    record.registration = Some(Registration {
        scope: Some(former.clone()),
        id: Some(RunnerId(5)),
        name,
    });
    let machine = Machine {
        invocation: invocation(1),
        started_at: now(),
        active: true,
        waiting: false,
    };
    let there = shared(World {
        github: [(5, listed)].into(),
        deletions_fail: true,
        ..World::default()
    });
    let mut daemon = Daemon::start(shared(World {
        next: 1 << 20,
        machines: [(idle.clone(), machine)].into(),
        records: [(idle, record)].into(),
        former: Some((former, Arc::clone(&there))),
        ..World::default()
    }))
    .await;
    let is_former_failing = |status: &Status| {
        let mut errors = status
            .former
            .iter()
            .filter_map(|former| former.error.as_ref());
        errors.any(|error| error.contains("delete runner"))
    };
    let status = daemon.until("reported", is_former_failing).await;
    assert_eq!(status.github.error, None);
    there.lock().unwrap().deletions_fail = false;
    daemon
        .until("removed", |status| {
            is_settled(status) && status.former.iter().all(|former| former.runners.is_empty())
        })
        .await;
    assert!(there.lock().unwrap().github.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_outlives_a_daemon_is_one_trace_with_all_its_phases() {
    let mut first = daemon().await;
    let before = first
        .until("idle", |s| is_settled(s) && count(s, PhaseKind::Idle) == 1)
        .await;
    let is_idle = |runner: &&RunnerStatus| runner.phase == PhaseKind::Idle;
    let idle = before.pools[0].runners.iter().find(is_idle).unwrap();
    let (slot, invocation) = (idle.slot.clone(), idle.invocation.clone());
    let world = first.stop().await;
    let mut second = Daemon::start(world).await;
    second.fake.job_starts(&slot).await;
    second
        .until("busy", |s| count(s, PhaseKind::Busy) == 1)
        .await;
    second.fake.ends(&slot, 0).await;
    let after = second
        .until("verdict given", |s| verdict(s, Verdict::JobDone) == 1)
        .await;
    assert_eq!(after.traces.unwrap().sent, 1);
    let traced = second.fake.with(|world| world.traced.clone());
    let [(record, job_url)] = &traced[..] else {
        panic!("{traced:?}");
    };
    assert_eq!(record.invocation, invocation);
    let phases: Vec<PhaseKind> = record.phases.iter().map(|entry| entry.phase).collect();
    for phase in [
        PhaseKind::Booting,
        PhaseKind::Spare,
        PhaseKind::Idle,
        PhaseKind::Busy,
    ] {
        assert_eq!(
            phases.iter().filter(|p| **p == phase).count(),
            1,
            "{phases:?}"
        );
    }
    let url = record.job.as_ref().unwrap().run_url("https://github.com");
    assert_eq!(*job_url, url);
}
