//! The image that containers boot: a copy of the guest's root filesystem, prepared by our own
//! command as an operator would prepare it, with the stand-in listener where the real one goes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bed::{self, note, remove_tree, write_whole};
use crate::binaries::{Binaries, CONTROLLER, LISTENER};
use crate::config::IMAGE;
use crate::host::{TestHost, images_dir};
use crate::rootfs::GUEST;

/// Where the real listener is in the image; see the start script that `prepare-image` installs.
const LISTENER_PATH: &str = "opt/actions-runner/bin/Runner.Listener";

/// Makes the image anew if a program that shapes it has changed since it was made.
///
/// A running container keeps the directory it was booted from; see [`remove_old`].
pub fn refresh(host: &TestHost, binaries: &Binaries) -> Result<()> {
    let images = images_dir(host.bed());
    let stamp = images.join("debian.stamp");
    let wanted = format!(
        "{} {} {}",
        GUEST.id(),
        binaries.fingerprint(CONTROLLER)?,
        binaries.fingerprint(LISTENER)?
    );
    let image = images.join("debian");
    if image.is_dir() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    note("preparing the image");
    let new = images.join("debian.new");
    remove_tree(&new)?;
    // A copy, not an overlay: an overlay cannot be ID-mapped.
    bed::run(
        Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .arg(GUEST.path(host.bed()))
            .arg(&new),
    )?;
    host.run(&[CONTROLLER, "prepare-image", &format!("{IMAGE}.new")])?;
    install_listener(binaries.path(LISTENER)?, &new)?;
    if stamp.exists() {
        fs::remove_file(&stamp)?;
    }
    if image.is_dir() {
        fs::rename(&image, free_name(&images)?)?;
    }
    fs::rename(&new, &image)?;
    write_whole(&stamp, wanted.as_bytes())
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

fn install_listener(program: &Path, image: &Path) -> Result<()> {
    let path = image.join(LISTENER_PATH);
    fs::create_dir_all(path.parent().context("a file has a directory")?)?;
    fs::copy(program, &path).with_context(|| format!("copy {}", program.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn free_name(images: &Path) -> Result<PathBuf> {
    (0..u32::MAX)
        .map(|number| images.join(format!("debian.old-{number}")))
        .find(|path| !path.exists())
        .context("too many old images")
}
