//! The credentials for GitHub, read from the place where the configuration or systemd put them.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::app::AppKey;
use super::token::Token;
use crate::config::{GitHubConfig, LoginConfig};

/// Maximum size of a file with credentials. Installation tokens have some 520 characters since 2026 and
/// may grow.
const MAX_BYTES: u64 = 16 * 1024;

/// A reason why credentials cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The file cannot be read.
    #[error("cannot read GitHub credentials from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file does not hold credentials.
    #[error("cannot use {} as GitHub credentials: {rule}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The rule that the content breaks.
        rule: &'static str,
    },
}

/// The credentials for GitHub.
#[derive(Debug)]
pub enum Login {
    /// A token that is used as it is.
    Token(Token),
    /// The key of an App, which GitHub exchanges for tokens.
    App(Box<AppKey>),
}

impl From<Token> for Login {
    fn from(token: Token) -> Self {
        Self::Token(token)
    }
}

impl Login {
    /// Reads the credential that systemd passed (`$CREDENTIALS_DIRECTORY`), or else the configured
    /// file. Blocks for one small read.
    ///
    /// # Errors
    /// The file cannot be read or does not hold credentials.
    pub fn load(config: &GitHubConfig) -> Result<Self, LoginError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let passed = credentials.map(|directory| directory.join(config.login_credential()));
        Self::load_from(passed, &config.login)
    }

    /// Reads the file of credentials that systemd does not pass. Blocks for one small read.
    ///
    /// # Errors
    /// As [`Login::load`].
    pub(super) fn load_file(config: &LoginConfig) -> Result<Self, LoginError> {
        Self::load_from(None, config)
    }

    fn load_from(passed: Option<PathBuf>, config: &LoginConfig) -> Result<Self, LoginError> {
        let path = passed
            .filter(|path| path.exists())
            .unwrap_or_else(|| config.file().to_owned());
        let text = read(&path)?;
        let login = match config {
            LoginConfig::Token { .. } => Token::new(&text).map(Self::Token),
            LoginConfig::App { id, .. } => {
                AppKey::new(id, &text).map(|key| Self::App(Box::new(key)))
            }
        };
        login.map_err(|rule| LoginError::Content { path, rule })
    }
}

fn read(path: &Path) -> Result<String, LoginError> {
    let content = |rule| LoginError::Content {
        path: path.to_owned(),
        rule,
    };
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MAX_BYTES => {
            Err(content("the file is larger than any token or key"))
        }
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(content("the file is not text"))
        }
        Err(source) => Err(LoginError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_of_systemd_takes_precedence_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "from-file\n").unwrap();
        let credentials = dir.path().join("credentials");
        std::fs::create_dir(&credentials).unwrap();
        let config = LoginConfig::Token { file: file.clone() };
        let passed = credentials.join("github-token");
        let load = || match Login::load_from(Some(passed.clone()), &config) {
            Ok(Login::Token(token)) => Ok(token.expose().to_owned()),
            Ok(Login::App(_)) => unreachable!("a token is configured"),
            Err(error) => Err(error),
        };

        assert_eq!(load().unwrap(), "from-file");
        std::fs::write(credentials.join("github-token"), "from-credential").unwrap();
        assert_eq!(load().unwrap(), "from-credential");
        // An empty credential is a mistake to show, not a reason to use another token.
        std::fs::write(credentials.join("github-token"), "").unwrap();
        assert!(matches!(load(), Err(LoginError::Content { .. })));
    }

    #[test]
    fn an_error_names_the_file_and_not_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let config = LoginConfig::Token { file: file.clone() };
        let load = || Login::load_from(None, &config).unwrap_err().to_string();
        assert!(load().contains("cannot read"));
        std::fs::write(&file, "secret one\nsecret two").unwrap();
        assert!(load().contains("token as GitHub credentials") && !load().contains("secret"));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(load().contains("not text"));
        std::fs::write(&file, "x".repeat(20_000)).unwrap();
        assert!(load().contains("larger"));
    }

    #[test]
    fn an_apps_key_must_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = LoginConfig::App {
            id: "123456".into(),
            key_file: dir.path().join("absent"),
        };
        std::fs::write(dir.path().join("github-app-key"), github_sim::APP_KEY).unwrap();
        let passed = dir.path().join("github-app-key");
        let login = Login::load_from(Some(passed.clone()), &config).unwrap();
        assert!(matches!(login, Login::App(_)));
        std::fs::write(dir.path().join("github-app-key"), "ghp_a_token").unwrap();
        let error = Login::load_from(Some(passed), &config)
            .unwrap_err()
            .to_string();
        assert!(error.contains("PEM") && !error.contains("ghp_"), "{error}");
    }
}
