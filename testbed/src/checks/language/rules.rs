//! The rules, over one block of prose.

use super::passage::Block;

/// Words that leave a sentence without a named subject.
const OPENINGS: &[&str] = &[
    "what",
    "who",
    "whoever",
    "how",
    "where",
    "whether",
    "nobody",
    "nothing of",
    "so long",
];

/// Pronouns in the place of a named actor.
const PRONOUNS: &[&str] = &["nobody", "somebody", "anybody", "whoever"];

/// Word sequences, and the words after which they are correct.
const PHRASES: &[(&[&str], &[&str])] = &[
    (&["is", "no"], &["longer"]),
    (&["of", "ours"], &[]),
    (&["of", "its", "own"], &[]),
];

/// A broken rule at a byte of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) at: usize,
    pub(super) rule: String,
}

/// A word of a block.
#[derive(Debug, Clone, Copy)]
struct Word<'a> {
    at: usize,
    text: &'a str,
}

/// Returns every rule that the block breaks, in the order of the text.
pub(super) fn hits(block: &Block) -> Vec<Hit> {
    let words = words(&block.text);
    // A single word is a name or a value.
    if words.len() < 2 {
        return Vec::new();
    }
    let mut hits = Vec::new();
    for (number, word) in words.iter().enumerate() {
        let following = &words[number..];
        if let Some(start) = starts_sentence(block, &words, number) {
            let opening = OPENINGS
                .iter()
                .find(|opening| opens(&block.text, following, opening, start));
            if let Some(opening) = opening
                && !(block.is_heading && is_question(&block.text[word.at..]))
            {
                hits.push(Hit {
                    at: word.at,
                    rule: format!("starts with \"{opening}\""),
                });
                continue;
            }
        }
        if let Some(pronoun) = PRONOUNS
            .iter()
            .find(|pronoun| word.text.eq_ignore_ascii_case(pronoun))
            .filter(|_| !is_in_a_name(&block.text, *word))
        {
            hits.push(Hit {
                at: word.at,
                rule: format!("says \"{pronoun}\""),
            });
        }
        let phrase = PHRASES.iter().find(|(phrase, but)| {
            matches(&block.text, following, phrase)
                && following
                    .get(phrase.len())
                    .is_none_or(|next| !but.iter().any(|but| next.text.eq_ignore_ascii_case(but)))
        });
        if let Some((phrase, _)) = phrase {
            hits.push(Hit {
                at: word.at,
                rule: format!("says \"{}\"", phrase.join(" ")),
            });
        }
    }
    hits
}

/// Returns true if the word is part of an address, or the value of an option.
fn is_in_a_name(text: &str, word: Word) -> bool {
    let after = &text[word.at + word.text.len()..];
    let is_in_an_address = after
        .strip_prefix('.')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    text[..word.at].ends_with(['=', '/']) || is_in_an_address
}

/// The certainty that a word starts a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// At the start of a block, whatever its case.
    OfBlock,
    /// After a full stop, if the word is capitalised.
    OfSentence,
}

fn starts_sentence(block: &Block, words: &[Word], number: usize) -> Option<Start> {
    let word = words[number];
    let before = &block.text[..word.at];
    if number == 0 {
        let only_marks = before
            .chars()
            .all(|c| c.is_whitespace() || "#*/;-(\"'“‘".contains(c));
        return (only_marks && !block.continues).then_some(Start::OfBlock);
    }
    if !word.text.starts_with(char::is_uppercase) {
        return None;
    }
    let gap = &block.text[words[number - 1].end()..word.at];
    let ended = gap.contains(['.', '!', '?']) && gap.contains(char::is_whitespace);
    let line = block.has_lines && gap.contains('\n');
    (ended || line).then_some(Start::OfSentence)
}

fn opens(text: &str, words: &[Word], opening: &str, start: Start) -> bool {
    let parts: Vec<&str> = opening.split(' ').collect();
    let [first, rest @ ..] = words else {
        return false;
    };
    // SQL's keywords are capitals throughout.
    let shouts = first.text.len() > 1 && first.text.chars().all(char::is_uppercase);
    let capital = start == Start::OfBlock || first.text.starts_with(char::is_uppercase);
    // "What's" is a form of "What".
    let stem = first.text.split(['\'', '’']).next().unwrap_or_default();
    let goes_on = words.len() > parts.len() && are_adjacent(text, &words[..=parts.len()]);
    let begins = stem.eq_ignore_ascii_case(parts[0]) && matches(text, rest, &parts[1..]);
    begins && goes_on && capital && !shouts
}

fn matches(text: &str, words: &[Word], phrase: &[&str]) -> bool {
    words.len() >= phrase.len()
        && are_adjacent(text, &words[..phrase.len()])
        && words
            .iter()
            .zip(phrase)
            .all(|(word, wanted)| word.text.eq_ignore_ascii_case(wanted))
}

/// Returns true if only white space is between these words.
fn are_adjacent(text: &str, words: &[Word]) -> bool {
    words
        .windows(2)
        .all(|pair| text[pair[0].end()..pair[1].at].trim().is_empty())
}

/// Returns true if the sentence at the start of the text ends with a question mark.
fn is_question(text: &str) -> bool {
    text.find(['.', '?'])
        .is_some_and(|end| text[end..].starts_with('?'))
}

impl Word<'_> {
    fn end(self) -> usize {
        self.at + self.text.len()
    }
}

fn words(text: &str) -> Vec<Word<'_>> {
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | '`' | '{' | '}' | '_');
    let mut words = Vec::new();
    let mut start = None;
    for (at, character) in text.char_indices() {
        match (start, inner(character)) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                words.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    words.extend(start.map(|from| from..text.len()));
    words
        .into_iter()
        .filter_map(|range| {
            // Quotation marks around a word are not part of it.
            let raw = &text[range.clone()];
            let text = raw.trim_matches(['\'', '’']);
            let at = range.start + (raw.len() - raw.trim_start_matches(['\'', '’']).len());
            (!text.is_empty()).then_some(Word { at, text })
        })
        .collect()
}
