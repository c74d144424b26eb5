//! Helpers that several commands share.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::prctl::set_dumpable;

use crate::config::{self, API_SOCKET, DEFAULT_RUN_DIR};

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

/// Keeps this process's memory, GitHub's credentials included, from core dumps and from debuggers of
/// the daemon's user.
pub(super) fn forbid_core_dumps() -> anyhow::Result<()> {
    set_dumpable(false).context("cannot forbid core dumps")
}
