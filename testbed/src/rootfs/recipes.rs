//! The root filesystems that the demo and the tests need.

use super::recipe::Recipe;
use crate::release::Release;

/// Debian's release for the test host and for the image.
pub(super) const SUITE: &str = "trixie";

/// Every recipe.
pub(super) const ALL: &[&Recipe] = &[
    &HOST,
    &NEWER_HOST,
    &GUEST,
    &DOCUMENTED,
    &TOOLS,
    &NIX,
    &DOCKER,
];

const DOCUMENTATION: &[&str] = &[
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
];

/// The test host: what an operator's machine has, and the tools of tests.
pub const HOST: Recipe = Recipe {
    name: "host",
    suite: SUITE,
    variant: "minbase",
    packages: &[
        "systemd",
        "systemd-sysv",
        "systemd-container",
        "dbus",
        "polkitd",
        "nftables",
        "iproute2",
        "e2fsprogs",
        "util-linux",
        "mount",
        "kmod",
        "procps",
    ],
    optional: &[
        "iputils-ping",
        "xfsprogs",
        "netcat-openbsd",
        "socat",
        "strace",
        "python3-minimal",
        "ca-certificates",
    ],
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

/// The test host with a newer systemd.
pub(super) const NEWER_HOST: Recipe = Recipe {
    suite: "forky",
    ..HOST
};

/// Returns the description of a test host.
#[must_use]
pub fn host(release: Release) -> &'static Recipe {
    match release {
        Release::Trixie => &HOST,
        Release::Forky => &NEWER_HOST,
    }
}

/// The image's root filesystem before `runner-controller prepare-image`: a plain Debian with the tools
/// that jobs of the demo need.
pub const GUEST: Recipe = Recipe {
    name: "guest",
    suite: SUITE,
    variant: "minbase",
    packages: &[
        "systemd",
        "systemd-sysv",
        "dbus",
        "bash",
        // The first program of a root that has no libraries yet.
        "busybox-static",
        "coreutils",
        "iproute2",
        "procps",
        "gcc",
        "libc6-dev",
        "make",
    ],
    optional: &[
        "iputils-ping",
        "netcat-openbsd",
        "nodejs",
        "python3-minimal",
        "strace",
    ],
    masks: &[],
    files: &[],
    links: &[],
    excluded: DOCUMENTATION,
};

/// The image of `docs/other-hosts.md`, package by package, before `prepare-image`. A test compares the two.
pub const DOCUMENTED: Recipe = Recipe {
    name: "documented",
    suite: SUITE,
    variant: "minbase",
    packages: &[
        "systemd",
        "systemd-sysv",
        "dbus",
        "libicu76",
        "libssl3t64",
        "zlib1g",
        "libstdc++6",
        "libkrb5-3",
        "ca-certificates",
        "git",
        "curl",
    ],
    optional: &[],
    masks: &[],
    files: &[],
    links: &[],
    excluded: DOCUMENTATION,
};

/// Programs that judge the repository's files, in one version on every machine.
pub const TOOLS: Recipe = Recipe {
    name: "tools",
    suite: SUITE,
    variant: "minbase",
    packages: &["just", "nix-bin", "prometheus", "shellcheck"],
    optional: &[],
    masks: &[],
    files: &[],
    links: &[],
    excluded: DOCUMENTATION,
};

/// The base of an image for jobs with Nix. Built by the first test that needs it.
pub const NIX: Recipe = Recipe {
    name: "nix",
    suite: SUITE,
    variant: "minbase",
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
    optional: &[],
    masks: &[],
    files: &[],
    links: &[],
    excluded: DOCUMENTATION,
};

/// The base of an image for jobs with Docker: what jobs find on GitHub's own machines, as far as claims try
/// it. Built by the first test that needs it, in about a minute.
pub const DOCKER: Recipe = Recipe {
    name: "docker",
    suite: SUITE,
    variant: "minbase",
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
        "docker-compose",
        // Container engines without a daemon, and what they need for a user without privileges.
        "podman",
        "buildah",
        "fuse-overlayfs",
        "passt",
        "uidmap",
        // Runtimes that size themselves by the processors that they see.
        "golang-go",
        "nodejs",
        "openjdk-21-jdk-headless",
        "python3-minimal",
        // Logins and sessions. netbase brings a hosts file.
        "dbus-user-session",
        "libpam-systemd",
        "netbase",
        "openssh-client",
        "openssh-server",
        "sudo",
    ],
    optional: &[],
    masks: &[],
    files: &[],
    links: &[],
    excluded: &[
        // The Java package fails without the directories.
        "/usr/share/man/*.gz",
        "/usr/share/doc/*",
        "/usr/share/locale/*",
        "/usr/share/info/*",
        // A quarter of a gigabyte that no program reads when it runs or compiles.
        "/usr/lib/jvm/*/jmods/*",
        "/usr/share/go-*/test/*",
    ],
};
