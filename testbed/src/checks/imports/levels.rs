//! The levels of the product's modules, as the diagram in ARCHITECTURE.md draws them.
//!
//! A line `level 4   a, b ─▶ c ⇄ d` is a level. A module may import those of lower levels, and inside its
//! level only along an arrow. Crates stand in the diagram for readers, and cargo holds their rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::super::tools::project;
use super::imports;
use super::modules::Crate;

const DIAGRAM: &str = "ARCHITECTURE.md";
const PRODUCT: &str = "runner-controller/src/lib.rs";

/// The module that calls every parser, for tests and fuzzing. It is not in the shipped program.
const ABOVE_ALL: &str = "outside";

/// Modules by level, and the arrows inside levels.
#[derive(Debug, Default, PartialEq, Eq)]
struct Levels {
    of: BTreeMap<String, usize>,
    arrows: BTreeSet<(String, String)>,
}

/// Fails on an import of the product that the diagram does not allow, and on a module that it lacks.
pub fn imports_follow_the_levels() -> Result<()> {
    let text = fs::read_to_string(project().join(DIAGRAM)).context(DIAGRAM)?;
    let levels = Levels::read(&text)?;
    let problems = levels.problems(&Crate::read(project(), PRODUCT)?);
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

impl Levels {
    fn read(text: &str) -> Result<Self> {
        let mut levels = Self::default();
        for line in text.lines() {
            let Some(line) = line.strip_prefix("level ") else {
                continue;
            };
            let (number, names) = line
                .split_once(' ')
                .with_context(|| format!("`level {line}` has no module"))?;
            let number = number.parse().context("number of a level")?;
            for chain in names.split(',') {
                levels.add(number, chain)?;
            }
        }
        ensure!(!levels.of.is_empty(), "{DIAGRAM} draws no level");
        Ok(levels)
    }

    /// Adds modules of one level, with arrows between them.
    fn add(&mut self, level: usize, chain: &str) -> Result<()> {
        let words = chain.replace("crate ", "");
        let mut last: Option<String> = None;
        let mut arrow = None;
        for word in words.split_whitespace() {
            if let "─▶" | "⇄" = word {
                arrow = Some(word);
                continue;
            }
            if self
                .of
                .insert(word.to_owned(), level)
                .is_some_and(|other| other != level)
            {
                bail!("{DIAGRAM}: the module {word} is on two levels");
            }
            match (last.take(), arrow.take()) {
                (Some(from), Some(arrow)) => {
                    if arrow == "⇄" {
                        self.arrows.insert((word.to_owned(), from.clone()));
                    }
                    self.arrows.insert((from, word.to_owned()));
                }
                (None, None) => {}
                _ => bail!("{DIAGRAM}: modules in `{chain}` need a comma or an arrow between them"),
            }
            last = Some(word.to_owned());
        }
        ensure!(
            last.is_some() && arrow.is_none(),
            "{DIAGRAM}: `{chain}` lacks a module"
        );
        Ok(())
    }

    fn allow(&self, from: &str, to: &str) -> bool {
        let (Some(above), Some(below)) = (self.of.get(from), self.of.get(to)) else {
            return false;
        };
        below < above || self.arrows.contains(&(from.to_owned(), to.to_owned()))
    }

    /// Returns the imports that the levels do not allow, and the modules that they lack.
    fn problems(&self, read: &Crate) -> Vec<String> {
        let modules = read.modules.keys().filter_map(|name| name.first());
        let modules: BTreeSet<&str> = modules.map(String::as_str).collect();
        let lacks = modules
            .iter()
            .filter(|module| !self.of.contains_key(**module));
        let mut problems: Vec<String> = lacks
            .filter(|module| **module != ABOVE_ALL)
            .map(|module| format!("{DIAGRAM} has no level for the module {module}"))
            .collect();
        let found = imports(read);
        let mut used = BTreeSet::new();
        for import in found.values() {
            let (Some(from), Some(to)) = (module(&import.from), module(&import.to)) else {
                continue;
            };
            if from == to || from == ABOVE_ALL {
                continue;
            }
            used.insert((from.to_owned(), to.to_owned()));
            if !self.allow(from, to) {
                let (file, line, path) = (&import.from, import.line, &import.path);
                problems.push(format!(
                    "{file}:{line}: {path}: the levels of {DIAGRAM} do not let {from} import {to}"
                ));
            }
        }
        let between = |(from, to): &&(String, String)| {
            [from, to]
                .iter()
                .all(|name| modules.contains(name.as_str()))
        };
        let arrows = self.arrows.iter().filter(between);
        problems.extend(
            arrows
                .filter(|arrow| !used.contains(*arrow))
                .map(|(from, to)| {
                    format!("{DIAGRAM}: {from} does not import {to}; remove the arrow")
                }),
        );
        problems
    }
}

/// Returns the top-level module of a file of the product, and nothing for the crate's root.
fn module(file: &str) -> Option<&str> {
    let (_, inner) = file.rsplit_once("src/").unwrap_or(("", file));
    let name = inner.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (name != "lib").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWN: &str = "text\nlevel 1   top ─▶ beside\nlevel 0   base, crate pool\n";

    /// Returns the problems of a library with these files, under the levels of [`DRAWN`].
    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let read = Crate::read(dir.path(), "lib.rs").unwrap();
        Levels::read(DRAWN).unwrap().problems(&read)
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod top; mod beside; mod base;");
    const TOP: (&str, &str) = ("top.rs", "use crate::beside::B; use crate::base::C;");
    const BESIDE: (&str, &str) = ("beside.rs", "pub struct B;");
    const BASE: (&str, &str) = ("base.rs", "pub struct C;");

    #[test]
    fn imports_of_lower_levels_and_along_arrows_are_allowed() {
        assert_eq!(problems(&[ROOT, TOP, BESIDE, BASE]), [""; 0]);
    }

    #[test]
    fn an_import_of_a_higher_level_is_named() {
        let up = ("base.rs", "use crate::top::f; pub struct C;");
        let found = problems(&[ROOT, TOP, BESIDE, up]);
        assert_eq!(
            found,
            ["base.rs:1: crate::top::f: the levels of ARCHITECTURE.md do not let base import top"]
        );
    }

    #[test]
    fn an_import_against_an_arrow_is_named() {
        let back = ("beside.rs", "use crate::top::f; pub struct B;");
        assert_eq!(problems(&[ROOT, TOP, back, BASE]).len(), 1);
    }

    #[test]
    fn a_module_without_a_level_and_an_arrow_without_an_import_are_named() {
        let root = ("lib.rs", "mod top; mod beside; mod base; mod other;");
        let top = ("top.rs", "use crate::base::C;");
        let found = problems(&[root, top, BESIDE, BASE, ("other.rs", "")]);
        assert_eq!(
            found,
            [
                "ARCHITECTURE.md has no level for the module other",
                "ARCHITECTURE.md: top does not import beside; remove the arrow"
            ]
        );
    }

    #[test]
    fn a_diagram_that_is_unclear_is_refused() {
        for text in [
            "",
            "level 1   a b",
            "level 1   a ─▶",
            "level 1   a\nlevel 0   a",
            "level x   a",
        ] {
            assert!(Levels::read(text).is_err(), "{text}");
        }
    }
}
