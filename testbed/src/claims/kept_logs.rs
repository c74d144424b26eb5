//! Log files of listeners that are kept after a runner's end.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use github_sim::{JobSpec, JobState};
use serde_json::json;
use status::{Verdict, VerdictRecord};

use super::common::{
    SOON, as_its_root, await_end, await_verdict, ensure_says, idle, leader, run, start_held,
};
use super::fixture::{SMALL, small};
use super::suite::{Suite, suite};
use crate::lab::Lab;
use crate::sim::pool_job;

pub(super) const SUITE: Suite = suite![SMALL;
    a_runner_whose_job_fails_leaves_its_log_files_without_secrets,
    a_runner_that_succeeds_or_is_drained_leaves_no_log_files,
    old_log_files_go_when_space_or_age_is_short,
    a_log_directory_that_a_job_made_harms_neither_host_nor_sweep,
];

/// Directory of the bundles on the host.
const BUNDLES: &str = "/var/log/runner-controller";
/// Directory of the listener's log files in a container.
const DIAG: &str = "/opt/actions-runner/_diag";
const TOKEN: &str = "ghs_0123456789abcdefghijABCDEFGHIJ012345";

/// Returns the names of the bundles of a runner that ended.
fn bundles_of(lab: &Lab, ended: &VerdictRecord) -> Result<Vec<String>> {
    let start = ended.invocation.as_ref().context("a start has an id")?;
    let names = lab.host().sh(&format!("ls {BUNDLES}"))?;
    let names = names.lines().filter(|name| name.contains(start.as_str()));
    Ok(names.map(str::to_owned).collect())
}

fn a_runner_whose_job_fails_leaves_its_log_files_without_secrets(lab: &mut Lab) -> Result<()> {
    let script = format!(
        "for log in {DIAG}/Runner_*.log; do printf '[x] sent {TOKEN}, \\033[2J\\n' >>$log; done; exit 3"
    );
    let name = fail(lab, &pool_job("fails", "ci", &script))?;
    let ended = await_verdict(lab, &name, Verdict::JobDone)?;
    let host = lab.host();
    let names = bundles_of(lab, &ended)?;
    ensure!(names.len() == 1, "{names:?}");
    let said = [
        "Running job: fails",
        "==> Runner_",
        "[x] sent [redacted], \\u{1b}[2J",
    ];
    let note = ended.job.as_ref();
    let url = note.and_then(|note| note.run_url("https://github.com"));
    let url = url.context("a job that ran has a run")?;
    let slot = ended.slot.to_string();
    for command in [
        vec!["runner-logs", &name],
        vec!["runner-logs", "--kept", &name],
        vec!["runner-logs", "--kept", &slot],
        vec!["runner-logs", "--kept", &url],
    ] {
        let text = host.run(&command)?;
        ensure_says(&text, &said).with_context(|| command.join(" "))?;
        ensure!(!text.contains(TOKEN) && !text.contains('\u{1b}'), "{text}");
    }
    // The journal of a named runner comes first.
    let whole = host.run(&["runner-logs", &name])?;
    ensure_says(&whole, &["systemd["])?;
    let raw = host.run(&["zcat", &format!("{BUNDLES}/{}", names[0])])?;
    ensure!(!raw.contains(TOKEN) && !raw.contains('\u{1b}'), "{raw}");
    let explained = host.run(&["runner-controller", "explain", "--no-journal", &name])?;
    ensure_says(&explained, &[&format!("runner-logs --kept {name}")])?;
    let history = host.run(&["runner-controller", "history", &name])?;
    ensure_says(&history, &["kept"])?;
    let json = host.run(&["runner-controller", "history", "--json", &name])?;
    ensure_says(&json, &[&format!("{BUNDLES}/{}", names[0])])?;
    // Operators of the daemon's group read them. Other users do not.
    host.sh(&format!(
        "setpriv --reuid=65534 --regid=runner-controller --clear-groups zcat {BUNDLES}/{} >/dev/null
         ! setpriv --reuid=65534 --regid=65534 --clear-groups ls {BUNDLES} 2>/dev/null",
        names[0]
    ))?;
    host.sh("rm -f /run/testbed/support.tar.gz && runner-controller support-bundle /run/testbed/support.tar.gz")?;
    let list = host.sh("tar -xzOf /run/testbed/support.tar.gz support-bundle/logs/list.txt")?;
    ensure_says(&list, &[&names[0]])?;
    lab.await_settled(SOON).map(drop)
}

/// Runs a job that fails, and returns the name of its runner.
fn fail(lab: &Lab, job: &JobSpec) -> Result<String> {
    let id = lab.sim().queue(job)?;
    let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
    job.runner_name.context("a job that ran has a runner")
}

fn a_runner_that_succeeds_or_is_drained_leaves_no_log_files(lab: &mut Lab) -> Result<()> {
    let waiting = idle(&lab.await_settled(SOON)?)?;
    let name = waiting.runner.unwrap_or_default();
    run(lab, "true")?;
    let done = await_verdict(lab, &name, Verdict::JobDone)?;
    let waiting = idle(&lab.await_settled(SOON)?)?;
    lab.api("POST", "/drain")?;
    let drained = await_end(lab, &waiting.runner.unwrap_or_default())?;
    ensure!(drained.verdict == Verdict::Drained, "{drained:?}");
    for ended in [done, drained] {
        let names = bundles_of(lab, &ended)?;
        ensure!(names.is_empty(), "{names:?} of {ended:?}");
    }
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON).map(drop)
}

fn old_log_files_go_when_space_or_age_is_short(lab: &mut Lab) -> Result<()> {
    let good = small(lab.sim().api_url());
    let mut config = good.clone();
    config.layer_dir = lab.host().layer_dir();
    let logs = "\n[logs]\nspace = \"16 MiB\"\nage = \"1day\"\n";
    // Root's programs read it at each end. The daemon needs none of it.
    lab.write_config(&(config.render() + logs))?;
    let plant = |hours: u64, size: &str| -> Result<PathBuf> {
        let at = format!("$(( ($(date +%s) - {hours} * 3600) * 1000 ))");
        let script = format!(
            "file={BUNDLES}/ci-9.{at}.$(printf %032d {hours}).log.gz
             head -c {size} /dev/urandom >$file && echo $file"
        );
        Ok(PathBuf::from(lab.host().sh(&script)?.trim()))
    };
    let (old, older, newer) = (plant(25, "1K")?, plant(3, "9M")?, plant(2, "9M")?);
    let name = fail(lab, &pool_job("pushes", "ci", "exit 3"))?;
    let ended = await_end(lab, &name)?;
    ensure!(bundles_of(lab, &ended)?.len() == 1, "no bundle of {name}");
    let left = lab.host().sh(&format!("ls {BUNDLES}"))?;
    let is_left = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        left.contains(&*name)
    };
    ensure!(
        !is_left(&old) && !is_left(&older) && is_left(&newer),
        "{left}"
    );
    lab.host().sh(&format!("rm {BUNDLES}/ci-9.*"))?;
    // With keep = "none", nothing is mounted on the host and nothing is kept.
    lab.write_config(&(config.render() + "\n[logs]\nkeep = \"none\"\n"))?;
    lab.api("POST", "/drain")?;
    lab.await_status("all runners to end", SOON, |status| {
        status.runners().next().is_none().then_some(())
    })?;
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON)?;
    let own = lab.host().sh("ls /run/runner-controller/own")?;
    ensure!(own.is_empty(), "{own}");
    let name = fail(lab, &pool_job("unkept", "ci", "exit 3"))?;
    let ended = await_end(lab, &name)?;
    ensure!(bundles_of(lab, &ended)?.is_empty(), "{name} left a bundle");
    lab.write_config(&config.render())?;
    lab.api("POST", "/drain")?;
    lab.await_status("all runners to end", SOON, |status| {
        status.runners().next().is_none().then_some(())
    })?;
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON).map(drop)
}

fn a_log_directory_that_a_job_made_harms_neither_host_nor_sweep(lab: &mut Lab) -> Result<()> {
    lab.sim().set(&json!({ "lock_ms": 1500 }))?;
    let crowded = format!(
        "cd {DIAG} && mkfifo Runner_pipe.log && ln -s /etc/passwd Runner_link.log &&
         ln ../.credentials_rsaparams Runner_second.log && mkdir Runner_dir.log &&
         truncate -s 1T Runner_big.log && printf 'at the end\\n' >>Runner_big.log &&
         {{ yes 'token=' | head -c 4M >Worker_slow.log; }} 2>/dev/null &&
         i=0; while true >Other_$i.log; do i=$((i+1)); done 2>/dev/null; [ $i -gt 5000 ]"
    );
    let replaced = format!("mv {DIAG} {DIAG}.old && ln -s /etc {DIAG} && ls {DIAG}/passwd");
    for (job, script, is_kept) in [("crowded", crowded, true), ("replaced", replaced, false)] {
        let (_, busy) = start_held(lab, job)?;
        as_its_root(lab, &busy.machine(), &script)?;
        let init = leader(lab, &busy.machine())?;
        lab.host().run(&["kill", "-KILL", &init])?;
        let ended = await_end(lab, &busy.runner.clone().unwrap_or_default())?;
        let names = bundles_of(lab, &ended)?;
        ensure!(names.len() == usize::from(is_kept), "{job}: {names:?}");
        for name in names {
            let text = lab.host().run(&["zcat", &format!("{BUNDLES}/{name}")])?;
            for secret in [
                "root:",
                "modulus",
                "Runner_link",
                "Runner_pipe",
                "Runner_second",
            ] {
                ensure!(!text.contains(secret), "{secret:?} is in {text}");
            }
            let size = lab
                .host()
                .run(&["stat", "--format=%s", &format!("{BUNDLES}/{name}")])?;
            let size: u64 = size.trim().parse()?;
            ensure!(size < 1 << 20 && text.len() < 4 << 20, "{size} bytes");
        }
        // The slot was swept in time, or its next runner would not start.
        let mounts = lab
            .host()
            .sh("grep -c ' /run/runner-controller/own/' /proc/1/mountinfo || true")?;
        let status = lab.await_settled(SOON)?;
        let count = status.runners().count();
        ensure!(
            mounts.trim().parse::<usize>()? <= count + 1,
            "{mounts} mounts for {count} runners"
        );
    }
    lab.sim().set(&json!({ "lock_ms": 600_000 }))?;
    Ok(())
}
