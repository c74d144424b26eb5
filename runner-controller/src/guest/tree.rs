//! Files of an image, opened without ever leaving its directory.
//!
//! Symlinks are followed as in the container, whose root the tree will be (`RESOLVE_IN_ROOT` of openat2(2)).
//! The last part of a path is never followed: a link there is replaced.

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

/// Maximum number of bytes that are read of a file.
const READ_MAX_BYTES: u64 = 4 << 20;

/// Root of an image.
pub(super) struct Tree {
    root: OwnedFd,
    set_owners: bool,
}

impl Tree {
    /// Opens a directory as the root of an image.
    pub(super) fn open(dir: &Path, set_owners: bool) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = openat(AT_FDCWD, dir, flags, Mode::empty())?;
        Ok(Self { root, set_owners })
    }

    /// Returns true if the tree is the root of the running system.
    pub(super) fn is_host_root(&self) -> io::Result<bool> {
        let here = File::from(self.root.try_clone()?).metadata()?;
        let host = fs::metadata("/")?;
        Ok((here.dev(), here.ino()) == (host.dev(), host.ino()))
    }

    /// Returns true if the path exists.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.at(path, OFlag::O_PATH).is_ok()
    }

    /// Returns the text of a file; `None` if it does not exist.
    pub(super) fn read(&self, path: &str) -> io::Result<Option<String>> {
        match self.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(file) => {
                let mut text = String::new();
                File::from(file)
                    .take(READ_MAX_BYTES)
                    .read_to_string(&mut text)?;
                Ok(Some(text))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns mode, owner and group of a file; `None` if it does not exist.
    pub(super) fn attributes(&self, path: &str) -> io::Result<Option<(u32, u32, u32)>> {
        match self.at(path, OFlag::O_PATH) {
            Ok(file) => {
                let seen = File::from(file).metadata()?;
                Ok(Some((seen.mode() & 0o7777, seen.uid(), seen.gid())))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a file that belongs to root. It replaces any file of the name, whole or not at all.
    pub(super) fn file(&self, path: &str, mode: u32, text: &str) -> io::Result<()> {
        self.owned_file(path, mode, 0, 0, text)
    }

    /// Writes a file that belongs to this user and group, like [`Tree::file`].
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

    /// Creates a symlink. It replaces any file of the name.
    pub(super) fn link(&self, path: &str, to: &str) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        if readlinkat(&dir, name).is_ok_and(|now| now == to) {
            return Ok(());
        }
        unlink_if_there(&dir, name)?;
        symlinkat(to, &dir, name)?;
        self.own(&dir, name, 0, 0)
    }

    /// Returns the target of a symlink; `None` if it does not exist. Any other file has an empty target.
    pub(super) fn target(&self, path: &str) -> io::Result<Option<String>> {
        let Some((dir, name)) = self.existing_parent(path)? else {
            return Ok(None);
        };
        match readlinkat(&dir, name) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::EINVAL) => Ok(Some(String::new())),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file or a symlink. An absent one counts as removed.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        match self.existing_parent(path)? {
            Some((dir, name)) => unlink_if_there(&dir, name),
            None => Ok(()),
        }
    }

    /// Creates a directory unless it exists, and sets its owner and mode.
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

    /// Opens a directory, and creates it and its parents unless they exist.
    fn dir(&self, path: &str) -> io::Result<OwnedFd> {
        let open = || self.at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        match open() {
            Err(Errno::ENOENT) => {}
            other => return Ok(other?),
        }
        let (parent, name) = self.parent(path)?;
        mkdirat(&parent, name, Mode::from_bits_truncate(0o755))?;
        // mkdirat subtracts the umask from its mode.
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

    /// Opens the directory of a path; `None` if it does not exist.
    fn existing_parent<'a>(&self, path: &'a str) -> io::Result<Option<(OwnedFd, &'a str)>> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        match self.at(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
            Ok(dir) => Ok(Some((dir, name))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
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
        Err(error) => Err(error.into()),
    }
}
