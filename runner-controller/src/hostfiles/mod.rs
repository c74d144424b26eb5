//! The files of a host: units, slices, firewall, polkit rule, directories and user.
//!
//! `runner-controller units` prints or installs them, and the NixOS module renders the same files. They
//! are values that depend only on the configuration, and never on the host.

mod daemon;
pub(crate) mod file;
mod host;
mod mounts;
mod notify;
mod template;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::atomic_file;
use crate::config::Config;
use crate::firewall;

pub use file::HostFile;
use file::Program;
pub use mounts::{MOUNTS_SERVICE, MOUNTS_SOCKET};

/// Returns all files, for a configuration at `config_path` and a program at `binary`.
///
/// Both paths are absolute.
#[must_use]
pub fn render(config: &Config, binary: &Path, config_path: &Path) -> Vec<HostFile> {
    let program = Program {
        binary,
        config: config_path,
    };
    let mut files = Vec::new();
    files.extend(template::files(config, program));
    files.extend(daemon::files(config, program));
    files.extend(mounts::files(config, binary));
    files.extend(notify::files(config));
    files.extend(firewall::files(config, program));
    files.extend(host::files(config));
    files
}

/// Returns the files as one text, each below its path.
#[must_use]
pub fn print(files: &[HostFile]) -> String {
    let mut text = String::new();
    for file in files {
        text.extend(["# ", &file.path.to_string_lossy(), "\n", &file.text, "\n"]);
    }
    text
}

/// Files that earlier versions installed and that the present one does without.
const OBSOLETE: [&str; 4] = [
    "/etc/runner-controller/firewall.nft",
    "/etc/systemd/system/multi-user.target.wants/runner-controller-firewall-check.timer",
    "/etc/systemd/system/runner-controller-firewall-check.service",
    "/etc/systemd/system/runner-controller-firewall-check.timer",
];

/// Removes the files of earlier versions below `root` and returns those that were there.
pub fn remove_obsolete(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for path in OBSOLETE.map(PathBuf::from) {
        let below = root.join(path.strip_prefix("/").unwrap_or(&path));
        match fs::remove_file(&below) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let text = format!("cannot remove {}: {error}", below.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
    Ok(removed)
}

/// Writes the files below `root`, which is `/` on the host itself.
///
/// Each file is replaced in one step. A file with the same contents and mode is not touched. Returns
/// the changed files.
pub fn install(files: &[HostFile], root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut changed = Vec::new();
    for file in files {
        let below = file.path.strip_prefix("/").unwrap_or(&file.path);
        let path = root.join(below);
        let named =
            |why: io::Error| io::Error::new(why.kind(), format!("{}: {why}", path.display()));
        if write_if_changed(file, &path).map_err(named)? {
            changed.push(file.path.clone());
        }
    }
    Ok(changed)
}

/// Creates symlinks to the program beside it, below `root`, for commands such as `runner-status`.
///
/// An existing file or symlink is not touched. Returns the created symlinks.
pub fn link_names(commands: &[&str], binary: &Path, root: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(program)) = (binary.parent(), binary.file_name()) else {
        return Err(io::Error::other("the path of the program has no file name"));
    };
    let mut made = Vec::new();
    for name in commands {
        let path = dir.join(name);
        let link = root.join(path.strip_prefix("/").unwrap_or(&path));
        if link.symlink_metadata().is_ok() {
            continue;
        }
        let named =
            |why: io::Error| io::Error::new(why.kind(), format!("{}: {why}", link.display()));
        fs::create_dir_all(link.parent().unwrap_or(root)).map_err(named)?;
        std::os::unix::fs::symlink(program, &link).map_err(named)?;
        made.push(path);
    }
    Ok(made)
}

/// Returns the files below `root` that are missing or differ, and those of earlier versions that are still there.
pub fn differing(files: &[HostFile], root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let below = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    for file in files {
        let path = below(&file.path);
        match is_same(file, &path) {
            Ok(true) => {}
            Ok(false) => found.push(file.path.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => found.push(file.path.clone()),
            Err(error) => {
                let text = format!("cannot read {}: {error}", path.display());
                return Err(io::Error::new(error.kind(), text));
            }
        }
    }
    let obsolete = OBSOLETE.map(PathBuf::from).into_iter();
    found.extend(obsolete.filter(|path| below(path).symlink_metadata().is_ok()));
    Ok(found)
}

/// Compares contents and mode.
fn is_same(file: &HostFile, path: &Path) -> io::Result<bool> {
    let text = fs::read(path)?;
    let mode = path.metadata()?.permissions().mode() & 0o7777;
    Ok(text == file.text.as_bytes() && mode == file.mode)
}

fn write_if_changed(file: &HostFile, path: &Path) -> io::Result<bool> {
    if is_same(file, path).unwrap_or(false) {
        return Ok(false);
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    atomic_file::replace(path, file.text.as_bytes(), file.mode)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;
    use crate::config::{ByteSize, Cpu, Layer, Total};

    /// Recorded files, updated by `RECORD=1 cargo test`. The diff shows every change.
    const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded/host-files.txt");

    fn files() -> Vec<HostFile> {
        let mut config = testing::config();
        let mut second = testing::pool("build", 4);
        second.max_runners = 12;
        second.limits.cpu = None;
        second.layer = Layer::Disk {
            size: ByteSize(20 << 30),
        };
        second.docker = true;
        second.devices = [crate::config::Device::Kvm].into();
        second.total = Total {
            memory: Some(ByteSize(48 << 30)),
            cpu: Some(Cpu { millicores: 8000 }),
            tasks: Some(32_768),
        };
        config.pools.push(second);
        render(
            &config,
            Path::new("/usr/bin/runner-controller"),
            Path::new("/etc/runner-controller/config.toml"),
        )
    }

    #[test]
    fn the_programs_names_are_linked_once() {
        let root = tempfile::tempdir().unwrap();
        let link = |name| link_names(&[name], Path::new("/usr/local/bin/rc"), root.path()).unwrap();
        assert_eq!(
            link("runner-status"),
            [Path::new("/usr/local/bin/runner-status")]
        );
        let target = fs::read_link(root.path().join("usr/local/bin/runner-status")).unwrap();
        assert_eq!(target, Path::new("rc"));
        assert_eq!(link("runner-status"), [] as [PathBuf; 0]);
    }

    #[test]
    fn the_files_are_as_recorded() {
        let now = print(&files());
        if std::env::var_os("RECORD").is_some() {
            fs::write(RECORDED, &now).unwrap();
        }
        let recorded = fs::read_to_string(RECORDED).unwrap();
        assert_eq!(
            now, recorded,
            "run the tests with RECORD=1 if this change is intended"
        );
    }

    #[test]
    fn installing_twice_changes_nothing_the_second_time() {
        let root = tempfile::tempdir().unwrap();
        let files = files();
        assert_eq!(install(&files, root.path()).unwrap().len(), files.len());
        assert!(install(&files, root.path()).unwrap().is_empty());
        let unit = root.path().join("etc/systemd/system/runner-ci@.service");
        assert_eq!(unit.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        fs::set_permissions(&unit, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(install(&files, root.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_is_missing_differs_or_is_obsolete_is_found() {
        let root = tempfile::tempdir().unwrap();
        let files = files();
        assert_eq!(differing(&files, root.path()).unwrap().len(), files.len());
        install(&files, root.path()).unwrap();
        assert_eq!(differing(&files, root.path()).unwrap(), [] as [PathBuf; 0]);
        let unit = root.path().join("etc/systemd/system/runner-ci@.service");
        fs::write(&unit, "[Service]\n").unwrap();
        fs::write(root.path().join(&OBSOLETE[2][1..]), "").unwrap();
        assert_eq!(
            differing(&files, root.path()).unwrap(),
            [
                Path::new("/etc/systemd/system/runner-ci@.service"),
                Path::new(OBSOLETE[2])
            ]
        );
    }
}
