//! Redaction: tokens that GitHub may send back and that no message may contain.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::token::Token;

/// Minimum length of a secret, in bytes. GitHub's tokens have 40 and more.
const MIN_SECRET: usize = 8;

/// Number of tokens to redact. An App's tokens follow each other, and an answer may still contain an
/// earlier token.
const KEPT: usize = 4;

/// The latest tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets(Arc<Mutex<VecDeque<Token>>>);

impl Secrets {
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(token: Token) -> Self {
        let secrets = Self::default();
        secrets.keep(token);
        secrets
    }

    pub(super) fn keep(&self, token: Token) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front(token);
    }

    /// Returns the text with each token replaced.
    pub(super) fn hide(&self, text: &str) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            // A shorter text is not a secret and would occur in many words.
            .filter(|token| token.expose().len() >= MIN_SECRET)
            .fold(text.to_owned(), |text, token| {
                text.replace(token.expose(), "[token]")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_tokens_are_hidden_and_short_words_are_not() {
        let token = |text: &str| Token::new(text).unwrap();
        let secrets = Secrets::of(token("ghs_first_token"));
        secrets.keep(token("ghs_second_token"));
        secrets.keep(token("a"));
        let said = secrets.hide("a ghs_first_token and ghs_second_token");
        assert_eq!(said, "a [token] and [token]");
        for number in 0..KEPT {
            secrets.keep(token(&format!("ghs_later_{number}")));
        }
        assert_eq!(secrets.hide("ghs_first_token"), "ghs_first_token");
    }
}
