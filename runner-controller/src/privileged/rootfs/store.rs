//! Nix in a container: a store of the life's own over what came with the image.
//!
//! ```text
//! nixos       host's store ──ID-mapped bind──▸ lower ─┐
//!             layer: store/upper, store/work ─────────┴─overlay──▸ /nix/store
//! directory   the image's /nix is part of the root's overlay already
//! ```
//! The host's `/nix/var`, its database and its daemon's socket, is in no container: a fixed-output
//! build of the host's daemon runs in the host's network, and a shared store would hand one job's
//! sources to the next. All of the host's store can be read in a container of a `nixos` image, with
//! `nix = true` or without, as every user of the host can read it; one bind for each path of a closure
//! would cost more than the rest of the boot.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use super::guest_files::fill_store;
use super::stage::{Stage, map_ids, mount_overlay, open_in, open_mapped, unmount};
use crate::config::{Image, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};

/// Where a store is in the container, wherever it is on the host.
pub(crate) const STORE: &str = "/nix/store";

/// What pulls the container's Nix daemon into its boot.
const SOCKET: &str = "etc/systemd/system/sockets.target.wants/nix-daemon.socket";

/// The store of a `nixos` image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreMount {
    /// The host's, to be mapped and bound read-only.
    Shared(PathBuf),
    /// The life's, mounted and mapped.
    Own(PathBuf),
}

/// Mounts a life's own store over the host's, which is bound at `shared`.
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
        fstat(&lower).or_refuse(Refusal::Image, || "look at the store".into())?,
    );
    if seen.st_uid != uid {
        return Err(RootError::plain(
            Refusal::Mounts,
            format!(
                "the store belongs to uid {} in the container's map and not to {uid}: either it is \
                 not root's, or mount does not know ID-mapped mounts (util-linux 2.39)",
                seen.st_uid
            ),
        ));
    }
    if let Image::Nixos { store, .. } = &place.pool.image {
        let missing = registration_in(place, store)
            .filter(|file| file.symlink_metadata().is_err())
            .map(|file| format!("find the registration {}", file.display()));
        if let Some(operation) = missing {
            return Err(RootError::plain(Refusal::Image, operation));
        }
    }
    unmount(shared)?;
    let layer = layer.join("store");
    fill_store(place, &layer).or_refuse(Refusal::Layer, || "make the store's own layer".into())?;
    let own = stage.make("own-store")?;
    mount_overlay(&lower, &layer, &own, &place.pool.layer)?;
    Ok(own)
}

/// Where the registration of a pool is on the host, in a store that lies at `store`.
fn registration_in(place: Place<'_>, store: &Path) -> Option<PathBuf> {
    let nix = place.pool.nix.as_ref()?;
    let within = nix.registration.as_ref()?.strip_prefix(STORE).ok()?;
    Some(store.join(within))
}

/// Makes sure that a directory image has the Nix its pool promises to jobs.
pub(super) fn check_nix(place: Place<'_>, image: &OwnedFd) -> Result<(), RootError> {
    let Some(nix) = &place.pool.nix else {
        return Ok(());
    };
    open_in(image, Path::new(SOCKET)).or_refuse(Refusal::Image, || {
        "find nix-daemon.socket in the image of a pool with nix = true; install Nix in the image, \
         then run runner-controller prepare-image --nix"
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
