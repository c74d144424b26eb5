//! The root filesystem of a container: a shared read-only image and the runner's writable layer.
//!
//! ```text
//! directory   image ──bind──▸ plain ──ID-mapped bind──▸ image ─┐
//!             layer (tmpfs or disk): upper, work ──────────────┴─overlay──▸ root
//! nixos       layer: root, almost empty; nspawn binds the store into it, ID-mapped; with
//!             nix = true the store is an overlay too (store.rs)
//! ```
//! - `terminals`: the container's `/dev/pts`
//! - `stage`: the mount namespace and the directory in which a launcher mounts
//! - `image`: the shared image
//! - `layer`: the writable layer
//! - `store`: the Nix store of a container
//! - `runner_dir`: the runner's directory
//! - `binds`: directories of the host that the pool shares
//! - `devices`: nodes of devices that jobs can open
//! - `docker`: storage of container engines, and docker's init
//! - `setup_info`: the text about the host in a job's log
//! - `guest_files`: the files that a container has before it boots

mod binds;
mod devices;
mod docker;
mod guest_files;
mod image;
mod layer;
mod runner_dir;
mod setup_info;
mod stage;
mod store;
mod terminals;

use std::path::{Path, PathBuf};

use super::error::{OrRefuse, Refusal, RootError};
use super::trust;
use crate::config::{Image, Place};

pub(crate) use binds::SharedDir;
pub(crate) use docker::DockerMounts;
pub(crate) use guest_files::hostname;
pub(crate) use store::{STORE, StoreMount};

use guest_files::{fill_bare_root, fill_upper};
use image::{bind_store, is_minimal, map_image};
use layer::mount_layer;
use runner_dir::{Division, OwnDir, runner_overlay, runner_tmpfs};
use stage::{Stage, mount_overlay, private_namespace};
use store::{check_nix, own_store};
use terminals::Terminals;

/// The mounted directories of a container, for the arguments of nspawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rootfs {
    /// Root directory.
    pub(crate) root: PathBuf,
    /// Socket directory of the slot.
    pub(crate) sockets: PathBuf,
    /// Pseudo terminals.
    pub(crate) terminals: PathBuf,
    /// The runner's directory, which is in memory and has its own size.
    pub(crate) runner_root: PathBuf,
    /// Nix store of a `nixos` image.
    pub(crate) store: Option<StoreMount>,
    /// Mounts of a pool with docker.
    pub(crate) docker: DockerMounts,
    /// Directories of the host.
    pub(crate) binds: Vec<SharedDir>,
    /// Device nodes, each with its path in the container.
    pub(crate) devices: Vec<(PathBuf, &'static Path)>,
    /// True if the image boots its runner before the rest of its system.
    pub(crate) minimal: bool,
}

/// Mounts the root filesystem of a slot in a new mount namespace.
pub(crate) fn build(place: Place<'_>) -> Result<Rootfs, RootError> {
    let terminals = Terminals::make(place)?;
    let division = Division::of(&place.pool.layer);
    let own = OwnDir::make(place, division.own)?;
    private_namespace()?;
    let stage = Stage::mount(place.config.mount_dir())?;
    let terminals = terminals.mount(&stage)?;
    let sockets = trust::open_sockets(&place.socket_dir())?;
    let sockets = stage.bind("sockets", &sockets, Refusal::Sockets)?;
    let devices = devices::nodes(place, &stage)?;
    match &place.pool.image {
        Image::Directory { path, runner_root } => {
            let image = map_image(place, &stage, path)?;
            check_nix(place, &image)?;
            let layer = stage.make("layer")?;
            mount_layer(&division.layer, &place.config.layer_dir, &layer)?;
            fill_upper(place, &layer, &image).or_refuse(Refusal::Layer, || {
                "write the container's first files".into()
            })?;
            let root = stage.make("root")?;
            mount_overlay(&image, &layer, &root, &place.pool.layer)?;
            Ok(Rootfs {
                binds: binds::bind(place, &stage, &root, || binds::user_of(&image))?,
                minimal: is_minimal(&image),
                devices,
                root,
                sockets,
                terminals,
                runner_root: runner_overlay(place, &stage, &image, runner_root, &own)?,
                store: None,
                docker: DockerMounts {
                    inits: docker::inits(place, &stage, &image)?,
                    ..docker::storage(place, &layer)?
                },
            })
        }
        Image::Nixos { system, store, .. } => {
            let shared = bind_store(&stage, system, store)?;
            let layer = stage.make("layer")?;
            mount_layer(&division.layer, &place.config.layer_dir, &layer)?;
            let store = match &place.pool.nix {
                None => StoreMount::Shared(shared),
                Some(_) => StoreMount::Own(own_store(place, &stage, &shared, &layer)?),
            };
            let root = layer.join("root");
            fill_bare_root(place, &root).or_refuse(Refusal::Layer, || {
                "write the container's first files".into()
            })?;
            Ok(Rootfs {
                binds: binds::bind(place, &stage, &root, || Ok(binds::USER_OF_NIXOS))?,
                minimal: false,
                devices,
                root,
                sockets,
                terminals,
                runner_root: runner_tmpfs(place, &stage, &own)?,
                store: Some(store),
                docker: docker::storage(place, &layer)?,
            })
        }
    }
}
