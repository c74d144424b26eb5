//! What runners left on the host: search and removal.

pub(crate) mod known;
mod leftovers;
pub(crate) mod slot;
pub(crate) mod units;

pub use leftovers::{Leftover, LeftoverKind, count, leftovers};
pub use units::end_units;

/// Only units of ours come out of a listing of units, and only what lies below our directories out of
/// one of mounts.
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
