//! Command line of the test bed: the test host, the demo, the system tests, the benchmark.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use testbed::bed::Bed;
use testbed::host::{self, TestHost};
use testbed::inner;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The bare test host
    Host {
        #[command(subcommand)]
        verb: HostVerb,
    },
    /// What runs on the way into the test host
    #[command(hide = true)]
    Inner {
        #[command(subcommand)]
        verb: InnerVerb,
    },
}

#[derive(Debug, Subcommand)]
enum HostVerb {
    /// Boot it, and build what is missing
    Up,
    /// Run a command in it as root
    Exec {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// A shell in it
    Shell,
    /// End it and remove what is left of it but the cache
    Down,
    /// Down, then delete the cache
    Purge,
}

#[derive(Debug, Subcommand)]
enum InnerVerb {
    /// Become the systemd-nspawn of a test host
    Boot {
        /// How, as JSON
        spec: PathBuf,
    },
    /// Become a command in a test host
    Enter {
        /// Its process 1
        #[arg(long)]
        init: i32,
        /// The cgroup to join
        #[arg(long)]
        cgroup: PathBuf,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Host { verb } => on_host(&verb),
        Verb::Inner {
            verb: InnerVerb::Boot { spec },
        } => inner::boot(&spec).map(|()| ExitCode::SUCCESS),
        Verb::Inner {
            verb:
                InnerVerb::Enter {
                    init,
                    cgroup,
                    command,
                },
        } => inner::enter(init, &cgroup, &command).map(|()| ExitCode::SUCCESS),
    }
}

fn on_host(verb: &HostVerb) -> Result<ExitCode> {
    let bed = Bed::open()?;
    let running = || {
        TestHost::running(&bed)
            .context("no test host runs; `cargo run -p testbed -- host up` boots one")
    };
    match verb {
        HostVerb::Up => {
            let start = Instant::now();
            let host = TestHost::up(&bed)?;
            host::announce(&host, start.elapsed())?;
        }
        HostVerb::Exec { command } => return Err(running()?.command(command).exec().into()),
        HostVerb::Shell => return Err(running()?.command(&["bash", "-l"]).exec().into()),
        HostVerb::Down => {
            if let Some(host) = TestHost::running(&bed) {
                host.down()?;
            }
        }
        HostVerb::Purge => host::purge(&bed)?,
    }
    Ok(ExitCode::SUCCESS)
}
