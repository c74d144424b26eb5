//! A host that was installed by an earlier version is upgraded while its runners are busy, idle and
//! spare. A host with a job goes back to that version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use github_sim::JobState;
use serde_json::Value;
use status::{Invocation, Verdict};

use super::common::{
    SOON, await_busy, await_no_strangers, await_verdict, finish_held, held, running, start_held,
};
use super::fixture::{EMPTY, small};
use super::suite::{Suite, suite};
use crate::binaries::{CONTROLLER, LISTENER, Profile};
use crate::config::{Config, Image};
use crate::image;
use crate::lab::{DAEMON, FIREWALL, Lab};
use crate::older;
use crate::readings::summary;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![EMPTY;
    an_upgrade_keeps_busy_idle_and_spare_runners,
    a_rollback_to_a_version_that_owns_no_table_ends_no_job,
];

/// Last commit whose stored data, sockets and units had the names of the first version.
const BEFORE: &str = "cb410767145a48da27bf2b4f674290c75ab48e40";
/// Image that the earlier version prepared.
const IMAGE: &str = "upgrade";

/// Installs a controller as the host's program.
fn install_program(lab: &Lab, program: &Path) -> Result<()> {
    let path = format!("/usr/local/bin/{CONTROLLER}");
    lab.host().install(program, &path, 0o755)
}

/// Machine and GitHub name of a runner, in the earlier version's words.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    machine: String,
    invocation: Invocation,
    runner: Option<String>,
}

/// Returns the runners in a phase as the status document of any version shows them.
fn in_phase(status: &Value, phase: &str) -> Vec<Known> {
    let text = |runner: &Value, key: &str| runner[key].as_str().map(str::to_owned);
    let pools = status["pools"].as_array().into_iter().flatten();
    pools
        .flat_map(|pool| pool["runners"].as_array().into_iter().flatten())
        .filter(|runner| runner["phase"] == phase)
        .filter_map(|runner| {
            Some(Known {
                machine: text(runner, "machine")?,
                invocation: Invocation::parse(runner["invocation"].as_str()?)?,
                runner: text(runner, "runner"),
            })
        })
        .collect()
}

/// Waits until the earlier daemon has so many runners in a phase.
fn await_phase(lab: &Lab, phase: &str, count: usize) -> Result<Vec<Known>> {
    wait_until(&format!("{count} {phase} runners"), SOON, || {
        let status = lab.status()?;
        let found = in_phase(&status, phase);
        Ok(if found.len() == count {
            Seen::Done(found)
        } else {
            Seen::NotYet(status.to_string())
        })
    })
}

/// Builds the earlier version.
fn earlier_program(lab: &Lab) -> Result<PathBuf> {
    let commit = older::resolve(BEFORE)?;
    let program = older::build(&commit, Profile::Dev).context("build the earlier version")?;
    // Otherwise nothing is upgraded, and the claim holds in any case.
    ensure!(
        fs::read(&program)? != fs::read(lab.binary(CONTROLLER)?)?,
        "the earlier version is the present one"
    );
    Ok(program)
}

/// Installs the earlier version and prepares its image. Returns a configuration with that image.
fn install_earlier_version(lab: &Lab, program: &Path) -> Result<Config> {
    install_program(lab, program)?;
    image::prepare(lab.host(), IMAGE, lab.binary(LISTENER)?)?;
    Ok(small(lab.sim().api_url()).with("ci", |pool| {
        pool.image = Image::Directory(image::inside(IMAGE));
    }))
}

/// Installs the earlier version with its own image and waits for an idle runner and a spare.
fn begin_with_the_earlier_version(lab: &Lab) -> Result<Config> {
    let config = install_earlier_version(lab, &earlier_program(lab)?)?;
    lab.install(&config)?;
    lab.start()?;
    await_phase(lab, "idle", 1)?;
    await_phase(lab, "spare", 1)?;
    Ok(config)
}

/// Follows the upgrade instructions of `docs/other-hosts.md`.
fn upgrade(lab: &Lab, config: &Config) -> Result<()> {
    install_program(lab, lab.binary(CONTROLLER)?)?;
    lab.install(config)?;
    lab.host().run(&["systemctl", "restart", DAEMON]).map(drop)
}

fn an_upgrade_keeps_busy_idle_and_spare_runners(lab: &mut Lab) -> Result<()> {
    let outcome = begin_with_the_earlier_version(lab).and_then(|config| upgraded(lab, &config));
    tidy_up(lab)?;
    outcome
}

/// Makes the host what it was, for the next claim.
fn tidy_up(lab: &mut Lab) -> Result<()> {
    lab.reset()?;
    install_program(lab, lab.binary(CONTROLLER)?)?;
    crate::bed::remove_tree(&crate::host::images_dir(lab.host().bed()).join(IMAGE))
}

fn a_rollback_to_a_version_that_owns_no_table_ends_no_job(lab: &mut Lab) -> Result<()> {
    let outcome = rolled_back(lab);
    tidy_up(lab)?;
    outcome
}

fn rolled_back(lab: &Lab) -> Result<()> {
    let earlier = earlier_program(lab)?;
    let config = install_earlier_version(lab, &earlier)?;
    install_program(lab, lab.binary(CONTROLLER)?)?;
    lab.install(&config)?;
    lab.start()?;
    let (id, busy) = start_held(lab, "long")?;

    // The earlier version does not read the records of a newer one. The documentation says so.
    lab.stop()?;
    lab.host()
        .sh("rm /var/lib/runner-controller/runner-controller.db*")?;
    install_program(lab, &earlier)?;
    lab.install(&config)?;
    lab.start()?;

    let firewall = lab.host().run(&["systemctl", "is-active", FIREWALL])?;
    ensure!(firewall.trim() == "active", "the firewall is {firewall}");
    let kept = await_phase(lab, "busy", 1)?;
    ensure!(
        kept[0].machine == busy.machine() && Some(&kept[0].invocation) == busy.invocation.as_ref(),
        "the busy runner was {busy:?}, now {kept:?}"
    );
    let quick = lab.sim().queue(&pool_job("quick", "ci", "true"))?;
    lab.sim().await_success(quick, SOON)?;
    finish_held(lab, id, &busy)?;
    upgrade(lab, &config)?;
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn upgraded(lab: &Lab, config: &Config) -> Result<()> {
    let quick = lab.sim().queue(&pool_job("earlier", "ci", "true"))?;
    let earlier = lab.sim().await_success(quick, SOON)?;
    let earlier = earlier.runner_name.context("it ran on a runner")?;
    await_phase(lab, "busy", 0)?;
    let held_job = lab.sim().queue(&held("long"))?;
    lab.sim().await_job(held_job, JobState::InProgress, SOON)?;
    let busy = await_phase(lab, "busy", 1)?;
    let idle = await_phase(lab, "idle", 1)?;
    let spare = await_phase(lab, "spare", 1)?;
    let before = running(lab)?;
    ensure!(before.len() == 3, "more than three containers: {before:?}");
    lab.sim().forget_calls()?;

    upgrade(lab, config)?;

    let now = await_busy(lab, held_job)?;
    let now = Known {
        machine: now.machine(),
        invocation: now.invocation.context("a busy runner was started")?,
        runner: now.runner,
    };
    ensure!(busy == [now], "the busy runner is another one: {busy:?}");
    for (phase, expected) in [("idle", &idle), ("spare", &spare)] {
        let now = await_phase(lab, phase, 1)?;
        ensure!(now == *expected, "{phase} was {expected:?}, now {now:?}");
    }
    ensure!(
        running(lab)? == before,
        "other containers: {:?}",
        running(lab)?
    );
    let mints = lab.sim().stats()?.calls_of("mint");
    ensure!(mints == 0, "the upgrade cost {mints} registrations");
    let status = lab.look()?;
    ensure!(
        status
            .ended(&earlier)
            .is_some_and(|ended| ended.verdict == Verdict::JobDone),
        "the verdict on {earlier} is lost: {}",
        summary(&status)
    );

    // The idle runner takes the next job, the spare the one after it, and every verdict is right.
    let mut held_jobs = vec![];
    for expected in idle.iter().chain(&spare) {
        let (id, runner) = start_held(lab, "after")?;
        ensure!(
            runner.invocation.as_ref() == Some(&expected.invocation),
            "{runner:?} took the job that {expected:?} was to take"
        );
        held_jobs.push((id, runner));
    }
    let long = await_busy(lab, held_job)?;
    held_jobs.push((held_job, long));
    for (id, runner) in held_jobs {
        finish_held(lab, id, &runner)?;
        await_verdict(lab, &runner.runner.unwrap_or_default(), Verdict::JobDone)?;
    }
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}
