//! The slots that may have leftovers.

use std::collections::BTreeSet;
use std::fs;

use super::groups;
use crate::config::Config;
use crate::pool::SlotId;
use crate::privileged::{gc_root, own_dir, pinned};

/// Returns the configured slots and those of [`seen_slots`].
pub(crate) fn known_slots(config: &Config) -> BTreeSet<SlotId> {
    let mut known = seen_slots(config);
    known.extend(config.slots());
    known
}

/// Returns the slots that have a directory, a garbage collector root, a control group or rules on this
/// host.
pub(crate) fn seen_slots(config: &Config) -> BTreeSet<SlotId> {
    [config.records_dir(), config.slots_dir()]
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .chain(own_dir::mounted(config))
        .chain(gc_root::held())
        .chain(groups::seen())
        .chain(pinned::pinned())
        .collect()
}
