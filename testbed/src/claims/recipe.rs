//! The image that the documents describe, from its one command to a job.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::common::{SOON, ensure_says, run};
use super::fixture::{SMALL, small};
use super::suite::{Suite, suite};
use crate::bed::{self, Lock, remove_tree};
use crate::binaries::{CONTROLLER, LISTENER};
use crate::config::Image;
use crate::host::images_dir;
use crate::image::{inside, put_listener};
use crate::lab::{CONFIG, DAEMON, Lab};
use crate::rootfs::{self, DOCUMENTED, Incomplete};

pub(super) const SUITE: Suite = suite![SMALL;
    the_documented_command_makes_an_image_whose_runner_starts,
];

/// Name of the image in the host.
const IMAGE: &str = "documented";

fn the_documented_command_makes_an_image_whose_runner_starts(lab: &mut Lab) -> Result<()> {
    let root = images_dir(lab.host().bed()).join(IMAGE);
    let outcome = follow(lab, &root);
    // A daemon that restarts beside a listener that aborts leaves a registration, which is deleted minutes later.
    lab.reset()?;
    SMALL.set_up(lab)?;
    remove_tree(&root)?;
    outcome
}

fn follow(lab: &Lab, root: &Path) -> Result<()> {
    {
        let _building = lab.host().bed().lock(Lock::Build)?;
        rootfs::build(lab.host().bed(), &[&DOCUMENTED], Incomplete::Keep)?;
    }
    remove_tree(root)?;
    bed::run(
        Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .arg(DOCUMENTED.path(lab.host().bed()))
            .arg(root),
    )?;
    put_listener(lab.binary(LISTENER)?, root)?;
    let prepare = || {
        lab.host()
            .output(&[CONTROLLER, "prepare-image", &inside(IMAGE)])
    };
    let good = prepare()?;
    let said = String::from_utf8_lossy(&good.stdout);
    ensure!(good.status.success(), "{good:?}");
    ensure_says(&said, &["the runner 2.336.0 starts"])?;

    let config = small(lab.sim().api_url()).with("ci", |pool| {
        pool.image = Image::Directory(inside(IMAGE));
    });
    lab.install(&config)?;
    let checked = lab
        .host()
        .run(&[CONTROLLER, "check-config", "--host", CONFIG])?;
    ensure_says(&checked, &["runner 2.336.0 starts in"])?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON)?;
    run(lab, "git --version; curl --version")?;

    // A minimal system has no libicu, without which .NET aborts.
    for entry in fs::read_dir(libraries(root))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("libicuuc.so") {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    let words = [
        "the runner cannot start in the image",
        "Couldn't find a valid ICU package",
        "libicu76",
        "libkrb5-3",
    ];
    let bad = prepare()?;
    let said = String::from_utf8_lossy(&bad.stderr);
    ensure!(!bad.status.success(), "{said}");
    ensure_says(&said, &words)?;
    let bad = lab
        .host()
        .output(&[CONTROLLER, "check-config", "--host", CONFIG])?;
    let said = String::from_utf8_lossy(&bad.stderr);
    ensure!(!bad.status.success(), "{said}");
    ensure_says(&said, &words)
}

fn libraries(root: &Path) -> std::path::PathBuf {
    root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
}
