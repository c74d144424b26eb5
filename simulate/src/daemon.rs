//! One daemon's life: the real controller and the real GitHub client, assembled as `run` does it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runner_controller::config::Config;
use runner_controller::controller::{Controller, Environment, Request};
use runner_controller::github::{GitHub, Token};
use runner_controller::status::Status;
use runner_controller::world::Event;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::disk::File;
use crate::host::Systemd;
use crate::sockets::Sockets;
use crate::wire::Wire;
use crate::world::{Link, World};

/// As in `run`.
const EVENTS: usize = 1024;

/// A daemon that is to be started.
pub struct Start {
    /// The world.
    pub world: World,
    /// Which daemon of the history.
    pub incarnation: u64,
    /// The configuration it read.
    pub config: Arc<Config>,
    /// Operators' requests.
    pub requests: mpsc::Receiver<Request>,
    /// SIGTERM.
    pub stop: oneshot::Receiver<()>,
    /// What it shows.
    pub status: watch::Sender<Status>,
}

/// Runs until it is told to stop, or cannot take over what runs.
pub async fn run(start: Start) {
    let Start {
        world,
        incarnation,
        config,
        mut requests,
        stop,
        status,
    } = start;
    let (event, mut events) = mpsc::channel::<Event>(EVENTS);
    let Ok(github) = Token::new("ghp_simulated").map(|token| {
        let wire = Wire {
            world: world.clone(),
            incarnation,
        };
        GitHub::over(&config.github, token, wire)
    }) else {
        return;
    };
    let Ok(github) = github else { return };
    let boot_id = {
        let mut w = world.lock();
        w.daemon = Some(Link {
            incarnation,
            events: event,
            config: Arc::clone(&config),
        });
        w.forget_signals();
        w.open_sockets();
        w.tell_firewall();
        w.tell_readings();
        w.host.boot_id()
    };
    let environment = Environment {
        machines: Arc::new(Systemd {
            world: world.clone(),
        }),
        registry: Arc::new(github),
        handshake: Arc::new(Sockets {
            world: world.clone(),
            incarnation,
        }),
        records: Arc::new(File { world, incarnation }),
        now: clock::now,
        unix_ms: clock::unix_ms,
        random: clock::random,
        boot_id,
        calls: Box::new(BTreeMap::new),
        explain_exit: |_| None,
    };
    let mut controller = Controller::new(config, environment, 2, status);
    if controller.adopt(&mut events).await.is_err() {
        return;
    }
    let stopped = async {
        let _ = stop.await;
    };
    controller.run(events, &mut requests, stopped).await;
    // What it opened last is on its way to systemd.
    tokio::time::sleep(Duration::from_millis(3)).await;
}
