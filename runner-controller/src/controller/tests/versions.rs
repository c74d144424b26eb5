//! Questions about the version of the runners: told in the status, and of no effect on runners.

use super::*;
use crate::status::{VersionRemedy, VersionStatus};

fn version(text: &str) -> RunnerVersion {
    text.parse().unwrap()
}

fn end(unix_ms: u64) -> VersionEnd {
    VersionEnd {
        runtime_unix_ms: Some(unix_ms),
        ..VersionEnd::default()
    }
}

fn world(end: Result<Option<VersionEnd>, RegistryErrorKind>) -> Arc<Mutex<World>> {
    shared(World {
        version: Some(version("2.334.0")),
        version_end: Some(end),
        ..World::default()
    })
}

fn told(status: &Status) -> Option<&VersionStatus> {
    status.pools.first()?.runner_version.as_ref()
}

fn questions(daemon: &Daemon) -> usize {
    daemon.fake.with(|world| {
        let calls = world.calls.iter();
        calls.filter(|call| **call == "version").count()
    })
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_listed_version_is_told_and_asked_for_again_after_a_day() {
    let mut daemon = Daemon::start(world(Ok(Some(end(7))))).await;
    let is_told = |s: &Status| told(s).is_some_and(|version| version.end.is_some());
    let status = daemon.until("told", is_told).await;
    let found = told(&status).unwrap();
    assert_eq!(found.version, version("2.334.0"));
    assert_eq!(found.end, Some(end(7)));
    assert_eq!(found.remedy, VersionRemedy::Rebuild);
    let listed = status.runners().find(|runner| runner.version.is_some());
    assert_eq!(listed.unwrap().version, Some(version("2.334.0")));
    let moved = Some(Ok(Some(end(9))));
    daemon.fake.with(|world| world.version_end = moved);
    tokio::time::sleep(MINUTE * 1_435).await;
    assert_eq!(questions(&daemon), 1);
    let is_new = |s: &Status| told(s).is_some_and(|version| version.end == Some(end(9)));
    daemon.until("the new date", is_new).await;
    assert_eq!(questions(&daemon), 2);
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_is_asked_for_at_once() {
    let mut daemon = Daemon::start(world(Ok(Some(end(7))))).await;
    let status = daemon
        .until("told", |s| is_settled(s) && told(s).is_some())
        .await;
    let slot = status
        .runners()
        .find(|runner| runner.phase == PhaseKind::Idle);
    let slot = slot.unwrap().slot.clone();
    daemon.fake.with(|world| {
        world.version = Some(version("2.338.2"));
        world.version_end = Some(Ok(Some(VersionEnd::default())));
    });
    daemon.fake.job_starts(&slot).await;
    daemon.fake.ends(&slot, 100).await;
    let is_new = |s: &Status| {
        let told = told(s);
        told.is_some_and(|told| told.version == version("2.338.2") && told.end.is_some())
    };
    let status = daemon.until("the new version", is_new).await;
    assert_eq!(told(&status).unwrap().end, Some(VersionEnd::default()));
    // The record of the runner that had the job has its own version.
    assert_eq!(status.recent[0].version, Some(version("2.334.0")));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_fails_has_no_effect_and_is_repeated_when_that_helps() {
    for (kind, expected) in [
        (RegistryErrorKind::Forbidden, 1..=1),
        (RegistryErrorKind::Server, 9..=11),
    ] {
        let mut daemon = Daemon::start(world(Err(kind))).await;
        daemon.until("settled", is_settled).await;
        tokio::time::sleep(MINUTE * 60 * 10).await;
        let questions = questions(&daemon);
        assert!(
            expected.contains(&questions),
            "{questions} questions after {kind:?}"
        );
        let status = daemon.until("settled", is_settled).await;
        assert_eq!(told(&status).map(|version| version.end), Some(None));
        assert_eq!(status.github.error, None);
        assert!(status.closed.is_empty() && status.gates.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_tells_no_version_is_not_asked() {
    let mut daemon = daemon().await;
    let status = daemon.until("settled", is_settled).await;
    tokio::time::sleep(MINUTE * 70).await;
    assert_eq!((questions(&daemon), told(&status)), (0, None));
}
