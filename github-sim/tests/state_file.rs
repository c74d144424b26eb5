//! A server with a state file continues with the state of the last one.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{fs, path::Path};

use github_sim::{
    Endpoint, Fault, FaultRule, JobSpec, JobState, PlantedRunner, Scope, Server, ServerHandle,
    ServerOptions, Standing,
};

async fn start(state: &Path) -> ServerHandle {
    let options = ServerOptions {
        state: Some(state.into()),
        ..ServerOptions::default()
    };
    Server::start(options).await.unwrap()
}

fn planted(name: &str) -> PlantedRunner {
    PlantedRunner {
        scope: Scope::Organization("acme".into()),
        name: name.into(),
        status: "offline".into(),
        busy: false,
        labels: vec!["ci".into()],
        runner_group_id: 1,
    }
}

#[tokio::test]
async fn a_state_file_brings_back_jobs_runners_settings_and_faults() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let (job, stays, goes) = {
        let sim = start(&state).await;
        let control = sim.control();
        let stays = control.plant_runner(planted("stays"));
        let goes = control.plant_runner(planted("goes"));
        let job = control.add_job(JobSpec::new("build", &["ci"], "true"));
        assert!(control.witness(job, "begun".into()));
        assert!(control.delete_runner(goes));
        control.change_settings(|settings| settings.lock_ms = 7);
        control.add_faults([FaultRule::on(Endpoint::Mint, 3, Fault::DropAfter)]);
        (job, stays, goes)
    };
    let sim = start(&state).await;
    let control = sim.control();
    let kept = control.job(job).unwrap();
    assert_eq!(
        (kept.status, kept.witness),
        (JobState::Queued, vec!["begun".to_owned()])
    );
    let standing = |id| {
        let runners = control.runners();
        runners
            .iter()
            .find(|runner| runner.id == id)
            .unwrap()
            .standing
    };
    assert_eq!(
        (standing(stays), standing(goes)),
        (Standing::Registered, Standing::Gone)
    );
    assert_eq!(control.settings().lock_ms, 7);
    assert_eq!(control.faults().len(), 1);
    let next = control.add_job(JobSpec::new("next", &["ci"], "true"));
    assert!(next > job, "ids are given once");
}

#[tokio::test]
async fn half_a_line_at_the_end_of_the_file_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let job = {
        let sim = start(&state).await;
        let job = sim
            .control()
            .add_job(JobSpec::new("build", &["ci"], "true"));
        assert!(sim.control().cancel_job(job));
        job
    };
    let mut text = fs::read_to_string(&state).unwrap();
    text.push_str(r#"["job",{"id":"#);
    fs::write(&state, text).unwrap();
    let sim = start(&state).await;
    assert_eq!(sim.control().job(job).unwrap().status, JobState::Completed);
    assert_eq!(sim.control().jobs().len(), 1);
}

#[tokio::test]
async fn a_file_that_is_not_a_state_file_is_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::write(&state, "hello\n").unwrap();
    let options = ServerOptions {
        state: Some(state),
        ..ServerOptions::default()
    };
    let error = Server::start(options).await.err().unwrap().to_string();
    assert!(error.contains("state"), "{error}");
}
