//! Paths in the arguments of macros, which are tokens and not syntax.

use proc_macro2::{TokenStream, TokenTree};

/// Returns the paths of two or more names among tokens, each with its line.
pub(super) fn in_tokens(tokens: TokenStream) -> Vec<(Vec<String>, usize)> {
    let mut found = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut line = 0;
    // Colons since the last name.
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                if colons != 2 {
                    keep(&mut path, line, &mut found);
                    line = name.span().start().line;
                }
                path.push(name.to_string());
                colons = 0;
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                keep(&mut path, line, &mut found);
                colons = 0;
            }
            TokenTree::Group(group) => {
                keep(&mut path, line, &mut found);
                colons = 0;
                found.extend(in_tokens(group.stream()));
            }
        }
    }
    keep(&mut path, line, &mut found);
    found
}

fn keep(path: &mut Vec<String>, line: usize, found: &mut Vec<(Vec<String>, usize)>) {
    let path = std::mem::take(path);
    if path.len() > 1 {
        found.push((path, line));
    }
}
