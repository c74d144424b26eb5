//! `cargo attack`: hostile programs, run in real containers, and every wall that stops one of them
//! taken away in turn to see that it was that wall.
//!
//! ```text
//! attack    in a container with a job (or the place it names): refused, in the expected words
//! compared  in a bare container, all walls there:                   refused, in the expected words
//! control   in a bare container, this one wall away:                got what it wanted
//! ```
//! Programs are in `testbed/attacks`, and say themselves what they expect; see [`program`]. If the
//! wall is on the host (the firewall, a mode) the control runs in the very same container, and
//! there is nothing to compare. A wall that cannot be taken away has its reason instead.

mod agent;
mod attack_run;
mod bare;
pub mod program;
pub mod report;
mod scene;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bed::{self, Bed, note};
use crate::binaries::{Binaries, Profile};
use crate::lab::Lab;
use crate::release::Release;
use program::Attack;
use report::{Row, table};

/// Options of `cargo attack`.
#[derive(Debug, Clone)]
pub struct Options {
    /// Part of the names of the attacks to run.
    pub filter: String,
    /// List the attacks instead of running them.
    pub list: bool,
    /// File for the results as JSON.
    pub json: Option<PathBuf>,
    /// Leave the test host running.
    pub keep: bool,
    /// Build profile of our programs.
    pub profile: Profile,
    /// Release of the test host.
    pub host: Release,
}

/// Runs the attacks. Returns true if every attack was refused and every control succeeded.
pub fn attack(options: &Options) -> Result<bool> {
    let attacks = select(&options.filter)?;
    ensure!(
        !attacks.is_empty(),
        "no attack is named like {:?}",
        options.filter
    );
    if options.list {
        for attack in &attacks {
            stdio::progress(format_args!(
                "{:26} {:4}  {}: {}",
                attack.name,
                attack.who.name(),
                attack.wall,
                attack.tries
            ));
        }
        stdio::progress(counts(&attacks));
        return Ok(true);
    }
    let bed = Bed::of(options.host)?;
    let mut lab = Lab::up(&bed, Binaries::build(options.profile)?)?;
    let rows = run(&mut lab, &attacks)?;
    stdio::progress(format_args!("{}", table(&rows)));
    for row in &rows {
        if let Some(trouble) = row.trouble() {
            stdio::progress(format_args!("FAIL {}: {trouble}", row.name()));
        }
    }
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&rows)?)
            .with_context(|| path.display().to_string())?;
    }
    if options.keep {
        note("the test host stays up; `cargo run -p testbed -- host shell` enters it");
    }
    let failed = rows.iter().filter(|row| row.trouble().is_some()).count();
    let controls = rows.iter().filter(|row| row.has_control()).count();
    stdio::progress(format_args!(
        "{} attacks, {controls} of them with a control that gets through",
        rows.len()
    ));
    stdio::progress(format_args!(
        "{} passed, {failed} failed",
        rows.len() - failed
    ));
    Ok(failed == 0)
}

/// Describes the number of attacks, and of those whose program runs without its protection as well.
fn counts(attacks: &[Attack]) -> String {
    let controls = attacks.iter().filter(|attack| attack.has_control()).count();
    format!(
        "{} attacks, {controls} of them with a control",
        attacks.len()
    )
}

/// Returns the attacks whose names contain the filter.
pub fn select(filter: &str) -> Result<Vec<Attack>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
    let mut attacks = Attack::read_all(&dir)?;
    attacks.retain(|attack| attack.name.contains(filter));
    Ok(attacks)
}

/// Installs the pools, runs these attacks with their controls, and leaves an empty host.
pub fn run(lab: &mut Lab, attacks: &[Attack]) -> Result<Vec<Row>> {
    let programs = compile(attacks)?;
    scene::set(lab)?;
    let outcome = attack_run::AttackRun::new(lab, &programs).run(attacks);
    if outcome.is_err() {
        stdio::progress(format_args!("{}", lab.account()));
    }
    // The changes of units go first, so that a runner that starts meanwhile is unchanged.
    bare::remove(lab)?;
    scene::remove_fixtures(lab)?;
    lab.reset()?;
    outcome
}

/// Returns the programs: scripts as they are, C compiled statically so that every image runs
/// it.
fn compile(attacks: &[Attack]) -> Result<BTreeMap<String, Vec<u8>>> {
    let work = tempfile::tempdir()?;
    let mut programs = BTreeMap::new();
    for attack in attacks {
        let program = if attack.file.extension().is_some_and(|kind| kind == "c") {
            let made = work.path().join(&attack.name);
            bed::run(
                Command::new("cc")
                    .args(["-O1", "-Wall", "-Werror", "-static", "-o"])
                    .args([&made, &attack.file]),
            )?;
            fs::read(made)?
        } else {
            fs::read(&attack.file)?
        };
        programs.insert(attack.name.clone(), program);
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_has_at_least_110_attacks_and_95_with_a_control() {
        let attacks = select("").unwrap();
        let controls = attacks.iter().filter(|attack| attack.has_control()).count();
        assert!(
            attacks.len() >= 110 && controls >= 95,
            "{}",
            counts(&attacks)
        );
    }
}
