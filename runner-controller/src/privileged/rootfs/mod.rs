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

mod guest_files;
mod image;
mod layer;
mod runner_dir;
mod stage;
mod store;

use std::path::PathBuf;

use super::error::{OrRefuse, Refusal, RootError};
use super::trust;
use crate::config::{Image, Layer, Place};

pub(crate) use guest_files::hostname;
pub(crate) use store::{STORE, StoreMount};

use guest_files::{fill_bare_root, fill_upper};
use image::{bind_store, map_image};
use layer::mount_layer;
use runner_dir::{docker_storage, runner_overlay, runner_tmpfs};
use stage::{Stage, mount_overlay, private_namespace};
use store::{check_nix, own_store};

/// What nspawn is told of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rootfs {
    /// The root directory.
    pub(crate) root: PathBuf,
    /// The slot's socket directory.
    pub(crate) sockets: PathBuf,
    /// Memory for the runner's own directory, unless the whole layer is memory.
    pub(crate) runner_root: Option<PathBuf>,
    /// The store, for a `nixos` image.
    pub(crate) store: Option<StoreMount>,
    /// Docker's storage, where the pool has docker: no overlay, as docker's own would not mount on one.
    pub(crate) docker: Option<PathBuf>,
}

/// Mounts it all.
pub(crate) fn build(place: Place<'_>) -> Result<Rootfs, RootError> {
    private_namespace()?;
    let stage = Stage::mount(place.config.mount_dir())?;
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
            Ok(Rootfs {
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
                None => StoreMount::Shared(shared),
                Some(_) => StoreMount::Own(own_store(place, &stage, &shared, &layer)?),
            };
            let root = layer.join("root");
            fill_bare_root(place, &root).or_refuse(Refusal::Layer, || {
                "write the container's first files".into()
            })?;
            let runner_root = match place.pool.layer {
                Layer::Tmpfs { .. } => None,
                Layer::Disk { .. } => Some(runner_tmpfs(&stage, place.uid_first())?),
            };
            Ok(Rootfs {
                root,
                sockets,
                runner_root,
                store: Some(store),
                docker: docker_storage(place, &layer)?,
            })
        }
    }
}
