//! Hidden subcommands on the way into the test host: each prepares its process and then becomes another
//! program. They are separate processes, because a process with threads cannot join every namespace or
//! cgroup.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

/// Environment of everything that runs in the test host.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("USER", "root"),
    ("LANG", "C.UTF-8"),
    ("SYSTEMD_PAGER", ""),
    ("SYSTEMD_COLORS", "0"),
];

/// Arguments of the test host's boot; written by [`crate::host`], read by [`boot`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Boot {
    /// Its machine name on the outer machine.
    pub name: String,
    /// Its own directory: `upper`, `work` and `root` of the overlay are in it.
    pub dir: PathBuf,
    /// The read-only root filesystem below.
    pub lower: PathBuf,
    /// Host directories bound into it, as (outer, inner).
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Cgroups to join first; none if systemd runs this process in a unit.
    pub cgroups: Vec<PathBuf>,
    /// Socket on which systemd-nspawn reports that the host has booted.
    pub notify: PathBuf,
}

/// Becomes the systemd-nspawn of a test host. Returns only to report what went wrong.
pub fn boot(spec: &Path) -> Result<()> {
    let boot: Boot = serde_json::from_slice(&fs::read(spec)?)?;
    // Ctrl-C at the terminal is for the command that boots the host, which then takes it down.
    nix::unistd::setsid().ok();
    for cgroup in &boot.cgroups {
        join_cgroup(cgroup)?;
    }
    // The overlay lives in our mount namespace alone, and is gone when the host is, however it ends.
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("make mounts private")?;
    let root = boot.dir.join("root");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        boot.lower.display(),
        boot.dir.join("upper").display(),
        boot.dir.join("work").display()
    );
    mount(
        Some("testhost"),
        &root,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .with_context(|| format!("mount the host's root filesystem ({options})"))?;
    let error = Command::new("systemd-nspawn")
        .args([
            "--quiet",
            "--settings=no",
            "--register=no",
            "--keep-unit",
            "--boot",
            "--notify-ready=yes",
        ])
        .arg(format!("--directory={}", root.display()))
        .arg(format!("--machine={}", boot.name))
        .args([
            "--capability=all",
            "--private-network",
            "--console=pipe",
            "--link-journal=no",
        ])
        .args(["--resolv-conf=off", "--timezone=off"])
        // Docker, bpf and Landlock on the host need these on top of nspawn's defaults. The claims check
        // that a container's filter closes them again.
        .arg(
            "--system-call-filter=add_key keyctl request_key bpf perf_event_open @privileged \
             landlock_create_ruleset landlock_add_rule landlock_restrict_self",
        )
        .args(
            boot.binds
                .iter()
                .map(|(outer, inner)| format!("--bind={}:{}", outer.display(), inner.display())),
        )
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .env("NOTIFY_SOCKET", &boot.notify)
        .exec();
    Err(error).context("exec systemd-nspawn")
}

/// Becomes a command in the test host whose process 1 is `init`, as root. Returns only to report
/// what went wrong.
pub fn enter(init: i32, cgroup: &Path, command: &[String]) -> Result<()> {
    // Cgroup first: seen from the host's cgroup namespace our own path would begin with "/..", and
    // systemd-nspawn refuses to work there.
    join_cgroup(cgroup)?;
    let root = format!("/proc/{init}/root");
    let mut nsenter = Command::new("nsenter");
    nsenter
        .args([
            "--target",
            &init.to_string(),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
        ])
        .arg(format!("--root={root}"))
        .arg(format!("--wd={root}"))
        .arg("--")
        .args(command)
        .env_clear()
        .envs(ENVIRONMENT.iter().copied())
        .env(
            "TERM",
            std::env::var_os("TERM").unwrap_or_else(|| "dumb".into()),
        );
    Err(nsenter.exec()).context("exec nsenter")
}

fn join_cgroup(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
        .with_context(|| format!("join cgroup {}", cgroup.display()))
}
