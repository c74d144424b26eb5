//! The kernel, systemd and the image's file systems, as far as every container needs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::utsname::uname;

use super::finding::Finding;
use crate::config::{Config, Image};

/// Oldest kernel on which the tests run.
const KERNEL: (u32, u32) = (6, 9);
/// Oldest systemd on which the tests run.
const SYSTEMD: u32 = 257;
/// Controllers by which systemd enforces the limits of a job.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Facts about a host that need no configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PlatformFacts {
    /// Release of the kernel, `6.12.30-amd64`.
    kernel: String,
    /// First line of `systemctl --version`.
    systemd: Option<String>,
    /// `cgroup.controllers` of the root; `None` without the unified hierarchy.
    controllers: Option<String>,
    /// `user.max_user_namespaces`; `None` without user namespaces.
    user_namespaces: Option<String>,
}

/// Reads the facts.
pub(super) fn facts() -> PlatformFacts {
    let version = Command::new("systemctl").arg("--version").output().ok();
    let first_line = |text: Vec<u8>| {
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().next().map(str::to_owned)
    };
    PlatformFacts {
        kernel: uname()
            .map(|seen| seen.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
        systemd: version.and_then(|output| first_line(output.stdout)),
        controllers: fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok(),
        user_namespaces: fs::read_to_string("/proc/sys/user/max_user_namespaces").ok(),
    }
}

/// Judges the facts.
pub(super) fn judge(facts: &PlatformFacts) -> Vec<Finding> {
    vec![
        kernel(&facts.kernel),
        systemd(facts.systemd.as_deref()),
        controllers(facts.controllers.as_deref()),
        user_namespaces(facts.user_namespaces.as_deref()),
    ]
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Finding::skipped("kernel", format!("cannot read the release {release:?}"));
    };
    if (major, minor) < KERNEL {
        let (major, minor) = KERNEL;
        return Finding::problem(
            "kernel",
            format!("Linux {release} is too old: ID-mapped mounts of images need {major}.{minor}"),
            format!("install Linux {major}.{minor} or later, on Debian 12 from its backports"),
        );
    }
    Finding::good("kernel", format!("Linux {release}"))
}

fn systemd(line: Option<&str>) -> Finding {
    let version = line.and_then(|line| line.strip_prefix("systemd ")?.split(' ').next());
    let number = version.and_then(|text| text.split(['.', '~', '-']).next()?.parse::<u32>().ok());
    match number {
        None => Finding::problem(
            "systemd",
            "cannot run `systemctl --version`, so no unit starts",
            format!("boot a host with systemd {SYSTEMD} or later"),
        ),
        Some(number) if number < SYSTEMD => Finding::problem(
            "systemd",
            format!("systemd {number} is too old"),
            format!("install systemd {SYSTEMD} or later"),
        ),
        Some(number) => Finding::good("systemd", format!("systemd {number}")),
    }
}

fn controllers(text: Option<&str>) -> Finding {
    let area = "control groups";
    let Some(text) = text else {
        return Finding::problem(
            area,
            "the unified hierarchy (cgroup v2) is not mounted, so no limit of a job holds",
            "boot without `systemd.unified_cgroup_hierarchy=0`",
        );
    };
    let has = |name: &&str| text.split_whitespace().any(|word| word == *name);
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return Finding::good(area, format!("cgroup v2 with {}", CONTROLLERS.join(", ")));
    }
    let missing = missing.join(", ");
    Finding::problem(
        area,
        format!("cgroup v2 lacks the controllers {missing}, so these limits of jobs do not hold"),
        "boot without `cgroup_disable=` and `cgroup_no_v1=`; in a virtual host, let its host delegate them",
    )
}

fn user_namespaces(maximum: Option<&str>) -> Finding {
    let area = "user namespaces";
    match maximum.map(|text| text.trim().parse::<u64>()) {
        None => Finding::problem(
            area,
            "this kernel has no user namespaces, so no container starts",
            "use a kernel with CONFIG_USER_NS",
        ),
        Some(Ok(0)) => Finding::problem(
            area,
            "user.max_user_namespaces is 0, so no container starts",
            "remove the setting; `grep -r max_user_namespaces /etc/sysctl.d /etc/sysctl.conf` finds it",
        ),
        Some(Ok(_) | Err(_)) => Finding::good(area, "available"),
    }
}

/// Mount of an image with other ids, in a mount namespace that ends at once.
const ID_MAP: &str =
    r#"mount --bind -o "ro,nodev,X-mount.idmap=b:0:$2:65536" "$1" "$1" && stat -c %u "$1""#;

/// Tries an ID-mapped mount of each image. Needs root.
pub(super) fn id_maps(config: &Config) -> Vec<Finding> {
    let mut paths: Vec<(PathBuf, &str)> = Vec::new();
    for pool in &config.pools {
        let path = match &pool.image {
            Image::Directory { path, .. } => path,
            Image::Nixos { store, .. } => store,
        };
        if path.is_dir() && !paths.iter().any(|(known, _)| known == path) {
            paths.push((path.clone(), pool.name.as_str()));
        }
    }
    let uid = config.network.uid_base;
    let tries = paths.iter().map(|(path, _)| {
        let output = Command::new("timeout")
            .args(["10", "unshare", "--mount", "--propagation", "private"])
            .args(["sh", "-c", ID_MAP, "sh"])
            .arg(path)
            .arg(uid.to_string())
            .output();
        let said = match output {
            Ok(output) if output.status.success() => {
                Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
            }
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        id_map(path, uid, &said)
    });
    tries.collect()
}

/// Judges a mount: the owner of the image's root that was seen, or what mount said.
fn id_map(path: &Path, uid: u32, said: &Result<String, String>) -> Finding {
    let area = "ID-mapped mounts";
    let shown = path.display();
    match said {
        Ok(owner) if *owner == uid.to_string() => {
            Finding::good(area, format!("{shown} can be mapped"))
        }
        Ok(owner) => Finding::problem(
            area,
            format!("{shown} has owner {owner} after the mapping and not {uid}"),
            "give the image to root, and install util-linux 2.39 or later",
        ),
        Err(reason) => Finding::problem(
            area,
            format!("cannot map the ids of {shown}: {}", last_line(reason)),
            "move the image to ext4, xfs or btrfs, whose mounts can be ID-mapped",
        ),
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or("mount gave no reason")
}

#[cfg(test)]
mod tests;
