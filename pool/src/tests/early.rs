//! Early lists, which show new registrations and that their runners are online.

use super::*;

const BEGAN: Timestamp = Timestamp::from_millis(1_000_000);

fn seconds(count: u64) -> Timestamp {
    BEGAN + Duration::from_secs(count)
}

/// Returns a pool whose only runner got its config at [`BEGAN`].
fn registering() -> Pools {
    let mut pools = Pools::new(host(), "boot".into(), [(scope(), pace())], [spec(1, 0, 1)]);
    let pool = pools.by_name.values_mut().next().unwrap();
    let mut runner = Runner::new(slot(1), Phase::Registering, BEGAN);
    runner.registration = Some(registration(7));
    pool.runners.insert(slot(1), runner);
    pools.list_requested(&scope(), BEGAN);
    pools
}

fn listed(online: bool, busy: bool) -> ListedRunner {
    ListedRunner {
        id: RunnerId(7),
        name: registration(7).name.to_string(),
        online,
        busy,
        version: None,
    }
}

fn phase(pools: &Pools) -> PhaseKind {
    pools.runner(&slot_id(slot(1))).unwrap().phase.kind()
}

/// Returns the seconds until `end` at which early lists are requested.
fn requests(pools: &mut Pools, end: u64) -> Vec<u64> {
    let is_due = |pools: &mut Pools, second| {
        let effects = pools.plan(None, Admission::Open, seconds(second));
        effects.contains(&Effect::ListEarly(scope()))
    };
    (1..end).filter(|second| is_due(pools, *second)).collect()
}

#[test]
fn the_list_is_requested_2_4_and_8_seconds_after_a_registration() {
    let mut pools = registering();
    assert_eq!(pools.next_deadline(seconds(0)), Some(seconds(2)));
    assert_eq!(requests(&mut pools, 59), [2, 4, 8]);
}

#[test]
fn no_list_follows_the_one_that_shows_the_runner() {
    let mut pools = registering();
    assert_eq!(requests(&mut pools, 3), [2]);
    let effects = pools.listed_early(&scope(), &[listed(true, false)], seconds(2), seconds(3));
    assert!(matches!(effects[..], [Effect::Record(_)]), "{effects:?}");
    assert_eq!(phase(&pools), PhaseKind::Idle);
    let runner = pools.runner(&slot_id(slot(1))).unwrap();
    assert!(runner.is_listed, "a drain would wait for the next list");
    assert!(requests(&mut pools, 59).is_empty());
}

#[test]
fn a_list_of_a_reconcile_stands_for_the_early_one() {
    let mut pools = registering();
    pools.list_requested(&scope(), seconds(5));
    assert_eq!(requests(&mut pools, 59), [8]);
}

#[test]
fn a_minute_has_at_most_three_early_lists_whatever_registers() {
    let mut pools = registering();
    assert_eq!(requests(&mut pools, 9), [2, 4, 8]);
    let pool = pools.by_name.values_mut().next().unwrap();
    let runner = pool.runners.get_mut(&slot(1)).unwrap();
    runner.enter(Phase::Registering, seconds(10));
    assert!(requests(&mut pools, 62).is_empty());
    assert_eq!(pools.next_deadline(seconds(61)), Some(seconds(62)));
}

#[test]
fn an_early_list_is_evidence_of_registrations_and_runners_at_work_and_of_nothing_else() {
    let mut pools = registering();
    let mut expected = pools.clone();
    for (list, is_listed) in [(vec![], false), (vec![listed(false, false)], true)] {
        for _ in 0..3 {
            let effects = pools.listed_early(&scope(), &list, seconds(40), seconds(40));
            assert_eq!(effects, []);
        }
        let pool = expected.by_name.values_mut().next().unwrap();
        let runner = pool.runners.get_mut(&slot(1)).unwrap();
        (runner.is_listed, runner.was_listed) = (is_listed, is_listed);
        assert_eq!(pools, expected);
    }
    let _ = pools.listed_early(&scope(), &[listed(true, true)], seconds(40), seconds(40));
    assert_eq!(phase(&pools), PhaseKind::Busy);
}

/// Returns true if the registration with this id is deleted.
fn deletes(effects: &[Effect], id: u64) -> bool {
    let is_it = |effect: &Effect| matches!(effect, Effect::Step(_, Step::Deregister { id: found, .. }) if *found == RunnerId(id));
    effects.iter().any(is_it)
}

#[test]
fn a_runner_that_retires_unseen_requests_the_list_at_once() {
    let mut pools = registering();
    let pool = pools.by_name.values_mut().next().unwrap();
    // Another runner is online, so this one requested no list when it registered.
    let mut other = Runner::new(slot(2), Phase::Idle, BEGAN);
    other.registration = Some(registration(8));
    other.is_listed = true;
    pool.runners.insert(slot(2), other);
    let list = Effect::ListEarly(scope());
    let effects = pools.plan(None, Admission::Draining, seconds(1));
    assert!(effects.contains(&list), "{effects:?}");
    assert!(!deletes(&effects, 7), "no list has shown it: {effects:?}");
    // GitHub shows a new registration late.
    assert_eq!(
        pools.listed_early(&scope(), &[], seconds(1), seconds(2)),
        []
    );
    let effects = pools.plan(None, Admission::Draining, seconds(3));
    assert!(effects.contains(&list), "{effects:?}");
    let _ = pools.listed_early(&scope(), &[listed(false, false)], seconds(3), seconds(4));
    let effects = pools.plan(None, Admission::Draining, seconds(4));
    assert!(deletes(&effects, 7), "{effects:?}");
    assert!(!effects.contains(&list), "{effects:?}");
}

#[test]
fn many_runners_that_retire_unseen_share_three_lists_a_minute() {
    const COUNT: u16 = 50;
    let mut pools = Pools::new(host(), "boot".into(), [(scope(), pace())], [spec(1, 0, 50)]);
    let pool = pools.by_name.values_mut().next().unwrap();
    for number in 1..=COUNT {
        let mut runner = Runner::new(slot(number), Phase::Registering, BEGAN);
        runner.registration = Some(registration(u64::from(number)));
        pool.runners.insert(slot(number), runner);
    }
    pools.list_requested(&scope(), BEGAN);
    let lists: Vec<u64> = (1..600)
        .filter(|second| {
            let effects = pools.plan(None, Admission::Draining, seconds(*second));
            assert!((1..=u64::from(COUNT)).all(|id| !deletes(&effects, id)));
            effects.contains(&Effect::ListEarly(scope()))
        })
        .collect();
    // They retire in the first second. The last of their four lists waits for its minute.
    assert_eq!(lists, [1, 3, 5, 61]);
}
