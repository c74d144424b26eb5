//! The files that the launcher writes into a container's layer before it boots.
//!
//! They belong to root in the container. The launcher writes them into new directories, so it follows
//! no path of the image.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use super::stage::open_in;
use crate::config::{Nix, Place};

/// Returns the hostname of a container.
pub(crate) fn hostname(place: Place<'_>) -> String {
    format!("{}-{}", place.config.host, place.id())
}

/// Fills the upper layer of an overlay. A file in it hides the image's file or symlink.
pub(super) fn fill_upper(place: Place<'_>, layer: &Path, image: &OwnedFd) -> io::Result<()> {
    fs::create_dir(layer.join("work"))?;
    let upper = GuestTree::make(place, layer.join("upper"))?;
    upper.dir("etc", 0o755)?;
    upper.file("etc/resolv.conf", 0o644, &resolv_conf(place))?;
    // systemd fills an empty file with a new id. Without the file it would run its first-boot steps,
    // which take 0.13 s.
    upper.file("etc/machine-id", 0o444, "")?;
    if let Some(nix) = &place.pool.nix {
        upper.nix(nix)?;
    }
    let name = hostname(place);
    upper.file("etc/hostname", 0o644, &format!("{name}\n"))?;
    // Images from an archive have no hosts file, and sudo looks up its hostname.
    let has_hosts = open_in(image, Path::new("etc/hosts"))
        .and_then(fstat)
        .is_ok_and(|hosts| hosts.st_size > 0);
    if !has_hosts {
        let text = format!("127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n");
        upper.file("etc/hosts", 0o644, &text)?;
    }
    Ok(())
}

/// Makes the root from which a NixOS closure boots.
///
/// It has what nixpkgs' containers begin with (nixos/modules/virtualisation/nixos-containers.nix).
/// Activation makes the rest.
pub(super) fn fill_bare_root(place: Place<'_>, root: &Path) -> io::Result<()> {
    let root = GuestTree::make(place, root.to_owned())?;
    // nspawn accepts only a tree with a /usr directory as an operating system.
    for (path, mode) in [
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("etc", 0o755),
        ("nix", 0o755),
        ("nix/store", 0o755),
        ("var", 0o755),
        ("var/lib", 0o755),
        ("var/lib/private", 0o700),
        ("root", 0o700),
        ("tmp", 0o1777),
    ] {
        root.dir(path, mode)?;
    }
    root.file("etc/os-release", 0o644, "")?;
    root.file("etc/machine-id", 0o444, "")?;
    if let Some(nix) = &place.pool.nix {
        root.nix(nix)?;
    }
    root.file("etc/resolv.conf", 0o644, &resolv_conf(place))
}

/// Makes the directories of the store's overlay.
///
/// The store gets the owner and mode of the upper directory. The container's Nix gives the store to
/// its build group.
pub(super) fn fill_store(place: Place<'_>, layer: &Path) -> io::Result<()> {
    fs::create_dir(layer)?;
    fs::create_dir(layer.join("work"))?;
    let upper = GuestTree::make(place, layer.join("upper"))?;
    upper.own(&upper.root, 0o1775)
}

/// Returns the pool's part of the configuration of the container's Nix daemon.
fn pool_conf(nix: &Nix) -> String {
    let mut text = String::from(
        "# Settings of this pool. The Nix daemon reads them after nix.conf.\n\
         build-users-group = nixbld\n\
         trusted-users = root\n\
         # A build fails if it cannot be sandboxed.\n\
         sandbox-fallback = false\n\
         # This store is never read after a crash.\n\
         fsync-metadata = false\n",
    );
    for (key, list) in [
        ("extra-substituters", &nix.substituters),
        ("extra-trusted-public-keys", &nix.trusted_public_keys),
    ] {
        if !list.is_empty() {
            text.extend([key, " = ", &list.join(" "), "\n"]);
        }
    }
    text
}

fn resolv_conf(place: Place<'_>) -> String {
    if !place.pool.egress.has_dns() {
        // With no server named, programs ask loopback and are refused at once, in place of waiting
        // for an answer that never comes.
        return "# This pool has no DNS.\n".into();
    }
    let mut text = String::new();
    for server in &place.config.network.resolvers {
        text.extend(["nameserver ", &server.to_string(), "\n"]);
    }
    text
}

/// A new tree that belongs to root in the container.
struct GuestTree {
    root: PathBuf,
    uid: u32,
}

impl GuestTree {
    fn make(place: Place<'_>, root: PathBuf) -> io::Result<Self> {
        let tree = Self {
            root,
            uid: place.uid_first(),
        };
        tree.dir("", 0o755)?;
        Ok(tree)
    }

    fn dir(&self, path: &str, mode: u32) -> io::Result<()> {
        let path = self.root.join(path);
        fs::create_dir(&path)?;
        self.own(&path, mode)
    }

    fn file(&self, path: &str, mode: u32, text: &str) -> io::Result<()> {
        let path = self.root.join(path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&path)?.write_all(text.as_bytes())?;
        self.own(&path, mode)
    }

    /// Writes the pool's part of Nix's configuration. Its presence enables Nix in the container.
    fn nix(&self, nix: &Nix) -> io::Result<()> {
        self.dir("etc/nix", 0o755)?;
        self.file("etc/nix/pool.conf", 0o644, &pool_conf(nix))?;
        if let Some(registration) = &nix.registration {
            let link = self.root.join("etc/nix/registration");
            symlink(registration, &link)?;
            lchown(&link, Some(self.uid), Some(self.uid))?;
        }
        Ok(())
    }

    fn own(&self, path: &Path, mode: u32) -> io::Result<()> {
        // A mode that is set after creation does not depend on the umask.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        chown(path, Some(self.uid), Some(self.uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nix_gets_the_pools_caches_and_keeps_the_images_other_settings() {
        let nix = Nix {
            substituters: vec!["https://a.example".into(), "http://b.example".into()],
            trusted_public_keys: vec!["a-1:KEY=".into()],
            registration: None,
        };
        let text = pool_conf(&nix);
        assert!(text.contains("\nextra-substituters = https://a.example http://b.example\n"));
        assert!(text.contains("\nextra-trusted-public-keys = a-1:KEY=\n"));
        assert!(text.contains("\ntrusted-users = root\n"));
        assert!(!pool_conf(&Nix::default()).contains("extra-"));
    }
}
