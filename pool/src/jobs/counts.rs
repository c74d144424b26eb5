//! Counts by key.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Subtracts one from a count, and forgets it at zero.
pub(super) fn subtract<K: Ord + Borrow<Q>, Q: Ord + ?Sized>(
    counts: &mut BTreeMap<K, usize>,
    key: &Q,
) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}
