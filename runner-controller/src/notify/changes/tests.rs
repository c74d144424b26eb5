use strum::VariantArray;

use super::*;
use crate::status::{
    BackoffStatus, FailureKind, PhaseKind, PoolStatus, VersionEnd, VersionRemedy, VersionStatus,
    Wanted,
};

const MINUTE: Duration = Duration::from_mins(1);

fn good() -> Status {
    Status {
        host: "box".into(),
        scope: "acme".into(),
        state: DaemonState::Running,
        at_unix_ms: 1_000_000,
        pools: vec![PoolStatus {
            name: "ci".into(),
            wanted: Wanted {
                idle: 1,
                spare: 1,
                max: 2,
                ..Wanted::default()
            },
            phases: [(PhaseKind::Idle, 1)].into(),
            ..PoolStatus::default()
        }],
        ..Status::default()
    }
}

fn sick() -> Status {
    Status {
        systemd_error: Some("\u{1b}[2J it does not answer".into()),
        ..good()
    }
}

fn stopped(failures: u32) -> Status {
    let mut status = good();
    status.pools[0].backoffs = vec![BackoffStatus {
        failure: FailureKind::Boot,
        failures,
        retry_in_ms: 1,
        reason: "no such image".into(),
    }];
    status
}

fn all() -> Changes {
    Changes::new(NotifyEvent::VARIANTS.iter().copied().collect())
}

/// A time that is not near the boot.
fn at(after: Duration) -> Timestamp {
    Timestamp::from_millis(50_000_000) + after
}

fn stages(told: &[Notification]) -> Vec<(NotifyEvent, Stage)> {
    told.iter().map(|one| (one.event, one.stage)).collect()
}

#[test]
fn a_host_that_recovers_within_two_minutes_is_not_told() {
    let mut changes = all();
    assert_eq!(changes.observe(&sick(), at(Duration::ZERO)), []);
    assert_eq!(changes.observe(&sick(), at(MINUTE)), []);
    assert_eq!(changes.observe(&good(), at(MINUTE * 2)), []);
    assert_eq!(changes.observe(&sick(), at(MINUTE * 3)), []);
    let told = changes.observe(&sick(), at(MINUTE * 5));
    assert_eq!(stages(&told), [(NotifyEvent::Unhealthy, Stage::Began)]);
    // Once.
    assert_eq!(changes.observe(&sick(), at(MINUTE * 6)), []);
    let told = changes.observe(&good(), at(MINUTE * 7));
    assert_eq!(stages(&told), [(NotifyEvent::Unhealthy, Stage::Ended)]);
}

#[test]
fn a_document_names_host_pool_and_cause_and_controls_no_terminal() {
    let mut changes = all();
    let told = changes.observe(&stopped(3), at(Duration::ZERO));
    assert_eq!(
        serde_json::to_value(&told[0]).unwrap(),
        serde_json::json!({
            "event": "pool_stopped",
            "stage": "began",
            "host": "box",
            "scope": "acme",
            "pool": "ci",
            "text": "pool ci: a container failed to boot 3 times in a row: no such image",
            "at_unix_ms": 1_000_000,
            "left_out": 0,
        })
    );
    changes.observe(&sick(), at(MINUTE));
    let told = changes.observe(&sick(), at(MINUTE * 4));
    assert!(told[0].text.starts_with("systemd: \\u{1b}[2J"), "{told:?}");
}

#[test]
fn a_pool_stops_at_its_third_failure_in_a_row() {
    let mut changes = all();
    assert_eq!(changes.observe(&stopped(2), at(Duration::ZERO)), []);
    assert_eq!(changes.observe(&stopped(3), at(MINUTE)).len(), 1);
    assert_eq!(changes.observe(&stopped(9), at(MINUTE * 2)), []);
    let told = changes.observe(&good(), at(MINUTE * 3));
    assert_eq!(stages(&told), [(NotifyEvent::PoolStopped, Stage::Ended)]);
    assert_eq!(told[0].text, "pool_stopped of pool ci is over");
}

#[test]
fn a_version_near_its_end_and_a_drain_are_told() {
    let mut changes = all();
    let mut status = good();
    status.pools[0].runner_version = Some(VersionStatus {
        version: "2.334.0".parse().unwrap(),
        end: Some(VersionEnd {
            registration_unix_ms: None,
            runtime_unix_ms: Some(status.at_unix_ms + 3_600_000),
        }),
        asked_unix_ms: None,
        remedy: VersionRemedy::Rebuild,
    });
    let told = changes.observe(&status, at(Duration::ZERO));
    assert_eq!(stages(&told), [(NotifyEvent::VersionEnds, Stage::Began)]);
    assert!(told[0].text.contains("runner 2.334.0 in 1 h"), "{told:?}");
    let drained = Status {
        state: DaemonState::Drained,
        pools: Vec::new(),
        ..good()
    };
    let told = changes.observe(&drained, at(MINUTE));
    assert_eq!(
        stages(&told),
        [
            (NotifyEvent::VersionEnds, Stage::Ended),
            (NotifyEvent::Drained, Stage::Began)
        ]
    );
}

#[test]
fn only_chosen_events_are_told_and_none_before_the_takeover() {
    let mut changes = Changes::new([NotifyEvent::Drained].into());
    assert_eq!(changes.observe(&stopped(5), at(Duration::ZERO)), []);
    let mut changes = all();
    let starting = Status {
        state: DaemonState::Starting,
        ..stopped(5)
    };
    assert_eq!(changes.observe(&starting, at(Duration::ZERO)), []);
}

#[test]
fn an_event_that_comes_and_goes_begins_at_most_every_ten_minutes() {
    let mut changes = all();
    let mut began = 0;
    for second in 0..1_800 {
        let status = if second % 2 == 0 { stopped(3) } else { good() };
        let told = changes.observe(&status, at(Duration::from_secs(second)));
        began += told.iter().filter(|one| one.stage == Stage::Began).count();
    }
    assert_eq!(began, 3);
}

#[test]
fn an_hour_has_at_most_thirty_notifications_and_the_next_counts_the_others() {
    let mut changes = all();
    let many = |failures| {
        let mut status = stopped(failures);
        let pool = status.pools.remove(0);
        status.pools = (0..100)
            .map(|number| PoolStatus {
                name: format!("p{number}"),
                ..pool.clone()
            })
            .collect();
        status
    };
    assert_eq!(changes.observe(&many(3), at(Duration::ZERO)).len(), 30);
    assert_eq!(changes.observe(&many(3), at(MINUTE)).len(), 0);
    let told = changes.observe(&stopped(3), at(MINUTE * 61));
    // The ends of a hundred events, and the beginning of one, of which thirty fit.
    assert_eq!(told.len(), 30);
    assert_eq!((told[0].left_out, told[1].left_out), (70, 0));
}
