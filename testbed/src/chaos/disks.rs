//! Small disks for the daemon's records and for layers, so that a fault can fill one and spare the machine's own.

use anyhow::{Context, Result};

use crate::lab::Lab;

/// Directory of the disks' image files.
const DIR: &str = "/var/lib/runner-layers";
/// Name of the file that fills a disk, in its top directory.
const FILL: &str = ".fill";

/// A disk that a fault can fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// Disk of the daemon's records.
    Records,
    /// Disk of the layers of pools whose layers are on disk.
    Layers,
}

impl Disk {
    const BOTH: [Self; 2] = [Self::Records, Self::Layers];

    fn file(self) -> String {
        match self {
            Self::Records => format!("{DIR}/records.img"),
            Self::Layers => format!("{DIR}/layers.img"),
        }
    }

    fn size(self) -> &'static str {
        match self {
            Self::Records => "64M",
            Self::Layers => "1G",
        }
    }

    fn place(self, lab: &Lab) -> String {
        match self {
            Self::Records => "/var/lib/runner-controller".into(),
            Self::Layers => lab.host().layer_dir(),
        }
    }
}

/// Creates both disks, empty.
pub(super) fn make(lab: &Lab) -> Result<()> {
    for disk in Disk::BOTH {
        let (file, size, place) = (disk.file(), disk.size(), disk.place(lab));
        lab.host()
            .sh(&format!(
                "! umount {place} 2>/dev/null; rm -f {file}; truncate -s {size} {file}; mkfs.ext4 -q -F -m 0 {file}; mkdir -p {place}; \
                 mount -o loop {file} {place}; rmdir {place}/lost+found"
            ))
            .with_context(|| format!("cannot create a disk for {place}"))?;
    }
    Ok(())
}

/// Mounts both disks again after the host lost power, and empties one that was full.
pub(super) fn mount(lab: &Lab) -> Result<()> {
    for disk in Disk::BOTH {
        let (file, place) = (disk.file(), disk.place(lab));
        lab.host().sh(&format!(
            "mkdir -p {place}; mount -o loop {file} {place}; rm -f {place}/{FILL}*"
        ))?;
    }
    Ok(())
}

/// Removes both disks and their contents.
pub(super) fn remove(lab: &Lab) -> Result<()> {
    for disk in Disk::BOTH {
        let (file, place) = (disk.file(), disk.place(lab));
        lab.host().sh(&format!("umount {place}; rm -f {file}"))?;
    }
    Ok(())
}

/// Fills a disk to the last byte: first the free space at once, then small writes until one fails.
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

/// Frees the space that [`fill`] took.
pub(super) fn release(lab: &Lab, disk: Disk) -> Result<()> {
    let place = disk.place(lab);
    lab.host().sh(&format!("rm -f {place}/{FILL}*")).map(drop)
}
