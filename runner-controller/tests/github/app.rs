//! Authentication as a GitHub App, against the stand-in.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use github_sim::{
    Endpoint, Fault, FaultRule, GitHubApp, Server, ServerHandle, ServerOptions, Settings,
};
use runner_controller::world::{Registry, RegistryErrorKind as Kind};

use super::{connect_app, organization, repository, request};

/// Starts a stand-in that accepts only the tokens of its App.
async fn sim_with(change: impl FnOnce(&mut Settings)) -> ServerHandle {
    let sim = Server::start(ServerOptions {
        app: Some(GitHubApp::example()),
        ..ServerOptions::default()
    })
    .await
    .unwrap();
    sim.control().change_settings(change);
    sim
}

fn calls(sim: &ServerHandle, endpoint: &str) -> u64 {
    sim.control().stats().calls_of(endpoint)
}

#[tokio::test]
async fn an_app_mints_in_both_scopes_with_one_token_each() {
    let sim = sim_with(|_| {}).await;
    for (scope, id) in [(repository(), "123456"), (organization(), "Iv23liSTANDIN")] {
        let github = connect_app(sim.url(), id, scope);
        // At once, so that one call asks for the token and the other waits for it.
        let (first, second) = (request(1), request(2));
        let minted = join_all([github.mint(&first), github.mint(&second)]).await;
        for one in minted {
            github.delete(one.unwrap().id).await.unwrap();
        }
    }
    assert_eq!(calls(&sim, "installation"), 2);
    assert_eq!(calls(&sim, "access_token"), 2);
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    let sim = sim_with(|settings| settings.app_token_ms = 2_000).await;
    let github = connect_app(sim.url(), "123456", repository());
    github.list().await.unwrap();
    github.list().await.unwrap();
    assert_eq!(calls(&sim, "access_token"), 1);
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    github.list().await.unwrap();
    assert_eq!(calls(&sim, "access_token"), 2);
    assert_eq!(calls(&sim, "installation"), 1);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let sim = sim_with(|_| {}).await;
    let github = connect_app(sim.url(), "123456", repository());
    github.list().await.unwrap();
    let refuse = |times: u64| {
        let unauthorized = Fault::Status {
            code: 401,
            body: None,
            headers: BTreeMap::default(),
        };
        FaultRule::on(Endpoint::Mint, times, unauthorized)
    };
    sim.control().add_faults([refuse(1)]);
    github.mint(&request(1)).await.unwrap();
    assert_eq!((calls(&sim, "access_token"), calls(&sim, "mint")), (2, 2));

    sim.control().add_faults([refuse(2)]);
    let error = github.mint(&request(2)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized);
    let advice = error.advice.unwrap();
    assert!(
        advice.contains("App 123456") && advice.contains("clock"),
        "{advice}"
    );
}

#[tokio::test]
async fn an_error_about_an_app_says_what_to_change() {
    let sim = sim_with(|_| {}).await;
    let github = connect_app(sim.url(), "7", repository());
    let error = github.list().await.unwrap_err();
    assert_eq!(
        (error.kind, error.operation),
        (Kind::Unauthorized, "list runners")
    );
    assert!(error.message.contains("cannot get a token"), "{error:?}");

    sim.control()
        .change_settings(|settings| settings.app_suspended = true);
    let github = connect_app(sim.url(), "123456", repository());
    let error = github.list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden);
    assert!(error.advice.unwrap().contains("unsuspend"));

    sim.control().change_settings(|settings| {
        settings.app_suspended = false;
        settings.app_permissions.remove("administration");
    });
    let error = github.list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.advice.unwrap().contains("accepted"));

    let elsewhere = runner_controller::config::Scope::Organization {
        org: "other".into(),
    };
    let error = connect_app(sim.url(), "123456", elsewhere)
        .list()
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.advice.unwrap().contains("install it there"));
}
