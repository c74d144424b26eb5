//! Bounds on the calls to GitHub: mints, orphans and rate limits.

use super::*;
use crate::pool::{MAX_ORPHANS, PaceReason};
use crate::status::Gate;

/// Keys of the settings of the configured scope.
const LIMITED: &str = "limited https://api.github.com acme/widgets";
const PACE: &str = "pace https://api.github.com acme/widgets";

/// Returns a daemon that just got a rate limit of [`LIMIT`] from GitHub.
async fn limited() -> Daemon {
    let mut daemon = daemon().await;
    daemon
        .fake
        .with(|world| world.mint_fails = Some(RegistryErrorKind::Limited));
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

/// Returns how long a daemon holds its calls because of this setting, and whether it keeps the setting.
async fn held_by(written: impl FnOnce(&str) -> String) -> (Option<Duration>, bool) {
    let first = limited().await;
    let world = first.stop().await;
    let account = world.lock().unwrap().settings[LIMITED]
        .splitn(4, ' ')
        .nth(3)
        .unwrap()
        .to_owned();
    let written = written(&account);
    {
        let mut world = world.lock().unwrap();
        world.settings.insert(LIMITED.into(), written);
        world.mint_fails = None;
    }
    let second = Daemon::start(world).await;
    let held = second.fake.with(|world| world.held);
    let world = second.stop().await;
    let kept = world.lock().unwrap().settings.contains_key(LIMITED);
    (held, kept)
}

#[tokio::test(start_paused = true)]
async fn a_minute_has_a_maximum_number_of_mints() {
    let mut daemon = daemon().await;
    let fake = daemon.fake.clone();
    // Jobs of no length: each runner that is registered ends at once, with its job done.
    let storm = tokio::spawn(async move {
        loop {
            let listening = fake.with(|world| {
                let names: Vec<String> = world.github.values().map(|r| r.name.clone()).collect();
                let of = |slot: &SlotId| names.iter().any(|n| n.contains(&format!("-{slot}-")));
                let slots = world.machines.keys().filter(|slot| of(slot));
                slots.cloned().collect::<Vec<_>>()
            });
            for slot in listening {
                fake.job_starts(&slot).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                fake.ends(&slot, 100).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tokio::time::sleep(2 * MINUTE + MINUTE / 2).await;
    let reason = gate(&status_of(&daemon), Gate::Pace).map(str::to_owned);
    let expected = "paced by github.mints_per_minute: at most 60 registrations a minute";
    assert_eq!(reason.as_deref(), Some(expected));
    storm.abort();
    daemon.until("settled", is_settled).await;
    let mints = daemon.fake.with(|world| world.minted_at.clone());
    assert!(mints.len() > 2 * MINTS_PER_MINUTE, "{}", mints.len());
    for (index, at) in mints.iter().enumerate() {
        let minute = mints[index..]
            .iter()
            .take_while(|later| later.since(*at) < MINUTE);
        assert!(minute.count() <= MINTS_PER_MINUTE);
    }
}

/// Returns the closed gate of a status.
fn gate(status: &Status, gate: Gate) -> Option<&str> {
    let closed = status.gates.iter().find(|closed| closed.gate == gate);
    closed.map(|closed| closed.reason.as_str())
}

#[tokio::test(start_paused = true)]
async fn a_refused_mint_lowers_the_pace_which_the_next_daemon_keeps() {
    let first = limited().await;
    let pace = status_of(&first).github.pace.unwrap();
    assert_eq!(pace.paced_by, PaceReason::Refused);
    assert!(pace.mints_per_minute < pace.configured, "{pace:?}");
    let reason = gate(&status_of(&first), Gate::Pace).map(str::to_owned);
    assert!(reason.unwrap().starts_with("paced by GitHub's refusals: "));
    let world = first.stop().await;
    let second = Daemon::start(Arc::clone(&world)).await;
    assert_eq!(status_of(&second).github.pace.unwrap(), pace);
    // A version before this setting leaves none, and other text is not one.
    let mut world = second.stop().await;
    for setting in [None, Some("before"), Some("boot 1 2")] {
        world.lock().unwrap().settings.remove(PACE);
        if let Some(text) = setting {
            let settings = &mut world.lock().unwrap().settings;
            settings.insert(PACE.into(), text.into());
        }
        let next = Daemon::start(world).await;
        let pace = status_of(&next).github.pace.unwrap();
        assert_eq!(pace.paced_by, PaceReason::Configured);
        assert_eq!(pace.mints_per_minute, pace.configured);
        world = next.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_and_pace_of_a_version_with_one_scope_hold_for_the_next_daemon() {
    let first = limited().await;
    let pace = status_of(&first).github.pace.unwrap();
    let world = first.stop().await;
    {
        let settings = &mut world.lock().unwrap().settings;
        for (key, before) in [(LIMITED, "limited"), (PACE, "pace")] {
            let value = settings.remove(key).unwrap();
            settings.insert(before.into(), value);
        }
    }
    let second = Daemon::start(Arc::clone(&world)).await;
    assert_eq!(status_of(&second).github.pace.unwrap(), pace);
    let held = second.fake.with(|world| world.held);
    assert!(held.is_some_and(|held| held > LIMIT / 2), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn the_mints_of_an_earlier_daemon_count_for_the_next_one() {
    let first = daemon().await;
    assert_eq!(status_of(&first).github.pace.unwrap().last_minute, 1);
    let world = first.stop().await;
    let second = Daemon::start(world).await;
    assert_eq!(status_of(&second).github.pace.unwrap().last_minute, 1);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_githubs_window_sets_the_pace() {
    let world = World {
        mint_window: Some(MintWindow {
            limit: 10_000,
            remaining: 50,
            resets_in: 9 * MINUTE,
        }),
        ..World::default()
    };
    let mut daemon = Daemon::start(shared(world)).await;
    let status = daemon.until("settled", is_settled).await;
    let pace = status.github.pace.unwrap();
    assert_eq!(
        (pace.mints_per_minute, pace.paced_by),
        (5, PaceReason::Window)
    );
    let reason = gate(&status, Gate::Pace).unwrap();
    assert!(
        reason.starts_with("paced by GitHub's rate limit"),
        "{reason}"
    );
}

/// Returns a world in which GitHub has this many offline registrations of this host without a container.
fn with_strays(count: u64) -> World {
    let listed_runner = |n: u64| ListedRunner {
        id: RunnerId(n),
        name: format!("fuzz-ci-3-{n:08x}"),
        online: false,
        busy: false,
        version: None,
    };
    World {
        next: 1 << 20,
        github: (1..=count).map(|n| (n, listed_runner(n))).collect(),
        ..World::default()
    }
}

#[tokio::test(start_paused = true)]
async fn strays_and_failing_deletions_stop_no_registration() {
    let count = 2 * MAX_ORPHANS as u64;
    let mut daemon = Daemon::start(shared(World {
        deletions_fail: true,
        ..with_strays(count)
    }))
    .await;
    daemon.until("settled", is_settled).await;
    let registered = daemon.fake.with(|world| world.minted_at.len());
    assert_eq!(registered, 1, "it did not wait for deletions");
    let gate = |s: &Status| s.gates.iter().any(|g| g.gate == Gate::Deletions);
    let status = daemon.until("the failing deletions are named", gate).await;
    assert_eq!(status.strays.len() as u64, count);
    // Another hour of jobs while no registration can be deleted.
    for _ in 0..60 {
        daemon.fake.job_starts(&idle(&status_of(&daemon))).await;
        let busy = daemon
            .until("busy", |s| self::count(s, PhaseKind::Busy) == 1)
            .await;
        let runner = busy.pools[0]
            .runners
            .iter()
            .find(|r| r.phase == PhaseKind::Busy);
        daemon.fake.ends(&runner.unwrap().slot.clone(), 100).await;
        daemon.until("settled", is_settled).await;
        tokio::time::sleep(MINUTE).await;
    }
    let deletes = daemon
        .fake
        .with(|world| world.calls.iter().filter(|call| **call == "delete").count());
    assert!(deletes < 60, "{deletes} deletions in an hour of failures");
    daemon.fake.with(|world| world.deletions_fail = false);
    daemon.until("deleted", |s| s.strays.is_empty()).await;
}

/// Returns the status as it is.
fn status_of(daemon: &Daemon) -> Status {
    daemon.status.borrow().clone()
}

/// Returns the slot of the idle runner.
fn idle(status: &Status) -> SlotId {
    let runners = &status.pools[0].runners;
    let idle = runners
        .iter()
        .find(|runner| runner.phase == PhaseKind::Idle);
    idle.unwrap().slot.clone()
}

#[tokio::test(start_paused = true)]
async fn lost_mint_answers_slow_registrations_down_and_stop_none() {
    let mut daemon = daemon().await;
    daemon.fake.with(|world| {
        world.deletions_fail = true;
        world.drops_request = true;
    });
    daemon.fake.job_starts(&slot("ci-1")).await;
    let slow = |s: &Status| s.gates.iter().any(|g| g.gate == Gate::Orphans);
    daemon.until("slow", slow).await;
    let before = daemon.fake.with(|world| world.minted_at.len());
    tokio::time::sleep(10 * MINUTE).await;
    let after = daemon.fake.with(|world| world.minted_at.len());
    assert!(after > before, "registrations go on");
    daemon.fake.with(|world| {
        world.deletions_fail = false;
        world.drops_request = false;
    });
    daemon
        .until("settled", |s| is_settled(s) && s.strays.is_empty())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_stray_is_deleted_although_the_daemon_restarts_every_minute() {
    let world = shared(with_strays(1));
    for _ in 0..4 {
        let mut daemon = Daemon::start(Arc::clone(&world)).await;
        daemon.until("listed", |s| s.github.listed.is_some()).await;
        tokio::time::sleep(Duration::from_secs(59)).await;
        daemon.stop().await;
    }
    assert!(!world.lock().unwrap().github.contains_key(&1));
}

#[tokio::test(start_paused = true)]
async fn an_online_runner_of_another_host_with_this_name_is_kept_and_reported() {
    let mut world = with_strays(1);
    world.github.get_mut(&1).unwrap().online = true;
    let mut daemon = Daemon::start(shared(world)).await;
    daemon
        .until("reported", |s| s.foreign == ["fuzz-ci-3-00000001"])
        .await;
    tokio::time::sleep(30 * MINUTE).await;
    assert!(daemon.fake.with(|world| world.github.contains_key(&1)));
    assert!(status_of(&daemon).strays.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_for_the_next_daemon() {
    let first = limited().await;
    tokio::time::sleep(LIMIT / 2).await;
    let world = first.stop().await;
    assert_eq!(world.lock().unwrap().held, None);
    let second = Daemon::start(world).await;
    let held = second.fake.with(|world| world.held).unwrap();
    assert!(held <= LIMIT / 2 && held > LIMIT / 3, "{held:?}");
    let world = second.stop().await;
    tokio::time::sleep(LIMIT).await;
    world.lock().unwrap().held = None;
    let third = Daemon::start(world).await;
    assert_eq!(third.fake.with(|world| world.held), None);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_that_another_task_met_holds_for_the_next_daemon() {
    let first = daemon().await;
    let until = tokio::time::Instant::now() + LIMIT;
    first.fake.with(|world| world.limited_until = Some(until));
    // The task tells its state, whatever it is.
    let told = Event::ScaleSet(crate::status::ScaleSetStatus::default());
    first.fake.events.send(told).await.unwrap();
    tokio::time::sleep(LIMIT / 2).await;
    let world = first.stop().await;
    world.lock().unwrap().limited_until = None;
    let second = Daemon::start(world).await;
    let held = second.fake.with(|world| world.held).unwrap();
    assert!(held <= LIMIT / 2 && held > LIMIT / 3, "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_that_another_task_met_while_the_daemon_stops_holds_for_the_next_one() {
    let first = daemon().await;
    let until = tokio::time::Instant::now() + LIMIT;
    first.fake.with(|world| world.limited_until = Some(until));
    let world = first.stop().await;
    world.lock().unwrap().limited_until = None;
    let second = Daemon::start(world).await;
    let held = second.fake.with(|world| world.held).unwrap();
    assert!(held <= LIMIT && held > LIMIT / 2, "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_another_boot_lasts_by_the_wall_clock_within_reason() {
    let minutes = |n: u64| n * 60_000;
    // The simulated wall clock stands at zero.
    let held = held_by(|account| format!("before 7 {} {account}", minutes(20))).await;
    assert_eq!(held, (Some(Duration::from_mins(20)), true));
    let held = held_by(|account| format!("before 7 {} {account}", minutes(30_000))).await;
    assert_eq!(held, (None, false), "a wrong clock silences every daemon");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_another_account_or_other_text_holds_no_call() {
    let (held, _) = held_by(|account| format!("before 7 60000 {account}x")).await;
    assert_eq!(held, None);
    for nonsense in ["", "before", "before x y z", "before 7", "before 7 -1 z"] {
        let (held, _) = held_by(|_| nonsense.to_owned()).await;
        assert_eq!(held, None, "{nonsense}");
    }
}
