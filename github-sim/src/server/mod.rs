//! The server: addresses, routes, and faults between a request and its answer.

mod connection;
mod deliver;
mod faulty;
mod routes;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    control::Control,
    options::ServerOptions,
    state::{GitHubState, Hub, StateFile},
};

use connection::{ConnectionHandle, SimListener};

/// Interval between checks for changes that time alone makes: lapsed sessions, removed runners.
const TICK: Duration = Duration::from_millis(20);

/// Failure to start the server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server cannot listen on an address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// Cause, from the system.
        #[source]
        source: io::Error,
    },
    /// The server cannot read or write its state file.
    #[error("cannot keep the state in {}", path.display())]
    State {
        /// The file as configured.
        path: PathBuf,
        /// Cause, from the system or the parser.
        #[source]
        source: io::Error,
    },
    /// The options have no address, no token or no scope.
    #[error("options name no {0}; a server needs at least one")]
    Missing(&'static str),
}

/// The server; see [`Server::start`].
#[derive(Debug)]
pub struct Server;

/// A running server. Dropping it closes every connection.
pub struct ServerHandle {
    control: Control,
    addresses: Vec<SocketAddr>,
    url: String,
    token: String,
    _connections: DropGuard,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Starts to serve on the current tokio runtime. Connections are accepted when this returns.
    pub async fn start(options: ServerOptions) -> Result<ServerHandle, StartError> {
        let token = options
            .tokens
            .first()
            .cloned()
            .ok_or(StartError::Missing("token"))?;
        if options.scopes.is_empty() {
            return Err(StartError::Missing("scope"));
        }
        let mut listeners = vec![];
        let mut addresses = vec![];
        for address in &options.listen {
            let failed = |source| StartError::Listen {
                address: *address,
                source,
            };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let first = addresses.first().ok_or(StartError::Missing("address"))?;
        let url = options
            .public_url
            .unwrap_or_else(|| format!("http://{first}"));
        let url = url.trim_end_matches('/').to_owned();
        let mut state = GitHubState::new(
            options.settings,
            options.tokens,
            options.app,
            options.scopes,
            url.clone(),
        );
        let file = options
            .state
            .map(|path| {
                StateFile::open(&path, &mut state)
                    .map_err(|source| StartError::State { path, source })
            })
            .transpose()?;
        let hub = Arc::new(Hub::new(state, file));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let listener = SimListener {
                listener,
                stop: stop.clone(),
            };
            let router = routes::router(&hub);
            tasks.spawn(async move {
                let service = router.into_make_service_with_connect_info::<ConnectionHandle>();
                // It never returns.
                let _ = axum::serve(listener, service).await;
            });
        }
        tasks.spawn(deliver::run(Arc::clone(&hub), TICK));
        let ticking = Arc::clone(&hub);
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.tick();
            }
        });
        Ok(ServerHandle {
            control: Control::new(hub),
            addresses,
            url,
            token,
            _connections: stop.drop_guard(),
            _tasks: tasks,
        })
    }
}

impl ServerHandle {
    /// Returns the base URL, without a slash at the end, of the REST API and in JIT configs.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the addresses that the server listens on, in the order of the options.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the first accepted token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns the control API as methods.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}
