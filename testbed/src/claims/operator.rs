//! Commands that an operator types on the host, and the logs of runners.

use anyhow::{Result, ensure};
use status::{PhaseKind, Verdict};

use super::common::{
    SOON, as_its_root, await_busy, await_verdict, ensure_says, finish_held, idle, in_container,
    machine_of, run, spare, start_held,
};
use super::fixture::{SMALL, one, small};
use super::suite::{Suite, suite};
use crate::config::Config;
use crate::lab::{DAEMON, FIREWALL, Lab, TOKEN};
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![SMALL;
    the_program_answers_to_every_name,
    the_exit_status_of_the_status_tells_the_health,
    a_host_is_waited_for_until_it_takes_jobs,
    a_check_of_the_host_finds_what_is_in_the_way,
    one_command_applies_a_configuration_while_jobs_run,
    an_isolated_target_ends_no_job,
    a_command_is_told_of_an_event_without_any_privilege,
    a_runners_log_is_read_while_it_lives_and_after,
    a_runner_is_explained_while_it_lives_and_is_in_the_history_after,
    a_log_is_never_read_through_a_containers_links,
    a_flood_on_the_console_does_not_fill_the_hosts_journal,
    a_start_of_a_runner_leaves_no_failure_in_the_hosts_journal,
];

fn a_command_is_told_of_an_event_without_any_privilege(lab: &mut Lab) -> Result<()> {
    let host = lab.host();
    let good = small(lab.sim().api_url());
    let script = "id -u; touch /etc/mine || echo read-only; cat /etc/runner-controller/token || echo secret; cat";
    let notify = format!(
        "\n[notify]\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\nevents = [\"drained\"]\n"
    );
    let mut config = good.clone();
    config.layer_dir = host.layer_dir();
    lab.install_text(&(config.render() + &notify))?;
    host.run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON)?;
    lab.api("POST", "/drain")?;
    let told = |stage: &str| {
        let stage = format!("\"stage\":\"{stage}\"");
        wait_until("the command's output", SOON, || {
            // journalctl fails until the journal has the unit.
            let read =
                "journalctl --output=cat --no-pager --unit='runner-controller-notify@*' || true";
            let text = host.sh(read)?;
            Ok(if text.contains(&stage) {
                Seen::Done(text)
            } else {
                Seen::NotYet(text)
            })
        })
    };
    let text = told("began")?;
    ensure_says(&text, &["\"event\":\"drained\"", "read-only", "secret"])?;
    // systemd's range of users that exist only while a unit runs.
    let uids = text.lines().filter_map(|line| line.parse::<u32>().ok());
    let uids: Vec<u32> = uids.collect();
    ensure!(
        !uids.is_empty() && uids.iter().all(|uid| (61_184..=65_519).contains(uid)),
        "{text}"
    );
    // No other user than the daemon's may tell the command anything.
    let mode = host.run(&[
        "stat",
        "--format=%U %a",
        "/run/runner-controller/notify.sock",
    ])?;
    ensure!(mode.trim() == "runner-controller 600", "{mode}");
    lab.api("POST", "/undrain")?;
    told("ended")?;
    host.run(&["systemctl", "stop", "runner-controller-notify.socket"])?;
    host.sh("rm /etc/systemd/system/runner-controller-notify*")?;
    lab.install(&good)?;
    host.run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON).map(drop)
}

fn the_program_answers_to_every_name(lab: &mut Lab) -> Result<()> {
    let host = lab.host();
    for (name, word) in [
        ("runner-status", "every problem"),
        ("runner-logs", "the logs of runners"),
        ("cleanup-github-runners", "offline and stale"),
        ("cleanup-all-containers", "Destroy every container"),
    ] {
        let help = host.run(&[name, "--help"])?;
        ensure_says(&help, &[word, "--config"])?;
    }
    ensure_says(&host.run(&["runner-status"])?, &["POOL", "\nci "])?;
    // Only the name of a slot or a pool reaches journalctl.
    for bad in ["ci-01", "ci-1 --flush", "../ci-1", "ci*", "CI-1"] {
        let output = host.output(&["runner-logs", bad])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{bad}: {said}");
    }
    let pages = "/run/testbed/man";
    host.run(&["runner-controller", "man", pages])?;
    host.run(&["test", "-s", &format!("{pages}/runner-logs.8")])?;
    // bash accepts the completion script.
    let script = "set -eu; cd /run/testbed; runner-controller completions bash words >/dev/null; \
                  for file in words/*.bash; do . ./$file; done; complete -p runner-logs runner-status";
    let said = host.run(&["bash", "-c", script])?;
    ensure!(said.lines().count() == 2, "{said}");
    host.run(&["rm", "-r", pages, "/run/testbed/words"])
        .map(drop)
}

fn the_exit_status_of_the_status_tells_the_health(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let status = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let output = lab
            .host()
            .output(&[&["runner-status"], arguments].concat())?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok((output.status.code(), said))
    };
    for (arguments, code, words) in [
        (["--pool", "ci"].as_slice(), 0, "\nci "),
        (&["--all"], 0, "\nci "),
        (
            &["--pool", "none"],
            1,
            "no pool is named none; this host has ci",
        ),
        (&["--pool", "ci", "--json"], 2, "cannot be used with"),
    ] {
        let (found, said) = status(arguments)?;
        ensure!(found == Some(code), "{arguments:?}: {found:?}: {said}");
        ensure_says(&said, &[words])?;
    }
    lab.stop()?;
    let stopped = [status(&[])?, status(&["--json"])?];
    lab.start()?;
    for (code, said) in stopped {
        ensure!(code == Some(2), "{code:?}: {said}");
        ensure_says(&said, &["no daemon listens on", "systemctl status"])?;
    }
    lab.await_settled(SOON).map(drop)
}

fn a_host_is_waited_for_until_it_takes_jobs(lab: &mut Lab) -> Result<()> {
    let wait = |limit: &str| -> Result<(Option<i32>, String)> {
        let output = lab.host().output(&["runner-status", "--wait", limit])?;
        let said = [&output.stdout, &output.stderr]
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
            .concat();
        Ok((output.status.code(), said))
    };
    lab.await_settled(SOON)?;
    let (code, said) = wait("30s")?;
    ensure!(
        code == Some(0) && said.contains("\nci "),
        "{code:?}: {said}"
    );
    // A token that GitHub refuses is reported, because a rotation waits for that.
    lab.write_token("github_pat_not_this_one_00000")?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    let (code, said) = wait("3s")?;
    ensure!(
        code == Some(3) && said.contains("GitHub"),
        "{code:?}: {said}"
    );
    // The command also waits for a stopped daemon.
    lab.stop()?;
    let (code, said) = wait("1s")?;
    ensure!(
        code == Some(3) && said.contains("no daemon listens"),
        "{code:?}: {said}"
    );
    lab.write_token(TOKEN)?;
    lab.start()?;
    let (code, said) = wait("30s")?;
    ensure!(code == Some(0), "{code:?}: {said}");
    lab.await_settled(SOON).map(drop)
}

/// Conditions of the host that a check finds: the change, the words that name it, and the remedy.
const IN_THE_WAY: &[(&str, &[&str], &str)] = &[
    (
        "chmod 0600 /etc/runner-controller/config.toml",
        &["has mode 0600", "chmod go+r"],
        "chmod go+r /etc/runner-controller/config.toml",
    ),
    (
        "chmod 0644 /etc/runner-controller/token",
        &["github.token_file", "every user of this host"],
        "chmod 0600 /etc/runner-controller/token",
    ),
    (
        "ip link add blocked type veth peer name blocking; ip address add 10.200.255.1/24 dev blocked; ip link set blocked up; ip link set blocking up",
        &[
            "contains 10.200.255.1, an address of this host on blocked",
            "overlaps the route 10.200.255.0/24 through blocked",
        ],
        "ip link delete blocked",
    ),
    (
        "echo ann:268435456:65536 >>/etc/subuid",
        &["network.uid_base", "/etc/subuid gives 268435456"],
        "sed -i /^ann:/d /etc/subuid",
    ),
    (
        "mv /usr/bin/systemd-nspawn /usr/bin/away",
        &["systemd-nspawn is not installed"],
        "mv /usr/bin/away /usr/bin/systemd-nspawn",
    ),
];

fn a_check_of_the_host_finds_what_is_in_the_way(lab: &mut Lab) -> Result<()> {
    let check = || {
        lab.host()
            .output(&["runner-controller", "check-config", "--host"])
    };
    for (change, words, remedy) in IN_THE_WAY {
        lab.host().sh(change)?;
        let found = check();
        lab.host().sh(remedy)?;
        let found = found?;
        let said = String::from_utf8_lossy(&found.stderr);
        ensure!(!found.status.success(), "{change}: {said}");
        ensure_says(&said, words)?;
    }
    let good = check()?;
    let said = String::from_utf8_lossy(&good.stderr);
    ensure!(good.status.success(), "{said}");
    Ok(())
}

/// Writes a configuration and applies it; returns what the command said.
fn apply(lab: &Lab, config: &Config) -> Result<String> {
    let mut config = config.clone();
    config.layer_dir = lab.host().layer_dir();
    lab.write_config(&config.render())?;
    let output = lab.host().output(&["runner-controller", "apply"])?;
    let said = [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat();
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

fn one_command_applies_a_configuration_while_jobs_run(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let (id, busy) = start_held(lab, "long")?;
    let mut wider = small(lab.sim().api_url());
    wider.pools.push(one("extra", 8));
    let said = apply(lab, &wider)?;
    ensure_says(
        &said,
        &["installed /etc/systemd/system/runner-extra@.service"],
    )?;
    let until_released = "until [ -e /tmp/go ]; do sleep 0.05; done";
    let other = lab
        .sim()
        .queue(&pool_job("other", "extra", until_released))?;
    let other_busy = await_busy(lab, other)?;

    // A mistake changes nothing.
    let before = lab.show(DAEMON, "InvocationID")?;
    lab.write_config("host = 1")?;
    let refused = lab.host().output(&["runner-controller", "apply"])?;
    ensure!(!refused.status.success(), "it took a mistake");
    ensure!(
        lab.show(DAEMON, "InvocationID")? == before,
        "the daemon was restarted"
    );

    // The firewall's rules change with the configuration, and a pool goes while it has a job.
    let mut listed = small(lab.sim().api_url());
    for pool in &mut listed.pools {
        pool.allow.push("203.0.113.9:443".into());
    }
    let said = apply(lab, &listed)?;
    ensure_says(
        &said,
        &[
            "2 running jobs continue",
            "pool extra was removed and has running jobs",
        ],
    )?;
    let rules = ["nft", "list", "table", "inet", "runner_controller"];
    ensure_says(&lab.host().run(&rules)?, &["203.0.113.9", "jump extra_out"])?;
    finish_held(lab, other, &other_busy)?;
    wait_until("the runner of the removed pool to be gone", SOON, || {
        let left = lab.containers()?;
        let left: Vec<_> = left
            .iter()
            .filter(|it| it.unit.starts_with("runner-extra@"))
            .collect();
        Ok(if left.is_empty() {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{left:?}"))
        })
    })?;
    let said = apply(lab, &small(lab.sim().api_url()))?;
    ensure_says(
        &said,
        &[
            "removed /etc/systemd/system/runner-extra@.service",
            "removed /etc/systemd/system/runners-extra.slice",
            "1 running job continues",
        ],
    )?;
    let again = apply(lab, &small(lab.sim().api_url()))?;
    ensure!(
        !again.contains("installed") && !again.contains("removed"),
        "{again}"
    );
    let now = await_busy(lab, id)?;
    ensure!(now.invocation == busy.invocation, "another runner: {now:?}");
    finish_held(lab, id, &busy)?;
    lab.await_settled(SOON).map(drop)
}

/// Isolates a target that wants every unit of the host but ours and a bystander, which is the control.
const ISOLATE: &str = r#"set -eu
systemd-run --quiet --unit=testbed-bystander sleep infinity
wanted=$(systemctl list-units --state=active --type=service,socket,target,timer,path --plain --no-legend |
    cut -d' ' -f1 | grep -v -e ^runner -e ^testbed-bystander | tr '\n' ' ')
printf '[Unit]\nAllowIsolate=yes\nWants=%s\n' "$wanted" >/run/systemd/system/testbed-isolate.target
systemctl daemon-reload
systemctl isolate testbed-isolate.target
"#;

fn an_isolated_target_ends_no_job(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let (id, busy) = start_held(lab, "long")?;
    let ours = [DAEMON, FIREWALL, &busy.unit];
    let starts = || -> Result<Vec<String>> {
        let starts = ours.iter().map(|unit| lab.show(unit, "InvocationID"));
        starts.collect()
    };
    let before = starts()?;
    let isolated = lab.host().sh(ISOLATE);
    let bystander = lab.show("testbed-bystander.service", "ActiveState")?;
    lab.host().sh(
        "rm -f /run/systemd/system/testbed-isolate.target; systemctl stop testbed-bystander || true
         systemctl daemon-reload; systemctl start multi-user.target",
    )?;
    isolated?;
    ensure!(bystander == "inactive", "it isolates nothing: {bystander}");
    ensure!(starts()? == before, "a unit was stopped: {ours:?}");
    finish_held(lab, id, &busy)?;
    lab.await_settled(SOON).map(drop)
}

fn a_runner_is_explained_while_it_lives_and_is_in_the_history_after(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let host = lab.host();
    let (id, busy) = start_held(lab, "told")?;
    let name = busy.runner.clone().unwrap_or_default();
    let passed = ["booting", "spare", "registering", "busy", "told", &name];
    let explained = host.run(&["runner-controller", "explain", &busy.machine()])?;
    ensure_says(&explained, &passed)?;
    // A daemon that takes the runner over knows its phases.
    host.run(&["systemctl", "restart", DAEMON])?;
    lab.await_status("the busy runner after a restart", SOON, |status| {
        let runner = status.runner(&name)?;
        (runner.phase == PhaseKind::Busy).then_some(())
    })?;
    finish_held(lab, id, &busy)?;
    let ended = await_verdict(lab, &name, Verdict::JobDone)?;
    ensure!(ended.cpu_ms.is_some(), "no processor time: {ended:?}");
    // A listener downloads and sends more than this for any job.
    let used = [ended.usage.received_bytes, ended.usage.sent_bytes];
    ensure!(
        used.iter()
            .all(|bytes| bytes.is_some_and(|bytes| bytes > 1_000)),
        "no network: {ended:?}"
    );
    let layer = ended.usage.layer_peak_bytes;
    ensure!(
        layer.is_some_and(|bytes| bytes > 4_096),
        "no disk: {ended:?}"
    );
    let listened = ended.listening_after_ms;
    ensure!(
        listened.is_some_and(|after_ms| (1..ended.lived_ms).contains(&after_ms)),
        "no time of its listener: {ended:?}"
    );
    let explained = host.run(&["runner-controller", "explain", &name])?;
    ensure_says(&explained, &passed)?;
    // The journal of the container and of the daemon.
    let journal = ["job_done", "Running job: told", "registering a spare as"];
    ensure_says(&explained, &journal)?;
    let run = ended
        .job
        .as_ref()
        .and_then(|note| note.run_url("https://github.com"));
    let url = run.unwrap_or_default();
    let of_job = host.run(&["runner-controller", "explain", "--no-journal", &url])?;
    ensure_says(&of_job, &[&name])?;
    let history = |arguments: &[&str]| -> Result<String> {
        let command = ["runner-controller", "history"];
        host.run(&[&command, arguments].concat())
    };
    ensure_says(
        &history(&["--csv", "--since", "1h", &name])?,
        &["job_done", "told"],
    )?;
    ensure_says(
        &history(&["--pool", "ci", "--verdict", "job_done"])?,
        &["told"],
    )?;
    let failed = history(&["--failed", &name])?;
    ensure!(!failed.contains("job_done"), "it did not fail: {failed}");
    let unknown = host.output(&["runner-controller", "history", "--verdict", "fine"])?;
    let said = String::from_utf8_lossy(&unknown.stderr);
    ensure!(unknown.status.code() == Some(2), "{said}");
    ensure_says(&said, &["boot_timeout"])
}

fn a_runners_log_is_read_while_it_lives_and_after(lab: &mut Lab) -> Result<()> {
    let idle = idle(&lab.await_settled(SOON)?)?;
    let host = lab.host();
    let live = host.run(&["runner-logs", &idle.machine()])?;
    ensure_says(&live, &["Listening for Jobs"])?;
    // Following shows lines as they are written: the job begins after the reader.
    let reader = format!(
        "timeout 60 runner-logs {} --follow >/run/testbed/followed",
        idle.machine()
    );
    host.run(&["rm", "-f", "/run/testbed/followed"])?;
    host.run(&[
        "systemd-run",
        "--unit=testbed-reader",
        "--collect",
        "--quiet",
        "sh",
        "-c",
        &reader,
    ])?;
    await_line(lab, "/run/testbed/followed", "Listening for Jobs")?;
    let (id, busy) = start_held(lab, "heard")?;
    ensure!(
        busy.machine() == idle.machine(),
        "another runner took it: {busy:?}"
    );
    let followed = await_line(lab, "/run/testbed/followed", "Running job: heard");
    lab.host()
        .output(&["systemctl", "stop", "testbed-reader.service"])?;
    followed?;
    finish_held(lab, id, &busy)?;
    let name = busy.runner.unwrap_or_default();
    await_verdict(lab, &name, Verdict::JobDone)?;
    // Its slot may have a new runner, which would be read instead.
    let slot = machine_of(&name);
    let host = lab.host();
    for command in [
        vec!["runner-logs", slot],
        vec!["runner-logs", "ci"],
        vec!["runner-logs"],
    ] {
        ensure_says(&host.run(&command)?, &["Running job: heard"])?;
    }
    let few = host.run(&["runner-logs", slot, "--lines", "2"])?;
    ensure!(few.lines().count() <= 3, "{few}");
    lab.await_settled(SOON).map(drop)
}

fn a_log_is_never_read_through_a_containers_links(lab: &mut Lab) -> Result<()> {
    let idle = idle(&lab.await_settled(SOON)?)?;
    // The name of the container's unit, on the host.
    lab.host().run(&[
        "systemd-run",
        "--unit=github-runner",
        "--quiet",
        "--wait",
        "echo",
        "host-secret",
    ])?;
    let journal = lab.journalctl(&["--unit=github-runner"])?;
    ensure_says(&journal, &["host-secret"])?;
    // Absolute links, which lead a reader on the host to the host's directories.
    let link = "rm -rf /run/log/journal /var/log/journal && mkdir -p /var/log && \
                ln -s /run/log/journal /run/log/journal && ln -s /var/log/journal /var/log/journal";
    as_its_root(lab, &idle.machine(), link)?;
    let said = lab.host().output(&["runner-logs", &idle.machine()])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(!said.contains("host-secret"), "it read the host's: {said}");
    ensure_says(&said, &["Listening for Jobs"])?;
    // A job ends that container, and the next claim gets one with a journal.
    run(lab, "true")?;
    lab.await_settled(SOON).map(drop)
}

/// Waits until a file in the host has a line with these words in it.
fn await_line(lab: &Lab, file: &str, words: &str) -> Result<()> {
    wait_until(&format!("{words:?} in {file}"), SOON, || {
        let output = lab.host().output(&["cat", file])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(if text.contains(words) {
            Seen::Done(())
        } else {
            Seen::NotYet(text)
        })
    })
}

/// Number of lines in the flood.
const FLOOD: usize = 30_000;
/// Maximum number of lines that the host's journal takes. The template's burst is 300 a minute,
/// and journald multiplies it by up to six with free disk space (journald.conf(5),
/// `RateLimitBurst=`). The flood may span two windows.
const MOST: usize = 2 * 6 * 300;

fn a_flood_on_the_console_does_not_fill_the_hosts_journal(lab: &mut Lab) -> Result<()> {
    let spare = spare(&lab.await_settled(SOON)?)?;
    let flood = format!("seq --format='flood %g' {FLOOD} >/dev/console; echo all of it");
    let said = in_container(
        lab,
        &spare.machine(),
        &["timeout", "60", "sh", "-c", &flood],
    )?;
    ensure_says(&said, &["all of it"])?;
    let unit = format!("runner-{}.service", spare.machine().replace('-', "@"));
    let script =
        format!("journalctl --sync; journalctl --output=cat --unit={unit} | grep -c '^flood '");
    let kept: usize = lab.host().sh(&script)?.trim().parse()?;
    ensure!(
        (1..=MOST).contains(&kept),
        "{kept} of {FLOOD} lines are in the host's journal"
    );
    // The container's journal is in memory, and bounded as well.
    let usage = in_container(lab, &spare.machine(), &["du", "-sm", "/run/log/journal"])?;
    let mib: u64 = usage
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .parse()?;
    ensure!(mib <= 64, "its own journal takes {mib} MiB");
    Ok(())
}

fn a_start_of_a_runner_leaves_no_failure_in_the_hosts_journal(lab: &mut Lab) -> Result<()> {
    let spare = spare(&lab.await_settled(SOON)?)?;
    let id = lab.show(&spare.unit, "InvocationID")?;
    let script = format!("journalctl --sync; journalctl --output=cat _SYSTEMD_INVOCATION_ID={id}");
    let said = lab.host().sh(&script)?;
    ensure!(!said.contains("Failed"), "{said}");
    Ok(())
}
