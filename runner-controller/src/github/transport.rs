//! HTTP/1.1 to GitHub: connections, TLS, certificate authorities.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Bytes};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use octocrab::OctoBody;
use tower::util::BoxCloneService;
use tower::{BoxError, Service, ServiceExt as _};

use super::proxy;
use super::setup::SetupError;
use crate::config::GitHubConfig;

/// Maximum number of idle connections. Mints go four at a time, a list and a delete beside them.
const MAX_IDLE_CONNECTIONS: usize = 6;

/// Time after which an idle connection is closed, before a server or a router on the way may do so.
/// A request that meets the end of its connection may or may not have been carried out.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

/// Maximum size of an answer. A page of 100 runners with many labels has some 200 KiB.
pub(super) const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Any service that carries requests to GitHub. The body of an answer that is too large ends with
/// [`LengthLimitError`](http_body_util::LengthLimitError).
pub(super) type Transport =
    BoxCloneService<Request<OctoBody>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

/// Returns the transport over a service.
pub(super) fn over<S, B>(service: S) -> Transport
where
    S: Service<Request<OctoBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    service
        .map_response(|response: Response<B>| {
            response.map(|body| Limited::new(body, MAX_ANSWER_BYTES).boxed_unsync())
        })
        .map_err(Into::into)
        .boxed_clone()
}

/// Returns the transport over the network, through the proxy if there is one. An `https` address is reached
/// over TLS only, at a server that the certificate authorities vouch for.
///
/// # Errors
/// There are no certificate authorities, or a file of the configuration cannot be used.
pub(super) fn network(config: &GitHubConfig) -> Result<Transport, SetupError> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(config.timeout));
    connector.set_nodelay(true);
    let tunnel = proxy::tunnel(config, &connector)?;
    if config.api_url.scheme() == "http" {
        return Ok(match tunnel {
            Some(tunnel) => client(tunnel),
            None => client(connector),
        });
    }
    let over_tls = HttpsConnectorBuilder::new()
        .with_tls_config(proxy::tls(config)?)
        .https_only()
        .enable_http1();
    Ok(if let Some(tunnel) = tunnel {
        client(over_tls.wrap_connector(tunnel))
    } else {
        connector.enforce_http(false);
        client(over_tls.wrap_connector(connector))
    })
}

/// hyper sends a request again only if it could not begin to send a byte of it.
fn client<C>(connector: C) -> Transport
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_timer(TokioTimer::new())
        .build::<C, OctoBody>(connector);
    over(client)
}
