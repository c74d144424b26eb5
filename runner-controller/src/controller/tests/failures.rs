//! Calls that fail: mints, deliveries, boots and writes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_refused_mint_keeps_the_spare_and_shows_the_reason() {
    let mut daemon = Daemon::start(Arc::new(Mutex::new(World {
        mint_fails: Some(RegistryErrorKind::Forbidden),
        ..World::default()
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
        "the request id is shown"
    );
    assert!(!crate::view::health(&daemon.status.borrow()).healthy);
    daemon.fake.with(|world| world.mint_fails = None);
    let status = daemon.until("recovered", is_settled).await;
    assert_eq!(status.github.error, None);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_requests_a_config_is_replaced_after_the_boot_timeout() {
    let mut daemon = Daemon::start(Arc::new(Mutex::new(World {
        never_requests: true,
        ..World::default()
    })))
    .await;
    let status = daemon
        .until("timed out", |s| {
            !s.pools.is_empty() && verdict(s, Verdict::BootTimeout) >= 2
        })
        .await;
    assert!(
        status.pools[0]
            .backoffs
            .iter()
            .any(|backoff| backoff.failure == FailureKind::Boot)
    );
    daemon.fake.with(|world| world.never_requests = false);
    daemon.until("recovered", is_settled).await;
}

#[tokio::test(start_paused = true)]
async fn an_undelivered_registration_is_deleted_and_its_container_replaced() {
    let mut daemon = Daemon::start(shared(World {
        next: 1 << 20,
        drops_request: true,
        ..World::default()
    }))
    .await;
    daemon
        .until("lost", |s| {
            !s.pools.is_empty() && verdict(s, Verdict::SpareLost) >= 1
        })
        .await;
    daemon.fake.with(|world| world.drops_request = false);
    daemon.until("settled", is_settled).await;
    daemon.until("given back", |s| s.strays.is_empty()).await;
    // One registration is left, and a container has it.
    let status = daemon.until("settled", is_settled).await;
    let runners = &status.pools[0].runners;
    let ours: Vec<u64> = runners
        .iter()
        .filter_map(|r| r.runner_id.map(|id| id.0))
        .collect();
    let theirs: Vec<u64> = daemon
        .fake
        .with(|world| world.github.keys().copied().collect());
    assert_eq!(theirs, ours);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_shown_and_loses_neither_a_job_nor_a_verdict() {
    let mut daemon = Daemon::start(Arc::new(Mutex::new(World {
        disk_full: true,
        ..World::default()
    })))
    .await;
    daemon
        .until("settled", |s| is_settled(s) && s.records_error.is_some())
        .await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    daemon.fake.ends(&slot("ci-1"), 0).await;
    daemon
        .until("verdict given", |s| {
            verdict(s, Verdict::JobDone) == 1 && is_settled(s)
        })
        .await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(daemon.fake.with(|world| world.verdicts.len()), 0);
    daemon.fake.with(|world| world.disk_full = false);
    daemon.until("written", |s| s.records_error.is_none()).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let status = daemon.until("settled", is_settled).await;
    daemon.fake.with(|world| {
        let verdicts: Vec<Verdict> = world.verdicts.iter().map(|v| v.verdict).collect();
        assert_eq!(verdicts, [Verdict::JobDone]);
        let kept: Vec<(SlotId, PhaseKind)> = world
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
async fn a_failed_write_is_retried_before_any_later_one() {
    let mut daemon = Daemon::start(shared(World {
        disk_full: true,
        ..World::default()
    }))
    .await;
    daemon
        .until("settled", |s| is_settled(s) && s.records_error.is_some())
        .await;
    daemon.fake.with(|world| {
        assert!(world.records.is_empty());
        world.disk_full = false;
    });
    daemon.until("written", |s| s.records_error.is_none()).await;
    let phases: Vec<PhaseKind> = daemon.fake.with(|world| {
        let records = world.records.values();
        records.map(|record| record.phase).collect()
    });
    assert_eq!(phases, [PhaseKind::Idle, PhaseKind::Spare]);
}

#[tokio::test(start_paused = true)]
async fn the_last_writes_are_tried_although_the_disk_was_full() {
    let mut daemon = Daemon::start(shared(World {
        disk_full: true,
        ..World::default()
    }))
    .await;
    daemon
        .until("settled", |s| is_settled(s) && s.records_error.is_some())
        .await;
    daemon.ask(Command::Drain).await;
    daemon.fake.with(|world| world.disk_full = false);
    let world = daemon.stop().await;
    let settings = world.lock().unwrap().settings.clone();
    assert_eq!(
        settings.get("mode").map(String::as_str),
        Some("boot draining")
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_writes_are_retried_for_a_limited_time() {
    for (full_for, written) in [
        (Duration::from_secs(3), true),
        // Between the last retry and the end of the time.
        (Duration::from_millis(4_500), true),
        (MINUTE, false),
    ] {
        let mut daemon = Daemon::start(shared(World {
            disk_full: true,
            ..World::default()
        }))
        .await;
        daemon
            .until("settled", |s| is_settled(s) && s.records_error.is_some())
            .await;
        daemon.ask(Command::Drain).await;
        let fake = daemon.fake.clone();
        tokio::spawn(async move {
            tokio::time::sleep(full_for).await;
            fake.with(|world| world.disk_full = false);
        });
        let began = Instant::now();
        let world = daemon.stop().await;
        assert!(began.elapsed() < 2 * LAST_WRITES_TIMEOUT);
        assert_eq!(world.lock().unwrap().settings.contains_key("mode"), written);
    }
}
