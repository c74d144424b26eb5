//! The slots whose things on the host are ours.

use std::collections::BTreeSet;
use std::fs;

use crate::config::Config;
use crate::pool::SlotId;
use crate::privileged::gc_root;

/// Slots of the configuration, and those whose directories are there.
pub(crate) fn known_slots(config: &Config) -> BTreeSet<SlotId> {
    let mut known = seen_slots(config);
    known.extend(config.slots());
    known
}

/// Slots whose directories or roots are there: the marks by which we know a slot to be ours.
pub(crate) fn seen_slots(config: &Config) -> BTreeSet<SlotId> {
    [config.records_dir(), config.slots_dir()]
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .chain(gc_root::held())
        .collect()
}
