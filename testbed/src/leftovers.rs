//! Leftovers of slots: on the host, where each is found by its name, and at GitHub.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::Lab;
use crate::wait::{Seen, wait_until};

impl Lab {
    /// Everything of any slot that is left on the host or at GitHub, in words. Empty after all
    /// slots were given back.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let words = self.leftovers_by_kind()?.into_iter();
        Ok(words
            .flat_map(|(kind, names)| names.into_iter().map(move |name| format!("{kind} {name}")))
            .collect())
    }

    /// The same by kind; every kind is there.
    pub fn leftovers_by_kind(&self) -> Result<Vec<(&'static str, Vec<String>)>> {
        let units = self.containers()?.into_iter();
        Ok(vec![
            ("unit", units.map(|container| container.unit).collect()),
            ("machine", self.machines()?.into_iter().collect()),
            ("mount", self.mounts()?),
            ("interface", self.interfaces()?),
            ("directory", self.nspawn_dirs()?),
            ("process", self.container_processes()?),
            ("loop device", self.loop_devices()?),
            ("layer", self.layers()?),
            ("cgroup", self.cgroups()?),
            ("garbage collector root", self.gc_roots()),
            ("registration", self.sim().registered()?),
        ])
    }

    /// Mounts of slots in the host's own mount namespace.
    fn mounts(&self) -> Result<Vec<String>> {
        let table = fs::read_to_string(self.host().path("/proc/1/mountinfo"))?;
        let ours = |path: &&str| {
            [
                "/run/runner-controller/",
                "/var/lib/runner-controller/",
                "/var/lib/runner-images/",
                "/run/systemd/nspawn/",
            ]
            .iter()
            .any(|prefix| path.starts_with(prefix))
        };
        Ok(table
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(ours)
            .map(str::to_owned)
            .collect())
    }

    fn gc_roots(&self) -> Vec<String> {
        let dir = self.host().path("/nix/var/nix/gcroots/runner-controller");
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn interfaces(&self) -> Result<Vec<String>> {
        let list = self.host().run(&["ip", "-brief", "link"])?;
        let names = list
            .lines()
            .filter_map(|line| line.split([' ', '@']).next());
        Ok(names
            .filter(|name| name.starts_with("rc-"))
            .map(str::to_owned)
            .collect())
    }

    fn nspawn_dirs(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for kind in ["/unix-export", "/propagate", ""] {
            let dir = format!("/run/systemd/nspawn{kind}");
            for entry in fs::read_dir(self.host().path(&dir)).into_iter().flatten() {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if !["locks", "unix-export", "propagate"].contains(&name.as_str()) {
                    found.push(format!("{dir}/{name}"));
                }
            }
        }
        Ok(found)
    }

    /// Processes whose uid is in a range that only containers have.
    fn container_processes(&self) -> Result<Vec<String>> {
        let list = self.host().run(&["ps", "-e", "-o", "uid=,pid=,comm="])?;
        let inside = |line: &&str| {
            line.split_whitespace()
                .next()
                .and_then(|uid| uid.parse::<u32>().ok())
                .is_some_and(|uid| uid > 0xffff)
        };
        Ok(list
            .lines()
            .filter(inside)
            .map(|line| line.trim().to_owned())
            .collect())
    }

    /// The loop devices below disk layers that are in use.
    pub fn disk_images(&self) -> Result<Vec<String>> {
        let lines = self.loop_devices()?.into_iter();
        Ok(lines
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect())
    }

    fn loop_devices(&self) -> Result<Vec<String>> {
        let list = self.host().run(&[
            "losetup",
            "--list",
            "--noheadings",
            "--output",
            "NAME,BACK-FILE",
        ])?;
        Ok(list
            .lines()
            .filter(|line| line.contains(&self.host().layer_dir()))
            .map(str::to_owned)
            .collect())
    }

    /// Writable layers on disk that have a name. They never should.
    fn layers(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let dir = self.host().path(&self.host().layer_dir());
        for entry in fs::read_dir(dir).into_iter().flatten() {
            found.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(found)
    }

    /// Cgroups of slots.
    fn cgroups(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let slices = self.host().path("/sys/fs/cgroup/runners.slice");
        for slice in fs::read_dir(slices).into_iter().flatten() {
            for unit in fs::read_dir(slice?.path()).into_iter().flatten() {
                let name = unit?.file_name().to_string_lossy().into_owned();
                if name.ends_with(".service") {
                    found.push(name);
                }
            }
        }
        Ok(found)
    }

    /// Waits until nothing of any slot is left.
    pub fn await_nothing_left(&self, limit: Duration) -> Result<()> {
        wait_until("every slot to be given back", limit, || {
            let left = self.leftovers()?;
            Ok(if left.is_empty() {
                Seen::Done(())
            } else {
                Seen::NotYet(left.join("; "))
            })
        })
    }

    /// Fails with a list unless nothing of any slot is left.
    pub fn ensure_nothing_left(&self) -> Result<()> {
        let left = self.leftovers()?;
        ensure!(left.is_empty(), "left behind: {}", left.join("; "));
        Ok(())
    }
}
