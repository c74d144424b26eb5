//! The JIT config: three files of the runner root in one string.
//!
//! It has GitHub's shape: base64 of a JSON object that maps file names to base64 of the files.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    state::RegisteredRunner,
    wire::{CredentialsData, CredentialsFile, RsaParametersFile, RunnerFile},
};

/// Names of the files in a JIT config.
pub const FILES: [&str; 3] = [".runner", ".credentials", ".credentials_rsaparams"];

/// Failure to read a JIT config.
#[derive(Debug, thiserror::Error)]
pub enum JitConfigError {
    /// The config or a file in it is not base64.
    #[error("not base64")]
    Base64(#[from] base64::DecodeError),
    /// The config is not a JSON object of strings.
    #[error("not a JSON object of files")]
    Json(#[from] serde_json::Error),
    /// A file is missing, or there is a further one.
    #[error("the files are not .runner, .credentials and .credentials_rsaparams")]
    Files,
}

/// Parts of a JIT config that do not follow from the runner.
pub(crate) struct Options<'a> {
    pub(crate) require_fips: bool,
    pub(crate) disable_update: bool,
    pub(crate) group: &'a str,
    pub(crate) work_folder: &'a str,
}

pub(crate) fn encode(
    runner: &RegisteredRunner,
    key: &RsaParametersFile,
    options: &Options<'_>,
    public_url: &str,
) -> String {
    let word = |holds: bool| if holds { "True" } else { "False" }.to_owned();
    let broker = format!("{public_url}/broker/");
    let settings = RunnerFile {
        agent_id: runner.id.to_string(),
        agent_name: runner.name.clone(),
        pool_id: "1".into(),
        pool_name: options.group.into(),
        disable_update: word(options.disable_update),
        ephemeral: "True".into(),
        server_url: broker.clone(),
        github_url: format!("{public_url}/{}", runner.scope),
        work_folder: options.work_folder.into(),
        use_v2_flow: "True".into(),
        server_url_v2: broker,
    };
    let credentials = CredentialsFile {
        scheme: "OAuth".into(),
        data: CredentialsData {
            client_id: runner.client_id.clone(),
            authorization_url: format!("{public_url}/oauth2/token"),
            require_fips_cryptography: word(options.require_fips),
        },
    };
    let files = json!({
        FILES[0]: file(&settings),
        FILES[1]: file(&credentials),
        FILES[2]: file(key),
    });
    file(&files)
}

/// Returns the files of a JIT config by name.
pub fn decode(config: &str) -> Result<BTreeMap<String, Vec<u8>>, JitConfigError> {
    let files: BTreeMap<String, String> = serde_json::from_slice(&STANDARD.decode(config.trim())?)?;
    if files.len() != FILES.len() || FILES.iter().any(|name| !files.contains_key(*name)) {
        return Err(JitConfigError::Files);
    }
    files
        .into_iter()
        .map(|(name, content)| Ok((name, STANDARD.decode(content)?)))
        .collect()
}

fn file(content: &impl serde::Serialize) -> String {
    // A value of strings and numbers always serializes.
    STANDARD.encode(serde_json::to_vec(content).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_a_config_is_refused() {
        assert!(matches!(decode("%"), Err(JitConfigError::Base64(_))));
        assert!(matches!(decode("aGk="), Err(JitConfigError::Json(_))));
        assert!(matches!(decode("e30="), Err(JitConfigError::Files)));
    }
}
