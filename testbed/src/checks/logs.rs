//! The check of log lines: the text of each line of the shipped program tells what its fields do.
//!
//! `journalctl` shows the text of an entry and not its fields. A line that has the slot or the error only as
//! a field does not tell an operator which runner failed, and why.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::attributes::{self, are_for_tests};
use super::tools::project;
use super::tracked;

/// Macros of lines that are shown unless an operator turns them off.
const LEVELS: &[&str] = &["error", "warn", "info"];

/// Fields that a part of the text tells in other words.
const TOLD_BY: &[(&str, &str)] = &[
    // A slot's name begins with that of its pool.
    ("pool", "slot"),
    // The text of an error of GitHub has them.
    ("operation", "error"),
    ("status", "error"),
    ("request_id", "error"),
    // The details of an end.
    ("verdict", "details"),
    ("result", "details"),
    ("runner", "details"),
    ("exit", "details"),
    ("job_url", "details"),
    ("last_line", "wrote"),
    // The scope of a gate.
    ("scope", "of"),
    // The start of a job.
    ("job_url", "run"),
    ("how", "verb"),
    ("pid", "uid"),
];

/// Fields that the text leaves out.
const LEFT_OUT: &[&str] = &[
    // The job wrote them. In a text they could imitate a line of the daemon.
    "job", "workflow", // The status and a metric count it.
    "restored",
    // systemd's id of the start, for programs that join entries to a trace.
    "trace_id",
];

/// Fails on a line of the shipped program whose text leaves out a field.
pub fn log_lines_tell_their_fields() -> Result<()> {
    let is_shipped = |name: &str| {
        let source = name.strip_prefix("runner-controller/src/");
        source.is_some_and(|name| is_rust(name) && !name.contains("tests"))
    };
    let mut problems = Vec::new();
    let mut count = 0;
    for name in tracked(is_shipped)? {
        let source = fs::read_to_string(project().join(&name))?;
        let lines = lines(&source).with_context(|| format!("read the log lines of {name}"))?;
        count += lines.len();
        for line in &lines {
            for field in line.untold() {
                problems.push(format!(
                    "{name}:{}: the text does not tell `{field}`: {}",
                    line.number, line.text
                ));
            }
        }
    }
    ensure!(count > 50, "found only {count} log lines");
    ensure!(
        problems.is_empty(),
        "journalctl shows the text of a line alone\n{}",
        problems.join("\n")
    );
    Ok(())
}

fn is_rust(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|kind| kind == "rs")
}

/// One log line in the source.
#[derive(Debug)]
struct Line {
    /// Number of its first line in the file.
    number: usize,
    /// Names of the fields, each with the expression of its value.
    fields: Vec<(String, String)>,
    /// The literal of the text.
    text: String,
    /// The expressions after the text.
    arguments: String,
}

impl Line {
    /// Returns the fields that the text does not tell.
    fn untold(&self) -> Vec<&str> {
        let shows = |part: &str| {
            let begin = format!("{{{part}");
            let mut ends = self.text.split(&begin).skip(1);
            ends.any(|rest| rest.starts_with(['}', ':']))
        };
        let is_told = |(name, value): &&(String, String)| {
            let by_part = TOLD_BY
                .iter()
                .any(|(field, part)| field == name && shows(part));
            let by_argument = !value.is_empty() && self.arguments.contains(value.as_str());
            LEFT_OUT.contains(&name.as_str())
                || shows(name)
                || shows(value)
                || by_part
                || by_argument
        };
        let untold = self.fields.iter().filter(|field| !is_told(field));
        untold.map(|(name, _)| name.as_str()).collect()
    }
}

/// Returns the log lines of a file, tests left out.
fn lines(source: &str) -> Result<Vec<Line>> {
    let file = syn::parse_file(source).context("parse Rust")?;
    let mut finder = Finder::default();
    finder.visit_file(&file);
    Ok(finder.lines)
}

#[derive(Default)]
struct Finder {
    lines: Vec<Line>,
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !are_for_tests(attributes::of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last();
        let name = name.map(|segment| segment.ident.to_string());
        if name.is_some_and(|name| LEVELS.contains(&name.as_str())) {
            let number = call.path.segments[0].ident.span().start().line;
            self.lines.push(read(number, call.tokens.clone()));
        } else {
            // Macros such as `select!` contain code.
            self.nested(call.tokens.clone());
        }
    }
}

impl Finder {
    /// Finds log lines among the tokens of another macro.
    fn nested(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else {
                continue;
            };
            let before = at.checked_sub(2).map(|at| (&tokens[at], &tokens[at + 1]));
            match before {
                Some((TokenTree::Ident(name), TokenTree::Punct(mark)))
                    if mark.as_char() == '!'
                        && group.delimiter() == Delimiter::Parenthesis
                        && LEVELS.contains(&name.to_string().as_str()) =>
                {
                    let number = name.span().start().line;
                    self.lines.push(read(number, group.stream()));
                }
                Some(_) | None => self.nested(group.stream()),
            }
        }
    }
}

/// Reads the arguments of a macro: fields, the text, and the arguments of the text.
fn read(number: usize, tokens: TokenStream) -> Line {
    let mut parts: Vec<Vec<TokenTree>> = vec![Vec::new()];
    for token in tokens {
        match (&token, parts.last_mut()) {
            (TokenTree::Punct(mark), _) if mark.as_char() == ',' => parts.push(Vec::new()),
            (_, Some(part)) => part.push(token),
            (_, None) => {}
        }
    }
    let written = |part: &[TokenTree]| -> String { part.iter().map(ToString::to_string).collect() };
    let is_text = |part: &Vec<TokenTree>| matches!(&part[..], [TokenTree::Literal(_)]);
    let at = parts.iter().position(is_text).unwrap_or(parts.len());
    let fields = parts[..at].iter().filter(|part| !part.is_empty());
    let fields = fields.map(|part| {
        let whole = written(part);
        let (name, value) = whole.split_once('=').unwrap_or((&whole, &whole));
        let bare = |text: &str| text.trim_start_matches(['%', '?']).to_owned();
        (bare(name), bare(value))
    });
    Line {
        number,
        fields: fields.collect(),
        text: parts.get(at).map(|part| written(part)).unwrap_or_default(),
        arguments: parts
            .iter()
            .skip(at + 1)
            .map(|part| written(part))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the fields that the only log line of a function's code leaves untold.
    fn untold(code: &str) -> Vec<String> {
        let lines = lines(&format!("fn example() {{ {code} }}")).unwrap();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].untold().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_field_that_the_text_leaves_out_is_found() {
        let failed = r#"tracing::warn!(%slot, result, "systemd job failed");"#;
        assert_eq!(untold(failed), ["slot", "result"]);
        let nested = r#"select! { _ = done => warn!(%error, "it failed"), }"#;
        assert_eq!(untold(nested), ["error"]);
        let longer = r#"warn!(error, "it failed: {errors}");"#;
        assert_eq!(untold(longer), ["error"]);
    }

    #[test]
    fn a_field_that_the_text_tells_is_not_found() {
        for code in [
            r#"warn!(%slot, reason, "{slot}: cannot start: {reason}");"#,
            r#"warn!(runner = %name, "{name} is online");"#,
            r#"info!(before = %self.mode, "the mode was {}", self.mode);"#,
            r#"info!(state = ?unit.state, "it is {:?}", unit.state);"#,
            r#"info!(pool = %slot.pool, slot = %slot, "{slot}: a spare is ready");"#,
        ] {
            assert_eq!(untold(code), [""; 0], "{code}");
        }
    }

    #[test]
    fn a_line_of_a_test_and_a_line_for_debugging_are_not_read() {
        let code = r#"
            #[cfg(test)]
            mod tests { fn example() { warn!(%error, "it failed"); } }
            fn example() { debug!(%error, "it failed"); }
        "#;
        assert!(lines(code).unwrap().is_empty());
    }
}
