//! Commands whose output loses its reader, as in `runner-status | head -1`, and prompts without a
//! terminal behind them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with the line it stands on; clippy.toml knows only #[test] functions"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;

use clap::CommandFactory;
use github_sim::{PlantedRunner, Server, ServerHandle, ServerOptions};
use runner_controller::cli::Cli;
use runner_controller::controller::Command as Asked;
use runner_controller::http;
use runner_controller::status::{DaemonState, GitHubStatus, HistoryPage, Status, VerdictRecord};
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const PROGRAM: &str = env!("CARGO_BIN_EXE_runner-controller");

/// Exit status of a command whose reader is gone.
const READER_GONE: i32 = 141;
const SIGPIPE: i32 = 13;

/// A host in a directory: its configuration, a daemon that answers, and a stand-in for GitHub.
struct Host {
    dir: tempfile::TempDir,
    github: ServerHandle,
    daemon: JoinHandle<()>,
}

impl Host {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let github = Server::start(ServerOptions::default()).await.unwrap();
        let run_dir = dir.path().join("run");
        fs::create_dir(&run_dir).unwrap();
        fs::write(dir.path().join("token"), github.token()).unwrap();
        let host = Self {
            daemon: tokio::spawn(daemon(
                UnixListener::bind(run_dir.join("api.sock")).unwrap(),
            )),
            github,
            dir,
        };
        host.write_config("config.toml", "token");
        host.write_config("no-token.toml", "missing");
        // Stands for journalctl: it writes until something stops it.
        let journalctl = host.path("bin/journalctl");
        fs::create_dir(host.path("bin")).unwrap();
        fs::write(&journalctl, "#!/bin/sh\nexec yes\n").unwrap();
        fs::set_permissions(&journalctl, fs::Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_config(&self, name: &str, token: &str) {
        let text = format!(
            r#"
host = "box"
run_dir = "{dir}/run"
state_dir = "{dir}/state"
[github]
url = "https://github.com/acme/widgets"
api_url = "{api}"
allow_plain_http = true
token_file = "{dir}/{token}"
[network]
block = "10.200.0.0/24"
resolvers = ["9.9.9.9"]
[pools.ci]
labels = ["ci"]
max_runners = 2
image = {{ kind = "directory", path = "/i" }}
"#,
            dir = self.dir.path().display(),
            api = self.github.url(),
        );
        fs::write(self.path(name), text).unwrap();
    }

    /// Makes sure that GitHub has one offline runner of this host, which `cleanup-github-runners`
    /// deletes.
    fn plant_stale_runner(&self) {
        if !self.github.control().runners().is_empty() {
            return;
        }
        self.github.control().plant_runner(PlantedRunner {
            scope: "acme/widgets".parse().unwrap(),
            name: "box-ci-1-0000beef".into(),
            status: "offline".into(),
            busy: false,
            labels: vec!["ci".into()],
            runner_group_id: 1,
        });
    }

    fn command(&self, config: &str, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .arg("--config")
            .arg(self.path(config))
            .args(args)
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.path("bin").display()),
            )
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// Returns a history with one runner.
fn history() -> http::ReadHistory {
    let ended = serde_json::json!({
        "machine": "ci-1",
        "verdict": "job_done",
        "ended_unix_ms": 1_796_000_000_000_u64,
        "lived_ms": 3,
        "oom_kills": 0,
    });
    let ended: VerdictRecord = serde_json::from_value(ended).unwrap();
    Arc::new(move |_| {
        let runners = vec![ended.clone()];
        Box::pin(async {
            Ok(HistoryPage {
                runners,
                next: None,
            })
        })
    })
}

/// Answers as a daemon does. A drain is over at once.
async fn daemon(socket: UnixListener) {
    let (show, status) = watch::channel(Status {
        state: DaemonState::Running,
        github: GitHubStatus {
            last_ok_unix_ms: Some(1),
            ..GitHubStatus::default()
        },
        ..Status::default()
    });
    let (requests, mut asked) = mpsc::channel(4);
    let served = tokio::spawn(http::serve_unix(
        socket,
        http::router(status, requests, history()),
        http::ListenerLimits::default(),
    ));
    while let Some((command, reply)) = asked.recv().await {
        match command {
            Asked::Drain => show.send_modify(|status| status.state = DaemonState::Drained),
            Asked::Undrain | Asked::Refill(_) => {
                show.send_modify(|status| status.state = DaemonState::Running);
            }
            Asked::Clear { .. } | Asked::Ping => {}
        }
        let _ = reply.send(());
    }
    served.await.unwrap();
}

/// Returns the writing end of a pipe without a reader.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Stdio::from(writer)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// Its output is what the command is for, so it ends with its reader.
    Output,
    /// The command does or waits for something, and ends as that ends.
    Progress,
}

/// A command, and its exit status while its output is read.
struct Row {
    config: &'static str,
    args: Vec<String>,
    status: i32,
    shows: Shows,
}

fn row(config: &'static str, args: &str, status: i32, shows: Shows) -> Row {
    Row {
        config,
        args: args.split(' ').map(str::to_owned).collect(),
        status,
        shows,
    }
}

/// Every command, in an order in which each finds what it needs.
fn rows(dir: &Path) -> Vec<Row> {
    use Shows::{Output, Progress};
    let (good, missing) = ("config.toml", "missing.toml");
    let dir = dir.display();
    vec![
        // Without a token the daemon ends before it touches systemd.
        row("no-token.toml", "run", 1, Progress),
        row(good, "check-config", 0, Output),
        row(missing, "check-config", 1, Progress),
        // The directory does not exist.
        row(
            missing,
            &format!("support-bundle {dir}/none/bundle.tar.gz"),
            1,
            Progress,
        ),
        // It finds no daemon.
        row(missing, "doctor", 2, Output),
        row(good, "status", 0, Output),
        row(good, "status --json", 0, Output),
        row(good, "status --wait 30s", 0, Progress),
        // This host takes no deliveries.
        row(good, "jobs", 1, Progress),
        row(good, "plan", 0, Output),
        row(good, "webhook-test", 1, Progress),
        row(good, "history", 0, Output),
        row(good, "history --csv", 0, Output),
        // The only runner on record had no job.
        row(good, "size", 1, Progress),
        row(good, "docs", 0, Output),
        row(good, "explain --no-journal ci-1", 0, Output),
        row(good, "drain", 0, Progress),
        row(good, "drain --wait", 0, Progress),
        row(good, "status --wait 0s", 3, Progress),
        row(good, "undrain", 0, Progress),
        row(good, "cleanup-github-runners", 1, Progress),
        row(good, "cleanup-github-runners --yes", 0, Progress),
        // Without a terminal to ask on, nothing is destroyed.
        row(good, "cleanup-all-containers", 1, Progress),
        row(good, "units", 0, Output),
        row(
            good,
            &format!("units --install-root {dir}/root"),
            0,
            Progress,
        ),
        row(good, &format!("prepare-image {dir}/no-image"), 1, Progress),
        row(good, &format!("man {dir}/man"), 0, Progress),
        row(good, &format!("completions bash {dir}/bash"), 0, Progress),
        // It changes nothing without a configuration.
        row(missing, "apply", 1, Progress),
        // The steps that root does for a slot refuse a configuration that is not there.
        row(missing, "check-firewall", 80, Progress),
        row(missing, "firewall", 80, Progress),
        row(missing, "launch ci 1", 80, Progress),
        row(missing, "connect ci 1", 80, Progress),
        row(missing, "sweep ci 1", 80, Progress),
        row(missing, "sweep-unowned", 80, Progress),
        // Without the socket that systemd gives it.
        row(missing, "hold-mounts", 86, Progress),
        // Without the socket that the launcher gives it.
        row(missing, "relay-ready", 87, Progress),
        row(
            missing,
            "relay-console /proc/none /proc/none /proc/none /proc/none rc-ci-1",
            0,
            Progress,
        ),
        // The parser's own output; it ignores a reader that is gone.
        row(good, "help", 0, Progress),
        row(good, "help status", 0, Progress),
        row(good, "--help", 0, Progress),
        row(good, "--version", 0, Progress),
        row(good, "no-such-command", 2, Progress),
    ]
}

async fn run(command: &mut Command, stdout: bool, stderr: bool) -> Output {
    let pipe = |read| if read { Stdio::piped() } else { closed_pipe() };
    let child = command.stdout(pipe(stdout)).stderr(pipe(stderr)).spawn();
    child.unwrap().wait_with_output().await.unwrap()
}

#[tokio::test]
async fn every_command_survives_a_reader_that_is_gone() {
    let host = Host::start().await;
    for row in rows(host.dir.path()) {
        for (stdout, stderr) in [(true, true), (false, true), (true, false), (false, false)] {
            host.plant_stale_runner();
            let args: Vec<&str> = row.args.iter().map(String::as_str).collect();
            let output = run(&mut host.command(row.config, &args), stdout, stderr).await;
            let wanted = match row.shows {
                Shows::Output if !stdout => READER_GONE,
                Shows::Output | Shows::Progress => row.status,
            };
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(wanted),
                "{args:?} with stdout {stdout}, stderr {stderr}: {said}"
            );
            if wanted == READER_GONE {
                assert_eq!(said, "", "{args:?} ends quietly");
            }
        }
    }
    host.daemon.abort();
}

#[tokio::test]
async fn every_command_has_a_row() {
    let dir = Path::new("/nonexistent");
    let tried: BTreeSet<String> = rows(dir)
        .into_iter()
        .map(|row| row.args[0].clone())
        .collect();
    for command in Cli::command().get_subcommands() {
        // `logs` becomes another program; the next test is its own.
        let name = command.get_name();
        assert!(tried.contains(name) || name == "logs", "{name}");
    }
}

#[tokio::test]
async fn journalctl_ends_by_the_signal_that_it_expects() {
    let host = Host::start().await;
    let ended: ExitStatus = run(&mut host.command("config.toml", &["logs"]), false, true)
        .await
        .status;
    assert_eq!(ended.signal(), Some(SIGPIPE), "{ended}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_not_a_panic() {
    let host = Host::start().await;
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = host.command("config.toml", &["units"]);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn();
    let output = child.unwrap().wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with("runner-controller: cannot write to standard output: "),
        "{said}"
    );
}

/// A terminal; when the first end is dropped, it hangs up.
fn terminal() -> (OwnedFd, Stdio) {
    let pty = nix::pty::openpty(None, None).unwrap();
    (pty.master, Stdio::from(pty.slave))
}

#[tokio::test]
async fn a_question_that_cannot_be_seen_is_not_answered() {
    let host = Host::start().await;
    host.plant_stale_runner();
    let (_master, stdin) = terminal();
    let mut command = host.command("config.toml", &["cleanup-github-runners"]);
    let output = run(command.stdin(stdin), false, true).await;
    assert_eq!(output.status.code(), Some(READER_GONE), "{output:?}");
    assert_eq!(host.github.control().runners().len(), 1);
}

#[tokio::test]
async fn a_terminal_that_hangs_up_does_not_say_yes() {
    let host = Host::start().await;
    host.plant_stale_runner();
    let (master, stdin) = terminal();
    drop(master);
    let mut command = host.command("config.toml", &["cleanup-github-runners"]);
    let output = run(command.stdin(stdin), true, true).await;
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
    assert_eq!(host.github.control().runners().len(), 1);
}
