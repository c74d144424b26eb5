//! Failed deliveries of hooks, against the stand-in.

use std::time::Duration;

use github_sim::{GitHubApp, HookSpec, HookTarget, JobSpec, Server, ServerHandle, ServerOptions};
use runner_controller::config::{GitHubConfig, LoginConfig, Scope};
use runner_controller::github::{AppKey, GitHub, HookDeliveries, Login, Token};
use runner_controller::world::{
    Deliveries, FailedAttempt, Hook, HookOwner, RegistryErrorKind as Kind,
};

use super::{config_of, organization, repository};

/// An address without a listener.
const NOWHERE: &str = "http://127.0.0.1:1/webhook";

fn as_token(sim: &ServerHandle, scope: Scope) -> HookDeliveries {
    let config = GitHubConfig {
        scope,
        ..config_of(sim.url())
    };
    let token = || Token::new(sim.token()).unwrap();
    let github = GitHub::new(&config, token()).unwrap();
    HookDeliveries::beside(&github, &config, token().into(), None).unwrap()
}

fn as_app(sim: &ServerHandle, scope: Scope) -> HookDeliveries {
    let config = GitHubConfig {
        scope,
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
    HookDeliveries::beside(&github, &config, login(), Some(login())).unwrap()
}

async fn app_sim() -> ServerHandle {
    let options = ServerOptions {
        app: Some(GitHubApp::example()),
        ..ServerOptions::default()
    };
    Server::start(options).await.unwrap()
}

/// Adds a hook whose deliveries fail, and returns its id.
fn add_hook(sim: &ServerHandle, target: HookTarget) -> u64 {
    sim.control()
        .add_hook(HookSpec::new(target, NOWHERE, "secret"))
}

fn scope_target(scope: &str) -> HookTarget {
    HookTarget::Scope(scope.parse().unwrap())
}

fn add_job(sim: &ServerHandle) {
    sim.control().add_job(JobSpec {
        hold: true,
        ..JobSpec::new("build", &["linux"], "true")
    });
}

/// Waits for this number of failed attempts.
async fn failed(deliveries: &HookDeliveries, hook: &Hook, count: usize) -> Vec<FailedAttempt> {
    for _ in 0..200 {
        let (failed, has_more) = deliveries.failed(hook, 0).await.unwrap();
        assert!(!has_more);
        if failed.len() >= count {
            return failed;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{hook}: never {count} failed attempts");
}

async fn one_is_repeated(deliveries: &HookDeliveries, hook: &Hook) {
    let first = failed(deliveries, hook, 1).await;
    assert_eq!(first.len(), 1);
    deliveries.repeat(hook, first[0].id).await.unwrap();
    let both = failed(deliveries, hook, 2).await;
    assert_eq!(both.len(), 2);
    assert_eq!(
        both[0].delivery, first[0].delivery,
        "one id of all attempts"
    );
    assert_ne!(both[0].id, first[0].id);
    assert_eq!(both[1], first[0], "newest first");
    // Attempts before the time are left out.
    let (newer, _) = deliveries
        .failed(hook, both[0].unix_ms + 1_000)
        .await
        .unwrap();
    assert_eq!(newer, []);
}

#[tokio::test]
async fn failed_deliveries_of_an_organisation_and_a_repository_are_repeated() {
    let sim = Server::start(ServerOptions::default()).await.unwrap();
    for (scope, name, owner) in [
        (
            organization(),
            "acme",
            HookOwner::Organization("acme".into()),
        ),
        (
            repository(),
            "acme/widgets",
            HookOwner::Repository("acme/widgets".into()),
        ),
    ] {
        let id = add_hook(&sim, scope_target(name));
        add_job(&sim);
        let deliveries = as_token(&sim, scope);
        one_is_repeated(&deliveries, &Hook { owner, id }).await;
    }
}

#[tokio::test]
async fn failed_deliveries_of_an_app_are_repeated_with_its_jwt_alone() {
    let sim = app_sim().await;
    let id = add_hook(&sim, HookTarget::App);
    add_job(&sim);
    let hook = Hook {
        owner: HookOwner::App,
        id,
    };
    one_is_repeated(&as_app(&sim, organization()), &hook).await;
    assert_eq!(sim.control().stats().calls_of("access_token"), 0);
}

#[tokio::test]
async fn an_app_needs_a_permission_for_other_hooks_and_a_token_is_not_an_app() {
    let sim = app_sim().await;
    let id = add_hook(&sim, scope_target("acme"));
    let owner = HookOwner::Organization("acme".into());
    let hook = Hook { owner, id };
    let error = as_app(&sim, organization()).failed(&hook, 0).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.to_string().contains("Webhooks: write"), "{error}");
    sim.control().change_settings(|settings| {
        let permission = ("organization_hooks".to_owned(), "write".to_owned());
        settings.app_permissions.extend([permission]);
    });
    let (failed, _) = as_app(&sim, organization()).failed(&hook, 0).await.unwrap();
    assert_eq!(failed, []);

    let sim = Server::start(ServerOptions::default()).await.unwrap();
    let hook = Hook {
        owner: HookOwner::App,
        id: 7,
    };
    let error = as_token(&sim, organization()).failed(&hook, 0).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("does not log in as one"), "{error}");
}

#[tokio::test]
async fn a_hook_that_does_not_exist_any_more_is_told() {
    let sim = Server::start(ServerOptions::default()).await.unwrap();
    let owner = HookOwner::Repository("acme/widgets".into());
    let hook = Hook { owner, id: 7 };
    let error = as_token(&sim, repository()).failed(&hook, 0).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert!(
        error.to_string().contains("does not exist any more"),
        "{error}"
    );
}
