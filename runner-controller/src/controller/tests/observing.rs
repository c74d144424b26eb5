//! A daemon that only observes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_daemon_that_only_observes_starts_nothing_and_shows_what_it_would() {
    let mut config = config();
    config.observes = true;
    let mut daemon = Daemon::start(shared(World {
        config: Some(config),
        ..World::default()
    }))
    .await;
    daemon
        .until("observing", |s| {
            s.state == DaemonState::Observing && s.github.last_ok_unix_ms.is_some()
        })
        .await;
    tokio::time::sleep(10 * MINUTE).await;
    let status = daemon.status.borrow().clone();
    assert!(status.runners().next().is_none(), "{status:#?}");
    assert!(status.closed[0].contains("mode = \"observe\""));
    let target = status.pools[0].target.unwrap();
    assert_eq!((target.listeners, target.spares), (1, 1));
    let calls = daemon.fake.with(|world| world.calls.clone());
    assert!(
        !calls.contains(&"start") && !calls.contains(&"mint"),
        "{calls:?}"
    );
    daemon.ask(Command::Drain).await;
    daemon
        .until("drained", |s| s.state == DaemonState::Drained)
        .await;
    daemon.ask(Command::Undrain).await;
    daemon
        .until("observing again", |s| s.state == DaemonState::Observing)
        .await;
    daemon.stop().await;
}
