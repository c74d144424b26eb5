//! The files, directories and unit that a root program relies on.
//!
//! Each of them is checked so that an unprivileged process cannot replace it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::fstat;
use nix::unistd::{User, geteuid};

use super::error::{OrRefuse, Refusal, RootError};
use crate::config::{self, Config, DAEMON_USER};
use crate::pool::SlotId;
use crate::world::Invocation;

/// Maximum size of a configuration. A usual one has a few kilobytes.
const CONFIG_MAX_BYTES: u64 = 1 << 20;

/// Maximum number of symlinks in a row, as in the kernel (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// Mode bits that let group and others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Mode bit of a directory in which a user cannot replace another user's files. The Nix store has it.
const STICKY: u32 = 0o1000;

/// Reads the configuration.
///
/// The file, every symlink to it and every directory above them must belong to root, and root must be
/// the only writer. A writer of the configuration decides what root mounts.
pub fn read_config(path: &Path) -> Result<Config, RootError> {
    let refuse = || format!("read {}", path.display());
    let real = follow(path)?;
    let seen = real.metadata().or_refuse(Refusal::Config, refuse)?;
    if !seen.is_file() {
        // Opening a pipe would wait for a writer.
        let what = format!("{} is not a regular file", real.display());
        return Err(RootError::plain(Refusal::Config, what));
    }
    let file = File::open(&real).or_refuse(Refusal::Config, refuse)?;
    let seen = file.metadata().or_refuse(Refusal::Config, refuse)?;
    check_owner(Refusal::Config, &real, seen.uid(), seen.mode(), false)?;
    if seen.len() > CONFIG_MAX_BYTES {
        let what = format!(
            "{} is larger than {CONFIG_MAX_BYTES} bytes, the maximum of a configuration",
            real.display()
        );
        return Err(RootError::plain(Refusal::Config, what));
    }
    let mut text = String::new();
    file.take(CONFIG_MAX_BYTES)
        .read_to_string(&mut text)
        .or_refuse(Refusal::Config, refuse)?;
    config::parse(path, &text).or_refuse(Refusal::Config, || "check the configuration".into())
}

/// Returns the file at the end of a path's symlinks.
///
/// Only root may be able to write the directory of each symlink. NixOS has two symlinks on the way.
fn follow(path: &Path) -> Result<PathBuf, RootError> {
    let refuse = |path: &Path| format!("read {}", path.display());
    let mut path = std::path::absolute(path).or_refuse(Refusal::Config, || refuse(path))?;
    for _ in 0..LINKS_MAX {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent = parent
            .canonicalize()
            .or_refuse(Refusal::Config, || refuse(&path))?;
        for directory in parent.ancestors() {
            let seen = directory.metadata().or_refuse(Refusal::Config, || {
                format!("read the owner and mode of {}", directory.display())
            })?;
            let sticky = seen.mode() & STICKY != 0;
            check_owner(Refusal::Config, directory, seen.uid(), seen.mode(), sticky)?;
        }
        let seen = path
            .symlink_metadata()
            .or_refuse(Refusal::Config, || refuse(&path))?;
        if !seen.is_symlink() {
            return Ok(path);
        }
        // In a sticky directory the link must belong to root. The mode of a link has no meaning.
        check_owner(Refusal::Config, &path, seen.uid(), 0, false)?;
        let target = path
            .read_link()
            .or_refuse(Refusal::Config, || refuse(&path))?;
        path = parent.join(target);
    }
    let what = format!(
        "{} is behind more than {LINKS_MAX} symlinks",
        path.display()
    );
    Err(RootError::plain(Refusal::Config, what))
}

fn check_owner(
    refusal: Refusal,
    path: &Path,
    uid: u32,
    mode: u32,
    sticky: bool,
) -> Result<(), RootError> {
    let wrong = if uid != 0 {
        format!("belongs to uid {uid}; it must belong to root")
    } else if mode & WRITABLE_BY_OTHERS != 0 && !sticky {
        format!(
            "has mode {:04o}; only root may write it (chmod go-w)",
            mode & 0o7777
        )
    } else {
        return Ok(());
    };
    Err(RootError::plain(
        refusal,
        format!("{} {wrong}", path.display()),
    ))
}

/// Checks that systemd runs this program as part of the slot's unit, and returns the invocation.
///
/// The launcher sweeps its slot first. Started by hand, it would sweep a slot whose runner is alive.
pub(crate) fn own_unit(id: &SlotId) -> Result<Invocation, RootError> {
    let refuse = |wrong: String| Err(RootError::plain(Refusal::Caller, wrong));
    if !geteuid().is_root() {
        return refuse("this program needs root; start the slot with systemctl".into());
    }
    let unit = id.unit();
    let cgroup = own_cgroup()?;
    if !cgroup.split('/').any(|part| part == unit) {
        return refuse(format!(
            "this process is not part of {unit}; start the slot with `systemctl start {unit}`"
        ));
    }
    let given = std::env::var("INVOCATION_ID").unwrap_or_default();
    match Invocation::parse(&given) {
        Some(invocation) => Ok(invocation),
        None => refuse(format!(
            "$INVOCATION_ID {given:?} is not an invocation id of systemd"
        )),
    }
}

/// Returns this process's control group in the unified hierarchy.
pub(crate) fn own_cgroup() -> Result<String, RootError> {
    let text = std::fs::read_to_string("/proc/self/cgroup")
        .or_refuse(Refusal::Caller, || "read /proc/self/cgroup".into())?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
        .ok_or_else(|| {
            RootError::plain(
                Refusal::Caller,
                "this host has no unified cgroup hierarchy".into(),
            )
        })
}

/// Opens a directory. No component of the path may be a symlink.
pub(crate) fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how)
}

/// Opens a directory that only root can write or replace.
///
/// The directory and all its parents must belong to root and must not be symlinks, and root must be
/// their only writer.
pub(crate) fn open_root_owned(path: &Path, refusal: Refusal) -> Result<OwnedFd, RootError> {
    let opened = open_below_root_owned(path, refusal)?;
    check_root_owned(&opened, path, refusal)?;
    Ok(opened)
}

/// Opens a directory whose parents all belong to root.
///
/// Every check is on an open directory, and no name is looked up twice. So an attacker cannot replace
/// a directory between its check and its use.
fn open_below_root_owned(path: &Path, refusal: Refusal) -> Result<OwnedFd, RootError> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut reached = PathBuf::from("/");
    let mut opened = open_dir(&reached).or_refuse(refusal, || "open /".into())?;
    for part in path.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        check_root_owned(&opened, &reached, refusal)?;
        reached.push(name);
        opened = openat2(&opened, name, how).or_refuse(refusal, || {
            format!(
                "open {} as a directory without following a symlink",
                reached.display()
            )
        })?;
    }
    Ok(opened)
}

/// Opens a directory that jobs share, and returns its owner and group.
///
/// Only root may be able to replace it, and it must not be the daemon's. Its owner decides about its contents,
/// which no program of root on this host reads.
pub(crate) fn open_shared(path: &Path) -> Result<(OwnedFd, u32, u32), RootError> {
    let dir = open_below_root_owned(path, Refusal::Binds)?;
    let seen = fstat(&dir).or_refuse(Refusal::Binds, || {
        format!("read the owner of {}", path.display())
    })?;
    let daemon = User::from_name(DAEMON_USER)
        .or_refuse(Refusal::Binds, || format!("look up user {DAEMON_USER}"))?;
    if daemon.is_some_and(|daemon| daemon.uid.as_raw() == seen.st_uid) {
        return Err(RootError::plain(
            Refusal::Binds,
            format!(
                "{} belongs to {DAEMON_USER}; chown it to another user",
                path.display()
            ),
        ));
    }
    Ok((dir, seen.st_uid, seen.st_gid))
}

fn check_root_owned(opened: &OwnedFd, path: &Path, refusal: Refusal) -> Result<(), RootError> {
    let seen = fstat(opened).or_refuse(refusal, || {
        format!("read the owner and mode of {}", path.display())
    })?;
    let sticky = seen.st_mode & STICKY != 0;
    check_owner(refusal, path, seen.st_uid, seen.st_mode, sticky)
}

/// Opens the slot's socket directory. It must belong to the daemon's user, and its parents to root.
///
/// The launcher binds the opened directory into the container. A second lookup of the path would let
/// an attacker replace the directory in between, and so choose what root binds.
pub(crate) fn open_sockets(path: &Path) -> Result<OwnedFd, RootError> {
    let daemon = User::from_name(DAEMON_USER)
        .or_refuse(Refusal::Sockets, || format!("look up user {DAEMON_USER}"))?
        .ok_or_else(|| {
            RootError::plain(
                Refusal::Sockets,
                format!("user {DAEMON_USER} does not exist; systemd-sysusers creates it"),
            )
        })?;
    open_sockets_of(path, daemon.uid.as_raw())
}

fn open_sockets_of(path: &Path, daemon: u32) -> Result<OwnedFd, RootError> {
    let dir = open_below_root_owned(path, Refusal::Sockets)?;
    let seen = fstat(&dir).or_refuse(Refusal::Sockets, || {
        format!("read the owner of {}", path.display())
    })?;
    if seen.st_uid != daemon {
        return Err(RootError::plain(
            Refusal::Sockets,
            format!(
                "{} belongs to uid {} and not to {DAEMON_USER}; systemd-tmpfiles --create corrects this",
                path.display(),
                seen.st_uid
            ),
        ));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// A uid other than root's.
    const OTHER_UID: u32 = 4711;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Returns a directory that belongs to root, if the tests run as root. Changing owners needs root.
    fn root_owned_dir() -> Option<(tempfile::TempDir, PathBuf)> {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        geteuid().is_root().then_some((dir, real))
    }

    /// Fails unless the result is this refusal and its message contains these words.
    fn ensure_refused<T>(result: Result<T, RootError>, refusal: Refusal, words: &str) {
        let error = result.err().expect("a refusal");
        let text = crate::world::chain(&error);
        assert_eq!(error.refusal, refusal, "{text}");
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }

    #[test]
    fn a_configuration_is_read_only_if_root_is_its_only_writer() {
        let Some((_dir, dir)) = root_owned_dir() else {
            return;
        };
        let good = crate::config::testing::TEXT;
        let file = dir.join("config.toml");
        let refused = |words| ensure_refused(read_config(&file), Refusal::Config, words);
        refused("No such file");
        fs::write(&file, good).unwrap();
        set_mode(&file, 0o644);
        read_config(&file).unwrap();

        set_mode(&file, 0o664);
        refused("config.toml has mode 0664");
        set_mode(&file, 0o646);
        refused("config.toml has mode 0646");
        set_mode(&file, 0o644);
        chown(&file, Some(OTHER_UID), None).unwrap();
        refused("config.toml belongs to uid 4711");
        chown(&file, Some(0), None).unwrap();
        set_mode(&dir, 0o777);
        refused("has mode 0777; only root may write it");
        set_mode(&dir, 0o775);
        refused("has mode 0775");
        set_mode(&dir, 0o755);
        chown(&dir, Some(OTHER_UID), None).unwrap();
        refused("belongs to uid 4711");
        chown(&dir, Some(0), None).unwrap();
        fs::write(&file, "x".repeat(2 << 20)).unwrap();
        refused("is larger than 1048576 bytes");
        fs::write(&file, "host = 1").unwrap();
        refused("check the configuration");
        fs::write(&file, b"host = \"\xff\"").unwrap();
        refused("UTF-8");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        refused("is not a regular file");
        fs::remove_dir(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("is not a regular file");
    }

    #[test]
    fn a_configuration_behind_symlinks_is_read_only_if_root_owns_them() {
        let Some((_dir, dir)) = root_owned_dir() else {
            return;
        };
        for name in ["store", "static", "open", "sticky"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("store/config.toml"), crate::config::testing::TEXT).unwrap();
        // As on NixOS: a symlink in a directory behind another symlink.
        symlink(
            dir.join("store/config.toml"),
            dir.join("static/config.toml"),
        )
        .unwrap();
        symlink("static", dir.join("etc")).unwrap();
        read_config(&dir.join("etc/config.toml")).unwrap();

        set_mode(&dir.join("open"), 0o777);
        symlink(dir.join("store/config.toml"), dir.join("open/config.toml")).unwrap();
        symlink("open/config.toml", dir.join("twice.toml")).unwrap();
        for name in ["open/config.toml", "twice.toml"] {
            let result = read_config(&dir.join(name));
            ensure_refused(result, Refusal::Config, "open has mode 0777");
        }
        set_mode(&dir.join("sticky"), 0o1777);
        let link = dir.join("sticky/config.toml");
        symlink(dir.join("store/config.toml"), &link).unwrap();
        read_config(&link).unwrap();
        std::os::unix::fs::lchown(&link, Some(OTHER_UID), None).unwrap();
        ensure_refused(read_config(&link), Refusal::Config, "belongs to uid 4711");
        symlink("round.toml", dir.join("round.toml")).unwrap();
        let result = read_config(&dir.join("round.toml"));
        ensure_refused(result, Refusal::Config, "more than 40 symlinks");
    }

    #[test]
    fn a_root_owned_directory_is_opened_only_if_it_cannot_be_replaced() {
        let Some((_dir, dir)) = root_owned_dir() else {
            return;
        };
        let image = dir.join("images/debian");
        fs::create_dir_all(&image).unwrap();
        symlink("debian", dir.join("images/link")).unwrap();
        symlink("images", dir.join("linked")).unwrap();
        let refused = |path: &Path, words| {
            ensure_refused(open_root_owned(path, Refusal::Image), Refusal::Image, words);
        };
        open_root_owned(&image, Refusal::Image).unwrap();
        refused(&dir.join("images/other"), "No such file");
        refused(&dir.join("images/link"), "without following a symlink");
        refused(&dir.join("linked/debian"), "without following a symlink");
        for (path, mode, words) in [
            (&image, 0o757, "debian has mode 0757"),
            (&image, 0o775, "debian has mode 0775"),
            (&dir.join("images"), 0o777, "images has mode 0777"),
        ] {
            set_mode(path, mode);
            refused(&image, words);
            set_mode(path, 0o755);
        }
        for path in [&image, &dir.join("images")] {
            chown(path, Some(OTHER_UID), None).unwrap();
            refused(&image, "belongs to uid 4711");
            chown(path, Some(0), None).unwrap();
        }
        // As the Nix store: its group may add files and cannot replace root's.
        set_mode(&dir.join("images"), 0o1775);
        open_root_owned(&image, Refusal::Image).unwrap();
    }

    #[test]
    fn a_socket_directory_must_belong_to_the_daemon_and_its_parents_to_root() {
        let Some((_dir, dir)) = root_owned_dir() else {
            return;
        };
        let sockets = dir.join("slots/ci-1");
        fs::create_dir_all(&sockets).unwrap();
        let refused = |path: &Path, words| {
            ensure_refused(open_sockets_of(path, OTHER_UID), Refusal::Sockets, words);
        };
        refused(&sockets, "belongs to uid 0 and not to runner-controller");
        chown(&sockets, Some(OTHER_UID), None).unwrap();
        open_sockets_of(&sockets, OTHER_UID).unwrap();

        refused(&dir.join("slots/ci-2"), "No such file");
        symlink("ci-1", dir.join("slots/ci-3")).unwrap();
        refused(&dir.join("slots/ci-3"), "without following a symlink");
        fs::write(dir.join("slots/ci-4"), "").unwrap();
        refused(&dir.join("slots/ci-4"), "Not a directory");
        set_mode(&dir.join("slots"), 0o775);
        refused(&sockets, "slots has mode 0775");
        set_mode(&dir.join("slots"), 0o750);
        chown(dir.join("slots"), Some(OTHER_UID), None).unwrap();
        refused(&sockets, "slots belongs to uid 4711");
    }

    #[test]
    fn a_directory_behind_a_symlink_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("real")).unwrap();
        std::os::unix::fs::symlink("real", real.join("link")).unwrap();
        std::fs::create_dir(real.join("real/below")).unwrap();
        assert!(open_dir(&real.join("real/below")).is_ok());
        assert!(open_dir(&real.join("link")).is_err());
        assert!(open_dir(&real.join("link/below")).is_err());
    }

    #[test]
    fn only_files_that_root_alone_writes_are_trusted() {
        let path = Path::new("/etc/x");
        let check = |uid, mode, sticky| check_owner(Refusal::Config, path, uid, mode, sticky);
        assert!(check(0, 0o100_644, false).is_ok());
        assert!(check(0, 0o041_777, true).is_ok());
        for (uid, mode) in [(1000, 0o100_644), (0, 0o100_664), (0, 0o100_646)] {
            let error = check(uid, mode, false).unwrap_err();
            assert_eq!(error.refusal, Refusal::Config);
        }
    }

    #[test]
    fn a_launcher_started_by_hand_refuses_to_run() {
        let error = own_unit(&"ci-1".parse().unwrap()).unwrap_err();
        assert_eq!(error.refusal, Refusal::Caller);
    }
}
