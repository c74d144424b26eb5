//! Examples of orphaned registrations.

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn host() -> HostId {
    "h".parse().unwrap()
}

fn name(text: &str) -> RunnerName {
    RunnerName::parse(&host(), text).unwrap()
}

fn listed(id: u64, name: &str, busy: bool) -> ListedRunner {
    ListedRunner {
        id: RunnerId(id),
        name: name.into(),
        online: false,
        busy,
        version: None,
    }
}

/// Orphans after these lists, given at these seconds. A runner has the name `h-ci-7-00000007`.
fn orphans(lists: &[(u64, &[ListedRunner])]) -> Orphans {
    let mut orphans = Orphans::default();
    for (seconds, list) in lists {
        let owner = |listed: &RunnerName| {
            if *listed == name("h-ci-7-00000007") {
                Owner::Runner
            } else {
                Owner::Nobody
            }
        };
        orphans.listed(&host(), list, owner, at(*seconds), at(*seconds));
    }
    orphans
}

#[test]
fn a_stray_is_deleted_when_two_lists_had_it_and_it_is_old_enough() {
    let list = [listed(1, "h-ci-1-00000001", false)];
    assert_eq!(orphans(&[(0, &list)]).due(at(1000)), vec![]);
    let twice = orphans(&[(0, &list), (60, &list)]);
    assert_eq!(twice.due(at(119)), vec![]);
    assert_eq!(twice.due(at(120)), vec![RunnerId(1)]);
    assert_eq!(twice.next_deadline(), Some(at(120)));
}

#[test]
fn the_lists_that_have_a_stray_must_be_in_a_row() {
    let list = [listed(1, "h-ci-1-00000001", false)];
    let interrupted = orphans(&[(0, &list), (60, &[]), (120, &list)]);
    assert_eq!(interrupted.due(at(1000)), vec![]);
}

#[test]
fn busy_owned_and_foreign_runners_are_left_alone() {
    let list = [
        listed(1, "h-ci-1-00000001", true),
        listed(7, "h-ci-7-00000007", false),
        listed(3, "h-a-ci-1-00000003", false),
        listed(4, "another", false),
    ];
    // Busy and offline is a job of a host that was lost.
    assert!(orphans(&[(0, &list), (60, &list), (120, &list)]).is_empty());
}

#[test]
fn a_stray_that_becomes_busy_is_forgotten() {
    let idle = [listed(1, "h-ci-1-00000001", false)];
    let busy = [listed(1, "h-ci-1-00000001", true)];
    assert!(orphans(&[(0, &idle), (60, &idle), (119, &busy)]).is_empty());
}

/// Returns the scope of all tests here.
fn scope() -> ScopeId {
    ScopeId::new("https://api.github.com", "acme")
}

fn online(id: u64, name: &str) -> ListedRunner {
    ListedRunner {
        online: true,
        ..listed(id, name, false)
    }
}

#[test]
fn an_online_stray_is_another_hosts_and_is_never_deleted() {
    let list = [online(1, "h-ci-1-00000001")];
    let mut orphans = orphans(&[(0, &list), (60, &list), (119, &list)]);
    assert_eq!(orphans.foreign().count(), 0);
    let found = orphans.listed(&host(), &list, |_| Owner::Nobody, at(120), at(120));
    assert_eq!(found, [name("h-ci-1-00000001")]);
    let found = orphans.listed(&host(), &list, |_| Owner::Nobody, at(180), at(180));
    assert_eq!(found, [], "it is reported once");
    assert_eq!(orphans.foreign().count(), 1);
    assert!(orphans.is_empty() && orphans.due(at(9000)).is_empty());
    // The other host removes it when it has ended there.
    let gone = [listed(1, "h-ci-1-00000001", false)];
    orphans.listed(&host(), &gone, |_| Owner::Nobody, at(240), at(240));
    orphans.listed(&host(), &gone, |_| Owner::Nobody, at(600), at(600));
    assert_eq!(orphans.due(at(9000)), []);
    orphans.listed(&host(), &[], |_| Owner::Nobody, at(660), at(660));
    assert_eq!(orphans.foreign().count(), 0);
}

#[test]
fn a_stray_that_goes_offline_is_deleted_two_minutes_later() {
    let (on, off) = (
        [online(1, "h-ci-1-00000001")],
        [listed(1, "h-ci-1-00000001", false)],
    );
    let mut orphans = orphans(&[(0, &on), (60, &off), (119, &off)]);
    assert_eq!(orphans.due(at(179)), []);
    assert_eq!(orphans.due(at(180)), [RunnerId(1)]);
    orphans.listed(&host(), &on, |_| Owner::Nobody, at(180), at(180));
    assert_eq!(orphans.due(at(180)), []);
}

#[test]
fn the_registration_of_an_ended_runner_is_deleted_once_a_list_shows_it() {
    let mut orphans = Orphans::default();
    orphans.add(RunnerId(1), name("h-ci-1-00000001"), false, at(5));
    assert_eq!(orphans.due(at(5)), []);
    let list = [listed(1, "h-ci-1-00000001", false)];
    orphans.listed(&host(), &list, |_| Owner::Nobody, at(5), at(5));
    assert_eq!(orphans.due(at(5)), [RunnerId(1)]);
    orphans.begin_deletion(RunnerId(1));
    assert!(orphans.is_deleting() && orphans.due(at(5)).is_empty());
    orphans.deletion_failed(RunnerId(1), None, at(6), 0);
    assert!(!orphans.is_deleting() && orphans.due(at(6)).is_empty());
    assert_eq!(orphans.due(at(60)), [RunnerId(1)]);
    orphans.deletion_succeeded(RunnerId(1));
    assert!(orphans.is_empty());
}

#[test]
fn an_id_that_a_list_shows_under_another_name_is_not_deleted() {
    for other in ["h-ci-1-00000002", "another", "H-CI-1-00000001"] {
        let mut orphans = Orphans::default();
        orphans.add(RunnerId(1), name("h-ci-1-00000001"), false, at(5));
        let list = [listed(1, other, false)];
        orphans.listed(&host(), &list, |_| Owner::Runner, at(6), at(6));
        assert_eq!(orphans.due(at(1000)), [], "{other}");
        orphans.listed(&host(), &list, |_| Owner::Runner, at(60), at(60));
        assert!(orphans.is_empty(), "{other}");
    }
}

#[test]
fn the_registration_of_an_ended_runner_is_forgotten_when_a_list_lacks_it() {
    let mut orphans = Orphans::default();
    orphans.add(RunnerId(1), name("h-ci-1-00000001"), false, at(5));
    // These lists may be older than the registration, or late.
    orphans.listed(&host(), &[], |_| Owner::Nobody, at(4), at(20));
    orphans.listed(&host(), &[], |_| Owner::Nobody, at(34), at(34));
    assert_eq!(orphans.len(), 1);
    orphans.listed(&host(), &[], |_| Owner::Nobody, at(35), at(36));
    assert!(orphans.is_empty());
}

#[test]
fn a_registration_that_a_list_had_is_forgotten_by_the_next_list_without_it() {
    let mut orphans = Orphans::default();
    orphans.listed(
        &host(),
        &[listed(1, "h-ci-1-00000001", false)],
        |_| Owner::Runner,
        at(4),
        at(4),
    );
    orphans.add(RunnerId(1), name("h-ci-1-00000001"), false, at(5));
    assert_eq!(orphans.len(), 1);
    orphans.listed(&host(), &[], |_| Owner::Nobody, at(6), at(6));
    assert!(orphans.is_empty());
}

#[test]
fn a_registration_that_an_earlier_list_had_is_forgotten_although_the_last_list_lacked_it() {
    for (was_listed, left) in [(true, 0), (false, 1)] {
        let mut orphans = Orphans::default();
        orphans.listed(&host(), &[], |_| Owner::Nobody, at(4), at(4));
        orphans.add(RunnerId(1), name("h-ci-1-00000001"), was_listed, at(5));
        orphans.listed(&host(), &[], |_| Owner::Nobody, at(6), at(6));
        assert_eq!(orphans.len(), left);
    }
}

#[test]
fn a_deletion_that_always_fails_delays_the_others_and_does_not_stop_them() {
    let list = [
        listed(1, "h-ci-1-00000001", false),
        listed(2, "h-ci-2-00000002", false),
    ];
    let mut orphans = orphans(&[(0, &list), (120, &list)]);
    orphans.begin_deletion(RunnerId(1));
    orphans.deletion_failed(RunnerId(1), None, at(120), 0);
    assert_eq!(orphans.due(at(120)), []);
    assert_eq!(orphans.due(at(121)), [RunnerId(2), RunnerId(1)]);
    orphans.begin_deletion(RunnerId(2));
    orphans.deletion_succeeded(RunnerId(2));
    assert_eq!(orphans.due(at(121)), [RunnerId(1)]);
}

#[test]
fn the_age_of_a_stray_goes_on_in_the_next_daemon() {
    let list = [listed(1, "h-ci-1-00000001", false)];
    let first = orphans(&[(0, &list), (60, &list)]);
    let mut next = Orphans::default();
    for record in first.records(&scope(), "boot").into_values() {
        next.restore(record);
    }
    assert_eq!(next.due(at(130)), [], "the new daemon has no list yet");
    next.listed(&host(), &list, |_| Owner::Nobody, at(130), at(130));
    assert_eq!(next.due(at(130)), [RunnerId(1)]);
}

#[test]
fn a_stray_that_is_only_found_does_not_count_and_no_orphan_counts_for_ever() {
    let list = [listed(1, "h-ci-1-00000001", false)];
    let mut orphans = orphans(&[(0, &list)]);
    assert_eq!(orphans.recent(at(0)), []);
    orphans.add(RunnerId(2), name("h-ci-2-00000002"), false, at(5));
    orphans.add_unconfirmed(name("h-ci-3-00000003"), at(6));
    assert_eq!(orphans.recent(at(6)), [at(5), at(6)]);
    // A doubtful mint that turns out to be registered still counts.
    let list = [
        listed(2, "h-ci-2-00000002", false),
        listed(3, "h-ci-3-00000003", false),
    ];
    orphans.listed(&host(), &list, |_| Owner::Nobody, at(20), at(20));
    assert_eq!(orphans.recent(at(20)), [at(5), at(20)]);
    assert_eq!(orphans.recent(at(605)), [at(20)]);
    assert_eq!(orphans.recent(at(620)), []);
}

#[test]
fn the_name_of_an_ended_runner_is_kept_while_a_list_may_have_it() {
    let ended = name("h-ci-1-00000001");
    let mut orphans = Orphans::default();
    orphans.add_ended(ended.clone(), at(0));
    let list = [listed(1, "h-ci-1-00000001", true)];
    orphans.listed(&host(), &[], |_| Owner::Nobody, at(60), at(60));
    orphans.listed(&host(), &list, |_| Owner::Nobody, at(500), at(500));
    assert!(orphans.has_ended(&ended), "lists are late");
    orphans.listed(&host(), &list, |_| Owner::Nobody, at(1000), at(1000));
    assert!(orphans.has_ended(&ended), "still listed");
    orphans.listed(&host(), &[], |_| Owner::Nobody, at(1060), at(1060));
    assert!(!orphans.has_ended(&ended));
}

#[test]
fn a_name_that_may_be_registered_counts_until_a_list_would_have_it() {
    let after = |lists: &[(u64, &[ListedRunner])]| {
        let mut orphans = Orphans::default();
        orphans.add_unconfirmed(name("h-ci-1-00000001"), at(5));
        for (seconds, list) in lists {
            orphans.listed(&host(), list, |_| Owner::Nobody, at(*seconds), at(*seconds));
        }
        orphans.len()
    };
    assert_eq!(after(&[]), 1);
    assert_eq!(after(&[(124, &[])]), 1);
    assert_eq!(after(&[(125, &[])]), 0);
    // One that a list has is an orphan, and is counted as one.
    let list = [listed(1, "h-ci-1-00000001", false)];
    assert_eq!(after(&[(6, &list)]), 1);
}
