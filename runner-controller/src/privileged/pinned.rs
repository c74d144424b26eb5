//! The rules of a running unit, kept while it runs.
//!
//! systemd reads a unit's files again at every `daemon-reload`. A lowered `MemoryMax=` would kill running
//! jobs, and without the pool's template a running unit would lose its limits, its device policy and its
//! `ExecStopPost=`. So the launcher writes the template, with its drop-ins, as the file of this one unit,
//! which systemd prefers to a template. The sweep removes the file. Its directory is on tmpfs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::atomic_file;
use crate::pool::SlotId;

/// Directory for the files of running units (systemd.unit(5), "Unit File Load Path").
const UNITS: &str = "/run/systemd/system";

/// Directories of unit files, in the order in which systemd prefers them.
const SEARCHED: [&str; 4] = [
    "/etc/systemd/system",
    UNITS,
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
];

/// First line of every file, by which an operator's own file is told apart.
const MARK: &str =
    "# The rules with which this runner started. The sweep of its slot removes this file.\n";

/// Returns the path of a slot's file, whether or not it exists.
pub(crate) fn path(id: &SlotId) -> PathBuf {
    Path::new(UNITS).join(id.unit())
}

/// Returns the slots that have such a file.
pub(crate) fn pinned() -> impl Iterator<Item = SlotId> {
    fs::read_dir(UNITS)
        .into_iter()
        .flatten()
        .filter_map(|entry| SlotId::from_unit(entry.ok()?.file_name().to_str()?))
        .filter(|id| is_ours(&path(id)))
}

/// Writes the file of a unit that starts. Returns its rules.
///
/// # Errors
///
/// Fails if an earlier runner left a file with other rules, because systemd started this unit under
/// them. The file is gone then, so the next start is right.
pub(crate) fn pin(id: &SlotId) -> io::Result<String> {
    let path = path(id);
    let text = rules(
        &SEARCHED.map(Path::new),
        &format!("runner-{}@.service", id.pool),
    )?;
    match fs::read_to_string(&path) {
        Ok(old) if old == text => return Ok(text),
        Ok(old) if old.starts_with(MARK) => {
            fs::remove_file(&path)?;
            let why = "an earlier runner left other rules; the next start has the present ones";
            return Err(io::Error::other(why));
        }
        // An operator's file for this one slot stands, and is not ours to replace.
        Ok(own) => return Ok(own),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    atomic_file::replace(&path, text.as_bytes(), 0o644)?;
    Ok(text)
}

/// Removes the file of a unit that has ended. An absent one counts as removed.
pub(crate) fn release(id: &SlotId) -> io::Result<()> {
    let path = path(id);
    if is_ours(&path) {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(MARK))
}

/// Returns a template and its drop-ins as one text. A later setting wins, as in drop-ins.
fn rules(searched: &[&Path], template: &str) -> io::Result<String> {
    let file = searched
        .iter()
        .map(|dir| dir.join(template))
        .find(|file| file.exists())
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("{template} is missing")))?;
    let mut text = MARK.to_owned() + &fs::read_to_string(file)?;
    // By name, and of one name the file in the first directory (systemd.unit(5)).
    let mut drop_ins = BTreeMap::new();
    for dir in searched.iter().rev() {
        let entries = fs::read_dir(dir.join(format!("{template}.d"))).into_iter();
        for entry in entries.flatten() {
            let entry = entry?;
            if Path::new(&entry.file_name()).extension() == Some("conf".as_ref()) {
                drop_ins.insert(entry.file_name(), entry.path());
            }
        }
    }
    for file in drop_ins.values() {
        text.push('\n');
        text.push_str(&fs::read_to_string(file)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_follow_the_template_by_name_and_the_first_directory_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (etc, run) = (dir.path().join("etc"), dir.path().join("run"));
        for (dir, name, text) in [
            (&etc, "x@.service", "[Service]\n"),
            (&run, "x@.service", "unused\n"),
            (&run, "x@.service.d/b.conf", "b of run\n"),
            (&etc, "x@.service.d/b.conf", "b of etc\n"),
            (&run, "x@.service.d/a.conf", "a of run\n"),
            (&run, "x@.service.d/notes", "unused\n"),
        ] {
            let file = dir.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let text = rules(&[&etc, &run], "x@.service").unwrap();
        assert_eq!(text, format!("{MARK}[Service]\n\na of run\n\nb of etc\n"));
        let error = rules(&[&etc], "y@.service").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
