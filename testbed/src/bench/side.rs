//! One of two versions that are compared: its program, its image and its files on the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bed::{note, remove_tree};
use crate::binaries::CONTROLLER;
use crate::config::{self, Config};
use crate::host::images_dir;
use crate::image;
use crate::lab::{FIREWALL, Lab, RUN_DIR};

/// One version of the program, and the image that it prepared.
pub(super) struct Side {
    program: PathBuf,
    image: PathBuf,
    config: Config,
}

impl Side {
    /// Prepares an image with the program. Every pool of the configuration gets that image.
    pub(super) fn prepare(
        lab: &Lab,
        name: &str,
        program: PathBuf,
        listener: &Path,
        config: &Config,
    ) -> Result<Self> {
        let mut config = config.clone();
        for pool in &mut config.pools {
            pool.image = config::Image::Directory(format!("/var/lib/runner-images/{name}"));
        }
        let side = Self {
            program,
            image: images_dir(lab.host().bed()).join(name),
            config,
        };
        side.install_program(lab)?;
        image::prepare(lab.host(), name, listener)?;
        Ok(side)
    }

    fn install_program(&self, lab: &Lab) -> Result<()> {
        let path = format!("/usr/local/bin/{CONTROLLER}");
        lab.host().install(&self.program, &path, 0o755)
    }

    /// Puts this side's program, units and firewall on the host.
    pub(super) fn install(&self, lab: &Lab) -> Result<()> {
        self.install_program(lab)?;
        // Each turn starts the side's firewall unit. Without this, systemd's start limit would refuse it. The
        // first time the unit is not loaded and the command fails.
        lab.host()
            .output(&["systemctl", "reset-failed", FIREWALL])?;
        lab.install(&self.config)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.image) {
            note(&format!(
                "cannot remove an image of the benchmark: {error:#}"
            ));
        }
    }
}

/// Returns the socket on which the container of a slot asks for its config. It is never answered, because a spare
/// waits too.
pub(super) fn waiting_socket(lab: &Lab, slot: &str) -> Result<UnixListener> {
    let path = lab.host().path(&format!("{RUN_DIR}/slots/{slot}/jit.sock"));
    let socket = UnixListener::bind(&path).context("cannot create the slot's socket")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    Ok(socket)
}
