//! The directories of the host that the containers of a pool share.
//!
//! On the mount, the job's user is the owner of the directory, and its group the directory's group. So all
//! slots write as one user of the host, whatever their own ids are. No other id of the container exists
//! there: root in a container creates nothing on it that would belong to the host's root. A directory of
//! root is not mapped, and jobs read of it what every user of the host can read.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};

use super::stage::{Stage, bind_mapped, handle, open_in, open_mapped, unmount};
use crate::config::{Bind, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::trust;

/// Name of the user of jobs in every image.
const USER: &str = "runner";
/// Uid and gid of that user in a NixOS image. An assertion of `nix/container.nix` keeps modules from other ids.
pub(super) const USER_OF_NIXOS: (u32, u32) = (1001, 1001);
/// Maximum size of an image's `/etc/passwd`.
const PASSWD_MAX_BYTES: u64 = 1 << 20;

/// Mounted directory of the host, for the arguments of nspawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedDir {
    /// Its path on the stage.
    pub(crate) staged: PathBuf,
    /// Its path in the container.
    pub(crate) target: PathBuf,
    /// True if the container cannot write to it.
    pub(crate) read_only: bool,
}

/// Mounts the directories on the stage, and creates their mount points in the container's root.
///
/// `user` returns uid and gid of the job's user in the container.
pub(super) fn bind(
    place: Place<'_>,
    stage: &Stage,
    root: &Path,
    user: impl FnOnce() -> Result<(u32, u32), RootError>,
) -> Result<Vec<SharedDir>, RootError> {
    let mut shared = Vec::new();
    if place.pool.binds.is_empty() {
        return Ok(shared);
    }
    let user = user()?;
    for (number, bind) in place.pool.binds.iter().enumerate() {
        let staged = mount_one(place, stage, number, bind, user)?;
        make_mount_point(root, &bind.to)?;
        shared.push(SharedDir {
            staged,
            target: bind.to.clone(),
            read_only: bind.read_only,
        });
    }
    Ok(shared)
}

fn mount_one(
    place: Place<'_>,
    stage: &Stage,
    number: usize,
    bind: &Bind,
    (uid, gid): (u32, u32),
) -> Result<PathBuf, RootError> {
    let (opened, owner, group) = trust::open_shared(&bind.from)?;
    if let Some(wrong) = bind.wrong_owner(owner, group) {
        return Err(RootError::plain(Refusal::Binds, wrong));
    }
    let plain = stage.bind(&format!("bind-{number}"), &opened, Refusal::Binds)?;
    if owner == 0 {
        let flags = MsFlags::MS_REMOUNT
            | MsFlags::MS_BIND
            | MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV;
        mount(None::<&str>, &plain, None::<&str>, flags, None::<&str>)
            .or_refuse(Refusal::Binds, || {
                format!("mount {} read-only", bind.from.display())
            })?;
        return Ok(plain);
    }
    let mapped = stage.make(&format!("bind-{number}-mapped"))?;
    let first = place.uid_first();
    let access = if bind.read_only { "ro" } else { "rw" };
    bind_mapped(
        Refusal::Binds,
        &format!("{access},nosuid,nodev"),
        &format!("u:{owner}:{}:1 g:{group}:{}:1", first + uid, first + gid),
        &plain,
        &mapped,
    )?;
    let seen = open_mapped(&mapped).and_then(|dir| {
        fstat(&dir).or_refuse(Refusal::Binds, || {
            format!("read the owner of {}", bind.from.display())
        })
    })?;
    if (seen.st_uid, seen.st_gid) != (first + uid, first + gid) {
        return Err(RootError::plain(
            Refusal::Binds,
            format!(
                "{} has uid {} after mapping and not {}: mount does not support ID-mapped mounts \
                 (util-linux 2.39 does)",
                bind.from.display(),
                seen.st_uid,
                first + uid
            ),
        ));
    }
    unmount(&plain)?;
    Ok(mapped)
}

/// Creates the directories of a path in the container's root that do not exist.
///
/// nspawn would create them too, but for the host's root, which is not root in the container. Each belongs to
/// the owner of the directory above it. Links lead where they lead in the container.
fn make_mount_point(root: &Path, target: &Path) -> Result<(), RootError> {
    let refuse = || format!("create {} in the container", target.display());
    let root = trust::open_dir(root).or_refuse(Refusal::Binds, refuse)?;
    let mut reached = PathBuf::new();
    let mut above = open_in(&root, Path::new("/")).or_refuse(Refusal::Binds, refuse)?;
    for part in target.components() {
        let Component::Normal(name) = part else {
            continue;
        };
        reached.push(name);
        above = match open_in(&root, &reached) {
            Err(Errno::ENOENT) => make_below(&root, &above, name, &reached),
            opened => opened,
        }
        .or_refuse(Refusal::Binds, refuse)?;
        let seen = fstat(&above).or_refuse(Refusal::Binds, refuse)?;
        if SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT != SFlag::S_IFDIR {
            return Err(RootError::plain(
                Refusal::Binds,
                format!("/{} of the container is not a directory", reached.display()),
            ));
        }
    }
    Ok(())
}

fn make_below(
    root: &OwnedFd,
    above: &OwnedFd,
    name: &std::ffi::OsStr,
    path: &Path,
) -> nix::Result<OwnedFd> {
    let seen = fstat(above)?;
    mkdirat(above, name, Mode::from_bits_truncate(0o755))?;
    let (uid, gid) = (Uid::from_raw(seen.st_uid), Gid::from_raw(seen.st_gid));
    fchownat(
        above,
        name,
        Some(uid),
        Some(gid),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    open_in(root, path)
}

/// Returns uid and gid of the job's user in a directory image.
pub(super) fn user_of(image: &OwnedFd) -> Result<(u32, u32), RootError> {
    let refuse = || "read etc/passwd of the image".to_owned();
    let file = open_in(image, Path::new("etc/passwd")).or_refuse(Refusal::Image, refuse)?;
    let seen = fstat(&file).or_refuse(Refusal::Image, refuse)?;
    let is_file = SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    let mut text = String::new();
    if is_file {
        fs::File::open(handle(&file))
            .and_then(|file| file.take(PASSWD_MAX_BYTES).read_to_string(&mut text))
            .or_refuse(Refusal::Image, refuse)?;
    }
    find_user(&text).ok_or_else(|| {
        RootError::plain(
            Refusal::Image,
            format!("etc/passwd of the image does not have user {USER}; run prepare-image"),
        )
    })
}

fn find_user(passwd: &str) -> Option<(u32, u32)> {
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| (fields.next()? == USER).then_some(fields))?
        .skip(1);
    let mut id = || {
        fields
            .next()?
            .parse()
            .ok()
            .filter(|id| (1..Place::UIDS).contains(id))
    };
    Some((id()?, id()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_jobs_user_is_found_by_name_and_never_root() {
        let line =
            |ids: &str| format!("root:x:0:0::/:/bin/sh\nrunner:x:{ids}::/home/runner:/bin/sh\n");
        assert_eq!(find_user(&line("1001:100")), Some((1001, 100)));
        for ids in ["0:0", "1001:0", "70000:1", "x:1", "1001"] {
            assert_eq!(find_user(&line(ids)), None, "{ids}");
        }
        assert_eq!(find_user(""), None);
    }

    #[test]
    fn the_user_of_a_nixos_image_has_the_ids_that_shared_directories_get() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../nix/golden/runner-01.json");
        let golden: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
        let user = &golden["container"]["ci"]["user"];
        let (uid, gid) = USER_OF_NIXOS;
        assert_eq!(user, &serde_json::json!({ "uid": uid, "gid": gid }));
    }

    #[test]
    fn a_mount_point_is_created_inside_the_root_and_through_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("data/disk")).unwrap();
        symlink("/data/disk", root.join("mnt")).unwrap();
        symlink(outside.path(), root.join("out")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        make_mount_point(root, Path::new("/mnt/a/b")).unwrap();
        assert!(root.join("data/disk/a/b").is_dir());
        make_mount_point(root, Path::new("/mnt/a/b")).unwrap();
        for wrong in ["/file/x", "/file", "/out/x"] {
            assert!(make_mount_point(root, Path::new(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
