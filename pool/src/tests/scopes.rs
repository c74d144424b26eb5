//! Several scopes on one host: each has its own lists, deletions, mints and orphans.

use super::*;

const NOW: Timestamp = Timestamp::from_millis(10_000_000);

fn other_scope() -> ScopeId {
    ScopeId::new("https://ghes.example/api/v3", "acme")
}

/// Returns the slot 1 of a pool.
fn first(pool: &str) -> SlotId {
    SlotId {
        pool: pool.parse().unwrap(),
        slot: slot(1),
    }
}

/// Returns the name of the runner in slot 1 of a pool.
fn name(pool: &str) -> RunnerName {
    RunnerName::new(host(), first(pool), 7)
}

fn listed(name: &RunnerName, online: bool) -> ListedRunner {
    ListedRunner {
        id: RunnerId(7),
        name: name.to_string(),
        online,
        busy: false,
        version: None,
    }
}

/// Returns a pool `ci` in [`scope`] and a pool `big` in [`other_scope`].
fn two_pools() -> Pools {
    let scopes = [
        (scope(), Pace::new(2)),
        (other_scope(), Pace::new(DEFAULT_MINTS_PER_MINUTE)),
    ];
    let specs = [
        spec(4, 0, 4),
        Spec {
            name: "big".parse().unwrap(),
            scope: Some(other_scope()),
            ..spec(4, 0, 4)
        },
    ];
    Pools::new(host(), "boot".into(), scopes, specs)
}

/// Returns [`two_pools`], each with a runner in slot 1 in a phase. Both runners have the id 7.
fn two_runners(phase: &Phase) -> Pools {
    let mut pools = two_pools();
    for pool in pools.by_name.values_mut() {
        let mut runner = Runner::new(slot(1), phase.clone(), NOW);
        runner.registration = Some(Registration {
            scope: pool.spec.scope.clone(),
            id: Some(RunnerId(7)),
            name: name(&pool.spec.name.to_string()),
        });
        pool.runners.insert(slot(1), runner);
    }
    pools
}

fn missed_lists(pools: &Pools, pool: &str) -> u8 {
    pools.runner(&first(pool)).unwrap().missed_lists
}

#[test]
fn the_list_of_a_scope_tells_nothing_about_runners_of_another() {
    let mut pools = two_runners(&Phase::Idle);
    for minute in 10..13 {
        let at = NOW + minute * MINUTE;
        let _ = pools.listed(&other_scope(), &[], at, at);
    }
    assert_eq!(missed_lists(&pools, "ci"), 0);
    assert_eq!(missed_lists(&pools, "big"), 3);
}

#[test]
fn the_name_of_a_runner_in_the_list_of_another_scope_is_not_that_runner() {
    let mut pools = two_runners(&Phase::Registering);
    let at = NOW + MINUTE;
    let _ = pools.listed(&other_scope(), &[listed(&name("ci"), true)], at, at);
    let runner = pools.runner(&first("ci")).unwrap();
    assert_eq!(runner.phase, Phase::Registering);
    assert_eq!(runner.scope(), Some(&scope()));
    let _ = pools.listed(&scope(), &[listed(&name("ci"), true)], at, at);
    let runner = pools.runner(&first("ci")).unwrap();
    assert_eq!(runner.phase, Phase::Idle);
}

#[test]
fn an_orphan_is_deleted_in_its_scope_although_a_runner_of_another_has_its_id() {
    let mut pools = two_runners(&Phase::Idle);
    let gone = RunnerName::new(host(), first("big"), 8);
    // The runner of the pool `big` has another id than the orphan.
    let big = pools.by_name.get_mut(&first("big").pool).unwrap();
    big.runners.clear();
    for minute in 10..13 {
        let at = NOW + minute * MINUTE;
        let _ = pools.listed(&other_scope(), &[listed(&gone, false)], at, at);
        let _ = pools.listed(&scope(), &[listed(&name("ci"), true)], at, at);
    }
    let effects = pools.plan(None, Admission::Closed, NOW + 13 * MINUTE);
    let deletions = effects.iter();
    let deletions = deletions.filter(|effect| matches!(effect, Effect::Delete(..)));
    let expected = [&Effect::Delete(other_scope(), RunnerId(7))];
    assert_eq!(deletions.collect::<Vec<_>>(), expected);
    assert!(!effects.contains(&Effect::OrphanInUse(RunnerId(7))));
}

#[test]
fn each_scope_has_its_own_pace() {
    let mut pools = two_pools();
    for pool in pools.by_name.values_mut() {
        for number in 1..5 {
            let slot = slot(number);
            pool.runners
                .insert(slot, Runner::new(slot, Phase::Spare, NOW));
            pool.waiting.insert(slot);
        }
    }
    let effects = pools.plan(None, Admission::Open, NOW);
    let registered = |pool: &str| {
        let of_pool = effects.iter().filter(|effect| {
            matches!(effect, Effect::Step(slot, Step::Register { .. })
                if slot.pool.to_string() == pool)
        });
        of_pool.count()
    };
    assert_eq!(registered("ci"), 2, "the pace of its scope allows two");
    assert_eq!(registered("big"), 4);
}

#[test]
fn only_the_scope_of_a_new_registration_is_listed_early() {
    let mut pools = two_runners(&Phase::Registering);
    let ci = pools.by_name.get_mut(&first("ci").pool).unwrap();
    ci.runners.clear();
    let at = NOW + Duration::from_secs(2);
    let effects = pools.plan(None, Admission::Closed, at);
    assert!(effects.contains(&Effect::ListEarly(other_scope())));
    assert!(!effects.contains(&Effect::ListEarly(scope())));
}

#[test]
fn the_scope_of_a_retiring_registration_is_listed_early() {
    let mut pools = two_runners(&Phase::Registering);
    let ci = pools.by_name.get_mut(&first("ci").pool).unwrap();
    ci.runners.clear();
    let effects = pools.plan(None, Admission::Draining, NOW + Duration::from_secs(1));
    assert!(effects.contains(&Effect::ListEarly(other_scope())));
    assert!(!effects.contains(&Effect::ListEarly(scope())));
    let at = NOW + Duration::from_secs(2);
    let list = [listed(&name("big"), false)];
    let _ = pools.listed_early(&scope(), &list, at, at);
    let is_listed = |pools: &Pools| pools.runner(&first("big")).unwrap().is_listed;
    assert!(!is_listed(&pools), "an id means nothing in another scope");
    let _ = pools.listed_early(&other_scope(), &list, at, at);
    assert!(is_listed(&pools));
}

#[test]
fn a_registration_that_lapsed_is_forgotten_by_the_list_after_the_end_of_its_runner() {
    let mut pools = two_runners(&Phase::Registering);
    let at = |seconds| NOW + Duration::from_secs(seconds);
    let list = [listed(&name("ci"), true)];
    let _ = pools.listed(&scope(), &list, at(2), at(2));
    // GitHub let the registration lapse, and this list comes before the runner's end.
    let _ = pools.listed(&scope(), &[], at(4), at(4));
    let pool = pools.by_name.get_mut(&first("ci").pool).unwrap();
    let ended = pool.unit_missing(slot(1), None, at(5), 7).unwrap();
    let _ = pools.end(ended, at(5));
    let left = |pools: &Pools| pools.scope(&scope()).unwrap().orphans().len();
    assert_eq!(left(&pools), 1);
    let _ = pools.listed(&scope(), &[], at(6), at(6));
    assert_eq!(left(&pools), 0);
}

#[test]
fn an_ambiguous_mint_is_looked_for_in_the_scope_of_its_pool() {
    let mut pools = two_runners(&Phase::Minting);
    let outcome = MintOutcome::Failed {
        failure: FailureKind::Mint,
        reason: "timeout".into(),
        retry_after: None,
        is_ambiguous: true,
    };
    let _ = pools.mint_answered(&first("big"), &name("big"), outcome, NOW, 7);
    let left = |scope| pools.scope(&scope).unwrap().orphans().len();
    assert_eq!((left(scope()), left(other_scope())), (0, 1));
}

#[test]
fn the_scope_of_a_removed_pools_runner_is_known_from_a_list_alone() {
    let mut pools = two_pools();
    let slot_id = first("old");
    let unit = UnitObservation {
        slot: slot_id.clone(),
        state: UnitState::Active,
        invocation: Some(invocation(1)),
        start: None,
        end: None,
    };
    let found = Found {
        units: vec![unit],
        ..Found::default()
    };
    let _ = pools.adopt(found, NOW, 7);
    let missing = |pools: &mut Pools, minute: u32| {
        let at = NOW + minute * MINUTE;
        let _ = pools.listed(&scope(), &[], at, at);
    };
    (10..20).for_each(|minute| missing(&mut pools, minute));
    assert_eq!(
        missed_lists(&pools, "old"),
        0,
        "it may be in the other scope"
    );
    let at = NOW + 20 * MINUTE;
    let _ = pools.listed(&other_scope(), &[listed(&name("old"), true)], at, at);
    let runner = pools.runner(&slot_id).unwrap();
    assert_eq!(runner.scope(), Some(&other_scope()));
    assert_eq!(runner.id(), Some(RunnerId(7)));
}

#[test]
fn a_runner_of_a_removed_pool_without_a_name_ends_when_no_scope_lists_it() {
    let unit = UnitObservation {
        slot: first("old"),
        state: UnitState::Active,
        invocation: Some(invocation(1)),
        start: None,
        end: None,
    };
    let found = Found {
        units: vec![unit],
        ..Found::default()
    };
    let mut pools = two_pools();
    let _ = pools.adopt(found, NOW, 7);
    let mut ends = |minutes: u32, scopes: &[ScopeId]| {
        let at = NOW + minutes * MINUTE;
        for scope in scopes {
            let _ = pools.listed(scope, &[], at, at);
        }
        let effects = pools.plan(None, Admission::Closed, at);
        let is_end = |effect: &Effect| matches!(effect, Effect::Step(_, Step::End { .. }));
        effects.iter().any(is_end)
    };
    // It is retired now.
    assert!(!ends(1, &[]));
    // It may have a job in the other scope.
    for minutes in 2..9 {
        assert!(!ends(minutes, &[scope()]), "after {minutes} minutes");
    }
    assert!(!ends(9, &[scope(), other_scope()]));
    assert!(!ends(10, &[scope()]));
    assert!(ends(11, &[other_scope()]));
}
