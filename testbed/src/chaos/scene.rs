//! What a run begins with, and what must be there when it is over.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::binaries::CONTROLLER;
use crate::config::{Config, Image, Pool};
use crate::image;
use crate::lab::{DAEMON, Lab, RUN_DIR};
use crate::status::Status;
use crate::wait::{Seen, wait_until};

use super::disks;
use super::ledger::Ledger;

/// How long the pools may take to be whole again after the last fault is mended: the longest backoff
/// that the faults can have led to, a job's lock that lapses, a stray that must be two minutes old.
const SETTLE: Duration = Duration::from_mins(6);
/// A lock lapses this long after its last renewal, which comes every minute.
const LOCK_MS: u64 = 90_000;
/// Runners of somebody else, so that a list has more than one page of a hundred.
const STRANGERS: usize = 120;

/// Two pools: one in memory, one on disk.
pub(super) fn config(lab: &Lab) -> Result<Config> {
    // The real pauses are half a minute and more; here the next fault comes in seconds.
    let image = image::variant(lab.host(), "chaos", |root| {
        let dir = root.join("etc/systemd/system/github-runner.service.d");
        fs::create_dir_all(&dir)?;
        let text = "[Service]\nEnvironment=STANDIN_BACKOFF_MS=1500\n";
        Ok(fs::write(dir.join("backoff.conf"), text)?)
    })?;
    let pool = |name: &str, offset| Pool {
        image: Image::Directory(image.clone()),
        layer_size: "128 MiB".into(),
        memory: "512 MiB".into(),
        ..Pool::new(name, offset)
    };
    let mut config = Config::small(lab.sim().api_url());
    config.reconcile = "3s".into();
    config.pools = vec![
        Pool {
            min_idle: 3,
            max_runners: 6,
            ..pool("ci", 0)
        },
        Pool {
            min_spare: 0,
            layer: "disk",
            ..pool("big", 6)
        },
    ];
    Ok(config)
}

/// Sets the scene on an empty host.
pub(super) fn set(lab: &Lab, config: &Config) -> Result<()> {
    lab.reset()?;
    disks::make(lab)?;
    lab.let_sim_remember()?;
    lab.sim().set(&settings())?;
    let strangers: Vec<Value> = (0..STRANGERS)
        .map(|number| {
            json!({ "scope": "acme/widgets", "name": format!("elsewhere-ci-{number}-0a1b2c3d"), "labels": ["other"] })
        })
        .collect();
    lab.sim().plant(&Value::Array(strangers))?;
    lab.install(config)?;
    lab.start()?;
    lab.await_settled(Duration::from_mins(1)).map(drop)
}

/// The stand-in without whims. A dead listener's job goes elsewhere, or is failed, in bounded time.
fn settings() -> Value {
    json!({
        "lock_ms": LOCK_MS, "assignment_timeout_ms": 15_000, "offline_after_ms": 10_000,
        "list_lag_ms": 0, "page_glitch": "none", "idle_reap_ms": null,
    })
}

/// Leaves an empty host, as others find it.
pub fn clear(lab: &Lab) -> Result<()> {
    // First: nothing is left at a GitHub that forgets.
    lab.let_sim_forget()?;
    lab.reset()?;
    disks::remove(lab)
}

/// Waits until all jobs are over and the pools are whole, which is what no fault may prevent.
pub(super) fn settle(lab: &Lab, ledger: &Ledger) -> Result<Duration> {
    let start = Instant::now();
    super::strike::mend("GitHub without whims", || {
        lab.sim().clear_faults()?;
        lab.sim().set(&settings())
    })?;
    wait_until("jobs to be over and pools to be whole", SETTLE, || {
        std::thread::sleep(Duration::from_millis(300));
        Ok(match unsettled(lab, ledger) {
            Ok(None) => Seen::Done(()),
            Ok(Some(why)) => Seen::NotYet(why),
            Err(error) => Seen::NotYet(format!("{error:#}")),
        })
    })?;
    Ok(start.elapsed())
}

/// What is not as it should be yet.
fn unsettled(lab: &Lab, ledger: &Ledger) -> Result<Option<String>> {
    let book = ledger.reckon(lab)?;
    if !book.open.is_empty() {
        return Ok(Some(format!(
            "{} jobs are not over: {}",
            book.open.len(),
            book.open.join("; ")
        )));
    }
    let status = lab.look()?;
    // One whose next try is due holds nothing back; a full pool has nothing to try.
    let mut backoffs = status.pools.iter().flat_map(|pool| &pool.backoffs);
    let troubled = backoffs.any(|trouble| trouble.retry_in_ms > 0);
    if !status.is_settled()
        || troubled
        || !status.closed.is_empty()
        || status.github.error.is_some()
    {
        return Ok(Some(format!(
            "{}; closed: {:?}",
            status.summary(),
            status.closed
        )));
    }
    strangers(lab, &status)
}

/// What either side has that the daemon does not know.
fn strangers(lab: &Lab, status: &Status) -> Result<Option<String>> {
    let mut ours: Vec<&String> = status
        .runners()
        .filter_map(|runner| runner.runner.as_ref())
        .collect();
    let registered = lab.sim().registered()?;
    let mut theirs: Vec<&String> = registered.iter().collect();
    ours.sort();
    theirs.sort();
    if ours != theirs {
        return Ok(Some(format!("GitHub has {theirs:?}, we have {ours:?}")));
    }
    let machines = lab.machines()?;
    let containers = lab.containers()?;
    let known: Vec<&str> = status
        .runners()
        .map(|runner| runner.machine.as_str())
        .collect();
    let odd = containers.iter().find(|container| {
        !known.contains(&container.machine.as_str()) || container.state != "active"
    });
    if odd.is_some() || containers.len() != known.len() || machines.len() != known.len() {
        return Ok(Some(format!(
            "{containers:?}, {machines:?}, and we have {known:?}"
        )));
    }
    Ok(None)
}

/// What is left, by kind, when every slot was given back; then fills the pools again.
pub(super) fn leaks(lab: &Lab, config: &Config) -> Result<Vec<(&'static str, Vec<String>)>> {
    let answer = lab.api("POST", "/drain")?;
    ensure!(answer.status < 300, "drain: {answer:?}");
    // What stays beyond that stays for ever, and is named below.
    lab.await_nothing_left(Duration::from_mins(1)).ok();
    let mut leaks = lab.leftovers_by_kind()?;
    leaks.push(("socket", odd_sockets(lab, config)?));
    leaks.push(("descriptor", odd_descriptors(lab, config)?));
    let table = lab.host().output(&[CONTROLLER, "check-firewall"])?;
    let differs =
        (!table.status.success()).then(|| String::from_utf8_lossy(&table.stdout).into_owned());
    leaks.push(("nftables", differs.into_iter().collect()));
    lab.api("POST", "/undrain")?;
    lab.await_settled(Duration::from_mins(1))
        .context("after a drain")?;
    Ok(leaks)
}

/// Sockets and FIFOs of no slot. Those of a slot stay while it is configured.
fn odd_sockets(lab: &Lab, config: &Config) -> Result<Vec<String>> {
    let found = lab.host().run(&[
        "find",
        RUN_DIR,
        "(",
        "-type",
        "s",
        "-o",
        "-type",
        "p",
        ")",
        "-not",
        "-path",
        "*/api/api.sock",
    ])?;
    let mut known = Vec::new();
    for pool in &config.pools {
        for slot in 1..=pool.max_runners {
            let dir = format!("{RUN_DIR}/slots/{}-{slot}", pool.name);
            known.extend([format!("{dir}/jit.sock"), format!("{dir}/started")]);
        }
    }
    let odd = found
        .lines()
        .filter(|path| !known.iter().any(|known| known == path));
    Ok(odd.map(str::to_owned).collect())
}

/// More descriptors in systemd's store than the slots' sockets, FIFOs and marks.
fn odd_descriptors(lab: &Lab, config: &Config) -> Result<Vec<String>> {
    let slots: u16 = config.pools.iter().map(|pool| pool.max_runners).sum();
    let kept: u16 = lab.show(DAEMON, "NFileDescriptorStore")?.parse()?;
    let odd = (kept > 3 * slots).then(|| format!("{kept} are kept for {slots} vacant slots"));
    Ok(odd.into_iter().collect())
}
