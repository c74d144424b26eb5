//! The runner root: where it is, and what the files in it say.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use github_sim::{
    blob,
    wire::{CredentialsFile, RunnerFile},
};
use serde::de::DeserializeOwned;

use crate::Env;

/// The runner root.
pub(crate) struct Root(PathBuf);

/// What a JIT config says, read back from the root.
pub(crate) struct Settings {
    pub(crate) runner: RunnerFile,
    pub(crate) credentials: CredentialsFile,
    pub(crate) key: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot find the runner root")]
    NoRoot(#[source] std::io::Error),
    #[error("the JIT config cannot be read: {0}")]
    Config(#[from] blob::ConfigError),
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, std::io::Error),
    #[error("Not configured. Run config.(sh/cmd) to configure the runner.")]
    NotConfigured,
    #[error("{0} cannot be read: {1}")]
    Parse(PathBuf, serde_json::Error),
    #[error("{0} holds no key")]
    NoKey(PathBuf),
}

impl Root {
    /// `$RUNNER_ROOT`, or the parent of the directory of this program.
    pub(crate) fn find(env: &Env) -> Result<Self, SettingsError> {
        if let Some(root) = env.get("RUNNER_ROOT").filter(|root| !root.is_empty()) {
            return Ok(Self(root.into()));
        }
        let program = std::env::current_exe().map_err(SettingsError::NoRoot)?;
        let root = program
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/"));
        Ok(Self(root.into()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Adds `.env` (lines of `KEY=VALUE`, for keys that are not set) and `.path`.
    pub(crate) fn load_env(&self, env: &mut Env) {
        let lines = fs::read_to_string(self.0.join(".env")).unwrap_or_default();
        for (key, value) in lines.lines().filter_map(|line| line.split_once('=')) {
            if !key.is_empty() && !key.starts_with('#') {
                env.entry(key.into()).or_insert_with(|| value.into());
            }
        }
        if let Ok(path) = fs::read_to_string(self.0.join(".path"))
            && !path.trim().is_empty()
        {
            env.insert("PATH".into(), path.trim().into());
        }
    }

    /// Writes the files of a JIT config, readable by their owner only.
    pub(crate) fn store(&self, config: &str) -> Result<(), SettingsError> {
        for (name, content) in blob::decode(config)? {
            let path = self.0.join(name);
            // Not through an old file, whose mode would stay.
            let _ = fs::remove_file(&path);
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| file.write_all(&content))
                .map_err(|error| SettingsError::Write(path, error))?;
        }
        Ok(())
    }

    pub(crate) fn load(&self) -> Result<Settings, SettingsError> {
        let key_file = self.0.join(blob::FILES[2]);
        let key: serde_json::Value = self.read(blob::FILES[2])?;
        let key = key["d"].as_str().and_then(|d| STANDARD.decode(d).ok());
        Ok(Settings {
            runner: self.read(blob::FILES[0])?,
            credentials: self.read(blob::FILES[1])?,
            key: key.ok_or(SettingsError::NoKey(key_file))?,
        })
    }

    /// Removes the files that make this root a configured runner.
    pub(crate) fn forget(&self) {
        for name in blob::FILES {
            let _ = fs::remove_file(self.0.join(name));
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<T, SettingsError> {
        let path = self.0.join(name);
        let text = fs::read(&path).map_err(|_| SettingsError::NotConfigured)?;
        serde_json::from_slice(&text).map_err(|error| SettingsError::Parse(path, error))
    }
}
