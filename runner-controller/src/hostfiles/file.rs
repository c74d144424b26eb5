//! A file of the host as a value, and the syntax of unit files.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings of a service that has no capability, writes no file and sees no device.
pub(crate) const UNPRIVILEGED: &str = "\
AmbientCapabilities=
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes";

/// Settings of a service that neither changes the kernel nor sees the processes of others.
pub(crate) const CLOSED_KERNEL: &str = "\
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible";

/// A file of the host. Its owner is root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// Absolute path.
    pub path: PathBuf,
    /// Mode bits.
    pub mode: u32,
    /// Contents.
    pub text: String,
}

impl HostFile {
    pub(crate) fn new(path: impl Into<PathBuf>, text: String) -> Self {
        Self {
            path: path.into(),
            mode: 0o644,
            text,
        }
    }

    pub(crate) fn unit(name: &str, text: String) -> Self {
        Self::new(Path::new("/etc/systemd/system").join(name), text)
    }
}

/// Paths of the program and its configuration, for the command lines of units.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) config: &'a Path,
}

impl Program<'_> {
    /// Returns a command line for a unit. The arguments must not need quoting.
    pub(crate) fn call(self, arguments: &str) -> String {
        format!(
            "{} --config {} {arguments}",
            quoted(self.binary),
            quoted(self.config)
        )
    }
}

/// Returns a path as one word of a unit's command line (systemd.service(5), "Command lines").
pub(super) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@=:,~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    let mut word = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            '%' | '$' => word.extend([c, c]),
            other => word.push(other),
        }
    }
    word.push('"');
    word
}

/// Returns a time span for a unit.
pub(crate) fn span(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_command_line() {
        assert_eq!(quoted(Path::new("/usr/bin/x-1")), "/usr/bin/x-1");
        assert_eq!(quoted(Path::new("/a b/%i$X\"")), "\"/a b/%%i$$X\\\"\"");
    }
}
