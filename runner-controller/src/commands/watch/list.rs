//! The lists below the pools, and the runner that a row is about.

use crate::status::{Invocation, SlotId};

/// List below the pools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum View {
    /// Runners that have a container.
    #[default]
    Runners,
    /// Runners that ended last.
    Ended,
    /// Every notice, and the scopes.
    Notices,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Runners, Self::Ended, Self::Notices];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Runners => "runners",
            Self::Ended => "ended",
            Self::Notices => "notices",
        }
    }
}

/// A runner that the detail shows: one life of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) slot: SlotId,
    /// systemd's id of its start, if it is known.
    pub(super) invocation: Option<Invocation>,
}
