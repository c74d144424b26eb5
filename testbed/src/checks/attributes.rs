//! Attributes of Rust items, as the checks read them.

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item};

/// Returns the attributes of an item.
pub(super) fn of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        // Syntax that syn does not know yet.
        Item::Verbatim(_) | _ => &[],
    }
}

/// Returns true if the attributes keep an item out of what is built for users.
///
/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]` and `#[cfg(any(test, …))]` do.
pub(super) fn are_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        let is_test = path
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "test");
        is_test || (path.is_ident("cfg") && words(attribute).any(|word| word == "test"))
    })
}

/// Returns true if the attributes derive one of these traits.
pub(super) fn derive_any(attributes: &[Attribute], traits: &[&str]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("derive")
            && words(attribute).any(|word| traits.contains(&word.as_str()))
    })
}

/// Returns the identifiers among an attribute's arguments, inner groups included.
fn words(attribute: &Attribute) -> impl Iterator<Item = String> {
    fn collect(stream: TokenStream, into: &mut Vec<String>) {
        for token in stream {
            match token {
                TokenTree::Ident(word) => into.push(word.to_string()),
                TokenTree::Group(group) => collect(group.stream(), into),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
    let mut words = Vec::new();
    if let syn::Meta::List(list) = &attribute.meta {
        collect(list.tokens.clone(), &mut words);
    }
    words.into_iter()
}
