//! The commands that people type. Each reads the configuration and asks the daemon, or the world
//! itself when there is no daemon.

mod check_config;
mod cleanup_all;
mod cleanup_github;
mod drain;
mod logs;
mod run;
mod status;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::config::{self, Config};

pub use check_config::check_config;
pub use cleanup_all::cleanup_all_containers;
pub use cleanup_github::cleanup_github_runners;
pub use drain::{drain, undrain};
pub use logs::{Reading, Whose, logs};
pub use run::run;
#[cfg(any(test, fuzzing))]
pub(crate) use status::try_status;
pub use status::{await_well, status};

/// The daemon's socket. Found without a good configuration too: asking how things are must work
/// when they are not well.
fn socket(config_path: &Path) -> PathBuf {
    let fallback = || PathBuf::from("/run/runner-controller/api.sock");
    config::load(config_path).map_or_else(|_| fallback(), |config| config.api_socket())
}

/// A runtime for a command that waits for one thing after the other.
fn block_on<T>(task: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime")?;
    Ok(runtime.block_on(task))
}

fn load(path: &Path) -> anyhow::Result<Config> {
    Ok(config::load(path)?)
}

/// Asks on the terminal. Without one, nothing is destroyed unless `yes` was given.
fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("{question} There is no terminal to ask on; give --yes to go ahead");
    }
    stdio::print(format_args!("{question} [y/N] "))?;
    let mut answer = String::new();
    stdin
        .lock()
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
