//! Looks at runner groups: told in the status, and of no effect on runners.

use super::*;
use crate::pool::GroupVisibility;
use crate::status::GroupProblem;

/// Returns the configuration with an organisation and the runner group `fast`.
pub(super) fn config() -> Config {
    let mut config = super::config();
    let scope = &mut config.scopes[0];
    scope.scope = crate::config::Scope::parse("acme");
    let pool = &mut config.pools[0];
    pool.scope = scope.scope_id();
    pool.runner_group = "fast".into();
    config
}

fn fast() -> RunnerGroup {
    RunnerGroup {
        name: "Fast".into(),
        allows_public_repositories: true,
        ..RunnerGroup::default()
    }
}

fn world(groups: Result<Vec<RunnerGroup>, RegistryErrorKind>) -> Arc<Mutex<World>> {
    shared(World {
        groups: Some(groups),
        ..World::default()
    })
}

fn problems(status: &Status) -> Option<&[GroupProblem]> {
    let group = status.pools.first()?.group.as_ref()?;
    assert_eq!(group.name, "fast");
    Some(&group.problems)
}

fn looks(daemon: &Daemon) -> usize {
    daemon.fake.with(|world| {
        let calls = world.calls.iter();
        calls.filter(|call| **call == "groups").count()
    })
}

#[tokio::test(start_paused = true)]
async fn a_restricted_group_is_told_and_looked_at_again_after_an_hour() {
    let restricted = RunnerGroup {
        visibility: GroupVisibility::Selected,
        ..fast()
    };
    let mut daemon = Daemon::start(world(Ok(vec![restricted]))).await;
    let status = daemon
        .until("told", |s| is_settled(s) && problems(s).is_some())
        .await;
    assert_eq!(
        problems(&status).unwrap(),
        [GroupProblem::SelectedRepositories]
    );
    daemon
        .fake
        .with(|world| world.groups = Some(Ok(vec![fast()])));
    tokio::time::sleep(MINUTE * 58).await;
    assert_eq!(looks(&daemon), 1);
    daemon.until("in order", |s| problems(s) == Some(&[])).await;
    assert_eq!(looks(&daemon), 2);
}

#[tokio::test(start_paused = true)]
async fn a_missing_group_is_told_before_a_job_waits() {
    let other = RunnerGroup {
        name: "Default".into(),
        ..fast()
    };
    let mut daemon = Daemon::start(world(Ok(vec![other]))).await;
    let missing = GroupProblem::Missing {
        seen: vec!["Default".into()],
    };
    daemon
        .until("told", |s| {
            problems(s) == Some(std::slice::from_ref(&missing))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_has_no_effect_and_is_repeated_when_that_helps() {
    for (kind, expected) in [
        (RegistryErrorKind::Forbidden, 1..=1),
        (RegistryErrorKind::Server, 8..=11),
    ] {
        let mut daemon = Daemon::start(world(Err(kind))).await;
        let status = daemon.until("settled", is_settled).await;
        tokio::time::sleep(MINUTE * 50).await;
        let looks = looks(&daemon);
        assert!(expected.contains(&looks), "{looks} looks after {kind:?}");
        assert_eq!(problems(&status), None);
        assert_eq!(status.github.error, None);
        assert!(status.closed.is_empty() && status.gates.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_repository_has_no_groups_to_look_at() {
    let daemon = daemon().await;
    tokio::time::sleep(MINUTE * 70).await;
    assert_eq!(looks(&daemon), 0);
}
