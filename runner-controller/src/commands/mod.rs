//! The commands of the program. Each reads the configuration and asks the daemon, or acts on the host
//! itself.

mod check_config;
mod cleanup_all;
mod cleanup_github;
mod drain;
mod logs;
mod run;
mod status;
mod table;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::config::{self, API_SOCKET, DEFAULT_RUN_DIR};

pub use check_config::check_config;
pub use cleanup_all::cleanup_all_containers;
pub use cleanup_github::cleanup_github_runners;
pub use drain::{drain, undrain};
pub use logs::{LogOptions, LogTarget, logs};
pub use run::run;
#[cfg(any(test, fuzzing))]
pub(crate) use status::try_status;
pub use status::{status, wait_until_ready};

/// Exit status of a wait that reached its time limit.
const NOT_IN_TIME: u8 = 3;

/// Returns the daemon's API socket. Without a valid configuration it is the default one, because
/// operators ask for the status when something is wrong.
fn api_socket(config_path: &Path) -> PathBuf {
    config::load(config_path).map_or_else(
        |_| Path::new(DEFAULT_RUN_DIR).join(API_SOCKET),
        |config| config.api_socket(),
    )
}

/// Runs a command's asynchronous part on this thread.
fn block_on<T>(task: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    Ok(runtime.block_on(task))
}

/// Asks for confirmation on the terminal. Without a terminal, fails unless `yes` is given.
fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
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
