//! Small disks for records and for layers, so that they can be full while the machine's is not.

use anyhow::{Context, Result};

use crate::lab::Lab;

/// Beside the layers, on a disk.
const DIR: &str = "/var/lib/runner-layers";
/// What fills a disk, in its top directory.
const FILL: &str = ".fill";

/// One disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// The daemon's records.
    State,
    /// Layers of pools with layers on disk.
    Layers,
}

impl Disk {
    const BOTH: [Self; 2] = [Self::State, Self::Layers];

    fn file(self) -> String {
        match self {
            Self::State => format!("{DIR}/state.img"),
            Self::Layers => format!("{DIR}/layers.img"),
        }
    }

    fn size(self) -> &'static str {
        match self {
            Self::State => "64M",
            Self::Layers => "1G",
        }
    }

    fn place(self, lab: &Lab) -> String {
        match self {
            Self::State => "/var/lib/runner-controller".into(),
            Self::Layers => lab.host().layer_dir(),
        }
    }
}

/// Makes the disks, empty.
pub(super) fn make(lab: &Lab) -> Result<()> {
    for disk in Disk::BOTH {
        let (file, size, place) = (disk.file(), disk.size(), disk.place(lab));
        lab.host()
            .sh(&format!(
                "! umount {place} 2>/dev/null; rm -f {file}; truncate -s {size} {file}; mkfs.ext4 -q -F -m 0 {file}; mkdir -p {place}; \
                 mount -o loop {file} {place}; rmdir {place}/lost+found"
            ))
            .with_context(|| format!("make a disk for {place}"))?;
    }
    Ok(())
}

/// Mounts them again, after the host lost power. A full one is no longer.
pub(super) fn mount(lab: &Lab) -> Result<()> {
    for disk in Disk::BOTH {
        let (file, place) = (disk.file(), disk.place(lab));
        lab.host().sh(&format!(
            "mkdir -p {place}; mount -o loop {file} {place}; rm -f {place}/{FILL}*"
        ))?;
    }
    Ok(())
}

/// Takes them away, with what is on them.
pub(super) fn remove(lab: &Lab) -> Result<()> {
    for disk in Disk::BOTH {
        let (file, place) = (disk.file(), disk.place(lab));
        lab.host().sh(&format!("umount {place}; rm -f {file}"))?;
    }
    Ok(())
}

/// Leaves not a byte: what is free at once, then byte by byte until the disk refuses.
pub(super) fn fill(lab: &Lab, disk: Disk) -> Result<()> {
    let place = disk.place(lab);
    lab.host()
        .sh(&format!(
            "free=$(df --output=avail -B1 {place} | tail -n 1)\n\
             [ \"$free\" -lt 2097152 ] || fallocate -l $((free - 1048576)) {place}/{FILL}\n\
             ! cat /dev/zero >{place}/{FILL}-rest 2>/dev/null"
        ))
        .map(drop)
}

/// Room again.
pub(super) fn release(lab: &Lab, disk: Disk) -> Result<()> {
    let place = disk.place(lab);
    lab.host().sh(&format!("rm -f {place}/{FILL}*")).map(drop)
}
