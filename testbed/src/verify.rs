//! `cargo verify`: everything that can be checked, from formatting to containers that really run,
//! and a count at the end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::attack;
use crate::bed::{Bed, last_lines, note};
use crate::binaries::{Binaries, Profile, Programs, build_simulation, cargo};
use crate::chaos;
use crate::checks::tools::Tools;
use crate::checks::{alerts, dashboard, files, imports, language, logs};
use crate::claims::{BASIC_SUITES, Claim, Fixture, LISTENER_SUITES, SUITES, Suite};
use crate::lab::Lab;
use crate::qemu;
use crate::release::Release;
use crate::rootfs::{self, GUEST};
use crate::setup;

/// A part of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Formatting and lints, of scripts, recipes and Nix files too
    Static,
    /// Unit and documentation tests
    Tests,
    /// The controller over a simulated host and GitHub, 1,000 histories of it
    Simulation,
    /// `systemd-analyze verify` of every unit we print or install into an image
    Units,
    /// The set-up of the test host, from a mirror that loses packages; only when asked for
    Setup,
    /// Claims about the daemon on a real test host
    System,
    /// Hostile programs against the walls of real containers
    Attack,
    /// Three minutes in which things go wrong all the time while jobs flow
    Chaos,
    /// Claims that hold for the stand-in listener and for GitHub's own; only when asked for, see --runner
    Runner,
    /// Limits that bite, in a virtual machine with a kernel that counts; only when asked for
    Qemu,
}

/// Parts and claims to run.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Nothing but this part.
    pub only: Option<Part>,
    /// Nothing but claims and tests whose name contains this.
    pub filter: String,
    /// Say how to enter the host, which the caller leaves up.
    pub keep: bool,
    /// Profile in which our programs are built.
    pub profile: Profile,
    /// Programs that the operator has.
    pub programs: Programs,
    /// Release of the test host. `None` runs everything on the older one, and a smaller part on the newer.
    pub host: Option<Release>,
}

/// The claim of chaos.
const CHAOS: &str = "no_job_is_lost_whatever_goes_wrong";
/// The same faults every time, and every kind of them.
const CHAOS_SEED: u64 = 1;
const CHAOS_LENGTH: Duration = Duration::from_mins(3);

#[derive(Debug, Default)]
struct Tally {
    /// The release of the test host, if two of them are checked side by side.
    release: Option<Release>,
    passed: u64,
    failed: u64,
    /// Account of each failure. The end of the output has them again, because that is read first.
    failures: Vec<String>,
}

impl Selection {
    /// Returns those of `parts` that run: the one that is asked for, or all that are not run on request only.
    fn wanted(&self, parts: &[Part]) -> Vec<Part> {
        let on_request = [Part::Setup, Part::Runner, Part::Qemu];
        let wanted = |part: &Part| match self.only {
            Some(only) => only == *part,
            None => !on_request.contains(part),
        };
        parts.iter().copied().filter(wanted).collect()
    }
}

/// Parts to run on one test host.
#[derive(Debug)]
struct OnHost<'s> {
    release: Release,
    parts: Vec<Part>,
    suites: &'s [Suite],
    /// Nothing but claims and attacks whose name contains this.
    filter: &'s str,
}

/// Runs the selected parts; true if nothing failed. The last line of stdout is the count.
pub fn verify(selection: &Selection) -> Result<bool> {
    let mut tally = Tally::default();
    let wants = |part| !selection.wanted(&[part]).is_empty();
    if wants(Part::Static) {
        tally.command("formatting", cargo().args(["fmt", "--all", "--check"]));
        tally.command(
            "lints",
            cargo().args([
                "clippy",
                "--quiet",
                "--workspace",
                "--all-targets",
                // The tests compile the build without it, and fail on its warnings.
                "--features",
                "runner-controller/traces",
                "--",
                "--deny",
                "warnings",
            ]),
        );
        tally.files();
    }
    if wants(Part::Tests) {
        tally.tests(&selection.filter);
    }
    if wants(Part::Simulation) {
        tally.simulation(wants(Part::Tests));
    }
    // Minutes on a busy machine, and an empty one is set up from package mirrors: only on request.
    if wants(Part::Setup) {
        let bed = Bed::open()?;
        for claim in setup::CLAIMS {
            if claim.name.contains(&selection.filter) {
                tally.check(claim.name, || claim.check(&bed));
            }
        }
    }
    // In a virtual machine without /dev/kvm, minutes, and many on a busy machine: only on request.
    let on_host = [
        Part::Units,
        Part::System,
        Part::Attack,
        Part::Chaos,
        Part::Runner,
        Part::Qemu,
    ];
    if !selection.wanted(&on_host).is_empty() {
        let binaries = Binaries::with(selection.profile, &selection.programs)?;
        tally.on_hosts(selection, &binaries)?;
        if selection.keep {
            note("the test host stays up; `cargo run -p testbed -- host shell` enters it");
        }
    }
    for failure in &tally.failures {
        stdio::progress(format_args!("\nfailed: {failure}"));
    }
    stdio::progress(format_args!(
        "{} passed, {} failed",
        tally.passed, tally.failed
    ));
    Ok(tally.failed == 0)
}

/// The fixture that the host is in, unless the last claim failed.
#[derive(Debug, Default)]
struct Stage(Option<Fixture>);

impl Stage {
    fn set(&mut self, fixture: Fixture, lab: &Lab) -> Result<()> {
        let same = self.0.take().is_some_and(|last| last.name == fixture.name);
        let restored = (same && !fixture.is_empty()).then(|| fixture.restore(lab));
        if let Some(Err(error)) = &restored {
            note(&format!("setting the fixture up again: {error:#}"));
        }
        if !matches!(restored, Some(Ok(()))) {
            lab.reset().context("empty the host")?;
            fixture
                .set_up(lab)
                .with_context(|| format!("set up the fixture {}", fixture.name))?;
        }
        self.0 = Some(fixture);
        Ok(())
    }

    /// Forgets the fixture after a failed claim, which may leave anything.
    fn after(&mut self, outcome: &Result<()>) {
        if outcome.is_err() {
            self.0 = None;
        }
    }
}

impl Tally {
    /// Plays histories. After the tests, the program that they compiled is there, and to compile another one well takes
    /// longer than it saves.
    fn simulation(&mut self, is_after_tests: bool) {
        const NAME: &str = "1,000 simulated histories";
        let mut command = if is_after_tests {
            match build_simulation() {
                Ok(program) => Command::new(program),
                Err(error) => return self.report(NAME, Duration::ZERO, &Err(error)),
            }
        } else {
            let mut command = cargo();
            command.arg("simulate");
            command
        };
        command.args(["--histories", "1000", "--steps", "500"]);
        self.command(NAME, &mut command);
    }

    /// Runs the selected parts on one test host, or on one of each release. The claims of both releases run side by side,
    /// because most of them wait. Attacks and chaos have the machine for themselves.
    fn on_hosts(&mut self, selection: &Selection, binaries: &Binaries) -> Result<()> {
        let (older, newer) = (Release::Trixie, Release::Forky);
        let of = |release, parts: &[Part], suites| OnHost {
            release,
            suites,
            parts: selection.wanted(parts),
            filter: &selection.filter,
        };
        let claims = [Part::Units, Part::System];
        let attacks = [Part::Attack, Part::Chaos];
        let release = selection.host.unwrap_or(older);
        self.on_host(&of(release, &[Part::Qemu], &[]), binaries)?;
        self.on_host(&of(release, &[Part::Runner], LISTENER_SUITES), binaries)?;
        if selection.host.is_some() {
            self.on_host(&of(release, &claims, SUITES), binaries)?;
            return self.on_host(&of(release, &attacks, &[]), binaries);
        }
        let smaller = of(newer, &[Part::System], BASIC_SUITES);
        if !smaller.parts.is_empty() {
            note(&format!(
                "a smaller part runs beside it, with the systemd of Debian {}",
                newer.suite()
            ));
        }
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                let mut tally = Self {
                    release: Some(newer),
                    ..Self::default()
                };
                tally.on_host(&smaller, binaries).map(|()| tally)
            });
            let first = self.on_host(&of(older, &claims, SUITES), binaries);
            match beside.join() {
                Ok(tally) => self.add(tally?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
            first
        })?;
        self.on_host(&of(older, &attacks, &[]), binaries)?;
        self.on_host(&of(newer, &[Part::Attack], &[]), binaries)
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
    }

    /// Boots a test host of a release, and runs parts on it.
    fn on_host(&mut self, run: &OnHost<'_>, binaries: &Binaries) -> Result<()> {
        if run.parts.is_empty() {
            return Ok(());
        }
        let bed = Bed::of(run.release)?;
        let mut lab = Lab::up(&bed, binaries.clone())?;
        self.check("the mirror delivered every package that tests need", || {
            every_package_is_there(&bed)
        });
        for part in &run.parts {
            match part {
                Part::Static | Part::Tests | Part::Simulation | Part::Setup => {}
                Part::Units => self.check("systemd accepts every unit we print", || {
                    crate::units::units_are_accepted(&lab)
                }),
                Part::System | Part::Runner => self.suites(run, &mut lab),
                Part::Attack => self.attacks(&mut lab, run.filter)?,
                Part::Chaos if CHAOS.contains(run.filter) => self.chaos(&mut lab),
                Part::Chaos => {}
                Part::Qemu => self.machine(&bed, &lab),
            }
        }
        Ok(())
    }

    fn suites(&mut self, run: &OnHost<'_>, lab: &mut Lab) {
        let mut stage = Stage::default();
        for suite in run.suites {
            for claim in suite.claims {
                if claim.name.contains(run.filter) {
                    self.claim(suite.fixture, claim, lab, &mut stage);
                }
            }
        }
    }

    fn report(&mut self, name: &str, took: Duration, outcome: &Result<()>) {
        let mark = if outcome.is_ok() { "ok  " } else { "FAIL" };
        let name = match self.release {
            Some(release) => format!("{name} (Debian {})", release.suite()),
            None => name.to_owned(),
        };
        stdio::progress(format_args!("{mark} {:7.2} s  {name}", took.as_secs_f64()));
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                let cause = indented(&format!("{error:#}"));
                stdio::progress(format_args!("{cause}"));
                self.failures.push(format!("{name}\n{cause}"));
            }
        }
    }

    /// One line for each claim that the virtual machine checked.
    fn machine(&mut self, bed: &Bed, lab: &Lab) {
        let start = Instant::now();
        let ended = qemu::enforce(bed, lab.binaries(), |finding| {
            let qemu::Finding {
                name,
                holds,
                details,
                took,
            } = finding;
            let outcome = if holds {
                Ok(())
            } else {
                Err(anyhow::anyhow!("{details}"))
            };
            self.report(&format!("{name}: {details}"), took, &outcome);
        });
        self.report("the virtual machine ends", start.elapsed(), &ended);
    }

    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        let outcome = check();
        self.report(name, start.elapsed(), &outcome);
    }

    fn command(&mut self, name: &str, command: &mut Command) {
        self.check(name, || {
            let output = command.stdin(Stdio::null()).output().context("run cargo")?;
            if !output.status.success() {
                let said = [output.stdout, output.stderr]
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                bail!(
                    "{}\n{}",
                    output.status,
                    last_lines(said.concat().trim(), 60)
                );
            }
            Ok(())
        });
    }

    /// Checks the files that are not Rust.
    fn files(&mut self) {
        self.check(
            "no dead code in Nix files",
            files::nix_files_have_no_dead_code,
        );
        let tools = Tools::ready();
        let mut check = |name, check: fn(&Tools) -> Result<()>| {
            self.check(name, || match &tools {
                Ok(tools) => check(tools),
                Err(error) => bail!("{error:#}"),
            });
        };
        check("Nix files parse", files::nix_files_parse);
        check("scripts are sound", files::scripts_are_sound);
        check("the justfile is sound", files::the_justfile_is_sound);
        check(
            "every host has an address",
            files::every_host_has_an_address,
        );
        check(
            "the golden file is current",
            files::the_golden_file_is_current,
        );
        check("secrets are secret", files::secrets_are_secret);
        check("alerts are sound", alerts::alerts_are_sound);
        check("dashboard is sound", dashboard::dashboard_is_sound);
        self.check("the language is plain", language::language_is_plain);
        self.check(
            "imports have no new circle",
            imports::imports_have_no_new_circle,
        );
        self.check(
            "imports follow the levels of ARCHITECTURE.md",
            imports::imports_follow_the_levels,
        );
        self.check(
            "log lines tell their fields",
            logs::log_lines_tell_their_fields,
        );
    }

    /// Checks a claim in its fixture. A failed one shows the host's journal of that time.
    fn claim(&mut self, fixture: Fixture, claim: &Claim, lab: &mut Lab, stage: &mut Stage) {
        let start = Instant::now();
        let outcome = stage.set(fixture, lab).and_then(|()| (claim.check)(lab));
        self.report(claim.name, start.elapsed(), &outcome);
        stage.after(&outcome);
        if outcome.is_err() {
            let account = indented(&lab.account());
            stdio::progress(format_args!("{account}"));
            if let Some(failure) = self.failures.last_mut() {
                failure.push('\n');
                failure.push_str(&account);
            }
        }
    }

    /// Every attack counts as one, whatever it takes to run it; a filter that names none is not a mistake.
    fn attacks(&mut self, lab: &mut Lab, filter: &str) -> Result<()> {
        let attacks = attack::select(filter)?;
        if attacks.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        match attack::run(lab, &attacks) {
            Ok(rows) => {
                stdio::progress(format_args!("{}", attack::report::table(&rows)));
                stdio::progress(format_args!(
                    "     {:7.2} s  all attacks",
                    start.elapsed().as_secs_f64()
                ));
                for row in rows {
                    match row.trouble() {
                        None => self.passed += 1,
                        Some(trouble) => {
                            self.report(row.name(), Duration::ZERO, &Err(anyhow::anyhow!(trouble)));
                        }
                    }
                }
            }
            Err(error) => self.report("the attacks", start.elapsed(), &Err(error)),
        }
        Ok(())
    }

    /// Last of all: it is the longest, and leaves a host that has been through a lot.
    fn chaos(&mut self, lab: &mut Lab) {
        let start = Instant::now();
        let outcome = chaos::run(lab, CHAOS_SEED, CHAOS_LENGTH).and_then(|report| {
            stdio::progress(format_args!("{}", indented(&report.table())));
            ensure!(report.holds(), "{}", report.violations());
            chaos::clear(lab)
        });
        self.report(CHAOS, start.elapsed(), &outcome);
    }

    /// Counts every single test. `cargo nextest` where it is installed, else cargo's own runner.
    fn tests(&mut self, filter: &str) {
        let has_nextest = cargo()
            .args(["nextest", "--version"])
            .output()
            .is_ok_and(|output| output.status.success());
        let runs: &[&[&str]] = if has_nextest {
            &[
                &[
                    "nextest",
                    "run",
                    "--workspace",
                    "--no-tests=pass",
                    "--no-fail-fast",
                ],
                &["test", "--workspace", "--doc", "--no-fail-fast"],
            ]
        } else {
            &[&["test", "--workspace", "--no-fail-fast"]]
        };
        for run in runs {
            let start = Instant::now();
            let name = format!("cargo {}", run.join(" "));
            let mut command = cargo();
            command.args(*run).arg("--color=never");
            if !filter.is_empty() {
                command.arg(filter);
            }
            let output = match command.stdin(Stdio::null()).output() {
                Ok(output) => output,
                Err(error) => {
                    self.report(&name, start.elapsed(), &Err(error.into()));
                    continue;
                }
            };
            let text = [output.stdout, output.stderr]
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .concat();
            let (passed, failed) = counts(&text);
            let warnings = warnings(&text);
            let outcome = if output.status.success() && warnings.is_empty() {
                Ok(())
            } else if output.status.success() {
                Err(anyhow::anyhow!("{}", warnings.join("\n")))
            } else {
                Err(anyhow::anyhow!(
                    "{failed} failed, {}\n{}",
                    output.status,
                    last_lines(text.trim(), 80)
                ))
            };
            self.report(
                &format!("{name}: {passed} passed"),
                start.elapsed(),
                &outcome,
            );
            // The line above counted as one; its tests count instead.
            if outcome.is_ok() {
                self.passed += passed.saturating_sub(1);
            } else {
                self.passed += passed;
                self.failed += failed.saturating_sub(1);
            }
        }
    }
}

/// Returns the numbers of tests that passed and failed, from the summaries of nextest and libtest.
fn counts(text: &str) -> (u64, u64) {
    let before = |line: &str, word: &str| -> u64 {
        let words: Vec<&str> = line.split([' ', ',', ';']).collect();
        words
            .iter()
            .position(|w| *w == word)
            .and_then(|at| words.get(at.wrapping_sub(1))?.parse().ok())
            .unwrap_or(0)
    };
    text.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with("Summary [") || line.starts_with("test result:"))
        .fold((0, 0), |(passed, failed), line| {
            (
                passed + before(line, "passed"),
                failed + before(line, "failed"),
            )
        })
}

/// Returns cargo's counts of the compiler's warnings, one for each crate that has some. The lints see the crates with
/// other features, so they do not have all of these.
fn warnings(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim_start);
    let is_count = |line: &&str| {
        line.starts_with("warning: `") && line.contains("` (") && line.contains(") generated ")
    };
    lines.filter(is_count).collect()
}

/// Fails with the names of packages that the root filesystems lack.
fn every_package_is_there(bed: &Bed) -> Result<()> {
    let missing: Vec<String> = [rootfs::host(bed.release()), &GUEST]
        .iter()
        .flat_map(|recipe| recipe.missing(bed))
        .collect();
    ensure!(
        missing.is_empty(),
        "{} was not on the mirror, so claims that use it fail; run the command again later, or set \
         RUNNER_TESTBED_MIRROR to another Debian mirror",
        missing.join(", ")
    );
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("       {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_of_the_compiler_is_found_and_one_of_a_test_is_not() {
        let text = "warning: unused import: `x`\n   --> a.rs:1:5\n\
                    warning: `traces` (lib) generated 1 warning (run `cargo fix` to apply 1 suggestion)\n\
                    warning: a test says this, and `generated` is in it";
        let found = warnings(text);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("`traces` (lib)"));
    }

    #[test]
    fn nextest_and_libtest_are_counted_alike() {
        let nextest =
            "     Summary [   0.052s] 12 tests run: 10 passed (1 slow), 2 failed, 3 skipped";
        assert_eq!(counts(nextest), (10, 2));
        let libtest = "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s\n\
                       test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counts(libtest), (8, 4));
    }
}
