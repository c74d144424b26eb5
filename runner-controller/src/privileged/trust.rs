//! What root believes: its own configuration, its own unit, and nothing that others can swap.

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

/// A configuration is a few kilobytes; more is a mistake.
const CONFIG_MAX: u64 = 1 << 20;

/// As many links in a row as the kernel follows (`path_resolution(7)`).
const LINKS_MAX: usize = 40;

/// Group and others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a sticky directory nobody replaces what is another's (the Nix store is one).
const STICKY: u32 = 0o1000;

/// Reads the configuration as root may: the file, every link that leads to it and every directory
/// above them must be root's and writable by nobody else, since whoever writes it chooses what root
/// mounts.
pub fn read_config(path: &Path) -> Result<Config, RootError> {
    let refuse = || format!("read {}", path.display());
    let real = follow(path)?;
    let seen = real.metadata().or_refuse(Refusal::Config, refuse)?;
    if !seen.is_file() {
        // To open a pipe would wait for somebody to write into it.
        let what = format!("{} is no regular file", real.display());
        return Err(RootError::plain(Refusal::Config, what));
    }
    let file = File::open(&real).or_refuse(Refusal::Config, refuse)?;
    let seen = file.metadata().or_refuse(Refusal::Config, refuse)?;
    check_owner(Refusal::Config, &real, seen.uid(), seen.mode(), false)?;
    if seen.len() > CONFIG_MAX {
        let what = format!(
            "{} is larger than any configuration ({CONFIG_MAX} bytes)",
            real.display()
        );
        return Err(RootError::plain(Refusal::Config, what));
    }
    let mut text = String::new();
    file.take(CONFIG_MAX)
        .read_to_string(&mut text)
        .or_refuse(Refusal::Config, refuse)?;
    config::parse(path, &text).or_refuse(Refusal::Config, || "check the configuration".into())
}

/// Where a path leads. Links are fine (NixOS has two on the way) as long as each lies where only root
/// can put one.
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
                format!("look at {}", directory.display())
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
        // In a sticky directory a link is whoever made it; its mode says nothing.
        check_owner(Refusal::Config, &path, seen.uid(), 0, false)?;
        let target = path
            .read_link()
            .or_refuse(Refusal::Config, || refuse(&path))?;
        path = parent.join(target);
    }
    let what = format!("{} is a link that leads nowhere", path.display());
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
        format!("belongs to uid {uid}; let root own it")
    } else if mode & WRITABLE_BY_OTHERS != 0 && !sticky {
        format!(
            "has mode {:04o}; let nobody but root write it (chmod go-w)",
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

/// Makes sure that systemd runs us as this slot's unit, and tells which start of it this is.
///
/// The launcher sweeps its slot before it builds. Run by hand, it would sweep one that is alive.
pub(crate) fn own_unit(id: &SlotId) -> Result<Invocation, RootError> {
    let refuse = |wrong: String| Err(RootError::plain(Refusal::Caller, wrong));
    if !geteuid().is_root() {
        return refuse("it takes root; start the slot with systemctl instead".into());
    }
    let unit = id.unit();
    let cgroup = own_cgroup()?;
    if !cgroup.split('/').any(|part| part == unit) {
        return refuse(format!(
            "not part of {unit}; start it with: systemctl start {unit}"
        ));
    }
    let given = std::env::var("INVOCATION_ID").unwrap_or_default();
    match Invocation::parse(&given) {
        Some(invocation) => Ok(invocation),
        None => refuse(format!(
            "$INVOCATION_ID is {given:?}, which is not systemd's"
        )),
    }
}

/// Our place in the unified hierarchy.
pub(crate) fn own_cgroup() -> Result<String, RootError> {
    let text = std::fs::read_to_string("/proc/self/cgroup")
        .or_refuse(Refusal::Caller, || "read /proc/self/cgroup".into())?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
        .ok_or_else(|| {
            RootError::plain(
                Refusal::Caller,
                "the host has no unified cgroup hierarchy".into(),
            )
        })
}

/// Opens a directory of which no component may be a symlink.
pub(crate) fn open_dir(path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how)
}

/// Opens a directory of root's: it, and every one on the way to it, is no symlink, belongs to root
/// and is writable by nobody else.
pub(crate) fn open_roots(path: &Path, refusal: Refusal) -> Result<OwnedFd, RootError> {
    let opened = open_below_roots(path, refusal)?;
    check_roots(&opened, path, refusal)?;
    Ok(opened)
}

/// Opens a directory whose parents, all of them, are root's. What is looked at is what is open: no
/// name is looked up twice, so nothing can be put in its place in between.
fn open_below_roots(path: &Path, refusal: Refusal) -> Result<OwnedFd, RootError> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut reached = PathBuf::from("/");
    let mut opened = open_dir(&reached).or_refuse(refusal, || "open /".into())?;
    for part in path.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        check_roots(&opened, &reached, refusal)?;
        reached.push(name);
        opened = openat2(&opened, name, how).or_refuse(refusal, || {
            format!(
                "open {} as a directory that is no symlink",
                reached.display()
            )
        })?;
    }
    Ok(opened)
}

fn check_roots(opened: &OwnedFd, path: &Path, refusal: Refusal) -> Result<(), RootError> {
    let seen = fstat(opened).or_refuse(refusal, || format!("look at {}", path.display()))?;
    let sticky = seen.st_mode & STICKY != 0;
    check_owner(refusal, path, seen.st_uid, seen.st_mode, sticky)
}

/// Opens the slot's socket directory, which must be the daemon's and lie where only root can put one.
///
/// What is opened is what gets bound: a path would be looked up again, and whoever could swap the
/// directory in between would choose what root binds into a container.
pub(crate) fn open_sockets(path: &Path) -> Result<OwnedFd, RootError> {
    let daemon = User::from_name(DAEMON_USER)
        .or_refuse(Refusal::Sockets, || format!("look up user {DAEMON_USER}"))?
        .ok_or_else(|| {
            RootError::plain(
                Refusal::Sockets,
                format!("there is no user {DAEMON_USER}; systemd-sysusers makes it"),
            )
        })?;
    open_sockets_of(path, daemon.uid.as_raw())
}

fn open_sockets_of(path: &Path, daemon: u32) -> Result<OwnedFd, RootError> {
    let dir = open_below_roots(path, Refusal::Sockets)?;
    let seen = fstat(&dir).or_refuse(Refusal::Sockets, || format!("look at {}", path.display()))?;
    if seen.st_uid != daemon {
        return Err(RootError::plain(
            Refusal::Sockets,
            format!(
                "{} belongs to uid {} and not to {DAEMON_USER}; systemd-tmpfiles --create makes it",
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

    /// A uid that is not root's.
    const SOMEBODY: u32 = 4711;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A directory of root's, as far as the tests are; files of others take root.
    fn roots_dir() -> Option<(tempfile::TempDir, PathBuf)> {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        geteuid().is_root().then_some((dir, real))
    }

    /// Fails unless it is refused for this reason, with these words.
    fn ensure_refused<T>(result: Result<T, RootError>, refusal: Refusal, words: &str) {
        let error = result.err().expect("a refusal");
        let text = crate::world::chain(&error);
        assert_eq!(error.refusal, refusal, "{text}");
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }

    #[test]
    fn a_configuration_is_read_only_if_it_is_roots_alone() {
        let Some((_dir, dir)) = roots_dir() else {
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
        chown(&file, Some(SOMEBODY), None).unwrap();
        refused("config.toml belongs to uid 4711");
        chown(&file, Some(0), None).unwrap();
        set_mode(&dir, 0o777);
        refused("has mode 0777; let nobody but root write it");
        set_mode(&dir, 0o775);
        refused("has mode 0775");
        set_mode(&dir, 0o755);
        chown(&dir, Some(SOMEBODY), None).unwrap();
        refused("belongs to uid 4711");
        chown(&dir, Some(0), None).unwrap();
        fs::write(&file, "x".repeat(2 << 20)).unwrap();
        refused("larger than any configuration");
        fs::write(&file, "host = 1").unwrap();
        refused("check the configuration");
        fs::write(&file, b"host = \"\xff\"").unwrap();
        refused("UTF-8");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        refused("no regular file");
        fs::remove_dir(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("no regular file");
    }

    #[test]
    fn a_configuration_behind_links_is_read_only_if_they_are_roots() {
        let Some((_dir, dir)) = roots_dir() else {
            return;
        };
        for name in ["store", "static", "open", "sticky"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        fs::write(dir.join("store/config.toml"), crate::config::testing::TEXT).unwrap();
        // As on NixOS: through a link in a directory that is itself reached by a link.
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
        std::os::unix::fs::lchown(&link, Some(SOMEBODY), None).unwrap();
        ensure_refused(read_config(&link), Refusal::Config, "belongs to uid 4711");
        symlink("round.toml", dir.join("round.toml")).unwrap();
        let result = read_config(&dir.join("round.toml"));
        ensure_refused(result, Refusal::Config, "leads nowhere");
    }

    #[test]
    fn a_directory_of_roots_is_opened_only_if_nobody_can_swap_it() {
        let Some((_dir, dir)) = roots_dir() else {
            return;
        };
        let image = dir.join("images/debian");
        fs::create_dir_all(&image).unwrap();
        symlink("debian", dir.join("images/link")).unwrap();
        symlink("images", dir.join("linked")).unwrap();
        let refused = |path: &Path, words| {
            ensure_refused(open_roots(path, Refusal::Image), Refusal::Image, words);
        };
        open_roots(&image, Refusal::Image).unwrap();
        refused(&dir.join("images/other"), "No such file");
        refused(&dir.join("images/link"), "no symlink");
        refused(&dir.join("linked/debian"), "no symlink");
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
            chown(path, Some(SOMEBODY), None).unwrap();
            refused(&image, "belongs to uid 4711");
            chown(path, Some(0), None).unwrap();
        }
        // The Nix store is one: anybody of its group may add, nobody may swap.
        set_mode(&dir.join("images"), 0o1775);
        open_roots(&image, Refusal::Image).unwrap();
    }

    #[test]
    fn a_socket_directory_is_the_daemons_and_lies_where_only_root_puts_one() {
        let Some((_dir, dir)) = roots_dir() else {
            return;
        };
        let sockets = dir.join("slots/ci-1");
        fs::create_dir_all(&sockets).unwrap();
        let refused = |path: &Path, words| {
            ensure_refused(open_sockets_of(path, SOMEBODY), Refusal::Sockets, words);
        };
        refused(&sockets, "belongs to uid 0 and not to runner-controller");
        chown(&sockets, Some(SOMEBODY), None).unwrap();
        open_sockets_of(&sockets, SOMEBODY).unwrap();

        refused(&dir.join("slots/ci-2"), "No such file");
        symlink("ci-1", dir.join("slots/ci-3")).unwrap();
        refused(&dir.join("slots/ci-3"), "no symlink");
        fs::write(dir.join("slots/ci-4"), "").unwrap();
        refused(&dir.join("slots/ci-4"), "Not a directory");
        set_mode(&dir.join("slots"), 0o775);
        refused(&sockets, "slots has mode 0775");
        set_mode(&dir.join("slots"), 0o750);
        chown(dir.join("slots"), Some(SOMEBODY), None).unwrap();
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
    fn only_what_root_alone_writes_is_trusted() {
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
    fn a_launcher_started_by_hand_refuses() {
        let error = own_unit(&"ci-1".parse().unwrap()).unwrap_err();
        assert_eq!(error.refusal, Refusal::Caller);
    }
}
