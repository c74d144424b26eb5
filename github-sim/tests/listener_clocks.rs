//! The clocks, files and exit codes that were measured on GitHub's listener, one test for each row.

mod common;

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use common::{Listener, Sim, runner};
use github_sim::{Conclusion, Endpoint, Fault, FaultRule, JobSpec, JobState, Settings, Standing};
use nix::sys::signal::Signal;

const RESULT: (&str, &str) = ("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED", "1");
/// Files that make a root a configured runner.
const FILES: [&str; 3] = [".runner", ".credentials", ".credentials_rsaparams"];

fn always(endpoint: Endpoint, code: u16) -> FaultRule {
    FaultRule::on(endpoint, None, Fault::status(code))
}

/// Environment of a listener whose clocks run at a multiple of their speed, pauses included.
fn speed(factor: &str) -> [(&str, &str); 3] {
    [
        ("STANDIN_SPEED", factor),
        ("STANDIN_BACKOFF_MS", ""),
        RESULT,
    ]
}

/// Queues a job that writes `running` into `marks`, then runs `script`.
fn marked(sim: &Sim, marks: &Path, script: &str) -> u64 {
    let script = format!("cd {}; : > running\n{script}", marks.display());
    sim.control()
        .add_job(JobSpec::new("build", &["ci"], &script))
}

fn kept(listener: &Listener) -> bool {
    let present = FILES.map(|name| listener.root.path().join(name).exists());
    assert!(present == [true; 3] || present == [false; 3], "{present:?}");
    present[0]
}

#[test]
fn the_files_of_a_config_have_the_mode_of_the_umask() {
    let sim = Sim::start();
    let listener = sim.listener("r1", &[]);
    sim.wait_online(listener.id);
    for name in FILES {
        let mode = listener.root.path().join(name).metadata().unwrap();
        let umask = Path::new("/proc/self/status");
        let status = std::fs::read_to_string(umask).unwrap();
        let umask = status
            .lines()
            .find_map(|line| line.strip_prefix("Umask:\t"));
        let umask = u32::from_str_radix(umask.unwrap(), 8).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o666 & !umask, "{name}");
    }
}

#[test]
fn the_files_of_a_config_go_after_a_job_and_stay_after_a_signal() {
    let sim = Sim::start();
    let mut idle = sim.listener("r1", &[]);
    sim.wait_online(idle.id);
    idle.signal(Signal::SIGTERM);
    assert_eq!(idle.code(), 143);
    assert!(kept(&idle));
    let mut busy = sim.listener("r2", &[]);
    sim.control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    assert_eq!(busy.code(), 0);
    assert!(!kept(&busy));
}

#[test]
fn the_files_of_a_config_go_after_a_lost_acknowledge() {
    let sim = Sim::start();
    let lost = serde_json::json!({
        "source": "actions-broker-listener", "errorKind": "AcknowledgeJobNotFound",
        "statusCode": 404, "errorMessage": "Job not found",
    });
    let fault = Fault::answer(404, lost);
    sim.control()
        .add_faults([FaultRule::on(Endpoint::Acknowledge, 1, fault)]);
    let mut listener = sim.listener("r1", &[RESULT]);
    sim.control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    assert_eq!(listener.code(), 0);
    assert!(!kept(&listener));
}

#[test]
fn a_root_that_cannot_be_written_aborts_the_listener() {
    let root = tempfile::tempdir().unwrap();
    // Root writes in spite of modes, so a directory is in the place of the file.
    std::fs::create_dir(root.path().join(".runner")).unwrap();
    let sim = Sim::start();
    let minted = sim.mint("r1", &["ci"]).json();
    let path = root.path().to_str().unwrap();
    let blob = minted["encoded_jit_config"].as_str().unwrap();
    let mut listener = Listener::start(0, blob, &[("RUNNER_ROOT", path)]);
    assert_eq!(listener.end_signal(), Some(6), "{}", listener.output());
    let output = listener.output();
    assert!(output.contains("Unhandled exception"), "{output}");
}

#[test]
fn an_expired_token_is_renewed() {
    let sim = Sim::with(Settings {
        listener_token_ms: 1_000,
        poll_hold_ms: 50,
        ..Settings::default()
    });
    let mut listener = sim.listener("r1", &[]);
    sim.wait("a third token", |control| {
        (control.stats().answers("token", 200) >= 3).then_some(())
    });
    let listed = runner(sim.control(), listener.id).unwrap();
    assert_eq!(listed.standing, Standing::Registered);
    let job = sim
        .control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    assert_eq!(listener.code(), 0, "{}", listener.output());
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success));
}

#[test]
fn an_idle_listener_without_a_server_ends_after_708_s() {
    let sim = Sim::start();
    sim.control()
        .add_faults([FaultRule::on(Endpoint::Message, None, Fault::DropBefore)]);
    let since = Instant::now();
    let mut listener = sim.listener("r1", &speed("400"));
    assert_eq!(listener.code(), 2);
    assert!(since.elapsed() >= Duration::from_secs(708) / 400);
    assert!(kept(&listener));
}

#[test]
fn a_session_conflict_ends_a_listener_after_210_s() {
    let sim = Sim::start();
    sim.control().add_faults([always(Endpoint::Session, 409)]);
    let since = Instant::now();
    let mut listener = sim.listener("r1", &speed("200"));
    assert_eq!(listener.code(), 5);
    assert!(since.elapsed() >= Duration::from_secs(210) / 200);
    assert_eq!(sim.control().stats().answers("session", 409), 8);
}

#[test]
fn an_unknown_session_is_asked_for_without_end() {
    let sim = Sim::start();
    sim.control().add_faults([always(Endpoint::Session, 404)]);
    let mut listener = sim.listener("r1", &[]);
    let since = Instant::now();
    while sim.control().stats().answers("session", 404) < 20 {
        assert!(since.elapsed() < common::PATIENCE, "{}", listener.output());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(listener.output().contains("Runner connect error"));
    listener.signal(Signal::SIGINT);
    assert_eq!(listener.code(), 0);
}

#[test]
fn missed_renewals_cancel_the_job_after_40_s_and_after_250_s_of_503() {
    for (code, patience_s) in [(500, 40), (503, 250)] {
        let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
        let mut listener = sim.listener("r1", &speed("60"));
        let job = marked(&sim, marks.path(), "while :; do sleep 0.01; done");
        common::wait_for_file(&marks.path().join("running"));
        let since = Instant::now();
        sim.control().add_faults([always(Endpoint::Renew, code)]);
        // The job was cancelled by its listener, which returns success all the same.
        assert_eq!(listener.code(), 100, "{code}: {}", listener.output());
        assert!(since.elapsed() >= Duration::from_secs(patience_s) / 60);
        let job = sim.wait_job(job, JobState::Completed);
        assert_eq!(job.conclusion, Some(Conclusion::Cancelled), "{code}");
    }
}

#[test]
fn a_short_outage_that_hits_a_renewal_costs_no_job() {
    let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
    let mut listener = sim.listener("r1", &speed("30"));
    let job = marked(&sim, marks.path(), "until [ -e go ]; do sleep 0.01; done");
    common::wait_for_file(&marks.path().join("running"));
    let before = sim.control().stats().answers("renew", 200);
    sim.control()
        .add_faults([FaultRule::on(Endpoint::Renew, 2, Fault::DropBefore)]);
    sim.wait("a renewal after the outage", |control| {
        (control.stats().answers("renew", 200) > before).then_some(())
    });
    std::fs::write(marks.path().join("go"), "").unwrap();
    assert_eq!(listener.code(), 100);
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success));
}

#[test]
fn a_refused_renewal_abandons_the_job() {
    let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
    let mut listener = sim.listener("r1", &speed("60"));
    marked(&sim, marks.path(), "while :; do sleep 0.01; done");
    common::wait_for_file(&marks.path().join("running"));
    sim.control().add_faults([always(Endpoint::Renew, 404)]);
    assert_eq!(listener.code(), 105);
}

#[test]
fn a_job_whose_first_renewal_fails_does_not_start() {
    for (code, least_s) in [(404, 0), (500, 244)] {
        let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
        sim.control().add_faults([always(Endpoint::Renew, code)]);
        let job = marked(&sim, marks.path(), "true");
        let since = Instant::now();
        let mut listener = sim.listener("r1", &speed("200"));
        assert_eq!(listener.code(), 105, "{code}");
        assert!(since.elapsed() >= Duration::from_secs(least_s) / 200);
        assert!(!marks.path().join("running").exists());
        // It is still running at GitHub, until its lock expires.
        let status = sim.control().job(job).unwrap().status;
        assert_eq!(status, JobState::InProgress);
    }
}

#[test]
fn the_end_of_a_job_is_reported_25_times_and_five_times_as_failed() {
    for (refusals, conclusion) in [(24, Conclusion::Success), (25, Conclusion::Failure)] {
        let sim = Sim::start();
        let fault = FaultRule::on(Endpoint::Complete, refusals, Fault::status(500));
        sim.control().add_faults([fault]);
        let mut listener = sim.listener("r1", &speed("400"));
        let job = sim
            .control()
            .add_job(JobSpec::new("build", &["ci"], "true"));
        let code = if refusals == 24 { 100 } else { 102 };
        assert_eq!(listener.code(), code, "{refusals}");
        let job = sim.wait_job(job, JobState::Completed);
        assert_eq!(job.conclusion, Some(conclusion), "{refusals}");
    }
    let sim = Sim::start();
    sim.control().add_faults([always(Endpoint::Complete, 500)]);
    let since = Instant::now();
    let mut listener = sim.listener("r1", &speed("200"));
    sim.control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    assert_eq!(listener.code(), 102);
    assert!(since.elapsed() >= Duration::from_secs(264) / 200);
    assert_eq!(sim.control().stats().answers("complete", 500), 30);
}

#[test]
fn only_the_first_process_of_a_step_gets_signals_before_the_end() {
    let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
    let mut listener = sim.listener("r1", &speed("20"));
    let script = "
trap 'echo INT >> first' INT
trap 'echo TERM >> first' TERM
(trap 'echo child >> first' INT TERM; : > child; while :; do sleep 0.01; done) &
until [ -e child ]; do sleep 0.01; done
: > ready
while :; do sleep 0.01; done";
    let job = marked(&sim, marks.path(), script);
    common::wait_for_file(&marks.path().join("ready"));
    let since = Instant::now();
    sim.control().cancel_job(job);
    assert_eq!(listener.code(), 103, "{}", listener.output());
    assert!(since.elapsed() >= Duration::from_secs(10) / 20);
    let heard = std::fs::read_to_string(marks.path().join("first")).unwrap();
    assert_eq!(heard, "INT\nTERM\n");
}

#[test]
fn a_child_that_outlives_its_step_is_found_by_its_tracking_id() {
    let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
    let mut listener = sim.listener("r1", &[]);
    let script = "
setsid bash -c 'echo $$ > tracked; sleep 300' &
RUNNER_TRACKING_ID= setsid bash -c 'echo $$ > untracked; exec sleep 300' &
until [ -s tracked ] && [ -s untracked ]; do sleep 0.01; done";
    let job = marked(&sim, marks.path(), script);
    assert_eq!(listener.code(), 0);
    sim.wait_job(job, JobState::Completed);
    let process = |name: &str| -> i32 {
        let id = std::fs::read_to_string(marks.path().join(name)).unwrap();
        id.trim().parse().unwrap()
    };
    let untracked = nix::unistd::Pid::from_raw(process("untracked"));
    nix::sys::signal::kill(untracked, Signal::SIGKILL).unwrap();
    let tracked = process("tracked");
    let since = Instant::now();
    while std::fs::read_to_string(format!("/proc/{tracked}/comm"))
        .is_ok_and(|comm| comm == "bash\n")
        && std::fs::read(format!("/proc/{tracked}/cmdline")).is_ok_and(|args| !args.is_empty())
    {
        assert!(since.elapsed() < common::PATIENCE, "the child lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_hanging_hook_is_killed_285_s_after_a_cancellation_and_its_job_is_lost() {
    let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
    let hook = marks.path().join("hook.sh");
    let text = format!(": > {}/running; sleep 300", marks.path().display());
    std::fs::write(&hook, text).unwrap();
    let hook = ("ACTIONS_RUNNER_HOOK_JOB_STARTED", hook.to_str().unwrap());
    let [speed, backoff, result] = speed("200");
    let mut listener = sim.listener("r1", &[speed, backoff, result, hook]);
    let job = sim
        .control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    common::wait_for_file(&marks.path().join("running"));
    let since = Instant::now();
    sim.control().cancel_job(job);
    assert_eq!(listener.code(), 0);
    assert!(since.elapsed() >= Duration::from_secs(285) / 200);
    let status = sim.control().job(job).unwrap().status;
    assert_eq!(status, JobState::InProgress);
}

#[test]
fn a_hook_gets_no_variables_of_the_workflow_and_must_be_a_shell_script() {
    let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
    let hook = marks.path().join("hook.sh");
    std::fs::write(&hook, "test -z \"${X-}\"\necho FROM_HOOK=1 >> $GITHUB_ENV").unwrap();
    for (path, conclusion) in [
        (hook.clone(), Conclusion::Success),
        (marks.path().join("missing.sh"), Conclusion::Failure),
        (marks.path().join("hook.txt"), Conclusion::Failure),
    ] {
        std::fs::write(marks.path().join("hook.txt"), "true").unwrap();
        let started = ("ACTIONS_RUNNER_HOOK_JOB_STARTED", path.to_str().unwrap());
        let mut listener = sim.listener("r1", &[started]);
        let mut spec = JobSpec::new("build", &["ci"], "test $X = y; test $FROM_HOOK = 1");
        spec.env = BTreeMap::from([("X".into(), "y".into())]);
        let job = sim.control().add_job(spec);
        assert_eq!(listener.code(), 0);
        let job = sim.wait_job(job, JobState::Completed);
        assert_eq!(job.conclusion, Some(conclusion), "{}", path.display());
    }
}

#[test]
fn polls_that_end_the_listener_end_its_job_as_failed() {
    let gone = serde_json::json!({
        "source": "actions-broker-listener", "errorKind": "RunnerNotFound",
        "statusCode": 404, "errorMessage": "Runner not found",
    });
    let old = serde_json::json!({
        "source": "actions-broker-listener", "errorKind": "RunnerVersionTooOld",
        "statusCode": 400, "errorMessage": "deprecated",
    });
    for (fault, times, code) in [
        (Fault::answer(404, gone), 1, 0),
        (Fault::status(401), 2, 1),
        (Fault::answer(400, old), 1, 7),
    ] {
        let (sim, marks) = (
            Sim::with(Settings {
                poll_hold_ms: 50,
                ..Settings::default()
            }),
            tempfile::tempdir().unwrap(),
        );
        let version = ("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "1");
        let mut listener = sim.listener("r1", &[RESULT, version]);
        let job = marked(&sim, marks.path(), "while :; do sleep 0.01; done");
        common::wait_for_file(&marks.path().join("running"));
        sim.control()
            .add_faults([FaultRule::on(Endpoint::Message, times, fault)]);
        assert_eq!(listener.code(), code, "{}", listener.output());
        let job = sim.wait_job(job, JobState::Completed);
        assert_eq!(job.conclusion, Some(Conclusion::Failure), "{code}");
    }
}

#[test]
fn an_invalid_session_is_replaced_at_once_and_a_running_job_goes_on() {
    let (sim, marks) = (
        Sim::with(Settings {
            poll_hold_ms: 50,
            session_lapse_ms: 0,
            ..Settings::default()
        }),
        tempfile::tempdir().unwrap(),
    );
    let mut listener = sim.listener("r1", &[RESULT]);
    let job = marked(&sim, marks.path(), "until [ -e go ]; do sleep 0.01; done");
    common::wait_for_file(&marks.path().join("running"));
    let invalid = serde_json::json!({
        "source": "actions-broker-listener", "errorKind": "RunnerSessionInvalid",
        "statusCode": 404, "errorMessage": "invalid",
    });
    let fault = Fault::answer(404, invalid);
    sim.control()
        .add_faults([FaultRule::on(Endpoint::Message, 1, fault)]);
    sim.wait("a second session", |control| {
        (control.stats().answers("session", 200) >= 2).then_some(())
    });
    std::fs::write(marks.path().join("go"), "").unwrap();
    assert_eq!(listener.code(), 100, "{}", listener.output());
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success));
}

#[test]
fn a_job_that_cannot_be_acquired_is_dropped_after_five_tries() {
    let sim = Sim::start();
    sim.control()
        .add_faults([FaultRule::on(Endpoint::Acquire, 5, Fault::status(500))]);
    let mut listener = sim.listener("r1", &[]);
    sim.control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    sim.wait("five tries", |control| {
        (control.stats().answers("acquire", 500) == 5).then_some(())
    });
    sim.wait("a skipped message", |_| {
        listener
            .output()
            .contains("Skipping message Job")
            .then_some(())
    });
    listener.signal(Signal::SIGINT);
    assert_eq!(listener.code(), 0);
    assert!(kept(&listener));
}

#[test]
fn the_file_env_beats_the_environment_and_the_file_path_is_not_read() {
    let sim = Sim::start();
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join(".env"), "X=file\n").unwrap();
    std::fs::write(root.path().join(".path"), "/nonexistent").unwrap();
    let minted = sim.mint("r1", &["ci"]).json();
    let path = root.path().to_str().unwrap();
    let blob = minted["encoded_jit_config"].as_str().unwrap();
    let env = [("RUNNER_ROOT", path), ("X", "environment")];
    let mut listener = Listener::start(0, blob, &env);
    let job = sim
        .control()
        .add_job(JobSpec::new("build", &["ci"], "test $X = file; ls /"));
    assert_eq!(listener.code(), 0);
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success));
}
