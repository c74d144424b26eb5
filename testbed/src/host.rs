//! The test host: boots it, runs things in it, removes it.
//!
//! Its root is an overlay over the cached root filesystem, so that every boot begins from the same
//! bytes and [`TestHost::down`] leaves nothing but the cache.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::bed::{self, Bed, Lock, last_lines, note, remove_tree, tail, write_whole};
use crate::inner::Boot;
use crate::rootfs;
use crate::wait::{Seen, wait_until};

/// Nodes for loop devices in the host; the kernel's pool is shared by all hosts of the machine.
const LOOP_NODES: u64 = 64;
/// Where disk layers lie in the host: on a disk, not on its overlay.
const LAYERS: &str = "/var/lib/runner-layers";
/// How long a boot may take on a machine that is busy.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// Files that only this boot has; everything below is gone after `down`.
const RUN: &str = "host";

/// A running test host.
#[derive(Debug)]
pub struct TestHost {
    bed: Bed,
    state: State,
    /// If this process started it: reaped when the host is gone.
    child: Option<Child>,
}

/// What a later process needs to find a running host again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    nspawn: Process,
    init: Process,
    /// The cgroup that commands join.
    cgroup: PathBuf,
}

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: i32,
    /// Clock ticks after the machine's boot.
    started: u64,
}

impl TestHost {
    /// The running host, or a freshly booted one. Builds what is missing first.
    pub fn up(bed: &Bed) -> Result<Self> {
        let _building = bed.lock(Lock::Build)?;
        // A host that runs was booted from what was asked for then; its containers' image is made
        // from what is asked for now.
        rootfs::build_missing(bed)?;
        if let Some(host) = Self::running(bed) {
            return Ok(host);
        }
        bed.install_tools()?;
        clear(bed)?;
        let host = Self::boot(bed)?;
        host.make_devices()?;
        Ok(host)
    }

    /// The running host, if there is one.
    #[must_use]
    pub fn running(bed: &Bed) -> Option<Self> {
        let state: State = serde_json::from_slice(&fs::read(state_file(bed)).ok()?).ok()?;
        (state.nspawn.lives() && state.init.lives()).then(|| Self {
            bed: bed.clone(),
            state,
            child: None,
        })
    }

    /// The directory of the machine that this host belongs to.
    #[must_use]
    pub fn bed(&self) -> &Bed {
        &self.bed
    }

    /// The host's root, seen from outside. Absolute symbolic links in it lead astray.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.state.init.pid))
    }

    /// A path in the host, seen from outside.
    #[must_use]
    pub fn path(&self, inner: &str) -> PathBuf {
        self.root().join(inner.trim_start_matches('/'))
    }

    /// Where disk layers are made in the host. Named for this host, because the kernel shows every
    /// host's loop devices to all of them, by the name their file has in its own host.
    #[must_use]
    pub fn layer_dir(&self) -> String {
        format!("{LAYERS}/{}", self.bed.machine_name())
    }

    /// The network namespace of the host's process 1, to be joined by a thread.
    #[must_use]
    pub fn network_namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.state.init.pid))
    }

    /// A command that will run in the host as root; the caller decides about its ends.
    pub fn command<S: AsRef<OsStr>>(&self, argv: &[S]) -> Command {
        let mut command = Command::new(run_dir(&self.bed).join("testbed"));
        command
            .args([
                "inner",
                "enter",
                "--init",
                &self.state.init.pid.to_string(),
                "--cgroup",
            ])
            .arg(&self.state.cgroup)
            .arg("--")
            .args(argv);
        command
    }

    /// Runs a command in the host; any exit status is an answer.
    pub fn output<S: AsRef<OsStr>>(&self, argv: &[S]) -> Result<Output> {
        self.command(argv)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {} in the host", line(argv)))
    }

    /// Runs a command in the host and returns its stdout; a failure carries its stderr.
    pub fn run<S: AsRef<OsStr>>(&self, argv: &[S]) -> Result<String> {
        let output = self.output(argv)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = last_lines(
                &format!("{stdout}\n{}", String::from_utf8_lossy(&output.stderr)),
                20,
            );
            bail!(
                "in the host `{}` ended with {}: {}",
                line(argv),
                output.status,
                said.trim()
            );
        }
        Ok(stdout)
    }

    /// Runs a line of shell in the host.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.run(&["sh", "-euc", script])
    }

    /// Puts a file into the host so that no reader sees half of it. A program that runs from the
    /// old file keeps it.
    pub fn write(&self, inner: &str, content: &[u8], mode: u32) -> Result<()> {
        self.place(inner, mode, |new| Ok(fs::write(new, content)?))
    }

    /// Copies a file into the host, as [`TestHost::write`] does.
    pub fn install(&self, source: &Path, inner: &str, mode: u32) -> Result<()> {
        self.place(inner, mode, |new| {
            fs::copy(source, new)
                .map(drop)
                .with_context(|| source.display().to_string())
        })
    }

    fn place(&self, inner: &str, mode: u32, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let path = self.path(inner);
        let dir = path.parent().context("a file has a directory")?;
        fs::create_dir_all(dir)
            .with_context(|| format!("make the directory of {inner} in the host"))?;
        let new = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(dir)?
            .into_temp_path();
        fill(&new).with_context(|| format!("write {inner} in the host"))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        new.persist(&path)
            .with_context(|| format!("write {inner} in the host"))
    }

    /// Pulls the plug: everything in the host is dead at once, nothing is told. Then it boots again
    /// with the disks it had.
    pub fn power_cycle(&mut self) -> Result<()> {
        let bed = self.bed.clone();
        let _building = bed.lock(Lock::Build)?;
        self.kill()?;
        // On a machine that has a systemd they are its own, and went with the unit.
        clear_cgroups(&bed)?;
        *self = Self::boot(&bed)?;
        self.make_devices()
    }

    /// Ends the host and removes all that is left of it but the cache.
    pub fn down(mut self) -> Result<()> {
        let bed = self.bed.clone();
        let _building = bed.lock(Lock::Build)?;
        self.kill()?;
        clear(&bed)
    }

    /// What of a host is left on the outer machine; empty after [`TestHost::down`].
    pub fn remains(bed: &Bed) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for path in [run_dir(bed)]
            .into_iter()
            .chain(nspawn_dirs(bed))
            .chain(own_cgroups(bed)?)
        {
            if path.exists() {
                found.push(path.display().to_string());
            }
        }
        let ours = bed.dir().as_os_str().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&ours))
                .map(|line| format!("mount {line}")),
        );
        Ok(found)
    }

    fn boot(bed: &Bed) -> Result<Self> {
        let dir = run_dir(bed);
        for name in ["upper", "work", "root", "state", "layers"] {
            fs::create_dir_all(dir.join(name))?;
        }
        fs::create_dir_all(images_dir(bed))?;
        load_modules();
        // Commands enter with the program that booted the host, whatever cargo builds meanwhile.
        let program = dir.join("testbed");
        fs::copy("/proc/self/exe", &program)?;
        let socket = dir.join("notify");
        fs::remove_file(&socket).or_else(|e| {
            if e.kind() == ErrorKind::NotFound {
                Ok(())
            } else {
                Err(e)
            }
        })?;
        let notifications =
            UnixDatagram::bind(&socket).context("listen for the host's readiness")?;
        notifications.set_read_timeout(Some(Duration::from_millis(100)))?;
        let systemd = Path::new("/run/systemd/system").is_dir();
        let cgroups = if systemd {
            Vec::new()
        } else {
            make_cgroups(bed)?
        };
        let spec = dir.join("boot.json");
        let boot = Boot {
            name: bed.machine_name(),
            dir: dir.clone(),
            lower: rootfs::HOST.path(bed),
            // Not overlays: one cannot be ID-mapped, and disk layers belong on a disk.
            binds: vec![
                (images_dir(bed), "/var/lib/runner-images".into()),
                (dir.join("state"), "/var/lib/runner-controller".into()),
                (dir.join("layers"), LAYERS.into()),
            ],
            cgroups,
            notify: socket,
        };
        write_whole(&spec, &serde_json::to_vec_pretty(&boot)?)?;
        let console = dir.join("console.log");
        let mut child = start(bed, &program, &spec, &console, systemd)?;
        let init = match await_boot(&notifications, child.as_mut(), bed) {
            Ok(init) => init,
            Err(error) => {
                let said = tail(&console, 20);
                stop_unit(bed);
                clear(bed).ok();
                return Err(error.context(format!("boot the test host; its console ends:\n{said}")));
            }
        };
        let nspawn = Process::find(parent_of(init.pid)?)?;
        let cgroup = cgroup_of(init.pid)?;
        let state = State {
            nspawn,
            init,
            cgroup,
        };
        write_whole(&state_file(bed), &serde_json::to_vec_pretty(&state)?)?;
        Ok(Self {
            bed: bed.clone(),
            state,
            child,
        })
    }

    /// Device nodes that nspawn's fresh `/dev` lacks: loop devices for disk layers, fuse, tun.
    fn make_devices(&self) -> Result<()> {
        let dev = self.path("/dev");
        let shift = fs::read_to_string("/sys/module/loop/parameters/max_part")
            .ok()
            .and_then(|parts| parts.trim().parse::<u64>().ok())
            .map_or(0, |parts| u64::BITS - parts.leading_zeros());
        let node = |name: &str, kind: SFlag, mode: u32, major: u64, minor: u64| -> Result<()> {
            let path = dev.join(name);
            if path.exists() {
                return Ok(());
            }
            fs::create_dir_all(path.parent().context("a node has a directory")?)?;
            mknod(
                &path,
                kind,
                Mode::from_bits_truncate(mode),
                makedev(major, minor),
            )
            .with_context(|| format!("make /dev/{name} in the host"))
        };
        node("loop-control", SFlag::S_IFCHR, 0o660, 10, 237)?;
        node("fuse", SFlag::S_IFCHR, 0o666, 10, 229)?;
        node("net/tun", SFlag::S_IFCHR, 0o666, 10, 200)?;
        (0..LOOP_NODES).try_for_each(|number| {
            node(
                &format!("loop{number}"),
                SFlag::S_IFBLK,
                0o660,
                7,
                number << shift,
            )
        })
    }

    fn kill(&mut self) -> Result<()> {
        let loops = self.loop_devices().unwrap_or_default();
        // The kernel takes the whole pid namespace along, then nspawn tidies up and ends.
        if self.state.init.lives() {
            kill(Pid::from_raw(self.state.init.pid), Signal::SIGKILL)
                .context("kill the host's process 1")?;
        }
        let (nspawn, child) = (self.state.nspawn, &mut self.child);
        let gone = wait_until("the test host to be gone", Duration::from_secs(10), || {
            if let Some(child) = child {
                child.try_wait()?;
            }
            Ok(if nspawn.lives() {
                Seen::NotYet("systemd-nspawn still runs".into())
            } else {
                Seen::Done(())
            })
        });
        if gone.is_err() && nspawn.lives() {
            kill(Pid::from_raw(nspawn.pid), Signal::SIGKILL)?;
        }
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        // Mounted ones went with their mounts. One that was only attached is nobody's now.
        for device in attached_loops()?
            .into_iter()
            .filter(|device| loops.contains(device))
        {
            bed::run(Command::new("losetup").args(["--detach", &device.name]))?;
        }
        Ok(())
    }

    /// Loop devices on files of the host. The kernel's pool is shared by the whole machine, and
    /// only from inside do the files have names by which they can be told.
    fn loop_devices(&self) -> Result<Vec<LoopDevice>> {
        let inside = self.run(&[
            "losetup",
            "--list",
            "--noheadings",
            "--output",
            "NAME,BACK-FILE",
        ])?;
        let ours: Vec<&str> = inside
            .lines()
            .filter_map(|line| line.split_once(char::is_whitespace))
            .filter(|(_, file)| file.trim_start().starts_with(&self.layer_dir()))
            .map(|(name, _)| name)
            .collect();
        Ok(attached_loops()?
            .into_iter()
            .filter(|device| ours.contains(&device.name.as_str()))
            .collect())
    }
}

/// A loop device with its file. The file is part of it: the name is soon given to somebody else.
#[derive(Debug, PartialEq, Eq)]
struct LoopDevice {
    name: String,
    file: String,
}

fn attached_loops() -> Result<Vec<LoopDevice>> {
    let list = bed::run(Command::new("losetup").args([
        "--list",
        "--noheadings",
        "--output",
        "NAME,BACK-MAJ:MIN,BACK-INO",
    ]))?;
    let device = |line: &str| {
        let (name, file) = line.split_once(char::is_whitespace)?;
        Some(LoopDevice {
            name: name.to_owned(),
            file: file.trim().to_owned(),
        })
    };
    Ok(list.lines().filter_map(device).collect())
}

/// Ends the host if one runs, and removes what one that was interrupted left.
pub fn end(bed: &Bed) -> Result<()> {
    if let Some(host) = TestHost::running(bed) {
        return host.down();
    }
    let _building = bed.lock(Lock::Build)?;
    clear(bed)
}

/// Ends the host, then deletes the cache too.
pub fn purge(bed: &Bed) -> Result<()> {
    end(bed)?;
    let _building = bed.lock(Lock::Build)?;
    for entry in fs::read_dir(bed.dir())? {
        let path = entry?.path();
        // The locks stay: another process may wait for one, and would hold a deleted file.
        if path.extension().is_none_or(|extension| extension != "lock") {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Where images lie on the outer machine; `/var/lib/runner-images` in the host.
#[must_use]
pub fn images_dir(bed: &Bed) -> PathBuf {
    bed.path("images")
}

impl Process {
    fn find(pid: i32) -> Result<Self> {
        let stat = Stat::read(pid)?;
        Ok(Self {
            pid,
            started: stat.started,
        })
    }

    fn lives(self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.started == self.started && stat.state != "Z")
    }
}

/// The fields of `/proc/<pid>/stat` that we want.
struct Stat {
    state: String,
    parent: i32,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).with_context(|| format!("/proc/{pid}/stat is not what proc(5) says"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The command's name comes second, in parentheses, and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: (*fields.first()?).to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

fn parent_of(pid: i32) -> Result<i32> {
    Stat::read(pid).map(|stat| stat.parent)
}

fn run_dir(bed: &Bed) -> PathBuf {
    bed.path(RUN)
}

fn state_file(bed: &Bed) -> PathBuf {
    run_dir(bed).join("state.json")
}

fn unit(bed: &Bed) -> String {
    format!("{}.service", bed.machine_name())
}

/// Starts the boot helper: by systemd where it runs the machine, so that the host's cgroup is
/// delegated to it properly, else as our own child in cgroups of ours.
fn start(
    bed: &Bed,
    program: &Path,
    spec: &Path,
    console: &Path,
    systemd: bool,
) -> Result<Option<Child>> {
    fs::write(console, "")?;
    if systemd {
        let append = format!("append:{}", console.display());
        bed::run(
            Command::new("systemd-run")
                .args(["--quiet", "--collect"])
                .arg(format!("--unit={}", unit(bed)))
                .args([
                    "-p",
                    "Delegate=yes",
                    "-p",
                    "KillMode=mixed",
                    "-p",
                    "TasksMax=infinity",
                ])
                .args([
                    "-p",
                    &format!("StandardOutput={append}"),
                    "-p",
                    &format!("StandardError={append}"),
                ])
                .arg(program)
                .args(["inner", "boot"])
                .arg(spec),
        )?;
        return Ok(None);
    }
    let log = fs::OpenOptions::new().append(true).open(console)?;
    let child = Command::new(program)
        .args(["inner", "boot"])
        .arg(spec)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the boot helper")?;
    Ok(Some(child))
}

fn stop_unit(bed: &Bed) {
    if Path::new("/run/systemd/system").is_dir() {
        Command::new("systemctl")
            .args(["kill", "--signal=KILL", &unit(bed)])
            .stderr(Stdio::null())
            .status()
            .ok();
    }
}

/// Waits for nspawn's word that the host's process 1 has booted, which includes its number.
fn await_boot(
    notifications: &UnixDatagram,
    mut child: Option<&mut Child>,
    bed: &Bed,
) -> Result<Process> {
    let start = Instant::now();
    let mut leader = None;
    let mut status = String::from("nothing");
    let mut buffer = [0; 4096];
    loop {
        match notifications.recv(&mut buffer) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                for line in text.lines() {
                    if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                        leader = Some(Process::find(pid.parse()?)?);
                    }
                    if let Some(said) = line.strip_prefix("STATUS=") {
                        said.clone_into(&mut status);
                    }
                }
                if text.lines().any(|line| line == "READY=1") {
                    return leader.context(
                        "systemd-nspawn reported readiness before it named the host's process 1",
                    );
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("wait for the host's readiness"),
        }
        let ended = match child.as_mut() {
            Some(child) => child.try_wait()?.map(|status| status.to_string()),
            None => unit_ended(bed),
        };
        if let Some(how) = ended {
            bail!("systemd-nspawn ended early: {how}");
        }
        if start.elapsed() > BOOT_LIMIT {
            if let Some(leader) = leader {
                kill(Pid::from_raw(leader.pid), Signal::SIGKILL).ok();
            }
            bail!(
                "no readiness after {}; last status: {status}",
                humantime::format_duration(BOOT_LIMIT)
            );
        }
    }
}

fn unit_ended(bed: &Bed) -> Option<String> {
    let state = bed::run(Command::new("systemctl").args([
        "show",
        "--property=ActiveState",
        "--value",
        &unit(bed),
    ]));
    let state = state.ok()?.trim().to_owned();
    matches!(state.as_str(), "inactive" | "failed").then_some(state)
}

/// Kernel modules that containers use and cannot load. Best effort: many kernels have them built in.
fn load_modules() {
    Command::new("modprobe")
        .args([
            "--quiet",
            "--all",
            "overlay",
            "loop",
            "fuse",
            "tun",
            "veth",
            "nf_tables",
            "nft_masq",
            "nft_fib_inet",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .ok();
}

/// Where the version 2 hierarchy is, and systemd's own version 1 hierarchy if there is one.
fn cgroup_mounts() -> Result<Vec<(PathBuf, bool)>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            match fields.as_slice() {
                [_, path, "cgroup2", ..] => Some((PathBuf::from(path), true)),
                [_, path, "cgroup", options, ..] if options.contains("name=systemd") => {
                    Some((PathBuf::from(path), false))
                }
                _ => None,
            }
        })
        .collect())
}

fn own_cgroups(bed: &Bed) -> Result<Vec<PathBuf>> {
    Ok(cgroup_mounts()?
        .into_iter()
        .map(|(mount, _)| mount.join(bed.machine_name()))
        .collect())
}

/// Two hosts that start from one cgroup would share its children, and stop each other's services.
fn make_cgroups(bed: &Bed) -> Result<Vec<PathBuf>> {
    let mounts = cgroup_mounts()?;
    ensure!(
        mounts.iter().any(|(_, unified)| *unified),
        "no cgroup2 filesystem is mounted; `mount -t cgroup2 cgroup2 /sys/fs/cgroup` makes one"
    );
    let mut made = Vec::new();
    for (mount, unified) in mounts {
        if unified {
            // So that limits bite in the host too. Refused where the controllers are in use by the
            // version 1 hierarchies, or the hierarchy is not ours to arrange.
            for controller in ["cpu", "io", "memory", "pids"] {
                fs::write(
                    mount.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                )
                .ok();
            }
        }
        let cgroup = mount.join(bed.machine_name());
        fs::create_dir_all(&cgroup).with_context(|| format!("make cgroup {}", cgroup.display()))?;
        made.push(cgroup);
    }
    Ok(made)
}

fn cgroup_of(pid: i32) -> Result<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .context("the host has no cgroup2")?;
    let (mount, _) = cgroup_mounts()?
        .into_iter()
        .find(|(_, unified)| *unified)
        .context("no cgroup2 is mounted")?;
    Ok(mount.join(path))
}

fn nspawn_dirs(bed: &Bed) -> Vec<PathBuf> {
    ["propagate", "unix-export"]
        .into_iter()
        .map(|kind| {
            Path::new("/run/systemd/nspawn")
                .join(kind)
                .join(bed.machine_name())
        })
        .collect()
}

/// Removes what a host left, one that was killed with this program in the middle included.
fn clear(bed: &Bed) -> Result<()> {
    clear_cgroups(bed)?;
    for dir in nspawn_dirs(bed) {
        if dir.is_dir() {
            fs::remove_dir(&dir).with_context(|| format!("remove {}", dir.display()))?;
        }
    }
    remove_tree(&run_dir(bed))
}

/// A killed host leaves the cgroups of its units, which the next one would take for its own.
fn clear_cgroups(bed: &Bed) -> Result<()> {
    for cgroup in own_cgroups(bed)?.iter().filter(|cgroup| cgroup.is_dir()) {
        end_processes(cgroup)?;
        remove_cgroup(cgroup)?;
    }
    Ok(())
}

/// A host whose state file was never written still has its processes in our cgroup.
fn end_processes(cgroup: &Path) -> Result<()> {
    wait_until(
        "the last processes of the host to end",
        Duration::from_secs(10),
        || {
            let pids = processes_below(cgroup)?;
            for pid in &pids {
                kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
            }
            Ok(if pids.is_empty() {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{pids:?}"))
            })
        },
    )
}

fn processes_below(cgroup: &Path) -> Result<Vec<i32>> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid != 0)
        .collect();
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            pids.extend(processes_below(&entry.path()).unwrap_or_default());
        }
    }
    Ok(pids)
}

fn remove_cgroup(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    remove_when_free(cgroup)
}

/// A cgroup whose last process has just died is busy for a moment longer.
fn remove_when_free(cgroup: &Path) -> Result<()> {
    wait_until(
        "a cgroup to be free",
        Duration::from_secs(5),
        || match fs::remove_dir(cgroup) {
            Ok(()) => Ok(Seen::Done(())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Seen::Done(())),
            Err(error) => Ok(Seen::NotYet(format!("{}: {error}", cgroup.display()))),
        },
    )
}

fn line<S: AsRef<OsStr>>(argv: &[S]) -> String {
    argv.iter()
        .map(|word| word.as_ref().to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Says what a boot brought up, for one who asked for a host and nothing else.
pub fn announce(host: &TestHost, took: Duration) -> Result<()> {
    let state = host.output(&["systemctl", "is-system-running"])?;
    note(&format!(
        "the test host is {} after {:.1} s",
        String::from_utf8_lossy(&state.stdout).trim(),
        took.as_secs_f64()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let me = i32::try_from(std::process::id()).unwrap();
        let process = Process::find(me).unwrap();
        assert!(process.lives());
        assert!(
            !Process {
                started: process.started + 1,
                ..process
            }
            .lives()
        );
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_confuse() {
        let text = "7 (a) b (c) S 42 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9999 0 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (stat.state.as_str(), stat.parent, stat.started),
            ("S", 42, 9999)
        );
    }
}
