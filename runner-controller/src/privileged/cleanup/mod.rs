//! The search for what runners left on the host, and its removal.

pub(crate) mod connections;
pub(crate) mod groups;
pub(crate) mod known;
mod leftovers;
pub(crate) mod slot;
mod tree;
pub(crate) mod units;

pub use leftovers::{Leftover, LeftoverKind, count, leftovers};
pub use units::end_units;

/// Checks that a listing yields only units of slots and mount points below our directories.
#[cfg(any(test, fuzzing))]
pub(crate) fn try_listing(text: &str) {
    for unit in units::read_units(text) {
        assert!(text.contains(&unit.slot.unit()));
        let _ = unit.is_alive();
    }
    let dirs = [std::path::PathBuf::from("/run/runner-controller/mnt")];
    for mount in leftovers::mounts_below(text, &dirs) {
        assert!(mount.starts_with(&dirs[0]));
    }
    let _ = leftovers::sources(text).count();
}
