//! The minimal boot: an image that starts its runner first, and the rest of its system when the runner has its
//! config.

use std::io;

use super::masks;
use super::tree::Tree;
use crate::config::MINIMAL_TARGET;

/// Files for `/usr/lib/systemd/system`.
const UNITS: [(&str, &str); 3] = [
    (
        MINIMAL_TARGET,
        include_str!("../../guest/minimal/github-runner.target"),
    ),
    (
        "github-runner-config.path",
        include_str!("../../guest/minimal/github-runner-config.path"),
    ),
    (
        BOOTED,
        include_str!("../../guest/minimal/github-runner-booted.service"),
    ),
];
/// Unit at the end of the rest of the boot.
const BOOTED: &str = "github-runner-booted.service";
const DROP_IN: &str = "etc/systemd/system/github-runner.service.d/40-minimal.conf";
const DROP_IN_TEXT: &str = include_str!("../../guest/minimal/github-runner.conf");
const GENERATORS: &str = include_str!("../../guest/minimal/generators");
/// Target of our links that mask generators. An operator's own mask is `/dev/null`, which [`remove`] keeps.
const MASK: &str = "../../../dev/null";

/// Installs the minimal boot. `uid` is that of the job's user.
pub(super) fn install(tree: &Tree, uid: u32) -> io::Result<()> {
    for (name, text) in UNITS {
        tree.file(&unit(name), 0o644, text)?;
    }
    tree.file(
        DROP_IN,
        0o644,
        &DROP_IN_TEXT.replace("UID", &uid.to_string()),
    )?;
    tree.link(&wants(), &format!("/{}", unit(BOOTED)))?;
    for generator in masks::entries(GENERATORS) {
        let path = masks::generator_path(generator);
        if tree.target(&path)?.is_none_or(|target| target == MASK) {
            tree.link(&path, MASK)?;
        }
    }
    Ok(())
}

/// Removes what [`install`] left in an image.
pub(super) fn remove(tree: &Tree) -> io::Result<()> {
    for (name, _) in UNITS {
        tree.remove(&unit(name))?;
    }
    tree.remove(DROP_IN)?;
    tree.remove(&wants())?;
    for generator in masks::entries(GENERATORS) {
        let path = masks::generator_path(generator);
        if tree.target(&path)?.is_some_and(|target| target == MASK) {
            tree.remove(&path)?;
        }
    }
    Ok(())
}

fn unit(name: &str) -> String {
    format!("usr/lib/systemd/system/{name}")
}

fn wants() -> String {
    format!("etc/systemd/system/multi-user.target.wants/{BOOTED}")
}
