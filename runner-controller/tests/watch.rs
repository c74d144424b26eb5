//! `runner-status --watch` behind a pseudo terminal, whose screen a terminal emulator reads.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with the line it stands on; clippy.toml knows only #[test] functions"
)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use runner_controller::http;
use runner_controller::status::{
    DaemonState, GitHubStatus, HistoryPage, PhaseKind, PoolStatus, RunnerStatus, Status,
};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

const PROGRAM: &str = env!("CARGO_BIN_EXE_runner-controller");
const PATIENCE: Duration = Duration::from_secs(30);

/// Text that would clear the screen, set the title and ring the bell.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31mname";

/// A daemon's socket, a configuration that names it, and a stand-in for journalctl.
struct Host {
    dir: tempfile::TempDir,
    show: watch::Sender<Status>,
}

impl Host {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::create_dir(at.join("run")).unwrap();
        fs::create_dir(at.join("bin")).unwrap();
        let text = format!(
            "host = \"box\"\nrun_dir = \"{0}/run\"\n[github]\nurl = \"https://github.com/acme/widgets\"\n\
             token_file = \"/t\"\n[network]\nblock = \"10.200.0.0/24\"\nresolvers = [\"9.9.9.9\"]\n[pools.ci]\n\
             labels = [\"ci\"]\nmax_runners = 2\nimage = {{ kind = \"directory\", path = \"/i\" }}\n",
            at.display()
        );
        fs::write(at.join("config.toml"), text).unwrap();
        let journalctl = at.join("bin/journalctl");
        let script =
            "#!/bin/sh\nprintf 'one line\\n\\033[2J\\033]0;owned\\007two\\n'\nexec sleep 1000\n";
        fs::write(&journalctl, script).unwrap();
        fs::set_permissions(&journalctl, fs::Permissions::from_mode(0o755)).unwrap();
        let (show, status) = watch::channel(status());
        let socket = UnixListener::bind(at.join("run/api.sock")).unwrap();
        let (requests, _) = mpsc::channel(1);
        let history: http::ReadHistory =
            Arc::new(|_| Box::pin(async { Ok(HistoryPage::default()) }));
        tokio::spawn(http::serve_unix(
            socket,
            http::router(status, requests, history),
            http::ListenerLimits::default(),
        ));
        Self { dir, show }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(["status", "--watch"])
            .env("PATH", path)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .kill_on_drop(true);
        command
    }
}

fn status() -> Status {
    let idle = RunnerStatus {
        runner: Some(HOSTILE.into()),
        ..RunnerStatus::new("ci-1".parse().unwrap(), PhaseKind::Idle)
    };
    Status {
        host: "box".into(),
        scope: "acme/widgets".into(),
        state: DaemonState::Running,
        systemd_error: Some("it does not answer".into()),
        github: GitHubStatus {
            last_ok_unix_ms: Some(1),
            ..GitHubStatus::default()
        },
        pools: vec![PoolStatus {
            name: "ci".into(),
            phases: [(PhaseKind::Idle, 1)].into(),
            runners: vec![idle],
            ..PoolStatus::default()
        }],
        ..Status::default()
    }
}

/// The program behind a pseudo terminal of 80×24 cells.
struct Screen {
    child: Child,
    /// The end of the terminal that its emulator has.
    master: Option<File>,
    /// The other end, to read the terminal's settings.
    slave: File,
    emulator: Arc<Mutex<vt100::Parser>>,
    /// Everything that the program wrote.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn open(mut command: Command) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).unwrap();
        let slave = File::from(pty.slave);
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        let master = File::from(pty.master);
        let mut reader = master.try_clone().unwrap();
        let [rows, columns] = [24, 80].map(|cells| NonZero::new(cells).unwrap());
        let emulator = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let written = Arc::new(Mutex::new(Vec::new()));
        let (to, copy) = (Arc::clone(&emulator), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                to.lock().unwrap().process(&buffer[..count]);
                copy.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            child: child.unwrap(),
            master: Some(master),
            slave,
            emulator,
            written,
        }
    }

    fn text(&self) -> String {
        self.emulator.lock().unwrap().screen().contents()
    }

    fn press(&self, keys: &str) {
        let mut master = self.master.as_ref().unwrap();
        master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has a text.
    async fn shows(&self, text: &str) {
        self.until(text, |screen| screen.contains(text)).await;
    }

    async fn until(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        let wait = async {
            while !is_there(&self.text()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(
            waited.is_ok(),
            "no {what:?} on the screen:\n{}",
            self.text()
        );
    }

    async fn end(&mut self) -> ExitStatus {
        let end = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        end.unwrap().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Checks that the terminal is as it was: lines are edited and echoed, the cursor shows, and the first screen is
    /// there.
    async fn is_restored(&self) {
        let settings = tcgetattr(&self.slave).unwrap();
        let flags = LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG;
        assert!(settings.local_flags.contains(flags));
        let is_first = || {
            let emulator = self.emulator.lock().unwrap();
            let screen = emulator.screen();
            !screen.alternate_screen() && !screen.hide_cursor()
        };
        let wait = async {
            while !is_first() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "the terminal is not restored");
    }

    fn is_raw(&self) -> bool {
        let settings = tcgetattr(&self.slave).unwrap();
        !settings.local_flags.contains(LocalFlags::ICANON)
    }
}

#[tokio::test]
async fn the_status_is_live_keys_work_and_q_restores_the_terminal() {
    let host = Host::start();
    let mut screen = Screen::open(host.command());
    screen
        .shows("box at acme/widgets: running, NOT healthy")
        .await;
    screen.shows("! systemd: it does not answer").await;
    screen.shows("> ci-1").await;
    assert!(screen.is_raw() && screen.emulator.lock().unwrap().screen().alternate_screen());
    host.show.send_modify(|status| {
        status.pools[0].runners[0].slot = "ci-7".parse().unwrap();
    });
    screen.shows("> ci-7").await;
    screen.press("/nothing\r");
    screen
        .shows("0 rows, order: as listed, filter: nothing")
        .await;
    screen.press("\u{1b}");
    screen.shows("> ci-7").await;
    screen.press("3");
    screen.shows("1 runners  2 ended").await;
    screen.press("q");
    assert_eq!(screen.end().await.code(), Some(0));
    screen.is_restored().await;
}

#[tokio::test]
async fn hostile_text_of_a_runner_and_its_log_controls_nothing() {
    let host = Host::start();
    let mut screen = Screen::open(host.command());
    screen.shows("\\u{1b}[2J\\u{1b}]0;owned\\u{7}").await;
    screen.press("\r");
    screen.shows("one line").await;
    screen.shows("\\u{1b}[2J\\u{1b}]0;owned\\u{7}two").await;
    screen.press("q");
    screen.end().await;
    let written = screen.written.lock().unwrap().clone();
    let has = |bytes: &[u8]| written.windows(bytes.len()).any(|part| part == bytes);
    // The program itself sends neither a title nor a bell.
    assert!(!has(b"\x1b]") && !has(b"\x07"));
}

#[tokio::test]
async fn a_signal_restores_the_terminal() {
    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGINT, 130),
        (Signal::SIGHUP, 129),
    ] {
        let host = Host::start();
        let mut screen = Screen::open(host.command());
        screen.shows("> ci-1").await;
        screen.signal(signal);
        assert_eq!(screen.end().await.code(), Some(code));
        screen.is_restored().await;
    }
}

#[tokio::test]
async fn control_c_is_a_key_that_ends_it() {
    let host = Host::start();
    let mut screen = Screen::open(host.command());
    screen.shows("> ci-1").await;
    screen.press("\u{3}");
    assert_eq!(screen.end().await.code(), Some(0));
    screen.is_restored().await;
}

#[tokio::test]
async fn a_terminal_that_is_gone_ends_it_without_a_panic() {
    let host = Host::start();
    let mut screen = Screen::open(host.command());
    screen.shows("> ci-1").await;
    // The thread that reads has a copy, which hangs up with the last end of the program.
    screen.signal(Signal::SIGHUP);
    drop(screen.master.take());
    let status = screen.end().await;
    assert!(status.signal().is_none(), "{status:?}");
    let written = screen.written.lock().unwrap().clone();
    assert!(!String::from_utf8_lossy(&written).contains("panicked"));
}

#[tokio::test]
async fn colours_are_left_out_on_request_and_marks_stay() {
    for (no_color, has_red) in [("", true), ("1", false)] {
        let host = Host::start();
        let mut command = host.command();
        command.env("NO_COLOR", no_color);
        let mut screen = Screen::open(command);
        screen.shows("! systemd: it does not answer").await;
        screen.press("q");
        screen.end().await;
        let written = screen.written.lock().unwrap().clone();
        let text = String::from_utf8_lossy(&written).into_owned();
        // Red of the 256 colours, alone or before the background.
        let is_red = ["38;5;1m", "38;5;1;"].iter().any(|red| text.contains(red));
        assert_eq!(is_red, has_red, "{text:?}");
    }
}

#[tokio::test]
async fn without_a_terminal_it_says_what_to_run_instead() {
    let host = Host::start();
    let mut command = host.command();
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--watch needs a terminal") && said.contains("runner-status --json"));
    let mut command = host.command();
    command.env("TERM", "dumb");
    let mut screen = Screen::open(command);
    screen.shows("TERM is dumb; run `runner-status`").await;
    assert_eq!(screen.end().await.code(), Some(1));
}

#[tokio::test]
async fn a_daemon_that_is_away_is_waited_for() {
    let host = Host::start();
    fs::rename(host.path("run/api.sock"), host.path("run/away")).unwrap();
    let mut screen = Screen::open(host.command());
    screen.shows("! no daemon listens on").await;
    fs::rename(host.path("run/away"), host.path("run/api.sock")).unwrap();
    screen.shows("> ci-1").await;
    screen
        .until("no error", |text| !text.contains("no daemon"))
        .await;
    screen.press("q");
    assert_eq!(screen.end().await.code(), Some(0));
}
