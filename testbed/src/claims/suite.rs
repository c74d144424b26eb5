//! A suite, and the macro that declares one.

use anyhow::Result;

use super::fixture::Fixture;
use crate::lab::Lab;

/// One claim.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The claim in words, `like_this`.
    pub name: &'static str,
    /// Returns an error if the claim does not hold.
    pub check: fn(&mut Lab) -> Result<()>,
}

/// Claims that begin in the same fixture.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// State of the host in which each of them begins.
    pub fixture: Fixture,
    /// The claims, in the order in which they run.
    pub claims: &'static [Claim],
}

/// Declares a suite. Each claim has the name of its function, and of an end if the suite names one.
macro_rules! suite {
    ($fixture:expr; $($check:ident),+ $(,)?) => {
        $crate::claims::suite::suite![$fixture, ""; $($check),+]
    };
    ($fixture:expr, $end:literal; $($check:ident),+ $(,)?) => {
        $crate::claims::suite::Suite {
            fixture: $fixture,
            claims: &[$($crate::claims::suite::Claim {
                name: concat!(stringify!($check), $end),
                check: $check,
            }),+],
        }
    };
}
pub(super) use suite;
