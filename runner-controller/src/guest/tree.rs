//! Writing into a directory tree without ever leaving it.
//!
//! Symlinks in an image mean what they mean to the container, whose root the tree will be:
//! `RESOLVE_IN_ROOT` of openat2(2). A file's own name is never followed: what is there is replaced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat, renameat,
};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat};

/// No file that we read in an image is larger.
const READ_MAX: u64 = 4 << 20;

/// An image's root.
pub(super) struct Tree {
    root: OwnedFd,
    set_owners: bool,
}

impl Tree {
    /// Opens a directory as a root.
    pub(super) fn open(dir: &Path, set_owners: bool) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = openat(AT_FDCWD, dir, flags, Mode::empty())?;
        Ok(Self { root, set_owners })
    }

    /// True if it is the root that we run in ourselves.
    pub(super) fn is_the_hosts(&self) -> io::Result<bool> {
        let here = File::from(self.root.try_clone()?).metadata()?;
        let host = fs::metadata("/")?;
        Ok((here.dev(), here.ino()) == (host.dev(), host.ino()))
    }

    /// True if the path leads to something.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.at(path, OFlag::O_PATH).is_ok()
    }

    /// A file's text; `None` if there is none.
    pub(super) fn read(&self, path: &str) -> io::Result<Option<String>> {
        match self.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(file) => {
                let mut text = String::new();
                File::from(file).take(READ_MAX).read_to_string(&mut text)?;
                Ok(Some(text))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    /// A file's mode, owner and group; `None` if there is none.
    pub(super) fn attributes(&self, path: &str) -> io::Result<Option<(u32, u32, u32)>> {
        match self.at(path, OFlag::O_PATH) {
            Ok(file) => {
                let seen = File::from(file).metadata()?;
                Ok(Some((seen.mode() & 0o7777, seen.uid(), seen.gid())))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    /// Puts root's file in place of whatever has its name, whole or not at all.
    pub(super) fn file(&self, path: &str, mode: u32, text: &str) -> io::Result<()> {
        self.owned_file(path, mode, 0, 0, text)
    }

    /// The same for a file that is somebody else's.
    pub(super) fn owned_file(
        &self,
        path: &str,
        mode: u32,
        uid: u32,
        gid: u32,
        text: &str,
    ) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let unfinished = format!(".{name}.new");
        unlink_if_there(&dir, &unfinished)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(
            &dir,
            unfinished.as_str(),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )?;
        let mut file = File::from(file);
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        self.own(&dir, &unfinished, uid, gid)?;
        renameat(&dir, unfinished.as_str(), &dir, name)?;
        Ok(())
    }

    /// Puts a symlink in place of whatever file has its name.
    pub(super) fn link(&self, path: &str, to: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        if readlinkat(&dir, name).is_ok_and(|now| now == to) {
            return Ok(());
        }
        unlink_if_there(&dir, name)?;
        symlinkat(to, &dir, name)?;
        self.own(&dir, name, 0, 0)
    }

    /// Makes a directory, if need be, and gives it its owner and mode.
    pub(super) fn owned_dir(&self, path: &str, mode: u32, uid: u32, gid: u32) -> io::Result<()> {
        let dir = self.dir(path)?;
        if self.set_owners {
            fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        File::from(dir).set_permissions(fs::Permissions::from_mode(mode))
    }

    fn at(&self, path: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    /// Opens a directory, and makes it and those above it if they are not there.
    fn dir(&self, path: &str) -> io::Result<OwnedFd> {
        let open = || self.at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        match open() {
            Err(Errno::ENOENT) => {}
            other => return Ok(other?),
        }
        let (parent, name) = self.parent(path)?;
        mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
        // The umask may have taken something away.
        let made = open()?;
        File::from(made.try_clone()?).set_permissions(fs::Permissions::from_mode(0o755))?;
        self.own(&parent, name, 0, 0)?;
        Ok(made)
    }

    fn parent<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        match path.rsplit_once('/') {
            Some((parent, name)) => Ok((self.dir(parent)?, name)),
            None => Ok((self.at(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, path)),
        }
    }

    fn own(&self, dir: impl AsFd, name: &str, uid: u32, gid: u32) -> io::Result<()> {
        if self.set_owners {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fchownat(
                dir,
                name,
                Some(uid),
                Some(gid),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
        }
        Ok(())
    }
}

fn unlink_if_there(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(why) => Err(why.into()),
    }
}
