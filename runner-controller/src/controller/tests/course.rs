//! A pool's ordinary course, and what closes admission.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_job_costs_one_call_and_the_next_runner_is_there_before_it_ends() {
    let mut daemon = daemon().await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    let status = daemon
        .until("replaced", |s| {
            count(s, PhaseKind::Busy) == 1 && count(s, PhaseKind::Registering) == 1
        })
        .await;
    let job = status.pools[0].runners[0].job.clone().unwrap();
    assert_eq!(
        (job.note.repository.as_str(), job.note.run_id.as_str()),
        ("acme/widgets", "7")
    );
    daemon.fake.ends(&slot("ci-1"), 0).await;
    daemon
        .until("judged", |s| verdict(s, Verdict::JobDone) == 1 && waits(s))
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
    assert_eq!(count(&status, PhaseKind::Spare), 2, "{status:#?}");
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
            !s.pools.is_empty() && verdict(s, Verdict::BootTimeout) >= 2
        })
        .await;
    assert!(
        status.pools[0]
            .backoffs
            .iter()
            .any(|backoff| backoff.failure == FailureKind::Boot)
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
        .until("judged", |s| verdict(s, Verdict::JobDone) == 1 && waits(s))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_life_that_ended_while_nobody_watched_gets_its_verdict() {
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
        .until("judged", |s| {
            !s.pools.is_empty() && verdict(s, Verdict::JobDone) == 1 && waits(s)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_the_job_and_nothing_else() {
    let mut daemon = daemon().await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    daemon
        .until("busy", |s| {
            count(s, PhaseKind::Busy) == 1 && count(s, PhaseKind::Idle) == 1
        })
        .await;
    daemon.ask(Command::Drain).await;
    let status = daemon
        .until("empty but for the job", |s| s.pools[0].runners.len() == 1)
        .await;
    assert_eq!(
        (count(&status, PhaseKind::Busy), status.state),
        (1, DaemonState::Draining)
    );
    daemon.fake.ends(&slot("ci-1"), 0).await;
    daemon
        .until("drained", |s| s.state == DaemonState::Drained)
        .await;
    assert!(daemon.fake.with(|inner| inner.github.is_empty()));
    let world = daemon.stop().await;
    let mut next = Daemon::start(world).await;
    next.until("still drained", |s| s.state == DaemonState::Drained)
        .await;
    next.ask(Command::Undrain).await;
    next.until("at rest", waits).await;
}

#[tokio::test(start_paused = true)]
async fn clearing_ends_jobs_too_and_deregisters_them() {
    let mut daemon = daemon().await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    daemon
        .until("busy", |s| {
            count(s, PhaseKind::Busy) == 1 && count(s, PhaseKind::Idle) == 1
        })
        .await;
    daemon.ask(Command::Clear).await;
    daemon
        .until("cleared", |s| s.state == DaemonState::Cleared)
        .await;
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
        .until("judged", |s| verdict(s, Verdict::JobDone) == 1 && waits(s))
        .await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(daemon.fake.with(|inner| inner.verdicts.len()), 0);
    daemon.fake.with(|inner| inner.disk_full = false);
    daemon.until("written", |s| s.records_error.is_none()).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let status = daemon.until("at rest", waits).await;
    daemon.fake.with(|inner| {
        let verdicts: Vec<Verdict> = inner.verdicts.iter().map(|v| v.verdict).collect();
        assert_eq!(verdicts, [Verdict::JobDone]);
        let kept: Vec<(SlotId, PhaseKind)> = inner
            .records
            .values()
            .map(|record| (record.slot.clone(), record.phase))
            .collect();
        let shown: Vec<(SlotId, PhaseKind)> = status.pools[0]
            .runners
            .iter()
            .map(|runner| (runner.slot.clone(), runner.phase))
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
            ListedRunner {
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
    let firewall = |problem: Option<&str>| Event::Firewall {
        problem: problem.map(str::to_owned),
    };
    let events = daemon.fake.events.clone();
    events.send(firewall(Some("a rule is gone"))).await.unwrap();
    daemon
        .until("closed", |s| s.closed == ["firewall: a rule is gone"])
        .await;
    // The job that comes is run by the runner that waits for it; nobody takes its place.
    daemon.fake.job_starts(&slot("ci-1")).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    let status = daemon
        .until("busy", |s| count(s, PhaseKind::Busy) == 1)
        .await;
    assert_eq!(status.firewall_error.as_deref(), Some("a rule is gone"));
    assert_eq!(
        (
            count(&status, PhaseKind::Spare),
            count(&status, PhaseKind::Idle)
        ),
        (1, 0)
    );
    assert_eq!(
        count(&status, PhaseKind::Registering) + count(&status, PhaseKind::Booting),
        0
    );
    events.send(firewall(None)).await.unwrap();
    daemon
        .until("open again", |s| {
            s.closed.is_empty() && count(s, PhaseKind::Busy) == 1 && waits(s)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_runs_short_takes_no_new_runner_until_it_has_enough() {
    let mut daemon = daemon().await;
    let events = daemon.fake.events.clone();
    let shortages = |of: &[(Resource, &str)]| {
        let reasons = of
            .iter()
            .map(|(resource, why)| (*resource, (*why).to_owned()));
        Event::Shortages(reasons.collect())
    };
    let both = [
        (Resource::StateBytes, "1 MiB left"),
        (Resource::Memory, "2 MiB left"),
    ];
    events.send(shortages(&both)).await.unwrap();
    daemon
        .until("closed", |s| {
            s.closed == ["state_bytes: 1 MiB left", "memory: 2 MiB left"]
        })
        .await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    // One of the two is not enough.
    events.send(shortages(&both[1..])).await.unwrap();
    tokio::time::sleep(Duration::from_mins(10)).await;
    let status = daemon
        .until("busy", |s| count(s, PhaseKind::Busy) == 1)
        .await;
    assert_eq!(
        status.shortages.keys().collect::<Vec<_>>(),
        [&Resource::Memory]
    );
    assert_eq!(
        (
            count(&status, PhaseKind::Spare),
            count(&status, PhaseKind::Idle)
        ),
        (1, 0)
    );
    events.send(shortages(&[])).await.unwrap();
    daemon
        .until("open again", |s| {
            s.closed.is_empty() && count(s, PhaseKind::Busy) == 1 && waits(s)
        })
        .await;
}
