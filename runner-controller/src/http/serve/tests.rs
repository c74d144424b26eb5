//! Each bound of a listener, by a clock that stands still while anything runs. The connections are
//! in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;

/// Bytes that are on the way from one end of a connection to the other at most.
const IN_FLIGHT: usize = 1024;
/// Length of an answer that a client does not take at once.
const LONG: usize = 64 * IN_FLIGHT;

/// Listener whose connections come from a test.
struct Connections {
    incoming: mpsc::UnboundedReceiver<DuplexStream>,
    accepted: Arc<AtomicUsize>,
}

impl Listener for Connections {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        let Some(stream) = self.incoming.recv().await else {
            return std::future::pending().await;
        };
        self.accepted.fetch_add(1, Ordering::Relaxed);
        (stream, ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A server with the bounds that the daemon has.
struct Served {
    connect: mpsc::UnboundedSender<DuplexStream>,
    accepted: Arc<AtomicUsize>,
}

impl Served {
    fn start() -> Self {
        let (connect, incoming) = mpsc::unbounded_channel();
        let accepted = Arc::new(AtomicUsize::new(0));
        let listener = Connections {
            incoming,
            accepted: Arc::clone(&accepted),
        };
        let router = Router::new()
            .route("/short", get(async || "short"))
            .route("/long", get(async || "x".repeat(LONG)))
            .route("/never", get(std::future::pending::<()>));
        tokio::spawn(serve(listener, router, ListenerLimits::default(), |_| {
            Ok(Access::ReadOnly)
        }));
        Self { connect, accepted }
    }

    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(IN_FLIGHT);
        self.connect.send(theirs).unwrap();
        ours
    }

    async fn ask(&self, head: &str) -> String {
        let mut stream = self.connect();
        let _ = stream.write_all(head.as_bytes()).await;
        read(&mut stream).await
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// Reads until the server closes the connection.
async fn read(stream: &mut DuplexStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// Lets every task run until it waits for the clock or for another task.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn assert_about(elapsed: Duration, seconds: u64) {
    let wanted = Duration::from_secs(seconds);
    assert!(
        elapsed >= wanted && elapsed < wanted + Duration::from_millis(100),
        "{elapsed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_not_whole_within_5_seconds_ends_its_connection() {
    let served = Served::start();
    for said in ["", "GET /short HTTP/1.1\r\nhos"] {
        let mut stream = served.connect();
        stream.write_all(said.as_bytes()).await.unwrap();
        let began = Instant::now();
        assert!(!read(&mut stream).await.starts_with("HTTP/1.1 200"));
        assert_about(began.elapsed(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_byte_every_second_does_not_extend_the_timeout_of_a_head() {
    let served = Served::start();
    let mut stream = served.connect();
    let began = Instant::now();
    while stream.write_all(b"G").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert!(began.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_client_does_not_take_within_30_seconds_is_cut_off() {
    let served = Served::start();
    let mut stream = served.connect();
    stream.write_all(head("/long").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    let answer = read(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.len() <= IN_FLIGHT, "{}", answer.len());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_within_30_seconds_ends_its_connection() {
    let served = Served::start();
    let began = Instant::now();
    assert_eq!(served.ask(&head("/never")).await, "");
    assert_about(began.elapsed(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_client_takes_arrives_whole() {
    let answer = Served::start().ask(&head("/long")).await;
    assert!(answer.ends_with(&"x".repeat(LONG)));
}

#[tokio::test(start_paused = true)]
async fn the_33rd_connection_waits_until_one_of_32_has_ended() {
    let served = Served::start();
    let mut held: Vec<DuplexStream> = (0..32).map(|_| served.connect()).collect();
    let mut waiting = served.connect();
    waiting.write_all(head("/short").as_bytes()).await.unwrap();
    settle().await;
    assert_eq!(served.accepted(), 32);
    held.pop();
    assert!(read(&mut waiting).await.ends_with("short"));
    assert_eq!(served.accepted(), 33);
}

#[tokio::test(start_paused = true)]
async fn a_head_of_16_kib_is_the_largest() {
    let served = Served::start();
    let sized = |bytes: usize| {
        let (start, end) = ("GET /short HTTP/1.1\r\nhost: x\r\nx: ", "\r\n\r\n");
        let filler = "y".repeat(bytes - start.len() - end.len());
        format!("{start}{filler}{end}")
    };
    let answer = served.ask(&sized(HEAD_BYTES - 1)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = served.ask(&sized(HEAD_BYTES + 1)).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_head_of_64_lines_is_the_longest() {
    let served = Served::start();
    let lines = |count: usize| {
        let lines = "x: y\r\n".repeat(count);
        format!("GET /short HTTP/1.1\r\n{lines}\r\n")
    };
    let answer = served.ask(&lines(HEADERS)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = served.ask(&lines(HEADERS + 1)).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_its_first_answer() {
    let two = head("/short").repeat(2);
    let answer = Served::start().ask(&two).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}
