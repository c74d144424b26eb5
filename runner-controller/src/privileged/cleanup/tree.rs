//! The removal of directory trees that a job or the daemon made.
//!
//! Such a tree has any depth and may change meanwhile, so no path into it is ever built. The walk
//! holds one open directory, goes down by a name without following links, and goes up by `..` only to
//! the directory that it came from. It stops at a deadline.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, chmodat, fstat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

/// Pause before a directory that is in use is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// Depth at which a tree of files is cut in two. So a deadline never meets a walk that is still on its
/// way down, and every sweep leaves less to the next one.
const CUT_DEPTH: usize = 1_000;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Files that a tree contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// Files that are removed as well.
    Removable,
    /// The kernel's files of a control group, which disappear with its directory.
    Kernel,
}

/// Directory above the current one, and the name that leads down from it.
struct Level {
    parent: (u64, u64),
    name: CString,
}

/// Removes the directory `name` in `parent` with everything below it. An absent one is removed.
///
/// # Errors
///
/// The first failure, or [`io::ErrorKind::TimedOut`] at the deadline. A retry continues, because
/// nothing comes back.
pub(crate) fn remove(
    parent: &OwnedFd,
    name: &CStr,
    files: Files,
    deadline: Instant,
) -> io::Result<()> {
    while let Some(top) = remove_or_open(parent, name)? {
        clear(top, files, deadline)?;
        if unlinkat(parent, name, AtFlags::REMOVEDIR) == Err(Errno::BUSY) {
            std::thread::sleep(RETRY);
        }
    }
    Ok(())
}

/// Removes everything below an open directory.
///
/// # Errors
///
/// As [`remove`].
pub(crate) fn clear(top: OwnedFd, files: Files, deadline: Instant) -> io::Result<()> {
    let mut current = openat(&top, ".", DIRECTORY, Mode::empty())?;
    let mut levels: Vec<Level> = Vec::new();
    let mut cuts = 0_u64;
    loop {
        if Instant::now() >= deadline {
            let text = format!("not done in time, at depth {}", levels.len());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        if let Some((name, below)) = empty(&current, files, deadline)? {
            if files == Files::Removable && levels.len() >= CUT_DEPTH {
                cuts += 1;
                match renameat(&current, &name, &top, format!("cut-{cuts}")) {
                    Ok(()) | Err(Errno::NOENT | Errno::EXIST | Errno::NOTEMPTY) => {}
                    Err(error) => return Err(error.into()),
                }
                current = openat(&current, ".", DIRECTORY, Mode::empty())?;
                continue;
            }
            let parent = identity(&current)?;
            levels.push(Level { parent, name });
            current = below;
            continue;
        }
        let Some(level) = levels.last() else {
            return Ok(());
        };
        let above = openat(&current, "..", DIRECTORY, Mode::empty())?;
        if identity(&above)? != level.parent {
            return Err(io::Error::other("another process moved it meanwhile"));
        }
        match unlinkat(&above, &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {
                levels.pop();
                current = above;
            }
            // A control group with processes that are about to end, or a new entry.
            Err(Errno::BUSY | Errno::NOTEMPTY) => {
                std::thread::sleep(RETRY);
                current = openat(&current, ".", DIRECTORY, Mode::empty())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn identity(dir: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Removes the entries of a freshly opened directory until a directory is not empty, and returns that
/// one.
fn empty(dir: &OwnedFd, files: Files, deadline: Instant) -> io::Result<Option<(CString, OwnedFd)>> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if entry.file_type() != FileType::Directory {
            if files == Files::Kernel {
                continue;
            }
            match unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // A directory has taken its place.
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(below) = remove_or_open(dir, name)? {
            return Ok(Some((name.to_owned(), below)));
        }
    }
    Ok(None)
}

/// Removes an empty directory, or opens one that is not empty.
fn remove_or_open(dir: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(error) => return Err(error.into()),
    }
    let open = || openat(dir, name, DIRECTORY, Mode::empty());
    match open() {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::ACCESS) => {
            // Only a walk with its owner's rights comes here, and changes only what is its owner's.
            chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            Ok(Some(open()?))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use rustix::fs::mkdirat;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    fn remove_below(dir: &Path, deadline: Instant) -> io::Result<()> {
        remove(
            &File::open(dir)?.into(),
            c"tree",
            Files::Removable,
            deadline,
        )
    }

    #[test]
    fn a_tree_goes_with_its_files_and_what_its_links_lead_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir_all(tree.join("closed/below")).unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::write(tree.join("a/file"), "text").unwrap();
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(dir.path().join("other/file"), "text").unwrap();
        symlink("../../other", tree.join("a/link")).unwrap();
        remove_below(dir.path(), later()).unwrap();
        assert!(!tree.exists());
        assert!(dir.path().join("other/file").exists());
        remove_below(dir.path(), later()).unwrap();
    }

    #[test]
    fn a_link_in_the_place_of_a_tree_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("other/below")).unwrap();
        symlink("other", dir.path().join("tree")).unwrap();
        let error = remove_below(dir.path(), later()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert!(dir.path().join("other/below").exists());
    }

    /// Makes a chain of directories that is deeper than any path can be.
    fn chain(dir: &Path, depth: usize) {
        let mut at: OwnedFd = File::open(dir).unwrap().into();
        let mut name = c"tree";
        for _ in 0..depth {
            mkdirat(&at, name, Mode::RWXU).unwrap();
            at = openat(&at, name, DIRECTORY, Mode::empty()).unwrap();
            name = c"d";
        }
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        chain(dir.path(), 2 * CUT_DEPTH + 500);
        remove_below(dir.path(), later()).unwrap();
        assert!(!dir.path().join("tree").exists());
    }

    #[test]
    fn a_removal_stops_at_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree/below")).unwrap();
        let error = remove_below(dir.path(), Instant::now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        remove_below(dir.path(), later()).unwrap();
    }
}
