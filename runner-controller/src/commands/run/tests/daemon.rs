//! A daemon over the simulated host, assembled as `run` assembles it, with a thread for the loop.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use nix::unistd::{Pid, gettid};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::github::Server;
use super::host::Host;
use super::{Size, meter};
use crate::clock;
use crate::config::{self, Config};
use crate::controller::{Client, Command, Controller, Environment, Request};
use crate::github::{GitHub, Token};
use crate::http::{self, ListenerLimits};
use crate::pool::{Demand, KnownJob};
use crate::status::Status;
use crate::store::Store;
use crate::world::Event;
use crate::{commands, readings};

/// Boots at once in a pool, as on a host with two cores.
const BOOTS_AT_ONCE: u16 = 4;

/// Returns the configuration of a host whose pools have 50 slots each. Nothing ends by its age.
pub(super) fn config(size: Size, server: &Server, dir: &Path, reconcile: Duration) -> Config {
    let text = format!(
        "host = \"bench\"\n[github]\nurl = \"https://github.com/acme/widgets\"\ntoken_file = \"/t\"\n\
         api_url = \"http://{}\"\nallow_plain_http = true\n\
         [network]\nblock = \"10.200.0.0/16\"\nresolvers = [\"9.9.9.9\"]\n",
        server.address
    );
    let pool = |pool: usize| {
        let (offset, idle, spare, max) = (pool * Size::SLOTS, Size::IDLE, Size::SPARE, Size::SLOTS);
        format!(
            "[pools.p{pool}]\noffset = {offset}\nlabels = [\"self-hosted\", \"debian-13\", \"p{pool}\"]\n\
             min_idle = {idle}\nmin_spare = {spare}\nmax_runners = {max}\n\
             image = {{ kind = \"directory\", path = \"/i\" }}\n"
        )
    };
    let pools: String = (0..size.pools).map(pool).collect();
    let mut config = config::parse(Path::new("bench"), &(text + &pools)).unwrap();
    config.scopes[0].mints_per_minute = 100_000;
    config.state_dir = dir.to_owned();
    config.reconcile = reconcile;
    let day = Duration::from_hours(24);
    for (number, pool) in config.pools.iter_mut().enumerate() {
        let times = &mut pool.timeouts;
        for time in [
            &mut times.boot,
            &mut times.registration,
            &mut times.spare_age,
            &mut times.idle_age,
        ] {
            *time = day;
        }
        if number % 4 == 0 {
            pool.demand = Demand::Webhook;
        }
    }
    config
}

/// A daemon that runs.
pub(super) struct Daemon {
    pub(super) status: watch::Receiver<Status>,
    pub(super) router: Router,
    /// The thread of its loop.
    pub(super) thread: Pid,
    requests: mpsc::Sender<Request>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Daemon {
    /// Starts a daemon with the jobs that are on record. It serves its API on `api` in its state directory.
    pub(super) async fn start(config: Config, host: Host, jobs: Vec<KnownJob>) -> Self {
        let (event, events) = mpsc::channel(1024);
        host.connect(event);
        let (show, status) = watch::channel(Status::default());
        let (requests, asked) = mpsc::channel(16);
        let (stop, stopped) = oneshot::channel();
        let (started, start) = oneshot::channel();
        let parts = Parts {
            config: Arc::new(config),
            host,
            jobs,
            status: (show, status.clone()),
            events,
            requests: (requests.clone(), asked),
        };
        let ended = std::thread::spawn(move || {
            commands::common::block_on(parts.run(started, stopped)).unwrap();
        });
        let (thread, router) = start.await.unwrap();
        Self {
            status,
            router,
            thread,
            requests,
            stop,
            ended,
        }
    }

    /// Waits until the loop has handled all events.
    pub(super) async fn ping(&self) {
        let (reply, answer) = oneshot::channel();
        self.requests.send((Command::Ping, reply)).await.unwrap();
        answer.await.unwrap();
    }

    /// Returns the processor time of its loop so far.
    pub(super) fn time(&self) -> Duration {
        meter::thread_time(self.thread)
    }

    pub(super) fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.join().unwrap();
    }
}

struct Parts {
    config: Arc<Config>,
    host: Host,
    jobs: Vec<KnownJob>,
    status: (watch::Sender<Status>, watch::Receiver<Status>),
    events: mpsc::Receiver<Event>,
    requests: (mpsc::Sender<Request>, mpsc::Receiver<Request>),
}

impl Parts {
    async fn run(
        mut self,
        started: oneshot::Sender<(Pid, Router)>,
        stopped: oneshot::Receiver<()>,
    ) {
        let config = Arc::clone(&self.config);
        let path = config.state_dir.join("state.db");
        let (store, _) = Store::open(&path, config.host.clone(), config.history).unwrap();
        let scope = &config.scopes[0];
        let client = Client {
            registry: Arc::new(GitHub::new(scope, Token::new("ghp_bench").unwrap()).unwrap()),
            account: scope.account(),
        };
        let registries = BTreeMap::from([(scope.scope_id(), client)]);
        let environment = Environment {
            machines: Arc::new(self.host.clone()),
            calls: super::super::counter(&config, &registries),
            registries,
            former: BTreeMap::new(),
            handshake: Arc::new(self.host),
            records: Arc::new(store.clone()),
            now: clock::now,
            unix_ms: clock::unix_ms,
            random: rand::random,
            boot_id: clock::boot_id(),
            explain_exit: |_| None,
            notes: Vec::new(),
            jobs: Some(self.jobs),
            job_started: watch::Sender::default(),
            capacities: BTreeMap::new(),
            traces: None,
        };
        let (show, status) = self.status;
        let mut controller = Controller::new(Arc::clone(&config), environment, BOOTS_AT_ONCE, show);
        controller.adopt(&mut self.events).await.unwrap();
        // The readings of this machine must not close admission, so nothing reads them. They cost the same.
        let (read, unread) = mpsc::channel(1024);
        let read_config = Arc::clone(&config);
        std::thread::spawn(move || readings::watch(&read_config, &read));
        let (requests, mut asked) = self.requests;
        let router = http::router(status, requests, super::super::read_history(store.clone()));
        let api = config.state_dir.join("api");
        let _ = std::fs::remove_file(&api);
        let socket = UnixListener::bind(api).unwrap();
        let serving = http::serve_unix(socket, router.clone(), ListenerLimits::default());
        let serving = tokio::spawn(serving);
        assert!(started.send((gettid(), router)).is_ok());
        let stop = async {
            let _ = stopped.await;
        };
        controller.run(self.events, &mut asked, stop).await;
        serving.abort();
        drop(unread);
        store.close_file().await;
    }
}
