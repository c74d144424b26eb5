//! Disk and network that a runner uses, read while it runs: the layer and the link are gone when its end is recorded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::statfs::fstatfs;

use crate::pool::ResourceUse;
use crate::slot_records;

/// Network devices without hardware, as sysfs has them.
pub(crate) const LINKS: &str = "/sys/devices/virtual/net";
/// Interval of the readings.
pub(crate) const INTERVAL: Duration = Duration::from_secs(10);
/// Minimum time between two readings. A line of the listener, such as that of a job's end, causes one at once.
const PAUSE: Duration = Duration::from_millis(200);

/// Readings of a runner, and the file with the last one. The record of an end has no figures if that fails.
#[derive(Debug)]
pub(crate) struct Meter {
    file: Option<File>,
    /// The container's root directory, whose filesystem tells how full the layer is.
    root: Option<File>,
    /// Counters of the link's end on the host.
    statistics: PathBuf,
    usage: ResourceUse,
    read_at: Option<Instant>,
}

impl Meter {
    /// Creates the file, and opens the root directory of the container.
    pub(crate) fn create(file: &Path, root: &Path, link: &str) -> Self {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(file);
        Self {
            file: file.ok(),
            root: File::open(root).ok(),
            statistics: Path::new(LINKS).join(link).join("statistics"),
            usage: ResourceUse::default(),
            read_at: None,
        }
    }

    /// Reads and keeps the figures, unless the last reading was just now.
    pub(crate) fn read(&mut self, now: Instant) {
        if self
            .read_at
            .is_some_and(|at| now.duration_since(at) < PAUSE)
        {
            return;
        }
        self.read_at = Some(now);
        let before = self.usage;
        self.usage = ResourceUse {
            layer_peak_bytes: self
                .root
                .as_ref()
                .and_then(used)
                .max(before.layer_peak_bytes),
            // The host's end receives what the container sends.
            received_bytes: counter(&self.statistics.join("tx_bytes")).max(before.received_bytes),
            sent_bytes: counter(&self.statistics.join("rx_bytes")).max(before.sent_bytes),
        };
        if self.usage != before {
            // A failure leaves the reading before.
            let _ = self.write();
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.rewind()?;
        file.write_all(&slot_records::usage_bytes(&self.usage))
    }
}

/// Returns the bytes that are in use in the filesystem of an open directory.
fn used(directory: &File) -> Option<u64> {
    let seen = fstatfs(directory).ok()?;
    let blocks = seen.blocks().checked_sub(seen.blocks_free())?;
    blocks.checked_mul(u64::try_from(seen.block_size()).ok()?)
}

fn counter(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_figures_outlive_the_link_and_no_reading_follows_another_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let statistics = dir.path().join("statistics");
        fs::create_dir(&statistics).unwrap();
        let write = |received: &str, sent: &str| {
            fs::write(statistics.join("tx_bytes"), received).unwrap();
            fs::write(statistics.join("rx_bytes"), sent).unwrap();
        };
        let file = dir.path().join("usage");
        let mut meter = Meter {
            statistics: statistics.clone(),
            ..Meter::create(&file, dir.path(), "rc-ci-1")
        };
        let told = || slot_records::parse_usage(&fs::read(&file).unwrap());
        let start = Instant::now();
        write("1000\n", "20\n");
        meter.read(start);
        let first = told();
        assert_eq!(
            (first.received_bytes, first.sent_bytes),
            (Some(1000), Some(20))
        );
        assert!(first.layer_peak_bytes.is_some_and(|bytes| bytes > 0));
        write("3000\n", "40\n");
        meter.read(start + PAUSE / 2);
        assert_eq!(told().received_bytes, Some(1000));
        meter.read(start + PAUSE);
        assert_eq!(told().received_bytes, Some(3000));
        fs::remove_dir_all(&statistics).unwrap();
        meter.read(start + INTERVAL);
        assert_eq!(
            (told().received_bytes, told().sent_bytes),
            (Some(3000), Some(40))
        );
    }
}
