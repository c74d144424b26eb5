//! Command line of the test bed: the test host, the demo, the system tests, the benchmark.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use stdio::PrintError;
use testbed::bed::{Bed, Lock};
use testbed::bench;
use testbed::binaries::{Profile, Programs};
use testbed::checks::imports;
use testbed::checks::language::{self, Audience};
use testbed::host::{self, TestHost};
use testbed::release::Release;
use testbed::verify::{self, Part, Selection};
use testbed::{attack, chaos, dashboard, demo, inner, net, pictures, record, supervise};

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
        /// Release of the test host
        #[arg(long, value_enum, default_value_t)]
        host: Release,
        #[command(subcommand)]
        verb: HostVerb,
    },
    /// Watch twenty jobs run in as many containers, and see what that proves
    Demo {
        /// Leave the test host up, and say how to look around
        #[arg(long)]
        keep: bool,
        /// Run what is shipped, not what is quick to build
        #[arg(long)]
        release: bool,
        #[command(flatten)]
        programs: Programs,
    },
    /// Measure how fast runners follow each other, and what the daemon costs
    BenchLife(bench::Options),
    /// Measure how long a container boots, beside an older commit or by the profile of its image
    BenchBoot {
        /// The commit to compare with
        #[arg(long, value_name = "COMMIT", required_unless_present = "profiles")]
        against: Option<String>,
        /// Compare a stock with a minimal image, each beside a bare container of it
        #[arg(long, conflicts_with_all = ["against", "at_most"])]
        profiles: bool,
        /// Boots of each side, in turns; at least 15
        #[arg(long, default_value_t = 30)]
        pairs: usize,
        /// Fail if the median of the pairs' ratios is above this
        #[arg(long, default_value_t = 1.05)]
        at_most: f64,
        /// Write figures and samples here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Measure how soon a waiting job has a runner, and the cost of webhook deliveries
    BenchDemand(bench::demand::Options),
    /// Measure throughput and new connections of containers, beside an older commit
    BenchNetwork(bench::network::Options),
    /// Measure many runners on one host, beside as many bare containers
    BenchScale(bench::scale::Options),
    /// Check everything, and close with a count
    Verify {
        /// Nothing but this part
        #[arg(long, value_enum)]
        only: Option<Part>,
        /// Leave the test host up
        #[arg(long)]
        keep: bool,
        /// Test what is shipped, not what is quick to build
        #[arg(long)]
        release: bool,
        #[command(flatten)]
        programs: Programs,
        /// Release of the test host. Without it, a smaller part also runs on the newer one
        #[arg(long, value_enum)]
        host: Option<Release>,
        /// Only claims and tests whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Storm the walls: hostile programs in real containers, and each wall away in turn
    Attack {
        /// Say what there is, and run nothing
        #[arg(long)]
        list: bool,
        /// Write every run here
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Leave the test host up
        #[arg(long)]
        keep: bool,
        /// Attack what is shipped, not what is quick to build
        #[arg(long)]
        release: bool,
        /// Release of the test host
        #[arg(long, value_enum, default_value_t)]
        host: Release,
        /// Only attacks whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Write the Grafana dashboard into the repository
    Dashboard,
    /// Let things go wrong all the time while jobs flow, by a seed
    Chaos {
        /// Minutes of faults
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: u64,
        /// Seed of the faults; the same seed gives the same plan
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Leave the test host up
        #[arg(long)]
        keep: bool,
        /// Test what is shipped, not what is quick to build
        #[arg(long)]
        release: bool,
    },
    /// List prose that breaks the language rules
    Language {
        /// Files and directories; the whole repository by default
        paths: Vec<String>,
    },
    /// List files that import each other in a circle
    Imports,
    /// Take the pictures of the documentation: the page, and `runner-status --watch`
    Pictures,
    /// Record a command in a pseudo terminal as an animated SVG
    Record {
        /// SVG file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Columns of the terminal
        #[arg(long, default_value = "100")]
        columns: NonZeroU16,
        /// Rows of the terminal
        #[arg(long, default_value = "40")]
        rows: NonZeroU16,
        /// Command and its arguments
        #[arg(last = true, default_values = ["cargo", "demo"])]
        command: Vec<String>,
    },
    /// Prepare a process on the way into the test host
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
    /// Answer in a network of the test host
    Answer {
        /// Tell everybody who connects here from where they seem to come
        #[arg(long)]
        http: Vec<SocketAddr>,
        /// Resolve names here
        #[arg(long)]
        dns: Option<SocketAddr>,
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
    match run(Cli::parse_from(arguments(std::env::args())).command) {
        Ok(code) => code,
        Err(error) if matches!(error.downcast_ref(), Some(PrintError::ReaderGone)) => {
            ExitCode::from(stdio::READER_GONE)
        }
        Err(error) => {
            stdio::error(format_args!("testbed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// `cargo verify -- --only system` and `cargo verify --only system` mean the same: the alias ends
/// with a verb, so cargo passes a `--` on that would make everything after it positional.
fn arguments(given: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    given
        .enumerate()
        .filter(|(at, word)| *at != 2 || word != "--")
        .map(|(_, word)| word)
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Host { host, verb } => on_host(&verb, host),
        Verb::Demo {
            keep,
            release,
            programs,
        } => demo_with(&demo::Options {
            keep,
            profile: profile(release),
            programs,
        }),
        Verb::BenchLife(options) => supervised(false, || bench::bench(&options)),
        Verb::BenchBoot {
            against,
            profiles: _,
            pairs,
            at_most,
            json,
        } => supervised(false, || match against {
            Some(against) => bench::against::bench(&bench::against::Options {
                against,
                pairs,
                at_most,
                json,
            }),
            None => bench::profiles::bench(pairs, json.as_deref()),
        }),
        Verb::BenchDemand(options) => supervised(false, || bench::demand::bench(&options)),
        Verb::BenchNetwork(options) => supervised(false, || bench::network::bench(&options)),
        Verb::BenchScale(options) => supervised(false, || bench::scale::bench(&options)),
        Verb::Verify {
            only,
            keep,
            release,
            programs,
            host,
            filter,
        } => {
            let selection = Selection {
                only,
                filter,
                keep,
                profile: profile(release),
                programs,
                host,
            };
            supervised(keep, || verify::verify(&selection))
        }
        Verb::Attack {
            list,
            json,
            keep,
            release,
            host,
            filter,
        } => attack_with(&attack::Options {
            host,
            filter,
            list,
            json,
            keep,
            profile: profile(release),
        }),
        Verb::Chaos {
            minutes,
            seed,
            keep,
            release,
        } => chaos_with(chaos::Options {
            length: Duration::from_mins(minutes),
            seed,
            keep,
            profile: profile(release),
        }),
        Verb::Dashboard => write_dashboard(),
        Verb::Language { paths } => list_language(&paths),
        Verb::Imports => list_imports(),
        Verb::Pictures => supervised(false, || pictures::take().map(|()| true)),
        Verb::Record {
            file,
            columns,
            rows,
            command,
        } => {
            let options = record::Options {
                file,
                columns,
                rows,
                command,
            };
            record::record(&options).map(|()| ExitCode::SUCCESS)
        }
        Verb::Inner { verb } => on_the_way_in(&verb).map(|()| ExitCode::SUCCESS),
    }
}

fn demo_with(options: &demo::Options) -> Result<ExitCode> {
    supervised(options.keep, || demo::demo(options))
}

fn chaos_with(options: chaos::Options) -> Result<ExitCode> {
    supervised(options.keep, || chaos::chaos(options))
}

fn attack_with(options: &attack::Options) -> Result<ExitCode> {
    if options.list {
        return attack::attack(options).map(|_| ExitCode::SUCCESS);
    }
    supervised(options.keep, || attack::attack(options))
}

fn write_dashboard() -> Result<ExitCode> {
    let path = dashboard::write()?;
    stdio::progress(format_args!("wrote {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Prints every broken language rule below the paths, and a count.
fn list_language(paths: &[String]) -> Result<ExitCode> {
    let findings = language::findings(paths)?;
    let shown = findings
        .iter()
        .filter(|finding| finding.audience == Audience::Users)
        .count();
    for finding in &findings {
        stdio::print_line(finding)?;
    }
    let rest = findings.len() - shown;
    stdio::print_line(format_args!(
        "{shown} in text that is shown, {rest} in comments"
    ))?;
    Ok(ExitCode::from(u8::from(!findings.is_empty())))
}

/// Prints every circle of imports, and a count.
fn list_imports() -> Result<ExitCode> {
    let circles = imports::circles()?;
    for circle in &circles {
        stdio::print(circle)?;
    }
    stdio::print_line(format_args!("{} circles", circles.len()))?;
    Ok(ExitCode::from(u8::from(!circles.is_empty())))
}

fn profile(release: bool) -> Profile {
    if release {
        Profile::Release
    } else {
        Profile::Dev
    }
}

/// Runs a command that boots a host. None is left, whether it ends, fails or is interrupted.
fn supervised(keep: bool, work: impl FnOnce() -> Result<bool>) -> Result<ExitCode> {
    if supervise::is_worker() {
        return Ok(if work()? {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    supervise::supervise(|| {
        if keep {
            Ok(())
        } else {
            Bed::all()?.iter().try_for_each(end_unless_in_use)
        }
    })
}

/// Ends a bed's host, unless another command works on it.
fn end_unless_in_use(bed: &Bed) -> Result<()> {
    match bed.try_lock(Lock::Work)? {
        Some(_held) => host::end(bed),
        None => Ok(()),
    }
}

fn on_the_way_in(verb: &InnerVerb) -> Result<()> {
    match verb {
        InnerVerb::Boot { spec } => inner::boot(spec),
        InnerVerb::Answer { http, dns } => net::answer(http, *dns),
        InnerVerb::Enter {
            init,
            cgroup,
            command,
        } => inner::enter(*init, cgroup, command),
    }
}

fn on_host(verb: &HostVerb, release: Release) -> Result<ExitCode> {
    let bed = Bed::of(release)?;
    let running = || {
        TestHost::running(&bed)
            .context("no test host runs; `cargo run -p testbed -- host up` boots one")
    };
    match verb {
        HostVerb::Up => {
            let start = Instant::now();
            let host = TestHost::up(&bed)?;
            net::bring_up(&host)?;
            host::announce(&host, start.elapsed())?;
        }
        HostVerb::Exec { command } => return Err(running()?.command(command).exec().into()),
        HostVerb::Shell => return Err(running()?.command(&["bash", "-l"]).exec().into()),
        HostVerb::Down => host::end(&bed)?,
        HostVerb::Purge => host::purge(&bed)?,
    }
    Ok(ExitCode::SUCCESS)
}
