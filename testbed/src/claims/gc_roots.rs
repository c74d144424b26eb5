//! Garbage collector roots in the Nix store: a runner holds its system until it ends.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::common::{SOON, await_busy, finish_held};
use super::fixture::{EMPTY, one};
use super::suite::{Suite, suite};
use crate::config::{Config, Image, Nix};
use crate::image;
use crate::lab::Lab;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

pub(super) const SUITE: Suite = suite![EMPTY;
    a_runner_holds_its_system_against_the_collector,
];

/// Directory of the roots. Links below `gcroots` are roots (Nix manual).
const ROOTS: &str = "/nix/var/nix/gcroots/runner-controller";
/// Store path of a registration. It refers to all paths of an image.
const INFO: &str = "/nix/store/023456789abcdfghijklmnpqrsvwxyz1-closure-info";

/// Name in the store that only a drop-in has.
const NAMED: &str = "023456789abcdfghijklmnpqrsvwxyz2-named";
const DROP_IN: &str = "/run/systemd/system/runner-nix@.service.d/named.conf";

fn a_runner_holds_its_system_against_the_collector(lab: &mut Lab) -> Result<()> {
    let host = lab.host();
    let (system, store) = image::store(host)?;
    let name = system.rsplit('/').next().context("a system has a name")?;
    // The system of the next deploy, which differs in its name alone.
    let next = name.replace("-nixos-", "-next-");
    host.run(&["cp", "-al", &system, &format!("{store}/{next}")])?;
    host.run(&["mkdir", "-p", "/nix/store", ROOTS])?;
    host.run(&["mount", "--bind", &store, "/nix/store"])?;
    let systems = [name, &next].map(|name| format!("/nix/store/{name}"));
    let held = lives_hold(lab, &systems);
    lab.reset()?;
    lab.host().run(&["umount", "--lazy", "/nix/store"])?;
    held
}

fn lives_hold(lab: &Lab, [old, new]: &[String; 2]) -> Result<()> {
    let host = lab.host();
    let store = |system: &str| Image::Nixos {
        system: system.into(),
        store: "/nix/store".into(),
    };
    let mut config = Config::small(lab.sim().api_url());
    config.reconcile = "2s".into();
    config.pools = vec![one("nix", 0), one("dir", 4)];
    let config = config.with("nix", |pool| {
        pool.max_runners = 2;
        pool.image = store(old);
    });
    // Roots that a power cut left: of a removed pool, and of a slot that is not started again.
    for stale in ["gone-9", "nix-2"] {
        host.run(&["ln", "-s", "/nix/store/stale", &format!("{ROOTS}/{stale}")])?;
    }
    lab.install(&config)?;
    lab.start()?;
    lab.await_settled(SOON)?;
    await_roots(lab, &[("nix-1", old)])?;
    let id = lab.sim().queue(&pool_job(
        "kept",
        "nix",
        "until [ -e /tmp/go ]; do sleep 0.05; done",
    ))?;
    let busy = await_busy(lab, id)?;
    ensure!(busy.machine() == "nix-1", "it runs on {}", busy.machine());
    await_roots(lab, &[("nix-1", old), ("nix-2", old)])?;
    // A deploy: idle runners are replaced, and a busy one keeps its system.
    lab.install(&config.clone().with("nix", |pool| pool.image = store(new)))?;
    lab.reload()?;
    await_roots(lab, &[("nix-1", old), ("nix-2", new)])?;
    finish_held(lab, id, &busy)?;
    await_roots(lab, &[("nix-2", new)])?;
    // A kill removes the root as well.
    host.run(&[
        "systemctl",
        "kill",
        "--signal=KILL",
        "--kill-whom=main",
        "runner-nix@2.service",
    ])?;
    await_roots(lab, &[("nix-1", new)])?;
    drain(lab)?;
    // With Nix in jobs, a runner holds the registration.
    let registration = format!("{INFO}/registration");
    host.sh(&format!("mkdir -p {INFO} && : >{registration}"))?;
    lab.install(&config.with("nix", |pool| {
        pool.image = store(new);
        pool.nix = Some(Nix {
            registration,
            substituter: "http://198.51.100.7".into(),
            public_key: format!("testbed-1:{}=", "A".repeat(43)),
        });
    }))?;
    lab.reload()?;
    host.run(&["runner-controller", "undrain"])?;
    await_roots(lab, &[("nix-1", &INFO.to_owned())])?;
    drain(lab)?;
    // A runner holds everything that the rules of its unit name, as on NixOS.
    let named = format!("/nix/store/{NAMED}");
    let rules = format!("[Service]\nEnvironment=NAMED={named}/bin/program\n");
    host.write(DROP_IN, rules.as_bytes(), 0o644)?;
    host.run(&["systemctl", "daemon-reload"])?;
    host.run(&["runner-controller", "undrain"])?;
    let of_rules = format!("nix-1+{NAMED}");
    let held = await_roots(lab, &[("nix-1", &INFO.to_owned()), (&of_rules, &named)]);
    host.run(&["rm", DROP_IN])?;
    host.run(&["systemctl", "daemon-reload"])?;
    held?;
    drain(lab)
}

/// Drains the host, and waits until no runner holds a root.
fn drain(lab: &Lab) -> Result<()> {
    lab.host()
        .run(&["runner-controller", "drain", "--wait", "--timeout", "60s"])?;
    await_roots(lab, &[])?;
    lab.ensure_nothing_left()
}

/// Waits until exactly these slots hold these systems.
fn await_roots(lab: &Lab, wanted: &[(&str, &String)]) -> Result<()> {
    let wanted: BTreeMap<String, String> = wanted
        .iter()
        .map(|(slot, system)| ((*slot).to_owned(), (*system).clone()))
        .collect();
    wait_until(&format!("roots to be {wanted:?}"), SOON, || {
        let now = roots(lab)?;
        Ok(if now == wanted {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{now:?}"))
        })
    })
}

fn roots(lab: &Lab) -> Result<BTreeMap<String, String>> {
    fs::read_dir(lab.host().path(ROOTS))?
        .map(|entry| {
            let entry = entry?;
            let target = fs::read_link(entry.path())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((name, target.to_string_lossy().into_owned()))
        })
        .collect()
}
