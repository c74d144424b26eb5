//! Units and generators that no container of an image starts.

use std::io;

use super::tree::Tree;

const UNITS: &str = include_str!("../../guest/masked");
const GENERATORS: &str = include_str!("../../guest/masked-generators");

/// Masks them. Returns the number of units.
pub(super) fn install(tree: &Tree) -> io::Result<usize> {
    for generator in entries(GENERATORS) {
        tree.link(&generator_path(generator), "/dev/null")?;
    }
    let mut masked = 0;
    for unit in entries(UNITS) {
        tree.link(&format!("etc/systemd/system/{unit}"), "/dev/null")?;
        masked += 1;
    }
    Ok(masked)
}

/// Returns the path at which a generator is masked (systemd.generator(7)).
pub(super) fn generator_path(name: &str) -> String {
    format!("etc/systemd/system-generators/{name}")
}

/// Returns the lines of a list that are neither empty nor comments.
pub(super) fn entries(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}
