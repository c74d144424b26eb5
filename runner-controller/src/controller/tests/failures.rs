//! Lives that nobody saw begin or end, pools that are gone, records that fail, and the caps.

use super::*;

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
        registration: None,
        job: None,
    }
}

fn shared(inner: Inner) -> Arc<Mutex<Inner>> {
    Arc::new(Mutex::new(inner))
}

/// The verdicts that were kept: which life, and how it ended.
fn kept(daemon: &Daemon) -> Vec<(Option<Invocation>, Option<String>)> {
    let mut kept: Vec<_> = daemon.fake.with(|inner| {
        let verdicts = inner.verdicts.iter();
        verdicts
            .map(|v| (v.invocation.clone(), v.exit.clone()))
            .collect()
    });
    kept.sort();
    kept
}

fn told(number: u64, exit: Option<&str>) -> (Option<Invocation>, Option<String>) {
    (Some(invocation(number)), exit.map(str::to_owned))
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_is_repeated_before_any_later_one() {
    let mut daemon = Daemon::start(shared(Inner {
        disk_full: true,
        ..Inner::default()
    }))
    .await;
    daemon
        .until("at rest", |s| waits(s) && s.records_error.is_some())
        .await;
    daemon.fake.with(|inner| {
        assert!(inner.records.is_empty());
        inner.disk_full = false;
    });
    daemon.until("written", |s| s.records_error.is_none()).await;
    let phases: Vec<PhaseKind> = daemon.fake.with(|inner| {
        let records = inner.records.values();
        records.map(|record| record.phase).collect()
    });
    assert_eq!(phases, [PhaseKind::Idle, PhaseKind::Spare]);
}

#[tokio::test(start_paused = true)]
async fn a_life_that_only_root_knows_of_gets_one_verdict() {
    let world = shared(Inner {
        next: 1 << 20,
        ends: [(slot("ci-3"), end(9, 2))].into(),
        ..Inner::default()
    });
    // The second daemon finds the same end record, and the verdict on it.
    for _ in 0..2 {
        let mut daemon = Daemon::start(Arc::clone(&world)).await;
        daemon.until("at rest", waits).await;
        assert_eq!(kept(&daemon), [told(9, Some("status 2"))]);
        daemon.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_later_life_is_not_that_of_the_recorded_one() {
    let mut daemon = Daemon::start(shared(Inner {
        next: 1 << 20,
        records: [(slot("ci-3"), on_record(&slot("ci-3"), 8))].into(),
        ends: [(slot("ci-3"), end(9, 2))].into(),
        ..Inner::default()
    }))
    .await;
    daemon.until("at rest", waits).await;
    assert_eq!(kept(&daemon), [told(8, None), told(9, Some("status 2"))]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_gone_ends_when_its_jobs_do() {
    let machine = |number| Machine {
        invocation: invocation(number),
        started_at: now(),
        active: true,
        asking: false,
    };
    let (idle, busy) = (slot("old-1"), slot("old-2"));
    let mut working = on_record(&busy, 2);
    working.phase = PhaseKind::Busy;
    let listed_runner = |id, busy, name: &str| ListedRunner {
        id: RunnerId(id),
        name: name.to_owned(),
        online: true,
        busy,
    };
    let mut daemon = Daemon::start(shared(Inner {
        next: 1 << 20,
        machines: [(idle.clone(), machine(1)), (busy.clone(), machine(2))].into(),
        records: [(idle.clone(), on_record(&idle, 1)), (busy.clone(), working)].into(),
        github: [
            (5, listed_runner(5, false, "fuzz-old-1-0000dead")),
            (6, listed_runner(6, true, "fuzz-old-2-0000beef")),
        ]
        .into(),
        ..Inner::default()
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
    assert!(daemon.fake.with(|inner| inner.machines.contains_key(&busy)));
    daemon.fake.ends(&busy, 0).await;
    daemon
        .until("gone", |s| s.pools.iter().all(|pool| pool.name == "ci"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_minute_has_so_many_mints_and_no_more() {
    let mut daemon = daemon().await;
    let fake = daemon.fake.clone();
    // Jobs of no length: each runner that is registered ends at once, with its job done.
    let storm = tokio::spawn(async move {
        loop {
            let listening = fake.with(|inner| {
                let names: Vec<String> = inner.github.values().map(|r| r.name.clone()).collect();
                let of = |slot: &SlotId| names.iter().any(|n| n.contains(&format!("-{slot}-")));
                let slots = inner.machines.keys().filter(|slot| of(slot));
                slots.cloned().collect::<Vec<_>>()
            });
            for slot in listening {
                fake.job_starts(&slot).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                fake.ends(&slot, 0).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tokio::time::sleep(2 * MINUTE + MINUTE / 2).await;
    storm.abort();
    daemon.until("at rest", waits).await;
    let mints = daemon.fake.with(|inner| inner.minted_at.clone());
    assert!(mints.len() > 2 * MAX_MINTS_PER_MINUTE, "{}", mints.len());
    for (index, at) in mints.iter().enumerate() {
        let minute = mints[index..]
            .iter()
            .take_while(|later| later.since(*at) < MINUTE);
        assert!(minute.count() <= MAX_MINTS_PER_MINUTE);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_registered_while_too_many_have_no_machine() {
    let listed_runner = |n: u64| ListedRunner {
        id: RunnerId(n),
        name: format!("fuzz-ci-3-{n:08x}"),
        online: false,
        busy: false,
    };
    let unowned = MAX_ORPHANS as u64;
    let mut daemon = Daemon::start(shared(Inner {
        next: 1 << 20,
        github: (1..=unowned).map(|n| (n, listed_runner(n))).collect(),
        ..Inner::default()
    }))
    .await;
    daemon
        .until("full", |s| s.strays.len() == MAX_ORPHANS)
        .await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let status = daemon
        .until("spares", |s| count(s, PhaseKind::Spare) == 2)
        .await;
    assert_eq!(
        count(&status, PhaseKind::Idle) + count(&status, PhaseKind::Registering),
        0
    );
    daemon
        .until("at rest", |s| waits(s) && s.strays.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_last_words_are_written_although_the_disk_was_full() {
    let mut daemon = Daemon::start(shared(Inner {
        disk_full: true,
        ..Inner::default()
    }))
    .await;
    daemon
        .until("at rest", |s| waits(s) && s.records_error.is_some())
        .await;
    daemon.ask(Command::Drain).await;
    daemon.fake.with(|inner| inner.disk_full = false);
    let world = daemon.stop().await;
    let settings = world.lock().unwrap().settings.clone();
    assert_eq!(
        settings.get("mode").map(String::as_str),
        Some("boot draining")
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_words_are_repeated_for_a_while_and_not_for_ever() {
    for (full_for, written) in [(Duration::from_secs(3), true), (MINUTE, false)] {
        let mut daemon = Daemon::start(shared(Inner {
            disk_full: true,
            ..Inner::default()
        }))
        .await;
        daemon
            .until("at rest", |s| waits(s) && s.records_error.is_some())
            .await;
        daemon.ask(Command::Drain).await;
        let fake = daemon.fake.clone();
        tokio::spawn(async move {
            tokio::time::sleep(full_for).await;
            fake.with(|inner| inner.disk_full = false);
        });
        let began = Instant::now();
        let world = daemon.stop().await;
        assert!(began.elapsed() < 2 * LAST_WORDS);
        assert_eq!(world.lock().unwrap().settings.contains_key("mode"), written);
    }
}

#[tokio::test(start_paused = true)]
async fn a_config_that_nobody_took_is_deleted_and_its_container_replaced() {
    let mut daemon = Daemon::start(shared(Inner {
        next: 1 << 20,
        hangs_up: true,
        ..Inner::default()
    }))
    .await;
    daemon
        .until("lost", |s| {
            !s.pools.is_empty() && verdict(s, Verdict::SpareLost) >= 1
        })
        .await;
    daemon.fake.with(|inner| inner.hangs_up = false);
    daemon.until("at rest", waits).await;
    daemon.until("given back", |s| s.strays.is_empty()).await;
    // One registration is left, and a container has it.
    let status = daemon.until("at rest", waits).await;
    let runners = &status.pools[0].runners;
    let ours: Vec<u64> = runners
        .iter()
        .filter_map(|r| r.runner_id.map(|id| id.0))
        .collect();
    let theirs: Vec<u64> = daemon
        .fake
        .with(|inner| inner.github.keys().copied().collect());
    assert_eq!(theirs, ours);
}

/// A daemon that GitHub has just told to leave it alone for [`LIMIT`].
async fn limited() -> Daemon {
    let mut daemon = daemon().await;
    daemon
        .fake
        .with(|inner| inner.mint_fails = Some(RegistryErrorKind::Limited));
    daemon.fake.job_starts(&slot("ci-1")).await;
    let limited = |s: &Status| {
        s.pools[0]
            .backoffs
            .iter()
            .any(|b| b.failure == FailureKind::Limited)
    };
    daemon.until("limited", limited).await;
    daemon
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_for_the_next_daemon_too() {
    let first = limited().await;
    tokio::time::sleep(LIMIT / 2).await;
    let world = first.stop().await;
    assert_eq!(world.lock().unwrap().held, None);
    let second = Daemon::start(world).await;
    let held = second.fake.with(|inner| inner.held).unwrap();
    assert!(held <= LIMIT / 2 && held > LIMIT / 3, "{held:?}");
    let world = second.stop().await;
    tokio::time::sleep(LIMIT).await;
    world.lock().unwrap().held = None;
    let third = Daemon::start(world).await;
    assert_eq!(third.fake.with(|inner| inner.held), None);
}

/// What a daemon of this boot keeps to, of a limit that is written down so.
async fn held_by(written: impl FnOnce(&str) -> String) -> (Option<Duration>, bool) {
    let first = limited().await;
    let world = first.stop().await;
    let party = world.lock().unwrap().settings["limited"]
        .splitn(4, ' ')
        .nth(3)
        .unwrap()
        .to_owned();
    let written = written(&party);
    {
        let mut world = world.lock().unwrap();
        world.settings.insert("limited".into(), written);
        world.mint_fails = None;
    }
    let second = Daemon::start(world).await;
    let held = second.fake.with(|inner| inner.held);
    let world = second.stop().await;
    let kept = world.lock().unwrap().settings.contains_key("limited");
    (held, kept)
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_another_boot_is_believed_by_the_wall_clock_and_not_for_ever() {
    let minutes = |n: u64| n * 60_000;
    // The fake wall clock stands at zero.
    let held = held_by(|party| format!("before 7 {} {party}", minutes(20))).await;
    assert_eq!(held, (Some(Duration::from_mins(20)), true));
    let held = held_by(|party| format!("before 7 {} {party}", minutes(30_000))).await;
    assert_eq!(held, (None, false), "a wrong clock silences every daemon");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_somebody_else_or_no_limit_at_all_holds_nothing() {
    let (held, _) = held_by(|party| format!("before 7 60000 {party}x")).await;
    assert_eq!(held, None);
    for nonsense in ["", "before", "before x y z", "before 7", "before 7 -1 z"] {
        let (held, _) = held_by(|_| nonsense.to_owned()).await;
        assert_eq!(held, None, "{nonsense}");
    }
}
