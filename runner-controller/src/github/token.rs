//! What lets us in, and the two places it may lie in.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::AppKey;
use crate::config;

/// Installation tokens have some 520 characters since 2026 and may grow; a file beyond this is
/// not a token.
const MAX_BYTES: u64 = 16 * 1024;

/// What we show GitHub to be let in: a personal access token or an installation token. Opaque, of
/// any length, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

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

impl Token {
    /// Takes a token from text, white space around it removed.
    ///
    /// # Errors
    /// The rule that the text breaks: it must be one line of printable ASCII without spaces. The
    /// text itself is not in the error.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let token = text.trim();
        if token.is_empty() {
            Err("it is empty; write the token on its only line")
        } else if token.contains(['\n', '\r']) {
            Err("it has more than one line; write the token on its only line")
        } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Err("it has spaces or characters that no token has; write the bare token")
        } else {
            Ok(Self(token.to_owned()))
        }
    }

    /// The secret itself, for the one header that carries it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
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
    pub fn load(config: &config::GitHubConfig) -> Result<Self, TokenError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::load_from(credentials.as_deref(), &config.login)
    }

    fn load_from(
        credentials: Option<&Path>,
        config: &config::LoginConfig,
    ) -> Result<Self, TokenError> {
        let path = credentials
            .map(|directory| directory.join(config.credential()))
            .filter(|path| path.exists())
            .unwrap_or_else(|| config.file().to_owned());
        let text = read(&path)?;
        let login = match config {
            config::LoginConfig::Token { .. } => Token::new(&text).map(Self::Token),
            config::LoginConfig::App { id, .. } => {
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

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_of_printable_ascii() {
        assert_eq!(Token::new(" ghp_abc\r\n").unwrap().expose(), "ghp_abc");
        let long = format!("ghs_1_{}", "x".repeat(600));
        assert_eq!(Token::new(&long).unwrap().expose(), long);
        for bad in ["", " \n", "a\nb", "a b", "tök", "a\0b", "a\u{7f}"] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_never_prints() {
        let token = Token::new("ghp_secret").unwrap();
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn the_credential_comes_before_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "from-file\n").unwrap();
        let credentials = dir.path().join("credentials");
        std::fs::create_dir(&credentials).unwrap();
        let config = config::LoginConfig::Token { file: file.clone() };
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
        let config = config::LoginConfig::Token { file: file.clone() };
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
        let config = config::LoginConfig::App {
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
