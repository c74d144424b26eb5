//! Replacement of a file in one step.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Replaces a file, or creates it, with these contents and this mode.
///
/// A reader sees the old file or the new one, and never a part. Two writers do not disturb each
/// other. A killed writer leaves a file with another name, which starts with a dot.
pub(crate) fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidFilename));
    };
    let prefix = format!(".{}.", name.to_string_lossy());
    let mut new = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    new.write_all(contents)?;
    let file = new.as_file();
    // The umask may have removed bits. A sandboxed writer may not change a mode, and need not.
    if file.metadata()?.permissions().mode() & 0o7777 != mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.sync_all()?;
    new.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (contents, mode) in [("old", 0o600), ("new", 0o666)] {
            replace(&path, contents.as_bytes(), mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
            let seen = path.metadata().unwrap().permissions().mode();
            assert_eq!(seen & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_at_the_same_time_publish_only_whole_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::thread::scope(|scope| {
            for digit in *b"abcd" {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        replace(path, &[digit; 4096], 0o644).unwrap();
                        let seen = fs::read(path).unwrap();
                        assert!(seen.len() == 4096 && seen.iter().all(|byte| *byte == seen[0]));
                    }
                });
            }
        });
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("child"), "").unwrap();
        replace(&path, b"x", 0o644).unwrap_err();
        assert!(path.join("child").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
