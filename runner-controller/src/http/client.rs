//! Client of the API on its Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::status::{HistoryPage, HistoryQuery, Status};

/// Timeout for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of an answer.
const MAX_BYTES: usize = 4 << 20;

/// Failure of a request to the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens on the socket.
    #[error("no daemon listens on {}; see `systemctl status runner-controller`", path.display())]
    NotThere {
        /// Path of the socket.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// This user may not connect to the socket.
    #[error("cannot connect to {}: permission denied; be root or join the group runner-controller", path.display())]
    NotAllowed {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The daemon accepted the connection and did not answer in time.
    #[error("the daemon did not answer within {} s", TIMEOUT.as_secs())]
    Silent,
    /// The connection broke, or the answer was not understood.
    #[error("cannot read the daemon's answer")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The daemon refused the request.
    #[error("the daemon answered {status}: {body}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Body of the answer: the reason.
        body: String,
    },
}

impl ClientError {
    /// Returns true if no daemon is running.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NotThere { .. })
    }
}

async fn send(socket: &Path, method: Method, path: &str) -> Result<Vec<u8>, ClientError> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| ClientError::Broken(error);
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.to_owned();
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            ClientError::NotAllowed { path }
        } else {
            ClientError::NotThere { path, source }
        }
    })?;
    // One request per connection needs neither a pool nor a URL with a host, so hyper alone is enough.
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.into()))?;
    tokio::spawn(connection);
    let message = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "runner-controller")
        .body(Body::empty())
        .map_err(|error| broken(error.into()))?;
    let answer = sender
        .send_request(message)
        .await
        .map_err(|error| broken(error.into()))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_BYTES)
        .collect()
        .await
        .map_err(broken)?
        .to_bytes()
        .to_vec();
    if status.is_success() {
        Ok(body)
    } else {
        Err(ClientError::Refused {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

async fn request(socket: &Path, method: Method, path: &str) -> Result<Vec<u8>, ClientError> {
    tokio::time::timeout(TIMEOUT, send(socket, method, path))
        .await
        .unwrap_or(Err(ClientError::Silent))
}

/// Returns the daemon's status.
pub async fn status(socket: &Path) -> Result<Status, ClientError> {
    let body = request(socket, Method::GET, "/status").await?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.into()))
}

/// Returns the runners that ended for which a question asks.
pub async fn history(socket: &Path, query: &HistoryQuery) -> Result<HistoryPage, ClientError> {
    let query = serde_urlencoded::to_string(query);
    let query = query.map_err(|error| ClientError::Broken(error.into()))?;
    let body = request(socket, Method::GET, &format!("/history?{query}")).await?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.into()))
}

/// Sends a command: `drain`, `undrain`, `clear` or `refill`, with its query. Returns once the daemon has accepted it.
pub async fn command(socket: &Path, command: &str) -> Result<(), ClientError> {
    request(socket, Method::POST, &format!("/{command}"))
        .await
        .map(|_| ())
}
