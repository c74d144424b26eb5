//! Deliveries of the stand-in for GitHub, over a real connection, to real records.

use std::time::Duration;

use github_sim::{
    HookSpec, HookTarget, JobSpec, Server, ServerHandle, ServerOptions, WebhookFault,
    WebhookFaultRule,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::config::HistoryConfig;
use crate::http;
use crate::pool::{JobStage, KnownJob, ScopeId};
use crate::status::DeliveryOutcome;
use crate::store::Store;
use crate::world::Event;

const SECRET: &str = "It's a Secret to Everybody";
const PATIENCE: Duration = Duration::from_secs(30);

/// The stand-in, and a listener for its deliveries.
struct Hooked {
    sim: ServerHandle,
    store: Store,
    events: mpsc::Receiver<Event>,
    counts: Counts,
    _dir: tempfile::TempDir,
}

impl Hooked {
    /// Starts both. The ping of the new hook has arrived.
    async fn start(rules: impl IntoIterator<Item = WebhookFaultRule>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.db");
        let (store, warning) =
            Store::open(&path, "host".parse().unwrap(), HistoryConfig::default()).unwrap();
        assert_eq!(warning, None);
        let (sender, events) = mpsc::channel(64);
        let counts = Counts::default();
        let router = router(Receiver {
            secrets: Secrets::of(&[SECRET.as_bytes()]),
            scopes: vec![ScopeId::new("https://api.github.com", "acme/widgets")],
            inbox: store.clone(),
            events: sender,
            counts: counts.clone(),
            hooks: watch::Sender::default(),
            unix_ms: crate::clock::unix_ms,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhook", listener.local_addr().unwrap());
        tokio::spawn(http::serve_tcp(listener, router, None, limits()));
        let sim = Server::start(ServerOptions::default()).await.unwrap();
        let scope = HookTarget::Scope("acme/widgets".parse().unwrap());
        sim.control().add_hook(HookSpec::new(scope, &url, SECRET));
        let hooked = Self {
            sim,
            store,
            events,
            counts,
            _dir: dir,
        };
        hooked.wait(&[(DeliveryOutcome::Ping, 1)]).await;
        hooked.sim.control().add_webhook_faults(rules);
        hooked
    }

    fn add_job(&self, name: &str) -> u64 {
        let job = JobSpec::new(name, &["self-hosted", "linux"], "true");
        self.sim.control().add_job(job)
    }

    /// Waits for exactly these numbers of deliveries.
    async fn wait(&self, outcomes: &[(DeliveryOutcome, u64)]) {
        let mut counts = self.counts.subscribe();
        let arrived = counts.wait_for(|status| {
            let found = outcomes.iter().map(|(outcome, _)| {
                let count = status.deliveries.get(outcome).copied();
                (*outcome, count.unwrap_or_default())
            });
            found.eq(outcomes.iter().copied())
        });
        let arrived = tokio::time::timeout(PATIENCE, arrived).await;
        drop(arrived.unwrap_or_else(|_| panic!("{outcomes:?}: {:?}", self.counts)));
    }

    async fn jobs(&self) -> Vec<KnownJob> {
        self.store.jobs().await.unwrap()
    }
}

fn on(action: &str, fault: WebhookFault) -> [WebhookFaultRule; 1] {
    [WebhookFaultRule::on(action, 1, fault)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_ends_in_the_queue_is_on_record_from_its_queue_to_its_end() {
    let mut hooked = Hooked::start([]).await;
    let id = hooked.add_job("build");
    hooked.wait(&[(DeliveryOutcome::Accepted, 1)]).await;
    let jobs = hooked.jobs().await;
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0].stage(), JobStage::Queued);
    assert_eq!(jobs[0].description().name, "build");
    let told = hooked.events.recv().await.unwrap();
    assert_eq!(told, Event::Job(Box::new(jobs[0].clone())));
    assert!(hooked.sim.control().cancel_job(id));
    hooked.wait(&[(DeliveryOutcome::Accepted, 2)]).await;
    assert_eq!(hooked.jobs().await[0].stage(), JobStage::Ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doubled_delivery_changes_nothing() {
    let hooked = Hooked::start(on("queued", WebhookFault::Doubled)).await;
    hooked.add_job("build");
    let both = [
        (DeliveryOutcome::Accepted, 1),
        (DeliveryOutcome::Duplicate, 1),
    ];
    hooked.wait(&both).await;
    assert_eq!(hooked.jobs().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_delivery_changes_nothing() {
    for fault in [WebhookFault::Forged, WebhookFault::WrongSecret] {
        let hooked = Hooked::start(on("queued", fault)).await;
        hooked.add_job("build");
        hooked.wait(&[(DeliveryOutcome::WrongSignature, 1)]).await;
        assert_eq!(hooked.jobs().await, [], "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_arrives_before_the_queue_is_an_end() {
    let hooked = Hooked::start(on("queued", WebhookFault::Swapped)).await;
    let id = hooked.add_job("build");
    assert!(hooked.sim.control().cancel_job(id));
    hooked.wait(&[(DeliveryOutcome::Accepted, 2)]).await;
    let jobs = hooked.jobs().await;
    assert_eq!((jobs.len(), jobs[0].stage()), (1, JobStage::Ended));
}
