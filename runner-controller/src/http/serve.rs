//! Servers of the API, one for each listener, with a bound on everything that a client can take.
//!
//! `axum::serve` takes no options and points to hyper for them (axum 0.8.9, `src/serve/mod.rs`). It
//! sets no timer, so a request's head may take for ever. It keeps connections alive, buffers about
//! 400 KiB of a head, and spawns a task for each connection. No tower layer can bound these, because
//! a layer sees a request only after its head is whole. So axum's [`Listener`] accepts connections,
//! which includes its log and its retries, and hyper serves them, as in axum's own example
//! `serve-with-hyper`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tower::Layer;
use tracing::{debug, warn};

use super::access::{Access, ApiToken, Peer};

/// Bounds of one listener.
#[derive(Debug, Clone, Copy)]
pub struct ListenerLimits {
    /// Maximum number of connections at once. Further ones wait in the listener's queue.
    pub connections: usize,
    /// Timeout for a request's head, from the start of its connection.
    pub head: Duration,
    /// Timeout for a whole connection, until the client has taken the answer.
    pub whole: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 32,
            head: Duration::from_secs(5),
            whole: Duration::from_secs(30),
        }
    }
}

/// Maximum size of a request's head. Our clients send less than a kilobyte; hyper takes no bound
/// below 8 KiB.
const HEAD_BYTES: usize = 16 * 1024;
/// Maximum number of header lines.
const HEADERS: usize = 64;

/// Serves the Unix socket for ever. The kernel says who a client is.
pub async fn serve_unix(listener: UnixListener, router: Router, limits: ListenerLimits) {
    serve(listener, router, limits, peer).await;
}

/// Serves a TCP address for ever. Every client may read; a client that shows the token may change
/// something.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    token: Option<ApiToken>,
    limits: ListenerLimits,
) {
    let access = token.map_or(Access::ReadOnly, Access::Token);
    serve(listener, router, limits, |_| Ok(access.clone())).await;
}

fn peer(stream: &UnixStream) -> io::Result<Access> {
    let peer = stream.peer_cred()?;
    Ok(Access::Peer(Peer {
        uid: peer.uid(),
        gid: peer.gid(),
        pid: peer.pid(),
    }))
}

/// Serves a listener whose connections get the access that `access` finds for them.
async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    limits: ListenerLimits,
    access: impl Fn(&L::Io) -> io::Result<Access>,
) {
    // Each listener has its own permits: a client that takes them all keeps only this one busy.
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let (stream, _) = listener.accept().await;
        let access = match access(&stream) {
            Ok(access) => access,
            Err(error) => {
                warn!(%error, "cannot read the credentials of an API client: {error}");
                continue;
            }
        };
        let service = TowerToHyperService::new(Extension(access).layer(router.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            match tokio::time::timeout(limits.whole, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "API connection broke: {error}"),
                Err(_) => debug!(timeout = ?limits.whole, "API connection took too long"),
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests;
