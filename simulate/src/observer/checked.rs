//! The result of one check.

use crate::invariant::{Invariant, Violation};

/// The result of one check.
pub(super) type Checked = Result<(), Violation>;

/// Returns the violation of an invariant.
pub(super) fn violated(invariant: Invariant, facts: impl Into<String>) -> Checked {
    Err(Violation {
        invariant,
        facts: facts.into(),
    })
}
