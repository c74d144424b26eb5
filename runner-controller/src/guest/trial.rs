//! The trial of the listener: its first start in a throw-away container of the image, which shows that
//! the image has the libraries that it needs.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::terminal;

/// Debian packages that GitHub's listener, a .NET program, needs, and without which it aborts. The names
/// of the first two contain the version; these are those of Debian 13.
pub const NEEDED_PACKAGES: [&str; 6] = [
    "libicu76",
    "libssl3t64",
    "zlib1g",
    "libstdc++6",
    "libkrb5-3",
    "ca-certificates",
];
/// Debian packages that most workflows need.
pub const ADVISED_PACKAGES: [&str; 2] = ["git", "curl"];

/// Listener in its directory.
pub(super) const LISTENER: &str = "bin/Runner.Listener";
/// Line that the container writes before the listener starts. Without it the container did not start.
const STARTED: &str = "the container of the trial started";
/// Time after which the container is killed, in seconds. A trial takes a fraction of one.
const TIMEOUT_S: &str = "30";
/// Maximum length of a quoted line, in characters.
const MAX_QUOTED: usize = 200;

/// Outcome of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// The listener starts, and this is its version.
    Version(String),
    /// The listener cannot start. The text quotes it and names packages.
    Failed(String),
    /// No container could be started on this machine.
    Untried(String),
}

/// Starts the listener of an image in a container without a network, which writes nothing to the image.
///
/// `runner_root` is the listener's directory in the image, absolute.
#[must_use]
pub fn try_listener(image: &Path, runner_root: &Path) -> Trial {
    match start(image, runner_root) {
        Ok(output) => judge(&output),
        Err(error) => Trial::Untried(format!("cannot run systemd-nspawn: {error}")),
    }
}

fn start(image: &Path, runner_root: &Path) -> io::Result<Output> {
    let listener = runner_root.join(LISTENER);
    let script = format!("echo '{STARTED}'; exec \"$0\" --version");
    let mut option = std::ffi::OsString::from("--directory=");
    option.push(image);
    Command::new("timeout")
        .args(["--kill-after=2", TIMEOUT_S, "systemd-nspawn"])
        .args(["--quiet", "--settings=no", "--register=no", "--keep-unit"])
        .arg(format!("--machine=runner-trial-{}", std::process::id()))
        .arg(option)
        // Everything that it writes is in memory, and its root has no rights on the host. The files of
        // the image belong to no user of the container, which is enough to read them.
        .args(["--volatile=overlay", "--private-users=pick"])
        .args(["--private-users-ownership=off", "--private-network"])
        .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
        // The listener opens a log file before all else.
        .arg(format!(
            "--tmpfs={}:mode=1777",
            runner_root.join("_diag").display()
        ))
        .args(["--console=pipe", "--as-pid2", "--user=runner"])
        .args(["/bin/sh", "-c", &script])
        .arg(listener)
        .stdin(Stdio::null())
        .output()
}

fn judge(output: &Output) -> Trial {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lines = stdout.lines().map(str::trim);
    if lines.next() != Some(STARTED) {
        let reason = quoted(stderr.lines()).unwrap_or_else(|| output.status.to_string());
        return Trial::Untried(format!("systemd-nspawn started no container: {reason}"));
    }
    let version = lines.clone().next().unwrap_or_default();
    if output.status.success() && is_version(version) {
        return Trial::Version(version.to_owned());
    }
    let said = quoted(stderr.lines()).or_else(|| quoted(lines));
    let said = said.unwrap_or_else(|| "it wrote nothing".to_owned());
    Trial::Failed(format!(
        "the runner cannot start in the image ({}): {said}; Debian's packages for it are {}, and most \
         workflows need {}",
        output.status,
        NEEDED_PACKAGES.join(" "),
        ADVISED_PACKAGES.join(" and "),
    ))
}

fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 3
        && parts
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the first line with a text, escaped and bounded.
fn quoted<'a>(lines: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut lines = lines.map(str::trim);
    let line = lines.find(|line| !line.is_empty())?;
    let line: String = terminal::plain(line).chars().take(MAX_QUOTED).collect();
    Some(line)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn output(status: i32, stdout: &str, stderr: &str) -> Output {
        Output {
            status: ExitStatus::from_raw(status << 8),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn a_listener_that_starts_tells_its_version() {
        let good = output(0, &format!("{STARTED}\n2.336.0\n"), "");
        assert_eq!(judge(&good), Trial::Version("2.336.0".into()));
    }

    #[test]
    fn a_listener_that_aborts_is_quoted_and_its_packages_are_named() {
        let abort =
            "\nProcess terminated. Couldn't find a valid ICU package\x1b[2J\n   at System.X\n";
        let Trial::Failed(text) = judge(&output(134, &format!("{STARTED}\n"), abort)) else {
            panic!("it failed");
        };
        for part in [
            "valid ICU package\\u{1b}[2J;",
            "libicu",
            "libkrb5-3",
            "git and curl",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("System.X"), "{text}");
        let silent = judge(&output(0, &format!("{STARTED}\nhello\n"), ""));
        assert!(matches!(silent, Trial::Failed(text) if text.contains("hello")));
    }

    #[test]
    fn a_machine_without_containers_tries_nothing() {
        let refused = judge(&output(1, "", "Need to be root.\n"));
        let wanted = "systemd-nspawn started no container: Need to be root.";
        assert_eq!(refused, Trial::Untried(wanted.into()));
    }
}
