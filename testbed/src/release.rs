//! The Debian releases that a test host can have.

use clap::ValueEnum;

/// A Debian release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Release {
    /// Debian 13, with systemd 257
    #[default]
    Trixie,
    /// Debian's next release, with a newer systemd
    Forky,
}

impl Release {
    /// Returns the name of the release's suite on a mirror.
    #[must_use]
    pub fn suite(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }
}
