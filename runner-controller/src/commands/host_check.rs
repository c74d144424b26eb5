//! Checks of this host that `check-config --host` and `apply` share.

use std::path::Path;

use crate::config::{self, Config, HostFindings, Mistake};
use crate::firewall::{self, Obstacle};
use crate::world::chain;

/// Returns the findings that no host file corrects: files, addresses and uids.
pub(super) fn lasting(config: &Config, file: &Path) -> HostFindings {
    config::check_host(config, file)
}

/// Returns the findings that the host files should correct: kernel tables and packet forwarding.
pub(super) fn correctable(config: &Config) -> HostFindings {
    let mut found = HostFindings {
        mistakes: config::check_kernel(config),
        notes: Vec::new(),
    };
    match firewall::obstacle(config) {
        Ok(obstacle) => found.mistakes.extend(obstacle.map(network_mistake)),
        Err(error) => found.notes.push(format!(
            "cannot read the host's firewall rules: {}; run this as root",
            chain(&error)
        )),
    }
    found
}

/// Returns the mistake that this host does not forward the packets of runners.
fn network_mistake(Obstacle { wrong, remedy }: Obstacle) -> Mistake {
    Mistake {
        key: "network".into(),
        wrong,
        write: remedy,
    }
}
