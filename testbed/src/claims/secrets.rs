//! Tokens, configs and keys are only where they must be.
//!
//! One search looks in every kind of place for the secrets and for a canary that was planted there.
//! It must find the canary in each place, because a search that finds nothing proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use status::RunnerStatus;

use super::common::{SOON, await_busy, await_no_strangers, finish_held, in_container, leader};
use super::layers::FIXTURE as LAYERS;
use super::layers::POOLS;
use super::suite::{Suite, suite};
use crate::lab::{Lab, TOKEN};
use crate::sim::pool_job;

pub(super) const SUITE: Suite = suite![LAYERS; secrets_are_only_where_they_must_be];

/// File with the patterns, one a line. It is in memory, and only root can read it.
const PATTERNS: &str = "/run/testbed/patterns";
/// Text that is planted in every place that is searched.
const CANARY: &str = "canary_7d0c5f3f9e1b4b6c8a2e";
const CANARY_UNIT: &str = "runner-canary.service";
/// Minimum length of a secret part of a config.
const SHORTEST: usize = 20;

/// Returns the secrets of a container's listener: the encoded config in its environment, and
/// the decoded parts in its directory. The kernel shows a process's first environment to root for
/// as long as it runs, so a config must be in this process.
fn secrets_of(lab: &Lab, runner: &RunnerStatus) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let environ =
        "for pid in $(pgrep -f 'Runner.Listener run'); do tr '\\0' '\\n' </proc/$pid/environ; done";
    let text = in_container(lab, &runner.machine(), &["sh", "-c", environ])?;
    let config = text
        .lines()
        .find_map(|line| line.strip_prefix("ACTIONS_RUNNER_INPUT_JITCONFIG="))
        .with_context(|| format!("{} has no config", runner.machine()))?;
    // A cut secret is still most of a secret.
    for start in [0, config.len() / 2, config.len() - 64] {
        found.insert(config[start..start + 64].to_owned());
    }
    let files = in_container(
        lab,
        &runner.machine(),
        &["sh", "-c", "cat /opt/actions-runner/.credentials_rsaparams"],
    )?;
    // The file begins with a byte order mark, as GitHub's listener writes it.
    let key: Value = serde_json::from_str(files.trim_start_matches('\u{feff}'))?;
    for part in ["d", "p", "q"] {
        if let Some(part) = key[part].as_str().filter(|part| part.len() > SHORTEST) {
            found.insert(part.to_owned());
        }
    }
    ensure!(found.len() > 3, "no key of {}", runner.machine());
    Ok(found)
}

/// Returns the places: name, and a line of shell that prints the patterns found there.
fn places(lab: &Lab) -> Result<Vec<(String, String)>> {
    let grep =
        format!("grep --text --no-filename --only-matching --fixed-strings --file={PATTERNS}");
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    // The environments of listeners are left out, and those of their jobs are not.
    let mut places: Vec<(String, String)> = [
        ("arguments", format!("cat /proc/[0-9]*/cmdline 2>/dev/null | {grep}")),
        (
            "environments",
            format!(
                "for pid in /proc/[0-9]*; do case $(tr '\\0' ' ' <$pid/cmdline 2>/dev/null) in \
                 *Runner.Listener\\ run*) ;; *) cat $pid/environ 2>/dev/null;; esac; done | {grep}"
            ),
        ),
        (
            "unit properties",
            format!("{nobody} sh -c \"systemctl show --all '*'; systemctl cat 'runner*'\" 2>/dev/null | {grep}"),
        ),
        ("journal", format!("journalctl --sync; journalctl --all --output=export | {grep}")),
        // The last environment left out is that of this program, which has the token.
        (
            "disk",
            format!(
                "find /etc /home /opt /root /srv /usr/local /var -xdev -type f ! -path /etc/runner-controller/token ! -path /usr/local/bin/testbed -print0 \
                 | xargs -0 {grep}; find /var/lib/runner-images /var/lib/runner-controller {} -type f -print0 | xargs -0 {grep}",
                lab.host().layer_dir()
            ),
        ),
        (
            "files that every user can read",
            format!("{nobody} sh -c 'find /run /tmp /dev/shm -type f -readable -print0 2>/dev/null | xargs -0 cat 2>/dev/null' | {grep}"),
        ),
    ]
    .map(|(name, line)| (name.to_owned(), line))
    .into();
    for device in lab.disk_images()? {
        places.push((format!("disk image {device}"), format!("{grep} {device}")));
    }
    for machine in lab.machines()? {
        let root = format!("/proc/{}/root", leader(lab, &machine)?);
        places.push((
            format!("journal of {machine}"),
            format!("journalctl --all --output=export --directory={root}/run/log/journal | {grep}"),
        ));
        // GitHub's listener keeps its one-use config in the runner's directory as well.
        places.push((
            format!("files of {machine}"),
            format!(
                "find {root}/ -xdev -type f ! -path '{root}/usr/*' ! -path '{root}/opt/actions-runner/*' -print0 | xargs -0 {grep}; \
                 find {root}/run {root}/tmp {root}/dev/shm -type f -print0 | xargs -0 {grep}"
            ),
        ));
    }
    Ok(places)
}

/// Returns the patterns found in each place.
fn search(lab: &Lab) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut found = BTreeMap::new();
    for (name, line) in places(lab)? {
        let text = lab.host().sh(&format!("({line}) || true"))?;
        found.insert(name, text.lines().map(str::to_owned).collect());
    }
    for path in ["/status", "/metrics", "/health"] {
        found.insert(
            path.to_owned(),
            BTreeSet::from([lab.api("GET", path)?.body]),
        );
    }
    Ok(found)
}

/// Puts the canary where a careless program would put a secret.
fn plant(lab: &Lab, busy: &[RunnerStatus]) -> Result<()> {
    let host = lab.host();
    host.output(&["systemctl", "stop", CANARY_UNIT])?;
    host.run(&[
        "systemd-run",
        "--quiet",
        "--collect",
        &format!("--unit={CANARY_UNIT}"),
        &format!("--setenv=CANARY={CANARY}"),
        "sh",
        "-c",
        "sleep 600; true",
        CANARY,
    ])?;
    host.write(
        "/var/lib/runner-controller/canary",
        CANARY.as_bytes(),
        0o600,
    )?;
    host.write("/run/testbed-canary", CANARY.as_bytes(), 0o644)?;
    host.sh(&format!("echo {CANARY} | systemd-cat"))?;
    for runner in busy {
        let script =
            format!("echo {CANARY} >/home/runner/work/canary; echo {CANARY} | systemd-cat; sync");
        in_container(lab, &runner.machine(), &["sh", "-c", &script])?;
    }
    Ok(())
}

fn remove(lab: &Lab) -> Result<()> {
    lab.host().run(&["systemctl", "stop", CANARY_UNIT])?;
    lab.host()
        .run(&[
            "rm",
            "-f",
            PATTERNS,
            "/run/testbed-canary",
            "/var/lib/runner-controller/canary",
        ])
        .map(drop)
}

fn secrets_are_only_where_they_must_be(lab: &mut Lab) -> Result<()> {
    let mut secrets = BTreeSet::from([TOKEN.to_owned()]);
    // The first configs, whose runners have ended when the search runs.
    for runner in lab.await_settled(SOON)?.runners() {
        secrets.extend(secrets_of(lab, runner)?);
    }
    let jobs = POOLS.map(|pool| pool_job(pool, pool, "env >/tmp/env; echo done"));
    for id in lab.sim().queue_all(&jobs)? {
        lab.sim().await_success(id, SOON)?;
    }
    // The second configs, whose runners run jobs meanwhile.
    let jobs = POOLS.map(|pool| {
        pool_job(
            pool,
            pool,
            "env >/tmp/env; until [ -e /tmp/go ]; do sleep 0.05; done",
        )
    });
    let ids = lab.sim().queue_all(&jobs)?;
    let busy: Vec<RunnerStatus> = ids
        .iter()
        .map(|id| await_busy(lab, *id))
        .collect::<Result<_>>()?;
    for runner in &busy {
        secrets.extend(secrets_of(lab, runner)?);
    }
    let words: Vec<&str> = secrets.iter().map(String::as_str).chain([CANARY]).collect();
    lab.host()
        .write(PATTERNS, (words.join("\n") + "\n").as_bytes(), 0o600)?;
    plant(lab, &busy)?;
    let found = search(lab);
    remove(lab)?;
    let found = found?;
    let leaks: Vec<String> = found
        .iter()
        .flat_map(|(place, hits)| {
            let secrets = &secrets;
            let leaked = hits
                .iter()
                .filter(move |hit| secrets.iter().any(|secret| hit.contains(secret)));
            leaked.map(move |hit| format!("{place}: {}…", &hit[..hit.len().min(8)]))
        })
        .collect();
    ensure!(leaks.is_empty(), "secrets are in {}", leaks.join(", "));
    let blind: Vec<&String> = found
        .iter()
        .filter(|(place, hits)| !place.starts_with('/') && !hits.contains(CANARY))
        .map(|(place, _)| place)
        .collect();
    ensure!(blind.is_empty(), "the search is blind in {blind:?}");
    let on_disk = fs::read_to_string(lab.host().path("/etc/runner-controller/token"))?;
    ensure!(on_disk == TOKEN, "the token is not where it must be");
    for (id, runner) in ids.iter().zip(&busy) {
        finish_held(lab, *id, runner)?;
    }
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}
