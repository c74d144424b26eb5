//! The exporter over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use traces::Exporter;

use crate::runners::runner;
use crate::standin::{Collector, counted, settings};

/// A listener that takes connections over TLS, and drops all others.
struct OverTls(TcpListener, TlsAcceptor);

impl Listener for OverTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.0.accept().await.unwrap();
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// Starts a collector behind TLS. Returns its endpoint and its certificate.
async fn start() -> (Collector, String, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let collector = Collector::default();
    collector.serve(OverTls(listener, TlsAcceptor::from(Arc::new(config))));
    let endpoint = format!("https://localhost:{port}");
    (collector, endpoint, cert.der().clone())
}

#[tokio::test]
async fn a_collector_with_a_known_certificate_gets_the_spans_over_tls() {
    let (collector, endpoint, certificate) = start().await;
    let mut settings = settings(&endpoint);
    settings.authorities = vec![certificate];
    let exporter = Exporter::start(settings).unwrap();
    exporter.add(runner(1));
    assert_eq!(exporter.close(Duration::from_mins(1)).await.sent, 1);
    assert_eq!(collector.spans().len(), 1);
}

#[tokio::test]
async fn a_collector_with_an_unknown_certificate_gets_nothing() {
    let (collector, endpoint, _) = start().await;
    let (_, _, other) = start().await;
    let mut settings = settings(&endpoint);
    settings.authorities = vec![other];
    let exporter = Exporter::start(settings).unwrap();
    exporter.add(runner(1));
    let counts = counted(&exporter, |counts| counts.error.is_some()).await;
    let error = counts.error.unwrap();
    assert!(error.contains("certificate"), "{error}");
    assert!(collector.requests().is_empty());
}
