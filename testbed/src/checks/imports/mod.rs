//! The import check: finds circles between the files of a crate, and imports against the levels of
//! ARCHITECTURE.md.
//!
//! A file imports another if its code, tests left out, names something that the other file defines: by a
//! `use`, or by a path in an expression, a type or a macro's arguments.
//!
//! A module and its children follow the same rule, with two additions:
//! - `mod child;` and a re-export (`pub use`, `pub(crate) use`) import nothing, because a module is the table
//!   of contents of its children;
//! - a name that a module re-exports counts as an import of the file that defines it.
//!
//! So a child may use its parent's types, or a parent may call its children, but not both.

mod known;
mod levels;
mod modules;
mod paths;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};
use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use super::tools::project;
use super::tracked;
pub use levels::imports_follow_the_levels;
use modules::Crate;

/// Files that import each other, directly or through each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Circle {
    /// Their names, sorted.
    pub files: Vec<String>,
    imports: Vec<Import>,
}

/// One file that names something of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: String,
    to: String,
    line: usize,
    path: String,
    /// Paths between the two files.
    count: usize,
}

impl fmt::Display for Circle {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "circle of {}", self.files.join(", "))?;
        for import in &self.imports {
            let Import {
                from,
                to: target,
                line,
                path,
                count,
            } = import;
            writeln!(to, "  {from}:{line}: {path} in {target} ({count} in all)")?;
        }
        Ok(())
    }
}

/// Returns the circles of every crate in the workspace.
pub fn circles() -> Result<Vec<Circle>> {
    let mut circles = Vec::new();
    for root in tracked(is_root)? {
        circles.extend(circles_of(&Crate::read(project(), &root)?));
    }
    circles.sort();
    Ok(circles)
}

/// Returns true for the first file of a library or of a program.
fn is_root(name: &str) -> bool {
    let Some((_, inner)) = name.split_once("/src/") else {
        return false;
    };
    match inner.split('/').collect::<Vec<_>>()[..] {
        ["lib.rs" | "main.rs"] | ["bin", _, "main.rs"] => true,
        ["bin", file] => Path::new(file).extension().is_some_and(|kind| kind == "rs"),
        _ => false,
    }
}

/// Fails on a circle that is not known, and on a known one that is gone.
pub fn imports_have_no_new_circle() -> Result<()> {
    let circles = circles()?;
    let is_known = |circle: &Circle| known::CIRCLES.iter().any(|known| circle.files == *known);
    let new = circles.iter().filter(|circle| !is_known(circle));
    let mut problems: Vec<String> = new.map(|circle| format!("new {circle}")).collect();
    for known in known::CIRCLES {
        if !circles.iter().any(|circle| circle.files == *known) {
            problems.push(format!(
                "the circle of {} has changed or is gone; correct the list in checks/imports/known.rs",
                known.join(", ")
            ));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn circles_of(read: &Crate) -> Vec<Circle> {
    let imports = imports(read);
    let mut graph = DiGraph::<usize, ()>::new();
    let nodes: Vec<_> = (0..read.files.len())
        .map(|file| graph.add_node(file))
        .collect();
    for (from, to) in imports.keys() {
        graph.add_edge(nodes[*from], nodes[*to], ());
    }
    tarjan_scc(&graph)
        .into_iter()
        .filter(|component| component.len() > 1)
        .map(|component| {
            let files: BTreeSet<usize> = component.into_iter().map(|node| graph[node]).collect();
            let mut names: Vec<String> =
                files.iter().map(|file| read.files[*file].clone()).collect();
            names.sort();
            let mut within: Vec<Import> = imports
                .iter()
                .filter(|((from, to), _)| files.contains(from) && files.contains(to))
                .map(|(_, import)| import.clone())
                .collect();
            within.sort();
            Circle {
                files: names,
                imports: within,
            }
        })
        .collect()
}

/// Returns the imports between files, by the numbers of the two.
fn imports(read: &Crate) -> BTreeMap<(usize, usize), Import> {
    let mut imports: BTreeMap<(usize, usize), Import> = BTreeMap::new();
    for (name, module) in &read.modules {
        for (path, line) in &module.mentioned {
            let Some(to) = read.file_of(name, path).filter(|to| *to != module.file) else {
                continue;
            };
            imports
                .entry((module.file, to))
                .or_insert_with(|| Import {
                    from: read.files[module.file].clone(),
                    to: read.files[to].clone(),
                    line: *line,
                    path: path.join("::"),
                    count: 0,
                })
                .count += 1;
        }
    }
    imports
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Returns the circles of a library with these files.
    fn circles_among(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        circles_of(&Crate::read(dir.path(), "lib.rs").unwrap())
            .into_iter()
            .map(|circle| circle.files)
            .collect()
    }

    #[test]
    fn two_files_that_name_each_other_are_a_circle() {
        let circle = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            (
                "b.rs",
                "pub struct B; fn f() { println!(\"{}\", crate::a::NAME) }",
            ),
            ("c.rs", "use crate::a::A;"),
        ];
        assert_eq!(circles_among(&circle), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn code_of_tests_does_not_count() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            (
                "b.rs",
                "pub struct B; #[cfg(test)] mod tests { use crate::a::A; } #[cfg(test)] use crate::a::A;",
            ),
        ];
        assert_eq!(circles_among(&files), [[""; 0]; 0]);
    }

    #[test]
    fn a_module_may_re_export_children_that_use_its_types() {
        let child = ("m/child.rs", "use super::Kind; pub fn run(_: Kind) {}");
        let parent = "mod child; pub use child::run; pub enum Kind { A }";
        let files = [("lib.rs", "pub mod m;"), ("m/mod.rs", parent), child];
        assert_eq!(circles_among(&files), [[""; 0]; 0]);

        let calls = "mod child; pub enum Kind { A } pub fn all() { child::run(Kind::A) }";
        let files = [("lib.rs", "pub mod m;"), ("m/mod.rs", calls), child];
        assert_eq!(circles_among(&files), [["m/child.rs", "m/mod.rs"]]);
    }

    #[test]
    fn a_re_exported_name_is_its_own_files() {
        let files = [
            ("lib.rs", "mod m;"),
            (
                "m/mod.rs",
                "mod one; mod two; pub use one::*; pub use two::Two;",
            ),
            ("m/one.rs", "use super::Two; pub struct One(Two);"),
            (
                "m/two.rs",
                "pub struct Two; impl Two { fn one(self) -> super::One { todo() } }",
            ),
        ];
        assert_eq!(circles_among(&files), [["m/one.rs", "m/two.rs"]]);
    }

    #[test]
    fn a_name_of_another_crate_is_not_a_file() {
        let files = [
            ("lib.rs", "mod a; mod anyhow;"),
            (
                "a.rs",
                "use anyhow::anyhow; fn f() { anyhow!(\"no\"); anyhow::anyhow() }",
            ),
            ("anyhow.rs", "use crate::a::f;"),
        ];
        assert_eq!(circles_among(&files), [[""; 0]; 0]);
    }
}
