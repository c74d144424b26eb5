//! The sandbox of the root programs: they give up capabilities, system calls and files that they do not
//! need.
//!
//! The unit cannot restrict them. The launcher and every process of the job would inherit the unit's
//! settings. For the same reason the launcher enters no sandbox, and gives up only the capabilities
//! that systemd-nspawn does not use.

mod system_calls;

use std::io;
use std::path::{Path, PathBuf};

use capctl::caps::{Cap, CapSet, CapState, ambient, bounding};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::error::{OrRefuse, Refusal, RootError};

/// Newest version of Landlock whose rights are handled. An older kernel enforces the rights it knows.
const LANDLOCK: ABI = ABI::V6;

/// The privileges that a program keeps. It loses all others for good, and so do its later threads.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    capabilities: Vec<Cap>,
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
    removes: Vec<PathBuf>,
    signals: bool,
}

impl Sandbox {
    /// Returns a sandbox with these capabilities and without any file.
    pub(crate) fn with(capabilities: &[Cap]) -> Self {
        Self {
            capabilities: capabilities.to_vec(),
            ..Self::default()
        }
    }

    /// Allows the program to read below a directory.
    pub(crate) fn reads(mut self, dir: impl Into<PathBuf>) -> Self {
        self.reads.push(dir.into());
        self
    }

    /// Allows the program to create, write, rename and remove files below a directory.
    pub(crate) fn writes(mut self, dir: impl Into<PathBuf>) -> Self {
        self.writes.push(dir.into());
        self
    }

    /// Allows the program to list and remove everything below a directory, and to create nothing.
    pub(crate) fn removes(mut self, dir: impl Into<PathBuf>) -> Self {
        self.removes.push(dir.into());
        self
    }

    /// Allows the program to signal processes outside its sandbox.
    pub(crate) fn signals(mut self) -> Self {
        self.signals = true;
        self
    }

    /// Restricts the calling thread and the threads that it starts later, for good.
    ///
    /// The program must have no other thread.
    pub(crate) fn enter(self) -> Result<(), RootError> {
        let view = self
            .restrict_files()
            .or_refuse(Refusal::Sandbox, || "restrict access to files".into())?;
        match view {
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {}
            // The status and `check-config --host` say so once for the host.
            RulesetStatus::NotEnforced => {}
        }
        keep(&self.capabilities)?;
        system_calls::restrict().or_refuse(Refusal::Sandbox, || "restrict system calls".into())
    }

    fn restrict_files(&self) -> Result<RulesetStatus, landlock::RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let remove = AccessFs::ReadDir | AccessFs::RemoveFile | AccessFs::RemoveDir;
        let write = read | remove | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate;
        let mut scopes = Scope::from_all(LANDLOCK);
        if self.signals {
            scopes.remove(Scope::Signal);
        }
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(scopes)?
            .create()?;
        let rights = [
            (&self.reads, read),
            (&self.writes, write),
            (&self.removes, remove),
        ];
        for (paths, access) in rights {
            for path in paths {
                rules = allow(rules, path, access)?;
            }
        }
        Ok(rules.restrict_self()?.ruleset)
    }
}

/// Adds a rule for a path. An absent path needs no rule, because nothing can be done below it.
fn allow(
    rules: landlock::RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, landlock::RulesetError> {
    match PathFd::new(path) {
        Ok(opened) => rules.add_rule(PathBeneath::new(opened, access)),
        Err(_) => Ok(rules),
    }
}

/// Keeps these capabilities and gives up all others, for this thread and what it executes.
pub(crate) fn keep(capabilities: &[Cap]) -> Result<(), RootError> {
    let kept: CapSet = capabilities.iter().copied().collect();
    let refuse = || "give up capabilities".to_owned();
    ambient::clear().or_refuse(Refusal::Sandbox, refuse)?;
    // The bounding set comes first, because lowering it needs a capability.
    for cap in !kept {
        // A host in a container has fewer capabilities, and so does an old kernel.
        if bounding::read(cap) == Some(true) {
            bounding::drop(cap).or_refuse(Refusal::Sandbox, refuse)?;
        }
    }
    lower(capabilities).or_refuse(Refusal::Sandbox, refuse)
}

/// Keeps these capabilities for this thread. The bounding set, for executed programs, stays.
pub(crate) fn lower(capabilities: &[Cap]) -> io::Result<()> {
    let kept: CapSet = capabilities.iter().copied().collect();
    let kept = CapState::get_current()?.permitted & kept;
    let mut next = CapState::empty();
    next.effective = kept;
    next.permitted = kept;
    Ok(next.set_current()?)
}

/// Capabilities for the host's clock, kernel and log, which neither the launcher nor systemd-nspawn
/// needs. The container never has them. The nspawn process outside it must not have them either.
const NOT_FOR_NSPAWN: [Cap; 12] = [
    Cap::AUDIT_READ,
    Cap::BLOCK_SUSPEND,
    Cap::BPF,
    Cap::LINUX_IMMUTABLE,
    Cap::MAC_ADMIN,
    Cap::MAC_OVERRIDE,
    Cap::PERFMON,
    Cap::SYSLOG,
    Cap::SYS_MODULE,
    Cap::SYS_RAWIO,
    Cap::SYS_TIME,
    Cap::WAKE_ALARM,
];

/// Gives up the capabilities that systemd-nspawn does not need.
///
/// It sets no filter and no `no_new_privs`, because the job would inherit them and sudo would fail.
pub(crate) fn before_nspawn() -> Result<(), RootError> {
    for cap in NOT_FOR_NSPAWN {
        if bounding::read(cap) == Some(true) {
            bounding::drop(cap)
                .or_refuse(Refusal::Sandbox, || "give up capabilities".to_owned())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use nix::mount::{MntFlags, umount2};
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::geteuid;

    use super::*;

    /// Runs work in a thread with this sandbox. A sandbox applies to one thread and ends with it.
    fn sandboxed<T: Send>(sandbox: Sandbox, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                sandbox.enter().unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    fn status_of_thread() -> String {
        fs::read_to_string("/proc/thread-self/status").unwrap()
    }

    #[test]
    fn in_a_sandbox_the_kernel_reports_only_the_kept_capabilities() {
        let sandbox = Sandbox::with(&[Cap::NET_ADMIN]).writes("/proc");
        let status = sandboxed(sandbox, status_of_thread);
        let line = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found.unwrap().trim().to_owned()
        };
        assert_eq!(line("NoNewPrivs:"), "1");
        assert_eq!(line("Seccomp:"), "2");
        assert_eq!(line("CapAmb:"), "0000000000000000");
        if geteuid().is_root() {
            for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
                assert_eq!(line(set), "0000000000001000", "{set}");
            }
        }
    }

    #[test]
    fn in_a_sandbox_only_the_named_directories_are_accessible() {
        let dir = tempfile::tempdir().unwrap();
        let (seen, hidden) = (dir.path().join("seen"), dir.path().join("hidden"));
        for dir in [&seen, &hidden] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("file"), "text").unwrap();
        }
        let sandbox = Sandbox::with(&[]).writes(&seen);
        let (inside, outside, made, removed) = sandboxed(sandbox, || {
            (
                fs::read_to_string(seen.join("file")),
                fs::read_to_string(hidden.join("file")),
                fs::write(seen.join(".new"), "x")
                    .and_then(|()| fs::rename(seen.join(".new"), seen.join("new"))),
                fs::remove_file(hidden.join("file")),
            )
        });
        assert_eq!(inside.unwrap(), "text");
        made.unwrap();
        // A kernel without Landlock restricts no file.
        let enforced = fs::read_to_string("/sys/kernel/security/lsm")
            .map_or(true, |list| list.contains("landlock"));
        if enforced {
            assert_eq!(outside.unwrap_err().kind(), ErrorKind::PermissionDenied);
            assert_eq!(removed.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn in_a_sandbox_no_program_is_executed_and_no_namespace_changed() {
        let sandbox = Sandbox::with(&[Cap::SYS_ADMIN]).writes("/");
        let (executed, unmounted, unshared) = sandboxed(sandbox, || {
            (
                std::process::Command::new("/bin/true").status(),
                umount2("/proc", MntFlags::MNT_DETACH),
                unshare(CloneFlags::CLONE_NEWNS),
            )
        });
        assert!(executed.is_err());
        assert_eq!(unmounted, Err(nix::Error::ENOSYS));
        assert_eq!(unshared, Err(nix::Error::ENOSYS));
    }

    #[test]
    fn a_thread_that_lowered_its_capabilities_has_no_others() {
        let status = std::thread::spawn(|| {
            lower(&[]).unwrap();
            status_of_thread()
        });
        let status = status.join().unwrap();
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
}
