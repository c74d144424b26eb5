//! Redaction: tokens that GitHub may send back and that no message may contain.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::token::Token;

/// Minimum length of a secret, in bytes. GitHub's tokens have 40 and more.
const MIN_SECRET: usize = 8;

/// Number of tokens to redact. An App's tokens follow each other, and an answer may still contain an
/// earlier token.
const KEPT: usize = 4;

/// Number of tokens of the scale-set service to redact. Each session has its own, and they must not take the place of
/// the others.
const KEPT_OF_SERVICE: usize = 64;

/// The latest tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    tokens: VecDeque<Token>,
    of_service: VecDeque<Token>,
}

impl Secrets {
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(token: Token) -> Self {
        let secrets = Self::default();
        secrets.keep(token);
        secrets
    }

    pub(super) fn keep(&self, token: Token) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.tokens.truncate(KEPT - 1);
        kept.tokens.push_front(token);
    }

    /// Keeps a token of the scale-set service.
    pub(super) fn keep_of_service(&self, token: Token) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.of_service.truncate(KEPT_OF_SERVICE - 1);
        kept.of_service.push_front(token);
    }

    /// Returns the text with each token replaced.
    pub(super) fn hide(&self, text: &str) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = kept.tokens.iter().chain(&kept.of_service);
        tokens
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
        for number in 0..2 * KEPT_OF_SERVICE {
            secrets.keep_of_service(token(&format!("eyJ_service_{number:03}")));
        }
        assert_eq!(
            secrets.hide("ghs_first_token eyJ_service_127"),
            "[token] [token]"
        );
        for number in 0..KEPT {
            secrets.keep(token(&format!("ghs_later_{number}")));
        }
        assert_eq!(secrets.hide("ghs_first_token"), "ghs_first_token");
    }
}
