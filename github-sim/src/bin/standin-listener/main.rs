//! A stand-in for the runner's `Runner.Listener`: one small synchronous program with the same
//! arguments, files, log lines and exit codes.
//!
//! ```text
//! main ── root: JIT config or files of the runner root
//!   └── listen: session, polls, signals ──offer──▶ job: acquire, renew, cancel, report
//!                                                    └── worker (own process): hooks and steps
//! ```

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod broker;
mod clocks;
mod job;
mod libraries;
mod listen;
mod log;
mod root;
mod signals;
mod worker;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{Arc, mpsc},
};

use listen::ListenerEvent;
use root::{Root, RootError};

/// Version of GitHub's listener that the stand-in claims to be.
const VERSION: &str = "2.336.0";

/// Exit codes, as in `Constants.Runner.ReturnCode` of actions/runner.
mod code {
    pub(crate) const SUCCESS: u8 = 0;
    pub(crate) const TERMINATED: u8 = 1;
    pub(crate) const RETRYABLE: u8 = 2;
    pub(crate) const SESSION_CONFLICT: u8 = 5;
    pub(crate) const VERSION_DEPRECATED: u8 = 7;
    /// Result of a job whose lock the server does not renew. The other results are in `JobResult`.
    pub(crate) const ABANDONED: u8 = 105;

    /// Returns the code after a signal: .NET ends with 128 and the number of SIGTERM, and GitHub's
    /// listener handles SIGINT.
    pub(crate) fn after(signal: i32) -> u8 {
        if signal == signal_hook::consts::SIGTERM {
            143
        } else {
            SUCCESS
        }
    }
}

/// The listener's environment, with the additions of `.env`.
type Environment = BTreeMap<String, String>;

fn main() -> ExitCode {
    if !libraries::has_icu() {
        libraries::abort();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(match args.first().map(String::as_str) {
        Some("--version") => match stdio::print_line(VERSION) {
            Ok(()) => code::SUCCESS,
            Err(_) => code::TERMINATED,
        },
        Some("warmup") => code::SUCCESS,
        Some("worker") => worker::main(),
        Some("run") => run(&args[1..]),
        None => run(&[]),
        Some(flag) if flag.starts_with("--") => run(&args),
        Some(other) => {
            stdio::error(format_args!(
                "Unrecognized command-line input arguments: '{other}'."
            ));
            code::TERMINATED
        }
    })
}

/// Returns a flag's value, from `--name value` or `--name=value`.
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
    let mut env: Environment = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    // Removed before a child can inherit it. The kernel still shows it in /proc/PID/environ to the
    // same user, as it does for GitHub's listener.
    let from_env = env.remove("ACTIONS_RUNNER_INPUT_JITCONFIG");
    let config = option(args, "jitconfig").or(from_env);
    let root = match Root::find(&env) {
        Ok(root) => root,
        Err(error) => {
            stdio::error(error);
            return code::TERMINATED;
        }
    };
    root.load_env(&mut env);
    let allowed = env
        .get("RUNNER_ALLOW_RUNASROOT")
        .is_some_and(|value| !value.is_empty());
    if nix::unistd::geteuid().is_root() && !allowed {
        stdio::error("Must not run interactively with sudo");
        return code::TERMINATED;
    }
    let (sender, events) = mpsc::channel();
    let on_signal = sender.clone();
    let watched = signals::forward(move |signal| {
        // The receiver is gone only when the program is about to end.
        let _ = on_signal.send(ListenerEvent::Signal(signal));
    });
    if let Err(error) = watched {
        stdio::error(format_args!("cannot watch for signals: {error}"));
        return code::RETRYABLE;
    }
    let log = log::ListenerLog::open(root.path());
    if let Some(config) = config.filter(|config| !config.is_empty())
        && let Err(error) = root.store(&config)
    {
        // .NET's exception for a root that cannot be written is caught nowhere.
        if let RootError::Write(_, error) = &error {
            log::abort(error);
        }
        log.error(&format!("An error occurred: {error}"));
        return code::TERMINATED;
    }
    let configuration = match root.load() {
        Ok(configuration) => configuration,
        Err(error) => {
            log.error(&error.to_string());
            return code::TERMINATED;
        }
    };
    let listener = listen::ListenerContext {
        root,
        configuration: Arc::new(configuration),
        clocks: clocks::Clocks::of(&env),
        env,
        log,
    };
    listen::run(&listener, sender, &events)
}
