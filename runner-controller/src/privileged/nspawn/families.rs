//! The filter of address families that systemd-nspawn itself has.
//!
//! `RestrictAddressFamilies=` of the unit decides which sockets a container can make, and a drop-in can add
//! families. Since version 261 nspawn has a filter as well, and announces a default without netlink, which
//! docker, iproute2 and the C library need. With an empty list nspawn has no filter (seen on 262).

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

/// First version with the argument. Earlier ones refuse it.
const SINCE: u32 = 261;
const ARGUMENT: &str = "--restrict-address-families=";

/// A running question for the version of systemd-nspawn, which takes as long as some mounts.
pub(crate) struct Question(Child);

impl Question {
    /// Starts `systemd-nspawn --version`.
    pub(crate) fn ask() -> io::Result<Self> {
        Command::new("systemd-nspawn")
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map(Self)
    }

    /// Returns the argument, if this version of systemd-nspawn knows it.
    pub(crate) fn argument(mut self) -> io::Result<Option<&'static str>> {
        let mut said = String::new();
        if let Some(mut output) = self.0.stdout.take() {
            output.read_to_string(&mut said)?;
        }
        self.0.wait()?;
        Ok(version(&said)
            .is_some_and(|version| version >= SINCE)
            .then_some(ARGUMENT))
    }
}

/// Parses `systemd 257 (257.9-1~deb13u1)`.
fn version(said: &str) -> Option<u32> {
    let number = said.strip_prefix("systemd ")?;
    let end = number.find(|digit: char| !digit.is_ascii_digit());
    number[..end.unwrap_or(number.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_number_before_any_suffix() {
        assert_eq!(version("systemd 257 (257.9-1~deb13u1)\n+PAM"), Some(257));
        assert_eq!(version("systemd 262~rc1 (262~rc1-1)"), Some(262));
        assert_eq!(version("systemd 261"), Some(261));
        assert_eq!(version("nspawn"), None);
    }
}
