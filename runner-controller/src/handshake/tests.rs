use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::world::JobNote;

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

/// A slot `ci-1` whose container's root is the user who runs the test.
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
            .expect("no sight in time")
            .unwrap()
    }

    /// Nothing arrives, for as long as a few pauses.
    async fn silence(&mut self) {
        let event = timeout(Duration::from_millis(300), self.events.recv()).await;
        assert!(event.is_err(), "{event:?}");
    }
}

fn asked() -> Event {
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
    assert_eq!(bench.event().await, asked());

    sockets.answer(&slot(), jit("secret")).await.unwrap();
    assert_eq!(received(runner).await, "secret");

    let again = bench.connect();
    assert_eq!(received(again).await, "", "a life gets one config");
    let refused = sockets.answer(&slot(), jit("second")).await;
    assert!(
        matches!(refused, Err(HandshakeError::AlreadyAnswered { .. })),
        "{refused:?}"
    );
    bench.silence().await;
    assert_eq!(
        (sockets.counted().answered, sockets.counted().surplus),
        (1, 1)
    );

    // The next life starts afresh, on the same socket.
    sockets.prepare(&slot()).await.unwrap();
    let runner = bench.connect();
    assert_eq!(bench.event().await, asked());
    sockets.answer(&slot(), jit("third")).await.unwrap();
    assert_eq!(received(runner).await, "third");
}

#[tokio::test]
async fn nobody_is_answered_who_does_not_wait() {
    let bench = Bench::new();
    let sockets = bench.prepared().await;
    let refused = sockets.answer(&slot(), jit("secret")).await;
    assert!(
        matches!(refused, Err(HandshakeError::NobodyWaits { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_hang_up_is_told_and_the_next_connection_is_taken() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    let runner = bench.connect();
    assert_eq!(bench.event().await, asked());
    drop(runner);
    assert_eq!(bench.event().await, Event::RequestDropped { slot: slot() });

    let runner = bench.connect();
    assert_eq!(bench.event().await, asked());
    sockets.answer(&slot(), jit("secret")).await.unwrap();
    assert_eq!(received(runner).await, "secret");
}

#[tokio::test]
async fn a_second_connection_is_closed_while_one_waits() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    let first = bench.connect();
    assert_eq!(bench.event().await, asked());
    let second = bench.connect();
    assert_eq!(received(second).await, "");
    sockets.answer(&slot(), jit("secret")).await.unwrap();
    assert_eq!(received(first).await, "secret");
}

#[tokio::test]
async fn only_root_of_the_slots_container_is_heard() {
    let uid = nix::unistd::geteuid().as_raw() + 1;
    let mut bench = Bench::for_uid(uid);
    let sockets = bench.prepared().await;
    let stranger = bench.connect();
    assert_eq!(received(stranger).await, "");
    bench.silence().await;
    assert_eq!(sockets.counted().foreign, 1);
}

#[tokio::test]
async fn a_flood_of_connections_is_paced() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    let _first = bench.connect();
    assert_eq!(bench.event().await, asked());
    let flood: Vec<UnixStream> = (0..50).map(|_| bench.connect()).collect();
    bench.silence().await;
    let surplus = sockets.counted().surplus;
    assert!((1..=5).contains(&surplus), "{surplus} in 0.3 s");
    drop(flood);
}

#[tokio::test]
async fn a_job_is_told_once_per_life() {
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
    bench.silence().await;

    sockets.prepare(&slot()).await.unwrap();
    bench.say(b"\xff\xfenonsense");
    let started = Event::JobStarted {
        slot: slot(),
        note: JobNote::default(),
    };
    assert_eq!(bench.event().await, started, "any byte means a job");
    assert_eq!(
        (sockets.counted().job_lines, sockets.counted().garbled),
        (2, 1)
    );
}

#[tokio::test]
async fn what_the_last_life_left_behind_is_not_the_next_ones() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    bench.say(b"v1\ta/b\t1\tx\ty\n");
    let Event::JobStarted { .. } = bench.event().await else {
        panic!("no job");
    };
    let _left = bench.connect();
    assert_eq!(bench.event().await, asked());

    sockets.prepare(&slot()).await.unwrap();
    bench.silence().await;
    let refused = sockets.answer(&slot(), jit("secret")).await;
    assert!(
        matches!(refused, Err(HandshakeError::NobodyWaits { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn sights_of_a_life_that_is_over_are_not_delivered() {
    let mut bench = Bench::new();
    let sockets = bench.prepared().await;
    // The channel holds one sight, so the second waits in the slot.
    let runner = bench.connect();
    while bench.events.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(runner);
    tokio::time::sleep(Duration::from_millis(50)).await;
    sockets.prepare(&slot()).await.unwrap();
    assert_eq!(bench.event().await, asked());
    bench.silence().await;
}

#[tokio::test]
async fn files_have_the_modes_that_let_a_container_in() {
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

    // Removed by a tidy hand: the next life has them again.
    std::fs::remove_file(bench.path("jit.sock")).unwrap();
    std::fs::remove_file(bench.path("started")).unwrap();
    sockets.prepare(&slot()).await.unwrap();
    assert!(mode("jit.sock").0.is_socket());
    assert!(mode("started").0.is_fifo());
}

#[tokio::test]
async fn a_missing_directory_is_an_error_that_says_who_makes_it() {
    let bench = Bench::new();
    let sockets = bench.open(Vec::new());
    let error = sockets.prepare(&"ci-2".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("systemd-tmpfiles"), "{error}");
    assert!(error.is_transient());
    let error = sockets.prepare(&"ci-3".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, HandshakeError::NoSuchSlot { .. }));
}

/// Stands for systemd's store: what a slot has there, as a restarted daemon gets it.
struct Store {
    listener: std::os::unix::net::UnixListener,
    fifo: std::fs::File,
    marker: Marker,
}

impl Store {
    fn new(bench: &Bench, runner: &marker::Runner) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(bench.path("jit.sock")).unwrap();
        let fifo = bench.path("started");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(fifo)
            .unwrap();
        let marker = Marker::create().unwrap();
        let runner = marker::Runner {
            listener: files::socket_inode(&bench.path("jit.sock")),
            ..runner.clone()
        };
        marker.write(&runner).unwrap();
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

const DUE: marker::Runner = marker::Runner {
    answer: marker::Answer::Due,
    listener: None,
    line: None,
};

#[tokio::test]
async fn a_restarted_daemon_answers_the_spare_that_waits() {
    let mut bench = Bench::new();
    let store = Store::new(&bench, &DUE);
    let runner = bench.connect();
    let (waiting, _) = store.listener.accept().unwrap();

    let sockets = bench.open(store.with_waiting(&waiting));
    drop(waiting);
    assert_eq!(bench.events.try_recv().unwrap(), asked());
    sockets.answer(&slot(), jit("secret")).await.unwrap();
    assert_eq!(received(runner).await, "secret");

    // What it wrote down is what a third daemon reads: this life has its config.
    drop(sockets);
    let sockets = bench.open(store.passed());
    let refused = sockets.answer(&slot(), jit("second")).await;
    assert!(
        matches!(refused, Err(HandshakeError::AlreadyAnswered { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_daemon_killed_while_it_answered_does_not_answer_again() {
    let mut bench = Bench::new();
    let given = marker::Runner {
        answer: marker::Answer::Given,
        ..DUE
    };
    let store = Store::new(&bench, &given);
    let runner = bench.connect();
    let (waiting, _) = store.listener.accept().unwrap();
    let _sockets = bench.open(store.with_waiting(&waiting));
    drop(waiting);
    assert_eq!(received(runner).await, "", "it goes away and is replaced");
    bench.silence().await;
}

#[tokio::test]
async fn without_a_marker_a_life_counts_as_answered() {
    let mut bench = Bench::new();
    let store = Store::new(&bench, &DUE);
    let runner = bench.connect();
    let (waiting, _) = store.listener.accept().unwrap();
    let mut passed = store.with_waiting(&waiting);
    passed.retain(|(name, _)| name != "life.ci-1");
    let _sockets = bench.open(passed);
    drop((waiting, store));
    assert_eq!(received(runner).await, "");
    bench.silence().await;
}

#[tokio::test]
async fn a_job_that_was_told_is_told_again_after_a_restart() {
    let mut bench = Bench::new();
    let told = marker::Runner {
        line: Some(b"v1\ta/b\t7\tj\tw\n".to_vec()),
        ..DUE
    };
    let store = Store::new(&bench, &told);
    bench.say(b"v1\tz/z\t8\tk\tx\n");
    let _sockets = bench.open(store.passed());
    let Event::JobStarted { note, .. } = bench.event().await else {
        panic!("no job");
    };
    assert_eq!(note.repository, "a/b");
    bench.silence().await;
}

#[tokio::test]
async fn a_line_that_was_written_while_nobody_read_is_not_lost() {
    let mut bench = Bench::new();
    let store = Store::new(&bench, &DUE);
    bench.say(b"v1\ta/b\t7\tj\tw\n");
    let _sockets = bench.open(store.passed());
    assert!(matches!(bench.event().await, Event::JobStarted { .. }));
}

#[tokio::test]
async fn descriptors_that_are_not_what_they_are_called_are_closed() {
    let mut bench = Bench::new();
    let store = Store::new(&bench, &DUE);
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
    bench.silence().await;
    peer.write_all(b"x").unwrap();
    drop(store);

    // And the slot is usable.
    sockets.prepare(&slot()).await.unwrap();
    let _runner = bench.connect();
    assert_eq!(bench.event().await, asked());
}

#[tokio::test]
async fn a_listener_whose_socket_was_replaced_is_not_trusted() {
    let mut bench = Bench::new();
    let store = Store::new(&bench, &DUE);
    std::fs::remove_file(bench.path("jit.sock")).unwrap();
    let other = std::os::unix::net::UnixListener::bind(bench.path("jit.sock")).unwrap();
    let sockets = bench.open(store.passed());
    drop(other);
    sockets.prepare(&slot()).await.unwrap();
    let _runner = bench.connect();
    assert_eq!(bench.event().await, asked());
}
