//! The search for everything that runners take on the host, to show that nothing remains.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::groups;
use super::known::known_slots;
use super::slot::nspawn_dirs;
use super::units::loaded_units;
use crate::config::{Config, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::{gc_root, link, own_dir, pinned};

/// A thing that must not exist while no runner exists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leftover {
    /// Kind of the thing.
    pub kind: LeftoverKind,
    /// Name or path.
    pub what: String,
}

/// Kind of a thing that a slot takes on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeftoverKind {
    /// A unit that systemd has loaded, failed ones included.
    Unit,
    /// A registered machine.
    Machine,
    /// A mount that the host sees.
    Mount,
    /// A network link.
    Veth,
    /// A directory that nspawn or the launcher made.
    Directory,
    /// A writable layer with a name.
    Layer,
    /// A loop device over a writable layer.
    Loop,
    /// A root of the Nix store's garbage collector.
    GcRoot,
    /// The file with a unit's rules.
    Rules,
    /// The control group of a unit, with all groups below it.
    Group,
}

impl LeftoverKind {
    /// Returns the singular and the plural.
    fn words(self) -> [&'static str; 2] {
        match self {
            Self::Unit => ["unit", "units"],
            Self::Machine => ["machine", "machines"],
            Self::Mount => ["mount", "mounts"],
            Self::Veth => ["link", "links"],
            Self::Directory => ["directory", "directories"],
            Self::Layer => ["layer file", "layer files"],
            Self::Loop => ["loop device", "loop devices"],
            Self::GcRoot => ["garbage collector root", "garbage collector roots"],
            Self::Rules => ["unit file", "unit files"],
            Self::Group => ["control group", "control groups"],
        }
    }
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, _] = self.kind.words();
        write!(f, "{one} {}", self.what)
    }
}

/// Returns the number of leftovers of each kind, in words. Empty if there are none.
#[must_use]
pub fn count(found: &[Leftover]) -> String {
    let mut kinds: BTreeMap<LeftoverKind, usize> = BTreeMap::new();
    for leftover in found {
        *kinds.entry(leftover.kind).or_default() += 1;
    }
    let counts = kinds.into_iter().map(|(kind, count)| {
        let [one, several] = kind.words();
        format!("{count} {}", if count == 1 { one } else { several })
    });
    counts.collect::<Vec<_>>().join(", ")
}

/// Returns everything that runners have on the host now. Needs root.
pub fn leftovers(config: &Config) -> Result<Vec<Leftover>, RootError> {
    let known = known_slots(config);
    let mut found = Vec::new();
    let mut add = |kind, what: String| found.push(Leftover { kind, what });
    for unit in loaded_units()? {
        if known.contains(&unit.slot) && unit.state != "inactive" {
            add(
                LeftoverKind::Unit,
                format!("{} ({})", unit.slot.unit(), unit.state),
            );
        }
    }
    let mut mount_points = vec![config.mount_dir()];
    for id in &known {
        let machine = Path::new("/run/systemd/machines").join(id.to_string());
        if machine.exists() {
            add(LeftoverKind::Machine, id.to_string());
        }
        let link = Place::veth_of(id);
        if link::exists(&link) {
            add(LeftoverKind::Veth, link);
        }
        let group = groups::path(id);
        if group.exists() {
            add(LeftoverKind::Group, group.display().to_string());
        }
        for dir in nspawn_dirs(id)
            .into_iter()
            .chain([own_dir::path(config, id)])
        {
            if dir.exists() {
                add(LeftoverKind::Directory, dir.display().to_string());
            }
            mount_points.push(dir);
        }
    }
    // The mounts of process 1, because this process may be in another mount namespace.
    let mounts = fs::read_to_string("/proc/1/mountinfo")
        .or_refuse(Refusal::Leftovers, || "read /proc/1/mountinfo".into())?;
    for mount in mounts_below(&mounts, &mount_points) {
        add(LeftoverKind::Mount, mount.display().to_string());
    }
    for file in fs::read_dir(&config.layer_dir)
        .into_iter()
        .flatten()
        .flatten()
    {
        add(LeftoverKind::Layer, file.path().display().to_string());
    }
    let ours: Vec<String> = loop_devices()
        .into_iter()
        .filter(|(_, file)| file.starts_with(&config.layer_dir))
        .map(|(device, _)| device)
        .collect();
    for device in mounted(&ours) {
        add(LeftoverKind::Loop, device);
    }
    for id in pinned::pinned() {
        add(LeftoverKind::Rules, pinned::path(&id).display().to_string());
    }
    for id in gc_root::held() {
        add(
            LeftoverKind::GcRoot,
            gc_root::path(&id).display().to_string(),
        );
    }
    found.sort();
    Ok(found)
}

/// Returns the mount points at or below these directories.
///
/// The mount point is the fifth field (`proc_pid_mountinfo(5)`). Spaces and similar characters are
/// octal escapes there, and our paths have none.
pub(super) fn mounts_below(mountinfo: &str, dirs: &[PathBuf]) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .filter(|point| dirs.iter().any(|dir| point.starts_with(dir)))
        .collect()
}

/// Returns those of the devices that are mounted in a mount namespace of any process on this host.
///
/// Another host on the same kernel, such as a test host, may have layers at the same path. Its
/// processes are not visible here.
fn mounted(devices: &[String]) -> BTreeSet<String> {
    if devices.is_empty() {
        return BTreeSet::new();
    }
    let mut namespaces = BTreeSet::new();
    let mut found = BTreeSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        // The process may have ended. Another process has the same namespace, or it is gone.
        let Ok(namespace) = fs::read_link(path.join("ns/mnt")) else {
            continue;
        };
        if namespaces.insert(namespace) {
            let mounts = fs::read_to_string(path.join("mountinfo")).unwrap_or_default();
            found.extend(sources(&mounts).filter(|source| devices.iter().any(|d| d == source)));
        }
    }
    found
}

/// Returns the mounted devices: the second field after the dash.
pub(super) fn sources(mountinfo: &str) -> impl Iterator<Item = String> {
    mountinfo.lines().filter_map(|line| {
        let (_, after) = line.split_once(" - ")?;
        after.split(' ').nth(1).map(str::to_owned)
    })
}

/// Returns the loop devices in use, with their backing files.
fn loop_devices() -> Vec<(String, PathBuf)> {
    fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let name = entry.file_name().into_string().ok()?;
            Some((format!("/dev/{name}"), PathBuf::from(file.trim())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_counted_by_kind() {
        let leftover = |kind, what: &str| Leftover {
            kind,
            what: what.into(),
        };
        let found = [
            leftover(LeftoverKind::Veth, "rc-ci-1"),
            leftover(LeftoverKind::Unit, "runner-ci@1.service (active)"),
            leftover(LeftoverKind::Veth, "rc-ci-2"),
        ];
        assert_eq!(count(&found), "1 unit, 2 links");
        assert_eq!(count(&[]), "");
    }

    #[test]
    fn only_a_mount_in_our_directories_is_a_leftover() {
        let mountinfo = "\
30 29 0:25 / / rw - ext4 /dev/vda rw
31 30 0:26 / /run/runner-controller/mnt rw - tmpfs x rw
32 30 0:27 / /run/runner-controller/mnt/root rw - overlay x rw
33 30 0:28 / /run/runner-controller/mnt2 rw - tmpfs x rw
";
        let dirs = [PathBuf::from("/run/runner-controller/mnt")];
        let found = mounts_below(mountinfo, &dirs);
        assert_eq!(found.len(), 2);
        let sources: Vec<String> = sources(mountinfo).collect();
        assert_eq!(sources, ["/dev/vda", "x", "x", "x"]);
    }
}
