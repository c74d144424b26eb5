//! Devices and capabilities that a pool opens to its jobs. None is open by default.

use std::str::FromStr;

/// Device of the host that jobs can open.
///
/// A loop device is not in the list. Jobs could not mount it, because the kernel mounts disks for the host's root
/// alone, and the layers of all runners on disk are loop devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Device {
    /// File systems that a program of the job serves.
    Fuse,
    /// Virtual machines.
    Kvm,
    /// Network interfaces that a program of the job serves.
    Tun,
}

impl Device {
    /// All devices.
    pub const ALL: [Self; 3] = [Self::Fuse, Self::Kvm, Self::Tun];

    /// Returns the path of the device's node, on the host and in a container.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Fuse => "/dev/fuse",
            Self::Kvm => "/dev/kvm",
            Self::Tun => "/dev/net/tun",
        }
    }

    /// Returns the device's minor number. The major number of all is 10 (`devices.txt` of the kernel).
    #[must_use]
    pub const fn minor(self) -> u64 {
        match self {
            Self::Fuse => 229,
            Self::Kvm => 232,
            Self::Tun => 200,
        }
    }

    /// Major number of all devices.
    pub const MAJOR: u64 = 10;

    /// Returns the kernel's module for the device.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Kvm => "kvm_intel or kvm_amd",
            Self::Tun => "tun",
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|device| device.path() == text);
        found.ok_or_else(|| {
            if text.starts_with("/dev/loop") {
                "a loop device cannot be opened to jobs: they could not mount it, and the layers of other runners are loop devices".to_owned()
            } else {
                format!("{text:?} is not a device that can be opened to jobs")
            }
        })
    }
}

/// Capability of a container with `docker = true`, which other pools can name.
///
/// It applies only to resources of the container's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Capability {
    /// Records of the audit log, which the kernel takes from the host's root alone.
    AuditWrite,
    /// Docker's `--cap-add`. It locks no memory in a user namespace (mm/mlock.c).
    IpcLock,
    /// Docker's containers. The kernel makes no device node in a user namespace.
    Mknod,
    /// Interfaces, routes and firewall rules of the container.
    NetAdmin,
    /// Raw and packet sockets of the container.
    NetRaw,
    /// Processors of other users' processes in the container. It raises no priority (kernel/sched/syscalls.c).
    SysNice,
}

impl Capability {
    /// All capabilities.
    pub const ALL: [Self; 6] = [
        Self::AuditWrite,
        Self::IpcLock,
        Self::Mknod,
        Self::NetAdmin,
        Self::NetRaw,
        Self::SysNice,
    ];

    /// Returns the name in capabilities(7).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuditWrite => "CAP_AUDIT_WRITE",
            Self::IpcLock => "CAP_IPC_LOCK",
            Self::Mknod => "CAP_MKNOD",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::SysNice => "CAP_SYS_NICE",
        }
    }
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|capability| capability.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is not a capability that can be opened to jobs"))
    }
}
