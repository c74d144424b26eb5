//! Words that many claims are written in.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{Lab, SLOT_UNITS};
use crate::sim::{Job, NewJob};
use crate::status::{Ended, Runner, Status};
use crate::wait::{Seen, wait_until};

/// Boots are 0.2 s; this is for a machine that is busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The slot of a runner's name: `ci-1` of `testhost-ci-1-0a1b2c3d`.
pub(crate) fn machine_of(runner: &str) -> &str {
    let slot = runner.strip_prefix("testhost-").unwrap_or(runner);
    slot.rsplit_once('-').map_or(slot, |(slot, _)| slot)
}

/// A job that runs until [`release`].
pub(super) fn held(name: &str) -> NewJob {
    NewJob::new(name, "ci", "until [ -e /tmp/go ]; do sleep 0.05; done")
}

/// Lets the held job of a container go.
pub(super) fn release(lab: &Lab, machine: &str) -> Result<()> {
    in_container(lab, machine, &["touch", "/tmp/go"]).map(drop)
}

/// Runs a command in a container, as its root.
pub(super) fn in_container(lab: &Lab, machine: &str, command: &[&str]) -> Result<String> {
    let leader = leader(lab, machine)?;
    let mut argv = vec!["nsenter", "--target", &leader, "--all", "--"];
    argv.extend(command);
    lab.host().run(&argv)
}

/// Runs a command in a container as a service of its own systemd: root with no more than the
/// container has. [`in_container`] comes in with all of the host's capabilities and no filter.
pub(super) fn as_its_root(lab: &Lab, machine: &str, script: &str) -> Result<String> {
    let machine = format!("--machine={machine}");
    let run = [
        "systemd-run",
        &machine,
        "--quiet",
        "--collect",
        "--pipe",
        "--wait",
    ];
    let mut argv = run.to_vec();
    argv.extend(["--service-type=exec", "sh", "-c", script]);
    lab.host().run(&argv)
}

/// Process 1 of a container, by its number in the host.
pub(crate) fn leader(lab: &Lab, machine: &str) -> Result<String> {
    let leader = lab.host().run(&[
        "machinectl",
        "show",
        "--property=Leader",
        "--value",
        machine,
    ])?;
    Ok(leader.trim().to_owned())
}

/// Queues a held job and waits until its runner is busy with it.
pub(super) fn start_held(lab: &Lab, name: &str) -> Result<(u64, Runner)> {
    let id = lab.sim().queue(&held(name))?;
    let runner = await_busy(lab, id)?;
    Ok((id, runner))
}

/// Waits until the daemon knows that the runner of a job is busy.
pub(crate) fn await_busy(lab: &Lab, id: u64) -> Result<Runner> {
    let job = lab.sim().await_job(id, "in_progress", SOON)?;
    let name = job.runner_name.context("a running job has a runner")?;
    lab.await_status(&format!("{name} to be busy"), SOON, |status| {
        status
            .runner(&name)
            .filter(|runner| runner.phase == "busy")
            .cloned()
    })
}

/// Ends a held job; it must have run once and well.
pub(super) fn finish_held(lab: &Lab, id: u64, runner: &Runner) -> Result<Job> {
    release(lab, &runner.machine)?;
    let job = lab.sim().await_success(id, SOON)?;
    ensure!(
        job.attempts == 1 && job.runner_name == runner.runner,
        "it ran {} times, last on {:?} and first on {:?}",
        job.attempts,
        job.runner_name,
        runner.runner
    );
    Ok(job)
}

/// Runs jobs to their good ends.
pub(super) fn run_jobs(lab: &Lab, jobs: &[NewJob]) -> Result<Vec<Job>> {
    let ids = lab.sim().queue_all(jobs)?;
    ids.iter()
        .map(|id| lab.sim().await_success(*id, SOON))
        .collect()
}

/// Runs one job to its good end, and returns what it printed.
pub(super) fn run(lab: &Lab, script: &str) -> Result<String> {
    let jobs = run_jobs(lab, &[NewJob::new("job", "ci", script)])?;
    Ok(jobs
        .into_iter()
        .map(|job| job.facts.log_tail)
        .collect::<String>())
}

/// Waits until a runner's life is over.
pub(super) fn await_end(lab: &Lab, runner: &str) -> Result<Ended> {
    lab.await_status(&format!("the end of {runner}"), SOON, |status| {
        status.ended(runner).cloned()
    })
}

/// Waits until a runner's life is over, with this verdict.
pub(super) fn await_verdict(lab: &Lab, runner: &str, verdict: &str) -> Result<Ended> {
    let ended = await_end(lab, runner)?;
    ensure!(
        ended.verdict == verdict,
        "{runner} ended as {} and not as {verdict}: {ended:?}",
        ended.verdict
    );
    Ok(ended)
}

/// The idle runner of the fixture.
pub(super) fn idle(status: &Status) -> Result<Runner> {
    let idle = status.in_phase("idle");
    idle.first()
        .map(|runner| (*runner).clone())
        .context("no runner is idle")
}

/// The spare of the fixture.
pub(super) fn spare(status: &Status) -> Result<Runner> {
    let spares = status.in_phase("spare");
    spares
        .first()
        .map(|runner| (*runner).clone())
        .context("there is no spare")
}

/// The lives that run, by slot.
pub(super) fn lives(lab: &Lab) -> Result<BTreeMap<String, String>> {
    Ok(lab
        .containers()?
        .into_iter()
        .filter(|container| container.state == "active" || container.state == "activating")
        .map(|container| (container.machine, container.invocation))
        .collect())
}

/// Waits until GitHub knows the runners that the daemon knows, and no others.
pub(super) fn await_no_strangers(lab: &Lab) -> Result<()> {
    wait_until("GitHub to have our runners and no others", SOON, || {
        let mut theirs = lab.sim().registered()?;
        let status = lab.look()?;
        let mut ours: Vec<String> = status
            .runners()
            .filter_map(|runner| runner.runner.clone())
            .collect();
        theirs.sort();
        ours.sort();
        Ok(if ours == theirs {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("GitHub has {theirs:?}, {}", status.summary()))
        })
    })
}

/// Waits until the stand-in has heard so many calls of an endpoint.
pub(super) fn await_calls(lab: &Lab, endpoint: &str, count: u64) -> Result<()> {
    wait_until(&format!("{count} calls of {endpoint}"), SOON, || {
        let stats = lab.sim().stats()?;
        Ok(if stats.of(endpoint) >= count {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{:?}", stats.calls))
        })
    })
}

/// Stops the daemon, and then every container.
pub(super) fn stop_all(lab: &Lab) -> Result<()> {
    lab.stop()?;
    lab.host().run(&["systemctl", "stop", SLOT_UNITS]).map(drop)
}

/// The process of the daemon.
pub(super) fn daemon_pid(lab: &Lab) -> Result<String> {
    lab.show(crate::lab::DAEMON, "MainPID")
}

/// Fails unless a text has all of these in it.
pub(super) fn ensure_says(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::machine_of;

    #[test]
    fn a_runners_name_tells_its_slot() {
        assert_eq!(machine_of("testhost-ci-12-0a1b2c3d"), "ci-12");
        assert_eq!(machine_of("somebody"), "somebody");
    }
}
