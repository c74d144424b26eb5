//! Reads from apt's output which packages a mirror did not deliver.

use std::fmt;

/// A file or a package that a mirror did not deliver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Undelivered {
    /// The package; the file's name if it is not a package.
    pub package: String,
    /// The reason, in apt's words.
    pub reason: String,
}

impl fmt::Display for Undelivered {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} ({})", self.package, self.reason)
    }
}

/// Returns what the mirror did not deliver, by the lines that apt ended with.
#[must_use]
pub fn read(log: &str) -> Vec<Undelivered> {
    let mut found: Vec<Undelivered> = log.lines().filter_map(line).collect();
    found.sort();
    found.dedup_by(|a, b| a.package == b.package);
    found
}

fn line(line: &str) -> Option<Undelivered> {
    let said = line.trim_start().strip_prefix("E: ")?;
    if let Some(rest) = said.strip_prefix("Failed to fetch ") {
        let (url, reason) = rest.split_once(' ')?;
        let file = url.rsplit('/').next().unwrap_or(url);
        // NAME_VERSION_ARCHITECTURE.deb; a name has no underscore.
        let package = match file.split_once('_') {
            Some((name, _)) if file.ends_with("deb") => name,
            _ => file,
        };
        // The address behind the reason tells nothing.
        let reason = reason.split("[IP:").next().unwrap_or_default();
        return Some(Undelivered {
            package: package.to_owned(),
            reason: reason.split_whitespace().collect::<Vec<_>>().join(" "),
        });
    }
    let unknown = said.strip_prefix("Unable to locate package ").or_else(|| {
        said.strip_prefix("Package '")?
            .strip_suffix("' has no installation candidate")
    })?;
    Some(Undelivered {
        package: unknown.to_owned(),
        reason: "not in the index".to_owned(),
    })
}

/// Returns the packages and reasons in one line, if the log names any.
#[must_use]
pub fn summary(log: &str) -> Option<String> {
    let found = read(log);
    let words: Vec<String> = found.iter().map(ToString::to_string).collect();
    (!words.is_empty()).then(|| format!("the mirror did not deliver {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_with_apts_reason() {
        let log = "\
W: Download is performed unsandboxed as root
E: Failed to fetch http://mirror/debian/pool/main/z/zlib/zlib1g_1.3.dfsg%2b1_amd64.deb  404  Not Found [IP: 192.0.2.1 80]
E: Failed to fetch http://mirror/debian/pool/main/g/gcc/gcc_14_amd64.deb  Hash Sum mismatch
E: Failed to fetch http://mirror/debian/dists/trixie/main/binary-amd64/Packages.xz  Connection failed
E: Unable to locate package straze
E: Package 'nodejs' has no installation candidate
E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?
";
        let found: Vec<String> = read(log).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "Packages.xz (Connection failed)",
                "gcc (Hash Sum mismatch)",
                "nodejs (not in the index)",
                "straze (not in the index)",
                "zlib1g (404 Not Found)",
            ]
        );
    }

    #[test]
    fn a_log_without_a_package_has_no_summary() {
        assert_eq!(summary("E: no space left"), None);
    }
}
