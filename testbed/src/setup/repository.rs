//! A tiny Debian repository: packages of one file each, and the indexes that name them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::bed::{hash, run};

/// The suite of the repository.
pub(super) const SUITE: &str = "trixie";

/// A repository below a directory, laid out as a mirror is: `dists` and `pool`.
#[derive(Debug)]
pub(super) struct Repository {
    dir: PathBuf,
    architecture: String,
    /// Paragraphs of `Packages`.
    index: Vec<String>,
}

impl Repository {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let architecture = run(Command::new("dpkg").arg("--print-architecture"))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            architecture: architecture.trim().to_owned(),
            index: Vec::new(),
        })
    }

    /// Adds a package whose only file is `/usr/share/NAME`, and whose content is its version.
    ///
    /// Returns the path of its archive, as the index names it.
    pub(super) fn add(&mut self, name: &str, version: &str) -> Result<String> {
        let Self {
            dir, architecture, ..
        } = self;
        let tree = tempfile::tempdir()?;
        let share = tree.path().join("usr/share");
        fs::create_dir_all(&share)?;
        fs::write(share.join(name), version)?;
        // Large enough that a transfer can break off in its middle.
        let filler: String = (0_u64..20_000).map(|n| hash(&n.to_be_bytes())).collect();
        fs::write(share.join(format!("{name}.filler")), filler)?;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n\
             Maintainer: testbed <testbed@localhost>\nDescription: a package of the set-up tests\n"
        );
        let debian = tree.path().join("DEBIAN");
        fs::create_dir(&debian)?;
        fs::write(debian.join("control"), &control)?;
        let file = format!("pool/main/{name}_{version}_{architecture}.deb");
        let archive = dir.join(&file);
        fs::create_dir_all(archive.parent().context("a file has a directory")?)?;
        run(Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Zgzip"])
            .arg(tree.path())
            .arg(&archive))?;
        let bytes = fs::read(&archive)?;
        self.index.push(format!(
            "{control}Filename: {file}\nSize: {}\nSHA256: {}\n",
            bytes.len(),
            hash(&bytes)
        ));
        Ok(file)
    }

    /// Writes the indexes into the directory of this name, `dists` for the ones in use.
    pub(super) fn publish(&self, dists: &str) -> Result<()> {
        let Self {
            dir,
            architecture,
            index,
        } = self;
        let packages = index.join("\n");
        let name = format!("main/binary-{architecture}/Packages");
        let dists = dir.join(dists).join(SUITE);
        let file = dists.join(&name);
        fs::create_dir_all(file.parent().context("a file has a directory")?)?;
        fs::write(&file, &packages)?;
        let release = format!(
            "Origin: testbed\nSuite: {SUITE}\nCodename: {SUITE}\nArchitectures: {architecture}\n\
             Components: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {} {} {name}\n",
            hash(packages.as_bytes()),
            packages.len()
        );
        fs::write(dists.join("Release"), release).context("write Release")
    }
}
