//! Adoption after a restart: from each record, observation and request, the phase or the verdict.

use std::collections::BTreeSet;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn record(phase: PhaseKind) -> RunnerRecord {
    RunnerRecord {
        slot: slot_id(slot(1)),
        boot_id: "boot".into(),
        invocation: Some(invocation(1)),
        phase,
        since: Timestamp::from_millis(500_000),
        started_at: Timestamp::from_millis(400_000),
        timeline: None,
        registration: Some(registration(7)),
        job: None,
    }
}

fn unit(state: UnitState, number: u64) -> UnitObservation {
    UnitObservation {
        slot: slot_id(slot(1)),
        state,
        invocation: Some(invocation(number)),
        start: None,
        end: None,
    }
}

fn gone(end: Option<EndRecord>) -> UnitObservation {
    UnitObservation {
        invocation: None,
        end,
        ..unit(UnitState::Inactive, 0)
    }
}

fn found(record: Option<RunnerRecord>, unit: UnitObservation) -> Found {
    Found {
        records: record.into_iter().collect(),
        judged: Some(BTreeSet::new()),
        units: vec![unit],
        ..Found::default()
    }
}

fn adopt(found: Found) -> (Pools, Vec<Effect>) {
    let mut pools = Pools::new(host(), "boot".into(), [(scope(), pace())], [spec(1, 1, 3)]);
    let effects = pools.adopt(found, NOW, 7);
    (pools, effects)
}

/// Returns the phase of the adopted runner in slot 1.
fn phase(found: Found) -> PhaseKind {
    let (pools, _) = adopt(found);
    pools.runner(&slot_id(slot(1))).unwrap().phase.kind()
}

/// Returns the starts that got a verdict, each with the verdict.
fn verdicts(effects: &[Effect]) -> Vec<(Option<Invocation>, Verdict)> {
    let ends = effects.iter().filter_map(|effect| match effect {
        Effect::Ended(ended) => Some((ended.runner.invocation.clone(), ended.verdict)),
        Effect::Step(..)
        | Effect::Delete(..)
        | Effect::ListEarly(_)
        | Effect::OrphanInUse(_)
        | Effect::NameInUse(_)
        | Effect::Stray(_)
        | Effect::ForgetStray(..)
        | Effect::Record(_)
        | Effect::Forget(_)
        | Effect::SpareReady(_)
        | Effect::Adopted(_) => None,
    });
    ends.collect()
}

#[test]
fn a_runner_that_may_have_its_config_counts_as_registered() {
    use PhaseKind::{Booting, Busy, Idle, Minting, Registering, Retiring, Spare};
    let table = [
        (Some(Booting), UnitState::Activating, Booting),
        (Some(Booting), UnitState::Active, Registering),
        (Some(Spare), UnitState::Active, Registering),
        (Some(Minting), UnitState::Active, Registering),
        (Some(Registering), UnitState::Active, Registering),
        (Some(Idle), UnitState::Active, Idle),
        (Some(Busy), UnitState::Active, Busy),
        (Some(Retiring), UnitState::Active, Registering),
        (Some(Idle), UnitState::Deactivating, Idle),
        (None, UnitState::Activating, Booting),
        (None, UnitState::Active, Registering),
    ];
    for (recorded, state, adopted) in table {
        let found = found(recorded.map(record), unit(state, 1));
        assert_eq!(phase(found), adopted, "{recorded:?} {state:?}");
    }
}

#[test]
fn a_container_that_waits_for_its_config_is_a_spare_whatever_the_record_says() {
    for recorded in PhaseKind::ALL {
        let found = Found {
            waiting: [slot_id(slot(1))].into(),
            ..found(Some(record(*recorded)), unit(UnitState::Active, 1))
        };
        assert_eq!(phase(found), PhaseKind::Spare, "{recorded}");
    }
}

#[test]
fn a_job_makes_a_runner_busy_by_its_record_and_by_its_report() {
    let job = Some(Job {
        note: JobNote::default(),
        since: Timestamp::from_millis(600_000),
    });
    let recorded = RunnerRecord {
        job,
        ..record(PhaseKind::Retiring)
    };
    let by_record = found(Some(recorded), unit(UnitState::Active, 1));
    let (pools, _) = adopt(by_record);
    assert_eq!(phase_in(&pools), PhaseKind::Busy);
    let since = pools.runner(&slot_id(slot(1))).unwrap().since;
    assert_eq!(
        since,
        Timestamp::from_millis(600_000),
        "its limit begins with the job"
    );
    let by_report = Found {
        notes: [(slot_id(slot(1)), JobNote::default())].into(),
        ..found(Some(record(PhaseKind::Idle)), unit(UnitState::Active, 1))
    };
    assert_eq!(phase(by_report), PhaseKind::Busy);
}

#[test]
fn the_record_of_an_earlier_start_is_judged_and_the_new_start_adopted() {
    let (pools, effects) = adopt(found(
        Some(record(PhaseKind::Busy)),
        unit(UnitState::Active, 2),
    ));
    let judged = (Some(invocation(1)), Verdict::Unexplained);
    assert_eq!(verdicts(&effects), [judged]);
    let runner = pools.runner(&slot_id(slot(1))).unwrap();
    assert_eq!(runner.invocation, Some(invocation(2)));
    assert_eq!(
        runner.registration, None,
        "it is not that of the earlier start"
    );
}

#[test]
fn a_runner_that_ended_without_a_daemon_is_judged_by_roots_record() {
    let job = Job {
        note: JobNote::default(),
        since: Timestamp::from_millis(600_000),
    };
    let table = [
        (Some(job), 0, Verdict::JobDone),
        (None, 0, Verdict::IdleExpired),
        (None, 1, Verdict::RegistrationDeleted),
    ];
    for (job, status, verdict) in table {
        let recorded = RunnerRecord {
            job,
            ..record(PhaseKind::Idle)
        };
        let end = end_record(invocation(1), status, NOW);
        let (_, effects) = adopt(found(Some(recorded), gone(Some(end))));
        assert_eq!(verdicts(&effects), [(Some(invocation(1)), verdict)]);
    }
}

#[test]
fn the_end_of_a_later_start_is_not_that_of_the_recorded_one() {
    let end = end_record(invocation(2), 1, NOW);
    let (_, effects) = adopt(found(Some(record(PhaseKind::Idle)), gone(Some(end))));
    let judged = [
        (Some(invocation(1)), Verdict::Unexplained),
        (Some(invocation(2)), Verdict::Crashed),
    ];
    assert_eq!(verdicts(&effects), judged);
}

#[test]
fn a_start_that_has_its_verdict_gets_no_second() {
    let end = end_record(invocation(1), 0, NOW);
    let unit = gone(Some(end.clone()));
    let known = Found {
        judged: Some([invocation(1)].into()),
        ends: vec![recorded_end(end)],
        ..found(None, unit.clone())
    };
    assert_eq!(verdicts(&adopt(known).1), []);
    // Records that cannot be read do not tell which starts were judged.
    let unreadable = Found {
        judged: None,
        ..found(None, unit)
    };
    assert_eq!(verdicts(&adopt(unreadable).1), []);
}

fn recorded_end(end: EndRecord) -> RecordedEnd {
    RecordedEnd {
        slot: slot_id(slot(1)),
        start: None,
        end,
    }
}

/// Returns the ends of the first four starts in slot 1, with the exit statuses 1 to 4, the newest first.
fn four_ends() -> Vec<RecordedEnd> {
    let ends = (1..=4u8).rev().map(|number| {
        let at = Timestamp::from_millis(500_000 + u64::from(number));
        recorded_end(end_record(invocation(number.into()), number.into(), at))
    });
    ends.collect()
}

#[test]
fn every_earlier_runner_of_a_slot_is_judged_the_newest_last() {
    for is_alive in [false, true] {
        let unit = if is_alive {
            unit(UnitState::Active, 5)
        } else {
            gone(Some(four_ends().remove(0).end))
        };
        let (mut pools, effects) = adopt(Found {
            ends: four_ends(),
            judged: Some([invocation(2)].into()),
            ..found(Some(record(PhaseKind::Idle)), unit)
        });
        let judged = [
            (Some(invocation(1)), Verdict::RegistrationDeleted),
            (Some(invocation(3)), Verdict::Crashed),
            (Some(invocation(4)), Verdict::Crashed),
        ];
        assert_eq!(verdicts(&effects), judged);
        // The record that a verdict removes is not that of the runner that is alive.
        let adopted = effects.iter().position(|e| matches!(e, Effect::Record(_)));
        assert_eq!(adopted.is_some(), is_alive);
        let last = effects.iter().rposition(|e| matches!(e, Effect::Ended(_)));
        assert!(adopted.is_none_or(|adopted| last < Some(adopted)));
        // A late signal of the newest end is not about the next runner.
        let pool = pools.by_name.values_mut().next().unwrap();
        assert_eq!(pool.last_ended[&slot(1)], invocation(4));
    }
}

#[test]
fn a_record_without_a_start_is_that_of_the_first_runner_that_ended_after_it() {
    let recorded = RunnerRecord {
        invocation: None,
        started_at: Timestamp::from_millis(500_002),
        ..record(PhaseKind::Booting)
    };
    let (pools, effects) = adopt(Found {
        ends: four_ends(),
        judged: Some([invocation(1), invocation(2)].into()),
        ..found(Some(recorded), unit(UnitState::Active, 5))
    });
    let judged = [
        (Some(invocation(3)), Verdict::BootFailed),
        (Some(invocation(4)), Verdict::Crashed),
    ];
    assert_eq!(verdicts(&effects), judged);
    let runner = pools.runner(&slot_id(slot(1))).unwrap();
    assert_eq!(runner.registration, None, "it is not that of the record");
}

#[test]
fn a_job_started_report_belongs_to_the_newest_runner_of_its_slot() {
    let jobs = |found: Found| -> Vec<(Option<Invocation>, bool)> {
        let (_, effects) = adopt(found);
        let ended = effects.into_iter().filter_map(|effect| {
            let Effect::Ended(ended) = effect else {
                return None;
            };
            Some((ended.runner.invocation.clone(), ended.runner.job.is_some()))
        });
        ended.collect()
    };
    let reported = |judged: BTreeSet<Invocation>| Found {
        ends: four_ends(),
        judged: Some(judged),
        notes: [(slot_id(slot(1)), JobNote::default())].into(),
        ..found(Some(record(PhaseKind::Idle)), gone(None))
    };
    let newest = jobs(reported([invocation(2), invocation(3)].into()));
    assert_eq!(
        newest,
        [(Some(invocation(1)), false), (Some(invocation(4)), true)]
    );
    let newest_is_judged = jobs(reported([2, 3, 4].map(invocation).into()));
    assert_eq!(newest_is_judged, [(Some(invocation(1)), false)]);
}

#[test]
fn the_end_of_a_unit_that_is_not_gone_yet_is_judged_when_it_is_gone() {
    let end = end_record(invocation(1), 1, NOW);
    let (mut pools, effects) = adopt(Found {
        ends: vec![recorded_end(end.clone())],
        ..found(
            Some(record(PhaseKind::Idle)),
            unit(UnitState::Deactivating, 1),
        )
    });
    assert_eq!(verdicts(&effects), []);
    let effects = pools.unit_observed(gone(Some(end)), NOW, 7);
    let judged = (Some(invocation(1)), Verdict::RegistrationDeleted);
    assert_eq!(verdicts(&effects), [judged]);
}

#[test]
fn a_runner_of_another_boot_ended_with_it_and_leaves_its_registration() {
    let recorded = RunnerRecord {
        boot_id: "earlier".into(),
        ..record(PhaseKind::Idle)
    };
    let (mut pools, effects) = adopt(found(Some(recorded), gone(None)));
    let judged = (Some(invocation(1)), Verdict::HostRestart);
    assert_eq!(verdicts(&effects), [judged]);
    let pool = pools.iter().next().unwrap();
    assert_eq!(pool.backoffs.iter().count(), 0, "it is not a failure");
    assert_eq!(deletions(&mut pools, NOW), [], "no list has shown it yet");
    let entry = |name: &str| ListedRunner {
        id: RunnerId(7),
        name: name.into(),
        online: false,
        busy: false,
        version: None,
    };
    let _ = pools.listed(&scope(), &[entry("h-ci-1-00000007")], NOW, NOW);
    assert_eq!(deletions(&mut pools, NOW), [(scope(), RunnerId(7))]);
}

#[test]
fn a_container_without_a_config_takes_no_registration_of_another_host() {
    for recorded in [None, Some(PhaseKind::Booting), Some(PhaseKind::Spare)] {
        let record = recorded.map(|phase| RunnerRecord {
            registration: None,
            ..record(phase)
        });
        let listed = ListedRunner {
            id: RunnerId(7),
            name: "h-ci-1-00000007".into(),
            online: true,
            busy: false,
            version: None,
        };
        let mut lost = found(record, unit(UnitState::Active, 1));
        lost.without_config.insert(slot_id(slot(1)));
        let (mut pools, _) = adopt(lost);
        for minutes in 1..20 {
            let now = NOW + minutes * MINUTE;
            let _ = pools.listed(&scope(), std::slice::from_ref(&listed), now, now);
            assert_eq!(deletions(&mut pools, now), [], "{recorded:?}");
            let runner = pools.runner(&slot_id(slot(1)));
            assert_eq!(runner.and_then(Runner::name), None, "{recorded:?}");
        }
    }
}

#[test]
fn a_registration_that_only_its_slot_claims_is_not_deleted_while_it_is_online() {
    let listed = |online| ListedRunner {
        id: RunnerId(7),
        name: "h-ci-1-00000007".into(),
        online,
        busy: false,
        version: None,
    };
    let (mut pools, _) = adopt(found(None, unit(UnitState::Active, 1)));
    let effects = pools.listed(&scope(), &[listed(true)], NOW + MINUTE, NOW + MINUTE);
    assert_eq!(phase_in(&pools), PhaseKind::Idle);
    let is_named =
        |effect: &Effect| matches!(effect, Effect::Record(record) if record.registration.is_some());
    assert!(!effects.iter().any(is_named), "{effects:?}");
    // The hook of a job does not tell the runner's name.
    let effects = pools.job_started(&slot_id(slot(1)), JobNote::default(), NOW + MINUTE);
    assert_eq!(phase_in(&pools), PhaseKind::Busy);
    assert!(!effects.iter().any(is_named), "{effects:?}");

    let end = gone(Some(end_record(invocation(1), 1, NOW + MINUTE)));
    let _ = pools.unit_observed(end, NOW + 2 * MINUTE, 7);
    assert_eq!(pools.runner(&slot_id(slot(1))), None);
    for minutes in 2..8 {
        let now = NOW + minutes * MINUTE;
        let _ = pools.listed(&scope(), &[listed(true)], now, now);
        assert_eq!(deletions(&mut pools, now), [], "after {minutes} minutes");
    }
}

#[test]
fn a_job_whose_record_was_lost_is_not_another_hosts() {
    let mut lost = found(None, unit(UnitState::Active, 1));
    lost.notes.insert(slot_id(slot(1)), JobNote::default());
    let (mut pools, _) = adopt(lost);
    assert_eq!(phase_in(&pools), PhaseKind::Busy);
    let listed = ListedRunner {
        id: RunnerId(7),
        name: "h-ci-1-00000007".into(),
        online: true,
        busy: false,
        version: None,
    };
    for minutes in 1..5 {
        let now = NOW + minutes * MINUTE;
        let effects = pools.listed(&scope(), std::slice::from_ref(&listed), now, now);
        assert_eq!(effects, [], "after {minutes} minutes");
        assert_eq!(deletions(&mut pools, now), []);
    }
}

#[test]
fn a_job_whose_record_was_lost_is_not_another_hosts_while_a_clean_up_ends_it() {
    let mut lost = found(None, unit(UnitState::Active, 1));
    lost.notes.insert(slot_id(slot(1)), JobNote::default());
    let (mut pools, _) = adopt(lost);
    let _ = pools.plan(None, Admission::Clearing, NOW);
    assert_eq!(phase_in(&pools), PhaseKind::Retiring);
    let listed = ListedRunner {
        id: RunnerId(7),
        name: "h-ci-1-00000007".into(),
        online: true,
        busy: true,
        version: None,
    };
    for minutes in 1..5 {
        let now = NOW + minutes * MINUTE;
        let effects = pools.listed(&scope(), std::slice::from_ref(&listed), now, now);
        assert_eq!(effects, [], "after {minutes} minutes");
    }
}

/// Returns the deletions that a plan begins.
fn deletions(pools: &mut Pools, now: Timestamp) -> Vec<(ScopeId, RunnerId)> {
    let effects = pools.plan(None, Admission::Closed, now).into_iter();
    let deletions = effects.filter_map(|effect| {
        if let Effect::Step(slot, Step::Deregister { id, .. }) = effect {
            return Some((pools.runner(&slot)?.scope()?.clone(), id));
        }
        let Effect::Delete(scope, id) = effect else {
            return None;
        };
        Some((scope, id))
    });
    deletions.collect()
}

/// Returns pools that adopted an idle runner whose registration has this scope, and the time after lists
/// of the configured scope without it.
fn adopted_in(minted_in: Option<ScopeId>) -> (Pools, Timestamp) {
    let mut recorded = record(PhaseKind::Idle);
    recorded.registration = Some(Registration {
        scope: minted_in,
        id: Some(RunnerId(7)),
        name: RunnerName::new(host(), slot_id(slot(1)), 7),
    });
    let (mut pools, _) = adopt(found(Some(recorded), unit(UnitState::Active, 1)));
    let mut now = NOW;
    // The ids of two scopes collide, so the list shows a stranger under the runner's id.
    let stranger = ListedRunner {
        id: RunnerId(7),
        name: "stranger".into(),
        online: true,
        busy: false,
        version: None,
    };
    for _ in 0..5 {
        now = now + MINUTE;
        let _ = pools.listed(&scope(), std::slice::from_ref(&stranger), now, now);
    }
    (pools, now)
}

fn phase_in(pools: &Pools) -> PhaseKind {
    pools.runner(&slot_id(slot(1))).unwrap().phase.kind()
}

/// Returns the steps for the runner in slot 1, until no more follow.
fn steps_for(pools: &mut Pools, now: Timestamp) -> Vec<Step> {
    let effects = pools.plan(None, Admission::Open, now).into_iter();
    let steps = effects.filter_map(|effect| {
        let Effect::Step(_, step) = effect else {
            return None;
        };
        (step.slot() == slot(1)).then_some(step)
    });
    steps.collect()
}

#[test]
fn a_changed_scope_deletes_no_runner_of_the_new_scope() {
    let former = ScopeId::new("https://api.github.com", "acme/former");
    let (mut pools, now) = adopted_in(Some(former.clone()));
    assert_eq!(steps_for(&mut pools, now), [], "nothing is known of it");
    assert_eq!(phase_in(&pools), PhaseKind::Idle);
    let elsewhere: Vec<_> = pools.elsewhere().map(|(_, scope)| scope).collect();
    assert_eq!(elsewhere, [Some(&former)]);
    // The former scope's list has it, so it is deregistered there.
    let entry = ListedRunner {
        id: RunnerId(7),
        name: "h-ci-1-00000007".into(),
        online: true,
        busy: false,
        version: None,
    };
    let _ = pools.listed(&former, &[entry], now, now);
    let retired = Step::Retire {
        slot: slot(1),
        cause: Cause::ScaledDown,
    };
    let deregistered = Step::Deregister {
        slot: slot(1),
        id: RunnerId(7),
    };
    assert_eq!(steps_for(&mut pools, now), [retired, deregistered]);
    let scope_of_it = pools.runner(&slot_id(slot(1))).unwrap().scope().cloned();
    assert_eq!(scope_of_it, Some(former));
}

#[test]
fn the_registration_that_a_former_scopes_runner_leaves_is_deleted_there_alone() {
    let former = ScopeId::new("https://api.github.com", "acme/former");
    let (mut pools, now) = adopted_in(Some(former.clone()));
    let end = end_record(invocation(1), 1, now);
    let _ = pools.unit_observed(gone(Some(end)), now, 7);
    assert_eq!(deletions(&mut pools, now), []);
    let entry = ListedRunner {
        id: RunnerId(7),
        name: "h-ci-1-00000007".into(),
        online: false,
        busy: false,
        version: None,
    };
    let _ = pools.listed(&former, &[entry], now, now);
    assert_eq!(deletions(&mut pools, now), [(former, RunnerId(7))]);
}

#[test]
fn a_record_without_a_scope_belongs_to_the_scope_whose_list_shows_its_id_and_name() {
    let (mut pools, now) = adopted_in(None);
    assert_eq!(steps_for(&mut pools, now), [], "it may be in another scope");
    assert_eq!(pools.elsewhere().count(), 1);
    let late = now + Duration::from_hours(24);
    assert_eq!(steps_for(&mut pools, late), [], "its age ends nothing");
    assert_eq!(phase_in(&pools), PhaseKind::Idle);
    let entry = ListedRunner {
        id: RunnerId(7),
        name: "h-ci-1-00000007".into(),
        online: true,
        busy: false,
        version: None,
    };
    let effects = pools.listed(&scope(), &[entry], now, now);
    assert!(matches!(&effects[..], [Effect::Record(record)]
        if record.registration.as_ref().unwrap().scope == Some(scope())));
    assert_eq!(pools.elsewhere().count(), 0);
}

#[test]
fn a_runner_that_its_lists_lack_ends_only_if_github_does_not_find_it() {
    let find = Step::Find {
        slot: slot(1),
        id: RunnerId(7),
    };
    let entry = |name: &str, busy| ListedRunner {
        id: RunnerId(7),
        name: name.into(),
        online: true,
        busy,
        version: None,
    };
    let ours = "h-ci-1-00000007";
    let answers = [
        (None, PhaseKind::Retiring, true),
        (Some(entry("stranger", false)), PhaseKind::Retiring, true),
        (Some(entry(ours, false)), PhaseKind::Retiring, false),
        (Some(entry(ours, true)), PhaseKind::Busy, false),
    ];
    for (answer, phase, ends) in answers {
        let (mut pools, now) = adopted_in(Some(scope()));
        let steps = steps_for(&mut pools, now);
        assert_eq!(steps.last(), Some(&find), "{steps:?}");
        let slot = slot_id(slot(1));
        let _ = pools.find_answered(&slot, RunnerId(7), Ok(answer.clone()), now, 7);
        assert_eq!(phase_in(&pools), phase, "{answer:?}");
        let next = steps_for(&mut pools, now + MINUTE);
        let is_end = matches!(next[..], [Step::End { .. }]);
        assert_eq!(is_end, ends, "{answer:?}: {next:?}");
    }
}

#[test]
fn the_record_of_another_boot_is_not_that_of_a_container_of_this_one() {
    let recorded = RunnerRecord {
        boot_id: "earlier".into(),
        invocation: None,
        ..record(PhaseKind::Idle)
    };
    let (pools, effects) = adopt(found(Some(recorded), unit(UnitState::Active, 2)));
    assert_eq!(verdicts(&effects), [(None, Verdict::HostRestart)]);
    let runner = pools.runner(&slot_id(slot(1))).unwrap();
    assert_eq!(runner.registration, None);
}

#[test]
fn a_runner_of_a_removed_pool_is_adopted_and_its_record_judged() {
    let old = SlotId {
        pool: "old".parse().unwrap(),
        slot: slot(1),
    };
    let alive = UnitObservation {
        slot: old.clone(),
        ..unit(UnitState::Active, 1)
    };
    let (pools, _) = adopt(found(None, alive));
    assert!(pools.runner(&old).is_some());
    let recorded = RunnerRecord {
        slot: old.clone(),
        ..record(PhaseKind::Busy)
    };
    let (pools, effects) = adopt(Found {
        units: Vec::new(),
        ..found(Some(recorded), gone(None))
    });
    assert_eq!(
        verdicts(&effects),
        [(Some(invocation(1)), Verdict::Unexplained)]
    );
    assert_eq!(pools.iter().count(), 1, "an empty pool is not kept");
}
