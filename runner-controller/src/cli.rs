//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::commands::{LogTarget, Subject};
use crate::config::{ByteSize, DEFAULT_PATH};
use crate::pool::{PoolName, Slot, Verdict};

/// Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job.
#[derive(Debug, Parser)]
#[command(name = "runner-controller", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands of the program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon. systemd starts it as runner-controller.service.
    Run,
    /// Check a configuration file and report all its mistakes.
    CheckConfig {
        /// File to check [default: the file of --config].
        file: Option<PathBuf>,
        /// Also check files of this host: the token, the images and the Nix store.
        #[arg(long)]
        host: bool,
    },
    /// Check everything that can be wrong on this host and at GitHub, and tell cause and fix of each finding. Needs no
    /// daemon; as another user than root, it checks less. Exits with status 0 without a problem, with 1 with one, and
    /// with 2 if the daemon does not answer.
    Doctor {
        /// Print the findings as JSON. The exit status stays the same.
        #[arg(long)]
        json: bool,
        /// Offer the repairs that are safe, then check again. No repair ends a job.
        #[arg(long, conflicts_with = "json")]
        fix: bool,
        /// With --fix: repair without asking.
        #[arg(long, short, requires = "fix")]
        yes: bool,
    },
    /// Print a page of the documentation of this version, such as `firewall`, or the runbook of an alert. Without a
    /// page, list them all.
    Docs {
        /// Page to print.
        page: Option<String>,
    },
    /// Write an archive for another engineer: configuration, status, history, units, journal, host and the report of
    /// doctor, without secrets. Needs root, who can read the secrets that must not be in it.
    SupportBundle {
        /// File to write, such as `bundle.tar.gz`. It must not exist.
        file: PathBuf,
    },
    /// Bring this host to its configuration: check it, install the host files, restart firewall and daemon,
    /// and remove what removed pools left. Running jobs continue. For hosts without the NixOS module.
    Apply {
        /// Program that the units start [default: this program].
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Show the pools, their runners and every problem. Needs neither a token nor the network. Exits with status 0
    /// if the host is healthy, with 1 if it has a problem, and with 2 if the daemon does not answer.
    Status {
        /// Print the whole status document as JSON. Exits with status 0 whatever the document tells.
        #[arg(long, conflicts_with_all = ["pool", "all"])]
        json: bool,
        /// Show only this pool and its runners. Problems of the host are always shown.
        #[arg(long, value_name = "NAME")]
        pool: Option<String>,
        /// Show the last 20 verdicts instead of 8.
        #[arg(long)]
        all: bool,
        /// Show the status live, with filters, orders, and each runner's detail and log, until the key q. Needs a
        /// terminal; colours are left out if `NO_COLOR` is set.
        #[arg(long, conflicts_with_all = ["json", "all", "wait"])]
        watch: bool,
        /// Wait until the host takes jobs: no problem is known, GitHub has answered, and each pool has
        /// an idle runner. Exits with status 3 if this takes longer than DURATION.
        #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", conflicts_with_all = ["json", "pool", "all"])]
        wait: Option<Duration>,
    },
    /// Show the jobs of GitHub's queue: those that wait and why, those that run here, and the last ones. Needs
    /// [webhook], and neither a token nor the network.
    Jobs {
        /// Print the jobs as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the plan: the numbers of runners that each pool should have now, the next steps, and why there are no more.
    /// Needs neither a token nor the network.
    Plan {
        /// Print the plan as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Test the hook of GitHub's deliveries: show which pool serves a job and why others do not, and send the listener a
    /// signed ping. Needs [webhook], and root, who can read the secret. Exits with status 1 if no pool serves the job.
    WebhookTest(WebhookTestArgs),
    /// Show the logs of runners: messages of their units, and what the runners write to the console. The
    /// host's journal keeps them after a container's end. For a runner that ended, also show the log files of
    /// its listener, if `[logs]` keeps them.
    Logs {
        /// Slot (`ci-3`), pool (`ci`), name of a runner at GitHub, or URL of a workflow run or job
        /// [default: all pools].
        #[arg(value_name = "SLOT|POOL|RUNNER|URL")]
        target: Option<LogTarget>,
        /// Print only the kept log files of the listener, for a slot those of the newest end.
        #[arg(long, conflicts_with_all = ["follow", "lines"])]
        kept: bool,
        /// Print new lines as they arrive.
        #[arg(long, short)]
        follow: bool,
        /// Print only the newest COUNT lines.
        #[arg(long, short = 'n', value_name = "COUNT")]
        lines: Option<u32>,
        /// Has no effect, because logs always come from the host's journal.
        #[arg(long, hide = true)]
        host: bool,
    },
    /// Show the runners that ended, newest first: verdict, job, times and resources.
    History(HistoryArgs),
    /// Predict how long jobs wait on a host like this one, how many runners they need, and what one more host brings.
    /// Simulates the jobs of the history, or those of a workload file, on the core of the daemon.
    Size(SizeArgs),
    /// Show one runner from its start to its verdict: its phases, causes and cost, the journal's lines about it,
    /// and what to do next.
    Explain {
        /// Slot (`ci-3`), name of a runner at GitHub, or URL of a workflow run or job.
        #[arg(value_name = "SLOT|RUNNER|URL")]
        subject: Subject,
        /// Leave out the journal's lines.
        #[arg(long)]
        no_journal: bool,
    },
    /// Stop starting runners and end all runners without a job. Running jobs finish.
    Drain {
        /// Wait until the last runner has ended.
        #[arg(long)]
        wait: bool,
        /// With --wait: stop waiting after DURATION and exit with status 3.
        #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", requires = "wait")]
        timeout: Option<Duration>,
    },
    /// End a drain: start runners again and reset every backoff.
    Undrain,
    /// Delete offline and stale runners of this host at GitHub. Lists them and asks first. Keeps
    /// runners of other hosts, busy runners and runners that have a container here.
    CleanupGithubRunners {
        /// Confirmation.
        #[command(flatten)]
        confirm: Confirm,
        /// Only the scope with this name in the configuration. Without it, all scopes in their order.
        #[arg(long, value_name = "NAME")]
        scope: Option<String>,
    },
    /// Destroy every container of this host, jobs included, deregister their runners, and check that
    /// nothing is left. The pools refill unless --stay-down is given.
    CleanupAllContainers {
        /// Confirmation.
        #[command(flatten)]
        confirm: Confirm,
        /// Start no runners afterwards.
        #[arg(long)]
        stay_down: bool,
    },
    /// Print the host files of a configuration: units, slices, firewall and polkit rules. For hosts
    /// without the NixOS module.
    Units {
        /// Write the files below DIR (`/` for this host) instead of printing them.
        #[arg(long, value_name = "DIR")]
        install_root: Option<PathBuf>,
        /// Program that the units start [default: this program].
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Turn a root filesystem with systemd into a runner image: install the runner's unit and hook, add
    /// a user for jobs, and mask units that delay the boot.
    PrepareImage {
        /// Directory of the root filesystem.
        dir: PathBuf,
        /// Let jobs become root in their container with sudo, without a password.
        #[arg(long)]
        sudo: bool,
        /// Set up the image's Nix for pools with nix = true.
        #[arg(long)]
        nix: bool,
        /// Set up the image's Docker for pools with docker = true.
        #[arg(long)]
        docker: bool,
        /// Boot the runner first, and the rest of the system when the runner has its config.
        #[arg(long)]
        minimal: bool,
    },
    /// Write the manual pages of the program, its commands and its other names.
    Man {
        /// Directory to write to; it is created if missing.
        dir: PathBuf,
    },
    /// Write shell completions of the program and its other names.
    Completions {
        /// Shell to complete in.
        shell: clap_complete::Shell,
        /// Directory to write to; it is created if missing. Files get the names that the shell expects.
        dir: PathBuf,
    },
    /// Compare the loaded firewall with the configuration, rule by rule, and report to the daemon. Needs
    /// root. The firewall's service does the same every 15 seconds.
    CheckFirewall,
    /// Own the firewall's table. Needs root; `ExecStart=` of the firewall's unit.
    #[command(hide = true)]
    Firewall,
    /// Become the container of a slot. Needs root; `ExecStart=` of the slot's unit.
    #[command(hide = true)]
    Launch(SlotArgs),
    /// Tell systemd that a container and its network are ready. A child of `launch`.
    #[command(hide = true)]
    RelayReady,
    /// Copy the console of a container to the journal, bounded in bytes. A child of `launch`.
    #[command(hide = true)]
    RelayConsole(RelayArgs),
    /// Set the addresses of a container that is ready. Needs root; a child of `launch`.
    #[command(hide = true)]
    Connect(SlotArgs),
    /// Hold the mounts of containers until their units are gone. Needs no privilege; `ExecStart=` of the holder's unit.
    #[command(hide = true)]
    HoldMounts,
    /// Record the end of a container and sweep its slot. Needs root; `ExecStopPost=` of the slot's
    /// unit.
    #[command(hide = true)]
    Sweep(SlotArgs),
    /// Sweep slots that no pool has any more. Needs root; `ExecStartPre=` of the daemon's unit.
    #[command(hide = true)]
    SweepUnowned,
}

/// Files of what a console tells.
#[derive(Debug, Clone, Args)]
pub struct RelayArgs {
    /// File for the last line.
    pub last_line: PathBuf,
    /// File for the time at which the listener listened.
    pub listening: PathBuf,
    /// File for the disk and network that the runner uses.
    pub usage: PathBuf,
    /// Root directory of the container.
    pub root: PathBuf,
    /// Network link of the container.
    pub link: String,
}

/// Job of a test of the hook.
#[derive(Debug, Clone, Args)]
pub struct WebhookTestArgs {
    /// Labels of the job, separated by commas [default: those of each pool in turn].
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// File with the payload of a `workflow_job` delivery. Its ids are replaced, so it changes no real job.
    #[arg(long, value_name = "FILE")]
    pub event: Option<PathBuf>,
    /// Repository of the job [default: one of the only scope, or of the pool's].
    #[arg(long, value_name = "OWNER/NAME", conflicts_with = "event")]
    pub repository: Option<String>,
    /// Tell the daemon of the job and of its end at once. Nothing starts because of it.
    #[arg(long)]
    pub send: bool,
}

/// Runners to show, and the form of the output.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// Slot (`ci-3`) or name of a runner at GitHub [default: all].
    pub runner: Option<String>,
    /// Show only runners of this pool.
    #[arg(long)]
    pub pool: Option<PoolName>,
    /// Show only runners with this verdict, such as `boot_timeout`.
    #[arg(long, value_parser = verdicts())]
    pub verdict: Option<Verdict>,
    /// Show only runners that had a job of this repository.
    #[arg(long, value_name = "OWNER/NAME")]
    pub repo: Option<String>,
    /// Show only runners that ended within this time, such as `2h` or `7days`.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub since: Option<Duration>,
    /// Show only runners that failed, or whose job failed or was cut short.
    #[arg(long)]
    pub failed: bool,
    /// Maximum number of runners.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
    pub lines: usize,
    /// Print a JSON array with every known value.
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print comma-separated values with a header.
    #[arg(long)]
    pub csv: bool,
}

/// Jobs and host of a simulation.
#[derive(Debug, Clone, Args)]
pub struct SizeArgs {
    /// Simulate the jobs of this file instead of those of the history. `runner-controller docs sizing` has an example.
    /// The daemon need
    /// not run.
    #[arg(long, value_name = "FILE")]
    pub workload: Option<PathBuf>,
    /// Take jobs and times from the runners that ended within this time.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", default_value = "7days")]
    pub since: Duration,
    /// Time in which jobs of the workload file come.
    #[arg(long = "for", value_parser = humantime::parse_duration, value_name = "DURATION", default_value = "7days")]
    pub span: Duration,
    /// Also find the number of runners with which 95 % of the jobs wait no longer than DURATION.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub target_wait: Option<Duration>,
    /// Seed of the random numbers. Equal seeds give equal results.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Cores of the host [default: those of this machine].
    #[arg(long, value_name = "COUNT")]
    pub cores: Option<u16>,
    /// Memory of the host, such as `64GiB` [default: that of this machine, if it has a history].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
    /// Time of a boot [default: as in the history, or 400ms].
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub boot: Option<Duration>,
    /// Time of a registration, until the runner listens [default: as in the history, or 2s].
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub register: Option<Duration>,
    /// Time from the moment at which a runner gets a job until the job runs [default: 1s].
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub start_job: Option<Duration>,
    /// Time from the end of a job until its slot is vacant [default: 1s].
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub remove: Option<Duration>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Returns the parser of a verdict, which lists all verdicts for help and in an error.
fn verdicts() -> impl TypedValueParser<Value = Verdict> {
    let names = Verdict::ALL.iter().map(AsRef::<str>::as_ref);
    PossibleValuesParser::new(names).try_map(|name| name.parse())
}

/// Slot that root's steps act on.
#[derive(Debug, Clone, Args)]
pub struct SlotArgs {
    /// Name of the pool.
    pub pool: PoolName,
    /// Number of the slot.
    pub slot: Slot,
}

/// Confirmation of a command that destroys something.
#[derive(Debug, Clone, Copy, Args)]
pub struct Confirm {
    /// Do not ask for confirmation.
    #[arg(long, short)]
    pub yes: bool,
}

/// Names under which the program runs one of its commands, each with that command.
pub const NAMES: [(&str, &str); 4] = [
    ("runner-status", "status"),
    ("runner-logs", "logs"),
    ("cleanup-github-runners", "cleanup-github-runners"),
    ("cleanup-all-containers", "cleanup-all-containers"),
];

impl Cli {
    /// Reads the arguments. Under one of its other names, the program runs the command of that name.
    #[must_use]
    pub fn read() -> Self {
        Self::parse_from(multicall(std::env::args_os()))
    }
}

fn multicall(args: impl Iterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut args: Vec<_> = args.collect();
    let name = args
        .first()
        .map(PathBuf::from)
        .and_then(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    let command = name.and_then(|name| NAMES.iter().find(|(link, _)| name == *link));
    if let Some((_, command)) = command {
        // Help and errors name the program, since they name the command as well.
        args.splice(..1, ["runner-controller".into(), command.into()]);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_link_runs_the_command_of_its_name() {
        let args = |list: &[&str]| multicall(list.iter().map(Into::into));
        assert_eq!(
            args(&["/usr/bin/runner-status", "--json"]),
            ["runner-controller", "status", "--json"]
        );
        assert_eq!(args(&["runner-controller", "run"]).len(), 2);
    }

    #[test]
    fn a_slot_is_parsed_strictly() {
        assert!(Cli::try_parse_from(["runner-controller", "launch", "ci", "7"]).is_ok());
        for step in ["launch", "connect", "sweep"] {
            for slot in [
                "007",
                "0",
                "+3",
                "-3",
                " 3",
                "3 ",
                "3\n",
                "\t3",
                "3;x",
                "3.0",
                "0x3",
                "1000",
                "",
                "٣",
                "99999999999999999999",
            ] {
                let error =
                    Cli::try_parse_from(["runner-controller", step, "ci", slot]).unwrap_err();
                assert_eq!(error.exit_code(), 2, "{slot:?}");
            }
            for pool in ["c-i", "CI", "", "ci\n", "../ci", "a12345678", "1ci"] {
                assert!(
                    Cli::try_parse_from(["runner-controller", step, pool, "3"]).is_err(),
                    "{pool:?}"
                );
            }
            for extra in ["4", "--debug", "--help=x"] {
                assert!(
                    Cli::try_parse_from(["runner-controller", step, "ci", "3", extra]).is_err(),
                    "{extra:?}"
                );
            }
        }
    }
}
