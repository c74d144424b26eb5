//! Memory of idle containers by part.
//!
//! A memory control group tells what containers take from the kernel, and maps of processes tell which pages they share.
//! The test host has no memory controller if the machine uses the version 1 hierarchy. So a group of that hierarchy takes
//! the host's process 1 while it starts the units, and their processes inherit it.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::many::{available, end_all, only_spares};
use crate::bed::note;
use crate::bench::daemon::{Process, megabytes, number};
use crate::bench::figures::{Figure, Source};
use crate::bench::start::begin;
use crate::bench::usage::field;
use crate::host::TestHost;
use crate::lab::Lab;
use crate::wait::{Seen, wait_until};

/// Slice of the pool's units.
const SLICE: &str = "runners-ci.slice";

/// The daemon and the container while there is only one.
pub(super) struct Few {
    daemon_mb: f64,
    guest: Maps,
}

/// Memory that processes map, in bytes. A page that several processes map counts in equal parts for each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Maps {
    anonymous: u64,
    file: u64,
    shared: u64,
}

impl Maps {
    /// Reads a process's `smaps_rollup`. A process that has ended maps nothing.
    fn of(pid: i32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let bytes = |name| field(&text, name).unwrap_or_default() * 1024;
        Self {
            anonymous: bytes("Pss_Anon:"),
            file: bytes("Pss_File:"),
            shared: bytes("Pss_Shmem:"),
        }
    }

    fn add(&mut self, other: Self) {
        self.anonymous += other.anonymous;
        self.file += other.file;
        self.shared += other.shared;
    }
}

/// Memory that a container's processes map.
#[derive(Debug, Default)]
struct Container {
    guest: Maps,
    nspawn: Maps,
    /// The launcher's relay of the console. Its other two programs end when the container is ready.
    relay: Maps,
    is_in_group: bool,
}

impl Container {
    fn read(host: &TestHost, unit: &str, group: Option<&Group>) -> Result<Self> {
        let mut container = Self::default();
        for pid in host.processes(&format!("{unit}/payload"))? {
            container.guest.add(Maps::of(pid));
            container.is_in_group |= group.is_some_and(|group| group.has(pid));
        }
        for pid in host.processes(&format!("{unit}/supervisor"))? {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim() == "systemd-nspawn" {
                container.nspawn.add(Maps::of(pid));
            } else {
                container.relay.add(Maps::of(pid));
            }
        }
        Ok(container)
    }
}

/// Measures the daemon and one container alone.
pub(super) fn few(lab: &Lab) -> Result<Few> {
    begin(lab, &only_spares(lab, 1)?)?;
    let daemon_mb = Process::find(lab)?.rss_megabytes()?;
    let slice = lab.show(SLICE, "ControlGroup")?;
    let unit = format!("{slice}/runner-ci@1.service");
    let guest = Container::read(lab.host(), &unit, None)?.guest;
    end_all(lab)?;
    Ok(Few { daemon_mb, guest })
}

/// Measures so many idle containers. `before` is the available memory before their start.
pub(super) fn figures(
    lab: &Lab,
    few: &Few,
    count: u16,
    group: Option<&Group>,
    before: u64,
) -> Result<Vec<Figure>> {
    let containers = f64::from(count);
    let all = megabytes(before.saturating_sub(available()?)) / containers;
    let daemon = (Process::find(lab)?.rss_megabytes()? - few.daemon_mb) / (containers - 1.0);
    let slice = lab.show(SLICE, "ControlGroup")?;
    let read = |number: u16| {
        let unit = format!("{slice}/runner-ci@{number}.service");
        Container::read(lab.host(), &unit, group)
    };
    let each = (1..=count).map(read).collect::<Result<Vec<Container>>>()?;
    let samples = |of: fn(&Container) -> u64| each.iter().map(of).map(megabytes).collect();
    let kernel = |name, unit, value| Figure::plain(name, unit, Source::Kernel, vec![value]);
    let maps = |name, samples| Figure::plain(name, "MB", Source::Kernel, samples);

    let mut figures = vec![kernel("a spare, as MemAvailable falls", "MB", all)];
    if let Some(group) = group {
        let charged = each.iter().filter(|container| container.is_in_group);
        let charged = number(u64::try_from(charged.count())?);
        let Charges {
            anonymous,
            tmpfs,
            file,
            kernel: of_kernel,
        } = group.charges()?;
        let per = |bytes| megabytes(bytes) / charged;
        figures.extend([
            kernel("…anonymous memory", "MB", per(anonymous)),
            kernel("…tmpfs: layer, /run and journal", "MB", per(tmpfs)),
            kernel("…kernel: slab, stacks, page tables", "MB", per(of_kernel)),
            kernel("…page cache that was not there", "MB", per(file)),
        ]);
    }
    let alone = megabytes(few.guest.file);
    let shared: Vec<f64> = samples(|container| container.guest.file);
    figures.extend([
        maps("guest: anonymous memory", samples(|c| c.guest.anonymous)),
        maps(
            "systemd-nspawn: anonymous memory",
            samples(|c| c.nspawn.anonymous + c.nspawn.shared),
        ),
        maps(
            "relay of the console: anonymous memory",
            samples(|c| c.relay.anonymous + c.relay.shared),
        ),
        kernel("daemon: growth for each runner", "kB", daemon * 1000.0),
        kernel("guest alone: pages of the image", "MB", alone),
        maps("guest beside the others: its share of them", shared).at_most(
            2.0 * alone / containers,
            format!(" (twice the {count}th part)"),
        ),
    ]);
    Ok(figures)
}

/// A memory control group of the version 1 hierarchy. New units of the host run in it until it is dropped, which must
/// come after their end.
pub(super) struct Group {
    dir: PathBuf,
    /// The group of the host's process 1 before.
    before: PathBuf,
    init: i32,
}

/// Bytes that are charged to a group.
struct Charges {
    anonymous: u64,
    tmpfs: u64,
    file: u64,
    kernel: u64,
}

impl Group {
    /// Makes a group for the units that start from now on. Returns none if this machine has no such hierarchy.
    pub(super) fn of_new_units(host: &TestHost) -> Result<Option<Self>> {
        let init = host.init_pid();
        let Some(mount) = memory_mount(&fs::read_to_string("/proc/self/mounts")?) else {
            note("this machine has no version 1 hierarchy for memory, so charges are not counted");
            return Ok(None);
        };
        let groups = fs::read_to_string(format!("/proc/{init}/cgroup"))?;
        let own =
            memory_group(&groups).context("the host's process 1 has no memory control group")?;
        let group = Self {
            dir: mount.join(format!("{}-scale", host.bed().machine_name())),
            before: mount.join(own.trim_start_matches('/')),
            init,
        };
        fs::create_dir_all(&group.dir).with_context(|| format!("make {}", group.dir.display()))?;
        fs::write(group.dir.join("cgroup.procs"), init.to_string())
            .context("move the host's process 1 into a memory control group")?;
        Ok(Some(group))
    }

    fn has(&self, pid: i32) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        memory_group(&text).is_some_and(|group| self.dir.ends_with(group.trim_start_matches('/')))
    }

    fn charges(&self) -> Result<Charges> {
        let read = |file: &str| fs::read_to_string(self.dir.join(file));
        let stat = read("memory.stat")?;
        let of = |name: &str| {
            field(&stat, &format!("{name} ")).with_context(|| format!("memory.stat has no {name}"))
        };
        Ok(Charges {
            anonymous: of("rss")?,
            tmpfs: of("shmem")?,
            file: of("cache")?.saturating_sub(of("shmem")?),
            kernel: read("memory.kmem.usage_in_bytes")?.trim().parse()?,
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let before = self.before.join("cgroup.procs");
        fs::write(&before, self.init.to_string()).ok();
        // Services that the host started meanwhile, such as the stand-in.
        let rest = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        for pid in rest.lines() {
            fs::write(&before, pid).ok();
        }
        // Processes that have just ended keep a group busy for a moment.
        let gone = wait_until(
            "the memory control group to be free",
            Duration::from_secs(5),
            || {
                Ok(match fs::remove_dir(&self.dir) {
                    Ok(()) => Seen::Done(()),
                    Err(error) if error.kind() == ErrorKind::NotFound => Seen::Done(()),
                    Err(error) => Seen::NotYet(error.to_string()),
                })
            },
        );
        if let Err(error) = gone {
            note(&format!("cannot remove {}: {error:#}", self.dir.display()));
        }
    }
}

/// Returns the mount of the version 1 hierarchy with the memory controller.
fn memory_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, path, "cgroup", options, ..] = fields.as_slice() else {
            return None;
        };
        let is_memory = options.split(',').any(|option| option == "memory");
        is_memory.then(|| PathBuf::from(path))
    })
}

/// Returns the memory control group in a `/proc/<pid>/cgroup`.
fn memory_group(text: &str) -> Option<&str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.strip_prefix("memory:")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_hierarchy_is_found_by_its_option() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found = memory_mount(mounts);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/memory")));
        assert_eq!(
            memory_mount("cgroup2 /sys/fs/cgroup cgroup2 rw,memory 0 0\n"),
            None
        );
    }

    #[test]
    fn a_process_tells_its_memory_group() {
        let text = "9:name=systemd:/\n4:memory:/rc-testbed-1-scale\n0::/init.scope\n";
        assert_eq!(memory_group(text), Some("/rc-testbed-1-scale"));
        assert_eq!(memory_group("0::/init.scope\n"), None);
    }
}
