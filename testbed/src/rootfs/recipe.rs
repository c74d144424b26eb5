//! The description of a root filesystem.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use crate::bed::{Bed, hash};
use crate::release::Release;

/// The description of a root filesystem. All of it decides the content, so all of it is in the name.
#[derive(Debug, Serialize)]
pub struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) suite: &'static str,
    /// mmdebstrap's `--variant`.
    pub(crate) variant: &'static str,
    /// Packages without which the root filesystem is of no use.
    pub(crate) packages: &'static [&'static str],
    /// Packages that only tests need. The demo runs without them.
    pub(crate) optional: &'static [&'static str],
    /// Units that never start.
    pub(crate) masks: &'static [&'static str],
    pub(crate) files: &'static [(&'static str, &'static str)],
    pub(crate) links: &'static [(&'static str, &'static str)],
    /// Paths that dpkg leaves out: a smaller image is a quicker copy.
    pub(crate) excluded: &'static [&'static str],
}

impl Recipe {
    /// Returns the directory of the root filesystem, built or not.
    #[must_use]
    pub fn path(&self, bed: &Bed) -> PathBuf {
        bed.path("rootfs")
            .join(format!("{}-{}", self.name, self.id()))
    }

    /// Returns the packages without which the root filesystem is of no use.
    #[must_use]
    pub fn packages(&self) -> &'static [&'static str] {
        self.packages
    }

    /// Identifies the description: another one is another root filesystem.
    #[must_use]
    pub fn id(&self) -> String {
        hash(serde_json::json!(self).to_string().as_bytes())[..12].to_owned()
    }

    /// Returns true for a release that Debian has not finished.
    pub(super) fn is_testing(&self) -> bool {
        self.suite == Release::Forky.suite()
    }

    /// Returns the optional packages that the built root filesystem lacks.
    #[must_use]
    pub fn missing(&self, bed: &Bed) -> Vec<String> {
        fs::read_to_string(self.missing_file(bed))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Returns the file that lists the packages of [`Recipe::missing`], one a line.
    pub(super) fn missing_file(&self, bed: &Bed) -> PathBuf {
        self.path(bed).with_extension("missing")
    }
}

#[cfg(test)]
mod tests {
    use super::super::recipes::{GUEST, HOST};
    use super::*;

    #[test]
    fn another_description_has_another_name() {
        let more = Recipe {
            packages: &["systemd"],
            ..HOST
        };
        assert_ne!(HOST.id(), more.id());
        assert_ne!(HOST.id(), GUEST.id());
        assert_eq!(HOST.id(), Recipe { ..HOST }.id());
    }
}
