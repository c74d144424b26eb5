//! The ordinary course of a pool, and the conditions that close admission.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_job_costs_one_call_and_the_next_runner_is_ready_before_it_ends() {
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
    daemon.fake.ends(&slot("ci-1"), 100).await;
    daemon
        .until("verdict given", |s| {
            verdict(s, Verdict::JobDone) == 1 && is_settled(s)
        })
        .await;
    let calls = daemon.fake.with(|world| world.calls.clone());
    assert_eq!(calls.iter().filter(|call| **call == "mint").count(), 2);
    assert!(!calls.contains(&"delete"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_host_is_ready_seconds_after_its_first_registration() {
    let began = Instant::now();
    let mut daemon = Daemon::start(Arc::default()).await;
    let ready = |s: &Status| !s.pools.is_empty() && count(s, PhaseKind::Idle) == 1;
    daemon.until("ready", ready).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let lists = |daemon: &Daemon| {
        let calls = daemon.fake.with(|world| world.calls.clone());
        calls.iter().filter(|call| **call == "list").count()
    };
    assert_eq!(
        lists(&daemon),
        2,
        "at the start and two seconds after the registration"
    );
    tokio::time::sleep(MINUTE / 2).await;
    assert_eq!(lists(&daemon), 2);
}

/// Otherwise nothing would tell of a runner whose daemon is killed now and whose end root cannot record.
#[tokio::test(start_paused = true)]
async fn a_runner_is_on_record_before_it_starts() {
    let mut daemon = daemon().await;
    daemon.until("settled", is_settled).await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    daemon.fake.ends(&slot("ci-1"), 0).await;
    daemon
        .until("replaced", |s| {
            verdict(s, Verdict::JobDone) == 1 && is_settled(s)
        })
        .await;
    let calls = daemon.fake.with(|world| world.calls.clone());
    assert!(!calls.contains(&"start without a record"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_only_the_job() {
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
    daemon.fake.ends(&slot("ci-1"), 100).await;
    daemon
        .until("drained", |s| s.state == DaemonState::Drained)
        .await;
    assert!(daemon.fake.with(|world| world.github.is_empty()));
    let world = daemon.stop().await;
    let mut next = Daemon::start(world).await;
    next.until("still drained", |s| s.state == DaemonState::Drained)
        .await;
    next.ask(Command::Undrain).await;
    next.until("settled", is_settled).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_clearings_the_newer_one_lets_the_pools_refill() {
    let mut daemon = daemon().await;
    daemon.until("settled", is_settled).await;
    for number in [1, 2] {
        let refills = true;
        daemon.ask(Command::Clear { number, refills }).await;
    }
    daemon
        .until("cleared", |s| s.state == DaemonState::Cleared)
        .await;
    daemon.ask(Command::Refill(1)).await;
    daemon
        .until("still cleared", |s| {
            s.state == DaemonState::Cleared && s.clearing.done == 2 && s.clearing.refills
        })
        .await;
    daemon.ask(Command::Refill(2)).await;
    daemon.until("settled", is_settled).await;
    daemon
        .until("running, and the second clearing is done", |s| {
            s.state == DaemonState::Running && s.clearing.done == 2 && !s.clearing.refills
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn clearing_ends_jobs_too_and_deregisters_their_runners() {
    let mut daemon = daemon().await;
    daemon.fake.job_starts(&slot("ci-1")).await;
    daemon
        .until("busy", |s| {
            count(s, PhaseKind::Busy) == 1 && count(s, PhaseKind::Idle) == 1
        })
        .await;
    daemon
        .ask(Command::Clear {
            number: 1,
            refills: false,
        })
        .await;
    daemon
        .until("cleared", |s| s.state == DaemonState::Cleared)
        .await;
    assert!(
        daemon
            .fake
            .with(|world| world.github.is_empty() && world.machines.is_empty())
    );
    assert!(
        daemon.fake.with(|world| world.calls.contains(&"stop")),
        "the job's runner was stopped in order"
    );
}

#[tokio::test(start_paused = true)]
async fn the_stray_of_a_lost_mint_is_deleted() {
    let mut daemon = daemon().await;
    daemon.fake.with(|world| {
        let name = "fuzz-ci-3-0000dead".to_owned();
        world.github.insert(
            5,
            ListedRunner {
                id: RunnerId(5),
                name,
                online: false,
                busy: false,
                version: None,
            },
        );
    });
    daemon
        .until("found", |s| s.strays == ["fuzz-ci-3-0000dead"])
        .await;
    daemon.until("gone", |s| s.strays.is_empty()).await;
    assert!(!daemon.fake.with(|world| world.github.contains_key(&5)));
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
    // The idle runner takes the job that comes, and no runner replaces it.
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
            s.closed.is_empty() && count(s, PhaseKind::Busy) == 1 && is_settled(s)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_runs_short_starts_no_runner_until_it_has_enough() {
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
            s.closed.is_empty() && count(s, PhaseKind::Busy) == 1 && is_settled(s)
        })
        .await;
}
