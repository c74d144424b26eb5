//! The stand-in listener with the server.

mod common;

use std::collections::BTreeMap;

use common::{Listener, Sim, runner};
use github_sim::{
    Conclusion, Endpoint, Fault, FaultRule, GoneCause, JobSpec, JobState, Outcome, Settings,
    Standing,
};
use nix::sys::signal::Signal;

#[test]
fn a_listener_takes_one_job_and_leaves() {
    let sim = Sim::start();
    let mut listener = sim.listener("r1", &[]);
    sim.wait_online(listener.id);
    let script = "echo hello from $RUNNER_NAME in $PWD; test $CI = true; test $X = y";
    let mut spec = JobSpec::new("build", &["CI"], script);
    spec.env.insert("X".into(), "y".into());
    let job = sim.control().add_job(spec);

    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success), "{job:#?}");
    assert_eq!(listener.code(), 0);
    assert!(job.facts.log_tail.contains("hello from r1 in"), "{job:#?}");
    assert!(job.facts.log_tail.contains("_work/widgets/widgets"));
    assert_eq!(job.facts.uid, nix::unistd::geteuid().as_raw());
    assert_eq!(job.facts.boot_id.len(), 36);
    let output = listener.output();
    for line in [
        "\u{221a} Connected to GitHub",
        ": Listening for Jobs",
        ": Running job: build",
        ": Job build completed with result: Succeeded",
    ] {
        assert!(output.contains(line), "{line} in {output}");
    }
    let gone = runner(sim.control(), listener.id).unwrap();
    assert_eq!(gone.gone, Some(GoneCause::JobDone));
}

#[test]
fn hooks_run_around_the_steps_and_files_carry_over() {
    let sim = Sim::start();
    let hooks = tempfile::tempdir().unwrap();
    let hook = |name: &str, text: &str| {
        let path = hooks.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let started = hook(
        "started.sh",
        "echo started $GITHUB_JOB; echo FROM_HOOK=1 >> $GITHUB_ENV",
    );
    let completed = hook("completed.sh", "echo completed $GITHUB_RUN_ID $FROM_STEP");
    let mut listener = sim.listener(
        "r1",
        &[
            ("ACTIONS_RUNNER_HOOK_JOB_STARTED", &started),
            ("ACTIONS_RUNNER_HOOK_JOB_COMPLETED", &completed),
            ("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED", "1"),
        ],
    );
    let mut spec = JobSpec::new("build", &["ci"], "");
    spec.steps[0].run = "grep -q 'SigBlk:.0*$' /proc/self/status; test $FROM_HOOK = 1; test -z \"$ACTIONS_RUNNER_INPUT_JITCONFIG\"; mkdir bin; echo 'echo tool' > bin/tool; chmod +x bin/tool; echo $PWD/bin >> $GITHUB_PATH; printf 'FROM_STEP<<E\\na b\\nE\\n' >> $GITHUB_ENV".into();
    spec.steps.push(github_sim::JobStep {
        name: "second".into(),
        run: "tool; false | true".into(),
    });
    let job = sim.control().add_job(spec);
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(listener.code(), 102);
    assert_eq!(job.conclusion, Some(Conclusion::Failure));
    let log = &job.facts.log_tail;
    for line in [
        "started build",
        "tool\n",
        "exit code 1",
        &format!("completed {} a b", job.id),
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
}

#[test]
fn a_failing_started_hook_fails_the_job() {
    let sim = Sim::start();
    let hooks = tempfile::tempdir().unwrap();
    let path = hooks.path().join("no.sh");
    std::fs::write(&path, "exit 3").unwrap();
    let hook = path.to_str().unwrap();
    let mut listener = sim.listener("r1", &[("ACTIONS_RUNNER_HOOK_JOB_STARTED", hook)]);
    let job = sim
        .control()
        .add_job(JobSpec::new("build", &["ci"], "echo never"));
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(listener.code(), 0);
    assert_eq!(job.conclusion, Some(Conclusion::Failure));
    assert!(!job.facts.log_tail.contains("never"));
}

/// Queues a job without end that creates a file when it runs. Returns its id and the file.
fn endless(sim: &Sim, marks: &tempfile::TempDir) -> (u64, std::path::PathBuf) {
    let mark = marks.path().join("running");
    // A builtin creates the file: bash continues after a SIGINT that comes just as `touch` has ended.
    let script = format!(": > {}; sleep 1000", mark.display());
    (
        sim.control()
            .add_job(JobSpec::new("long", &["ci"], &script)),
        mark,
    )
}

#[test]
fn a_cancelled_job_ends_as_cancelled() {
    let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
    let mut listener = sim.listener(
        "r1",
        &[("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED", "1")],
    );
    let (job, mark) = endless(&sim, &marks);
    common::wait_for_file(&mark);
    let path = format!("/orgs/acme/actions/runners/{}", listener.id);
    assert_eq!(sim.call("DELETE", &path, None).status, 422);
    assert!(sim.control().cancel_job(job));
    assert_eq!(
        sim.wait_job(job, JobState::Completed).conclusion,
        Some(Conclusion::Cancelled)
    );
    assert_eq!(listener.code(), 103);
}

#[test]
fn a_signal_ends_the_running_job_as_failed_and_returns_no_result() {
    for (signal, code) in [(Signal::SIGINT, 0), (Signal::SIGTERM, 143)] {
        let (sim, marks) = (Sim::start(), tempfile::tempdir().unwrap());
        let result = ("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED", "1");
        let mut listener = sim.listener("r1", &[result]);
        let (job, mark) = endless(&sim, &marks);
        common::wait_for_file(&mark);
        listener.signal(signal);
        assert_eq!(listener.code(), code);
        assert_eq!(
            sim.control().job(job).unwrap().conclusion,
            Some(Conclusion::Failure)
        );
    }
}

#[test]
fn a_signal_ends_an_idle_listener_and_its_session() {
    let sim = Sim::start();
    let mut listener = sim.listener("r1", &[]);
    sim.wait_online(listener.id);
    listener.signal(Signal::SIGTERM);
    assert_eq!(listener.code(), 143);
    let left = runner(sim.control(), listener.id).unwrap();
    assert_eq!(
        (left.standing, left.session_owner),
        (Standing::Registered, None)
    );
}

#[test]
fn an_idle_runner_that_is_deleted_leaves() {
    let sim = Sim::start();
    let mut listener = sim.listener("r1", &[]);
    sim.wait_online(listener.id);
    let path = format!("/orgs/acme/actions/runners/{}", listener.id);
    assert_eq!(sim.call("GET", &path, None).json()["status"], "online");
    assert_eq!(sim.call("DELETE", &path, None).status, 204);
    assert_eq!(listener.code(), 0);
    assert!(
        listener
            .output()
            .contains("The runner no longer exists on the server")
    );
    assert!(!listener.root.path().join(".runner").exists());
}

#[test]
fn an_idle_runner_is_removed_after_the_configured_time() {
    let sim = Sim::with(Settings {
        idle_reap_ms: Some(50),
        ..Settings::default()
    });
    let mut listener = sim.listener("r1", &[]);
    assert_eq!(listener.code(), 0);
    assert_eq!(
        runner(sim.control(), listener.id).unwrap().gone,
        Some(GoneCause::IdleReaped)
    );
}

#[test]
fn a_listener_without_a_valid_session_gives_up_with_1() {
    let sim = Sim::with(Settings {
        poll_hold_ms: 50,
        ..Settings::default()
    });
    let refused = |code| Fault::Status {
        code,
        body: None,
        headers: BTreeMap::new(),
    };
    for code in [401, 403] {
        sim.control()
            .add_faults([FaultRule::on(Endpoint::Session, 1, refused(code))]);
        assert_eq!(
            sim.listener(&format!("refused-{code}"), &[]).code(),
            1,
            "{code}"
        );
    }
    let mut listener = sim.listener("later", &[]);
    sim.wait_online(listener.id);
    sim.control()
        .add_faults([FaultRule::on(Endpoint::Message, 2, refused(401))]);
    let path = format!("/orgs/acme/actions/runners/{}", listener.id);
    assert_eq!(sim.call("GET", &path, None).json()["status"], "online");
    assert_eq!(listener.code(), 1);
}

#[test]
fn the_loser_of_a_race_listens_on_as_a_ghost() {
    let sim = Sim::start();
    let mut ghost = sim.listener("r1", &[]);
    sim.wait_online(ghost.id);
    let mut spec = JobSpec::new("build", &["ci"], "true");
    spec.lose_races = 1;
    let job = sim.control().add_job(spec);
    sim.wait("ghost", |c| {
        runner(c, ghost.id).filter(|r| r.standing == Standing::Ghost && r.online)
    });
    assert_eq!(
        sim.call("GET", "/orgs/acme/actions/runners", None).json()["total_count"],
        0
    );
    let mut second = sim.listener("r2", &[]);
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(second.code(), 0);
    let outcomes: Vec<_> = job.assignments.iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes, [Outcome::LostRace, Outcome::Acquired]);
    assert!(ghost.output().contains("Skipping message Job"));
    ghost.signal(Signal::SIGINT);
    assert_eq!(ghost.code(), 0);
}

#[test]
fn a_listener_below_the_minimum_version_is_refused() {
    for (told, code) in [("1", 7), ("0", 1)] {
        let sim = Sim::with(Settings {
            minimum_version: Some("3.0.0".into()),
            ..Settings::default()
        });
        let variable = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";
        let mut listener = sim.listener("r1", &[(variable, told)]);
        assert_eq!(listener.code(), code);
        assert!(
            listener
                .output()
                .contains("is deprecated and cannot receive messages")
        );
    }
}

#[test]
fn a_second_listener_with_the_same_config_is_refused() {
    let sim = Sim::start();
    let minted = sim.mint("r1", &["ci"]).json();
    let (id, blob) = (
        minted["runner"]["id"].as_u64().unwrap(),
        minted["encoded_jit_config"].as_str().unwrap(),
    );
    let _first = Listener::start(id, blob, &[]);
    sim.wait_online(id);
    let mut second = Listener::start(id, blob, &[]);
    assert_eq!(second.code(), 5);
    assert!(sim.control().delete_runner(id));
    let mut third = Listener::start(id, blob, &[]);
    assert_eq!(third.code(), 1);
    assert!(third.output().contains("registration has been deleted"));
    assert_eq!(Listener::start(id, "nonsense", &[]).code(), 1);
    assert_eq!(Listener::start(id, "", &[]).code(), 1);
}

#[test]
fn a_job_whose_listener_dies_loses_communication() {
    let sim = Sim::with(Settings {
        lock_ms: 200,
        ..Settings::default()
    });
    let mut listener = sim.listener("r1", &[]);
    let mut spec = JobSpec::new("build", &["ci"], "sleep 1000");
    spec.listener_faults.crash_with = Some(3);
    let job = sim.control().add_job(spec);
    assert_eq!(listener.code(), 3);
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Failure));
    assert!(job.reason.unwrap().contains("lost communication"));
    assert_eq!(
        runner(sim.control(), listener.id).unwrap().gone,
        Some(GoneCause::LostCommunication)
    );
}

#[test]
fn an_offer_that_is_not_taken_goes_back_to_the_queue() {
    let sim = Sim::with(Settings {
        assignment_timeout_ms: 1000,
        ..Settings::default()
    });
    sim.control()
        .add_faults([FaultRule::on(Endpoint::Message, 1, Fault::DropAfter)]);
    let mut listener = sim.listener("r1", &[]);
    let job = sim
        .control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    let job = sim.wait_job(job, JobState::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success));
    assert_eq!(job.assignments[0].outcome, Outcome::NotAcquired);
    assert_eq!(listener.code(), 0);
}

#[test]
fn a_listener_survives_errors_of_its_polls() {
    let sim = Sim::start();
    sim.control()
        .add_faults([FaultRule::on(Endpoint::Message, 5, Fault::Html502)]);
    let mut listener = sim.listener("r1", &[]);
    let _job = sim
        .control()
        .add_job(JobSpec::new("build", &["ci"], "true"));
    assert_eq!(listener.code(), 0);
    assert!(listener.output().contains("Runner reconnected"));
}

#[test]
fn warmup_and_version_succeed() {
    let run = |arg: &str| {
        let program = env!("CARGO_BIN_EXE_standin-listener");
        std::process::Command::new(program)
            .arg(arg)
            .output()
            .unwrap()
    };
    assert!(run("warmup").status.success());
    assert_eq!(
        String::from_utf8(run("--version").stdout).unwrap(),
        "2.336.0\n"
    );
    assert_eq!(run("nonsense").status.code(), Some(1));
}
