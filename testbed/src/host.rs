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
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use humantime::format_duration;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

mod boot;
mod cgroups;
mod maxima;
mod process;

use boot::{await_boot, load_modules, start, stop_unit};
use cgroups::{cgroup_of, clear_cgroups, make_cgroups, own_cgroups, processes_below};
use process::{Process, parent_of};

use crate::bed::{self, Bed, Lock, last_lines, note, remove_tree, tail, write_whole};
use crate::inner::Boot;
use crate::packages::tools;
use crate::rootfs::{self, GUEST, Incomplete};
use crate::wait::{Seen, wait_until};

/// Nodes for loop devices in the host; the kernel's pool is shared by all hosts of the machine.
const LOOP_NODES: u64 = 64;
/// Directory of disk layers in the host: on a disk, not on its overlay.
const LAYERS: &str = "/var/lib/runner-layers";
/// Timeout for a command in the host, so that one that hangs fails its claim. The longest ones prepare an image.
const LONGEST: Duration = Duration::from_mins(5);
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

/// Facts by which a later process finds a running host again.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    nspawn: Process,
    init: Process,
    /// The cgroup that commands join.
    cgroup: PathBuf,
}

impl TestHost {
    /// The running host, or a freshly booted one. Builds what is missing first.
    pub fn up(bed: &Bed) -> Result<Self> {
        let _building = bed.lock(Lock::Build)?;
        let running = Self::running(bed);
        let incomplete = if running.is_some() {
            Incomplete::Keep
        } else {
            Incomplete::Replace
        };
        // A running host was booted from an older description, perhaps. The image of its containers follows
        // the present one.
        rootfs::build(bed, &[rootfs::host(bed.release()), &GUEST], incomplete)?;
        maxima::raise();
        if let Some(host) = running {
            host.open_settings()?;
            return Ok(host);
        }
        tools::install(bed)?;
        clear(bed)?;
        let host = Self::boot(bed)?;
        // A test host of another bed may have ended before this one was a running one.
        maxima::raise();
        host.make_devices()?;
        host.open_settings()?;
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

    /// The host's process 1, as it is numbered outside.
    #[must_use]
    pub fn init_pid(&self) -> i32 {
        self.state.init.pid
    }

    /// Returns the processes in a control group of the host and below it, as they are numbered outside.
    pub fn processes(&self, cgroup: &str) -> Result<Vec<i32>> {
        let path = self.path(&format!("/sys/fs/cgroup/{cgroup}"));
        processes_below(&path).with_context(|| format!("list {}", path.display()))
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

    /// Returns the directory of disk layers in the host. It is named for this host, because the kernel
    /// shows every host's loop devices to all of them, by the name that their file has in its host.
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

    /// Runs a command in the host; any exit status is an answer. It is ended after [`LONGEST`].
    pub fn output<S: AsRef<OsStr>>(&self, argv: &[S]) -> Result<Output> {
        let seconds = LONGEST.as_secs().to_string();
        let mut bounded: Vec<&OsStr> = ["timeout", "--kill-after=5", &seconds]
            .map(OsStr::new)
            .into();
        bounded.extend(argv.iter().map(AsRef::as_ref));
        let mut command = self.command(&bounded);
        command.stdin(Stdio::null());
        output_within(command, LONGEST + Duration::from_secs(10))
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
        self.make_devices()?;
        self.open_settings()
    }

    /// Ends the host and removes all that is left of it but the cache.
    pub fn down(mut self) -> Result<()> {
        let bed = self.bed.clone();
        let _building = bed.lock(Lock::Build)?;
        self.kill()?;
        maxima::restore()?;
        clear(&bed)
    }

    /// Returns everything of a host that is left on the outer machine; nothing after [`TestHost::down`].
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
            lower: rootfs::host(bed.release()).path(bed),
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

    /// Lets root write the maxima of user namespaces, as on a host that is not a container itself.
    fn open_settings(&self) -> Result<()> {
        let dir = "/proc/sys/user";
        self.sh(&format!(
            "mountpoint -q {dir} || {{ mount --bind {dir} {dir} && mount -o remount,bind,rw {dir}; }}"
        ))
        .map(drop)
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

/// A loop device with its file. The file is part of it: the name is soon given to another device.
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
    maxima::restore()?;
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

/// Returns the directory of images on the outer machine; `/var/lib/runner-images` in the host.
#[must_use]
pub fn images_dir(bed: &Bed) -> PathBuf {
    bed.path("images")
}

/// Runs a command and collects its output. A process that has left the command and keeps its pipes open does not
/// extend the time.
fn output_within(mut command: Command, limit: Duration) -> Result<Output> {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || send.send(child.wait_with_output()));
    let outcome = receive
        .recv_timeout(limit)
        .with_context(|| format!("it has not ended after {}", format_duration(limit)))?;
    Ok(outcome?)
}

fn run_dir(bed: &Bed) -> PathBuf {
    bed.path(RUN)
}

fn state_file(bed: &Bed) -> PathBuf {
    run_dir(bed).join("state.json")
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
    fn a_command_that_does_not_end_is_an_error() {
        let mut command = Command::new("sleep");
        command.arg("1");
        let error = output_within(command, Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.to_string(), "it has not ended after 1ms");
        let mut command = Command::new("echo");
        command.arg("word");
        let output = output_within(command, Duration::from_mins(1)).unwrap();
        assert_eq!(output.stdout, b"word\n");
    }
}
