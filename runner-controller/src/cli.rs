//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands::Whose;
use crate::config::DEFAULT_PATH;
use crate::pool::{PoolName, Slot};

/// Keeps a warm pool of ephemeral systemd-nspawn containers that each run one GitHub Actions job.
#[derive(Debug, Parser)]
#[command(name = "runner-controller", version, max_term_width = 100)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (systemd starts it).
    Run,
    /// Check a configuration and report every mistake at once.
    CheckConfig {
        /// The file; default is --config.
        file: Option<PathBuf>,
        /// Also check what only this host can tell: the token's file and the images.
        #[arg(long)]
        host: bool,
    },
    /// Show the pools, each container and what stands in the way. Needs no token and no network.
    Status {
        /// The whole document as JSON.
        #[arg(long)]
        json: bool,
        /// Wait until jobs are taken: nothing stands in the way, GitHub has answered, runners wait.
        /// Ends with 3 if that takes longer.
        #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", conflicts_with = "json")]
        wait: Option<Duration>,
    },
    /// Show what runners say: of a container that lives its own journal, of one that is gone the
    /// host's copy.
    Logs {
        /// A slot (`ci-3`) or a pool (`ci`); everybody if it is left out.
        #[arg(value_name = "SLOT")]
        whose: Option<Whose>,
        /// Go on with lines as they come.
        #[arg(long, short)]
        follow: bool,
        /// Only so many of the newest lines.
        #[arg(long, short = 'n', value_name = "COUNT")]
        lines: Option<u32>,
        /// The host's copy, even of a container that lives: what its unit says, and what the runner
        /// wrote to the console.
        #[arg(long)]
        host: bool,
    },
    /// Start no new runners and end those without a job. Jobs that run are left to finish.
    Drain {
        /// Wait until no container is left.
        #[arg(long)]
        wait: bool,
        /// With --wait: give up after this long, with exit status 3.
        #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", requires = "wait")]
        timeout: Option<Duration>,
    },
    /// Start new runners again, and forget every backoff.
    Undrain,
    /// Delete this host's offline and stale runners at GitHub. Lists them and asks first; touches
    /// no other host's, none that is busy, and none that a container here owns.
    CleanupGithubRunners(Confirm),
    /// Destroy every container of this host, jobs included, deregister their runners, and check
    /// that nothing is left. The pool refills unless --stay-down is given.
    CleanupAllContainers {
        /// Whether to ask first.
        #[command(flatten)]
        confirm: Confirm,
        /// Start nothing afterwards.
        #[arg(long)]
        stay_down: bool,
    },
    /// Print the units, slices, rules and tables for a configuration, for hosts without the Nix
    /// module.
    Units {
        /// Write them below this directory (`/` for this host) instead of printing them.
        #[arg(long, value_name = "DIR")]
        install_root: Option<PathBuf>,
        /// The program that the units start; default is this one.
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Make a root filesystem with systemd into an image: the runner's unit, its hook, a user for
    /// jobs, and a quick boot.
    PrepareImage {
        /// The root filesystem.
        dir: PathBuf,
        /// Let a job become root in its container without a password, if the image has sudo.
        #[arg(long)]
        sudo: bool,
        /// Let pools with nix = true use the image, which must have Nix in it.
        #[arg(long)]
        nix: bool,
        /// Let the jobs of pools with docker = true use the image's Docker, which must be in it.
        #[arg(long)]
        docker: bool,
    },
    /// Write manual pages: of this program, its commands, and its other names.
    Man {
        /// Where to; it is made if it is missing.
        dir: PathBuf,
    },
    /// Write a shell's completions of this program and its other names.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
        /// Where to; it is made if it is missing. Each file has the name that the shell looks for.
        dir: PathBuf,
    },
    /// Check that the loaded firewall is the configuration's, rule by rule, and let the daemon know
    /// (root). A timer does it every 15 seconds.
    CheckFirewall,
    /// Become the container of a slot (`ExecStart`= of its unit; root).
    #[command(hide = true)]
    Launch(SlotArgs),
    /// Give the started container its addresses (`ExecStartPost`= of its unit; root).
    #[command(hide = true)]
    Connect(SlotArgs),
    /// Record a container's end and remove what it left (`ExecStopPost`= of its unit; root).
    #[command(hide = true)]
    Sweep(SlotArgs),
    /// Remove what slots left that no pool owns any more (`ExecStartPre`= of the daemon; root).
    #[command(hide = true)]
    SweepUnowned,
}

/// Which slot.
#[derive(Debug, Clone, Args)]
pub struct SlotArgs {
    /// The pool.
    pub pool: PoolName,
    /// The slot's number.
    pub slot: Slot,
}

/// Whether to ask.
#[derive(Debug, Clone, Copy, Args)]
pub struct Confirm {
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
}

/// Commands that are also names of the program: the name, and the command it is.
pub const NAMES: [(&str, &str); 4] = [
    ("runner-status", "status"),
    ("runner-logs", "logs"),
    ("cleanup-github-runners", "cleanup-github-runners"),
    ("cleanup-all-containers", "cleanup-all-containers"),
];

impl Cli {
    /// Reads the arguments. Called by one of its other names, the program is that command.
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
        args.insert(1, command.into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_link_is_its_command() {
        let args = |list: &[&str]| multicall(list.iter().map(Into::into));
        assert_eq!(args(&["/usr/bin/runner-status", "--json"])[1], "status");
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
