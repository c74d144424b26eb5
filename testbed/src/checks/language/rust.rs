//! Prose in Rust: comments, doc comments, string literals and the names of functions.

use std::ops::Range;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, Literal, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::super::attributes::{self, are_for_tests, derive_any};
use super::passage::{Audience, Form, Passage};

/// Derive macros whose types show their doc comments as `--help`.
const COMMAND_LINE: &[&str] = &["Parser", "Subcommand", "Args", "ValueEnum"];

/// Returns the prose of a file. `is_test` says that all of it is test code.
pub(super) fn passages(source: &str, is_test: bool) -> Result<Vec<Passage>> {
    let file = syn::parse_file(source).context("parse Rust")?;
    let mut regions = Regions::default();
    regions.visit_file(&file);
    if is_test {
        regions.tests.push(0..source.len());
    }
    // A shebang is not Rust, and blanks keep the offsets.
    let code = if source.starts_with("#!/") {
        let line = source.find('\n').unwrap_or(source.len());
        format!("{}{}", " ".repeat(line), &source[line..])
    } else {
        source.to_owned()
    };
    let tokens = TokenStream::from_str(&code).map_err(|error| anyhow!("{error}"))?;
    let mut finder = Finder {
        source,
        regions: &regions,
        passages: Vec::new(),
        docs: None,
        comments: None,
        end: 0,
    };
    finder.stream(tokens);
    finder.gap(source.len());
    finder.flush_docs();
    finder.flush_comments();
    Ok(finder.passages)
}

/// Byte ranges of code that is read differently from the rest.
#[derive(Debug, Default)]
struct Regions {
    tests: Vec<Range<usize>>,
    help: Vec<Range<usize>>,
}

impl Regions {
    fn covers(regions: &[Range<usize>], at: usize) -> bool {
        regions.iter().any(|region| region.contains(&at))
    }

    fn note(&mut self, attributes: &[syn::Attribute], span: Range<usize>) {
        if are_for_tests(attributes) {
            self.tests.push(span.clone());
        }
        if derive_any(attributes, COMMAND_LINE) {
            self.help.push(span);
        }
    }
}

impl<'ast> Visit<'ast> for Regions {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        self.note(attributes::of(item), item.span().byte_range());
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.attrs, item.span().byte_range());
        visit::visit_impl_item_fn(self, item);
    }
}

/// Walks the tokens in the order of the source. Comments are what lies between tokens.
struct Finder<'a> {
    source: &'a str,
    regions: &'a Regions,
    passages: Vec<Passage>,
    /// Doc comments on adjacent lines, and the line after them.
    docs: Option<(Passage, usize)>,
    /// Comments on adjacent lines, and the line after them.
    comments: Option<(Passage, usize)>,
    /// Where the last token ended.
    end: usize,
}

impl Finder<'_> {
    fn stream(&mut self, stream: TokenStream) {
        let mut before: Vec<String> = Vec::new();
        for token in stream {
            match &token {
                TokenTree::Group(group) => {
                    let doc = (group.delimiter() == Delimiter::Bracket)
                        .then(|| doc_comment(&group.stream()))
                        .flatten();
                    let span = group.span().byte_range();
                    if let Some(range) = doc.filter(|range| self.is_comment(range)) {
                        self.doc(&range);
                    } else {
                        self.token(&group.span_open().byte_range());
                        self.stream(group.stream());
                        self.token(&group.span_close().byte_range());
                    }
                    self.end = self.end.max(span.end);
                }
                TokenTree::Ident(word) => {
                    self.token(&word.span().byte_range());
                    if before.last().is_some_and(|last| last == "fn") {
                        self.name(&word.to_string(), word.span().byte_range().start);
                    }
                }
                TokenTree::Literal(literal) => {
                    self.token(&literal.span().byte_range());
                    let is_reason =
                        matches!(&before[..], [.., name, mark] if name == "reason" && mark == "=");
                    self.literal(literal, is_reason);
                }
                TokenTree::Punct(mark) => {
                    let range = mark.span().byte_range();
                    // The `#` of a doc comment has the span of the whole comment.
                    if !self.is_comment(&range) {
                        self.token(&range);
                    }
                }
            }
            before.push(token.to_string());
        }
    }

    fn is_comment(&self, range: &Range<usize>) -> bool {
        let text = &self.source[range.clone()];
        text.starts_with("//") || text.starts_with("/*")
    }

    /// Passes a token.
    fn token(&mut self, range: &Range<usize>) {
        if range.start >= self.end {
            self.gap(range.start);
            self.flush_docs();
            self.end = range.end;
        }
    }

    /// Reads the comments between the last token and `until`.
    fn gap(&mut self, until: usize) {
        let mut at = self.end;
        while at < until {
            let rest = &self.source[at..until];
            if rest.starts_with("//") {
                let length = rest.find('\n').unwrap_or(rest.len());
                self.comment(at, at + length);
                at += length;
            } else if rest.starts_with("/*") {
                let length = block_comment(rest);
                let inner = at + 2..at + length.saturating_sub(2).max(2);
                self.passages.push(Passage::verbatim(
                    Audience::Developers,
                    Form::Markdown,
                    &self.source[inner.clone()],
                    inner.start,
                ));
                at += length;
            } else {
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        self.end = self.end.max(until);
    }

    fn comment(&mut self, start: usize, end: usize) {
        let line = line_of(self.source, start);
        let alone = self.source[..start]
            .rsplit('\n')
            .next()
            .is_some_and(|before| before.trim().is_empty());
        let follows = self
            .comments
            .as_ref()
            .is_some_and(|(_, next)| *next == line);
        if !(alone && follows) {
            self.flush_comments();
        }
        let (passage, next) = self
            .comments
            .get_or_insert_with(|| (Passage::new(Audience::Developers, Form::Markdown), line));
        let text = start + 2..end;
        passage.push(&self.source[text.clone()], text.start);
        passage.push_char('\n', end.saturating_sub(1));
        // A comment behind code has no second line.
        *next = if alone { line + 1 } else { 0 };
    }

    fn flush_comments(&mut self) {
        self.passages
            .extend(self.comments.take().map(|(passage, _)| passage));
    }

    /// Reads one doc comment: a line of `///`, or a whole `/** */`.
    fn doc(&mut self, range: &Range<usize>) {
        if range.start < self.end {
            return;
        }
        let before = self.end;
        self.gap(range.start);
        let line = line_of(self.source, range.start);
        let audience = if Regions::covers(&self.regions.help, range.start) {
            Audience::Users
        } else {
            Audience::Developers
        };
        let follows = self.docs.as_ref().is_some_and(|(_, next)| *next == line);
        if !follows || self.source[before..range.start].contains("\n\n") {
            self.flush_docs();
        }
        let (passage, next) = self
            .docs
            .get_or_insert_with(|| (Passage::new(audience, Form::Markdown), line));
        let text = range.start + 3..range.end;
        passage.push(self.source[text.clone()].trim_end_matches("*/"), text.start);
        passage.push_char('\n', range.end.saturating_sub(1));
        *next = line_of(self.source, range.end) + 1;
        self.end = range.end;
    }

    fn flush_docs(&mut self) {
        self.passages
            .extend(self.docs.take().map(|(passage, _)| passage));
    }

    fn name(&mut self, name: &str, offset: usize) {
        // Shorter ones name what they return, as `how_long` would.
        if name.matches('_').count() >= 2 {
            let passage = Passage::verbatim(Audience::Developers, Form::Name, name, offset);
            self.passages.push(passage);
        }
    }

    fn literal(&mut self, literal: &Literal, is_reason: bool) {
        let start = literal.span().byte_range().start;
        let audience = if is_reason || Regions::covers(&self.regions.tests, start) {
            Audience::Developers
        } else {
            Audience::Users
        };
        if let Some(passage) = string(&literal.to_string(), audience, start)
            && !passage.is_empty()
        {
            self.passages.push(passage);
        }
    }
}

/// Returns the range of a doc comment that the lexer turned into `doc = "…"`.
fn doc_comment(stream: &TokenStream) -> Option<Range<usize>> {
    let mut tokens = stream.clone().into_iter();
    let (TokenTree::Ident(name), Some(_), Some(TokenTree::Literal(text))) =
        (tokens.next()?, tokens.next(), tokens.next())
    else {
        return None;
    };
    (name == "doc").then(|| text.span().byte_range())
}

/// Returns the length of the block comment that the text starts with; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// Returns the value of a string literal, each character with its place in the source.
fn string(raw: &str, audience: Audience, start: usize) -> Option<Passage> {
    let prefix = raw.find(['"', '#'])?;
    if !matches!(&raw[..prefix], "" | "b" | "c" | "r" | "br" | "cr") {
        return None;
    }
    let open = raw.find('"')?;
    let hashes = open - prefix;
    let close = raw.len().checked_sub(1 + hashes)?;
    let inner = raw.get(open + 1..close)?;
    if raw[..prefix].contains('r') {
        let offset = start + open + 1;
        return Some(Passage::verbatim(audience, Form::String, inner, offset));
    }
    let mut passage = Passage::new(audience, Form::String);
    let mut characters = inner.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let offset = start + open + 1 + at;
        if character != '\\' {
            passage.push_char(character, offset);
            continue;
        }
        match characters.next() {
            Some((_, 'n')) => passage.push_char('\n', offset),
            Some((_, 't')) => passage.push_char('\t', offset),
            // The line goes on with the first visible character of the next.
            Some((_, '\n')) => while characters.next_if(|(_, c)| c.is_whitespace()).is_some() {},
            Some((_, 'x')) => {
                characters.nth(1);
            }
            Some((_, 'u')) => while characters.next().is_some_and(|(_, c)| c != '}') {},
            Some((_, plain @ ('"' | '\'' | '\\'))) => passage.push_char(plain, offset),
            _ => {}
        }
    }
    Some(passage)
}

fn line_of(source: &str, offset: usize) -> usize {
    source[..offset.min(source.len())].matches('\n').count()
}
