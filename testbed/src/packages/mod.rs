//! Packages from a Debian mirror: every download is tried again, and a failure names the package.
//!
//! - [`retry`]: repeats what may succeed later;
//! - [`undelivered`]: reads from apt's output which packages a mirror did not deliver;
//! - [`apt`]: this machine's own apt;
//! - [`tools`]: the programs that it installs.

pub mod apt;
pub mod retry;
pub mod tools;
pub mod undelivered;
