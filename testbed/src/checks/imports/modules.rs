//! The modules of a crate: their files, names and uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use syn::visit::{self, Visit};

use super::super::attributes::{self, are_for_tests};
use super::paths::in_tokens;

/// A path of modules and a name, from the root of the crate.
pub(super) type Name = Vec<String>;

/// The module tree of one crate, without test code.
#[derive(Debug, Default)]
pub(super) struct Crate {
    pub(super) modules: BTreeMap<Name, Module>,
    /// Names of files below the repository's root.
    pub(super) files: Vec<String>,
}

/// One module; several inline modules share a file.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// Index of its file.
    pub(super) file: usize,
    /// Names that the module itself defines.
    defined: BTreeSet<String>,
    /// Names that it takes from elsewhere, each with its path as written.
    taken: BTreeMap<String, Name>,
    /// Modules of which it takes everything, as written.
    globs: Vec<Name>,
    /// Paths in its code and its private imports, each with its line.
    pub(super) mentioned: Vec<(Name, usize)>,
}

impl Crate {
    /// Reads the crate that starts with this file of the project.
    pub(super) fn read(project: &Path, root: &str) -> Result<Self> {
        let mut read = Self::default();
        let dir = Path::new(root).parent().context("a file has a directory")?;
        read.file(project, Path::new(root), dir, &Vec::new())?;
        Ok(read)
    }

    /// Reads a module's file. `below` is the directory of its children's files.
    fn file(&mut self, project: &Path, name: &Path, below: &Path, module: &Name) -> Result<()> {
        let source = fs::read_to_string(project.join(name))
            .with_context(|| format!("read {}", name.display()))?;
        let parsed =
            syn::parse_file(&source).with_context(|| format!("parse {}", name.display()))?;
        let number = self.files.len();
        self.files.push(name.to_string_lossy().into_owned());
        self.items(project, &parsed.items, number, below, module)
    }

    fn items(
        &mut self,
        project: &Path,
        items: &[syn::Item],
        file: usize,
        below: &Path,
        path: &Name,
    ) -> Result<()> {
        let mut reader = Reader {
            module: Module {
                file,
                ..Module::default()
            },
            children: Vec::new(),
        };
        for item in items {
            reader.visit_item(item);
        }
        let Reader { module, children } = reader;
        self.modules.insert(path.clone(), module);
        for child in children {
            let name = child.ident.to_string();
            let mut child_path = path.clone();
            child_path.push(name.clone());
            let child_below = below.join(&name);
            if let Some((_, items)) = child.content {
                self.items(project, &items, file, &child_below, &child_path)?;
                continue;
            }
            let own = below.join(format!("{name}.rs"));
            let file = if project.join(&own).is_file() {
                own
            } else {
                child_below.join("mod.rs")
            };
            self.file(project, &file, &child_below, &child_path)?;
        }
        Ok(())
    }

    /// Returns the file that defines the last name of a path, which is written in `module`.
    ///
    /// Returns nothing for a path that leaves the crate, and for one that ends at a module: a module that
    /// is imported as a whole counts where a name of it is used.
    pub(super) fn file_of(&self, module: &Name, path: &[String]) -> Option<usize> {
        let mut seen = BTreeSet::new();
        self.find(module, path, &mut seen)
    }

    fn find(
        &self,
        module: &Name,
        path: &[String],
        seen: &mut BTreeSet<(Name, Name)>,
    ) -> Option<usize> {
        if !seen.insert((module.clone(), path.to_vec())) {
            return None;
        }
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.below(&Vec::new(), rest, true, seen),
            "self" => self.below(module, rest, true, seen),
            "super" => {
                let (_, parent) = module.split_last()?;
                let parent = parent.to_vec();
                if rest.first().is_some_and(|next| next == "super") {
                    self.find(&parent, rest, seen)
                } else {
                    self.below(&parent, rest, true, seen)
                }
            }
            _ => self.below(module, path, false, seen),
        }
    }

    /// Follows a path from a module to a child, to a name of the module, or to the name's origin.
    ///
    /// `is_qualified` says that the path starts at this module, so a macro defines a name that nothing else
    /// does.
    fn below(
        &self,
        module: &Name,
        path: &[String],
        is_qualified: bool,
        seen: &mut BTreeSet<(Name, Name)>,
    ) -> Option<usize> {
        let here = self.modules.get(module)?;
        let (first, rest) = path.split_first()?;
        let mut child = module.clone();
        child.push(first.clone());
        let is_child = self.modules.contains_key(&child);
        if is_child && !rest.is_empty() {
            return self.below(&child, rest, true, seen);
        }
        if here.defined.contains(first) {
            return Some(here.file);
        }
        if let Some(taken) = here.taken.get(first) {
            // `use anyhow::anyhow` means another crate.
            if taken.first() == Some(first) && !is_child {
                return None;
            }
            let mut whole = taken.clone();
            whole.extend(rest.iter().cloned());
            return self.find(module, &whole, seen);
        }
        let behind_glob = here.globs.iter().find_map(|glob| {
            let mut whole = glob.clone();
            whole.extend(path.iter().cloned());
            self.find(module, &whole, seen)
        });
        behind_glob.or((is_qualified && !is_child && here.globs.is_empty()).then_some(here.file))
    }
}

/// Collects what one module defines, takes and mentions.
struct Reader {
    module: Module,
    children: Vec<syn::ItemMod>,
}

impl Reader {
    fn take(&mut self, tree: &syn::UseTree, path: &Name, is_private: bool, line: usize) {
        match tree {
            syn::UseTree::Path(part) => {
                let mut path = path.clone();
                path.push(part.ident.to_string());
                self.take(&part.tree, &path, is_private, line);
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.take(tree, path, is_private, line);
                }
            }
            syn::UseTree::Glob(_) => {
                self.module.globs.push(path.clone());
            }
            syn::UseTree::Name(name) => {
                let ident = name.ident.to_string();
                self.take_name(&ident, &ident, path, is_private, line);
            }
            syn::UseTree::Rename(name) => {
                let (ident, other) = (name.ident.to_string(), name.rename.to_string());
                self.take_name(&ident, &other, path, is_private, line);
            }
        }
    }

    fn take_name(
        &mut self,
        name: &str,
        known_as: &str,
        path: &Name,
        is_private: bool,
        line: usize,
    ) {
        let mut whole = path.clone();
        let known_as = if name == "self" {
            path.last().map_or(known_as, String::as_str)
        } else {
            whole.push(name.to_owned());
            known_as
        };
        if is_private {
            self.module.mentioned.push((whole.clone(), line));
        }
        self.module.taken.insert(known_as.to_owned(), whole);
    }

    fn define(&mut self, item: &syn::Item) {
        use syn::Item;
        let name = match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::TraitAlias(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            Item::Macro(item) => match &item.ident {
                Some(name) => name,
                None => return,
            },
            Item::ExternCrate(_)
            | Item::ForeignMod(_)
            | Item::Impl(_)
            | Item::Mod(_)
            | Item::Use(_)
            | Item::Verbatim(_)
            | _ => return,
        };
        self.module.defined.insert(name.to_string());
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if are_for_tests(attributes::of(item)) {
            return;
        }
        self.define(item);
        visit::visit_item(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !are_for_tests(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.children.push(item.clone());
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let line = item.use_token.span.start().line;
        let is_private = matches!(item.vis, syn::Visibility::Inherited);
        self.take(&item.tree, &Vec::new(), is_private, line);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            let names = path.segments.iter().map(|part| part.ident.to_string());
            let line = first.ident.span().start().line;
            self.module.mentioned.push((names.collect(), line));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.module.mentioned.extend(in_tokens(call.tokens.clone()));
        visit::visit_macro(self, call);
    }
}
