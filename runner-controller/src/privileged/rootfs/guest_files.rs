//! The files that the launcher writes into a container's layer before it boots.
//!
//! They belong to root in the container. The launcher writes them into new directories, so it follows
//! no path of the image.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use super::stage::{handle, open_in};
use crate::config::{Nix, Place};

/// Path of the hosts file in the image and in the layer.
const HOSTS: &str = "etc/hosts";
/// File with the variables of listener and jobs, which the runner's unit reads.
const ENVIRONMENT: &str = "etc/github-runner.env";
/// Maximum size of an image's hosts file.
const HOSTS_MAX_BYTES: u64 = 1 << 20;

/// Returns the hostname of a container.
pub(crate) fn hostname(place: Place<'_>) -> String {
    format!("{}-{}", place.config.host, place.id())
}

/// Fills the upper layer of an overlay. A file in it hides the image's file or symlink.
pub(super) fn fill_upper(place: Place<'_>, layer: &Path, image: &OwnedFd) -> io::Result<()> {
    fs::create_dir(layer.join("work"))?;
    let upper = GuestTree::make(place, layer.join("upper"))?;
    upper.dir("etc", 0o755)?;
    upper.file("etc/resolv.conf", 0o644, resolv_conf(place))?;
    // systemd fills an empty file with a new id. Without the file it would run its first-boot steps,
    // which take 0.13 s.
    upper.file("etc/machine-id", 0o444, "")?;
    if let Some(nix) = &place.pool.nix {
        upper.nix(nix)?;
    }
    upper.environment(place)?;
    let name = hostname(place);
    upper.file("etc/hostname", 0o644, format!("{name}\n"))?;
    upper.file(HOSTS, 0o644, hosts(&images_hosts(image)?, &name))
}

/// Returns the image's hosts file, which is empty if the image has none.
fn images_hosts(image: &OwnedFd) -> io::Result<Vec<u8>> {
    let file = match open_in(image, Path::new(HOSTS)) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(Vec::new()),
        other => other?,
    };
    let seen = fstat(&file)?;
    if SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Ok(Vec::new());
    }
    let mut text = Vec::new();
    let mut bounded = fs::File::open(handle(&file))?.take(HOSTS_MAX_BYTES + 1);
    bounded.read_to_end(&mut text)?;
    if text.len() as u64 > HOSTS_MAX_BYTES {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("/{HOSTS} of the image has more than {HOSTS_MAX_BYTES} bytes"),
        ));
    }
    Ok(text)
}

/// Returns the hosts file of a container: the image's lines, and then the container's name.
///
/// sudo, Java and many other programs look up their own hostname. A name that the file lacks would be
/// asked of a resolver outside.
fn hosts(of_image: &[u8], name: &str) -> Vec<u8> {
    let mut text = of_image.to_vec();
    if text.trim_ascii().is_empty() {
        text = b"127.0.0.1 localhost\n::1 localhost".to_vec();
    }
    if text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(format!("127.0.1.1 {name}\n").as_bytes());
    text
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
    root.environment(place)?;
    root.file("etc/resolv.conf", 0o644, resolv_conf(place))
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

/// Returns variables in the format of `EnvironmentFile=` (systemd.exec(5)).
fn environment_file(variables: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in variables {
        text.extend([name, "=\""]);
        for c in value.chars() {
            // Between double quotes, a backslash quotes these characters (SHELL_NEED_ESCAPE in systemd).
            if "\"\\`$".contains(c) {
                text.push('\\');
            }
            text.push(c);
        }
        text.push_str("\"\n");
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

    fn file(&self, path: &str, mode: u32, text: impl AsRef<[u8]>) -> io::Result<()> {
        let path = self.root.join(path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&path)?.write_all(text.as_ref())?;
        self.own(&path, mode)
    }

    /// Writes the pool's part of Nix's configuration. Its presence enables Nix in the container.
    fn nix(&self, nix: &Nix) -> io::Result<()> {
        self.dir("etc/nix", 0o755)?;
        self.file("etc/nix/pool.conf", 0o644, pool_conf(nix))?;
        if let Some(registration) = &nix.registration {
            let link = self.root.join("etc/nix/registration");
            symlink(registration, &link)?;
            lchown(&link, Some(self.uid), Some(self.uid))?;
        }
        Ok(())
    }

    fn environment(&self, place: Place<'_>) -> io::Result<()> {
        if place.pool.environment.is_empty() {
            return Ok(());
        }
        let text = environment_file(&place.pool.environment);
        self.file(ENVIRONMENT, 0o644, text)
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
    fn a_hosts_file_keeps_the_images_lines_and_gets_the_containers_name() {
        let image = b"127.0.0.1 localhost\n10.0.0.5 registry.internal";
        let wanted = "127.0.0.1 localhost\n10.0.0.5 registry.internal\n127.0.1.1 box-ci-1\n";
        assert_eq!(hosts(image, "box-ci-1"), wanted.as_bytes());
        for empty in ["", " \n"] {
            let wanted = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 box-ci-1\n";
            assert_eq!(hosts(empty.as_bytes(), "box-ci-1"), wanted.as_bytes());
        }
    }

    #[test]
    fn only_a_regular_hosts_file_of_an_image_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let image = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        assert_eq!(images_hosts(&image).unwrap(), b"");
        fs::create_dir(dir.path().join("etc")).unwrap();
        let hosts = dir.path().join(HOSTS);
        symlink("/etc/hosts", &hosts).unwrap();
        assert_eq!(images_hosts(&image).unwrap(), b"");
        fs::remove_file(&hosts).unwrap();
        fs::create_dir(&hosts).unwrap();
        assert_eq!(images_hosts(&image).unwrap(), b"");
        fs::remove_dir(&hosts).unwrap();
        // The link is followed as in the container, and not on the host.
        fs::write(dir.path().join("etc/hosts.real"), "10.0.0.5 registry\n").unwrap();
        symlink("/etc/hosts.real", &hosts).unwrap();
        assert_eq!(images_hosts(&image).unwrap(), b"10.0.0.5 registry\n");
        fs::remove_file(&hosts).unwrap();
        let large = "#".repeat(1 + usize::try_from(HOSTS_MAX_BYTES).unwrap());
        fs::write(&hosts, large).unwrap();
        assert!(images_hosts(&image).is_err());
    }

    #[test]
    fn a_variable_reaches_systemd_as_it_is_configured() {
        let variables = [("A", r#"a "b" $c `d` \e 'f' #g"#), ("B", "")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = environment_file(&variables.into());
        assert_eq!(
            text,
            "A=\"a \\\"b\\\" \\$c \\`d\\` \\\\e 'f' #g\"\nB=\"\"\n"
        );
    }

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
