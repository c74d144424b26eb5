//! The world, as one daemon reaches it.

use crate::mutation::Mutation;
use crate::world::WorldHandle;

/// The world as one daemon reaches it.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) world: WorldHandle,
    /// Number of the daemon in its history.
    pub(super) incarnation: u64,
    pub(super) mutation: Option<Mutation>,
}

impl Access {
    /// Returns true if the daemon has this defect.
    pub(super) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}
