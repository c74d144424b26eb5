//! Several configured scopes: what fails in one stops nothing in the others.

use super::*;
use crate::status::{PoolStatus, ScopeStatus};

/// Returns a daemon with two scopes. `second` is the world of the scope `two`.
async fn two(first: World, second: World) -> (Daemon, Arc<Mutex<World>>) {
    let second = shared(second);
    let world = World {
        second: Some(Arc::clone(&second)),
        ..first
    };
    (Daemon::start(shared(world)).await, second)
}

/// Returns a world whose ids of runners are not those of the other scope.
fn second() -> World {
    World {
        next: 1 << 20,
        ..World::default()
    }
}

fn scope<'s>(status: &'s Status, name: &str) -> &'s ScopeStatus {
    let mut scopes = status.scopes.iter();
    scopes
        .find(|scope| scope.name.as_deref() == Some(name))
        .unwrap()
}

fn has_idle(pool: &PoolStatus) -> bool {
    pool.count(PhaseKind::Idle) == 1 && pool.count(PhaseKind::Spare) == 1
}

fn are_settled(status: &Status) -> bool {
    status.pools.len() == 2 && status.pools.iter().all(has_idle)
}

#[tokio::test(start_paused = true)]
async fn each_pool_registers_in_its_scope_alone() {
    let (mut daemon, there) = two(World::default(), second()).await;
    let status = daemon.until("settled", are_settled).await;
    assert_eq!(status.scope, "acme/widgets, acme/gadgets");
    let names =
        |world: &World| -> Vec<String> { world.github.values().map(|r| r.name.clone()).collect() };
    let (here, there) = (
        daemon.fake.with(|w| names(w)),
        names(&there.lock().unwrap()),
    );
    assert!(
        matches!(&here[..], [name] if name.starts_with("fuzz-ci-")),
        "{here:?}"
    );
    assert!(
        matches!(&there[..], [name] if name.starts_with("fuzz-two-")),
        "{there:?}"
    );
    for (pool, name) in [("ci", "one"), ("two", "two")] {
        assert_eq!(status.pool(pool).unwrap().scope.as_deref(), Some(name));
        assert_eq!(
            scope(&status, name).github.listed.is_some(),
            status.github.listed.is_some()
        );
        assert_eq!(scope(&status, name).github.pace.unwrap().last_minute, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_of_one_scope_stops_no_pool_of_the_other() {
    let refused = World {
        mint_fails: Some(RegistryErrorKind::Unauthorized),
        ..second()
    };
    let (mut daemon, there) = two(World::default(), refused).await;
    let status = daemon
        .until("refused", |s| {
            let pool = s.pool("two");
            let backoffs = pool.map(|pool| &pool.backoffs[..]).unwrap_or_default();
            backoffs.iter().any(|b| b.failures > 3) && s.pool("ci").is_some_and(has_idle)
        })
        .await;
    assert_eq!(scope(&status, "one").github.error, None);
    assert!(scope(&status, "two").github.error.is_some());
    assert!(
        status
            .github
            .error
            .as_ref()
            .unwrap()
            .starts_with("scope two: ")
    );
    assert!(status.pool("ci").unwrap().backoffs.is_empty());
    // Jobs of the other scope go on.
    for _ in 0..3 {
        let idle = |s: &Status| {
            let runners = &s.pool("ci").unwrap().runners;
            let idle = runners.iter().find(|r| r.phase == PhaseKind::Idle);
            idle.map(|runner| runner.slot.clone())
        };
        let busy = idle(&daemon.until("idle", |s| idle(s).is_some()).await).unwrap();
        daemon.fake.job_starts(&busy).await;
        daemon.fake.ends(&busy, 100).await;
    }
    there.lock().unwrap().mint_fails = None;
    let status = daemon.until("recovered", are_settled).await;
    assert_eq!(scope(&status, "two").github.error, None);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_one_scope_holds_there_alone_and_in_the_next_daemon() {
    let limited = World {
        mint_fails: Some(RegistryErrorKind::Limited),
        ..second()
    };
    let (mut daemon, there) = two(World::default(), limited).await;
    let is_limited = |s: &Status| {
        let mut gates = s.gates.iter();
        gates.any(|g| g.gate == Gate::RateLimit && g.scope.as_deref() == Some("two"))
    };
    let status = daemon
        .until("limited", |s| {
            is_limited(s) && s.pool("ci").is_some_and(has_idle)
        })
        .await;
    let others = status
        .gates
        .iter()
        .filter(|g| g.scope.as_deref() != Some("two"));
    assert_eq!(others.count(), 0, "{:?}", status.gates);
    let world = daemon.stop().await;
    let mut next = Daemon::start(Arc::clone(&world)).await;
    let status = next.until("adopted", |s| s.pools.len() == 2).await;
    assert!(is_limited(&status), "{:?}", status.gates);
    assert_eq!(world.lock().unwrap().held, None);
    assert!(there.lock().unwrap().held.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_in_every_scope_with_the_same_token() {
    let limited = World {
        mint_fails: Some(RegistryErrorKind::Limited),
        shares_limits: true,
        ..second()
    };
    let first = World {
        shares_limits: true,
        ..World::default()
    };
    let (mut daemon, there) = two(first, limited).await;
    let gates = |s: &Status| s.gates.iter().filter(|g| g.gate == Gate::RateLimit).count();
    daemon.until("limited", |s| gates(s) == 2).await;
    let world = daemon.stop().await;
    let next = Daemon::start(Arc::clone(&world)).await;
    assert!(world.lock().unwrap().held.is_some());
    assert!(there.lock().unwrap().held.is_some());
    drop(next);
}

#[tokio::test(start_paused = true)]
async fn a_stray_is_deleted_in_the_scope_that_lists_it() {
    let stray = |id: u64, slot: &str| ListedRunner {
        id: RunnerId(id),
        name: format!("fuzz-{slot}-{id:08x}"),
        online: false,
        busy: false,
        version: None,
    };
    // Each server of GitHub gives its own ids, so the same id is two runners.
    let here = World {
        next: 1 << 20,
        github: [(1, stray(1, "ci-3"))].into(),
        ..World::default()
    };
    let there = World {
        github: [(1, stray(1, "two-3"))].into(),
        deletions_fail: true,
        ..second()
    };
    let (mut daemon, there) = two(here, there).await;
    let status = daemon
        .until("one is deleted", |s| {
            are_settled(s)
                && s.gates.iter().any(|gate| gate.gate == Gate::Deletions)
                && scope(s, "one").strays.is_empty()
        })
        .await;
    assert_eq!(scope(&status, "two").strays, ["fuzz-two-3-00000001"]);
    assert!(!daemon.fake.with(|world| world.github.contains_key(&1)));
    assert!(there.lock().unwrap().github.contains_key(&1));
    let failing = status.gates.iter().map(|gate| gate.scope.as_deref());
    assert!(failing.into_iter().all(|scope| scope == Some("two")));
    there.lock().unwrap().deletions_fail = false;
    daemon
        .until("both are deleted", |s| s.strays.is_empty())
        .await;
}
