//! The slots' units that systemd has loaded.

use std::process::Command;

use super::known::known_slots;
use crate::config::Config;
use crate::pool::SlotId;
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::tool;

/// Kills every slot's unit and resets the failed ones, for the operator's clean-up command.
///
/// Returns when all units have ended and their slots are swept. The daemon must not run.
#[must_use]
pub fn end_units(config: &Config) -> Vec<RootError> {
    match try_end_units(config) {
        Ok(failures) => failures,
        Err(error) => vec![error],
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
    let mut failures = Vec::new();
    let alive = ours(LoadedUnit::is_alive)?;
    if !alive.is_empty() {
        // Only the main processes, because systemd then kills the rest. A signal to all processes
        // would also end ExecStopPost=, which writes the end record and sweeps. A unit that is ending
        // has no main process, and kill fails. The stop waits for all units, so it decides.
        let _ = systemctl(&["kill", "--kill-whom=main", "--signal=SIGKILL"], &alive);
        failures.extend(systemctl(&["stop"], &alive).err());
    }
    let dead = ours(|unit| unit.state == "failed")?;
    if !dead.is_empty() {
        failures.extend(systemctl(&["reset-failed"], &dead).err());
    }
    Ok(failures)
}

fn systemctl(verb: &[&str], units: &[String]) -> Result<(), RootError> {
    let mut command = Command::new("systemctl");
    tool::run(Refusal::Leftovers, command.args(verb).args(units))
}

/// A slot's unit that systemd has loaded.
pub(crate) struct LoadedUnit {
    /// Slot of the unit.
    pub(crate) slot: SlotId,
    /// The unit's `ActiveState`.
    pub(crate) state: String,
}

impl LoadedUnit {
    /// Returns true while a process of the unit may run.
    pub(crate) fn is_alive(&self) -> bool {
        self.state != "inactive" && self.state != "failed"
    }
}

/// Returns the slots' units that systemd has loaded.
pub(crate) fn loaded_units() -> Result<Vec<LoadedUnit>, RootError> {
    let output = Command::new("systemctl")
        .args(["list-units", "--all", "--full", "--plain", "--no-legend"])
        .args(["--no-pager", "runner-*@*.service"])
        .output()
        .or_refuse(Refusal::Leftovers, || "run systemctl".into())?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(RootError::plain(
            Refusal::Leftovers,
            format!("systemctl cannot list units: {message}"),
        ));
    }
    Ok(read_units(&String::from_utf8_lossy(&output.stdout)))
}

/// Returns true if systemd has a job that stops the slot's unit, as after `systemctl stop` and during a shutdown
/// of the host. A unit that ends by itself has none.
///
/// systemctl asks process 1 without the bus, so this works while the bus is down.
pub(crate) fn is_being_stopped(id: &SlotId) -> bool {
    let output = Command::new("systemctl")
        .args([
            "list-jobs",
            "--full",
            "--plain",
            "--no-legend",
            "--no-pager",
        ])
        .arg(id.unit())
        .output();
    output.is_ok_and(|output| has_stop_job(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses lines of `JOB UNIT TYPE STATE`.
fn has_stop_job(listing: &str) -> bool {
    listing
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .any(|kind| kind == "stop" || kind == "restart")
}

/// Parses lines of `UNIT LOAD ACTIVE SUB DESCRIPTION`.
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
    fn only_a_job_that_stops_a_unit_counts_as_a_request_to_stop_it() {
        assert!(has_stop_job("3491 runner-ci@1.service stop running\n"));
        assert!(has_stop_job("3491 runner-ci@1.service restart running\n"));
        assert!(!has_stop_job("3491 runner-ci@1.service start waiting\n"));
        assert!(!has_stop_job("") && !has_stop_job("No jobs running.\n"));
    }

    #[test]
    fn only_slots_units_are_read_with_their_state() {
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
