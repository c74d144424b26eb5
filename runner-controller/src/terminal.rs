//! Text from outside, made safe for a terminal, which obeys control characters.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Escapes control characters and Unicode's direction marks as Rust does, for example `\u{1b}`. Line
/// breaks are escaped, too, because they would forge a line.
#[must_use]
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n', |c| c.escape_unicode().to_string())
}

/// Escapes control characters and direction marks in a JSON text, which keeps its value. Line breaks
/// stay, because only the JSON writer makes them.
#[must_use]
pub(crate) fn plain_json(text: &str) -> Cow<'_, str> {
    // These characters are in the basic multilingual plane, so one `\uXXXX` is enough for each.
    escaped(text, |_| false, |c| format!("\\u{:04x}", u32::from(c)))
}

/// Returns a document with every text safe for a terminal.
///
/// Names and messages come from jobs, GitHub and systemd. Each was checked when it came in; this is
/// the last place before a reader.
pub(crate) fn plain_document<T: Serialize + DeserializeOwned>(
    document: &T,
) -> serde_json::Result<T> {
    fn walk(value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(plain(&text).into_owned()),
            Value::Array(list) => list.into_iter().map(walk).collect(),
            Value::Object(map) => {
                let entry = |(key, value): (String, Value)| (plain(&key).into_owned(), walk(value));
                map.into_iter().map(entry).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }
    serde_json::from_value(walk(serde_json::to_value(document)?))
}

fn escaped(
    text: &str,
    is_also_unsafe: impl Fn(char) -> bool,
    escape: impl Fn(char) -> String,
) -> Cow<'_, str> {
    let is_escaped = |c: char| is_unsafe(c) || is_also_unsafe(c);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let parts = text.chars().map(|c| {
        if is_escaped(c) {
            escape(c)
        } else {
            c.to_string()
        }
    });
    Cow::Owned(parts.collect())
}

/// Returns true for control characters except the line break, and for Unicode's line separators and
/// direction marks (their dangers: Unicode Technical Report 36).
fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_obeys_are_escaped() {
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
    fn escaped_json_keeps_its_value() {
        let value = serde_json::json!({ "name": "a\x1b[2J\u{9b}\u{202e}\u{7f}\n b" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let text = plain_json(&text);
        assert!(!text.contains(is_unsafe), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, value);
    }
}
