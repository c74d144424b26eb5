//! The capabilities of root in a container.
//!
//! A capability in a user namespace applies only to resources of that namespace. But it gives access to
//! kernel code that is otherwise for root only. So a container has the capabilities that images need
//! and no others, whatever the default of systemd-nspawn is.

use std::collections::BTreeSet;

use crate::config::Capability;

/// Capabilities of every container.
const KEPT: [&str; 13] = [
    // Package managers, `sudo make install`, the directories that systemd makes for services.
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    // systemd ends processes of any user.
    "CAP_KILL",
    // systemd's User=, sudo, su.
    "CAP_SETGID",
    "CAP_SETUID",
    // systemd's CapabilityBoundingSet=, and other programs that give up privileges.
    "CAP_SETPCAP",
    // Packages with file capabilities, and user namespaces that root makes (user_namespaces(7)).
    "CAP_SETFCAP",
    // Servers under test on their own ports.
    "CAP_NET_BIND_SERVICE",
    // chroot, and systemd's RootDirectory=.
    "CAP_SYS_CHROOT",
    // systemd's mounts, for example of the runner's credential. Units fail at boot without it.
    "CAP_SYS_ADMIN",
    // Debuggers and sanitizers, even for their own processes: nspawn's filter allows ptrace(2) only
    // to a container with this capability (nspawn-seccomp.c).
    "CAP_SYS_PTRACE",
];

/// All capabilities of the kernel (capabilities(7)).
const ALL: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// Comma-separated capabilities for systemd-nspawn. A dropped capability wins over a kept one.
pub(super) struct CapabilitySets {
    pub(super) kept: String,
    pub(super) dropped: String,
}

/// Returns the sets for a pool. Docker's containers get what the container has, so it has all that they may ask
/// for (moby/oci/caps/defaults.go).
pub(super) fn sets(docker: bool, opened: &BTreeSet<Capability>) -> CapabilitySets {
    let is_opened = |name: &&str| {
        let mut all = Capability::ALL.iter();
        all.any(|each| each.as_str() == *name && (docker || opened.contains(each)))
    };
    let is_kept = |name: &&str| KEPT.contains(name) || is_opened(name);
    let (kept, dropped): (Vec<&str>, Vec<&str>) = ALL.iter().partition(|name| is_kept(name));
    CapabilitySets {
        kept: kept.join(","),
        dropped: dropped.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_is_either_kept_or_dropped() {
        let none = BTreeSet::new();
        let one = BTreeSet::from([Capability::NetRaw]);
        for (docker, opened, more) in [(false, &none, 0), (false, &one, 1), (true, &one, 6)] {
            let CapabilitySets { kept, dropped } = sets(docker, opened);
            let wanted = KEPT.len() + more;
            assert_eq!(kept.split(',').count(), wanted);
            assert_eq!(dropped.split(',').count(), ALL.len() - wanted);
        }
    }

    #[test]
    fn only_docker_and_a_pool_that_names_it_get_the_network_capability() {
        let none = BTreeSet::new();
        let named = BTreeSet::from([Capability::NetAdmin]);
        let has = |set: &str| set.split(',').any(|each| each == "CAP_NET_ADMIN");
        assert!(has(&sets(false, &none).dropped));
        assert!(has(&sets(false, &named).kept));
        assert!(has(&sets(true, &none).kept));
    }
}
