//! Maxima of the machine that a test host cannot set. They are higher while a test host runs.
//!
//! The test hosts of several beds share them. So the values from before are in a file of the machine, and the end of
//! the last test host restores them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Names of the maxima, and their values for test hosts. Less than the host files ask for, and more than any one
/// container may have.
const MAXIMA: [(&str, u64); 4] = [
    ("fs/aio-max-nr", 1 << 22),
    ("fs/inotify/max_user_instances", 1 << 16),
    ("fs/inotify/max_user_watches", 1 << 21),
    ("kernel/pty/max", 1 << 14),
];
/// Directory of the settings.
const SETTINGS: &str = "/proc/sys";
/// File of the values from before. A power cycle removes it together with the raised values.
const EARLIER: &str = "/run/rc-testbed-maxima.json";

/// A maximum before and while test hosts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Raised {
    from: u64,
    to: u64,
}

/// Raises the maxima. Best effort, like the modules: a machine in a container cannot raise them.
pub(super) fn raise() {
    raise_in(Path::new(SETTINGS), Path::new(EARLIER)).ok();
}

/// Restores the maxima, unless a test host of another bed still runs.
pub(super) fn restore() -> Result<()> {
    if another_host_runs()? {
        return Ok(());
    }
    restore_in(Path::new(SETTINGS), Path::new(EARLIER))
}

fn raise_in(settings: &Path, earlier: &Path) -> Result<()> {
    let mut raised = BTreeMap::new();
    for (name, to) in MAXIMA {
        match read(&settings.join(name)) {
            Some(from) if from < to => raised.insert(name, Raised { from, to }),
            _ => None,
        };
    }
    if raised.is_empty() {
        return Ok(());
    }
    // The file is whole before a value changes. If another test host has written it, its values are older.
    let dir = earlier.parent().context("a file has a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&serde_json::to_vec(&raised)?)?;
    match file.persist_noclobber(earlier) {
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    for (name, Raised { to, .. }) in raised {
        fs::write(settings.join(name), to.to_string())?;
    }
    Ok(())
}

fn restore_in(settings: &Path, earlier: &Path) -> Result<()> {
    let text = match fs::read(earlier) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        read => read.with_context(|| format!("read {}", earlier.display()))?,
    };
    let raised: BTreeMap<String, Raised> = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not as written", earlier.display()))?;
    for (name, Raised { from, to }) in raised {
        let file = settings.join(name);
        // Another program's value stays.
        if read(&file) == Some(to) {
            fs::write(&file, from.to_string())
                .with_context(|| format!("restore {}", file.display()))?;
        }
    }
    fs::remove_file(earlier).with_context(|| format!("remove {}", earlier.display()))
}

fn read(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Returns true if the systemd-nspawn of a test host runs, whichever bed it belongs to.
fn another_host_runs() -> Result<bool> {
    for entry in fs::read_dir("/proc")? {
        // A process that ends meanwhile is not a test host any more.
        let Ok(arguments) = fs::read(entry?.path().join("cmdline")) else {
            continue;
        };
        let is_host = |word: &[u8]| word.starts_with(b"--machine=rc-testbed-");
        if arguments.split(|byte| *byte == 0).any(is_host) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(pty: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, _) in MAXIMA {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "128\n").unwrap();
        }
        fs::write(dir.path().join("kernel/pty/max"), pty).unwrap();
        dir
    }

    #[test]
    fn the_last_host_restores_the_values_from_before_the_first() {
        let dir = machine("1048576\n");
        let (settings, earlier) = (dir.path(), dir.path().join("earlier"));
        let of = |name: &str| read(&settings.join(name)).unwrap();
        raise_in(settings, &earlier).unwrap();
        assert_eq!(of("fs/inotify/max_user_instances"), 1 << 16);
        assert_eq!(of("kernel/pty/max"), 1 << 20);
        raise_in(settings, &earlier).unwrap();
        // Another program sets a maximum meanwhile.
        fs::write(settings.join("fs/aio-max-nr"), "5000000").unwrap();
        restore_in(settings, &earlier).unwrap();
        assert_eq!(of("fs/inotify/max_user_instances"), 128);
        assert_eq!(of("fs/aio-max-nr"), 5_000_000);
        assert_eq!(of("kernel/pty/max"), 1 << 20);
        assert!(!earlier.exists());
        restore_in(settings, &earlier).unwrap();
    }
}
