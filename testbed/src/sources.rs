//! The software that jobs of the demo compile and test: C projects inside crates of crates.io.
//!
//! `testbed/sources/Cargo.lock` pins them with their checksums, and cargo downloads and verifies them. An
//! archive of a Debian mirror would disappear with the next revision of its package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::bed::{Bed, hash, last_lines, note, remove_tree, run};
use crate::binaries::{cargo, workspace};

/// Directory of the archives in an image.
pub const IN_IMAGE: &str = "srv/sources";

/// A C project inside a crate.
#[derive(Debug)]
struct Project {
    name: &'static str,
    /// The crate that carries it.
    package: &'static str,
    /// Files that the crate's directory of it has; an archive without them is of no use.
    files: &'static [&'static str],
}

/// The projects that jobs work on.
const PROJECTS: &[Project] = &[
    Project {
        name: "lz4",
        package: "lz4-sys",
        files: &["tests/Makefile", "tests/frametest.c", "programs/lz4cli.c"],
    },
    Project {
        name: "bzip2",
        package: "bzip2-sys",
        files: &["Makefile", "bzip2.c", "sample1.ref", "sample1.bz2"],
    },
];

/// The project for jobs whose own is missing. The product is built from it, so cargo has it already.
const FALLBACK: Project = Project {
    name: "sqlite",
    package: "libsqlite3-sys",
    files: &["sqlite3.c", "sqlite3.h"],
};

/// Archives of the projects, as gzipped tar files named `NAME.tar.gz`.
#[derive(Debug, Clone)]
pub struct Sources {
    dir: PathBuf,
    names: Vec<&'static str>,
}

impl Sources {
    /// Returns the archives, and makes them first if they are missing.
    ///
    /// If crates.io does not deliver the pinned crates, the archive of [`FALLBACK`] takes their place, so the
    /// demo runs. Fails if that is missing too.
    pub fn ready(bed: &Bed) -> Result<Self> {
        let manifest = workspace().join("testbed/sources/Cargo.toml");
        let lock = fs::read(manifest.with_file_name("Cargo.lock"))
            .context("read testbed/sources/Cargo.lock")?;
        let parent = bed.path("sources");
        let dir = parent.join(&hash(&lock)[..12]);
        let mut sources = Self {
            dir,
            names: PROJECTS.iter().map(|project| project.name).collect(),
        };
        if sources
            .names
            .iter()
            .all(|name| sources.path(name).is_file())
        {
            return Ok(sources);
        }
        fs::create_dir_all(&parent)?;
        if let Err(error) = sources.make(PROJECTS, &manifest) {
            note(&format!(
                "cannot prepare the sources of lz4 and bzip2: {error:#}; \
                 jobs compile {} instead, and the next run tries again",
                FALLBACK.name
            ));
            sources.dir = parent.join("fallback");
            sources.names = vec![FALLBACK.name];
            sources
                .make(&[FALLBACK], &workspace().join("Cargo.toml"))
                .context("prepare the sources for jobs; check the connection to crates.io")?;
        }
        Ok(sources)
    }

    /// Identifies the archives.
    #[must_use]
    pub fn id(&self) -> String {
        self.dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Copies the archives into an image.
    pub fn install(&self, image: &Path) -> Result<()> {
        let target = image.join(IN_IMAGE);
        remove_tree(&target)?;
        fs::create_dir_all(&target)?;
        for name in &self.names {
            let from = self.path(name);
            let file = from.file_name().context("an archive has a name")?;
            fs::copy(&from, target.join(file))
                .with_context(|| format!("copy {}", from.display()))?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.tar.gz"))
    }

    /// Makes the archives beside the directory's final name, so that no reader sees a part.
    fn make(&self, projects: &[Project], manifest: &Path) -> Result<()> {
        let crates = fetch(manifest)?;
        let parent = self.dir.parent().context("a directory has a parent")?;
        let new = tempfile::Builder::new()
            .prefix("unfinished-")
            .tempdir_in(parent)?;
        for project in projects {
            archive(project, &crates, new.path())
                .with_context(|| format!("archive the sources of {}", project.name))?;
        }
        remove_tree(&self.dir)?;
        fs::rename(new.keep(), &self.dir)
            .with_context(|| format!("rename to {}", self.dir.display()))
    }
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// Downloads what a lock file pins, and returns where cargo unpacked it.
fn fetch(manifest: &Path) -> Result<Vec<Package>> {
    cargo_says(&["fetch", "--quiet", "--locked"], manifest)?;
    let said = cargo_says(
        &["metadata", "--format-version=1", "--locked", "--offline"],
        manifest,
    )?;
    let metadata: Metadata = serde_json::from_str(&said).context("read cargo metadata")?;
    Ok(metadata.packages)
}

fn cargo_says(arguments: &[&str], manifest: &Path) -> Result<String> {
    let output = cargo()
        .args(arguments)
        .arg("--manifest-path")
        .arg(manifest)
        .stdin(Stdio::null())
        .output()
        .context("run cargo")?;
    ensure!(
        output.status.success(),
        "cargo {}: {}\n{}",
        arguments[0],
        output.status,
        last_lines(&String::from_utf8_lossy(&output.stderr), 10)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn archive(project: &Project, crates: &[Package], target: &Path) -> Result<()> {
    let Project {
        name,
        package,
        files,
    } = project;
    let found = crates
        .iter()
        .find(|found| found.name == *package)
        .and_then(|found| found.manifest_path.parent())
        .with_context(|| format!("cargo knows no crate {package}"))?;
    let source = directory_with(found, files)?
        .with_context(|| format!("{} has no {}", found.display(), files.join(", ")))?;
    run(Command::new("tar")
        .args(["--create", "--gzip", "--sort=name", "--mtime=@0"])
        .args(["--owner=0", "--group=0", "--numeric-owner"])
        .arg("--file")
        .arg(target.join(format!("{name}.tar.gz")))
        .arg("--directory")
        .arg(&source)
        .arg("."))
    .map(drop)
}

/// Returns the directory of a crate that has all the files: the project keeps its own layout below it.
fn directory_with(root: &Path, files: &[&str]) -> Result<Option<PathBuf>> {
    let mut directories = vec![root.to_path_buf()];
    for entry in fs::read_dir(root).with_context(|| root.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            directories.push(entry.path());
        }
    }
    Ok(directories
        .into_iter()
        .find(|directory| files.iter().all(|file| directory.join(file).is_file())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_found_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("bzip2-1.0.8");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("Makefile"), "").unwrap();
        assert_eq!(
            directory_with(dir.path(), &["Makefile"]).unwrap(),
            Some(inner)
        );
        assert_eq!(
            directory_with(dir.path(), &["Makefile", "bzip2.c"]).unwrap(),
            None
        );
    }

    #[test]
    fn the_pinned_crates_have_checksums() {
        let lock = fs::read_to_string(workspace().join("testbed/sources/Cargo.lock")).unwrap();
        for project in PROJECTS {
            let entry = lock
                .split("[[package]]")
                .find(|entry| entry.contains(&format!("name = \"{}\"", project.package)))
                .unwrap();
            assert!(entry.contains("checksum = \""), "{entry}");
        }
    }
}
