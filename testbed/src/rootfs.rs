//! Root filesystems: described as data, named by the hash of that description, built once.
//!
//! A build happens beside its final name and is renamed at the end, so that an interrupted one is
//! never taken for finished.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use crate::bed::{Bed, hash, logged, note, remove_tree, run};

/// Debian's release for the test host and for the image.
const SUITE: &str = "trixie";
/// Where packages come from if the machine's own apt knows no Debian mirror.
const MIRROR: &str = "http://deb.debian.org/debian";

/// What a root filesystem is made from. Everything that shapes it is in here, and so in its name.
#[derive(Debug, Serialize)]
pub struct Recipe {
    name: &'static str,
    suite: &'static str,
    packages: &'static [&'static str],
    /// Source packages whose archives lie in `/srv/sources`.
    sources: &'static [&'static str],
    /// Units that shall never start.
    masks: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
    links: &'static [(&'static str, &'static str)],
    /// Paths that dpkg leaves out: a smaller image is a quicker copy.
    excluded: &'static [&'static str],
}

const DOCUMENTATION: &[&str] = &[
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
];

/// The test host's: what an operator's machine has, and what tests look with.
pub const HOST: Recipe = Recipe {
    name: "host",
    suite: SUITE,
    packages: &[
        "systemd",
        "systemd-sysv",
        "systemd-container",
        "dbus",
        "polkitd",
        "nftables",
        "iproute2",
        "iputils-ping",
        "e2fsprogs",
        "xfsprogs",
        "util-linux",
        "mount",
        "kmod",
        "procps",
        "netcat-openbsd",
        "socat",
        "strace",
        "python3-minimal",
        "ca-certificates",
    ],
    sources: &[],
    masks: &[
        "console-getty.service",
        "getty.target",
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "fstrim.timer",
        "ldconfig.service",
        "systemd-firstboot.service",
        "systemd-networkd-wait-online.service",
        "xfs_scrub_all.timer",
    ],
    files: &[
        // Empty, not missing: systemd makes one up at every boot and it is not a first boot.
        ("/etc/machine-id", ""),
        ("/etc/hostname", "testhost\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 testhost\n"),
        // Containers reach the internet through us.
        (
            "/etc/sysctl.d/50-testbed.conf",
            "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n",
        ),
    ],
    links: &[(
        "/lib/systemd/system/multi-user.target",
        "/etc/systemd/system/default.target",
    )],
    excluded: DOCUMENTATION,
};

/// The image's, before `runner-controller prepare-image` has seen it: a plain Debian with what
/// jobs of the demo need, among it two C projects with their test suites.
pub const GUEST: Recipe = Recipe {
    name: "guest",
    suite: SUITE,
    packages: &[
        "systemd",
        "systemd-sysv",
        "dbus",
        "bash",
        // The first program of a root that has no libraries yet.
        "busybox-static",
        "coreutils",
        "iproute2",
        "iputils-ping",
        "netcat-openbsd",
        "procps",
        "gcc",
        "libc6-dev",
        "make",
        "nodejs",
        "python3-minimal",
        "strace",
    ],
    sources: &["zlib", "bzip2"],
    masks: &[],
    files: &[],
    links: &[],
    excluded: DOCUMENTATION,
};

/// Programs that judge our files, of one version on every machine.
pub const TOOLS: Recipe = Recipe {
    name: "tools",
    suite: SUITE,
    packages: &["just", "nix-bin", "shellcheck"],
    sources: &[],
    masks: &[],
    files: &[],
    links: &[],
    excluded: DOCUMENTATION,
};

/// What an image for jobs with Nix is made from; built when somebody asks for it.
pub const NIX: Recipe = Recipe {
    name: "nix",
    suite: SUITE,
    packages: &[
        "systemd",
        "systemd-sysv",
        "dbus",
        "bash",
        "busybox-static",
        "coreutils",
        "iproute2",
        "netcat-openbsd",
        "procps",
        "nix-bin",
    ],
    sources: &[],
    masks: &[],
    files: &[],
    links: &[],
    excluded: DOCUMENTATION,
};

/// What an image for jobs with Docker is made from; built when somebody asks for it.
pub const DOCKER: Recipe = Recipe {
    name: "docker",
    suite: SUITE,
    packages: &[
        "systemd",
        "systemd-sysv",
        "dbus",
        "bash",
        "busybox-static",
        "coreutils",
        "iproute2",
        "netcat-openbsd",
        "procps",
        "docker.io",
        "docker-cli",
        "docker-buildx",
    ],
    sources: &[],
    masks: &[],
    files: &[],
    links: &[],
    excluded: DOCUMENTATION,
};

impl Recipe {
    /// Where it is, built or not.
    #[must_use]
    pub fn path(&self, bed: &Bed) -> PathBuf {
        bed.path("rootfs")
            .join(format!("{}-{}", self.name, self.id()))
    }

    /// Names the description: another one is another root filesystem.
    #[must_use]
    pub fn id(&self) -> String {
        hash(serde_json::json!(self).to_string().as_bytes())[..12].to_owned()
    }

    fn build(&self, bed: &Bed) -> Result<()> {
        let parent = bed.path("rootfs");
        // mmdebstrap's root is read by its unprivileged apt, hence the mode.
        let work = tempfile::Builder::new()
            .prefix(&format!("unfinished-{}-", self.name))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(&parent)?;
        let root = work.path().join("root");
        let log = bed.path(format!("{}.log", self.name));
        fs::write(&log, "")?;
        logged(&mut self.mmdebstrap(&root)?, &log)?;
        self.finish(&root)
            .with_context(|| format!("finish the root filesystem of the {}", self.name))?;
        fs::rename(&root, self.path(bed))?;
        Ok(())
    }

    fn mmdebstrap(&self, root: &Path) -> Result<Command> {
        let mirror = mirror();
        let mut command = Command::new("mmdebstrap");
        command
            .args(["--quiet", "--variant=minbase", "--format=directory"])
            .arg(r#"--aptopt=APT::Install-Recommends "false""#)
            .arg(format!("--include={}", self.packages.join(",")))
            .args(
                self.excluded
                    .iter()
                    .map(|path| format!("--dpkgopt=path-exclude={path}")),
            )
            .args(
                apt_settings()?
                    .iter()
                    .map(|setting| format!("--aptopt={setting}")),
            );
        if !self.sources.is_empty() {
            // The archives are checked by apt against the signed index like any package.
            command.arg(format!(
                "--customize-hook=mkdir -p \"$1/srv/sources\" && cd \"$1/srv/sources\" && \
                 APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get source --quiet=2 --download-only {}",
                self.sources.join(" ")
            ));
        }
        command
            .arg(self.suite)
            .arg(root)
            .arg(format!("deb {mirror} {} main", self.suite))
            .arg(format!("deb-src {mirror} {} main", self.suite));
        Ok(command)
    }

    fn finish(&self, root: &Path) -> Result<()> {
        for unit in self.masks {
            link("/dev/null", &root.join("etc/systemd/system").join(unit))?;
        }
        for (target, name) in self.links {
            link(target, &below(root, name)?)?;
        }
        for (name, content) in self.files {
            let path = below(root, name)?;
            fs::create_dir_all(path.parent().context("a file has a directory")?)?;
            fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
        // Settings of this machine's apt, a proxy with a password perhaps, are not for an image.
        let settings = root.join("etc/apt/apt.conf.d/99mmdebstrap");
        if settings.exists() {
            fs::remove_file(settings)?;
        }
        // Where hosts and containers get theirs is their business.
        let resolvers = root.join("etc/resolv.conf");
        if fs::symlink_metadata(&resolvers).is_ok() {
            fs::remove_file(&resolvers)?;
        }
        Ok(())
    }
}

/// Builds what is missing of the host and the guest. The caller holds the build lock.
///
/// Returns true if something was built.
pub fn build_missing(bed: &Bed) -> Result<bool> {
    build(bed, &[&HOST, &GUEST])
}

/// Builds what is missing of these, side by side. The caller holds the build lock.
///
/// Returns true if something was built.
pub fn build(bed: &Bed, recipes: &[&Recipe]) -> Result<bool> {
    let missing: Vec<&Recipe> = recipes
        .iter()
        .copied()
        .filter(|recipe| !recipe.path(bed).exists())
        .collect();
    if missing.is_empty() {
        return Ok(false);
    }
    bed.install_tools()?;
    let parent = bed.path("rootfs");
    fs::create_dir_all(&parent)?;
    // Whatever else is here was interrupted, or is of a description that nobody asks for now.
    for entry in fs::read_dir(&parent)? {
        let path = entry?.path();
        if [&HOST, &GUEST, &NIX, &DOCKER, &TOOLS]
            .iter()
            .all(|known| path != known.path(bed))
        {
            remove_tree(&path)?;
        }
    }
    let names: Vec<&str> = missing.iter().map(|recipe| recipe.name).collect();
    note(&format!(
        "building the root filesystem of {} (Debian {SUITE}); once, under a minute",
        names.join(" and ")
    ));
    std::thread::scope(|scope| {
        let builds: Vec<_> = missing
            .iter()
            .map(|recipe| scope.spawn(|| recipe.build(bed)))
            .collect();
        let failures: Vec<String> = builds
            .into_iter()
            .filter_map(|build| match build.join() {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(_) => Some("a build panicked".to_owned()),
            })
            .collect();
        if failures.is_empty() {
            Ok(true)
        } else {
            Err(anyhow!(failures.join("\n")))
        }
    })
}

/// The mirror that this machine's apt uses for Debian, if it does; `RUNNER_TESTBED_MIRROR` wins.
fn mirror() -> String {
    if let Ok(mirror) = std::env::var("RUNNER_TESTBED_MIRROR") {
        return mirror;
    }
    let known = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(SITE)",
        "Created-By: Packages",
    ]));
    known
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix("Debian "))
        .find(|site| !site.contains("security") && site.starts_with("http"))
        .map_or_else(
            || MIRROR.to_owned(),
            |site| site.trim_end_matches('/').to_owned(),
        )
}

/// How this machine's apt gets through to its mirrors; mmdebstrap's apt starts with no settings.
fn apt_settings() -> Result<Vec<String>> {
    const KEPT: &[&str] = &[
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
        "Acquire::Check-Date",
        "Acquire::Check-Valid-Until",
    ];
    let dump = run(Command::new("apt-config").args([
        "dump",
        "--no-empty",
        "--format",
        "%f \"%v\"%n",
        "Acquire",
    ]))?;
    Ok(dump
        .lines()
        .filter(|line| {
            line.split_whitespace()
                .next()
                .is_some_and(|key| KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(key)))
        })
        .map(str::to_owned)
        .collect())
}

fn below(root: &Path, name: &str) -> Result<PathBuf> {
    Ok(root.join(
        name.strip_prefix('/')
            .with_context(|| format!("{name} must be absolute"))?,
    ))
}

fn link(target: &str, path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?;
    }
    std::os::unix::fs::symlink(target, path).with_context(|| format!("link {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_description_has_another_name() {
        let more = Recipe {
            packages: &["systemd"],
            ..HOST
        };
        assert_ne!(HOST.id(), more.id());
        assert_ne!(HOST.id(), GUEST.id());
        assert_eq!(HOST.id(), Recipe { ..HOST }.id());
    }
}
