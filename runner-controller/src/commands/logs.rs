//! `logs`, also called `runner-logs`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context;

use crate::config;
use crate::pool::{InvalidName, PoolName, SlotId};

/// Slot or pool whose log is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// One slot: `ci-3`.
    Slot(SlotId),
    /// All slots of a pool: `ci`.
    Pool(PoolName),
}

impl FromStr for LogTarget {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        // A pool's name has no dash, and a slot's name has one.
        if text.contains('-') {
            text.parse().map(Self::Slot)
        } else {
            text.parse().map(Self::Pool)
        }
    }
}

/// Options of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Print new lines as they arrive.
    pub follow: bool,
    /// Maximum number of lines, the newest ones.
    pub lines: Option<u32>,
}

/// Replaces this process by `journalctl`. Returns only if that fails.
pub fn logs(config: &Path, target: Option<&LogTarget>, options: LogOptions) -> anyhow::Result<()> {
    // Logs are readable with an invalid configuration, too: operators need them most then.
    let slots = config::load(config).map_or_else(|_| Vec::new(), |config| config.slots().collect());
    let arguments = arguments(target, options, &slots);
    let error = Command::new("journalctl").args(arguments).exec();
    Err(error).context("cannot run journalctl")
}

/// Returns the arguments of `journalctl`.
///
/// They name the host's journal alone. `journalctl --machine=` would open the container's journal by its
/// path, and root in the container can put a link to the host's journal there.
fn arguments(target: Option<&LogTarget>, options: LogOptions, slots: &[SlotId]) -> Vec<String> {
    let mut arguments = match target {
        Some(LogTarget::Slot(id)) => vec![format!("--unit={}", id.unit())],
        Some(LogTarget::Pool(pool)) => {
            let of_pool = slots.iter().filter(|id| id.pool == *pool);
            units(of_pool, &format!("runner-{pool}@*.service"))
        }
        None => units(slots.iter(), "runner-*@*.service"),
    };
    if options.follow {
        arguments.push("--follow".into());
    }
    if let Some(lines) = options.lines {
        arguments.push(format!("--lines={lines}"));
    }
    arguments
}

/// Returns `--unit` arguments for slots, or for a pattern if no slot is known.
///
/// journalctl expands a pattern once, to units that the journal has when it starts. `--follow` would
/// miss a slot whose first runner starts later, so names are better where they are known.
fn units<'a>(slots: impl Iterator<Item = &'a SlotId>, pattern: &str) -> Vec<String> {
    let named: Vec<String> = slots.map(|id| format!("--unit={}", id.unit())).collect();
    if named.is_empty() {
        vec![format!("--unit={pattern}")]
    } else {
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(target: &str, options: LogOptions) -> String {
        let target = (!target.is_empty()).then(|| target.parse().unwrap());
        let slots: Vec<SlotId> = ["ci-1", "ci-2", "fuzz-1"]
            .map(|id| id.parse().unwrap())
            .into();
        arguments(target.as_ref(), options, &slots).join(" ")
    }

    #[test]
    fn a_slot_is_read_by_its_unit() {
        assert_eq!(
            joined("ci-1", LogOptions::default()),
            "--unit=runner-ci@1.service"
        );
    }

    #[test]
    fn a_pool_is_read_by_its_slots_and_no_target_means_all_slots() {
        let follow = LogOptions {
            follow: true,
            lines: Some(20),
        };
        assert_eq!(
            joined("ci", follow),
            "--unit=runner-ci@1.service --unit=runner-ci@2.service --follow --lines=20"
        );
        assert_eq!(
            joined("", LogOptions::default()),
            "--unit=runner-ci@1.service --unit=runner-ci@2.service --unit=runner-fuzz@1.service"
        );
        assert_eq!(
            joined("gone", LogOptions::default()),
            "--unit=runner-gone@*.service"
        );
    }

    #[test]
    fn only_a_name_of_a_slot_or_a_pool_reaches_journalctl() {
        for bad in [
            "--flush", "ci-01", "ci-0", "ci-1;x", "../ci-1", "CI", "a*", "",
        ] {
            assert!(bad.parse::<LogTarget>().is_err(), "{bad}");
        }
    }
}
