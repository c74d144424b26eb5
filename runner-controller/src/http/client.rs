//! Asking the daemon over its Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::status::Status;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read.
const MAX_BYTES: usize = 4 << 20;

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the daemon is not there.
    #[error("no daemon listens on {}; `systemctl status runner-controller` tells why", path.display())]
    NotThere {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The socket is not for this user.
    #[error("{} is not for this user; be root or join the group runner-controller", path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon took the connection and did not answer in time.
    #[error("the daemon did not answer within {} s", TIMEOUT.as_secs())]
    Silent,
    /// The connection broke.
    #[error("the daemon's answer broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It answered with another status than 2xx.
    #[error("the daemon answered {status}: {body}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The body.
        body: String,
    },
}

impl ClientError {
    /// True if there is no daemon to ask.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NotThere { .. })
    }
}

async fn call(socket: &Path, method: Method, path: &str) -> Result<Vec<u8>, ClientError> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| ClientError::Broken(error);
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.to_owned();
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            ClientError::NotAllowed { path }
        } else {
            ClientError::NotThere { path, source }
        }
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.into()))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "runner-controller")
        .body(Body::empty())
        .map_err(|error| broken(error.into()))?;
    let answer = sender
        .send_request(request)
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

async fn bounded(socket: &Path, method: Method, path: &str) -> Result<Vec<u8>, ClientError> {
    tokio::time::timeout(TIMEOUT, call(socket, method, path))
        .await
        .unwrap_or(Err(ClientError::Silent))
}

/// The daemon's status.
pub async fn status(socket: &Path) -> Result<Status, ClientError> {
    let body = bounded(socket, Method::GET, "/status").await?;
    serde_json::from_slice(&body).map_err(|error| ClientError::Broken(error.into()))
}

/// Passes a command: `drain`, `undrain` or `clear`. Returns once the daemon has taken it.
pub async fn command(socket: &Path, command: &str) -> Result<(), ClientError> {
    bounded(socket, Method::POST, &format!("/{command}"))
        .await
        .map(|_| ())
}
