use super::*;
use crate::status::{BackoffStatus, VersionEnd};
use crate::view::{health, notices};

const DAY: u64 = 86_400_000;
/// 2026-12-04.
const END: u64 = 1_796_342_400_000;

fn pool(name: &str, remedy: VersionRemedy) -> PoolStatus {
    PoolStatus {
        name: name.into(),
        runner_version: Some(VersionStatus {
            version: "2.334.0".parse().unwrap(),
            end: Some(VersionEnd {
                runtime_unix_ms: Some(END),
                registration_unix_ms: None,
            }),
            asked_unix_ms: Some(1),
            remedy,
        }),
        ..PoolStatus::default()
    }
}

fn at(at_unix_ms: u64) -> Status {
    Status {
        at_unix_ms,
        state: DaemonState::Running,
        pools: vec![
            pool("ci", VersionRemedy::Rebuild),
            pool("fuzz", VersionRemedy::Rebuild),
            pool("nix", VersionRemedy::Nixpkgs),
        ],
        ..Status::default()
    }
}

#[test]
fn a_version_that_github_refuses_has_no_sentence_about_its_date() {
    let mut pool = pool("ci", VersionRemedy::Rebuild);
    pool.backoffs = vec![BackoffStatus {
        failure: FailureKind::Version,
        failures: 1,
        retry_in_ms: 0,
        reason: "Runner version v2.334.0 is deprecated".into(),
    }];
    let status = Status {
        pools: vec![pool],
        ..at(END - DAY * 20)
    };
    assert_eq!(told(&status), []);
}

fn told(status: &Status) -> Vec<(Weight, String)> {
    let notices = versions(status).into_iter();
    notices.map(|notice| (notice.weight, notice.text)).collect()
}

#[test]
fn a_version_far_from_its_end_is_a_fact_of_all_its_pools() {
    assert_eq!(
        told(&at(END - 19 * DAY)),
        [(
            Weight::Fact,
            "pools ci, fuzz, nix: runner 2.334.0; GitHub accepts it for 19 d, until 2026-12-04"
                .into()
        )]
    );
}

#[test]
fn a_version_near_its_end_tells_the_days_and_what_to_do_for_each_kind_of_image() {
    let status = at(END - 5 * DAY);
    let told = told(&status);
    assert!(told.iter().all(|(weight, _)| *weight == Weight::Problem));
    let texts: Vec<&str> = told.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "pools ci, fuzz: GitHub refuses runner 2.334.0 in 5 d, on 2026-12-04; \
             build the image again with a newer runner; jobs continue meanwhile",
            "pool nix: GitHub refuses runner 2.334.0 in 5 d, on 2026-12-04; \
             run `nix flake update nixpkgs-runner` (or the input that has your github-runner), then deploy; \
             `runner-controller docs version-ends` tells more",
        ]
    );
    let is_told = |reason: &String| reason.contains("2.334.0");
    assert!(!health(&status).reasons.iter().any(is_told));
}

#[test]
fn a_version_past_its_end_makes_the_host_unhealthy_and_is_told_once_for_each_pool() {
    let status = at(END + DAY);
    let reasons = health(&status).reasons;
    let of_versions = reasons.iter().filter(|reason| reason.contains("2.334.0"));
    assert_eq!(of_versions.count(), 3, "{reasons:?}");
    let notices = notices(&status);
    let told = notices
        .iter()
        .filter(|notice| notice.text.contains("2.334.0"));
    assert_eq!(told.count(), 3, "{notices:?}");
    assert!(reasons.iter().any(|reason| reason.starts_with(
        "pool ci: GitHub refuses runner 2.334.0 since 2026-12-04; build the image again"
    )));
}

#[test]
fn an_unknown_end_is_not_guessed() {
    let mut status = at(END);
    status.pools.truncate(1);
    let version = status.pools[0].runner_version.as_mut().unwrap();
    version.end = Some(VersionEnd::default());
    assert_eq!(
        told(&status)[0].1,
        "pool ci: runner 2.334.0; GitHub has set no date for its end"
    );
    let version = status.pools[0].runner_version.as_mut().unwrap();
    version.end = None;
    assert_eq!(
        told(&status)[0].1,
        "pool ci: runner 2.334.0; GitHub does not tell until when it accepts it"
    );
    let far = VersionEnd {
        runtime_unix_ms: Some(u64::MAX),
        ..VersionEnd::default()
    };
    status.pools[0].runner_version.as_mut().unwrap().end = Some(far);
    assert!(told(&status)[0].1.ends_with("until 9999-12-31"));
}
