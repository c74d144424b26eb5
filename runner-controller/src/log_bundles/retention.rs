//! The bundles that must go, by their age, their number and their space.

use std::time::Duration;

use super::name::Bundle;

/// Maximum number of bundles. Each end that leaves one lists them all.
pub(super) const MAX_BUNDLES: usize = 4096;
/// Unit in which file systems give out space.
const BLOCK: u64 = 4096;

/// Limits of all bundles together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Maximum space, in bytes.
    pub space: u64,
    /// Maximum time since the end of a runner.
    pub age: Duration,
    /// Free space of the file system, in bytes.
    pub free: u64,
    /// Free space that must stay, in bytes.
    pub floor: u64,
}

/// Returns the space that a file of this size takes on disk.
pub(super) fn on_disk(bytes: usize) -> u64 {
    u64::try_from(bytes)
        .unwrap_or(u64::MAX)
        .div_ceil(BLOCK)
        .saturating_mul(BLOCK)
}

/// Returns the bundles that must go: those of an age above the limit, and then the oldest ones, until the others fit.
///
/// The first one is new: it is not on disk yet. All others are there, in any order. If the file system has less than
/// its floor, bundles shrink by what is missing.
pub(super) fn surplus<'a>(
    bundles: &'a [Bundle],
    limits: &Limits,
    now_unix_ms: u64,
) -> Vec<&'a Bundle> {
    let there: u64 = bundles.iter().skip(1).map(|bundle| bundle.bytes).sum();
    let most = there
        .saturating_add(limits.free)
        .saturating_sub(limits.floor);
    let space = limits.space.min(most);
    let age = u64::try_from(limits.age.as_millis()).unwrap_or(u64::MAX);
    let mut newest_first: Vec<&Bundle> = bundles.iter().collect();
    newest_first.sort_by(|a, b| b.name.cmp(&a.name));
    let mut taken = 0_u64;
    let mut is_full = false;
    newest_first
        .into_iter()
        .enumerate()
        .filter(|(at, bundle)| {
            taken = taken.saturating_add(bundle.bytes);
            // After the first that does not fit, every older one goes, too: a gap would puzzle its reader.
            is_full |= taken > space || *at >= MAX_BUNDLES;
            is_full || now_unix_ms.saturating_sub(bundle.name.ended_unix_ms) > age
        })
        .map(|(_, bundle)| bundle)
        .collect()
}
