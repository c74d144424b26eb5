//! The sockets of a slot, with a container that the test plays.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::marker::{Answer, Exchange, Marker};
use super::*;
use crate::world::{Failure as _, JobNote};

const CONFIG: &str = r#"
host = "box"
[github]
url = "https://github.com/acme"
token_file = "/etc/token"
[network]
block = "10.200.0.0/24"
resolvers = ["9.9.9.9"]
[pools.ci]
labels = ["ci"]
max_runners = 2
image = { kind = "directory", path = "/images/ci" }
"#;

/// A slot `ci-1` whose container has the user of the test as root.
struct Bench {
    config: Arc<Config>,
    events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    dir: TempDir,
}

fn slot() -> SlotId {
    "ci-1".parse().unwrap()
}

fn jit(text: &str) -> JitConfig {
    JitConfig::new(text.to_owned())
}

impl Bench {
    fn new() -> Self {
        Self::for_uid(nix::unistd::geteuid().as_raw())
    }

    fn for_uid(uid: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = crate::config::parse(Path::new("config.toml"), CONFIG).unwrap();
        config.run_dir = dir.path().to_owned();
        config.network.uid_base = uid;
        std::fs::create_dir_all(config.slots_dir().join("ci-1")).unwrap();
        let (sender, events) = mpsc::channel(1);
        Self {
            config: Arc::new(config),
            events,
            sender,
            dir,
        }
    }

    fn open(&self, restored: Vec<(String, OwnedFd)>) -> Sockets {
        Sockets::open(Arc::clone(&self.config), self.sender.clone(), restored)
    }

    async fn prepared(&self) -> Sockets {
        let sockets = self.open(Vec::new());
        sockets.prepare(&slot()).await.unwrap();
        sockets
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("slots/ci-1").join(name)
    }

    /// Connects as systemd in the container does for a credential.
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("jit.sock")).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        stream
    }

    fn say(&self, line: &[u8]) {
        let mut fifo = std::fs::OpenOptions::new()
            .append(true)
            .open(self.path("started"))
            .unwrap();
        fifo.write_all(line).unwrap();
    }

    async fn event(&mut self) -> Event {
        timeout(Duration::from_secs(5), self.events.recv())
            .await
            .expect("no event in time")
            .unwrap()
    }

    /// Checks that no event arrives during a few pauses.
    async fn expect_silence(&mut self) {
        let event = timeout(Duration::from_millis(300), self.events.recv()).await;
        assert!(event.is_err(), "{event:?}");
    }
}

fn not_given() -> Event {
    Event::ConfigNotGiven { slot: slot() }
}

fn requested() -> Event {
    Event::ConfigRequested { slot: slot() }
}

async fn received(mut stream: UnixStream) -> String {
    tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_runner_asks_and_is_answered_once() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    let runner = bench.connect();
    assert_eq!(bench.event().await, requested());

    sockets.answer(&slot(), jit("secret")).await.unwrap();
    assert_eq!(received(runner).await, "secret");

    let again = bench.connect();
    assert_eq!(received(again).await, "", "a runner gets one config");
    let refused = sockets.answer(&slot(), jit("second")).await;
    assert!(
        matches!(refused, Err(HandshakeError::AlreadyAnswered { .. })),
        "{refused:?}"
    );
    bench.expect_silence().await;

    // The next runner in the slot gets its config over the same socket.
    sockets.prepare(&slot()).await.unwrap();
    let runner = bench.connect();
    assert_eq!(bench.event().await, requested());
    sockets.answer(&slot(), jit("third")).await.unwrap();
    assert_eq!(received(runner).await, "third");
}

#[tokio::test]
async fn a_runner_that_does_not_wait_is_not_answered() {
    let bench = Bench::new();
    let sockets = bench.prepared().await;
    let refused = sockets.answer(&slot(), jit("secret")).await;
    assert!(
        matches!(refused, Err(HandshakeError::NotWaiting { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_hang_up_is_an_event_and_the_next_connection_is_accepted() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    let runner = bench.connect();
    assert_eq!(bench.event().await, requested());
    drop(runner);
    assert_eq!(bench.event().await, Event::RequestDropped { slot: slot() });

    let runner = bench.connect();
    assert_eq!(bench.event().await, requested());
    sockets.answer(&slot(), jit("secret")).await.unwrap();
    assert_eq!(received(runner).await, "secret");
}

#[tokio::test]
async fn a_second_connection_is_closed_while_one_waits() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    let first = bench.connect();
    assert_eq!(bench.event().await, requested());
    let second = bench.connect();
    assert_eq!(received(second).await, "");
    sockets.answer(&slot(), jit("secret")).await.unwrap();
    assert_eq!(received(first).await, "secret");
}

#[tokio::test]
async fn only_root_of_the_slots_container_is_accepted() {
    let uid = nix::unistd::geteuid().as_raw() + 1;
    let mut bench = Bench::for_uid(uid);
    let _sockets = bench.prepared().await;
    let stranger = bench.connect();
    assert_eq!(received(stranger).await, "");
    bench.expect_silence().await;
}

#[tokio::test]
async fn a_flood_of_connections_is_paced() {
    let mut bench = Bench::new();
    let _sockets = bench.prepared().await;
    let _first = bench.connect();
    assert_eq!(bench.event().await, requested());
    let flood: Vec<UnixStream> = (0..50).map(|_| bench.connect()).collect();
    bench.expect_silence().await;
    let is_closed = |mut stream: &UnixStream| {
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0]).is_ok()
    };
    let closed = flood.iter().filter(|stream| is_closed(stream)).count();
    assert!((1..=5).contains(&closed), "{closed} in 0.3 s");
}

#[tokio::test]
async fn a_job_start_is_one_event_per_runner() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    bench.say(b"v1\tacme/app\t42\tbuild\tCI\n");
    let note = JobNote {
        repository: "acme/app".into(),
        run_id: "42".into(),
        job: "build".into(),
        workflow: "CI".into(),
    };
    let started = Event::JobStarted { slot: slot(), note };
    assert_eq!(bench.event().await, started);
    bench.expect_silence().await;

    sockets.prepare(&slot()).await.unwrap();
    bench.say(b"\xff\xfenonsense");
    let started = Event::JobStarted {
        slot: slot(),
        note: JobNote::default(),
    };
    assert_eq!(bench.event().await, started, "any byte means a job");
}

#[tokio::test]
async fn leftovers_of_a_runner_are_not_of_the_next_runner() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    bench.say(b"v1\ta/b\t1\tx\ty\n");
    let Event::JobStarted { .. } = bench.event().await else {
        panic!("a job started");
    };
    let _left = bench.connect();
    assert_eq!(bench.event().await, requested());

    sockets.prepare(&slot()).await.unwrap();
    bench.expect_silence().await;
    let refused = sockets.answer(&slot(), jit("secret")).await;
    assert!(
        matches!(refused, Err(HandshakeError::NotWaiting { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn events_of_a_runner_that_ended_are_not_delivered() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    // The channel holds one event, so the second waits in the slot.
    let runner = bench.connect();
    while bench.events.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(runner);
    tokio::time::sleep(Duration::from_millis(50)).await;
    sockets.prepare(&slot()).await.unwrap();
    assert_eq!(bench.event().await, requested());
    bench.expect_silence().await;
}

#[tokio::test]
async fn files_have_modes_that_let_a_container_use_them() {
    let bench = Bench::new();
    let sockets = bench.prepared().await;
    let mode = |name: &str| {
        let metadata = std::fs::symlink_metadata(bench.path(name)).unwrap();
        (metadata.file_type(), metadata.permissions().mode() & 0o777)
    };
    let (kind, bits) = mode("jit.sock");
    assert!(kind.is_socket() && bits == 0o666, "{bits:o}");
    let (kind, bits) = mode("started");
    assert!(kind.is_fifo() && bits == 0o622, "{bits:o}");

    // Removed by an operator, they are there again for the next runner.
    std::fs::remove_file(bench.path("jit.sock")).unwrap();
    std::fs::remove_file(bench.path("started")).unwrap();
    sockets.prepare(&slot()).await.unwrap();
    assert!(mode("jit.sock").0.is_socket());
    assert!(mode("started").0.is_fifo());
}

#[tokio::test]
async fn a_missing_directory_is_an_error_that_names_the_remedy() {
    let bench = Bench::new();
    let sockets = bench.open(Vec::new());
    let error = sockets.prepare(&"ci-2".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("systemd-tmpfiles"), "{error}");
    assert!(error.is_transient());
    let error = sockets.prepare(&"ci-3".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::NoSuchSlot { .. }));
}

/// Descriptors of a slot in systemd's store, as a restarted daemon gets them.
struct Stored {
    listener: std::os::unix::net::UnixListener,
    fifo: std::fs::File,
    marker: Marker,
}

impl Stored {
    fn new(bench: &Bench, exchange: &Exchange) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(bench.path("jit.sock")).unwrap();
        let fifo = bench.path("started");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(fifo)
            .unwrap();
        let marker = Marker::create().unwrap();
        let exchange = Exchange {
            listener: files::socket_inode(&bench.path("jit.sock")),
            ..exchange.clone()
        };
        marker.write(&exchange).unwrap();
        Self {
            listener,
            fifo,
            marker,
        }
    }

    fn passed(&self) -> Vec<(String, OwnedFd)> {
        use std::os::fd::AsFd as _;
        let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
        vec![
            ("jit.ci-1".into(), copy(self.listener.as_fd())),
            ("started.ci-1".into(), copy(self.fifo.as_fd())),
            ("life.ci-1".into(), copy(self.marker.as_fd())),
        ]
    }

    fn with_waiting(&self, waiting: &UnixStream) -> Vec<(String, OwnedFd)> {
        let mut passed = self.passed();
        passed.push(("ask.ci-1".into(), waiting.try_clone().unwrap().into()));
        passed
    }
}

const DUE: Exchange = Exchange {
    answer: Answer::Due,
    listener: None,
    line: None,
};

#[tokio::test]
async fn a_restarted_daemon_answers_the_spare_that_waits() {
    let mut bench = Bench::new();
    let store = Stored::new(&bench, &DUE);
    let runner = bench.connect();
    let (waiting, _) = store.listener.accept().unwrap();

    let sockets = bench.open(store.with_waiting(&waiting));
    drop(waiting);
    assert_eq!(bench.events.try_recv().unwrap(), requested());
    sockets.answer(&slot(), jit("secret")).await.unwrap();
    assert_eq!(received(runner).await, "secret");

    // A third daemon reads from the marker that the runner has its config.
    drop(sockets);
    let sockets = bench.open(store.passed());
    let refused = sockets.answer(&slot(), jit("second")).await;
    assert!(
        matches!(refused, Err(HandshakeError::AlreadyAnswered { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_runner_is_not_answered_again_after_the_daemon_was_killed_while_answering() {
    let mut bench = Bench::new();
    let given = Exchange {
        answer: Answer::Given,
        ..DUE
    };
    let store = Stored::new(&bench, &given);
    let runner = bench.connect();
    let (waiting, _) = store.listener.accept().unwrap();
    let _sockets = bench.open(store.with_waiting(&waiting));
    drop(waiting);
    assert_eq!(
        received(runner).await,
        "",
        "the runner ends and is replaced"
    );
    bench.expect_silence().await;
}

#[tokio::test]
async fn without_a_marker_a_runner_counts_as_answered() {
    let mut bench = Bench::new();
    let store = Stored::new(&bench, &DUE);
    let runner = bench.connect();
    let (waiting, _) = store.listener.accept().unwrap();
    let mut passed = store.with_waiting(&waiting);
    passed.retain(|(name, _)| name != "life.ci-1");
    let _sockets = bench.open(passed);
    drop((waiting, store));
    assert_eq!(received(runner).await, "");
    bench.expect_silence().await;
}

#[tokio::test]
async fn a_new_daemon_hears_that_a_container_has_no_config() {
    let mut bench = Bench::new();
    let store = Stored::new(&bench, &DUE);
    let _sockets = bench.open(store.passed());
    assert_eq!(bench.event().await, not_given());
    bench.expect_silence().await;
}

#[tokio::test]
async fn a_container_of_a_former_slot_without_a_config_is_known() {
    for (answer, is_told) in [(Answer::Due, true), (Answer::Given, false)] {
        let mut bench = Bench::new();
        let store = Stored::new(&bench, &Exchange { answer, ..DUE });
        let mut passed = store.passed();
        passed.retain(|(name, _)| name == "life.ci-1");
        passed[0].0 = "life.ci-9".into();
        let _sockets = bench.open(passed);
        if is_told {
            let slot = "ci-9".parse().unwrap();
            assert_eq!(bench.event().await, Event::ConfigNotGiven { slot });
        }
        bench.expect_silence().await;
    }
}

#[tokio::test]
async fn a_job_start_is_sent_again_after_a_restart() {
    let mut bench = Bench::new();
    let started = Exchange {
        answer: Answer::Given,
        line: Some(b"v1\ta/b\t7\tj\tw\n".to_vec()),
        ..DUE
    };
    let store = Stored::new(&bench, &started);
    bench.say(b"v1\tz/z\t8\tk\tx\n");
    let _sockets = bench.open(store.passed());
    let Event::JobStarted { note, .. } = bench.event().await else {
        panic!("a job started");
    };
    assert_eq!(note.repository, "a/b");
    bench.expect_silence().await;
}

#[tokio::test]
async fn a_line_that_was_written_without_a_daemon_is_not_lost() {
    let mut bench = Bench::new();
    let given = Exchange {
        answer: Answer::Given,
        ..DUE
    };
    let store = Stored::new(&bench, &given);
    bench.say(b"v1\ta/b\t7\tj\tw\n");
    let _sockets = bench.open(store.passed());
    assert!(matches!(bench.event().await, Event::JobStarted { .. }));
}

#[tokio::test]
async fn descriptors_that_are_not_what_their_name_says_are_closed() {
    let mut bench = Bench::new();
    let store = Stored::new(&bench, &DUE);
    let (stray, mut peer) = UnixStream::pair().unwrap();
    let stray = |name: &str| (name.to_owned(), stray.try_clone().unwrap().into());
    let passed = vec![
        stray("jit.ci-1"),
        stray("started.ci-1"),
        stray("life.ci-1"),
        stray("jit.ci-9"),
        stray("what.ci-1"),
        stray("api2"),
    ];
    let sockets = bench.open(passed);
    bench.expect_silence().await;
    peer.write_all(b"x").unwrap();
    drop(store);

    // The slot is usable.
    sockets.prepare(&slot()).await.unwrap();
    let _runner = bench.connect();
    assert_eq!(bench.event().await, requested());
}

#[tokio::test]
async fn a_listener_whose_socket_was_replaced_is_not_trusted() {
    let mut bench = Bench::new();
    let store = Stored::new(&bench, &DUE);
    std::fs::remove_file(bench.path("jit.sock")).unwrap();
    let other = std::os::unix::net::UnixListener::bind(bench.path("jit.sock")).unwrap();
    let sockets = bench.open(store.passed());
    drop(other);
    assert_eq!(bench.event().await, not_given());
    sockets.prepare(&slot()).await.unwrap();
    let _runner = bench.connect();
    assert_eq!(bench.event().await, requested());
}
