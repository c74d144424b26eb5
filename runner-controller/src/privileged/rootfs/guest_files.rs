//! The few files a container has of its own before it boots: written into its layer by root, owned by
//! the container's root, in directories that root has just made. No path of the image is followed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::fstat;

use super::stage::open_in;
use crate::config::{Nix, Place};

/// The name a container calls itself.
pub(crate) fn hostname(place: Place<'_>) -> String {
    format!("{}-{}", place.config.host, place.id())
}

/// Fills an overlay's upper layer. A file in it hides the image's, be that a file or a symlink.
pub(super) fn fill_upper(place: Place<'_>, layer: &Path, image: &OwnedFd) -> io::Result<()> {
    fs::create_dir(layer.join("work"))?;
    let upper = Own::make(place, layer.join("upper"))?;
    upper.dir("etc", 0o755)?;
    upper.file("etc/resolv.conf", 0o644, &resolv_conf(place))?;
    // Empty and present: systemd makes one up without taking this for the machine's first boot,
    // which would cost 0.13 s.
    upper.file("etc/machine-id", 0o444, "")?;
    if let Some(nix) = &place.pool.nix {
        upper.nix(nix)?;
    }
    let name = hostname(place);
    upper.file("etc/hostname", 0o644, &format!("{name}\n"))?;
    // Images made from an archive have none, and sudo looks its own host up.
    let has_hosts = open_in(image, Path::new("etc/hosts"))
        .and_then(fstat)
        .is_ok_and(|hosts| hosts.st_size > 0);
    if !has_hosts {
        let text = format!("127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n");
        upper.file("etc/hosts", 0o644, &text)?;
    }
    Ok(())
}

/// Makes the root that a NixOS closure starts from. What is here is what nixpkgs' own containers
/// begin with (nixos/modules/virtualisation/nixos-containers.nix); activation makes the rest.
pub(super) fn fill_bare_root(place: Place<'_>, root: &Path) -> io::Result<()> {
    let root = Own::make(place, root.to_owned())?;
    // nspawn takes only a real /usr for an operating system.
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

/// Makes the layers of a store's overlay: a new directory, and in it the upper one, which is the
/// store's own as far as owner and mode go. The container's Nix gives it to its build group.
pub(super) fn fill_store(place: Place<'_>, layer: &Path) -> io::Result<()> {
    fs::create_dir(layer)?;
    fs::create_dir(layer.join("work"))?;
    let upper = Own::make(place, layer.join("upper"))?;
    upper.own(&upper.root, 0o1775)
}

/// What the container's Nix daemon is told beyond the image's `nix.conf`.
fn pool_conf(nix: &Nix) -> String {
    let mut text = String::from(
        "# This pool's, read by the Nix daemon after nix.conf.\n\
         build-users-group = nixbld\n\
         trusted-users = root\n\
         # A build that cannot be sandboxed fails.\n\
         sandbox-fallback = false\n\
         # Nobody reads this store after a crash.\n\
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

/// A new tree that belongs to the container's root.
struct Own {
    root: PathBuf,
    uid: u32,
}

impl Own {
    fn make(place: Place<'_>, root: PathBuf) -> io::Result<Self> {
        let own = Self {
            root,
            uid: place.uid_first(),
        };
        own.dir("", 0o755)?;
        Ok(own)
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

    /// The pool's part of Nix's configuration, which also says that there is a Nix.
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
        // The umask does not bend what is set here.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        chown(path, Some(self.uid), Some(self.uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nix_is_told_the_pools_caches_and_nothing_else_of_the_images_choices() {
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
