//! The slots' units that systemd has loaded.

use std::process::Command;

use super::known::known_slots;
use crate::config::Config;
use crate::pool::SlotId;
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::tool;

/// Ends every unit of ours at once and forgets the failed ones. For when no daemon is there to do it.
/// Returns when all have ended and their slots are swept.
#[must_use]
pub fn end_units(config: &Config) -> Vec<RootError> {
    match try_end_units(config) {
        Ok(failed) => failed,
        Err(why) => vec![why],
    }
}

fn try_end_units(config: &Config) -> Result<Vec<RootError>, RootError> {
    let known = known_slots(config);
    let ours = |wanted: fn(&LoadedUnit) -> bool| -> Result<Vec<String>, RootError> {
        let ours = loaded_units()?
            .into_iter()
            .filter(|unit| known.contains(&unit.slot) && wanted(unit));
        Ok(ours.map(|unit| unit.slot.unit()).collect())
    };
    let mut failed = Vec::new();
    let alive = ours(LoadedUnit::is_alive)?;
    if !alive.is_empty() {
        // The main processes alone: systemd kills the rest then, and a signal to all would hit
        // ExecStopPost= too, which records the end and sweeps. One that is ending by itself has no
        // main process any more, and that is fine: what counts is the stop, which waits for all.
        let _ = systemctl(&["kill", "--kill-whom=main", "--signal=SIGKILL"], &alive);
        failed.extend(systemctl(&["stop"], &alive).err());
    }
    let dead = ours(|unit| unit.state == "failed")?;
    if !dead.is_empty() {
        failed.extend(systemctl(&["reset-failed"], &dead).err());
    }
    Ok(failed)
}

fn systemctl(verb: &[&str], units: &[String]) -> Result<(), RootError> {
    let mut command = Command::new("systemctl");
    tool::run(Refusal::Leftovers, command.args(verb).args(units))
}

/// A unit of ours that systemd knows now.
pub(crate) struct LoadedUnit {
    /// Its slot.
    pub(crate) slot: SlotId,
    /// systemd's `ActiveState`.
    pub(crate) state: String,
}

impl LoadedUnit {
    /// True while anything of it may run.
    pub(crate) fn is_alive(&self) -> bool {
        self.state != "inactive" && self.state != "failed"
    }
}

/// Asks systemd.
pub(crate) fn loaded_units() -> Result<Vec<LoadedUnit>, RootError> {
    let output = Command::new("systemctl")
        .args(["list-units", "--all", "--full", "--plain", "--no-legend"])
        .args(["--no-pager", "runner-*@*.service"])
        .output()
        .or_refuse(Refusal::Leftovers, || "run systemctl".into())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(RootError::plain(
            Refusal::Leftovers,
            format!("systemctl cannot list units: {said}"),
        ));
    }
    Ok(read_units(&String::from_utf8_lossy(&output.stdout)))
}

/// `UNIT LOAD ACTIVE SUB DESCRIPTION`
pub(super) fn read_units(listing: &str) -> Vec<LoadedUnit> {
    listing
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let slot = SlotId::from_unit(words.next()?)?;
            let state = words.nth(1)?.to_owned();
            Some(LoadedUnit { slot, state })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_with_their_state() {
        let listing = "runner-ci@1.service loaded active running Runner\n\
                       runner-ci@2.service loaded failed failed  Runner\n\
                       runner-ci@02.service loaded active running not ours\n\
                       \n";
        let units = read_units(listing);
        assert_eq!(units.len(), 2);
        assert!(units[0].is_alive());
        assert!(!units[1].is_alive());
    }
}
