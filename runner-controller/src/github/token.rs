//! A secret that GitHub takes from us.

use std::fmt;

/// What we show GitHub to be let in: a personal access token or an installation token. Opaque, of
/// any length, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

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
