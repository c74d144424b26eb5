//! Bundles of the log files of listeners that ended: one compressed text for each runner.
//!
//! Root writes them into a directory that the daemon's group may read. Everything in a bundle was bounded, freed of
//! secrets and made safe for a terminal before it was written.
//!
//! - `name`: the name of a bundle
//! - `retention`: the bundles that must go

mod name;
mod retention;

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::terminal;

pub(crate) use name::{Bundle, BundleName};
pub(crate) use retention::Limits;

/// Mode of a bundle. The directory gives it the group.
const MODE: u32 = 0o640;
/// Maximum size of a bundle's text when it is read, above that of every bundle that root writes.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Age at which an unfinished file has no writer any more. A sweep has less time.
const UNFINISHED: Duration = Duration::from_hours(1);

/// Returns the bundles in a directory, the newest first. A directory that does not exist has none.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<Bundle>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut bundles = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        match entry.metadata() {
            Ok(seen) => bundles.push(Bundle {
                name,
                bytes: seen.blocks() * 512,
            }),
            // Another sweep removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    bundles.sort();
    bundles.reverse();
    Ok(bundles)
}

/// Returns the path of a bundle.
#[must_use]
pub(crate) fn path(dir: &Path, name: &BundleName) -> PathBuf {
    dir.join(name.to_string())
}

/// Returns a bundle's text, safe for a terminal.
pub(crate) fn read(dir: &Path, name: &BundleName) -> io::Result<String> {
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(path(dir, name))?)
        .take(MAX_TEXT_BYTES)
        .read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(|line| terminal::plain(line).into_owned());
    Ok(lines.map(|line| line + "\n").collect())
}

/// Writes a bundle, and removes those that the limits allow no more. Returns false if they do not allow this one.
///
/// It appears as a whole. It is not flushed to disk, because a power failure that takes it takes little, and every
/// runner's end would wait for the disk.
pub(crate) fn write(
    dir: &Path,
    name: &BundleName,
    text: &str,
    limits: &Limits,
) -> io::Result<bool> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    let contents = encoder.finish()?;
    let new = Bundle {
        name: name.clone(),
        bytes: retention::on_disk(contents.len()),
    };
    let mut bundles = list(dir)?;
    bundles.retain(|bundle| bundle.name != *name);
    bundles.insert(0, new);
    let surplus = retention::surplus(&bundles, limits, name.ended_unix_ms);
    for bundle in &surplus {
        if bundle.name != *name {
            remove(&path(dir, &bundle.name))?;
        }
    }
    remove_unfinished(dir)?;
    if surplus.iter().any(|bundle| bundle.name == *name) {
        return Ok(false);
    }
    let mut file = tempfile::Builder::new()
        .prefix(".new.")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(dir)?;
    file.write_all(&contents)?;
    file.persist(path(dir, name))?;
    Ok(true)
}

/// Removes files that killed writers left.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let written = entry.metadata().and_then(|seen| seen.modified());
        let age = written.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age > UNFINISHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
