//! What GitHub may send back and nobody may read: tokens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::token::Token;

/// GitHub's tokens have 40 bytes and more.
const MIN_SECRET: usize = 8;

/// An App's tokens follow each other; an answer may still speak of the one before.
const KEPT: usize = 4;

/// The tokens of late.
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

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            // A shorter one is no secret, and would be found in every other word.
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
    fn the_latest_are_hidden_and_no_short_word() {
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
