//! A runner's roots in the Nix store, which keep its image and its unit's files from the garbage collector.
//!
//! The configured image is part of the host's closure. After a deploy it may not be, and the garbage
//! collector could remove it while a job still runs on it. A link below `gcroots` keeps its target
//! (`nix-store --gc`, "roots"). The link is on disk and survives a power failure, so every sweep
//! looks for it.
//!
//! The Nix of a container reads the image's registration at its first use. That file names all paths of
//! the system, so its store path refers to them, and a root on it keeps both.
//!
//! On NixOS, the rules of a unit name the configuration and the programs of their generation. Without these, the
//! sweep of the runner would fail, and so would the next start in its slot, which still has those rules.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::config::{Image, Nix, PoolConfig};
use crate::pool::SlotId;

/// Directory of our roots. The garbage collector searches all directories below `gcroots`.
pub(crate) const ROOTS: &str = "/nix/var/nix/gcroots/runner-controller";
/// Separates a slot and a name in the store, in the name of a root for the slot's rules. No slot has it.
const OF_RULES: char = '+';
/// Store that this garbage collector cleans. A store elsewhere has another collector.
const STORE: &str = "/nix/store";

/// Returns the path of the slot's root for its image, which may not exist.
pub(crate) fn path(id: &SlotId) -> PathBuf {
    Path::new(ROOTS).join(id.to_string())
}

/// Creates the slot's roots for the pool's image, if that is in this host's store, and for all store paths
/// that the rules of its unit name.
pub(crate) fn hold(id: &SlotId, pool: &PoolConfig, rules: &str) -> io::Result<()> {
    let image = held_by(&pool.image, pool.nix.as_ref());
    let named = named_in(rules);
    if image.is_none() && named.is_empty() {
        return Ok(());
    }
    hold_in(Path::new(ROOTS), id, image.as_deref(), &named)
}

/// Removes the slot's roots. Absent roots are not an error.
pub(crate) fn release(id: &SlotId) -> io::Result<()> {
    release_in(Path::new(ROOTS), id)
}

/// Returns the slots that have a root.
pub(crate) fn held() -> BTreeSet<SlotId> {
    held_in(Path::new(ROOTS))
}

fn held_by(image: &Image, nix: Option<&Nix>) -> Option<PathBuf> {
    match image {
        Image::Nixos { system, store, .. } => (store == Path::new(STORE)).then(|| {
            nix.and_then(|nix| nix.registration.as_deref())
                .and_then(store_path_of)
                .unwrap_or_else(|| system.clone())
        }),
        Image::Directory { .. } => None,
    }
}

/// Returns the store path that contains a file.
fn store_path_of(file: &Path) -> Option<PathBuf> {
    let name = file.strip_prefix(STORE).ok()?.components().next()?;
    Some(Path::new(STORE).join(name))
}

/// Returns the names of the store paths in a text.
fn named_in(text: &str) -> BTreeSet<&str> {
    // The characters of a name in the store (Nix manual, "Store Path").
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "+-._?=".contains(c);
    let places = text.split("/nix/store/").skip(1);
    places
        .map(|rest| rest.split(|c| !is_of_name(c)).next().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .collect()
}

fn hold_in(
    roots: &Path,
    id: &SlotId,
    image: Option<&Path>,
    named: &BTreeSet<&str>,
) -> io::Result<()> {
    fs::create_dir_all(roots)?;
    release_in(roots, id)?;
    for name in named {
        let root = roots.join(format!("{id}{OF_RULES}{name}"));
        symlink(Path::new(STORE).join(name), root)?;
    }
    match image {
        Some(image) => symlink(image, roots.join(id.to_string())),
        None => Ok(()),
    }
}

fn release_in(roots: &Path, id: &SlotId) -> io::Result<()> {
    let (image, of_rules) = (id.to_string(), format!("{id}{OF_RULES}"));
    for name in names_in(roots)? {
        if name == image || name.starts_with(&of_rules) {
            match fs::remove_file(roots.join(name)) {
                Err(why) if why.kind() != ErrorKind::NotFound => return Err(why),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// Returns the names of the files in a directory; none if it does not exist.
fn names_in(roots: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(roots) {
        Ok(entries) => entries
            .filter_map(|entry| match entry {
                Ok(entry) => entry.file_name().into_string().ok().map(Ok),
                Err(why) => Some(Err(why)),
            })
            .collect(),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(why) => Err(why),
    }
}

fn held_in(roots: &Path) -> BTreeSet<SlotId> {
    let names = names_in(roots).unwrap_or_default();
    let slots = names.iter().map(|name| name.split(OF_RULES).next());
    slots.filter_map(|slot| slot?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nixos(store: &str) -> Image {
        Image::Nixos {
            system: Path::new(store).join("abc-nixos-system"),
            store: store.into(),
            runner_root: "/var/lib/github-runner".into(),
        }
    }

    #[test]
    fn only_a_system_in_the_hosts_store_gets_a_root() {
        assert_eq!(
            held_by(&nixos("/nix/store"), None),
            Some("/nix/store/abc-nixos-system".into())
        );
        assert_eq!(held_by(&nixos("/srv/store"), None), None);
        let directory = Image::Directory {
            path: "/nix/store/abc-debian".into(),
            runner_root: "/opt/actions-runner".into(),
        };
        assert_eq!(held_by(&directory, None), None);
    }

    #[test]
    fn the_root_of_a_pool_with_nix_holds_the_registration() {
        let nix = |registration: Option<&str>| Nix {
            substituters: Vec::new(),
            trusted_public_keys: Vec::new(),
            registration: registration.map(PathBuf::from),
        };
        let file = "/nix/store/def-closure-info/registration";
        assert_eq!(
            held_by(&nixos("/nix/store"), Some(&nix(Some(file)))),
            Some("/nix/store/def-closure-info".into())
        );
        assert_eq!(
            held_by(&nixos("/nix/store"), Some(&nix(None))),
            Some("/nix/store/abc-nixos-system".into())
        );
        assert_eq!(held_by(&nixos("/srv/store"), Some(&nix(Some(file)))), None);
    }

    #[test]
    fn a_root_can_be_replaced_and_removed_twice() {
        let dir = tempfile::tempdir().unwrap();
        let roots = dir.path().join("gcroots/runner-controller");
        let (one, two): (SlotId, SlotId) = ("ci-1".parse().unwrap(), "ci-2".parse().unwrap());
        assert!(held_in(&roots).is_empty());
        let named = named_in(RULES);
        let hold = |id, image: &str| hold_in(&roots, id, Some(Path::new(image)), &named).unwrap();
        hold(&one, "/nix/store/old");
        hold(&one, "/nix/store/new");
        hold(&two, "/nix/store/old");
        assert_eq!(
            fs::read_link(roots.join("ci-1")).unwrap(),
            Path::new("/nix/store/new")
        );
        assert_eq!(
            fs::read_link(roots.join("ci-1+abc-config.toml")).unwrap(),
            Path::new("/nix/store/abc-config.toml")
        );
        fs::write(roots.join("not a slot"), "").unwrap();
        assert_eq!(held_in(&roots), BTreeSet::from([one.clone(), two.clone()]));
        release_in(&roots, &one).unwrap();
        release_in(&roots, &one).unwrap();
        assert_eq!(held_in(&roots), BTreeSet::from([two.clone()]));
        assert_eq!(
            names_in(&roots).unwrap().len(),
            5,
            "three of rules, an image, a stranger"
        );
        // A pool whose image is not in the store has the roots of its rules alone.
        hold_in(&roots, &two, None, &named).unwrap();
        assert_eq!(held_in(&roots), BTreeSet::from([two]));
    }

    const RULES: &str = "ExecStart=/nix/store/0z-runner-controller-0.1.0/bin/runner-controller --config \
        /nix/store/abc-config.toml launch ci %i\nExecSearchPath=/nix/store/1-nftables/bin:/nix/store/1-nftables/x";

    #[test]
    fn the_store_paths_of_rules_are_found_once_each() {
        let names = [
            "0z-runner-controller-0.1.0",
            "1-nftables",
            "abc-config.toml",
        ];
        assert_eq!(named_in(RULES), BTreeSet::from(names));
        assert!(named_in("ExecStart=/usr/local/bin/x /nix/store/ /nix/store").is_empty());
    }
}
