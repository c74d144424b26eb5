//! A life holds its system in the Nix store.
//!
//! What the configuration names is part of the host's own closure. But a deploy brings another one,
//! and the garbage collector may then take the old image from under a job that still runs on it.
//! A link below `gcroots` keeps what it leads to (`nix-store --gc`, "roots"), for as long as a life
//! has it. It lies on disk, so it outlives a power cut, and whoever sweeps looks for it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::config::Image;
use crate::pool::SlotId;

/// The one directory for our roots. The collector looks into directories below `gcroots`.
pub(crate) const ROOTS: &str = "/nix/var/nix/gcroots/runner-controller";
/// The store whose collector those are for; a store elsewhere is somebody else's to keep.
const STORE: &str = "/nix/store";

/// Where the slot's root is, whether or not it is there.
pub(crate) fn path(id: &SlotId) -> PathBuf {
    Path::new(ROOTS).join(id.to_string())
}

/// Holds the system of an image, if it lies in this host's store.
pub(crate) fn hold(id: &SlotId, image: &Image) -> io::Result<()> {
    match held_by(image) {
        Some(system) => hold_in(Path::new(ROOTS), id, system),
        None => Ok(()),
    }
}

/// Lets go of what the slot's life held. Already gone counts as done.
pub(crate) fn release(id: &SlotId) -> io::Result<()> {
    release_in(Path::new(ROOTS), id)
}

/// Slots that hold something.
pub(crate) fn held() -> BTreeSet<SlotId> {
    held_in(Path::new(ROOTS))
}

fn held_by(image: &Image) -> Option<&Path> {
    match image {
        Image::Nixos { system, store, .. } => (store == Path::new(STORE)).then_some(system),
        Image::Directory { .. } => None,
    }
}

fn hold_in(roots: &Path, id: &SlotId, system: &Path) -> io::Result<()> {
    fs::create_dir_all(roots)?;
    release_in(roots, id)?;
    symlink(system, roots.join(id.to_string()))
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
    fn only_a_system_in_the_hosts_store_is_held() {
        assert_eq!(
            held_by(&nixos("/nix/store")),
            Some(Path::new("/nix/store/abc-nixos-system"))
        );
        assert_eq!(held_by(&nixos("/srv/store")), None);
        let directory = Image::Directory {
            path: "/nix/store/abc-debian".into(),
            runner_root: "/opt/actions-runner".into(),
        };
        assert_eq!(held_by(&directory), None);
    }

    #[test]
    fn a_root_is_made_replaced_and_removed_twice() {
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
