//! The Nix store of a container: the image's store, and in a pool with `nix = true` a writable overlay.
//!
//! ```text
//! nixos       host's store ──ID-mapped bind──▸ lower ─┐
//!             layer: store/upper, store/work ─────────┴─overlay──▸ /nix/store
//! directory   the image's /nix is part of the root's overlay
//! ```
//! No container has the host's `/nix/var` with its database and its daemon's socket. A fixed-output
//! build of the host's daemon runs in the host's network, and a shared store would show one job's
//! sources to the next job. A container of a `nixos` image can read the whole store of the host, as
//! every user of the host can. One bind for each path of a closure would take longer than the rest of
//! the boot.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use super::guest_files::fill_store;
use super::stage::{Stage, map_ids, mount_overlay, open_in, open_mapped, unmount};
use crate::config::{Image, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};

/// Path of the store in the container. It can have another path on the host.
pub(crate) const STORE: &str = "/nix/store";

/// Link that starts the container's Nix daemon socket at boot.
const SOCKET: &str = "etc/systemd/system/sockets.target.wants/nix-daemon.socket";

/// Nix store of a container with a `nixos` image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreMount {
    /// The host's store, which nspawn maps and binds read-only.
    Shared(PathBuf),
    /// The container's writable store, mounted and mapped.
    Own(PathBuf),
}

/// Mounts the container's writable store over the host's, which is bound at `shared`.
pub(super) fn own_store(
    place: Place<'_>,
    stage: &Stage,
    shared: &Path,
    layer: &Path,
) -> Result<PathBuf, RootError> {
    let mapped = stage.make("mapped-store")?;
    map_ids(place, shared, &mapped)?;
    let lower = open_mapped(&mapped)?;
    let (uid, seen) = (
        place.uid_first(),
        fstat(&lower).or_refuse(Refusal::Image, || "read the owner of the store".into())?,
    );
    if seen.st_uid != uid {
        return Err(RootError::plain(
            Refusal::Mounts,
            format!(
                "the store has uid {} after mapping and not {uid}: it does not belong to root, or \
                 mount does not support ID-mapped mounts (util-linux 2.39 does)",
                seen.st_uid
            ),
        ));
    }
    if let Image::Nixos { store, .. } = &place.pool.image {
        let missing = registration_in(place, store)
            .filter(|file| file.symlink_metadata().is_err())
            .map(|file| format!("the registration {} does not exist", file.display()));
        if let Some(message) = missing {
            return Err(RootError::plain(Refusal::Image, message));
        }
    }
    unmount(shared)?;
    let layer = layer.join("store");
    fill_store(place, &layer)
        .or_refuse(Refusal::Layer, || "create the layer of the store".into())?;
    let own = stage.make("own-store")?;
    mount_overlay(&lower, &layer, &own, &place.pool.layer)?;
    Ok(own)
}

/// Returns the path of the pool's registration on the host, in the store at `store`.
fn registration_in(place: Place<'_>, store: &Path) -> Option<PathBuf> {
    let nix = place.pool.nix.as_ref()?;
    let within = nix.registration.as_ref()?.strip_prefix(STORE).ok()?;
    Some(store.join(within))
}

/// Checks that the directory image of a pool with `nix = true` has Nix.
pub(super) fn check_nix(place: Place<'_>, image: &OwnedFd) -> Result<(), RootError> {
    let Some(nix) = &place.pool.nix else {
        return Ok(());
    };
    open_in(image, Path::new(SOCKET)).or_refuse(Refusal::Image, || {
        "find nix-daemon.socket in the image of a pool with nix = true (install Nix in the image, \
         then run runner-controller prepare-image --nix)"
            .into()
    })?;
    let Some(registration) = &nix.registration else {
        return Ok(());
    };
    let within = registration.strip_prefix("/").unwrap_or(registration);
    open_in(image, within)
        .map(drop)
        .or_refuse(Refusal::Image, || {
            format!(
                "find the registration {} in the image",
                registration.display()
            )
        })
}
