//! The runner root and its files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use github_sim::{
    jit_config,
    wire::{CredentialsFile, RsaParametersFile, RunnerFile},
};
use serde::de::DeserializeOwned;

use crate::Environment;

/// The directory that holds the listener's files.
pub(crate) struct Root(PathBuf);

/// Contents of a JIT config, read back from the root.
pub(crate) struct Configuration {
    pub(crate) runner: RunnerFile,
    pub(crate) credentials: CredentialsFile,
    pub(crate) key: RsaParametersFile,
}

/// Failure to use the runner root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("cannot find the runner root")]
    NoRoot(#[source] std::io::Error),
    #[error("cannot read the JIT config: {0}")]
    Config(#[from] jit_config::JitConfigError),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, std::io::Error),
    #[error("Not configured. Run config.(sh/cmd) to configure the runner.")]
    NotConfigured,
    #[error("cannot read {0}: {1}")]
    Parse(PathBuf, serde_json::Error),
}

impl Root {
    /// Returns `$RUNNER_ROOT`, or the parent of this program's directory.
    pub(crate) fn find(env: &Environment) -> Result<Self, RootError> {
        if let Some(root) = env.get("RUNNER_ROOT").filter(|root| !root.is_empty()) {
            return Ok(Self(root.into()));
        }
        let program = std::env::current_exe().map_err(RootError::NoRoot)?;
        let root = program
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/"));
        Ok(Self(root.into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Adds the lines `KEY=VALUE` of `.env`, which win over the environment. A comment is a key like any
    /// other, and `.path` is not read.
    pub(crate) fn load_env(&self, env: &mut Environment) {
        let lines = fs::read_to_string(self.0.join(".env")).unwrap_or_default();
        for (key, value) in lines.lines().filter_map(|line| line.split_once('=')) {
            if !key.is_empty() {
                env.insert(key.into(), value.into());
            }
        }
    }

    /// Writes the files of a JIT config with the process's umask: readable by every user, by default.
    pub(crate) fn store(&self, config: &str) -> Result<(), RootError> {
        for (name, content) in jit_config::decode(config)? {
            let path = self.0.join(name);
            fs::write(&path, content).map_err(|error| RootError::Write(path, error))?;
        }
        Ok(())
    }

    /// Reads the files of a JIT config.
    pub(crate) fn load(&self) -> Result<Configuration, RootError> {
        Ok(Configuration {
            runner: self.read(jit_config::FILES[0])?,
            credentials: self.read(jit_config::FILES[1])?,
            key: self.read(jit_config::FILES[2])?,
        })
    }

    /// Removes the files that make this root a configured runner.
    pub(crate) fn forget(&self) {
        for name in jit_config::FILES {
            let _ = fs::remove_file(self.0.join(name));
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, RootError> {
        let path = self.0.join(name);
        let text = fs::read(&path).map_err(|_| RootError::NotConfigured)?;
        serde_json::from_slice(&text).map_err(|error| RootError::Parse(path, error))
    }
}
