//! Removal of secrets from text, for support bundles and for the log files that root keeps.
//!
//! Two nets: every secret that this host has, by its value, and everything that looks like a secret of GitHub's.
//! Too much is removed rather than too little.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regex::{Captures, Regex};

/// Text instead of a secret.
const REDACTED: &str = "[redacted]";
/// Shortest text that counts as a secret by its value. A shorter one would remove parts of words.
const SHORTEST: usize = 6;

/// Secrets by their shape. The first group, if any, is kept.
const SHAPES: [&str; 7] = [
    // GitHub's tokens (https://github.blog/engineering/behind-githubs-new-authentication-token-formats/).
    "(?:gh[a-z]|github_pat|v[0-9]+)_[A-Za-z0-9_.-]{10,}",
    // JSON in base64, which JWTs and JIT configs begin with.
    "ey[A-Za-z0-9+/_-]{20,}[A-Za-z0-9+/_.=-]*",
    // Private keys, on one line or many.
    "-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]|-[^-])*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
    // User and password of an address.
    "(://)[^/@ \n]+@",
    // Headers that carry a secret.
    "((?i-u:authorization)[\"']?[ \t]*[:=][ \t]*)[^\n]+",
    // Settings that carry a secret.
    "((?i-u:signature(?:-256)?|password|passwd|secret|token|api[_-]?key)[\"']?[ \t]*[:=][ \t]*)[^ \t\n]+",
    // Long text without a separator, such as a key or an encoded config.
    "()[A-Za-z0-9+_=-]{100,}",
];

/// Removes secrets.
#[derive(Debug)]
pub(crate) struct Redactor {
    /// The longest first, so that no part of a longer one is left.
    known: Vec<String>,
    shapes: Vec<Regex>,
}

impl Redactor {
    /// Returns a redactor of these secrets, each the content of a file.
    pub(crate) fn new<'a>(contents: impl Iterator<Item = &'a str>) -> Result<Self, regex::Error> {
        let mut known: Vec<String> = contents.flat_map(forms).collect();
        known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        known.dedup();
        let shapes = SHAPES.iter().map(|shape| Regex::new(shape));
        Ok(Self {
            known,
            shapes: shapes.collect::<Result<_, _>>()?,
        })
    }

    /// Returns the text without secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            text = text.replace(secret, REDACTED);
        }
        for shape in &self.shapes {
            let kept = |found: &Captures<'_>| {
                let kept = found.get(1).map(|kept| kept.as_str());
                format!("{}{REDACTED}", kept.unwrap_or_default())
            };
            text = shape.replace_all(&text, kept).into_owned();
        }
        text
    }
}

/// Returns the forms in which a secret may be in a text: whole, each line of it, its password, and in base64.
fn forms(content: &str) -> Vec<String> {
    let whole = content.trim();
    let mut forms = vec![whole.to_owned(), BASE64_STANDARD.encode(whole)];
    forms.extend(whole.lines().map(|line| line.trim().to_owned()));
    forms.extend(
        whole
            .split_once(':')
            .map(|(_, password)| password.to_owned()),
    );
    forms.retain(|form| form.len() >= SHORTEST && !form.starts_with("-----"));
    forms
}

#[cfg(test)]
mod tests;
