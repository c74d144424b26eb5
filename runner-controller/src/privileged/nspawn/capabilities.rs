//! What root in a container may do there.
//!
//! A capability in a user namespace reaches no further than what that namespace owns. It does reach
//! code of the kernel that is there for root alone, so a container has those that images need and no
//! other, whatever systemd-nspawn's own default is.

/// Every container has these.
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
    // systemd's CapabilityBoundingSet=, and whatever else gives up what it does not need.
    "CAP_SETPCAP",
    // Packages with file capabilities, and user namespaces that root makes (user_namespaces(7)).
    "CAP_SETFCAP",
    // Servers under test on their own ports.
    "CAP_NET_BIND_SERVICE",
    // chroot, and systemd's RootDirectory=.
    "CAP_SYS_CHROOT",
    // systemd's mounts, the runner's credential among them. No boot is clean without.
    "CAP_SYS_ADMIN",
    // Debuggers and sanitizers, for their own processes too: nspawn's filter lets ptrace(2) through
    // where this is kept, and nowhere else (nspawn-seccomp.c).
    "CAP_SYS_PTRACE",
];

/// Where `docker = true`, these as well.
const FOR_DOCKER: [&str; 4] = [
    // The bridge and its rules, in the container's own network namespace.
    "CAP_NET_ADMIN",
    // Docker gives these three to every container it starts, and can only give what it has
    // (moby/oci/caps/defaults.go).
    "CAP_AUDIT_WRITE",
    "CAP_MKNOD",
    "CAP_NET_RAW",
];

/// All there are (capabilities(7)).
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

/// What systemd-nspawn is told to leave and to take away. What it takes away wins.
pub(crate) struct Sets {
    pub(crate) kept: String,
    pub(crate) dropped: String,
}

/// The two sets for a pool.
pub(crate) fn sets(docker: bool) -> Sets {
    let is_kept = |name: &&str| KEPT.contains(name) || (docker && FOR_DOCKER.contains(name));
    let (kept, dropped): (Vec<&str>, Vec<&str>) = ALL.iter().partition(|name| is_kept(name));
    Sets {
        kept: kept.join(","),
        dropped: dropped.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_is_either_kept_or_dropped() {
        for docker in [false, true] {
            let Sets { kept, dropped } = sets(docker);
            let wanted = KEPT.len() + if docker { FOR_DOCKER.len() } else { 0 };
            assert_eq!(kept.split(',').count(), wanted);
            assert_eq!(dropped.split(',').count(), ALL.len() - wanted);
        }
    }

    #[test]
    fn docker_alone_has_the_network() {
        let has = |set: &str, name| set.split(',').any(|each| each == name);
        assert!(has(&sets(false).dropped, "CAP_NET_ADMIN"));
        assert!(has(&sets(true).kept, "CAP_NET_ADMIN"));
    }
}
