//! Scale sets as the crate `scaleset` uses them, a client that others wrote from GitHub's reference client.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use common::{Listener, Sim};
use github_sim::{APP_KEY, JobSpec, JobState, ScaleSetMode, Settings};
use scaleset::{
    Client, Credentials, ExposeSecret, JitRunnerConfig, JitRunnerSetting, JobMessage, MessageId,
    MessageSession, RetryPolicy, RunnerGroupId, RunnerScaleSetSpec, ScaleSetId, ScaleSetMessage,
};

use tokio::runtime::{Builder, Runtime};

fn quick() -> Settings {
    let mut settings = Settings::default();
    settings.scale_sets.poll_hold_ms = vec![0];
    settings
}

/// Returns a runtime for the calls of one client, whose connections end with it.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn client(sim: &Sim, scope: &str, credentials: Credentials) -> Client {
    // A server with another name than GitHub's has its API below /api/v3.
    Client::builder(format!("{}/{scope}", sim.url()), credentials)
        .allow_http(true)
        .retry_policy(RetryPolicy::none())
        .build()
        .unwrap()
}

fn with_token(sim: &Sim, scope: &str) -> Client {
    client(
        sim,
        scope,
        Credentials::personal_access_token(sim.token()).unwrap(),
    )
}

async fn set(client: &Client, name: &str) -> ScaleSetId {
    let spec = RunnerScaleSetSpec::new(name)
        .runner_group_id(RunnerGroupId::DEFAULT)
        .label("ci");
    client.create_runner_scale_set(&spec).await.unwrap().id
}

async fn message(session: &MessageSession, last: Option<MessageId>) -> ScaleSetMessage {
    session.get_message(last, 5).await.unwrap().unwrap()
}

fn number(id: ScaleSetId) -> u64 {
    u64::try_from(id.get()).unwrap()
}

fn job(name: &str) -> JobSpec {
    JobSpec::new(name, &["ci"], "true")
}

fn kinds(message: &ScaleSetMessage) -> Vec<&'static str> {
    let kind = |job: &JobMessage| match job {
        JobMessage::Available(_) => "available",
        JobMessage::Assigned(_) => "assigned",
        JobMessage::Started(_) => "started",
        JobMessage::Completed(_) => "completed",
        JobMessage::Unknown | _ => "unknown",
    };
    message.jobs.iter().map(kind).collect()
}

#[test]
fn a_set_is_created_found_changed_and_deleted() {
    let sim = Sim::start();
    runtime().block_on(async {
        let client = with_token(&sim, "acme");
        let group = client
            .get_runner_group_by_name("default")
            .await
            .unwrap()
            .unwrap();
        assert!(group.is_default);
        let none = client
            .get_runner_scale_set_by_name(group.id, "a&b")
            .await
            .unwrap();
        assert_eq!(none, None);
        let id = set(&client, "a&b").await;
        let found = client
            .get_runner_scale_set_by_name(group.id, "a&b")
            .await
            .unwrap()
            .unwrap();
        assert_eq!((found.id, found.labels[0].name.as_str()), (id, "ci"));
        assert!(found.created_on.is_some());
        assert_eq!(
            client.list_runner_scale_sets(group.id).await.unwrap(),
            [found]
        );
        let change = RunnerScaleSetSpec::new("b").disable_update(true);
        let changed = client.update_runner_scale_set(id, &change).await.unwrap();
        assert!(changed.runner_setting.disable_update);
        let taken = RunnerScaleSetSpec::new("b");
        assert!(
            client
                .create_runner_scale_set(&taken)
                .await
                .unwrap_err()
                .is_bad_request()
        );
        client.delete_runner_scale_set(id).await.unwrap();
        let gone = client.get_runner_scale_set_by_id(id).await.unwrap_err();
        assert!(gone.is_not_found(), "{gone}");
    });
}

#[test]
fn a_job_is_followed_from_its_assignment_to_its_end() {
    let sim = Sim::with(quick());
    let client = with_token(&sim, "acme");
    let runtime = runtime();
    let (session, listener) = runtime.block_on(async {
        let id = set(&client, "a").await;
        let session = client.create_message_session(id, "host").await.unwrap();
        assert_eq!(session.get_message(None, 5).await.unwrap(), None);
        sim.control().add_job(job("one"));
        let first = message(&session, None).await;
        assert_eq!(
            (kinds(&first), first.id),
            (vec!["assigned"], MessageId(100_000_001))
        );
        assert_eq!(first.statistics.unwrap().total_assigned_jobs, 1);
        session.delete_message(first.id).await.unwrap();
        // Already gone is as good.
        session.delete_message(first.id).await.unwrap();
        let setting = JitRunnerSetting::new("r1");
        let minted = client.generate_jit_config(id, &setting).await.unwrap();
        let runner = minted.runner.clone().unwrap();
        assert_eq!(runner.runner_scale_set_id, id);
        let found = client.get_runner_by_name("r1").await.unwrap().unwrap();
        assert_eq!(client.get_runner(found.id).await.unwrap(), runner);
        let twice = client.generate_jit_config(id, &setting).await.unwrap_err();
        assert!(twice.is_runner_exists(), "{twice}");
        start_listener(&sim, minted, session)
    });
    let jobs = sim.control().jobs();
    sim.wait_job(jobs[0].id, JobState::Completed);
    runtime.block_on(async {
        let last = message(&session, Some(MessageId(100_000_001))).await;
        assert_eq!(kinds(&last), ["started", "completed"]);
        let end = last.jobs_completed().next().unwrap();
        assert_eq!(
            (end.result.as_str(), end.runner_name.as_str()),
            ("succeeded", "r1")
        );
        let begin = last.jobs_started().next().unwrap();
        assert_eq!(begin.runner_id.get().cast_unsigned(), listener.id);
        session.close().await.unwrap();
        let gone = client.get_runner(begin.runner_id).await.unwrap_err();
        assert!(gone.is_runner_not_found(), "{gone}");
    });
}

/// Starts a listener with a JIT config.
fn start_listener(
    sim: &Sim,
    minted: JitRunnerConfig,
    session: MessageSession,
) -> (MessageSession, Listener) {
    let runner = minted.runner.unwrap();
    let found = sim.control().runners();
    let id = found
        .iter()
        .find(|known| known.name == runner.name)
        .unwrap()
        .id;
    let config = minted.encoded_jit_config.expose_secret();
    (session, Listener::start(id, config, &[]))
}

#[test]
fn a_busy_runner_cannot_be_removed_and_an_idle_one_can() {
    let sim = Sim::with(quick());
    let client = with_token(&sim, "acme");
    let runtime = runtime();
    let id = runtime.block_on(set(&client, "a"));
    let (_session, listener) = runtime.block_on(async {
        let session = client.create_message_session(id, "host").await.unwrap();
        session.get_message(None, 5).await.unwrap();
        let minted = client
            .generate_jit_config(id, &JitRunnerSetting::new("r1"))
            .await
            .unwrap();
        start_listener(&sim, minted, session)
    });
    let running = sim
        .control()
        .add_job(JobSpec::new("long", &["ci"], "sleep 600"));
    sim.wait_job(running, JobState::InProgress);
    runtime.block_on(async {
        let busy = client.get_runner_by_name("r1").await.unwrap().unwrap();
        assert_eq!(busy.id.get().cast_unsigned(), listener.id);
        let refused = client.remove_runner(busy.id).await.unwrap_err();
        assert!(refused.is_job_still_running(), "{refused}");
        let minted = client
            .generate_jit_config(id, &JitRunnerSetting::new("r2"))
            .await
            .unwrap();
        client
            .remove_runner(minted.runner.unwrap().id)
            .await
            .unwrap();
    });
    assert!(sim.control().cancel_job(running));
    sim.wait_job(running, JobState::Completed);
}

#[test]
fn expired_tokens_are_replaced_without_a_failure() {
    let sim = Sim::with(quick());
    runtime().block_on(async {
        let client = with_token(&sim, "acme/widgets");
        let id = set(&client, "a").await;
        let session = client.create_message_session(id, "host").await.unwrap();
        assert!(sim.control().expire_queue_token(number(id)));
        sim.control().expire_admin_tokens();
        assert_eq!(session.get_message(None, 1).await.unwrap(), None);
        assert_eq!(sim.control().stats().answers("set_session_refresh", 200), 1);
        assert_eq!(sim.control().stats().answers("admin_token", 200), 2);
    });
}

#[test]
fn a_second_session_waits_and_an_evicted_one_ends() {
    let sim = Sim::with(quick());
    runtime().block_on(async {
        let client = with_token(&sim, "acme");
        let id = set(&client, "a").await;
        let session = client.create_message_session(id, "one").await.unwrap();
        let second = client.create_message_session(id, "two").await.unwrap_err();
        assert!(second.is_conflict(), "{second}");
        assert!(
            second
                .to_string()
                .contains("RunnerScaleSetSessionConflictException")
        );
        assert!(sim.control().evict_session(number(id)));
        let lost = session.get_message(None, 1).await.unwrap_err();
        assert!(lost.is_not_found(), "{lost}");
        client.create_message_session(id, "two").await.unwrap();
    });
}

#[test]
fn jobs_are_acquired_as_on_an_enterprise_server() {
    let mut settings = quick();
    settings.scale_sets.mode = ScaleSetMode::Acquire;
    let sim = Sim::with(settings);
    runtime().block_on(async {
        let client = with_token(&sim, "acme");
        let id = set(&client, "a").await;
        let session = client.create_message_session(id, "host").await.unwrap();
        session.get_message(None, 1).await.unwrap();
        sim.control().add_job(job("one"));
        let first = message(&session, None).await;
        let requests: Vec<_> = first
            .jobs_available()
            .map(|available| available.job.runner_request_id)
            .collect();
        assert_eq!(session.acquire_jobs(&requests).await.unwrap(), requests);
        assert!(session.acquire_jobs(&requests).await.unwrap().is_empty());
        session.delete_message(first.id).await.unwrap();
        assert_eq!(
            kinds(&message(&session, Some(first.id)).await),
            ["assigned"]
        );
    });
}

#[test]
fn a_github_app_has_the_same_access() {
    let sim = Sim::start();
    let path = "/orgs/acme/installation";
    let bearer = format!("Bearer {}", common::app_jwt());
    let answer = sim
        .call_with("GET", path, &[("authorization", &bearer)], None)
        .unwrap();
    let installation = answer.json()["id"].as_i64().unwrap();
    let credentials = Credentials::github_app("123456", installation, APP_KEY).unwrap();
    runtime().block_on(async {
        let client = client(&sim, "acme", credentials);
        set(&client, "a").await;
    });
    assert_eq!(sim.control().stats().answers("access_token", 201), 1);
}
