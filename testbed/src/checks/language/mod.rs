//! The language check: finds prose that breaks the rules that a program can judge.
//!
//! The rules are sentence openings without a named subject, pronouns in the place of an actor, and three
//! phrases ([`rules`]). They apply to documents, comments, doc comments, strings and function names.
//! Code in backticks and fenced code is not prose. A heading may be a question if it ends with a question mark.

mod nix;
mod passage;
mod rules;
mod rust;
mod scripts;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::tools::project;
use super::tracked;
pub use passage::Audience;
use passage::{Form, Passage};
use scripts::Language;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    file: String,
    line: usize,
    /// The readers of the text.
    pub audience: Audience,
    rule: String,
    excerpt: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            audience,
            rule,
            excerpt,
        } = self;
        let readers = match audience {
            Audience::Users => "shown",
            Audience::Developers => "comment",
        };
        write!(to, "{file}:{line}: {readers}: {rule}: {excerpt}")
    }
}

/// Returns every broken rule in the tracked files whose names start with one of `paths`, or in all.
pub fn findings(paths: &[String]) -> Result<Vec<Finding>> {
    let wanted = |name: &str| {
        paths.is_empty()
            || paths.iter().any(|path| {
                let path = path.trim_start_matches("./").trim_end_matches('/');
                path == "."
                    || name == path
                    || name
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.starts_with('/'))
            })
    };
    let mut findings = Vec::new();
    // The check's own files are examples of broken rules.
    let is_example = |name: &str| name.starts_with("testbed/src/checks/language/");
    for name in tracked(|name| wanted(name) && !is_example(name))? {
        let Ok(source) = fs::read_to_string(project().join(&name)) else {
            continue;
        };
        findings
            .extend(judge(&name, &source).with_context(|| format!("read the prose of {name}"))?);
    }
    findings.sort();
    Ok(findings)
}

/// Fails on the first broken rule: neither text for users nor a comment may break one.
pub fn language_is_plain() -> Result<()> {
    let findings = findings(&[])?;
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    ensure!(
        findings.is_empty(),
        "{} places break a language rule; CONTRIBUTING.md explains the rules\n{}",
        findings.len(),
        lines.join("\n")
    );
    Ok(())
}

fn judge(name: &str, source: &str) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for passage in passages(name, source)? {
        for block in passage.blocks() {
            for hit in rules::hits(&block) {
                let offset = block.offset(hit.at);
                findings.push(Finding {
                    file: name.to_owned(),
                    line: source[..offset].matches('\n').count() + 1,
                    audience: passage.audience,
                    rule: hit.rule,
                    excerpt: excerpt(&block.text[hit.at..]),
                });
            }
        }
    }
    Ok(findings)
}

/// Returns the prose of a file; nothing for a kind of file that has none.
fn passages(name: &str, source: &str) -> Result<Vec<Passage>> {
    let is_test = is_test(name);
    let strings = if is_test {
        Audience::Developers
    } else {
        Audience::Users
    };
    let script = |language, comments| Ok(scripts::passages(source, language, comments, strings));
    let extension = Path::new(name)
        .extension()
        .and_then(|kind| kind.to_str())
        .unwrap_or_default();
    match extension {
        "rs" => rust::passages(source, is_test),
        "md" => Ok(vec![Passage::verbatim(
            Audience::Users,
            Form::Markdown,
            source,
            0,
        )]),
        "nix" => nix::passages(source, is_test),
        "py" => script(Language::Python, Audience::Developers),
        "pl" => script(Language::Perl, Audience::Developers),
        "c" => script(Language::C, Audience::Developers),
        "toml" => script(Language::Config, Audience::Developers),
        // `just --list` shows its comments.
        _ if name == "justfile" => script(Language::Config, Audience::Users),
        // `systemctl cat` shows comments of units.
        "service" | "socket" | "timer" | "slice" | "conf" => {
            script(Language::Unit, Audience::Users)
        }
        _ if name.ends_with("recorded/host-files.txt") => Ok(scripts::passages(
            source,
            Language::Unit,
            Audience::Users,
            Audience::Users,
        )),
        _ if extension == "sh" || super::files::has_shebang(name) => {
            script(Language::Shell, Audience::Developers)
        }
        _ => Ok(Vec::new()),
    }
}

/// Returns true if only developers read the strings of this file.
fn is_test(name: &str) -> bool {
    name.contains("/tests/")
        || ["fuzz/", "testbed/attacks/", "testbed/src/claims/"]
            .iter()
            .any(|dir| name.starts_with(dir))
}

/// Returns the first words of a text, on one line.
fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('`', "`…`").chars().take(70).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the findings in a text, as "line, readers, rule".
    fn found(name: &str, source: &str) -> Vec<String> {
        let mut findings = judge(name, source).unwrap();
        findings.sort();
        findings
            .iter()
            .map(|finding| {
                let readers = if finding.audience == Audience::Users {
                    "shown"
                } else {
                    "comment"
                };
                format!("{} {readers}: {}", finding.line, finding.rule)
            })
            .collect()
    }

    #[test]
    fn rust_is_read_by_its_tokens() {
        assert_eq!(
            found("a.rs", include_str!("fixtures/rust.txt")),
            [
                r#"1 comment: says "is no""#,
                r#"1 comment: starts with "what""#,
                r#"3 shown: says "of ours""#,
                r#"10 shown: starts with "how""#,
                r#"15 comment: starts with "where""#,
                r#"18 comment: starts with "who""#,
                r#"22 shown: says "somebody""#,
                r#"24 shown: starts with "what""#,
                r#"26 shown: starts with "what""#,
                r#"32 comment: starts with "what""#,
                r#"33 comment: starts with "nobody""#,
            ]
        );
    }

    #[test]
    fn markdown_is_read_without_its_code() {
        assert_eq!(
            found("a.md", include_str!("fixtures/markdown.txt")),
            [
                r#"3 shown: starts with "what""#,
                r#"5 shown: starts with "who""#,
                r#"11 shown: starts with "what""#,
                r#"13 shown: starts with "how""#,
                r#"15 shown: starts with "nothing of""#,
                r#"16 shown: starts with "so long""#,
            ]
        );
    }

    #[test]
    fn nix_is_read_with_its_strings() {
        assert_eq!(
            found("a.nix", include_str!("fixtures/nix.txt")),
            [
                r#"2 comment: starts with "whether""#,
                r#"3 comment: says "somebody""#,
                r#"4 comment: starts with "how""#,
                r#"6 shown: says "of its own""#,
                r#"6 shown: starts with "what""#,
            ]
        );
    }

    #[test]
    fn shell_is_read_with_its_here_documents() {
        assert_eq!(
            found("a.sh", include_str!("fixtures/shell.txt")),
            [
                r#"2 comment: starts with "whoever""#,
                r#"3 comment: says "is no""#,
                r#"4 shown: starts with "who""#,
                r#"4 comment: starts with "nobody""#,
                r#"6 shown: starts with "what""#,
            ]
        );
    }

    #[test]
    fn a_unit_shows_its_description_and_its_comments() {
        let unit = "# Who reads this\n[Unit]\nDescription=What runs here\nAfter=nobody.target\n";
        assert_eq!(
            found("a.service", unit),
            [
                r#"1 shown: starts with "who""#,
                r#"3 shown: starts with "what""#,
            ]
        );
    }

    #[test]
    fn a_name_is_not_a_pronoun() {
        let text = "Start it with --uid=nobody, and get http://anybody.test/ from it. Not nobody.";
        assert_eq!(found("a.md", text), [r#"1 shown: says "nobody""#]);
    }

    #[test]
    fn plain_prose_breaks_no_rule() {
        let text =
            "Returns the pool. It is not a slot, and it is no longer used; see what it says.";
        assert_eq!(found("a.md", text), [""; 0]);
    }
}
