//! The kernel's accounts of a host's control groups and processes, read from outside the host.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::TestHost;

/// Returns the processor time of a control group of the host and of all that it ever had below it. It counts
/// microseconds; the times of a process have steps of 10 ms. The host's root is `/`.
pub(super) fn cpu(host: &TestHost, cgroup: &str) -> Result<Duration> {
    let text = cgroup_file(host, cgroup, "cpu.stat")?;
    field(&text, "usage_usec")
        .map(Duration::from_micros)
        .with_context(|| format!("cannot read usage_usec of the control group {cgroup}"))
}

/// Reads a file of a control group of the host.
pub(super) fn cgroup_file(host: &TestHost, cgroup: &str, file: &str) -> Result<String> {
    let path = host.path(&format!("/sys/fs/cgroup/{cgroup}/{file}"));
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Returns the number after a name in a file of the kernel.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_after_its_name() {
        assert_eq!(
            field("usage_usec 4711\nuser_usec 3\n", "usage_usec"),
            Some(4711)
        );
        assert_eq!(field("VmRSS:\t   15040 kB\n", "VmRSS:"), Some(15040));
        assert_eq!(field("", "VmRSS:"), None);
    }
}
