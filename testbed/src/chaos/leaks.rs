//! Finds what the daemon and its slots left on the host after a drain.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::binaries::CONTROLLER;
use crate::config::Config;
use crate::lab::{DAEMON, Lab, RUN_DIR};

/// Drains the daemon, returns what is left by kind, and fills the pools again.
pub(super) fn find(lab: &Lab, config: &Config) -> Result<Vec<(&'static str, Vec<String>)>> {
    let answer = lab.api("POST", "/drain")?;
    ensure!(answer.status < 300, "cannot drain: {answer:?}");
    // After a timeout the search below names what is left.
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
        .context("cannot fill the pools after a drain")?;
    Ok(leaks)
}

/// Returns sockets and FIFOs that belong to no configured slot.
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
        "(",
        "-path",
        "*/api/api.sock",
        "-o",
        "-name",
        "mounts.sock",
        ")",
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

/// Returns the count of descriptors in systemd's store if it exceeds the slots' sockets, FIFOs and marks.
fn odd_descriptors(lab: &Lab, config: &Config) -> Result<Vec<String>> {
    let slots: u16 = config.pools.iter().map(|pool| pool.max_runners).sum();
    let kept: u16 = lab.show(DAEMON, "NFileDescriptorStore")?.parse()?;
    let odd = (kept > 3 * slots)
        .then(|| format!("systemd keeps {kept} descriptors for {slots} vacant slots"));
    Ok(odd.into_iter().collect())
}
