//! Claimed registrations: those that only the slot in a listed name gives to a runner. Another host with
//! this host's name may have made them.

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn first() -> SlotId {
    slot_id(slot(1))
}

fn entry(id: u64, online: bool, busy: bool) -> ListedRunner {
    ListedRunner {
        id: RunnerId(id),
        name: RunnerName::new(host(), first(), u32::try_from(id).unwrap()).to_string(),
        online,
        busy,
        version: None,
    }
}

fn at(minutes: u32) -> Timestamp {
    NOW + minutes * MINUTE
}

/// Applies a list that was requested and answered after so many minutes.
fn list(pools: &mut Pools, list: &[ListedRunner], minutes: u32) -> Vec<Effect> {
    pools.listed(&scope(), list, at(minutes), at(minutes))
}

/// Returns pools that adopted a container in slot 1 of which nothing is on record.
fn adopted() -> Pools {
    let mut pools = Pools::new(host(), "boot".into(), [(scope(), pace())], [spec(1, 0, 1)]);
    let unit = UnitObservation {
        slot: first(),
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
    pools
}

/// Returns [`adopted`] after a list that has the registration 7 online.
fn claimed() -> Pools {
    let mut pools = adopted();
    list(&mut pools, &[entry(7, true, false)], 1);
    assert_eq!(phase(&pools), PhaseKind::Idle);
    pools
}

fn runner(pools: &Pools) -> &Runner {
    pools.runner(&first()).unwrap()
}

fn phase(pools: &Pools) -> PhaseKind {
    runner(pools).phase.kind()
}

/// Returns the calls that a drain begins: deletions, questions and ends.
fn drain(pools: &mut Pools, minutes: u32) -> Vec<Effect> {
    let mut effects = pools.plan(None, Admission::Draining, at(minutes));
    effects.retain(|effect| {
        let is_deletion = matches!(effect, Effect::Delete(..));
        let is_call = |step: &Step| !matches!(step, Step::Retire { .. });
        is_deletion || matches!(effect, Effect::Step(_, step) if is_call(step))
    });
    effects
}

fn end(pools: &mut Pools, minutes: u32) {
    let unit = UnitObservation {
        slot: first(),
        state: UnitState::Failed,
        invocation: Some(invocation(1)),
        start: None,
        end: None,
    };
    let _ = pools.unit_observed(unit, at(minutes), 7);
    assert_eq!(pools.runner(&first()), None);
}

fn killed() -> Effect {
    let (slot, how) = (slot(1), Ending::Kill);
    Effect::Step(first(), Step::End { slot, how })
}

#[test]
fn a_claimed_registration_is_never_deleted_while_it_is_online() {
    let online = [entry(7, true, false)];
    let mut pools = claimed();
    assert_eq!(drain(&mut pools, 2), [], "it may be another host's");
    list(&mut pools, &online, 3);
    assert_eq!(drain(&mut pools, 3), [killed()]);
    end(&mut pools, 4);
    for minutes in 4..20 {
        list(&mut pools, &online, minutes);
        assert_eq!(drain(&mut pools, minutes), [], "after {minutes} minutes");
    }
}

#[test]
fn a_claimed_registration_is_deleted_when_its_runner_has_ended_and_it_is_offline() {
    let (online, offline) = ([entry(7, true, false)], [entry(7, false, false)]);
    let mut pools = claimed();
    assert_eq!(drain(&mut pools, 2), []);
    list(&mut pools, &offline, 3);
    assert_eq!(drain(&mut pools, 3), [killed()]);
    end(&mut pools, 4);
    list(&mut pools, &online, 4);
    for minutes in 5..7 {
        list(&mut pools, &offline, minutes);
        assert_eq!(drain(&mut pools, minutes), [], "after {minutes} minutes");
    }
    list(&mut pools, &offline, 7);
    let deleted = Effect::Delete(scope(), RunnerId(7));
    assert_eq!(drain(&mut pools, 7), [deleted]);
}

#[test]
fn a_runner_with_a_claimed_registration_is_not_ended_before_a_list_shows_that_it_has_no_job() {
    let mut pools = claimed();
    assert_eq!(drain(&mut pools, 2), []);
    let before_it_retired = at(1) + MINUTE / 2;
    let _ = pools.listed(&scope(), &[entry(7, true, false)], before_it_retired, at(3));
    assert_eq!(drain(&mut pools, 3), []);
    list(&mut pools, &[entry(7, true, true)], 4);
    assert_eq!(phase(&pools), PhaseKind::Busy);
    assert_eq!(drain(&mut pools, 4), []);
}

#[test]
fn a_job_that_starts_while_a_list_is_awaited_keeps_its_runner() {
    let mut pools = claimed();
    assert_eq!(drain(&mut pools, 2), []);
    let _ = pools.job_started(&first(), JobNote::default(), at(2));
    // The registration that the slot claims is another host's.
    list(&mut pools, &[entry(7, true, false)], 3);
    assert_eq!(drain(&mut pools, 3), []);
    assert_eq!(phase(&pools), PhaseKind::Busy);
}

#[test]
fn a_job_under_another_name_of_the_slot_is_that_of_its_runner() {
    let mut pools = claimed();
    list(
        &mut pools,
        &[entry(7, true, false), entry(6, true, true)],
        2,
    );
    assert_eq!(phase(&pools), PhaseKind::Busy);
    assert_eq!(runner(&pools).id(), Some(RunnerId(6)));
}

#[test]
fn a_claimed_registration_that_disappears_makes_no_ghost_of_a_runner_under_another_name() {
    let mut pools = claimed();
    for minutes in 2..6 {
        list(&mut pools, &[entry(6, true, false)], minutes);
    }
    assert_eq!(phase(&pools), PhaseKind::Idle);
    assert_eq!(runner(&pools).id(), Some(RunnerId(6)));
    assert!(runner(&pools).is_claimed);
}

#[test]
fn a_runner_whose_claimed_registration_disappears_ends_without_a_question_for_it() {
    let mut pools = claimed();
    list(&mut pools, &[], 2);
    list(&mut pools, &[], 3);
    assert_eq!(drain(&mut pools, 3), []);
    list(&mut pools, &[], 4);
    assert_eq!(drain(&mut pools, 4), [killed()]);
}

#[test]
fn a_registration_in_the_slot_of_a_claimed_one_may_be_the_runners_and_is_deleted_after_it() {
    let (both, left) = (
        [entry(6, true, false), entry(7, true, false)],
        [entry(6, false, false), entry(7, true, false)],
    );
    let mut pools = claimed();
    for minutes in 2..10 {
        let effects = list(&mut pools, &both, minutes);
        assert_eq!(effects, [], "neither is known to be another host's");
    }
    end(&mut pools, 10);
    list(&mut pools, &both, 10);
    let mut effects = Vec::new();
    for minutes in 11..14 {
        effects.extend(list(&mut pools, &left, minutes));
    }
    let strangers = RunnerName::new(host(), first(), 7);
    assert_eq!(effects, [Effect::NameInUse(strangers)]);
    let deleted = Effect::Delete(scope(), RunnerId(6));
    assert_eq!(drain(&mut pools, 13), [deleted]);
}

#[test]
fn a_container_that_requests_its_config_has_no_claimed_registration() {
    let mut pools = claimed();
    let _ = pools.config_requested(&first(), at(2));
    assert_eq!(phase(&pools), PhaseKind::Spare);
    assert_eq!(runner(&pools).registration, None);
}

#[test]
fn a_job_under_another_claimed_name_has_its_whole_time() {
    let mut pools = adopted();
    // GitHub still shows the job of an earlier runner in the slot, whose name was lost as well.
    let stale = entry(6, false, true);
    list(&mut pools, std::slice::from_ref(&stale), 1);
    assert_eq!(phase(&pools), PhaseKind::Busy);
    let both = [stale, entry(7, true, true)];
    for minutes in 10..13 {
        list(&mut pools, &both, minutes);
        let job = runner(&pools).job.as_ref();
        assert_eq!(job.map(|job| job.since), Some(at(10)));
        assert_eq!(runner(&pools).id(), Some(RunnerId(7)));
    }
    let limit = 60;
    assert_eq!(drain(&mut pools, 10 + limit - 1), []);
    assert_eq!(phase(&pools), PhaseKind::Busy);
    let _ = drain(&mut pools, 10 + limit);
    assert_eq!(phase(&pools), PhaseKind::Retiring);
}

#[test]
fn a_job_that_only_a_claimed_name_shows_is_over_when_two_lists_show_none() {
    let (busy, idle) = ([entry(6, false, true)], [entry(6, false, false)]);
    let mut pools = adopted();
    list(&mut pools, &busy, 1);
    assert_eq!(phase(&pools), PhaseKind::Busy);
    let record = pools.record(&first()).unwrap();
    let recorded = (record.phase, record.job, record.registration);
    assert_eq!(recorded, (PhaseKind::Registering, None, None));
    for (minutes, shown) in [(2, &idle), (3, &busy), (4, &idle)] {
        list(&mut pools, shown, minutes);
        assert_eq!(phase(&pools), PhaseKind::Busy, "after {minutes} minutes");
    }
    list(&mut pools, &idle, 5);
    assert_eq!(phase(&pools), PhaseKind::Registering);
    assert_eq!(drain(&mut pools, 5), [], "it may get a job now");
    list(&mut pools, &idle, 6);
    assert_eq!(drain(&mut pools, 6), [killed()]);
}

#[test]
fn a_job_that_reported_itself_needs_no_list() {
    let mut pools = claimed();
    let _ = pools.job_started(&first(), JobNote::default(), at(2));
    for minutes in 3..8 {
        list(&mut pools, &[entry(7, true, false)], minutes);
        assert_eq!(phase(&pools), PhaseKind::Busy);
    }
    let record = pools.record(&first()).unwrap();
    assert_eq!(record.phase, PhaseKind::Busy);
    assert!(record.job.is_some());
}

#[test]
fn the_report_of_a_job_begins_its_time_if_a_claimed_name_showed_one_before() {
    let mut pools = adopted();
    list(&mut pools, &[entry(6, false, true)], 1);
    let _ = pools.job_started(&first(), JobNote::default(), at(10));
    let since = runner(&pools).job.as_ref().map(|job| job.since);
    assert_eq!((since, runner(&pools).since), (Some(at(10)), at(10)));
}
