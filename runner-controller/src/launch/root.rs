//! The container's root filesystem: a read-only shared image and the life's own layer over it.
//!
//! ```text
//! directory   image ──bind──▸ plain ──ID-mapped bind──▸ image ─┐
//!             layer (tmpfs or disk): upper, work ──────────────┴─overlay──▸ root
//! nixos       layer: root, almost empty; the store is bound into it, ID-mapped, by nspawn; with
//!             nix = true as an overlay like the root of the other kind (store.rs)
//! ```
//! Everything lies below one static directory, on a tmpfs that only the unit's mount namespace has:
//! every slot mounts there, and none sees another's.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::fstat;

use super::error::OrRefuse;
use super::guest_files::{fill_bare_root, fill_upper};
use super::layer::{NO_DEVICES, mount_layer, mount_tmpfs};
use super::store::{Store, check_nix, own_store};
use super::{LaunchError, Refusal, layer, mount_dir, trust};
use crate::config::{ByteSize, Image, Layer, Place};

/// The runner's own directory, when it must be memory and the layer is disk: `.runner`, credentials
/// and the `_diag` logs take a few megabytes. Jobs work elsewhere.
const RUNNER_ROOT_SIZE: ByteSize = ByteSize(256 << 20);

/// What nspawn is told of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    /// The root directory.
    pub(super) root: PathBuf,
    /// The slot's socket directory.
    pub(super) sockets: PathBuf,
    /// Memory for the runner's own directory, unless the whole layer is memory.
    pub(super) runner_root: Option<PathBuf>,
    /// The store, for a `nixos` image.
    pub(super) store: Option<Store>,
    /// Docker's storage, where the pool has docker: no overlay, as docker's own would not mount on one.
    pub(super) docker: Option<PathBuf>,
}

/// Mounts it all.
pub(super) fn build(place: Place<'_>) -> Result<Tree, LaunchError> {
    private_namespace()?;
    let stage = Stage::mount(mount_dir(place.config))?;
    let sockets = trust::open_sockets(&place.socket_dir())?;
    let sockets = stage.bind("sockets", &sockets, Refusal::Sockets)?;
    match &place.pool.image {
        Image::Directory { path, runner_root } => {
            let image = map_image(place, &stage, path)?;
            check_nix(place, &image)?;
            let layer = stage.make("layer")?;
            mount_layer(&place.pool.layer, &place.config.layer_dir, &layer)?;
            fill_upper(place, &layer, &image).or_refuse(Refusal::Layer, || {
                "write the container's first files".into()
            })?;
            let root = stage.make("root")?;
            mount_overlay(&image, &layer, &root, &place.pool.layer)?;
            let runner_root = match place.pool.layer {
                Layer::Tmpfs { .. } => None,
                Layer::Disk { .. } => Some(runner_overlay(&stage, &image, runner_root)?),
            };
            Ok(Tree {
                root,
                sockets,
                runner_root,
                store: None,
                docker: docker_storage(place, &layer)?,
            })
        }
        Image::Nixos { system, store, .. } => {
            let shared = bind_store(&stage, system, store)?;
            let layer = stage.make("layer")?;
            mount_layer(&place.pool.layer, &place.config.layer_dir, &layer)?;
            let store = match &place.pool.nix {
                None => Store::Shared(shared),
                Some(_) => Store::Own(own_store(place, &stage, &shared, &layer)?),
            };
            let root = layer.join("root");
            fill_bare_root(place, &root).or_refuse(Refusal::Layer, || {
                "write the container's first files".into()
            })?;
            let runner_root = match place.pool.layer {
                Layer::Tmpfs { .. } => None,
                Layer::Disk { .. } => Some(runner_tmpfs(&stage, place.uid_first())?),
            };
            Ok(Tree {
                root,
                sockets,
                runner_root,
                store: Some(store),
                docker: docker_storage(place, &layer)?,
            })
        }
    }
}

/// Makes sure that the host sees no mount of ours, and that they all go with the unit's last process.
fn private_namespace() -> Result<(), LaunchError> {
    let refuse = || "get a mount namespace of its own".to_owned();
    unshare(CloneFlags::CLONE_NEWNS).or_refuse(Refusal::Mounts, refuse)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).or_refuse(Refusal::Mounts, refuse)
}

/// Where everything is mounted.
pub(super) struct Stage {
    dir: PathBuf,
}

impl Stage {
    fn mount(dir: PathBuf) -> Result<Self, LaunchError> {
        mount(
            Some("runner-stage"),
            &dir,
            Some("tmpfs"),
            NO_DEVICES,
            Some("size=64k,nr_inodes=64,mode=0700"),
        )
        .or_refuse(Refusal::Mounts, || {
            format!(
                "mount on {}; systemd-tmpfiles --create makes it",
                dir.display()
            )
        })?;
        Ok(Self { dir })
    }

    /// A new empty directory.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf, LaunchError> {
        let path = self.dir.join(name);
        fs::create_dir(&path)
            .or_refuse(Refusal::Mounts, || format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Binds an opened directory: what was checked, whatever its path leads to by now.
    fn bind(&self, name: &str, dir: &OwnedFd, refusal: Refusal) -> Result<PathBuf, LaunchError> {
        let target = self.make(name)?;
        let source = handle(dir);
        let flags = MsFlags::MS_BIND;
        mount(
            Some(source.as_str()),
            &target,
            None::<&str>,
            flags,
            None::<&str>,
        )
        .or_refuse(refusal, || format!("bind {}", target.display()))?;
        Ok(target)
    }
}

/// A path that leads to an open file, in this process.
fn handle(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens something in a tree as the container would, whose root the tree will be.
pub(super) fn open_in(tree: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(tree, path, how)
}

fn open_image(path: &Path) -> Result<OwnedFd, LaunchError> {
    trust::open_roots(path, Refusal::Image)
}

/// Opens what [`map_ids`] made: it is on our own stage, and belongs to the container's root by now.
pub(super) fn open_mapped(path: &Path) -> Result<OwnedFd, LaunchError> {
    trust::open_dir(path).or_refuse(Refusal::Mounts, || format!("open {}", path.display()))
}

/// Brings a directory image to the stage, read-only and with the slot's ids.
fn map_image(place: Place<'_>, stage: &Stage, path: &Path) -> Result<OwnedFd, LaunchError> {
    let opened = open_image(path)?;
    open_in(&opened, Path::new("usr/lib/systemd/systemd")).or_refuse(Refusal::Image, || {
        format!("find a systemd userland in {}", path.display())
    })?;
    let plain = stage.bind("plain", &opened, Refusal::Image)?;
    let mapped = stage.make("image")?;
    map_ids(place, &plain, &mapped)?;
    let image = open_mapped(&mapped)?;
    let uid = place.uid_first();
    let root = open_in(&image, Path::new("usr"))
        .and_then(fstat)
        .or_refuse(Refusal::Image, || format!("look at {}/usr", path.display()))?;
    if root.st_uid != uid {
        return Err(LaunchError::plain(
            Refusal::Mounts,
            format!(
                "/usr of {} belongs to uid {} in the container's map and not to {uid}: either the \
                 image is not root's, or mount does not know ID-mapped mounts (util-linux 2.39)",
                path.display(),
                root.st_uid
            ),
        ));
    }
    unmount(&plain)?;
    Ok(image)
}

/// Binds a tree read-only and with the slot's ids: what is root's in it is the container's root's.
pub(super) fn map_ids(place: Place<'_>, plain: &Path, mapped: &Path) -> Result<(), LaunchError> {
    // Only root of the initial user namespace may map ids, and it takes a process in a second one to
    // describe the map; mount (util-linux 2.39 and later) does that dance. An unknown X- option is
    // ignored by older ones, so the result is looked at.
    let (uid, ids) = (place.uid_first(), Place::UIDS);
    layer::run(
        Refusal::Mounts,
        Command::new("mount")
            .arg("--bind")
            .arg("-o")
            .arg(format!("ro,nodev,X-mount.idmap=b:0:{uid}:{ids}"))
            .args([plain, mapped]),
    )
}

pub(super) fn unmount(path: &Path) -> Result<(), LaunchError> {
    umount2(path, MntFlags::MNT_DETACH)
        .or_refuse(Refusal::Mounts, || format!("unmount {}", path.display()))
}

pub(super) fn mount_overlay(
    image: &OwnedFd,
    layer: &Path,
    root: &Path,
    kind: &Layer,
) -> Result<(), LaunchError> {
    // Nobody reads the layer after a crash, so an fsync in a job has nothing to make durable.
    let volatile = match kind {
        Layer::Tmpfs { .. } => "",
        Layer::Disk { .. } => ",volatile",
    };
    let layer = layer.display();
    let options = format!(
        "lowerdir={},upperdir={layer}/upper,workdir={layer}/work{volatile}",
        handle(image)
    );
    let name = Some("runner-root");
    mount(
        name,
        root,
        Some("overlay"),
        NO_DEVICES,
        Some(options.as_str()),
    )
    .or_refuse(Refusal::Mounts, || "mount the container's overlay".into())
}

/// The runner's own directory as memory over what the image has there: the listener writes its
/// decoded one-use config into it, and a secret never touches a disk.
fn runner_overlay(stage: &Stage, image: &OwnedFd, path: &Path) -> Result<PathBuf, LaunchError> {
    let within = path.strip_prefix("/").unwrap_or(path);
    let refuse = || {
        format!(
            "find {} in the image; runner-controller prepare-image makes it",
            path.display()
        )
    };
    let lower = open_in(image, within).or_refuse(Refusal::Image, refuse)?;
    let seen = fstat(&lower).or_refuse(Refusal::Image, refuse)?;
    let memory = stage.make("runner-layer")?;
    mount_tmpfs(&memory, RUNNER_ROOT_SIZE)?;
    let upper = memory.join("upper");
    let root = stage.make("runner")?;
    let filled = fs::create_dir(&upper)
        .and_then(|()| fs::create_dir(memory.join("work")))
        // An overlay's root is its upper directory as far as owner and mode go.
        .and_then(|()| chown(&upper, Some(seen.st_uid), Some(seen.st_gid)))
        .and_then(|()| {
            fs::set_permissions(&upper, fs::Permissions::from_mode(seen.st_mode & 0o7777))
        });
    filled.or_refuse(Refusal::Layer, || "make the runner's own layer".into())?;
    let memory = memory.display();
    let options = format!(
        "lowerdir={},upperdir={memory}/upper,workdir={memory}/work",
        handle(&lower)
    );
    let name = Some("runner-own");
    mount(
        name,
        &root,
        Some("overlay"),
        NO_DEVICES,
        Some(options.as_str()),
    )
    .or_refuse(Refusal::Mounts, || "mount the runner's own overlay".into())?;
    Ok(root)
}

/// The same where the image has nothing below: root's, for the guest to hand to its runner.
fn runner_tmpfs(stage: &Stage, uid: u32) -> Result<PathBuf, LaunchError> {
    let root = stage.make("runner")?;
    mount_tmpfs(&root, RUNNER_ROOT_SIZE)?;
    chown(&root, Some(uid), Some(uid))
        .or_refuse(Refusal::Layer, || "make the runner's own layer".into())?;
    Ok(root)
}

/// A directory of the layer itself, so that what docker stores counts into the layer's hard size.
fn docker_storage(place: Place<'_>, layer: &Path) -> Result<Option<PathBuf>, LaunchError> {
    if !place.pool.docker {
        return Ok(None);
    }
    let storage = layer.join("docker");
    let uid = place.uid_first();
    fs::create_dir(&storage)
        .and_then(|()| fs::set_permissions(&storage, fs::Permissions::from_mode(0o710)))
        .and_then(|()| chown(&storage, Some(uid), Some(uid)))
        .or_refuse(Refusal::Layer, || {
            "make docker's storage in the layer".into()
        })?;
    Ok(Some(storage))
}

/// Brings the store to the stage. nspawn maps the ids of a bind itself; only the lower layer of an
/// overlay is ours to map.
fn bind_store(stage: &Stage, system: &Path, store: &Path) -> Result<PathBuf, LaunchError> {
    let opened = open_image(store)?;
    let init = system.join("init");
    // A link in the store is looked up in the container; here it is enough that it is there.
    init.symlink_metadata()
        .or_refuse(Refusal::Image, || format!("look at {}", init.display()))?;
    stage.bind("store", &opened, Refusal::Image)
}
