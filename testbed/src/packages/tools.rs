//! Programs that the test host needs on this machine.

use std::path::Path;

use anyhow::Result;

use super::apt::Apt;
use crate::bed::{Bed, note};

/// A file of each program, and the package that has it.
const TOOLS: &[(&str, &str)] = &[
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/systemd-nspawn", "systemd-container"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/cp", "coreutils"),
    (
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
];

/// Programs that the virtual machine needs besides.
pub const FOR_QEMU: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/cpio", "cpio"),
    ("/usr/sbin/modprobe", "kmod"),
    ("/usr/sbin/mke2fs", "e2fsprogs"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/xz", "xz-utils"),
];

/// The browser that looks at the daemon's page, and its driver.
pub const FOR_BROWSER: &[(&str, &str)] = &[
    ("/usr/bin/chromium", "chromium"),
    ("/usr/bin/chromedriver", "chromium-driver"),
];

/// The program that measures throughput.
pub const FOR_BENCH_NETWORK: &[(&str, &str)] = &[("/usr/bin/iperf3", "iperf3")];

/// Installs the programs that this machine lacks.
pub fn install(bed: &Bed) -> Result<()> {
    install_these(bed, TOOLS)
}

/// Installs those of these programs that this machine lacks, with apt.
pub fn install_these(bed: &Bed, tools: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = tools
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    note(&format!("installing with apt: {}", missing.join(" ")));
    Apt::new(bed.path("apt.log")).install(&missing)
}
