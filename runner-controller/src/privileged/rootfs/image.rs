//! The shared image of a pool, which is checked, bound to the stage and mapped to the slot's ids.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use super::stage::{Stage, map_ids, open_in, open_mapped, unmount};
use crate::config::{INIT, MINIMAL_TARGET, Place};
use crate::privileged::error::{OrRefuse, Refusal, RootError};
use crate::privileged::trust;

fn open_image(path: &Path) -> Result<OwnedFd, RootError> {
    trust::open_root_owned(path, Refusal::Image)
}

/// Binds a directory image to the stage, read-only and with the slot's ids.
pub(super) fn map_image(
    place: Place<'_>,
    stage: &Stage,
    path: &Path,
) -> Result<OwnedFd, RootError> {
    let opened = open_image(path)?;
    open_in(&opened, Path::new(INIT)).or_refuse(Refusal::Image, || {
        format!("find a systemd userland in {} ({INIT})", path.display())
    })?;
    let plain = stage.bind("plain", &opened, Refusal::Image)?;
    let mapped = stage.make("image")?;
    map_ids(place, &plain, &mapped)?;
    let image = open_mapped(&mapped)?;
    let uid = place.uid_first();
    let root = open_in(&image, Path::new("usr"))
        .and_then(fstat)
        .or_refuse(Refusal::Image, || {
            format!("read the owner of {}/usr", path.display())
        })?;
    if root.st_uid != uid {
        return Err(RootError::plain(
            Refusal::Mounts,
            format!(
                "/usr of {} has uid {} after mapping and not {uid}: the image does not belong to \
                 root, or mount does not support ID-mapped mounts (util-linux 2.39 does)",
                path.display(),
                root.st_uid
            ),
        ));
    }
    unmount(&plain)?;
    Ok(image)
}

/// Returns true if an image boots its runner before the rest of its system.
pub(super) fn is_minimal(image: &OwnedFd) -> bool {
    let target = Path::new("usr/lib/systemd/system").join(MINIMAL_TARGET);
    open_in(image, &target).is_ok()
}

/// Binds the store to the stage. nspawn maps the ids of a bind, but not those of an overlay's lower
/// layer.
pub(super) fn bind_store(stage: &Stage, system: &Path, store: &Path) -> Result<PathBuf, RootError> {
    let opened = open_image(store)?;
    let init = system.join("init");
    // The container resolves a symlink in the store, so here it only has to exist.
    init.symlink_metadata()
        .or_refuse(Refusal::Image, || format!("find {}", init.display()))?;
    stage.bind("store", &opened, Refusal::Image)
}
