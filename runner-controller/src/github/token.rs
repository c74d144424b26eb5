//! A secret that authenticates a request to GitHub.

use std::fmt;

/// A personal access token, an installation token, or an App's JWT. Opaque, of any length, never
/// printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Reads a token from text. White space around it is ignored.
    ///
    /// # Errors
    /// The rule that the text breaks: a token is one line of printable ASCII without spaces. The error
    /// does not contain the text.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let token = text.trim();
        if token.is_empty() {
            Err("the token is empty; write it on one line")
        } else if token.contains(['\n', '\r']) {
            Err("there is more than one line; write only the token")
        } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Err("the token has spaces or characters that no token has; write only the token")
        } else {
            Ok(Self(token.to_owned()))
        }
    }

    /// Returns the secret itself, for the header that carries it.
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
}
