//! Prose in Nix: comments and strings.

use anyhow::{Result, bail};
use rnix::SyntaxKind;

use super::passage::{Audience, Form, Passage};

/// Returns the prose of a file. `is_test` says that only developers read its strings.
pub(super) fn passages(source: &str, is_test: bool) -> Result<Vec<Passage>> {
    let parsed = rnix::Root::parse(source);
    if let Some(error) = parsed.errors().first() {
        bail!("parse Nix: {error}");
    }
    let strings = if is_test {
        Audience::Developers
    } else {
        Audience::Users
    };
    let mut passages = Vec::new();
    let mut comment: Option<Passage> = None;
    for element in parsed.syntax().descendants_with_tokens() {
        if let Some(node) = element.as_node() {
            if node.kind() == SyntaxKind::NODE_STRING {
                let offset = usize::from(node.text_range().start());
                let text = node.text().to_string();
                passages.push(string(&text, strings, offset));
            }
            continue;
        }
        let Some(token) = element.as_token() else {
            continue;
        };
        let offset = usize::from(token.text_range().start());
        if token.kind() == SyntaxKind::TOKEN_COMMENT {
            let text = token.text();
            let inner = text.trim_start_matches('#');
            let mark = text.len() - inner.len();
            let passage =
                comment.get_or_insert_with(|| Passage::new(Audience::Developers, Form::Plain));
            if mark > 0 {
                passage.push(inner, offset + mark);
            } else {
                let inner = inner.trim_start_matches("/*").trim_end_matches("*/");
                passage.push(inner, offset + 2);
            }
            passage.push_char('\n', offset);
        } else if !(token.kind() == SyntaxKind::TOKEN_WHITESPACE
            && token.text().matches('\n').count() < 2)
        {
            // Only comments on adjacent lines are one.
            passages.extend(comment.take());
        }
    }
    passages.extend(comment);
    Ok(passages)
}

fn string(text: &str, audience: Audience, offset: usize) -> Passage {
    let quotes = if text.starts_with("''") { 2 } else { 1 };
    let inner = text.len().saturating_sub(quotes).max(quotes);
    let mut passage = Passage::new(audience, Form::String);
    passage.push(&text[quotes..inner], offset + quotes);
    passage
}
