//! The configured credentials, and the two places that they may be in.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::app::AppKey;
use super::token::Token;
use crate::config::{GitHubConfig, LoginConfig};

/// Installation tokens have some 520 characters since 2026 and may grow; a file beyond this is
/// not a token.
const MAX_BYTES: u64 = 16 * 1024;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read what lets us in at GitHub from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{} cannot let us in at GitHub: {rule}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it must look like.
        rule: &'static str,
    },
}

/// What lets us in.
#[derive(Debug)]
pub enum Login {
    /// A token as it is.
    Token(Token),
    /// An App, whose tokens are asked for.
    App(Box<AppKey>),
}

impl From<Token> for Login {
    fn from(token: Token) -> Self {
        Self::Token(token)
    }
}

impl Login {
    /// Reads the credential that systemd passed (`$CREDENTIALS_DIRECTORY`), else the configured
    /// file. Blocks for one small read.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub fn load(config: &GitHubConfig) -> Result<Self, TokenError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::load_from(credentials.as_deref(), &config.login)
    }

    fn load_from(credentials: Option<&Path>, config: &LoginConfig) -> Result<Self, TokenError> {
        let path = credentials
            .map(|directory| directory.join(config.credential()))
            .filter(|path| path.exists())
            .unwrap_or_else(|| config.file().to_owned());
        let text = read(&path)?;
        let login = match config {
            LoginConfig::Token { .. } => Token::new(&text).map(Self::Token),
            LoginConfig::App { id, .. } => {
                AppKey::new(id, &text).map(|key| Self::App(Box::new(key)))
            }
        };
        login.map_err(|rule| TokenError::Content { path, rule })
    }
}

fn read(path: &Path) -> Result<String, TokenError> {
    let content = |rule| TokenError::Content {
        path: path.to_owned(),
        rule,
    };
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MAX_BYTES => {
            Err(content("it is larger than any token or key"))
        }
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(content("it is not text"))
        }
        Err(source) => Err(TokenError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credential_comes_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "from-file\n").unwrap();
        let credentials = dir.path().join("credentials");
        std::fs::create_dir(&credentials).unwrap();
        let config = LoginConfig::Token { file: file.clone() };
        let load = || match Login::load_from(Some(&credentials), &config) {
            Ok(Login::Token(token)) => Ok(token.expose().to_owned()),
            Ok(Login::App(_)) => unreachable!("a token is configured"),
            Err(error) => Err(error),
        };

        assert_eq!(load().unwrap(), "from-file");
        std::fs::write(credentials.join("github-token"), "from-credential").unwrap();
        assert_eq!(load().unwrap(), "from-credential");
        // An empty credential is a mistake to show, not a reason to use another token.
        std::fs::write(credentials.join("github-token"), "").unwrap();
        assert!(matches!(load(), Err(TokenError::Content { .. })));
    }

    #[test]
    fn an_error_names_the_file_and_not_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let config = LoginConfig::Token { file: file.clone() };
        let load = || Login::load_from(None, &config).unwrap_err().to_string();
        assert!(load().contains("cannot read"));
        std::fs::write(&file, "secret one\nsecret two").unwrap();
        assert!(load().contains("token cannot let us in") && !load().contains("secret"));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(load().contains("not text"));
        std::fs::write(&file, "x".repeat(20_000)).unwrap();
        assert!(load().contains("larger"));
    }

    #[test]
    fn an_apps_key_is_a_credential_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let config = LoginConfig::App {
            id: "123456".into(),
            key_file: dir.path().join("absent"),
        };
        std::fs::write(dir.path().join("github-app-key"), github_sim::APP_KEY).unwrap();
        let login = Login::load_from(Some(dir.path()), &config).unwrap();
        assert!(matches!(login, Login::App(_)));
        std::fs::write(dir.path().join("github-app-key"), "ghp_a_token").unwrap();
        let error = Login::load_from(Some(dir.path()), &config)
            .unwrap_err()
            .to_string();
        assert!(error.contains("PEM") && !error.contains("ghp_"), "{error}");
    }
}
