//! `logs`, also called `runner-logs`: the right journal for a runner, whether it lives or not.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context;

use crate::config;
use crate::pool::{InvalidName, PoolName, SlotId};

/// Whose lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// One slot's: `ci-3`.
    Slot(SlotId),
    /// Every slot's of a pool: `ci`.
    Pool(PoolName),
}

impl FromStr for Whose {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.contains('-') {
            text.parse().map(Self::Slot)
        } else {
            text.parse().map(Self::Pool)
        }
    }
}

/// How they are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Go on with lines as they come.
    pub follow: bool,
    /// Only so many of the newest.
    pub lines: Option<u32>,
    /// The host's copy, even of a container that lives.
    pub host: bool,
}

/// Becomes `journalctl`. Returns only if that failed.
pub fn logs(config: &Path, whose: Option<&Whose>, reading: Reading) -> anyhow::Result<()> {
    // A bad configuration is no reason to hide what its runners said.
    let slots = config::load(config).map_or_else(|_| Vec::new(), |good| good.slots().collect());
    let is_alive = |id: &SlotId| {
        Path::new("/run/systemd/machines")
            .join(id.to_string())
            .exists()
    };
    let arguments = arguments(whose, reading, &slots, is_alive);
    let failed = Command::new("journalctl").args(arguments).exec();
    Err(failed).context("become journalctl")
}

/// A container that lives has all that its runner says, and in order. Of one that is gone the host
/// has what came out on its console, which its unit bounds in rate.
fn arguments(
    whose: Option<&Whose>,
    reading: Reading,
    slots: &[SlotId],
    is_alive: impl Fn(&SlotId) -> bool,
) -> Vec<String> {
    let mut arguments = match whose {
        Some(Whose::Slot(id)) if is_alive(id) && !reading.host => {
            vec![format!("--machine={id}"), "--unit=github-runner".into()]
        }
        Some(Whose::Slot(id)) => vec![format!("--unit={}", id.unit())],
        Some(Whose::Pool(pool)) => {
            let of_pool = slots.iter().filter(|id| id.pool == *pool);
            units(of_pool, &format!("runner-{pool}@*.service"))
        }
        None => units(slots.iter(), "runner-*@*.service"),
    };
    if reading.follow {
        arguments.push("--follow".into());
    }
    if let Some(lines) = reading.lines {
        arguments.push(format!("--lines={lines}"));
    }
    arguments
}

/// journalctl compares a pattern with the names that the journal has when it starts, so a slot whose
/// first life is still to come would not be followed. Names are better, where they are known.
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

    fn asked(whose: &str, reading: Reading, alive: &[&str]) -> String {
        let whose = (!whose.is_empty()).then(|| whose.parse().unwrap());
        let slots: Vec<SlotId> = ["ci-1", "ci-2", "fuzz-1"]
            .map(|id| id.parse().unwrap())
            .into();
        let is_alive = |id: &SlotId| alive.contains(&id.to_string().as_str());
        arguments(whose.as_ref(), reading, &slots, is_alive).join(" ")
    }

    #[test]
    fn a_live_runner_is_read_in_its_container_and_a_dead_one_on_the_host() {
        let plain = Reading::default();
        assert_eq!(
            asked("ci-1", plain, &["ci-1"]),
            "--machine=ci-1 --unit=github-runner"
        );
        assert_eq!(
            asked("ci-1", plain, &["ci-2"]),
            "--unit=runner-ci@1.service"
        );
        let host = Reading {
            host: true,
            ..plain
        };
        assert_eq!(asked("ci-1", host, &["ci-1"]), "--unit=runner-ci@1.service");
    }

    #[test]
    fn a_pool_is_its_slots_and_nobody_named_is_everybody() {
        let follow = Reading {
            follow: true,
            lines: Some(20),
            host: false,
        };
        assert_eq!(
            asked("ci", follow, &[]),
            "--unit=runner-ci@1.service --unit=runner-ci@2.service --follow --lines=20"
        );
        assert_eq!(
            asked("", Reading::default(), &[]),
            "--unit=runner-ci@1.service --unit=runner-ci@2.service --unit=runner-fuzz@1.service"
        );
        assert_eq!(
            asked("gone", Reading::default(), &[]),
            "--unit=runner-gone@*.service"
        );
    }

    #[test]
    fn what_is_no_name_of_ours_never_reaches_journalctl() {
        for bad in [
            "--flush", "ci-01", "ci-0", "ci-1;x", "../ci-1", "CI", "a*", "",
        ] {
            assert!(bad.parse::<Whose>().is_err(), "{bad}");
        }
    }
}
