//! `cargo attack`: hostile programs, run in real containers, and every wall that stops one of them
//! taken away in turn to see that it was that wall.
//!
//! ```text
//! attack    in a container with a job (or the place it names): refused, in the expected words
//! compared  in a bare life, all walls there:                   refused, in the expected words
//! control   in a bare life, this one wall away:                got what it wanted
//! ```
//! Programs are in `testbed/attacks`, and say themselves what they expect; see [`program`]. Where the
//! wall is on the host (the firewall, a mode) the control runs in the very same container, and
//! there is nothing to compare. A wall that cannot be taken away has its reason instead.

mod agent;
mod bare;
pub mod program;
pub mod report;
mod scene;
mod storm;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bed::{self, Bed, note};
use crate::binaries::{Binaries, Profile};
use crate::lab::Lab;
use program::Attack;
use report::{Row, table};

/// What to run, and where to write it down.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only attacks whose name contains this.
    pub filter: String,
    /// Say what there is, and run nothing.
    pub list: bool,
    /// Write every run here.
    pub json: Option<PathBuf>,
    /// Leave the test host up.
    pub keep: bool,
    /// How our programs are built.
    pub profile: Profile,
}

/// Runs the attacks; true if every one was refused, and every control got through.
pub fn attack(options: &Options) -> Result<bool> {
    let attacks = select(&options.filter)?;
    ensure!(
        !attacks.is_empty(),
        "no attack is named like {:?}",
        options.filter
    );
    if options.list {
        for attack in &attacks {
            println!(
                "{:26} {:4}  {}: {}",
                attack.name,
                attack.who.name(),
                attack.wall,
                attack.tries
            );
        }
        return Ok(true);
    }
    let bed = Bed::open()?;
    let mut lab = Lab::up(&bed, Binaries::build(options.profile)?)?;
    let rows = run(&mut lab, &attacks)?;
    println!("{}", table(&rows));
    for row in &rows {
        if let Some(trouble) = row.trouble() {
            println!("FAIL {}: {trouble}", row.name());
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
    println!(
        "{} attacks, {controls} of them with a control that gets through",
        rows.len()
    );
    println!("{} passed, {failed} failed", rows.len() - failed);
    Ok(failed == 0)
}

/// Every attack whose name contains the filter.
pub fn select(filter: &str) -> Result<Vec<Attack>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
    let mut attacks = Attack::read_all(&dir)?;
    attacks.retain(|attack| attack.name.contains(filter));
    Ok(attacks)
}

/// Sets the scene, runs these attacks with their controls, and leaves an empty host.
pub fn run(lab: &mut Lab, attacks: &[Attack]) -> Result<Vec<Row>> {
    let programs = compile(attacks)?;
    scene::set(lab)?;
    let outcome = storm::Storm::new(lab, &programs).run(attacks);
    if outcome.is_err() {
        println!("{}", lab.account());
    }
    // First what changes units: a life that begins meanwhile is to be like any other.
    bare::remove(lab)?;
    scene::remove_fixtures(lab)?;
    lab.reset()?;
    outcome
}

/// The programs as they will run: scripts as they are, C compiled so that any image runs it.
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
