//! Is our nftables table loaded, and is it the one this configuration asks for?

use std::process::{Child, Command, Stdio};

use super::error::OrRefuse;
use super::{LaunchError, Refusal};
use crate::config::Config;
use crate::hostfiles::firewall;

/// A question to nft that is under way.
pub(super) struct Check {
    nft: Child,
    fingerprint: String,
}

impl Check {
    /// Asks.
    pub(super) fn begin(config: &Config) -> Result<Self, LaunchError> {
        let nft = Command::new("nft")
            // Terse: no set elements, of which a table may have many.
            .args(["--terse", "list", "table", "inet", firewall::TABLE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .or_refuse(Refusal::Firewall, || "run nft".into())?;
        Ok(Self {
            nft,
            fingerprint: firewall::fingerprint(config),
        })
    }

    /// Refuses unless the table carries this configuration's fingerprint.
    pub(super) fn finish(self) -> Result<(), LaunchError> {
        let output = self
            .nft
            .wait_with_output()
            .or_refuse(Refusal::Firewall, || "wait for nft".into())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(LaunchError::plain(
                Refusal::Firewall,
                format!(
                    "table inet {} is not loaded; restart {} (nft: {})",
                    firewall::TABLE,
                    firewall::UNIT,
                    said.lines().next().unwrap_or("no message")
                ),
            ));
        }
        let listing = String::from_utf8_lossy(&output.stdout);
        if carries(&listing, &self.fingerprint) {
            return Ok(());
        }
        Err(LaunchError::plain(
            Refusal::Firewall,
            format!(
                "table inet {} is not this configuration's; print the files again with \
                 `runner-controller units` and restart {}",
                firewall::TABLE,
                firewall::UNIT
            ),
        ))
    }
}

pub(super) fn carries(listing: &str, fingerprint: &str) -> bool {
    listing
        .lines()
        .filter_map(|line| line.trim().strip_prefix("comment \""))
        .any(|comment| comment.trim_end_matches('"') == fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_known_by_its_comment() {
        let listing =
            "table inet runner_controller {\n\tcomment \"rules abc\"\n\tchain x {\n\t}\n}\n";
        assert!(carries(listing, "rules abc"));
        assert!(!carries(listing, "rules ab"));
        assert!(!carries("table inet runner_controller {\n}\n", "rules abc"));
    }
}
