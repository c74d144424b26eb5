//! The name of a bundle, which tells its runner and its age.

use std::fmt;
use std::str::FromStr;

use crate::pool::SlotId;
use crate::world::Invocation;

/// End of every bundle's name.
const SUFFIX: &str = ".log.gz";

/// Name of a bundle: `ci-3.1796000075300.<invocation>.log.gz`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BundleName {
    /// End of the runner, in milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// Slot of the runner.
    pub slot: SlotId,
    /// Start of the runner.
    pub invocation: Invocation,
}

impl fmt::Display for BundleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, ended, invocation) = (&self.slot, self.ended_unix_ms, &self.invocation);
        write!(f, "{slot}.{ended}.{invocation}{SUFFIX}")
    }
}

impl FromStr for BundleName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_suffix(SUFFIX).ok_or(())?.split('.');
        let mut part = || parts.next().ok_or(());
        let (slot, ended, invocation) = (part()?, part()?, part()?);
        let name = Self {
            ended_unix_ms: ended.parse().map_err(|_| ())?,
            slot: slot.parse().map_err(|_| ())?,
            invocation: Invocation::parse(invocation).ok_or(())?,
        };
        // One spelling for each bundle.
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(())
        }
    }
}

/// A bundle on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bundle {
    /// Its name.
    pub name: BundleName,
    /// Space that it takes on disk, in bytes.
    pub bytes: u64,
}
