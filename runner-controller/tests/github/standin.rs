//! The client against the stand-in, which refuses every request that GitHub refuses.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use github_sim::{
    Endpoint, Fault, FaultRule, PagingFault, PlantedRunner, RunnerGroup, Server, ServerHandle,
    ServerOptions, Settings, VersionDates,
};
use runner_controller::config::Scope;
use runner_controller::github::{GitHub, cleanup_candidates};
use runner_controller::pool::{GroupOwner, GroupProblem, VersionEnd, group_problems};
use runner_controller::world::{
    Deleted, Registry, RegistryError, RegistryErrorKind as Kind, RunnerId,
};

use super::{PATIENCE, connect, host, organization, repository, request};

async fn sim() -> ServerHandle {
    sim_with(|_| {}).await
}

async fn sim_with(change: impl FnOnce(&mut Settings)) -> ServerHandle {
    let sim = Server::start(ServerOptions::default()).await.unwrap();
    sim.control().change_settings(change);
    sim
}

fn github(sim: &ServerHandle, scope: Scope) -> GitHub {
    connect(sim.url(), sim.token(), scope, PATIENCE)
}

fn plant(sim: &ServerHandle, name: &str, status: &str, busy: bool) -> RunnerId {
    RunnerId(sim.control().plant_runner(PlantedRunner {
        scope: "acme".parse().unwrap(),
        name: name.into(),
        status: status.into(),
        busy,
        labels: vec!["ci".into()],
        runner_group_id: 1,
    }))
}

async fn failed_mint(github: &GitHub, random: u32) -> RegistryError {
    github.mint(&request(random)).await.unwrap_err()
}

#[tokio::test]
async fn a_runner_is_minted_listed_and_deleted_in_both_scopes() {
    let sim = sim().await;
    for scope in [repository(), organization()] {
        let github = github(&sim, scope);
        let minted = github.mint(&request(7)).await.unwrap();
        assert!(minted.id.0 > u64::from(u32::MAX));
        assert!(minted.config.expose().len() > 100);

        let list = github.list().await.unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].id, minted.id);
        assert_eq!(list[0].name, "fuzz-ci-1-00000007");
        assert!(!list[0].online && !list[0].busy);

        assert_eq!(github.delete(minted.id).await, Ok(Deleted::Gone));
        // A second time, as after a lost answer.
        assert_eq!(github.delete(minted.id).await, Ok(Deleted::Gone));
        assert_eq!(github.list().await, Ok(vec![]));
    }
    // One call per mint, and one for the organisation's groups.
    let stats = sim.control().stats();
    assert_eq!(stats.calls_of("mint"), 2);
    assert_eq!(stats.calls_of("groups"), 1);
}

#[tokio::test]
async fn one_runner_is_found_by_its_id_in_its_scope_only() {
    let sim = sim().await;
    let (repository, organization) = (github(&sim, repository()), github(&sim, organization()));
    let minted = repository.mint(&request(7)).await.unwrap();
    let found = repository.find(minted.id).await.unwrap().unwrap();
    assert_eq!(found.id, minted.id);
    assert_eq!(found.name, "fuzz-ci-1-00000007");
    assert!(!found.online && !found.busy);
    assert_eq!(organization.find(minted.id).await, Ok(None));
    let busy = plant(&sim, "fuzz-ci-2-0000beef", "online", true);
    let found = organization.find(busy).await.unwrap().unwrap();
    assert!(found.online && found.busy);
    assert_eq!(repository.delete(minted.id).await, Ok(Deleted::Gone));
    assert_eq!(repository.find(minted.id).await, Ok(None));
}

#[tokio::test]
async fn a_group_is_looked_up_once() {
    let sim = sim().await;
    let github = github(&sim, organization());
    for random in 0..5 {
        github.mint(&request(random)).await.unwrap();
    }
    assert_eq!(sim.control().stats().calls_of("groups"), 1);
}

#[tokio::test]
async fn a_busy_runner_is_not_deleted() {
    let sim = sim().await;
    let busy = plant(&sim, "fuzz-ci-1-0000beef", "online", true);
    let github = github(&sim, organization());
    assert_eq!(github.delete(busy).await, Ok(Deleted::Busy));
    let list = github.list().await.unwrap();
    assert!(list[0].online && list[0].busy);
}

#[tokio::test]
async fn a_long_list_is_read_whole_and_costs_nothing_while_it_stays() {
    let sim = sim().await;
    for n in 0..250 {
        plant(&sim, &format!("other-{n}"), "offline", false);
    }
    let github = github(&sim, organization());
    let list = github.list().await.unwrap();
    assert_eq!(list.len(), 250);
    assert_eq!(github.list().await, Ok(list.clone()));
    let stats = sim.control().stats();
    assert_eq!(stats.answers("list", 200), 3);
    assert_eq!(stats.answers("list", 304), 3);
    let rows = github.calls();
    assert!(
        rows.contains(&("list runners", "not_modified", 3)),
        "{rows:?}"
    );
    let core = &github.quotas()[0];
    assert_eq!((core.resource.as_str(), core.remaining), ("core", 4997));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    assert!(core.reset_unix_s >= now.unwrap().as_secs(), "{core:?}");
    let times = github.answer_times();
    let [("list runners", times)] = times.as_slice() else {
        panic!("{times:?}");
    };
    assert_eq!(times.counts.iter().sum::<u64>(), 6, "one for each page");

    // A change on any page is seen.
    sim.control().delete_runner(list[120].id.0);
    assert_eq!(github.list().await.unwrap().len(), 249);
}

#[tokio::test]
async fn pages_that_repeat_or_skip_give_every_runner_once() {
    for (glitch, seen) in [(PagingFault::Repeat, 250), (PagingFault::Skip, 248)] {
        let sim = sim_with(|settings| settings.paging_fault = glitch).await;
        for n in 0..250 {
            plant(&sim, &format!("other-{n}"), "offline", false);
        }
        let list = github(&sim, organization()).list().await.unwrap();
        let ids: BTreeSet<RunnerId> = list.iter().map(|runner| runner.id).collect();
        assert_eq!((ids.len(), list.len()), (seen, seen));
    }
}

#[tokio::test]
async fn every_fault_is_an_error_of_its_kind_and_no_mint_is_tried_twice() {
    let message = "Resource not accessible by personal access token".to_owned();
    let status = |code| Fault::Status {
        code,
        body: None,
        headers: [("retry-after".to_owned(), "9".to_owned())].into(),
    };
    let wait = Some(Duration::from_secs(9));
    for (n, (action, kind, retry_after)) in (0_u32..).zip([
        (Fault::DropBefore, Kind::Unreachable, None),
        (Fault::DropAfter, Kind::Unreachable, None),
        (Fault::Truncate { bytes: 20 }, Kind::Unreachable, None),
        (Fault::Html502, Kind::Server, None),
        (Fault::WrongTypes, Kind::Server, None),
        (Fault::Giant { bytes: 5 << 20 }, Kind::Server, None),
        (Fault::SlowDrip { bytes_per_s: 1 }, Kind::Unreachable, None),
        (Fault::Forbidden { message }, Kind::Forbidden, None),
        (status(500), Kind::Server, wait),
        (status(503), Kind::Server, wait),
        (status(409), Kind::NameTaken, wait),
        (status(422), Kind::Invalid, wait),
        (status(429), Kind::Limited, wait),
    ]) {
        let sim = sim().await;
        let what = format!("{action:?}");
        let timeout = if matches!(action, Fault::SlowDrip { .. }) {
            Duration::from_millis(400)
        } else {
            PATIENCE
        };
        let github = connect(sim.url(), sim.token(), repository(), timeout);
        sim.control()
            .add_faults([FaultRule::on(Endpoint::Mint, 1, action)]);
        let error = failed_mint(&github, n).await;
        assert_eq!(error.kind, kind, "{what}: {error}");
        assert_eq!(error.retry_after, retry_after, "{what}: {error}");
        assert_eq!(error.operation, "generate-jitconfig");
        assert!(!error.message.contains(sim.token()), "{what}: {error}");
        assert_eq!(sim.control().stats().calls_of("mint"), 1, "{what}");
        if error.status.is_some() && kind != Kind::Server {
            assert!(error.request_id.is_some(), "{what}: {error:?}");
        }
        if kind != Kind::Limited {
            let patient = self::github(&sim, repository());
            patient.mint(&request(100 + n)).await.expect(&what);
        }
    }
}

#[tokio::test]
async fn faults_of_a_list_are_errors_and_never_a_shorter_list() {
    let sim = sim().await;
    for n in 0..250 {
        plant(&sim, &format!("other-{n}"), "offline", false);
    }
    for action in [
        Fault::DropAfter,
        Fault::Truncate { bytes: 500 },
        Fault::Html502,
        Fault::WrongTypes,
        Fault::Giant { bytes: 5 << 20 },
        Fault::Giant { bytes: 100 },
    ] {
        let what = format!("{action:?}");
        // A client without remembered pages, because a 304 has no body to spoil.
        let github = github(&sim, organization());
        // The second page.
        sim.control().add_faults([FaultRule {
            skip: 1,
            ..FaultRule::on(Endpoint::List, 1, action)
        }]);
        assert!(github.list().await.is_err(), "{what}");
        sim.control().clear_faults();
        assert_eq!(github.list().await.unwrap().len(), 250, "{what}");
    }
}

#[tokio::test]
async fn no_request_leaves_while_a_limit_holds() {
    for action in [
        Fault::PrimaryLimit { reset_in_s: 2 },
        Fault::SecondaryLimit {
            retry_after_s: Some(2),
        },
    ] {
        let sim = sim().await;
        let github = github(&sim, repository());
        github.list().await.unwrap();
        sim.control()
            .add_faults([FaultRule::on(Endpoint::Mint, 1, action)]);
        let error = failed_mint(&github, 1).await;
        assert_eq!((error.kind, error.status), (Kind::Limited, Some(403)));
        let wait = error.retry_after.unwrap();
        assert!((2..=3).contains(&wait.as_secs()), "{wait:?}");

        let withheld = [
            failed_mint(&github, 2).await,
            github.list().await.unwrap_err(),
            github.delete(RunnerId(1)).await.unwrap_err(),
        ];
        for error in withheld {
            assert_eq!((error.kind, error.status), (Kind::Limited, None), "{error}");
            assert!(
                error.retry_after.is_some_and(|left| left <= wait),
                "{error}"
            );
        }
        // GitHub received none of them. The next request leaves once the wait is over.
        tokio::time::sleep(wait).await;
        github.mint(&request(3)).await.unwrap();
        let stats = sim.control().stats();
        assert_eq!((stats.calls_of("mint"), stats.while_limited), (2, 0));
    }
}

#[tokio::test]
async fn a_secondary_limit_without_a_time_is_a_minute() {
    let sim = sim().await;
    let limit = Fault::SecondaryLimit {
        retry_after_s: None,
    };
    sim.control()
        .add_faults([FaultRule::on(Endpoint::List, 1, limit)]);
    let error = github(&sim, repository()).list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Limited);
    assert_eq!(error.retry_after, Some(Duration::from_mins(1)));
}

#[tokio::test]
async fn the_list_leaves_a_fifth_of_the_budget_to_mints_and_deletes() {
    let sim = sim_with(|settings| settings.rate_limit = 10).await;
    let github = github(&sim, organization());
    let mut lists = 0;
    let error = loop {
        // The list differs each time, so each call costs one.
        plant(&sim, &format!("other-{lists}"), "offline", false);
        match github.list().await {
            Ok(_) => lists += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((lists, error.kind, error.status), (9, Kind::Limited, None));
    assert!(error.message.contains("1 of 10"), "{error}");
    assert_eq!(github.delete(RunnerId(1)).await, Ok(Deleted::Gone));
    // The window is empty now, and GitHub would refuse the next call.
    let error = github.delete(RunnerId(1)).await.unwrap_err();
    assert_eq!((error.kind, error.status), (Kind::Limited, None));
    // Mints count in another window.
    assert_eq!(sim.control().stats().while_limited, 0);
}

#[tokio::test]
async fn four_mints_are_under_way_and_no_more() {
    for allowed in [3, 4] {
        let sim = sim_with(|settings| {
            settings.secondary_limits = true;
            settings.concurrent_calls = allowed;
        })
        .await;
        let delay = Fault::Delay { ms: 100 };
        sim.control()
            .add_faults([FaultRule::on(Endpoint::Mint, None, delay)]);
        let github = github(&sim, repository());
        let mints = (0..20).map(|random| {
            let (github, request) = (&github, request(random));
            async move { github.mint(&request).await }
        });
        let minted = join_all(mints).await;
        // A server that allows three refuses the fourth.
        assert_eq!(minted.iter().all(Result::is_ok), allowed == 4);
    }
}

#[tokio::test]
async fn a_wrong_token_and_a_wrong_scope_say_what_to_change() {
    let sim = sim().await;
    let here = github(&sim, organization());
    let elsewhere = github(
        &sim,
        Scope::Organization {
            org: "nobody".into(),
        },
    );
    let error = elsewhere.list().await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    let advice = error.advice.unwrap();
    assert!(
        advice.contains("nobody") && advice.contains("github.url"),
        "{advice}"
    );

    sim.control().rotate_token("another");
    let error = here.list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized);
    let advice = error.advice.unwrap();
    assert!(advice.contains("/etc/runner-controller/token"), "{advice}");
}

#[tokio::test]
async fn a_group_that_is_missing_hosted_or_full_says_what_to_change() {
    let sim = sim_with(|settings| settings.group_capacity = 1).await;
    let github = github(&sim, organization());
    let in_group = |group: &str, random| runner_controller::world::MintRequest {
        runner_group: group.into(),
        ..request(random)
    };

    let error = github.mint(&in_group("gone", 1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    let advice = error.advice.unwrap();
    assert!(advice.contains("Default, GitHub-hosted"), "{advice}");

    let error = github
        .mint(&in_group("GitHub-hosted", 2))
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden);
    assert!(
        error
            .advice
            .unwrap()
            .contains("organization_self_hosted_runners=write")
    );

    github.mint(&request(3)).await.unwrap();
    let error = failed_mint(&github, 4).await;
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.advice.unwrap().contains("cleanup-github-runners"));
}

#[tokio::test]
async fn the_groups_of_an_organisation_are_looked_up_with_their_restrictions() {
    let workflow = "acme/widgets/.github/workflows/ci.yml@refs/heads/main";
    let sim = sim_with(|settings| {
        settings.groups[0].allows_public_repositories = true;
        settings.groups.push(RunnerGroup {
            id: 7,
            name: "fast".into(),
            visibility: "selected".into(),
            repositories: vec!["widgets".into()],
            allows_public_repositories: false,
            selected_workflows: Some(vec![workflow.into()]),
            hosted: false,
        });
    })
    .await;
    let github = github(&sim, organization());
    let groups = github.groups().await.unwrap();
    let problems = |name: &str| group_problems(&groups, name, GroupOwner::Organization);
    assert_eq!(problems("default"), []);
    assert_eq!(
        problems("fast"),
        [
            GroupProblem::SelectedRepositories,
            GroupProblem::NoPublicRepositories,
            GroupProblem::SelectedWorkflows {
                workflows: vec![workflow.into()]
            },
        ]
    );
    let [GroupProblem::Missing { seen }] = &problems("gone")[..] else {
        panic!("{groups:?}")
    };
    assert_eq!(seen.last().map(String::as_str), Some("fast"));
    let counts = github.calls();
    assert!(
        counts.contains(&("check runner groups", "ok", 1)),
        "{counts:?}"
    );
    // The look is not what mints know of groups.
    github.mint(&request(1)).await.unwrap();
    assert_eq!(sim.control().stats().calls_of("groups"), 2);
}

#[tokio::test]
async fn the_end_of_a_version_is_read_and_an_unknown_version_has_none() {
    let sim = sim_with(|settings| {
        let dates = VersionDates {
            registration_deprecates_at: None,
            runtime_deprecates_at: Some("2026-12-04T00:00:00Z".into()),
        };
        settings.runner_versions.insert("2.334.0".into(), dates);
        let version = VersionDates::default();
        settings.runner_versions.insert("2.338.2".into(), version);
    })
    .await;
    for scope in [organization(), repository()] {
        let github = github(&sim, scope);
        let end = async |version: &str| github.version_end(version.parse().unwrap()).await;
        let old = VersionEnd {
            registration_unix_ms: None,
            runtime_unix_ms: Some(1_796_342_400_000),
        };
        assert_eq!(end("2.334.0").await, Ok(Some(old)));
        assert_eq!(end("2.338.2").await, Ok(Some(VersionEnd::default())));
        assert_eq!(end("2.1.0").await, Ok(None));
        let counts = github.calls();
        let is_counted = counts.contains(&("get runner version", "ok", 2));
        assert!(is_counted, "{counts:?}");
    }
}

#[tokio::test]
async fn a_look_at_groups_leaves_the_reserve_of_calls_to_mints() {
    let sim = sim_with(|settings| settings.rate_limit = 20).await;
    let github = github(&sim, organization());
    let mut looks = 0;
    let error = loop {
        match github.groups().await {
            Ok(_) => looks += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind, error.status), (Kind::Limited, None));
    assert!(looks < 20, "{looks} looks");
    github.mint(&request(1)).await.unwrap();
}

#[tokio::test]
async fn a_recreated_group_is_found_at_the_next_mint() {
    let sim = sim().await;
    let github = github(&sim, organization());
    github.mint(&request(1)).await.unwrap();
    sim.control()
        .change_settings(|settings| settings.groups[0].id = 9);
    let error = failed_mint(&github, 2).await;
    assert_eq!(error.kind, Kind::NotFound);
    assert!(
        error.advice.unwrap().contains("recreated"),
        "{}",
        error.message
    );
    github.mint(&request(3)).await.unwrap();
    let stats = sim.control().stats();
    assert_eq!((stats.calls_of("mint"), stats.calls_of("groups")), (3, 2));
}

#[tokio::test]
async fn a_taken_name_is_reported() {
    let sim = sim().await;
    let github = github(&sim, repository());
    github.mint(&request(1)).await.unwrap();
    let error = failed_mint(&github, 1).await;
    assert_eq!((error.kind, error.status), (Kind::NameTaken, Some(409)));
    assert!(!error.is_ambiguous());
}

#[tokio::test]
async fn a_500_means_busy_only_if_it_names_a_job() {
    let sim = sim().await;
    let github = github(&sim, repository());
    for (message, result) in [
        ("Runner \"x\" is still running a job\"", Ok(Deleted::Busy)),
        ("Something went wrong", Err(Kind::Server)),
    ] {
        let action = Fault::Status {
            code: 500,
            body: Some(serde_json::json!({ "message": message })),
            headers: [].into(),
        };
        sim.control()
            .add_faults([FaultRule::on(Endpoint::Delete, 1, action)]);
        let deleted = github.delete(RunnerId(1)).await;
        assert_eq!(deleted.map_err(|error| error.kind), result);
    }
}

#[tokio::test]
async fn a_redirected_request_is_repeated_unchanged() {
    let sim = sim().await;
    let github = github(&sim, repository());
    for (random, code) in (0_u32..).zip([301, 302, 307, 308]) {
        let to = "/repos/acme/widgets/actions/runners/generate-jitconfig".to_owned();
        sim.control().add_faults([FaultRule::on(
            Endpoint::Mint,
            1,
            Fault::Redirect { to, code },
        )]);
        github.mint(&request(random)).await.unwrap();
    }
    let to = "/repos/acme/widgets/actions/runners".to_owned();
    let round = Fault::Redirect { to, code: 307 };
    sim.control()
        .add_faults([FaultRule::on(Endpoint::List, None, round)]);
    let error = github.list().await.unwrap_err();
    assert!(error.message.contains("redirects"), "{error}");
}

#[tokio::test]
async fn a_clean_up_deletes_stale_registrations_of_this_host() {
    let sim = sim().await;
    let github = github(&sim, organization());
    let stale = plant(&sim, "fuzz-ci-1-0000beef", "offline", false);
    plant(&sim, "fuzz-ci-2-0000beef", "online", true);
    plant(&sim, "fuzz-a-ci-1-0000beef", "offline", false);
    let living = github.mint(&request(1)).await.unwrap();
    let owned = [request(1).name.to_string()].into();

    let list = github.list().await.unwrap();
    for runner in cleanup_candidates(&host(), &list, &owned) {
        assert_eq!(runner.id, stale);
        assert_eq!(github.delete(runner.id).await, Ok(Deleted::Gone));
    }
    let left = github.list().await.unwrap();
    assert_eq!(left.len(), 3);
    assert!(left.iter().any(|runner| runner.id == living.id));
}

#[tokio::test]
async fn deletions_are_a_second_apart() {
    let sim = sim().await;
    let ids = [1, 2, 3].map(|n| plant(&sim, &format!("fuzz-ci-{n}-0000dead"), "offline", false));
    let github = github(&sim, organization());
    let began = std::time::Instant::now();
    let [one, two, three] = ids.map(|id| github.delete(id));
    let answers = tokio::join!(one, two, three);
    assert_eq!(
        answers,
        (Ok(Deleted::Gone), Ok(Deleted::Gone), Ok(Deleted::Gone))
    );
    assert!(began.elapsed() >= std::time::Duration::from_secs(2));
}
