//! Prose as it is found in a file: passages, and the blocks that the rules read.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The readers of a passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// Operators: logs, errors, `--help`, rendered files, documents.
    Users,
    /// Developers: comments, doc comments, names and strings of tests.
    Developers,
}

/// The notation of a passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Markdown, as in documents and doc comments.
    Markdown,
    /// Text with blank lines between paragraphs.
    Plain,
    /// The same in a string, which continues another one if it starts with a space.
    String,
    /// A function's name.
    Name,
}

/// Adjacent prose of one audience.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) audience: Audience,
    pub(super) form: Form,
    text: String,
    /// The source offset of each byte of `text`.
    origin: Vec<usize>,
}

/// One paragraph, heading, list item, table cell or name.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) text: String,
    /// The source offset of each byte of `text`.
    origin: Vec<usize>,
    pub(super) is_heading: bool,
    /// A capitalised word at the start of a line starts a sentence.
    pub(super) has_lines: bool,
    /// The first word does not start a sentence.
    pub(super) continues: bool,
}

impl Passage {
    pub(super) fn new(audience: Audience, form: Form) -> Self {
        Self {
            audience,
            form,
            text: String::new(),
            origin: Vec::new(),
        }
    }

    /// Returns a passage that stands in the source as it is.
    pub(super) fn verbatim(audience: Audience, form: Form, text: &str, offset: usize) -> Self {
        let mut passage = Self::new(audience, form);
        passage.push(text, offset);
        passage
    }

    /// Appends text that stands at `offset` in the source.
    pub(super) fn push(&mut self, text: &str, offset: usize) {
        self.text.push_str(text);
        self.origin.extend(offset..offset + text.len());
    }

    /// Appends a character whose notation in the source starts at `offset`.
    pub(super) fn push_char(&mut self, character: char, offset: usize) {
        self.text.push(character);
        self.origin
            .extend(std::iter::repeat_n(offset, character.len_utf8()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Returns the blocks of the passage, without code.
    pub(super) fn blocks(&self) -> Vec<Block> {
        match self.form {
            Form::Markdown => self.markdown(),
            Form::Plain | Form::String => self.paragraphs(),
            Form::Name => {
                let mut block = self.part(0, self.text.len());
                block.text = block.text.replace('_', " ");
                vec![block]
            }
        }
    }

    fn part(&self, start: usize, end: usize) -> Block {
        Block {
            text: self.text[start..end].to_owned(),
            origin: self.origin[start..end].to_vec(),
            ..Block::default()
        }
    }

    fn markdown(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut block = Block::default();
        let mut in_code = false;
        let parser = Parser::new_ext(&self.text, Options::ENABLE_TABLES);
        for (event, range) in parser.into_offset_iter() {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "of Markdown's many elements only these delimit prose"
            )]
            match event {
                Event::Text(_) if in_code => {}
                Event::Text(_) => block.append(&self.part(range.start, range.end)),
                Event::Code(_) => block.placeholder(self.origin[range.start]),
                Event::SoftBreak => block.push(' ', self.origin[range.start]),
                Event::HardBreak => block.push('\n', self.origin[range.start]),
                Event::Start(Tag::CodeBlock(_)) => {
                    block.flush(&mut blocks);
                    in_code = true;
                }
                Event::End(TagEnd::CodeBlock) => in_code = false,
                Event::Start(Tag::Heading { .. }) => {
                    block.flush(&mut blocks);
                    block.is_heading = true;
                }
                Event::Start(
                    Tag::Paragraph | Tag::Item | Tag::TableCell | Tag::BlockQuote(_) | Tag::List(_),
                )
                | Event::End(
                    TagEnd::Paragraph
                    | TagEnd::Heading(_)
                    | TagEnd::Item
                    | TagEnd::TableCell
                    | TagEnd::BlockQuote(_)
                    | TagEnd::List(_),
                ) => block.flush(&mut blocks),
                _ => {}
            }
        }
        block.flush(&mut blocks);
        blocks
    }

    fn paragraphs(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut block = Block::default();
        let mut in_code = false;
        let mut line_is_blank = false;
        for (at, character) in self.text.char_indices() {
            let offset = self.origin[at];
            match character {
                '\n' if line_is_blank => {
                    in_code = false;
                    block.flush(&mut blocks);
                }
                '`' => {
                    in_code = !in_code;
                    if in_code {
                        block.placeholder(offset);
                    }
                }
                _ if in_code => {}
                _ => block.push(character, offset),
            }
            line_is_blank = character == '\n' || line_is_blank && character.is_whitespace();
        }
        block.flush(&mut blocks);
        for block in &mut blocks {
            block.has_lines = true;
        }
        if let Some(first) = blocks.first_mut() {
            first.continues = self.form == Form::String && first.text.starts_with(' ');
        }
        blocks
    }
}

impl Block {
    fn push(&mut self, character: char, offset: usize) {
        self.text.push(character);
        self.origin
            .extend(std::iter::repeat_n(offset, character.len_utf8()));
    }

    /// Stands for code, which is not prose.
    fn placeholder(&mut self, offset: usize) {
        self.push('`', offset);
    }

    fn append(&mut self, part: &Self) {
        self.text.push_str(&part.text);
        self.origin.extend(&part.origin);
    }

    fn flush(&mut self, blocks: &mut Vec<Self>) {
        let block = std::mem::take(self);
        if !block.text.trim().is_empty() {
            blocks.push(block);
        }
    }

    /// Returns the source offset of a byte of the text.
    pub(super) fn offset(&self, at: usize) -> usize {
        self.origin.get(at).copied().unwrap_or_default()
    }
}
