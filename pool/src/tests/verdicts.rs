//! Examples of verdicts and results.

use super::*;

#[test]
fn each_end_has_its_verdict() {
    let end = |exit: Exit, oom_kills: u64| EndRecord {
        exit,
        oom_kills,
        ..end_record(invocation(1), 0, Timestamp::default())
    };
    let job = Some(Job {
        note: JobNote::default(),
        since: Timestamp::default(),
    });
    let retiring = Phase::Retiring {
        cause: Cause::JobTimeout,
        deregister_first: false,
        end_requested_at: None,
    };
    let (exit, killed) = (Exit::Status, Exit::Signal("KILL".into()));
    let table = [
        (Phase::Busy, true, exit(0), 0, Verdict::JobDone),
        (Phase::Busy, true, exit(102), 0, Verdict::JobDone),
        (Phase::Registering, false, exit(100), 0, Verdict::JobDone),
        (Phase::Busy, true, exit(1), 0, Verdict::Crashed),
        (Phase::Busy, true, exit(2), 0, Verdict::Crashed),
        (Phase::Busy, true, exit(7), 0, Verdict::Crashed),
        (Phase::Busy, true, killed, 0, Verdict::Crashed),
        (Phase::Busy, true, exit(0), 1, Verdict::Oom),
        (Phase::Idle, false, exit(0), 0, Verdict::IdleExpired),
        (
            Phase::Registering,
            false,
            exit(7),
            0,
            Verdict::VersionRefused,
        ),
        (
            Phase::Registering,
            false,
            exit(1),
            0,
            Verdict::RegistrationRefused,
        ),
        (Phase::Idle, false, exit(1), 0, Verdict::RegistrationDeleted),
        (Phase::Idle, false, exit(2), 0, Verdict::GithubUnreachable),
        (Phase::Idle, false, exit(3), 0, Verdict::UpdateRequested),
        (Phase::Idle, false, exit(4), 0, Verdict::UpdateRequested),
        (
            Phase::Registering,
            false,
            exit(5),
            0,
            Verdict::SessionConflict,
        ),
        (
            Phase::Registering,
            false,
            exit(134),
            0,
            Verdict::ListenerAborted,
        ),
        (
            Phase::Registering,
            false,
            exit(255),
            0,
            Verdict::ListenerAborted,
        ),
        (Phase::Idle, false, exit(143), 0, Verdict::Stopped),
        (Phase::Registering, false, exit(243), 0, Verdict::Crashed),
        (Phase::Booting, false, exit(100), 0, Verdict::BootFailed),
        (Phase::Spare, false, exit(1), 0, Verdict::Crashed),
        (Phase::Booting, false, exit(81), 0, Verdict::BootFailed),
        (Phase::Spare, false, exit(0), 0, Verdict::SpareLost),
        (retiring, true, exit(0), 0, Verdict::JobTimeout),
    ];
    for (phase, has_job, exit, oom_kills, verdict) in table {
        let mut runner = Runner::new(slot(1), phase.clone(), Timestamp::default());
        runner.job = job.clone().filter(|_| has_job);
        if matches!(phase, Phase::Registering | Phase::Idle | Phase::Busy) {
            runner.registration = Some(registration(1));
        }
        let end = end(exit, oom_kills);
        assert_eq!(runner.verdict(Some(&end)), verdict, "{phase:?}");
    }
    let runner = Runner::new(slot(1), Phase::Busy, Timestamp::default());
    assert_eq!(runner.verdict(None), Verdict::Unexplained);
}

#[test]
fn a_listener_that_was_killed_while_it_listened_crashed() {
    let mut runner = Runner::new(slot(1), Phase::Idle, Timestamp::default());
    runner.registration = Some(registration(1));
    let end = |line: &str| EndRecord {
        last_line: Some(line.into()),
        ..end_record(invocation(1), 1, Timestamp::default())
    };
    let listens = end("2026-11-28 15:56:58Z: Listening for Jobs");
    assert_eq!(runner.verdict(Some(&listens)), Verdict::Crashed);
    let deleted = end("The runner registration has been deleted from the server");
    assert_eq!(runner.verdict(Some(&deleted)), Verdict::RegistrationDeleted);
}

/// `systemctl stop` and a shutdown of the host end the listener with 0.
#[test]
fn a_runner_that_another_program_stopped_is_neither_done_nor_expired() {
    let end = |status, service_result: &str| EndRecord {
        stop_requested: service_result == "success",
        service_result: service_result.into(),
        ..end_record(invocation(1), status, Timestamp::default())
    };
    let mut runner = Runner::new(slot(1), Phase::Idle, Timestamp::default());
    assert_eq!(runner.verdict(Some(&end(0, "success"))), Verdict::Stopped);
    runner.become_busy(None, Timestamp::default());
    let stopped = end(0, "success");
    assert_eq!(runner.verdict(Some(&stopped)), Verdict::Stopped);
    let result = runner.result(Verdict::Stopped, Some(&stopped));
    assert_eq!(result, Some(JobResult::Interrupted));
    // The job was done in the moment in which the stop came.
    let done = end(102, "success");
    assert_eq!(runner.verdict(Some(&done)), Verdict::JobDone);
    // The daemon was away, and RuntimeMaxSec= ended the job.
    assert_eq!(
        runner.verdict(Some(&end(0, "timeout"))),
        Verdict::JobTimeout
    );
}

#[test]
fn a_job_has_the_result_that_its_listener_returned() {
    let mut runner = Runner::new(slot(1), Phase::Busy, Timestamp::default());
    runner.become_busy(None, Timestamp::default());
    let end = |exit, returns_result| EndRecord {
        exit,
        returns_result,
        ..end_record(invocation(1), 0, Timestamp::default())
    };
    let (exit, killed) = (Exit::Status, Exit::Signal("KILL".into()));
    let table = [
        (exit(100), JobResult::Succeeded),
        (exit(102), JobResult::Failed),
        (exit(103), JobResult::Cancelled),
        (exit(105), JobResult::Abandoned),
        // RunnerNotFound, a shutdown and a lost job end with 0.
        (exit(0), JobResult::Interrupted),
        (exit(1), JobResult::Interrupted),
        (exit(255), JobResult::Interrupted),
        (killed, JobResult::Interrupted),
    ];
    for (exit, result) in table {
        let end = end(exit, true);
        let verdict = runner.verdict(Some(&end));
        assert_eq!(runner.result(verdict, Some(&end)), Some(result), "{end:?}");
    }
    // The container was started by a version that did not ask for the result.
    let old = end(exit(0), false);
    assert_eq!(runner.verdict(Some(&old)), Verdict::JobDone);
    let result = runner.result(Verdict::JobDone, Some(&old));
    assert_eq!(result, Some(JobResult::Unknown));
    let result = runner.result(Verdict::HostRestart, None);
    assert_eq!(result, Some(JobResult::Interrupted));
    let result = runner.result(Verdict::Unexplained, None);
    assert_eq!(result, Some(JobResult::Unknown));
    let idle = Runner::new(slot(1), Phase::Idle, Timestamp::default());
    assert_eq!(
        idle.result(Verdict::IdleExpired, Some(&end(exit(0), true))),
        None
    );
}

#[test]
fn the_reason_of_a_backoff_quotes_the_last_line_and_says_what_to_do() {
    let mut pool = Pool::new(spec(1, 1, 3));
    let now = Timestamp::from_millis(1000);
    let mut runner = Runner::new(slot(1), Phase::Registering, now);
    runner.invocation = Some(invocation(1));
    runner.registration = Some(registration(1));
    pool.runners.insert(slot(1), runner);
    let line = "Process terminated. Couldn't find a valid ICU package";
    let end = EndRecord {
        last_line: Some(line.into()),
        ..end_record(invocation(1), 255, now)
    };
    let ended = pool.end(slot(1), Some(end), now, 7).unwrap();
    assert_eq!(ended.verdict, Verdict::ListenerAborted);
    let (failure, backoff) = pool.backoffs.iter().next().unwrap();
    assert_eq!(failure, FailureKind::Expired);
    for part in [
        "ci-1",
        "listener_aborted",
        "status 255",
        line,
        "prepare-image",
    ] {
        assert!(
            backoff.reason.contains(part),
            "{part} in {}",
            backoff.reason
        );
    }
}
