//! Readings of jobs, against the stand-in.

use std::collections::BTreeMap;

use github_sim::{
    Endpoint, Fault, FaultRule, GitHubApp, JobSpec, Server, ServerHandle, ServerOptions,
};
use runner_controller::config::{GitHubConfig, LoginConfig, Scope};
use runner_controller::github::{AppKey, GitHub, JobQueue, Login, Token};
use runner_controller::pool::{Conclusion, JobStage};
use runner_controller::world::{Queue, ReadJob, RegistryErrorKind as Kind};

use super::{config_of, organization, repository};

/// Distance between the id of a job and the one by which tests name it.
const ID_DISTANCE: u64 = 1 << 40;

async fn sim() -> ServerHandle {
    Server::start(ServerOptions::default()).await.unwrap()
}

/// Returns the queue of a scope, and the client whose limits it shares.
fn queue(sim: &ServerHandle, scope: Scope) -> (GitHub, JobQueue) {
    let config = GitHubConfig {
        scope,
        ..config_of(sim.url())
    };
    let token = || Token::new(sim.token()).unwrap();
    let github = GitHub::new(&config, token()).unwrap();
    let queue = JobQueue::beside(&github, &config, token()).unwrap();
    (github, queue)
}

fn add_job(sim: &ServerHandle, name: &str) -> u64 {
    sim.control().add_job(JobSpec {
        hold: true,
        ..JobSpec::new(name, &["linux"], "true")
    })
}

#[tokio::test]
async fn the_queue_of_a_repository_has_its_waiting_jobs() {
    let sim = sim().await;
    let (github, queue) = queue(&sim, repository());
    assert_eq!(queue.repository(), Some("acme/widgets"));
    let first = add_job(&sim, "build");
    add_job(&sim, "test");
    let reading = queue.jobs(5_000).await.unwrap();
    assert_eq!((reading.runs, reading.has_more_runs), (2, false));
    let job = &reading.jobs[0];
    assert_eq!(job.key.id, first + ID_DISTANCE);
    assert_eq!(job.stage(), JobStage::Queued);
    assert_eq!(job.description().repository, "acme/widgets");
    assert_eq!(job.description().labels, ["linux"]);
    assert_eq!(job.read.unwrap().unix_ms, 5_000);

    // A page that has not changed costs nothing: GitHub confirms it.
    queue.jobs(6_000).await.unwrap();
    let calls = github.calls();
    let of = |operation, outcome| {
        let found = calls
            .iter()
            .find(|call| (call.0, call.1) == (operation, outcome));
        found.map_or(0, |call| call.2)
    };
    assert_eq!(
        (of("list runs", "ok"), of("list runs", "not_modified")),
        (2, 2)
    );
    assert_eq!(
        (of("list jobs", "ok"), of("list jobs", "not_modified")),
        (2, 2)
    );

    sim.control().cancel_job(first);
    let reading = queue.jobs(7_000).await.unwrap();
    assert_eq!(reading.jobs.len(), 1);
}

#[tokio::test]
async fn a_long_queue_is_read_as_far_as_its_newest_runs() {
    let sim = sim().await;
    let (_, queue) = queue(&sim, repository());
    for _ in 0..101 {
        add_job(&sim, "build");
    }
    let reading = queue.jobs(5_000).await.unwrap();
    assert_eq!((reading.runs, reading.has_more_runs), (100, true));
}

#[tokio::test]
async fn one_job_is_read_in_each_scope_until_its_end() {
    let sim = sim().await;
    for scope in [repository(), organization()] {
        let (_, queue) = queue(&sim, scope);
        let id = add_job(&sim, "build");
        let read = async |queue: &JobQueue| {
            let read = queue.job("acme/widgets", id + ID_DISTANCE, 5_000).await;
            match read.unwrap() {
                ReadJob::Known(job) => *job,
                other @ (ReadJob::Gone | ReadJob::Unreadable) => panic!("{other:?}"),
            }
        };
        assert_eq!(read(&queue).await.stage(), JobStage::Queued);
        sim.control().cancel_job(id);
        let end = read(&queue).await.end.unwrap();
        assert_eq!(end.conclusion, Conclusion::Cancelled);
    }
}

#[tokio::test]
async fn a_job_without_a_run_is_gone_and_a_repository_without_access_proves_nothing() {
    let sim = sim().await;
    let (_, queue) = queue(&sim, organization());
    assert_eq!(queue.job("acme/widgets", 7, 5_000).await, Ok(ReadJob::Gone));
    let error = queue.job("acme/other", 7, 5_000).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    let advice = error.advice.unwrap();
    assert!(advice.contains("actions=read"), "{advice}");
}

#[tokio::test]
async fn a_queue_of_which_a_part_fails_is_not_returned() {
    let sim = sim().await;
    let (_, queue) = queue(&sim, repository());
    add_job(&sim, "build");
    for endpoint in [Endpoint::Runs, Endpoint::RunJobs] {
        let fault = Fault::Status {
            code: 502,
            body: None,
            headers: BTreeMap::default(),
        };
        sim.control()
            .add_faults([FaultRule::on(endpoint, 1, fault)]);
        let error = queue.jobs(5_000).await.unwrap_err();
        assert_eq!(error.kind, Kind::Server, "{endpoint:?}");
    }
    assert_eq!(queue.jobs(5_000).await.unwrap().jobs.len(), 1);
}

#[tokio::test]
async fn an_app_reads_jobs_with_a_token_for_reading_alone() {
    let options = ServerOptions {
        app: Some(GitHubApp::example()),
        ..ServerOptions::default()
    };
    let sim = Server::start(options).await.unwrap();
    let config = GitHubConfig {
        scope: repository(),
        login: LoginConfig::App {
            id: "123456".into(),
            key_file: "/etc/runner-controller/app.pem".into(),
        },
        ..config_of(sim.url())
    };
    let login = || {
        let key = AppKey::new("123456", github_sim::APP_KEY).unwrap();
        Login::App(Box::new(key))
    };
    let github = GitHub::new(&config, login()).unwrap();
    let queue = JobQueue::beside(&github, &config, login()).unwrap();
    let error = queue.jobs(5_000).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "the App lacks the permission");
    assert!(error.to_string().contains("Actions: read"), "{error}");

    sim.control().change_settings(|settings| {
        let permission = ("actions".to_owned(), "read".to_owned());
        settings.app_permissions.extend([permission]);
    });
    assert_eq!(queue.jobs(5_000).await.unwrap().jobs, []);
}
