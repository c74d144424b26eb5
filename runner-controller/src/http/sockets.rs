//! The API over real sockets: access, and answers to hostile clients.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::checks::no_history;
use super::*;
use crate::controller::Request;
use crate::status::Status;

const TOKEN: &str = "a-token-for-these-tests-alone";

/// A served TCP address with short timeouts, and a controller behind it.
struct Served {
    address: SocketAddr,
    commands: JoinHandle<Vec<String>>,
    stop: oneshot::Sender<()>,
    _status: watch::Sender<Status>,
}

fn short_limits() -> ListenerLimits {
    ListenerLimits {
        connections: 4,
        head: Duration::from_secs(1),
        whole: Duration::from_secs(5),
    }
}

/// Accepts every command, and returns all of them once stopped.
fn controller(
    mut requests: mpsc::Receiver<Request>,
    mut stopped: oneshot::Receiver<()>,
) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut commands = Vec::new();
        loop {
            tokio::select! {
                biased;
                Some((command, reply)) = requests.recv() => {
                    commands.push(format!("{command:?}"));
                    let _ = reply.send(());
                }
                _ = &mut stopped => return commands,
            }
        }
    })
}

impl Served {
    async fn start(token: Option<&str>) -> Self {
        let (status, show) = watch::channel(Status::default());
        let (requests, received) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = token.map(|token| {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("token");
            std::fs::write(&file, token).unwrap();
            let mut config = crate::config::testing::config();
            config.api_token_file = Some(file);
            ApiToken::load(&config).unwrap().unwrap()
        });
        tokio::spawn(serve::serve_tcp(
            listener,
            router(show, requests, no_history()),
            token,
            short_limits(),
        ));
        Self {
            address,
            commands: controller(received, stopped),
            stop,
            _status: status,
        }
    }

    /// Sends bytes and returns the status and text of the answer. Without an answer the status is 0.
    async fn send(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        talk(&mut stream, bytes).await
    }

    async fn request(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        self.send(head.as_bytes()).await
    }

    /// Returns the commands that reached the controller.
    async fn commands(self) -> Vec<String> {
        self.stop.send(()).unwrap();
        self.commands.await.unwrap()
    }
}

async fn talk(
    stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin),
    bytes: &[u8],
) -> (u16, String) {
    // The server may close the connection before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_default(), answer)
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn tcp_is_read_only_without_a_token() {
    let served = Served::start(None).await;
    assert_eq!(served.request("GET", "/status", "").await.0, 200);
    for headers in ["", &bearer(TOKEN), &bearer("")] {
        let (status, said) = served.request("POST", "/drain", headers).await;
        assert_eq!(status, 403, "{said}");
        assert!(said.contains("api_token_file"), "{said}");
    }
    assert_eq!(served.commands().await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_command_over_tcp_needs_the_token() {
    let served = Served::start(Some(TOKEN)).await;
    let twice = format!("{}{}", bearer(TOKEN), bearer(TOKEN));
    for headers in ["", &bearer("wrong"), &bearer(""), &twice] {
        let (status, said) = served.request("POST", "/drain", headers).await;
        assert_eq!(status, 401, "{said}");
        assert!(
            said.to_lowercase().contains("www-authenticate: bearer"),
            "{said}"
        );
        assert!(!said.contains(TOKEN), "{said}");
    }
    let path = format!("/drain?access_token={TOKEN}");
    assert_eq!(served.request("POST", &path, "").await.0, 401);
    assert_eq!(
        served.request("POST", "/undrain", &bearer(TOKEN)).await.0,
        202
    );
    assert_eq!(served.request("GET", "/health", "").await.0, 200);
    assert_eq!(served.commands().await, ["Undrain"]);
}

#[tokio::test]
async fn only_a_post_to_a_commands_exact_path_is_a_command() {
    let served = Served::start(Some(TOKEN)).await;
    let token = bearer(TOKEN);
    for path in ["/drain", "/undrain", "/clear", "/refill"] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let (status, said) = served.request(method, path, &token).await;
            assert_eq!(status, 405, "{method} {path}: {said}");
        }
    }
    for path in ["/", "/events", "/status", "/health", "/metrics"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            assert_eq!(
                served.request(method, path, &token).await.0,
                405,
                "{method} {path}"
            );
        }
    }
    for path in [
        "/drain/",
        "//drain",
        "/%64rain/x",
        "/status/../drain",
        "/ping",
    ] {
        assert_eq!(served.request("POST", path, &token).await.0, 404, "{path}");
    }
    // A header does not change the method.
    let overridden = format!("{token}x-http-method-override: POST\r\n");
    assert_eq!(served.request("GET", "/drain", &overridden).await.0, 405);
    assert_eq!(served.commands().await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_browser_sends_no_command_even_with_the_token() {
    let served = Served::start(Some(TOKEN)).await;
    let token = bearer(TOKEN);
    for origin in ["null", "https://evil.example", "http://localhost:8080"] {
        let headers = format!("{token}origin: {origin}\r\n");
        let (status, said) = served.request("POST", "/drain", &headers).await;
        assert_eq!(status, 403, "{origin}: {said}");
    }
    assert_eq!(served.request("POST", "/drain", &token).await.0, 202);
    assert_eq!(served.commands().await, ["Drain"]);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let served = Served::start(Some(TOKEN)).await;
    let token = bearer(TOKEN);
    let wide = format!("{token}x: {}\r\n", "y".repeat(64 * 1024));
    let (status, _) = served.request("POST", "/drain", &wide).await;
    assert!(matches!(status, 0 | 431), "{status}");
    let many = format!("{token}{}", "x: y\r\n".repeat(200));
    assert_eq!(served.request("POST", "/drain", &many).await.0, 431);
    let long = format!("/drain?{}", "x".repeat(64 * 1024));
    let (status, _) = served.request("POST", &long, &token).await;
    assert!(matches!(status, 0 | 414 | 431), "{status}");
    // The server does not wait for a body, whatever its announced length.
    for length in [
        "content-length: 4\r\n",
        "content-length: 99999999999\r\n",
        "transfer-encoding: chunked\r\n",
    ] {
        let headers = format!("{token}{length}");
        assert_eq!(
            served.request("POST", "/drain", &headers).await.0,
            413,
            "{length}"
        );
    }
    assert_eq!(served.commands().await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_malformed_request_is_not_a_command() {
    let served = Served::start(Some(TOKEN)).await;
    let (token, post) = (bearer(TOKEN), "POST /drain HTTP/1.1\r\nhost: x\r\n");
    for bytes in [
        b"\0\x01\x02\r\n\r\n".to_vec(),
        b"POST /drain\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        format!("{post}{token}content-length: -1\r\n\r\n").into_bytes(),
        format!("{post}{token}content-length: 1\r\ncontent-length: 2\r\n\r\n").into_bytes(),
        format!("{post}{token}a b: c\r\n\r\n").into_bytes(),
        format!("{post}authorization: Bearer \x01{TOKEN}\r\n\r\n").into_bytes(),
    ] {
        let (status, said) = served.send(&bytes).await;
        assert!(!(200..300).contains(&status), "{bytes:?}: {said}");
    }
    // A second request on the same connection is never read.
    let two = format!("GET /health HTTP/1.1\r\nhost: x\r\n\r\n{post}{token}\r\n");
    let (status, said) = served.send(two.as_bytes()).await;
    assert_eq!(
        (status, said.matches("HTTP/1.1 ").count()),
        (200, 1),
        "{said}"
    );
    assert_eq!(served.commands().await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_delays_no_other_client() {
    let served = Served::start(None).await;
    // Twice as many connections as the limit. Each sends the start of a head and then nothing.
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream
            .write_all(b"GET /health HTTP/1.1\r\nho")
            .await
            .unwrap();
        slow.push(stream);
    }
    let answered = tokio::time::timeout(
        Duration::from_secs(20),
        served.request("GET", "/health", ""),
    );
    assert_eq!(answered.await.unwrap().0, 200);
    for mut stream in slow {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest));
        let _ = end.await.unwrap();
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_client_that_sends_byte_by_byte_is_cut_off() {
    let served = Served::start(None).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let drip = async {
        loop {
            if stream.write_all(b"G").await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), drip)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_command_over_the_unix_socket_needs_a_permitted_peer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let (_status, show) = watch::channel(Status::default());
    let (requests, received) = mpsc::channel(4);
    let (stop, stopped) = oneshot::channel();
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(serve::serve_unix(
        listener,
        router(show, requests, no_history()),
        short_limits(),
    ));
    let commands = controller(received, stopped);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let post = b"POST /drain HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(
        talk(&mut stream, post).await.0,
        202,
        "the peer is the daemon's user"
    );
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let get = b"GET /drain HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(talk(&mut stream, get).await.0, 405);
    stop.send(()).unwrap();
    assert_eq!(commands.await.unwrap(), ["Drain"]);
}
