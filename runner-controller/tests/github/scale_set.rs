//! The client of scale sets against two services: the stand-in, and the emulator of the crate `scaleset`, which others
//! wrote. Each scenario must go the same way at both.

use std::time::Duration;

use github_sim::{
    Endpoint, Fault, FaultRule, JobSpec, ScaleSetCall, ScaleSetMode, Server, ServerHandle,
    ServerOptions,
};
use runner_controller::config::GitHubConfig;
use runner_controller::github::{GitHub, ScaleSetService, Session, Token};
use runner_controller::pool::{Conclusion, JobSource, JobStage, KnownJob, PoolName, SetTrouble};
use runner_controller::world::{
    FoundSet, OpenSession, Registry, RegistryErrorKind as Kind, ScaleSets, SetError, SetMessage,
    WantedSet,
};
use scaleset::testing::Emulator;
use scaleset::{JobRequestId, ScaleSetId};

use super::{config_of, host, organization, request};

/// A service, and what only GitHub itself can do in it.
enum Service {
    StandIn(ServerHandle),
    Emulator(Emulator),
}

/// A job at a service.
#[derive(Clone, Copy)]
enum Job {
    StandIn(u64),
    Emulator(JobRequestId),
}

impl Service {
    /// Starts both services. They answer polls without a message at once.
    async fn both() -> [Self; 2] {
        [
            Self::StandIn(stand_in(ScaleSetMode::Auto).await),
            Self::Emulator(
                Emulator::builder()
                    .long_poll(Duration::from_millis(1))
                    .start()
                    .await,
            ),
        ]
    }

    fn github(&self) -> GitHub {
        let (server, api, token) = match self {
            Self::StandIn(sim) => (
                sim.url().to_owned(),
                sim.url().to_owned(),
                sim.token().to_owned(),
            ),
            Self::Emulator(emulator) => (
                emulator.uri(),
                format!("{}/api/v3", emulator.uri()),
                scaleset::testing::DEFAULT_PAT.to_owned(),
            ),
        };
        let config = GitHubConfig {
            scope: organization(),
            server_url: server,
            ..config_of(&api)
        };
        GitHub::new(&config, Token::new(&token).unwrap()).unwrap()
    }

    fn add_job(&self, set: u64) -> Job {
        match self {
            Self::StandIn(sim) => Job::StandIn(sim.control().add_job(JobSpec::new(
                "build",
                &["ci"],
                "true",
            ))),
            Self::Emulator(emulator) => Job::Emulator(emulator.queue_job(of_emulator(set), ["ci"])),
        }
    }

    fn cancel_job(&self, job: Job) {
        match (self, job) {
            (Self::StandIn(sim), Job::StandIn(job)) => assert!(sim.control().cancel_job(job)),
            (Self::Emulator(emulator), Job::Emulator(job)) => {
                emulator.complete_job(job, Some("canceled"));
            }
            _ => panic!("a job of another service"),
        }
    }

    fn expire_admin_tokens(&self) {
        match self {
            Self::StandIn(sim) => sim.control().expire_admin_tokens(),
            Self::Emulator(emulator) => emulator.expire_admin_tokens(),
        }
    }

    fn expire_queue_token(&self, set: u64) {
        match self {
            Self::StandIn(sim) => assert!(sim.control().expire_queue_token(set)),
            Self::Emulator(emulator) => emulator.expire_queue_token(of_emulator(set)),
        }
    }

    fn evict_session(&self, set: u64) {
        match self {
            Self::StandIn(sim) => assert!(sim.control().evict_session(set)),
            Self::Emulator(emulator) => emulator.expire_session(of_emulator(set)),
        }
    }
}

fn of_emulator(set: u64) -> ScaleSetId {
    ScaleSetId(i64::try_from(set).unwrap())
}

async fn stand_in(mode: ScaleSetMode) -> ServerHandle {
    let sim = Server::start(ServerOptions::default()).await.unwrap();
    sim.control().change_settings(|settings| {
        settings.scale_sets.mode = mode;
        settings.scale_sets.poll_hold_ms = vec![0];
    });
    sim
}

fn wanted() -> WantedSet {
    WantedSet {
        name: "fuzz-ci".into(),
        runner_group: "default".into(),
        labels: vec!["self-hosted".into(), "ci".into()],
    }
}

fn pool() -> PoolName {
    "ci".parse().unwrap()
}

/// Returns the client, the set, and an open session of it.
async fn opened(github: &GitHub) -> (std::sync::Arc<ScaleSetService>, FoundSet, Session) {
    let sets = github.scale_sets();
    let found = sets.find(&wanted()).await.unwrap();
    let session = sets.open(found.id, "fuzz").await.unwrap().session;
    (sets, found, session)
}

async fn poll(
    sets: &ScaleSetService,
    session: &Session,
    after: u64,
) -> Result<Option<SetMessage>, SetError> {
    sets.poll(session, after, 4, &pool(), 5_000).await
}

async fn message(sets: &ScaleSetService, session: &Session, after: u64) -> SetMessage {
    let message = poll(sets, session, after).await.unwrap();
    message.unwrap()
}

fn trouble<T>(result: Result<T, SetError>) -> SetTrouble {
    result.map(drop).unwrap_err().trouble
}

#[tokio::test]
async fn a_set_is_created_once_and_then_found() {
    for service in Service::both().await {
        let github = service.github();
        let sets = github.scale_sets();
        let created = sets.find(&wanted()).await.unwrap();
        assert_eq!(created.labels, ["self-hosted", "ci"]);
        assert_eq!(sets.find(&wanted()).await.unwrap(), created);
        let other = WantedSet {
            name: "fuzz-gpu".into(),
            ..wanted()
        };
        assert_ne!(sets.find(&other).await.unwrap().id, created.id);
        let missing = WantedSet {
            runner_group: "nobody".into(),
            ..wanted()
        };
        let error = sets.find(&missing).await.unwrap_err();
        assert_eq!(error.trouble, SetTrouble::Refused);
        assert_eq!(error.error.kind, Kind::NotFound);
    }
}

#[tokio::test]
async fn a_set_has_one_session_at_a_time() {
    for service in Service::both().await {
        let github = service.github();
        let (sets, found, session) = opened(&github).await;
        assert_eq!(
            trouble(sets.open(found.id, "other").await),
            SetTrouble::Occupied
        );
        sets.close(&session).await.unwrap();
        sets.close(&session).await.unwrap();
        sets.open(found.id, "other").await.unwrap();
    }
}

#[tokio::test]
async fn a_job_is_told_until_its_message_is_deleted() {
    for service in Service::both().await {
        let github = service.github();
        let (sets, found, session) = opened(&github).await;
        assert_eq!(poll(&sets, &session, 0).await.unwrap(), None);
        let job = service.add_job(found.id);
        let told = message(&sets, &session, 0).await;
        let told = acquired(&sets, &session, told).await;
        let [known] = &told.jobs[..] else {
            panic!("{told:?}")
        };
        assert_eq!(known.key.source, JobSource::ScaleSet);
        assert_eq!(known.stage(), JobStage::Queued);
        assert_eq!(known.pool, Some(pool()));
        assert_eq!(known.description().labels, ["ci"]);
        assert_eq!((told.assigned, &told.unreadable), (Some(1), &None));
        assert_eq!(poll(&sets, &session, told.id).await.unwrap(), None);

        // The queue is the set's, and a new session begins at its start.
        sets.close(&session).await.unwrap();
        let OpenSession {
            session, assigned, ..
        } = sets.open(found.id, "fuzz").await.unwrap();
        assert_eq!(assigned, Some(1));
        let again = message(&sets, &session, 0).await;
        assert_eq!((again.id, &again.jobs), (told.id, &told.jobs));
        sets.acknowledge(&session, told.id).await.unwrap();
        sets.acknowledge(&session, told.id).await.unwrap();

        service.cancel_job(job);
        let ended = message(&sets, &session, told.id).await;
        assert_eq!(ended.jobs[0].key, known.key);
        assert_eq!(ended.jobs[0].end.unwrap().conclusion, Conclusion::Cancelled);
        assert_eq!(ended.assigned, Some(0));
    }
}

/// Acquires the jobs that a message offers, and returns the message that tells of the assignments.
async fn acquired(sets: &ScaleSetService, session: &Session, told: SetMessage) -> SetMessage {
    if told.available.is_empty() {
        return told;
    }
    assert_eq!(told.jobs, Vec::<KnownJob>::new());
    sets.acquire(session, &told.available).await.unwrap();
    sets.acknowledge(session, told.id).await.unwrap();
    message(sets, session, told.id).await
}

#[tokio::test]
async fn a_set_that_has_to_acquire_its_jobs_does() {
    let service = Service::StandIn(stand_in(ScaleSetMode::Acquire).await);
    let github = service.github();
    let (sets, found, session) = opened(&github).await;
    poll(&sets, &session, 0).await.unwrap();
    service.add_job(found.id);
    let offered = message(&sets, &session, 0).await;
    assert_eq!(offered.available.len(), 1);
    let told = acquired(&sets, &session, offered).await;
    assert_eq!(told.jobs[0].stage(), JobStage::Queued);
}

#[tokio::test]
async fn a_service_that_assigns_jobs_has_no_call_to_acquire_them() {
    let service = Service::StandIn(stand_in(ScaleSetMode::Auto).await);
    let github = service.github();
    let (sets, _, session) = opened(&github).await;
    sets.acquire(&session, &[7]).await.unwrap();
}

#[tokio::test]
async fn tokens_are_replaced_and_an_evicted_session_is_known() {
    for service in Service::both().await {
        let github = service.github();
        let (sets, found, session) = opened(&github).await;
        // The client itself gets another token for the service.
        service.expire_admin_tokens();
        assert_eq!(sets.find(&wanted()).await.unwrap().id, found.id);

        service.expire_queue_token(found.id);
        let refused = poll(&sets, &session, 0).await;
        assert_eq!(trouble(refused), SetTrouble::TokenRefused);
        let refused = sets.acknowledge(&session, 1).await;
        assert_eq!(trouble(refused), SetTrouble::TokenRefused);
        let refreshed = sets.refresh(&session).await.unwrap();
        assert_eq!(refreshed.assigned, Some(0));
        let session = refreshed.session;
        assert_eq!(poll(&sets, &session, 0).await.unwrap(), None);

        service.evict_session(found.id);
        poll(&sets, &session, 0).await.unwrap_err();
        assert_eq!(
            trouble(sets.refresh(&session).await),
            SetTrouble::SessionLost
        );
        sets.open(found.id, "fuzz").await.unwrap();
    }
}

#[tokio::test]
async fn a_runner_of_a_set_is_minted_once_under_its_name() {
    for service in Service::both().await {
        let github = service.github();
        let minted = runner_controller::world::MintRequest {
            scale_set: Some("fuzz-ci".into()),
            ..request(7)
        };
        let runner = github.mint(&minted).await.unwrap();
        assert!(!runner.config.expose().is_empty());
        let error = github.mint(&minted).await.unwrap_err();
        assert_eq!(error.kind, Kind::NameTaken, "{error}");
        assert_eq!(error.operation, "generate-jitconfig");
    }
}

#[tokio::test]
async fn a_runner_of_a_set_is_listed_and_deleted_as_any_other() {
    let service = Service::StandIn(stand_in(ScaleSetMode::Auto).await);
    let github = service.github();
    let request = runner_controller::world::MintRequest {
        scale_set: Some("fuzz-ci".into()),
        ..request(7)
    };
    let minted = github.mint(&request).await.unwrap();
    let listed = github.list().await.unwrap();
    assert_eq!(listed[0].id, minted.id);
    assert!(listed[0].name.starts_with(host().as_str()));
    github.delete(minted.id).await.unwrap();
    assert_eq!(github.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_lost_set_is_known_and_made_anew() {
    let sim = stand_in(ScaleSetMode::Auto).await;
    let service = Service::StandIn(sim);
    let github = service.github();
    let (sets, found, session) = opened(&github).await;
    let Service::StandIn(sim) = &service else {
        panic!()
    };
    assert!(sim.control().lose_scale_set(found.id));
    assert_eq!(
        trouble(sets.open(found.id, "fuzz").await),
        SetTrouble::SetLost
    );
    assert_eq!(trouble(sets.refresh(&session).await), SetTrouble::SetLost);
    let request = runner_controller::world::MintRequest {
        scale_set: Some("fuzz-ci".into()),
        ..request(7)
    };
    let error = github.mint(&request).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    let anew = sets.find(&wanted()).await.unwrap();
    assert_ne!(anew.id, found.id);
    github.mint(&request).await.unwrap();
}

#[tokio::test]
async fn an_outage_passes_and_a_session_without_an_address_is_closed() {
    let sim = stand_in(ScaleSetMode::Auto).await;
    sim.control()
        .change_settings(|settings| settings.scale_sets.empty_queue_url = true);
    let service = Service::StandIn(sim);
    let github = service.github();
    let sets = github.scale_sets();
    let found = sets.find(&wanted()).await.unwrap();
    let error = sets.open(found.id, "fuzz").await.unwrap_err();
    assert_eq!(error.trouble, SetTrouble::Passing(None));
    assert!(error.to_string().contains("no address"), "{error}");
    let Service::StandIn(sim) = &service else {
        panic!()
    };
    sim.control()
        .change_settings(|settings| settings.scale_sets.empty_queue_url = false);
    let unavailable = Fault::Status {
        code: 503,
        body: None,
        headers: std::collections::BTreeMap::new(),
    };
    let rule = FaultRule::on(
        Endpoint::ScaleSet(ScaleSetCall::SetSession),
        None,
        unavailable,
    );
    sim.control().add_faults([rule]);
    let failed = sets.open(found.id, "fuzz").await;
    assert!(matches!(trouble(failed), SetTrouble::Passing(_)));
    sim.control().clear_faults();
    sets.open(found.id, "fuzz").await.unwrap();
}

#[tokio::test]
async fn no_error_contains_a_token() {
    for service in Service::both().await {
        let github = service.github();
        let (sets, found, session) = opened(&github).await;
        assert!(!format!("{session:?}").contains("eyJ"));
        service.evict_session(found.id);
        let error = sets.refresh(&session).await.unwrap_err();
        assert!(!format!("{error:?}").contains("eyJ"));
    }
}
