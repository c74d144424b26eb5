//! Prose in shell, Python, Perl, C, TOML, recipes and unit files, found by a small lexer.
//!
//! The lexer knows comments, strings and here-documents. It does not know the grammar.

use super::passage::{Audience, Form, Passage};

/// A language as far as prose is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// `sh` and `bash`; strings have lines, and here-documents exist.
    Shell,
    /// Strings in three quotes have lines.
    Python,
    /// Like Python without them.
    Perl,
    /// `/* */` and `//`.
    C,
    /// Configuration: TOML, `just`.
    Config,
    /// systemd's files and rendered host files: whole lines, and `Description=`.
    Unit,
}

/// Returns the prose of a file.
pub(super) fn passages(
    source: &str,
    language: Language,
    comments: Audience,
    strings: Audience,
) -> Vec<Passage> {
    let mut lexer = Lexer {
        source,
        language,
        at: 0,
        comments,
        strings,
        comment: None,
        here_documents: Vec::new(),
        passages: Vec::new(),
    };
    if language == Language::Unit {
        lexer.lines();
    } else {
        lexer.run();
    }
    lexer.flush();
    lexer.passages
}

struct Lexer<'a> {
    source: &'a str,
    language: Language,
    at: usize,
    comments: Audience,
    strings: Audience,
    comment: Option<Passage>,
    /// Words that end the here-documents that start on the next line.
    here_documents: Vec<String>,
    passages: Vec<Passage>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn flush(&mut self) {
        self.passages.extend(self.comment.take());
    }

    /// Adds a comment's line to the comment on the lines above it.
    fn comment(&mut self, start: usize, end: usize) {
        let alone = self.source[..start]
            .rsplit('\n')
            .next()
            .is_some_and(|before| before.trim().is_empty());
        if !alone {
            self.flush();
        }
        let audience = self.comments;
        let passage = self
            .comment
            .get_or_insert_with(|| Passage::new(audience, Form::Plain));
        let text = self.source[start..end].trim_start_matches(['#', '/', ';', '!']);
        passage.push(text, end - text.len());
        passage.push_char('\n', end.saturating_sub(1));
        if !alone {
            self.flush();
        }
    }

    fn lines(&mut self) {
        let mut start = 0;
        for line in self.source.split_inclusive('\n') {
            let text = line.trim();
            let from = start + (line.len() - line.trim_start().len());
            if text.starts_with(['#', ';']) || text.starts_with("//") {
                self.comment(from, from + text.len());
            } else {
                self.flush();
            }
            if let Some(value) = text.strip_prefix("Description=") {
                self.passages.push(Passage::verbatim(
                    self.strings,
                    Form::Plain,
                    value,
                    from + "Description=".len(),
                ));
            }
            start += line.len();
        }
    }

    fn run(&mut self) {
        while let Some(character) = self.rest().chars().next() {
            let line_end = self.at + self.rest().find('\n').unwrap_or(self.rest().len());
            let before = self.source[..self.at].chars().next_back();
            let at_word = before.is_none_or(char::is_whitespace);
            match character {
                '#' if self.language != Language::C && at_word => {
                    self.comment(self.at, line_end);
                    self.at = line_end;
                }
                '/' if self.language == Language::C && self.rest().starts_with("//") => {
                    self.comment(self.at, line_end);
                    self.at = line_end;
                }
                '/' if self.language == Language::C && self.rest().starts_with("/*") => {
                    let length = self.rest().find("*/").unwrap_or(self.rest().len());
                    let text = self.at + 2..(self.at + length).max(self.at + 2);
                    self.passages.push(Passage::verbatim(
                        self.comments,
                        Form::Plain,
                        &self.source[text.clone()],
                        text.start,
                    ));
                    self.at = text.end + 2.min(self.source.len() - text.end);
                }
                // An apostrophe in C is a character.
                '"' => self.string('"'),
                '\'' if self.language != Language::C => self.string('\''),
                '\\' => self.skip(2),
                '<' if self.language == Language::Shell => self.here_document(),
                '\n' => {
                    self.skip(1);
                    self.bodies();
                    if self.source[self.at..].starts_with('\n') {
                        self.flush();
                    }
                }
                _ => {
                    if !character.is_whitespace() {
                        self.flush();
                    }
                    self.skip(1);
                }
            }
        }
    }

    fn skip(&mut self, characters: usize) {
        self.at += self
            .rest()
            .chars()
            .take(characters)
            .map(char::len_utf8)
            .sum::<usize>();
    }

    fn string(&mut self, quote: char) {
        self.flush();
        let triple: String = std::iter::repeat_n(quote, 3).collect();
        let is_triple = self.language == Language::Python && self.rest().starts_with(&triple);
        let closing = if is_triple { triple } else { quote.to_string() };
        let has_lines = is_triple || self.language == Language::Shell;
        let has_escapes = !(self.language == Language::Shell && quote == '\'');
        self.at += closing.len();
        let mut passage = Passage::new(self.strings, Form::String);
        while let Some(character) = self.rest().chars().next() {
            if self.rest().starts_with(&closing) {
                self.at += closing.len();
                break;
            }
            if character == '\n' && !has_lines {
                break;
            }
            if character == '\\' && has_escapes {
                if self.rest()[1..].starts_with('n') {
                    passage.push_char('\n', self.at);
                }
                self.skip(2);
                continue;
            }
            passage.push_char(character, self.at);
            self.skip(1);
        }
        if !passage.is_empty() {
            self.passages.push(passage);
        }
    }

    /// Notes the word that ends a here-document. `<<<` starts none.
    fn here_document(&mut self) {
        let rest = self.rest();
        let word = rest
            .strip_prefix("<<")
            .filter(|word| !word.starts_with('<'))
            .map(|word| {
                word.trim_start_matches('-')
                    .trim_start_matches(['\'', '"', '\\'])
            })
            .map(|word| {
                word.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect::<String>()
            })
            .filter(|word| !word.is_empty() && !word.starts_with(char::is_numeric));
        if let Some(word) = word {
            let length = rest.find(&word).unwrap_or_default() + word.len();
            self.here_documents.push(word);
            self.at += length;
            // The closing quote of a quoted word.
            if self.rest().starts_with(['\'', '"']) {
                self.skip(1);
            }
        } else {
            let length = self.rest().chars().take_while(|c| *c == '<').count();
            self.skip(length);
        }
    }

    /// Reads the here-documents that start here.
    fn bodies(&mut self) {
        for word in std::mem::take(&mut self.here_documents) {
            self.flush();
            let start = self.at;
            let mut end = start;
            for line in self.source[start..].split_inclusive('\n') {
                self.at += line.len();
                if line.trim() == word {
                    break;
                }
                end += line.len();
            }
            self.passages.push(Passage::verbatim(
                self.strings,
                Form::String,
                &self.source[start..end],
                start,
            ));
        }
    }
}
