//! The image that containers boot: a copy of the guest's root filesystem, prepared by our own
//! command as an operator would prepare it, with the stand-in listener where the real one goes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bed::{self, Lock, hash, note, remove_tree, write_whole};
use crate::binaries::{Binaries, CONTROLLER, LISTENER};
use crate::host::{TestHost, images_dir};
use crate::rootfs::{self, DOCKER, GUEST, Incomplete, NIX};
use crate::sources::{self, Sources};

/// The one system of the store.
const SYSTEM: &str = "0123456789abcdfghijklmnpqrsvwxyz-nixos-system-testhost";
/// Path of the real listener in the image; see the start script that `prepare-image` installs.
const LISTENER_PATH: &str = "opt/actions-runner/bin/Runner.Listener";

/// Makes the image anew if a program that shapes it has changed since it was made.
///
/// A running container keeps the directory it was booted from; see [`remove_old`].
pub fn refresh(host: &TestHost, binaries: &Binaries) -> Result<()> {
    let images = images_dir(host.bed());
    let stamp = images.join("debian.stamp");
    let sources = Sources::ready(host.bed())?;
    let wanted = format!(
        "{} {} {} {} {}",
        GUEST.id(),
        sources.id(),
        binaries.fingerprint(CONTROLLER)?,
        binaries.fingerprint(LISTENER)?,
        binaries.runner_fingerprint()?
    );
    let image = images.join("debian");
    if image.is_dir() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    note("preparing the image");
    let new = prepare(host, "debian.new", binaries.path(LISTENER)?)?;
    if let Some(runner) = binaries.runner() {
        install_runner(runner, &new)?;
    }
    sources.install(&new)?;
    if stamp.exists() {
        fs::remove_file(&stamp)?;
    }
    if image.is_dir() {
        fs::rename(&image, free_name(&images)?)?;
    }
    fs::rename(&new, &image)?;
    write_whole(&stamp, wanted.as_bytes())
}

/// Makes an image as an operator would, with the program that is installed in the host, whatever
/// that one is. Returns its directory, seen from outside.
pub fn prepare(host: &TestHost, name: &str, listener: &Path) -> Result<PathBuf> {
    prepare_with(host, name, listener, &[])
}

/// Makes an image with options of `prepare-image`, like [`prepare`].
pub fn prepare_with(
    host: &TestHost,
    name: &str,
    listener: &Path,
    options: &[&str],
) -> Result<PathBuf> {
    let image = images_dir(host.bed()).join(name);
    remove_tree(&image)?;
    // A copy, not an overlay: an overlay cannot be ID-mapped.
    bed::run(
        Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .arg(GUEST.path(host.bed()))
            .arg(&image),
    )?;
    let dir = inside(name);
    let command: Vec<&str> = [CONTROLLER, "prepare-image", &dir]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    host.run(&command)?;
    install_listener(listener, &image)?;
    Ok(image)
}

/// Returns the names of the archives that the image has for its jobs; see [`Sources`].
pub fn archives(host: &TestHost) -> Result<Vec<String>> {
    let dir = images_dir(host.bed())
        .join("debian")
        .join(sources::IN_IMAGE);
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        names.extend(file.strip_suffix(".tar.gz").map(str::to_owned));
    }
    Ok(names)
}

/// Deletes images that were replaced. Only for a host in which no container runs yet.
pub fn remove_old(host: &TestHost) -> Result<()> {
    for entry in fs::read_dir(images_dir(host.bed()))? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("debian.old-")
        {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Makes an image that differs from the one that works: all its files are shared, so what shapes it
/// removes a file before it writes another in its place. Returns its path in the host.
pub fn variant(
    host: &TestHost,
    name: &str,
    shape: impl FnOnce(&Path) -> Result<()>,
) -> Result<String> {
    let images = images_dir(host.bed());
    let new = images.join(format!("{name}.new"));
    link_tree(&images.join("debian"), &new)?;
    shape(&new).with_context(|| format!("shape the image {name}"))?;
    let image = images.join(name);
    remove_tree(&image)?;
    fs::rename(&new, &image)?;
    Ok(inside(name))
}

/// Makes the image that works with a minimal boot. Returns its path in the host.
pub fn minimal(host: &TestHost) -> Result<String> {
    let image = variant(host, "minimal", |_| Ok(()))?;
    host.run(&[CONTROLLER, "prepare-image", "--sudo", "--minimal", &image])?;
    Ok(image)
}

/// Makes a store with one system in it, after the image that works: below an otherwise empty root,
/// as a NixOS container has it. Returns the paths of system and store in the host.
pub fn store(host: &TestHost) -> Result<(String, String)> {
    store_with(host, |_, _| Ok(()))
}

/// The same with a system that was shaped: given are the store and the system's userland, whose files
/// are shared with other images, so a file is removed before another is written in its place.
pub fn store_with(
    host: &TestHost,
    shape: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<(String, String)> {
    store_of(host, "store", "debian", shape)
}

fn store_of(
    host: &TestHost,
    name: &str,
    image: &str,
    shape: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<(String, String)> {
    let images = images_dir(host.bed());
    let store = images.join(name);
    remove_tree(&store)?;
    let system = store.join(SYSTEM);
    fs::create_dir_all(&system)?;
    link_tree(&images.join(image), &system.join("userland"))?;
    let busybox = system.join("userland/usr/bin/busybox");
    fs::hard_link(&busybox, system.join("busybox"))
        .with_context(|| busybox.display().to_string())?;
    shape(&store, &system.join("userland")).context("shape the store")?;
    let init = system.join("init");
    fs::write(&init, store_init())?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok((inside(&format!("{name}/{SYSTEM}")), inside(name)))
}

/// An image with Nix in it, and what goes with it.
#[derive(Debug, Clone)]
pub struct WithNix {
    /// Path of the image in the host. Its store has busybox and no database.
    pub image: String,
    /// The registration, in the image and, under `STORE/…`, in the store.
    pub registration: &'static str,
    /// A store with a system made from the image, as [`store`] returns it.
    pub system: (String, String),
    /// The registration in that store.
    pub store_registration: String,
    /// The key that `good` is signed with.
    pub public_key: String,
}

/// A binary cache's files, in the host: two paths, named by the files `good` and `forged`, of which the
/// second is signed by another key.
pub const NIX_CACHE: &str = "/var/lib/runner-images/nix-cache";

/// As NixOS's own installation images name it.
const REGISTRATION: &str = "/nix-path-registration";
/// The store path of the registration in the store.
const CLOSURE_INFO: &str = "123456789abcdfghijklmnpqrsvwxyz0-closure-info";

/// Makes the image for pools with `nix = true`, if a program that shapes it has changed.
pub fn with_nix(host: &TestHost) -> Result<WithNix> {
    {
        let _building = host.bed().lock(Lock::Build)?;
        rootfs::build(host.bed(), &[&NIX], Incomplete::Keep)?;
    }
    let images = images_dir(host.bed());
    let stamp = images.join("nix.stamp");
    let base = fs::read_to_string(images.join("debian.stamp")).context("no image to begin with")?;
    let wanted = format!("{} {} {base}", NIX.id(), hash(FILL_STORE.as_bytes()));
    let image = images.join("nix");
    if !fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        note("preparing the image with Nix");
        remove_tree(&image)?;
        bed::run(
            Command::new("cp")
                .args(["--archive", "--reflink=auto"])
                .arg(NIX.path(host.bed()))
                .arg(&image),
        )?;
        host.run(&[CONTROLLER, "prepare-image", "--nix", &inside("nix")])?;
        install_listener(&images.join("debian").join(LISTENER_PATH), &image)?;
        fs::create_dir_all(image.join("etc/nix"))?;
        // No cache but the pool's: the public one does not answer here, which takes its time.
        let conf = "substituters =\nexperimental-features = nix-command\n";
        fs::write(image.join("etc/nix/nix.conf"), conf)?;
        fill_store(host, &inside("nix"))?;
        let cache = images.join("nix-cache");
        remove_tree(&cache)?;
        fs::rename(image.join("cache"), &cache)?;
        write_whole(&stamp, wanted.as_bytes())?;
    }
    let system = store_of(host, "nix-store", "nix", |_, _| Ok(()))?;
    let store = images.join("nix-store");
    for entry in fs::read_dir(image.join("nix/store"))? {
        let entry = entry?;
        link_tree(&entry.path(), &store.join(entry.file_name()))?;
    }
    fs::create_dir(store.join(CLOSURE_INFO))?;
    fs::copy(
        image.join(REGISTRATION.trim_start_matches('/')),
        store.join(CLOSURE_INFO).join("registration"),
    )?;
    let public_key = fs::read_to_string(images.join("nix-cache/public"))?;
    Ok(WithNix {
        image: inside("nix"),
        registration: REGISTRATION,
        store_registration: format!("{}/{CLOSURE_INFO}/registration", system.1),
        system,
        public_key: public_key.trim().to_owned(),
    })
}

/// Makes the image for pools with `docker = true`, if a program that shapes it has changed. Returns its
/// path in the host. Its base images are made of busybox, because no registry is reachable.
pub fn with_docker(host: &TestHost) -> Result<String> {
    {
        let _building = host.bed().lock(Lock::Build)?;
        rootfs::build(host.bed(), &[&DOCKER], Incomplete::Keep)?;
    }
    let images = images_dir(host.bed());
    let stamp = images.join("docker.stamp");
    let base = fs::read_to_string(images.join("debian.stamp")).context("no image to begin with")?;
    let wanted = format!("{} {base}", DOCKER.id());
    let image = images.join("docker");
    if !fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        note("preparing the image with Docker");
        remove_tree(&image)?;
        bed::run(
            Command::new("cp")
                .args(["--archive", "--reflink=auto"])
                .arg(DOCKER.path(host.bed()))
                .arg(&image),
        )?;
        host.run(&[
            CONTROLLER,
            "prepare-image",
            "--docker",
            "--sudo",
            &inside("docker"),
        ])?;
        install_listener(&images.join("debian").join(LISTENER_PATH), &image)?;
        write_whole(&stamp, wanted.as_bytes())?;
    }
    Ok(inside("docker"))
}

/// Makes the image of [`with_docker`] with a minimal boot. Returns its path in the host.
pub fn with_docker_minimal(host: &TestHost) -> Result<String> {
    const NAME: &str = "docker-minimal";
    let images = images_dir(host.bed());
    let stock = with_docker(host)?;
    let wanted = fs::read_to_string(images.join("docker.stamp")).context(stock)?;
    let stamp = images.join("docker-minimal.stamp");
    if !fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        link_tree(&images.join("docker"), &images.join(NAME))?;
        host.run(&[
            CONTROLLER,
            "prepare-image",
            "--docker",
            "--sudo",
            "--minimal",
            &inside(NAME),
        ])?;
        write_whole(&stamp, wanted.as_bytes())?;
    }
    Ok(inside(NAME))
}

/// Fills the image's store with the image's own Nix: a store path that builds can use, its
/// registration, and a cache of two built paths, one of which is signed with another key.
const FILL_STORE: &str = r#"
set -eu
export PATH=/usr/bin:/bin HOME=/root
mkdir -p /work/testbed-busybox/bin /cache
cp /usr/bin/busybox /work/testbed-busybox/bin/
shell=$(nix-store --add /work/testbed-busybox)
nix-store --dump-db >/nix-path-registration
nix-store --generate-binary-cache-key testbed-1 /work/good.secret /cache/public
nix-store --generate-binary-cache-key testbed-1 /work/forged.secret /work/forged.public
for name in good forged; do
    path=$(nix-build --no-out-link --option sandbox false --expr "
        derivation { name = \"$name\"; system = builtins.currentSystem;
            builder = \"\${builtins.storePath $shell}/bin/busybox\";
            args = [ \"sh\" \"-c\" \"echo $name from the cache >\$out\" ]; }")
    nix store sign --key-file /work/$name.secret $path
    nix copy --to file:///cache $path
    echo $path >/cache/$name
    nix-store --delete $path
done
rm -rf /nix/store/*.drv /nix/store/.links /nix/var /work /root/.cache /root/.local
"#;

fn fill_store(host: &TestHost, image: &str) -> Result<()> {
    let enter = format!(
        "mount --rbind /dev {image}/dev; mount -t proc proc {image}/proc; exec chroot {image} sh -c \"$1\""
    );
    host.run(&[
        "unshare", "--mount", "--pid", "--fork", "sh", "-euc", &enter, "sh", FILL_STORE,
    ])
    .map(drop)
    .context("fill the image's store")
}

/// Returns a short form of a NixOS closure's `init`: it makes the rest of the root and becomes systemd.
fn store_init() -> String {
    format!(
        "#!/nix/store/{SYSTEM}/busybox sh\n\
         set -eu\n\
         system=/nix/store/{SYSTEM}/userland\n\
         export PATH=/applets\n\
         /nix/store/{SYSTEM}/busybox mkdir /applets\n\
         /nix/store/{SYSTEM}/busybox --install -s /applets\n\
         for name in bin sbin lib lib64; do ln -s usr/$name /$name; done\n\
         mount --bind $system/usr /usr\n\
         for path in $system/etc/* $system/etc/.[!.]*; do\n\
         [ -e /etc/${{path##*/}} ] || [ ! -e $path ] || cp -a $path /etc/\n\
         done\n\
         [ ! -e $system/etc/nix/nix.conf ] || {{ mkdir -p /etc/nix; cp -a $system/etc/nix/nix.conf /etc/nix/; }}\n\
         mkdir -p /home /opt/actions-runner /var/log /var/tmp /var/cache /run\n\
         chmod 1777 /var/tmp\n\
         cp -a $system/home/runner /home/\n\
         for path in $system/opt/actions-runner/*; do\n\
         case $path in\n\
         */bin) mkdir /opt/actions-runner/bin; mount --bind $path /opt/actions-runner/bin ;;\n\
         *) [ ! -e $path ] || cp -a $path /opt/actions-runner/ ;;\n\
         esac\n\
         done\n\
         chown $(stat -c %u:%g $system/opt/actions-runner) /opt/actions-runner\n\
         mkdir /run/current-system\n\
         ln -s /usr /run/current-system/sw\n\
         rm -rf /applets\n\
         exec /usr/lib/systemd/systemd \"$@\"\n"
    )
}

/// A tree of the same files under other names.
fn link_tree(from: &Path, to: &Path) -> Result<()> {
    remove_tree(to)?;
    bed::run(
        Command::new("cp")
            .args(["--archive", "--link"])
            .arg(from)
            .arg(to),
    )
    .map(drop)
}

/// Returns the path of an image in the host.
pub(crate) fn inside(name: &str) -> String {
    format!("/var/lib/runner-images/{name}")
}

fn install_listener(program: &Path, image: &Path) -> Result<()> {
    put_listener(program, image)?;
    // The stand-in looks for libicu, and uses nothing of it.
    let libraries = image.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let icu = libraries.join("libicuuc.so.76");
    if libraries.is_dir() && !icu.exists() {
        fs::write(&icu, "").with_context(|| format!("write {}", icu.display()))?;
    }
    Ok(())
}

/// Copies the stand-in listener into an image, whatever libraries the image has.
pub fn put_listener(program: &Path, image: &Path) -> Result<()> {
    let path = image.join(LISTENER_PATH);
    fs::create_dir_all(path.parent().context("a file has a directory")?)?;
    fs::copy(program, &path).with_context(|| format!("copy {}", program.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Puts GitHub's own runner in the stand-in listener's place.
fn install_runner(runner: &Path, image: &Path) -> Result<()> {
    let root = image.join("opt/actions-runner");
    fs::remove_file(image.join(LISTENER_PATH))?;
    for entry in fs::read_dir(runner).with_context(|| format!("list {}", runner.display()))? {
        // Without the owner of the files, which is the operator who unpacked them.
        bed::run(
            Command::new("cp")
                .args(["--recursive", "--preserve=mode,links", "--reflink=auto"])
                .arg("--target-directory")
                .arg(&root)
                .arg(entry?.path()),
        )?;
    }
    Ok(())
}

fn free_name(images: &Path) -> Result<PathBuf> {
    (0..u32::MAX)
        .map(|number| images.join(format!("debian.old-{number}")))
        .find(|path| !path.exists())
        .context("too many old images")
}
