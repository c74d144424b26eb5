//! Helpers that several commands share.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::prctl::set_dumpable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{self, API_SOCKET, DEFAULT_RUN_DIR};
use crate::terminal;

/// Exit status of a wait that reached its time limit.
pub(super) const NOT_IN_TIME: u8 = 3;

/// Returns the daemon's API socket. Without a valid configuration it is the default one, because
/// operators ask for the status when something is wrong.
pub(super) fn api_socket(config_path: &Path) -> PathBuf {
    config::load(config_path).map_or_else(
        |_| Path::new(DEFAULT_RUN_DIR).join(API_SOCKET),
        |config| config.api_socket(),
    )
}

/// Runs a command's asynchronous part on this thread.
pub(super) fn block_on<T>(task: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    Ok(runtime.block_on(task))
}

/// Asks for confirmation on the terminal. Without a terminal, fails unless `yes` is given.
pub(super) fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("cannot ask \"{question}\": standard input is not a terminal; give --yes to confirm");
    }
    stdio::print(format_args!("{question} [y/N] "))?;
    let mut answer = String::new();
    stdin
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Returns a document with every text safe for a terminal.
///
/// Names and messages come from jobs, GitHub and systemd. Each was checked when it came in; this is
/// the last place before the terminal.
pub(super) fn plain<T: Serialize + DeserializeOwned>(document: &T) -> serde_json::Result<T> {
    fn walk(value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(terminal::plain(&text).into_owned()),
            Value::Array(list) => list.into_iter().map(walk).collect(),
            Value::Object(map) => {
                let plain = |(key, value): (String, Value)| {
                    (terminal::plain(&key).into_owned(), walk(value))
                };
                map.into_iter().map(plain).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }
    serde_json::from_value(walk(serde_json::to_value(document)?))
}

/// Returns a duration in its two largest units, for example `1h 1m`.
pub(super) fn span(millis: u64) -> String {
    let rounded = if millis < 1000 {
        Duration::from_millis(millis / 100 * 100)
    } else {
        Duration::from_secs(millis / 1000)
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Keeps this process's memory, GitHub's credentials included, from core dumps and from debuggers of
/// the daemon's user.
pub(super) fn forbid_core_dumps() -> anyhow::Result<()> {
    set_dumpable(false).context("cannot forbid core dumps")
}
