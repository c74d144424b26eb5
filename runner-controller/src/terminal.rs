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
pub(crate) fn plain_document<T: Clone + Serialize + DeserializeOwned>(
    document: &T,
) -> serde_json::Result<T> {
    // Nearly every document is safe, and that is found out in a fraction of the time.
    if is_plain_json(&serde_json::to_string(document)?) {
        return Ok(document.clone());
    }
    serde_json::from_value(plain_value(serde_json::to_value(document)?))
}

/// Escapes every text of a document.
fn plain_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text).into_owned()),
        Value::Array(list) => list.into_iter().map(plain_value).collect(),
        Value::Object(map) => {
            let entry =
                |(key, value): (String, Value)| (plain(&key).into_owned(), plain_value(value));
            map.into_iter().map(entry).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// Returns true if no text of a compact JSON document has a character that [`plain`] escapes. The writer escapes quotes,
/// backslashes and some of those characters.
fn is_plain_json(json: &str) -> bool {
    let is_simple = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\\';
    if json.bytes().all(is_simple) {
        return true;
    }
    let mut chars = json.chars();
    while let Some(c) = chars.next() {
        if is_unsafe(c) || c == '\\' && !matches!(chars.next(), Some('"' | '\\')) {
            return false;
        }
    }
    true
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
    fn a_document_is_escaped_if_one_of_its_texts_needs_it() {
        for (text, is_plain) in [
            ("CI / prüfen 日本", true),
            (r#"quoted "text" and a \ backslash \u{1b}"#, true),
            ("a\nb", false),
            ("\x1b[2J", false),
            ("\u{9b}31m", false),
            ("evil\u{202e}txt", false),
        ] {
            let document = [("key".to_owned(), text.to_owned())];
            let document: std::collections::BTreeMap<_, _> = document.into();
            let json = serde_json::to_string(&document).unwrap();
            assert_eq!(is_plain_json(&json), is_plain, "{json}");
            assert_eq!(plain_document(&document).unwrap()["key"], plain(text));
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
