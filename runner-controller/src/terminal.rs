//! Text from outside on somebody's terminal, where a control character is a command.

use std::borrow::Cow;

/// A text without control characters and without marks that turn the direction of writing: each is
/// shown as Rust writes it, `\u{1b}`. A line break is one, too: it would forge a line of its own.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n', |c| c.escape_unicode().to_string())
}

/// JSON that means the same and moves no cursor. It is written with line breaks of its own.
#[must_use]
pub fn plain_json(text: &str) -> Cow<'_, str> {
    // All of these lie in the basic plane, where one `\uXXXX` is one character.
    escaped(text, |_| false, |c| format!("\\u{:04x}", u32::from(c)))
}

fn escaped(
    text: &str,
    also: impl Fn(char) -> bool,
    write: impl Fn(char) -> String,
) -> Cow<'_, str> {
    let strange = |c: char| is_strange(c) || also(c);
    if !text.contains(strange) {
        return Cow::Borrowed(text);
    }
    let parts = text
        .chars()
        .map(|c| if strange(c) { write(c) } else { c.to_string() });
    Cow::Owned(parts.collect())
}

/// Control characters but the line break, and Unicode's line ends and marks of direction (its
/// report 36 tells what is done with those).
fn is_strange(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_written_out() {
        for (text, shown) in [
            ("CI / prüfen 日本", "CI / prüfen 日本"),
            ("\x1b[2J", "\\u{1b}[2J"),
            ("a\nb\rc\td", "a\\u{a}b\\u{d}c\\u{9}d"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("evil\u{202e}txt", "evil\\u{202e}txt"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = serde_json::json!({ "name": "a\x1b[2J\u{9b}\u{202e}\u{7f}\n b" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let text = plain_json(&text);
        assert!(!text.contains(is_strange), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, value);
    }
}
