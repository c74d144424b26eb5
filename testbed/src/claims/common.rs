//! Steps that many claims share.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use github_sim::{Endpoint, JobSpec, JobState, JobView};
use status::{Invocation, PhaseKind, RunnerStatus, Status, Verdict, VerdictRecord};

use crate::lab::{Lab, SLOT_UNITS};
use crate::readings::summary;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

/// File for which a slow sweep waits.
const GATE: &str = "/run/testbed-sweep";
const DROP_IN: &str = "/run/systemd/system/runner-ci@.service.d/slow-sweep.conf";

/// Timeout for things that take a second at most on an idle machine. A boot takes 0.2 s.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Returns the slot in a runner's name: `ci-1` of `testhost-ci-1-0a1b2c3d`.
pub(crate) fn machine_of(runner: &str) -> &str {
    let slot = runner.strip_prefix("testhost-").unwrap_or(runner);
    slot.rsplit_once('-').map_or(slot, |(slot, _)| slot)
}

/// Returns a job that runs until [`release`].
pub(super) fn held(name: &str) -> JobSpec {
    pool_job(name, "ci", "until [ -e /tmp/go ]; do sleep 0.05; done")
}

/// Lets the held job of a container end.
pub(super) fn release(lab: &Lab, machine: &str) -> Result<()> {
    in_container(lab, machine, &["touch", "/tmp/go"]).map(drop)
}

/// Runs a command in a container, as its root.
pub(crate) fn in_container(lab: &Lab, machine: &str, command: &[&str]) -> Result<String> {
    let leader = leader(lab, machine)?;
    let mut argv = vec!["nsenter", "--target", &leader, "--all", "--"];
    argv.extend(command);
    lab.host().run(&argv)
}

/// Runs a command as a service of a container's systemd: as root with the container's rights.
/// [`in_container`] has all of the host's capabilities and no filter.
pub(super) fn as_its_root(lab: &Lab, machine: &str, script: &str) -> Result<String> {
    let run = ["systemd-run", "--quiet", "--collect", "--pipe", "--wait"];
    let mut argv = run.to_vec();
    argv.extend(["--service-type=exec", "sh", "-c", script]);
    in_container(lab, machine, &argv)
}

/// Returns the host's process number of a container's process 1: the child of its systemd-nspawn that is
/// process 1 of an inner namespace (`NSpid:` in `proc_pid_status(5)`).
pub(crate) fn leader(lab: &Lab, machine: &str) -> Result<String> {
    let unit = format!("runner-{}.service", machine.replace('-', "@"));
    let find = format!(
        "main=$(systemctl show -P MainPID {unit})
         for child in $(cat /proc/$main/task/$main/children); do
           grep -qs '^NSpid:.*[[:space:]]1$' /proc/$child/status && echo $child && exit
         done
         echo {unit} has no container >&2; exit 1"
    );
    Ok(lab.host().sh(&find)?.trim().to_owned())
}

/// Queues a held job and waits until its runner is busy with it.
pub(super) fn start_held(lab: &Lab, name: &str) -> Result<(u64, RunnerStatus)> {
    let id = lab.sim().queue(&held(name))?;
    let runner = await_busy(lab, id)?;
    Ok((id, runner))
}

/// Waits until the daemon knows that the runner of a job is busy.
pub(crate) fn await_busy(lab: &Lab, id: u64) -> Result<RunnerStatus> {
    let job = lab.sim().await_job(id, JobState::InProgress, SOON)?;
    let name = job.runner_name.context("a running job has a runner")?;
    lab.await_status(&format!("{name} to be busy"), SOON, |status| {
        status
            .runner(&name)
            .filter(|runner| runner.phase == PhaseKind::Busy)
            .cloned()
    })
}

/// Ends a held job, and checks that it ran once and succeeded.
pub(super) fn finish_held(lab: &Lab, id: u64, runner: &RunnerStatus) -> Result<JobView> {
    release(lab, &runner.machine())?;
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

/// Runs jobs until each has succeeded.
pub(super) fn run_jobs(lab: &Lab, jobs: &[JobSpec]) -> Result<Vec<JobView>> {
    let ids = lab.sim().queue_all(jobs)?;
    ids.iter()
        .map(|id| lab.sim().await_success(*id, SOON))
        .collect()
}

/// Runs one job until it has succeeded, and returns its output.
pub(super) fn run(lab: &Lab, script: &str) -> Result<String> {
    let jobs = run_jobs(lab, &[pool_job("job", "ci", script)])?;
    Ok(jobs
        .into_iter()
        .map(|job| job.facts.log_tail)
        .collect::<String>())
}

/// Waits until a runner has ended.
pub(super) fn await_end(lab: &Lab, runner: &str) -> Result<VerdictRecord> {
    lab.await_status(&format!("the end of {runner}"), SOON, |status| {
        status.ended(runner).cloned()
    })
}

/// Waits until a runner has ended with this verdict.
pub(super) fn await_verdict(lab: &Lab, runner: &str, verdict: Verdict) -> Result<VerdictRecord> {
    let ended = await_end(lab, runner)?;
    ensure!(
        ended.verdict == verdict,
        "{runner} ended as {} and not as {verdict}: {ended:?}",
        ended.verdict
    );
    Ok(ended)
}

/// Waits until nothing stands in the way of new runners.
pub(super) fn await_open(lab: &Lab, limit: Duration) -> Result<()> {
    lab.await_status("admission to open again", limit, |status| {
        status.closed.is_empty().then_some(())
    })
}

/// Lets sweeps wait for [`GATE`].
pub(super) fn slow_sweeps(lab: &Lab) -> Result<()> {
    let text = format!(
        "[Service]\nExecStopPost=\nExecStopPost=/bin/sh -c 'until [ -e {GATE} ]; do sleep 0.05; done; \
         exec /usr/local/bin/runner-controller sweep ci %i'\n"
    );
    lab.host().run(&["rm", "-f", GATE])?;
    lab.host().write(DROP_IN, text.as_bytes(), 0o644)?;
    lab.host().run(&["systemctl", "daemon-reload"]).map(drop)
}

/// Lets sweeps go on.
pub(super) fn quick_sweeps(lab: &Lab) -> Result<()> {
    lab.host().write(GATE, b"", 0o644)?;
    lab.host().run(&["rm", "-f", DROP_IN])?;
    lab.host().run(&["systemctl", "daemon-reload"]).map(drop)
}

/// Returns the idle runner of the fixture.
pub(super) fn idle(status: &Status) -> Result<RunnerStatus> {
    let idle = status.in_phase(PhaseKind::Idle);
    idle.first()
        .map(|runner| (*runner).clone())
        .context("no runner is idle")
}

/// Returns the spare of the fixture.
pub(super) fn spare(status: &Status) -> Result<RunnerStatus> {
    let spares = status.in_phase(PhaseKind::Spare);
    spares
        .first()
        .map(|runner| (*runner).clone())
        .context("no runner is a spare")
}

/// Returns the invocation of each running container, by machine.
pub(super) fn running(lab: &Lab) -> Result<BTreeMap<String, Invocation>> {
    Ok(lab
        .containers()?
        .into_iter()
        .filter(|container| container.state == "active" || container.state == "activating")
        .filter_map(|container| Some((container.machine, container.invocation?)))
        .collect())
}

/// Waits until GitHub lists exactly the runners that the daemon has.
pub(super) fn await_no_strangers(lab: &Lab) -> Result<()> {
    wait_until("GitHub to list exactly the daemon's runners", SOON, || {
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
            Seen::NotYet(format!("GitHub has {theirs:?}, {}", summary(&status)))
        })
    })
}

/// Waits until the stand-in has received so many calls of an endpoint.
pub(super) fn await_calls(lab: &Lab, endpoint: Endpoint, count: u64) -> Result<()> {
    wait_until(
        &format!("{count} calls of {}", endpoint.name()),
        SOON,
        || {
            let stats = lab.sim().stats()?;
            Ok(if stats.calls_of(endpoint.name()) >= count {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{:?}", stats.calls))
            })
        },
    )
}

/// Stops the daemon, and then every container.
pub(super) fn stop_all(lab: &Lab) -> Result<()> {
    lab.stop()?;
    lab.host().run(&["systemctl", "stop", SLOT_UNITS]).map(drop)
}

/// Returns the process number of the daemon.
pub(super) fn daemon_pid(lab: &Lab) -> Result<String> {
    lab.show(crate::lab::DAEMON, "MainPID")
}

/// Kills the daemon by SIGKILL, and starts another.
pub(super) fn kill_and_start(lab: &Lab) -> Result<()> {
    let before = daemon_pid(lab)?;
    lab.kill()?;
    lab.start()?;
    ensure!(
        daemon_pid(lab)? != before,
        "process {before} was not killed"
    );
    Ok(())
}

/// Checks that all these containers run on, and that the daemon shows them.
pub(super) fn ensure_kept(lab: &Lab, before: &BTreeMap<String, Invocation>) -> Result<()> {
    let now = running(lab)?;
    for (machine, invocation) in before {
        ensure!(
            now.get(machine) == Some(invocation),
            "{machine} had invocation {invocation}, now there are {now:?}"
        );
    }
    lab.await_status("the runners from before", SOON, |status| {
        before
            .iter()
            .all(|(machine, invocation)| {
                status
                    .machine(machine)
                    .is_some_and(|now| now.invocation.as_ref() == Some(invocation))
            })
            .then_some(())
    })
}

/// Returns an error unless a text contains all of these words.
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
