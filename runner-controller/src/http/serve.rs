//! Connections, each with its bounds: whoever sends slowly, too much or too often is cut off, and
//! keeps nobody else from being served.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;
use tracing::{debug, warn};

use super::access::{Access, ApiToken, Peer};

/// How much a listener takes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// From the connection until its request's head is whole.
    pub head: Duration,
    /// From the connection until its answer was taken.
    pub whole: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            head: Duration::from_secs(5),
            whole: Duration::from_secs(30),
        }
    }
}

/// Ours are well below a kilobyte; no answer is below 8 KiB in hyper.
const HEAD_BYTES: usize = 16 * 1024;
const HEADERS: usize = 64;
/// How long nothing is accepted after that failed: for want of descriptors, most likely.
const BREATH: Duration = Duration::from_secs(1);

/// Where connections come in, and what each may.
trait Door: Send {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Access)>> + Send;
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Access)> {
        let (stream, _) = UnixListener::accept(self).await?;
        let peer = stream.peer_cred()?;
        let access = Access::Peer(Peer {
            uid: peer.uid(),
            gid: peer.gid(),
            pid: peer.pid(),
        });
        Ok((stream, access))
    }
}

impl Door for (TcpListener, Access) {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Access)> {
        let (stream, _) = self.0.accept().await?;
        Ok((stream, self.1.clone()))
    }
}

/// Serves the Unix socket, for ever.
pub async fn unix(listener: UnixListener, router: Router, limits: Limits) {
    serve(listener, router, limits).await;
}

/// Serves an address, for ever: everybody may look, and who shows the token may change.
pub async fn tcp(listener: TcpListener, router: Router, token: Option<ApiToken>, limits: Limits) {
    let access = token.map_or(Access::Look, Access::Token);
    serve((listener, access), router, limits).await;
}

async fn serve(door: impl Door, router: Router, limits: Limits) {
    // Each listener has its own: who fills one does not close another.
    let room = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match door.accept().await {
            Ok((stream, access)) => {
                tokio::spawn(one(stream, access, router.clone(), limits, permit));
            }
            Err(error) => {
                warn!(%error, "a connection to the API could not be taken");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// One connection, one request, one answer.
async fn one<S>(
    stream: S,
    access: Access,
    router: Router,
    limits: Limits,
    _permit: OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(access.clone());
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits.whole, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection to the API broke off"),
        Err(_) => debug!("a connection to the API took too long"),
    }
}
