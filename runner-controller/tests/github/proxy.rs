//! The client behind a strict proxy: `CONNECT` alone, and only with the right credentials.

use std::path::Path;
use std::sync::{Arc, Mutex};

use github_sim::{Server, ServerHandle, ServerOptions};
use runner_controller::config::{GitHubConfig, ProxyConfig};
use runner_controller::github::{GitHub, SetupError, Token};
use runner_controller::world::{Registry, RegistryErrorKind as Kind};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::request;

/// Contents of a file with the right credentials.
pub(super) const CREDENTIALS: &str = "ann:secret\n";
/// `Proxy-Authorization` of these credentials.
const AUTHORIZATION: &str = "Basic YW5uOnNlY3JldA==";
/// Name of a GitHub that only the proxy can reach.
pub(super) const HIDDEN_HOST: &str = "github.hidden.example";
/// Its API without TLS.
const HIDDEN: &str = "http://github.hidden.example:8080";

/// A proxy that connects every allowed request to one server.
pub(super) struct Proxy {
    url: String,
    /// Request lines, in order.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(super) async fn start(server: String) -> Self {
        Self::start_with(server, u64::MAX).await
    }

    /// Starts a proxy that drops a connection after so many bytes from the server.
    async fn start_with(server: String, limit: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server.clone(), limit, Arc::clone(&requests)));
            }
        });
        Self { url, seen }
    }

    /// Returns the configuration of a client that uses it.
    pub(super) fn config(&self, credentials_file: Option<&Path>) -> ProxyConfig {
        ProxyConfig {
            url: self.url.parse().unwrap(),
            no_proxy: Vec::new(),
            credentials_file: credentials_file.map(Path::to_owned),
        }
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(client: TcpStream, server: String, limit: u64, seen: Arc<Mutex<Vec<String>>>) {
    let mut client = BufReader::new(client);
    let mut head: Vec<String> = Vec::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    seen.lock().unwrap().push(head[0].clone());
    let is_allowed = head[0].starts_with(&format!("CONNECT {HIDDEN_HOST}:"));
    let authorization = format!("Proxy-Authorization: {AUTHORIZATION}");
    let refusal = if !is_allowed {
        Some("403 Forbidden")
    } else if !head.contains(&authorization) {
        Some("407 Proxy Authentication Required")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        let answer = format!("HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n");
        let _ = client.write_all(answer.as_bytes()).await;
        return;
    }
    let server = TcpStream::connect(server).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (from_server, mut to_server) = tokio::io::split(server);
    let mut from_server = from_server.take(limit);
    // The first side that ends drops both connections.
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
}

async fn behind() -> (ServerHandle, Proxy) {
    behind_with(u64::MAX).await
}

async fn behind_with(limit: u64) -> (ServerHandle, Proxy) {
    let sim = Server::start(ServerOptions::default()).await.unwrap();
    let address = sim
        .url()
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let proxy = Proxy::start_with(address.to_owned(), limit).await;
    (sim, proxy)
}

fn connect(
    sim: &ServerHandle,
    proxy: &Proxy,
    api_url: &str,
    change: impl FnOnce(&mut GitHubConfig),
) -> Result<GitHub, SetupError> {
    let mut config = GitHubConfig {
        proxy: Some(proxy.config(None)),
        ..super::config_of(api_url)
    };
    change(&mut config);
    GitHub::new(&config, Token::new(sim.token()).unwrap())
}

fn with_credentials(config: &mut GitHubConfig, file: &Path) {
    config.proxy.as_mut().unwrap().credentials_file = Some(file.to_owned());
}

#[tokio::test]
async fn every_request_goes_through_the_proxy() {
    let (sim, proxy) = behind().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy");
    std::fs::write(&file, CREDENTIALS).unwrap();
    let github = connect(&sim, &proxy, HIDDEN, |config| {
        with_credentials(config, &file);
    })
    .unwrap();
    let minted = github.mint(&request(7)).await.unwrap();
    let list = github.list().await.unwrap();
    assert_eq!(list[0].id, minted.id);
    github.delete(minted.id).await.unwrap();
    let seen = proxy.seen();
    assert!(!seen.is_empty());
    for line in seen {
        assert_eq!(line, "CONNECT github.hidden.example:8080 HTTP/1.1");
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_its_credentials_are_not() {
    let (sim, proxy) = behind().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy");
    std::fs::write(&file, "ann:another-secret").unwrap();
    for (api_url, credentials, advice) in [
        (HIDDEN, None, "credentials_file"),
        (HIDDEN, Some(&file), "credentials_file"),
        (
            "http://github.elsewhere.example:8080",
            Some(&file),
            "check github.proxy",
        ),
    ] {
        let github = connect(&sim, &proxy, api_url, |config| {
            if let Some(file) = credentials {
                with_credentials(config, file);
            }
        });
        let error = github.unwrap().list().await.unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
        let text = error.to_string();
        assert!(text.contains(advice), "{text}");
        assert!(!text.contains("another-secret"), "{text}");
    }
}

#[tokio::test]
async fn a_mint_is_not_sent_again_if_a_proxy_cuts_its_answer_off() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy");
    std::fs::write(&file, CREDENTIALS).unwrap();
    // The first is less than the status line, the last has a part of the body.
    for limit in [5, 100, 1500] {
        let (sim, proxy) = behind_with(limit).await;
        let github = connect(&sim, &proxy, HIDDEN, |config| {
            with_credentials(config, &file);
        });
        let error = github.unwrap().mint(&request(7)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{limit}: {error}");
        assert!(error.is_ambiguous(), "{limit}: {error}");
        let has_head = error.to_string().contains("the answer was cut off");
        assert_eq!(has_head, limit == 1500, "{limit}: {error}");
        assert_eq!(proxy.seen().len(), 1, "{limit}: {error}");
        assert_eq!(sim.control().runners().len(), 1, "{limit}: {error}");
    }
}

#[tokio::test]
async fn a_destination_in_no_proxy_is_reached_without_the_proxy() {
    let (sim, proxy) = behind().await;
    let github = connect(&sim, &proxy, sim.url(), |config| {
        config.proxy.as_mut().unwrap().no_proxy = vec!["127.0.0.0/8".into(), "localhost".into()];
    });
    assert!(github.unwrap().list().await.unwrap().is_empty());
    assert_eq!(proxy.seen(), [""; 0]);
}
