//! Root's small programs, made smaller: capabilities, system calls and files, dropped in their own
//! code once they know what they need.
//!
//! The unit cannot do it for them. What it sets is inherited by the launcher too, and so by every
//! process of the job. For the same reason the launcher itself enters no cage: it gives away only
//! what systemd-nspawn has no use for.

mod system_calls;

use std::io;
use std::path::{Path, PathBuf};

use capctl::caps::{Cap, CapSet, CapState, ambient, bounding};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::error::{OrRefuse, Refusal, RootError};

/// The newest Landlock whose rights we name. On an older kernel the older rights hold.
const LANDLOCK: ABI = ABI::V6;

/// What of root is left to a program. Everything else is gone for good, for its threads to come too.
#[derive(Debug, Default)]
pub(crate) struct Sandbox {
    capabilities: Vec<Cap>,
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
    removes: Vec<PathBuf>,
}

impl Sandbox {
    /// One with these capabilities, and no files at all.
    pub(crate) fn with(capabilities: &[Cap]) -> Self {
        Self {
            capabilities: capabilities.to_vec(),
            ..Self::default()
        }
    }

    /// May read what lies below.
    pub(crate) fn reads(mut self, dir: impl Into<PathBuf>) -> Self {
        self.reads.push(dir.into());
        self
    }

    /// May make, write, rename and remove files below.
    pub(crate) fn writes(mut self, dir: impl Into<PathBuf>) -> Self {
        self.writes.push(dir.into());
        self
    }

    /// May look into and remove whatever is below, and make nothing.
    pub(crate) fn removes(mut self, dir: impl Into<PathBuf>) -> Self {
        self.removes.push(dir.into());
        self
    }

    /// Goes in, with the calling thread and those it starts from now on: to be called while there is
    /// no other. There is no way out.
    pub(crate) fn enter(self) -> Result<(), RootError> {
        let view = self
            .restrict_files()
            .or_refuse(Refusal::Cage, || "restrict the files in view".into())?;
        match view {
            RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {}
            RulesetStatus::NotEnforced => {
                stdio::error(
                    "this kernel has no Landlock, so files are kept away by their owners and modes alone",
                );
            }
        }
        keep(&self.capabilities)?;
        system_calls::restrict().or_refuse(Refusal::Cage, || "restrict system calls".into())
    }

    fn restrict_files(&self) -> Result<RulesetStatus, landlock::RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let remove = AccessFs::ReadDir | AccessFs::RemoveFile | AccessFs::RemoveDir;
        let write = read | remove | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate;
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?;
        for (paths, access) in [
            (&self.reads, read),
            (&self.writes, write),
            (&self.removes, remove),
        ] {
            for path in paths {
                rules = allow(rules, path, access)?;
            }
        }
        Ok(rules.restrict_self()?.ruleset)
    }
}

/// A path that is not there needs no rule: nothing can be done below it.
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
    ambient::clear().or_refuse(Refusal::Cage, refuse)?;
    // The bounding set first: to lower it takes a capability.
    for cap in !kept {
        // A host that is itself confined has fewer, and an old kernel knows fewer.
        if bounding::read(cap) == Some(true) {
            bounding::drop(cap).or_refuse(Refusal::Cage, refuse)?;
        }
    }
    lower(capabilities).or_refuse(Refusal::Cage, refuse)
}

/// Keeps these capabilities for this thread; what it executes is another matter.
pub(crate) fn lower(capabilities: &[Cap]) -> io::Result<()> {
    let kept: CapSet = capabilities.iter().copied().collect();
    let kept = CapState::get_current()?.permitted & kept;
    let mut next = CapState::empty();
    next.effective = kept;
    next.permitted = kept;
    Ok(next.set_current()?)
}

/// What neither we nor systemd-nspawn needs of the host: its clock, its kernel and its log. The
/// container never has these; this keeps them from the nspawn that stays outside, too.
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

/// The launcher's part: what it becomes has these no more. Sets nothing else, as all of it would be
/// inherited by the job: no filter, no `no_new_privs` (sudo works in a container that has it).
pub(crate) fn before_nspawn() -> Result<(), RootError> {
    for cap in NOT_FOR_NSPAWN {
        if bounding::read(cap) == Some(true) {
            bounding::drop(cap).or_refuse(Refusal::Cage, || "give up capabilities".to_owned())?;
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

    /// All of it belongs to a thread, so one that ends afterwards can try it.
    fn caged<T: Send>(cage: Sandbox, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                cage.enter().unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    fn status_of_thread() -> String {
        fs::read_to_string("/proc/thread-self/status").unwrap()
    }

    #[test]
    fn in_a_cage_the_kernel_counts_what_was_kept() {
        let cage = Sandbox::with(&[Cap::NET_ADMIN]).reads("/proc");
        let status = caged(cage, status_of_thread);
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
    fn in_a_cage_there_are_only_the_files_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let (seen, hidden) = (dir.path().join("seen"), dir.path().join("hidden"));
        for dir in [&seen, &hidden] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("file"), "text").unwrap();
        }
        let cage = Sandbox::with(&[]).writes(&seen);
        let (inside, outside, made, removed) = caged(cage, || {
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
        // Where the kernel has no Landlock there is nothing to see.
        let enforced = fs::read_to_string("/sys/kernel/security/lsm")
            .map_or(true, |list| list.contains("landlock"));
        if enforced {
            assert_eq!(outside.unwrap_err().kind(), ErrorKind::PermissionDenied);
            assert_eq!(removed.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn in_a_cage_nothing_is_executed_mounted_or_unshared() {
        let cage = Sandbox::with(&[Cap::SYS_ADMIN]).reads("/");
        let (executed, unmounted, unshared) = caged(cage, || {
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
