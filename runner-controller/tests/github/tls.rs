//! The client over TLS, at servers whose certificates a private authority signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use github_sim::{Server, ServerHandle, ServerOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use runner_controller::config::GitHubConfig;
use runner_controller::github::{GitHub, Token};
use runner_controller::world::{Registry, RegistryError, RegistryErrorKind as Kind};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::proxy::{CREDENTIALS, HIDDEN_HOST, Proxy};
use super::request;

/// Name of a server that the certificates of these tests are not for.
const ELSEWHERE: &str = "github.elsewhere.example";

/// A private certificate authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns the settings of a server with a certificate for these names and addresses.
    fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.server_with(&CertificateParams::new(names).unwrap())
    }

    fn server_with(&self, params: &CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.unwrap())
    }
}

/// The stand-in behind an address that speaks TLS alone.
struct TlsServer {
    sim: ServerHandle,
    port: u16,
}

impl TlsServer {
    async fn start(config: Arc<ServerConfig>) -> Self {
        let sim = Server::start(ServerOptions::default()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acceptor, behind) = (TlsAcceptor::from(config), sim.addresses()[0]);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that refuses the certificate ends the handshake.
                    let Ok(mut client) = acceptor.accept(client).await else {
                        return;
                    };
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { sim, port }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn connect(&self, config: &GitHubConfig) -> GitHub {
        GitHub::new(config, Token::new(self.sim.token()).unwrap()).unwrap()
    }
}

fn config_of(api_url: &str, ca_file: Option<&Path>) -> GitHubConfig {
    GitHubConfig {
        ca_file: ca_file.map(Path::to_owned),
        ..super::config_of(api_url)
    }
}

/// A file for one test, such as one with the certificate of an authority.
struct TestFile {
    _dir: TempDir,
    path: PathBuf,
}

impl TestFile {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, text).unwrap();
        Self { _dir: dir, path }
    }
}

/// Mints a runner, finds it in the list, and deletes it.
async fn work(github: &GitHub) -> Result<(), RegistryError> {
    let minted = github.mint(&request(7)).await?;
    assert_eq!(github.list().await?[0].id, minted.id);
    github.delete(minted.id).await.map(drop)
}

async fn refusal(github: &GitHub) -> String {
    let error = github.list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_server_of_a_private_authority_is_reached_with_its_ca_file_only() {
    let authority = Authority::new("Acme private CA");
    let server = TlsServer::start(authority.server(&["127.0.0.1"])).await;
    let url = server.url();
    let (own, other) = (
        TestFile::new(&authority.0.pem()),
        TestFile::new(&Authority::new("Another CA").0.pem()),
    );

    for ca_file in [None, Some(other.path.as_path())] {
        let text = refusal(&server.connect(&config_of(&url, ca_file))).await;
        assert!(text.contains("UnknownIssuer"), "{text}");
        assert!(
            text.contains("name its file in github.ca_file"),
            "no advice: {text}"
        );
    }
    assert_eq!(server.sim.control().runners().len(), 0);

    let github = server.connect(&config_of(&url, Some(&own.path)));
    work(&github).await.unwrap();
}

#[tokio::test]
async fn a_file_may_have_several_authorities_and_their_descriptions() {
    let authority = Authority::new("Acme private CA");
    let server = TlsServer::start(authority.server(&["127.0.0.1"])).await;
    let other = Authority::new("Another CA").0.pem();
    let file = TestFile::new(&format!(
        "# Another CA\n{other}\n# Acme\n{}",
        authority.0.pem()
    ));
    let github = server.connect(&config_of(&server.url(), Some(&file.path)));
    work(&github).await.unwrap();
}

#[tokio::test]
async fn an_authority_does_not_vouch_for_other_names() {
    let authority = Authority::new("Acme private CA");
    let server = TlsServer::start(authority.server(&[ELSEWHERE])).await;
    let file = TestFile::new(&authority.0.pem());
    let text = refusal(&server.connect(&config_of(&server.url(), Some(&file.path)))).await;
    assert!(text.contains("not valid for name"), "{text}");
    assert!(text.contains("check github.api_url"), "no advice: {text}");
    assert!(!text.contains("ca_file"), "wrong advice: {text}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let authority = Authority::new("Acme private CA");
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.not_after = date_time_ymd(2001, 1, 1);
    let server = TlsServer::start(authority.server_with(&params)).await;
    let file = TestFile::new(&authority.0.pem());
    let text = refusal(&server.connect(&config_of(&server.url(), Some(&file.path)))).await;
    assert!(text.contains("certificate expired"), "{text}");
    assert!(text.contains("this host's clock"), "no advice: {text}");
}

#[tokio::test]
async fn tls_through_a_proxy_ends_at_a_server_that_the_ca_file_vouches_for() {
    let authority = Authority::new("Acme private CA");
    let file = TestFile::new(&authority.0.pem());
    let hidden = format!("https://{HIDDEN_HOST}");
    let start = async |names: &[&str]| {
        let server = TlsServer::start(authority.server(names)).await;
        let proxy = Proxy::start(format!("127.0.0.1:{}", server.port)).await;
        (server, proxy)
    };
    let credentials = TestFile::new(CREDENTIALS);
    let config = |proxy: &Proxy, ca_file| GitHubConfig {
        proxy: Some(proxy.config(Some(&credentials.path))),
        ..config_of(&hidden, ca_file)
    };

    let (server, proxy) = start(&[HIDDEN_HOST]).await;
    let github = server.connect(&config(&proxy, None));
    let text = refusal(&github).await;
    assert!(text.contains("github.ca_file"), "no advice: {text}");

    let github = server.connect(&config(&proxy, Some(&file.path)));
    work(&github).await.unwrap();
    let seen = proxy.seen();
    assert!(seen.len() >= 2, "{seen:?}");
    for line in seen {
        assert_eq!(line, format!("CONNECT {HIDDEN_HOST}:443 HTTP/1.1"));
    }

    // A proxy that connects the client to another server is found out.
    let (server, proxy) = start(&[ELSEWHERE]).await;
    let github = server.connect(&config(&proxy, Some(&file.path)));
    let text = refusal(&github).await;
    assert!(text.contains("not valid for name"), "{text}");
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_named() {
    let server = TlsServer::start(Authority::new("Acme private CA").server(&["127.0.0.1"])).await;
    let key = KeyPair::generate().unwrap().serialize_pem();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut_off = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for (text, reason) in [
        (Some(""), "it has no certificate in PEM"),
        (Some("0\u{1}binary"), "it has no certificate in PEM"),
        (Some(key.as_str()), "it has no certificate in PEM"),
        (Some(broken), "certificate"),
        (Some(cut_off), "section"),
        (None, "No such file"),
    ] {
        let file = TestFile::new(text.unwrap_or_default());
        if text.is_none() {
            std::fs::remove_file(&file.path).unwrap();
        }
        let config = config_of(&server.url(), Some(&file.path));
        let token = Token::new(server.sim.token()).unwrap();
        let error = GitHub::new(&config, token).err().unwrap();
        let shown = format!("{:#}", anyhow::Error::from(error));
        for part in ["github.ca_file", &file.path.display().to_string(), reason] {
            assert!(shown.contains(part), "{part:?} is not in {shown}");
        }
    }
}
