//! A client of the listener: sends a signed delivery as GitHub does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::routes::PATH;
use super::secrets::Secrets;

/// Timeout for an answer, as GitHub's.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of an answer.
const MAX_BYTES: usize = 64 << 10;

/// Answer of the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, which GitHub shows on the page of the delivery.
    pub text: String,
}

/// Failure to send a delivery.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing listens.
    #[error(
        "cannot connect to {address}, the address of webhook.listen; see `systemctl status runner-controller`"
    )]
    Connect {
        /// The address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// No answer came in time.
    #[error("the listener did not answer within {} s", TIMEOUT.as_secs())]
    Silent,
    /// The connection broke.
    #[error("cannot read the listener's answer")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends a delivery that the first secret signs.
///
/// # Errors
/// Fails without an answer. A refusal is an answer.
pub async fn send(
    listen: SocketAddr,
    secrets: &Secrets,
    event: &str,
    id: &str,
    body: Vec<u8>,
) -> Result<Answer, SendError> {
    let sent = deliver(reachable(listen), secrets, event, id, body);
    let sent = tokio::time::timeout(TIMEOUT, sent).await;
    sent.unwrap_or(Err(SendError::Silent))
}

/// Returns the address at which this host reaches a listener of all addresses.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn deliver(
    address: SocketAddr,
    secrets: &Secrets,
    event: &str,
    id: &str,
    body: Vec<u8>,
) -> Result<Answer, SendError> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| SendError::Broken(error);
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| SendError::Connect { address, source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.into()))?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(PATH)
        .header("host", address.to_string())
        .header("user-agent", "GitHub-Hookshot/webhook-test")
        .header("content-type", "application/json")
        .header("x-github-event", event)
        .header("x-github-delivery", id);
    if let Some((name, value)) = secrets.sign(&body) {
        request = request.header(name, value);
    }
    let request = request.body(Body::from(body));
    let request = request.map_err(|error| broken(error.into()))?;
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| broken(error.into()))?;
    let status = answer.status().as_u16();
    let text = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    let text = text.map_err(broken)?.to_bytes();
    Ok(Answer {
        status,
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_all_addresses_is_reached_over_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:9818", "127.0.0.1:9818"),
            ("[::]:9818", "[::1]:9818"),
            ("192.0.2.7:9818", "192.0.2.7:9818"),
        ] {
            let found = reachable(listen.parse().unwrap());
            assert_eq!(found.to_string(), reached);
        }
    }
}
