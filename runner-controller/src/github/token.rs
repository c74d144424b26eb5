//! The token, and the two places it may lie in.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config;

/// Name of the systemd credential that holds the token.
const CREDENTIAL: &str = "github-token";

/// Installation tokens have some 520 characters since 2026 and may grow; a file beyond this is
/// not a token.
const MAX_BYTES: u64 = 16 * 1024;

/// What we show GitHub to be let in: a personal access token or an installation token. Opaque, of
/// any length, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the GitHub token from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no GitHub token: {rule}", path.display())]
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

    /// Reads the credential `github-token` if systemd passed one (`$CREDENTIALS_DIRECTORY`), else
    /// the configured file. Blocks for one small read.
    pub fn load(config: &config::GitHub) -> Result<Self, TokenError> {
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::load_from(credentials.as_deref(), &config.token_file)
    }

    fn load_from(credentials: Option<&Path>, file: &Path) -> Result<Self, TokenError> {
        let path = credentials
            .map(|directory| directory.join(CREDENTIAL))
            .filter(|path| path.exists())
            .unwrap_or_else(|| file.to_owned());
        let mut text = String::new();
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let rule = "it is not text";
                return Err(TokenError::Content { path, rule });
            }
            Err(source) => return Err(TokenError::Read { path, source }),
        }
        if text.len() as u64 > MAX_BYTES {
            let rule = "it is larger than any token";
            return Err(TokenError::Content { path, rule });
        }
        Self::new(&text).map_err(|rule| TokenError::Content { path, rule })
    }

    /// The secret itself, for the one header that carries it.
    pub(super) fn expose(&self) -> &str {
        &self.0
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
        let load = || Token::load_from(Some(&credentials), &file).map(|t| t.expose().to_owned());

        assert_eq!(load().unwrap(), "from-file");
        std::fs::write(credentials.join(CREDENTIAL), "from-credential").unwrap();
        assert_eq!(load().unwrap(), "from-credential");
        // An empty credential is a mistake to show, not a reason to use another token.
        std::fs::write(credentials.join(CREDENTIAL), "").unwrap();
        assert!(matches!(load(), Err(TokenError::Content { .. })));
    }

    #[test]
    fn an_error_names_the_file_and_not_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let load = || Token::load_from(None, &file).unwrap_err().to_string();
        assert!(load().contains("cannot read"));
        std::fs::write(&file, "secret one\nsecret two").unwrap();
        assert!(load().contains("token holds no GitHub token") && !load().contains("secret"));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(load().contains("not text"));
        std::fs::write(&file, "x".repeat(20_000)).unwrap();
        assert!(load().contains("larger"));
    }
}
