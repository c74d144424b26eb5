//! A stand-in for the runner's `Runner.Listener`: same call, same files, same log lines, same
//! exit codes, one small synchronous program.
//!
//! ```text
//! main ── settings: blob or files of the runner root
//!   └── listen: session, polls, signals ──offer──▶ job: acquire, renew, cancel, report
//!                                                    └── worker (own process): hooks and steps
//! ```

mod broker;
mod job;
mod listen;
mod log;
mod settings;
mod signals;
mod worker;

use std::{collections::BTreeMap, process::ExitCode, sync::mpsc};

use settings::Root;

/// The release of the real listener that this one claims to be.
const VERSION: &str = "2.336.0";

/// Exit codes, as in `Constants.Runner.ReturnCode` of actions/runner.
mod code {
    pub(crate) const SUCCESS: u8 = 0;
    pub(crate) const TERMINATED: u8 = 1;
    pub(crate) const RETRYABLE: u8 = 2;
    pub(crate) const SESSION_CONFLICT: u8 = 5;
    pub(crate) const VERSION_DEPRECATED: u8 = 7;
}

/// The environment as the listener sees it: its own, and what `.env` and `.path` add.
type Env = BTreeMap<String, String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(match args.first().map(String::as_str) {
        Some("--version") => {
            println!("{VERSION}");
            code::SUCCESS
        }
        Some("warmup") => code::SUCCESS,
        Some("worker") => worker::main(),
        Some("run") => run(&args[1..]),
        None => run(&[]),
        Some(flag) if flag.starts_with("--") => run(&args),
        Some(other) => {
            eprintln!("Unrecognized command-line input arguments: '{other}'.");
            code::TERMINATED
        }
    })
}

/// A flag's value, from `--name value` or `--name=value`.
fn option(args: &[String], name: &str) -> Option<String> {
    let flag = format!("--{name}");
    let joined = format!("--{name}=");
    args.iter()
        .position(|arg| *arg == flag)
        .and_then(|at| args.get(at + 1).cloned())
        .or_else(|| {
            args.iter()
                .find_map(|arg| arg.strip_prefix(&joined).map(Into::into))
        })
}

fn run(args: &[String]) -> u8 {
    let mut env: Env = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    // Taken out before anything else can inherit it. (The kernel still shows it in
    // /proc/PID/environ to the same user, as it does for the real one.)
    let from_env = env.remove("ACTIONS_RUNNER_INPUT_JITCONFIG");
    let blob = option(args, "jitconfig").or(from_env);
    let root = match Root::find(&env) {
        Ok(root) => root,
        Err(error) => {
            eprintln!("{error}");
            return code::TERMINATED;
        }
    };
    root.load_env(&mut env);
    let allowed = env
        .get("RUNNER_ALLOW_RUNASROOT")
        .is_some_and(|value| !value.is_empty());
    if nix::unistd::geteuid().is_root() && !allowed {
        eprintln!("Must not run interactively with sudo");
        return code::TERMINATED;
    }
    let (sender, events) = mpsc::channel();
    let on_signal = sender.clone();
    let watched = signals::forward(move || {
        // Nobody listens any more when the program is about to end.
        let _ = on_signal.send(listen::Event::Signal);
    });
    if let Err(error) = watched {
        eprintln!("cannot watch for signals: {error}");
        return code::RETRYABLE;
    }
    let log = log::Log::open(root.path());
    if let Some(blob) = blob.filter(|blob| !blob.is_empty())
        && let Err(error) = root.store(&blob)
    {
        log.error(&format!("An error occurred: {error}"));
        return code::TERMINATED;
    }
    let settings = match root.load() {
        Ok(settings) => settings,
        Err(error) => {
            log.error(&format!("{error}"));
            return code::TERMINATED;
        }
    };
    let listener = listen::Listener {
        root,
        settings,
        env,
        log,
    };
    listen::run(&listener, sender, &events)
}
