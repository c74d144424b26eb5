//! A runner's root in the Nix store, which keeps its image from the garbage collector.
//!
//! The configured image is part of the host's closure. After a deploy it may not be, and the garbage
//! collector could remove it while a job still runs on it. A link below `gcroots` keeps its target
//! (`nix-store --gc`, "roots"). The link is on disk and survives a power failure, so every sweep
//! looks for it.
//!
//! The Nix of a container reads the image's registration at its first use. That file names all paths of
//! the system, so its store path refers to them, and a root on it keeps both.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::config::{Image, Nix, PoolConfig};
use crate::pool::SlotId;

/// Directory of our roots. The garbage collector searches all directories below `gcroots`.
pub(crate) const ROOTS: &str = "/nix/var/nix/gcroots/runner-controller";
/// Store that this garbage collector cleans. A store elsewhere has another collector.
const STORE: &str = "/nix/store";

/// Returns the path of the slot's root, which may not exist.
pub(crate) fn path(id: &SlotId) -> PathBuf {
    Path::new(ROOTS).join(id.to_string())
}

/// Creates the slot's root for the pool's image, if that is in this host's store.
pub(crate) fn hold(id: &SlotId, pool: &PoolConfig) -> io::Result<()> {
    match held_by(&pool.image, pool.nix.as_ref()) {
        Some(held) => hold_in(Path::new(ROOTS), id, &held),
        None => Ok(()),
    }
}

/// Removes the slot's root. An absent root is not an error.
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

fn hold_in(roots: &Path, id: &SlotId, held: &Path) -> io::Result<()> {
    fs::create_dir_all(roots)?;
    release_in(roots, id)?;
    symlink(held, roots.join(id.to_string()))
}

fn release_in(roots: &Path, id: &SlotId) -> io::Result<()> {
    match fs::remove_file(roots.join(id.to_string())) {
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn held_in(roots: &Path) -> BTreeSet<SlotId> {
    fs::read_dir(roots)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
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
        hold_in(&roots, &one, Path::new("/nix/store/old")).unwrap();
        hold_in(&roots, &one, Path::new("/nix/store/new")).unwrap();
        hold_in(&roots, &two, Path::new("/nix/store/old")).unwrap();
        assert_eq!(
            fs::read_link(roots.join("ci-1")).unwrap(),
            Path::new("/nix/store/new")
        );
        fs::write(roots.join("not a slot"), "").unwrap();
        assert_eq!(held_in(&roots), BTreeSet::from([one.clone(), two.clone()]));
        release_in(&roots, &one).unwrap();
        release_in(&roots, &one).unwrap();
        assert_eq!(held_in(&roots), BTreeSet::from([two]));
    }
}
