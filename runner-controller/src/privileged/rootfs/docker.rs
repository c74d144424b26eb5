//! Storage of container engines, and docker's init, in a pool with docker.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{SFlag, fstat};

use super::stage::{Stage, handle, open_in};
use crate::config::Place;
use crate::privileged::error::{OrRefuse, Refusal, RootError};

/// Directories in which container engines keep images and containers, with their modes.
///
/// An engine mounts overlays on its storage, and the kernel mounts none on the overlay of the root.
const STORAGE: [(&str, u32); 3] = [
    ("/var/lib/docker", 0o710),
    // The image store of Docker 29, or of an earlier one with `containerd-snapshotter`.
    ("/var/lib/containerd", 0o711),
    // podman and buildah.
    ("/var/lib/containers", 0o755),
];

/// Paths of docker's init in packages, in the order in which the daemon looks for it
/// (`lookupBinPath` in moby/daemon/config).
const INITS: [&str; 9] = [
    "usr/local/libexec/docker/docker-init",
    "usr/libexec/docker/docker-init",
    "usr/local/lib/docker/docker-init",
    "usr/lib/docker/docker-init",
    "usr/local/sbin/docker-init",
    "usr/local/bin/docker-init",
    "usr/sbin/docker-init",
    "usr/bin/docker-init",
    "bin/docker-init",
];

/// Mounts of a container of a pool with docker besides its root, as pairs of a staged path and a path in the
/// container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DockerMounts {
    /// Writable directories in the layer.
    pub(crate) storage: Vec<(PathBuf, PathBuf)>,
    /// docker's init, read-only.
    pub(crate) inits: Vec<(PathBuf, PathBuf)>,
}

/// Creates the storage of container engines in the layer, so that the layer's size limits it.
pub(super) fn storage(place: Place<'_>, layer: &Path) -> Result<DockerMounts, RootError> {
    let mut mounts = DockerMounts::default();
    if !place.pool.docker {
        return Ok(mounts);
    }
    let uid = place.uid_first();
    for (target, mode) in STORAGE {
        let target = Path::new(target);
        let Some(name) = target.file_name() else {
            continue;
        };
        let dir = layer.join(name);
        fs::create_dir(&dir)
            .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)))
            .and_then(|()| chown(&dir, Some(uid), Some(uid)))
            .or_refuse(Refusal::Layer, || {
                format!("create the storage for {} in the layer", target.display())
            })?;
        mounts.storage.push((dir, target.to_owned()));
    }
    Ok(mounts)
}

/// Binds docker's init of an image where a container can bind it again.
///
/// The daemon binds it into a container for `--init`, and remounts it read-only. runc before 1.2 asks for no
/// `nodev` then. The kernel does not clear that flag of the root in a user namespace, and refuses.
pub(super) fn inits(
    place: Place<'_>,
    stage: &Stage,
    image: &OwnedFd,
) -> Result<Vec<(PathBuf, PathBuf)>, RootError> {
    if !place.pool.docker {
        return Ok(Vec::new());
    }
    let found = find_inits(image).or_refuse(Refusal::Image, || "find docker's init".into())?;
    let mut binds = Vec::new();
    for (number, (path, init)) in found.into_iter().enumerate() {
        let target = stage.make_file(&format!("docker-init-{number}"))?;
        let source = handle(&init);
        let bind = |source: Option<&str>, flags: MsFlags| {
            mount(source, &target, None::<&str>, flags, None::<&str>)
                .or_refuse(Refusal::Mounts, || format!("bind {}", path.display()))
        };
        bind(Some(&source), MsFlags::MS_BIND)?;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        bind(None, flags)?;
        binds.push((target, path));
    }
    Ok(binds)
}

/// Returns the files that docker's init leads to, by their paths in the image.
fn find_inits(image: &OwnedFd) -> io::Result<BTreeMap<PathBuf, OwnedFd>> {
    let root = fs::read_link(handle(image))?;
    let mut found = BTreeMap::new();
    for init in INITS {
        let Ok(file) = open_in(image, Path::new(init)) else {
            continue;
        };
        let mode = SFlag::from_bits_truncate(fstat(&file)?.st_mode);
        if mode & SFlag::S_IFMT != SFlag::S_IFREG {
            continue;
        }
        // nspawn follows no link at the end of a target.
        let path = fs::read_link(handle(&file))?;
        if let Ok(within) = path.strip_prefix(&root) {
            found.insert(Path::new("/").join(within), file);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    #[test]
    fn dockers_init_is_found_behind_its_links_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        fs::create_dir_all(dir.path().join("usr/sbin/docker-init")).unwrap();
        symlink("usr/bin", dir.path().join("bin")).unwrap();
        symlink("tini-static", dir.path().join("usr/bin/docker-init")).unwrap();
        let image = OwnedFd::from(File::open(dir.path()).unwrap());
        assert!(find_inits(&image).unwrap().is_empty());
        fs::write(dir.path().join("usr/bin/tini-static"), "").unwrap();
        let found = find_inits(&image).unwrap();
        let paths: Vec<&PathBuf> = found.keys().collect();
        assert_eq!(paths, [Path::new("/usr/bin/tini-static")]);
    }
}
