//! Builds root filesystems with mmdebstrap.
//!
//! A build happens beside its final name and is renamed at the end, so an interrupted one is never used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::mirror::{Mirror, apt_settings};
use super::recipe::Recipe;
use super::recipes::ALL;
use crate::bed::{Bed, logged, note, remove_tree, write_whole};
use crate::packages::retry::Retry;
use crate::packages::{tools, undelivered};

/// Option by which apt accepts an expired index. A testing release has a new index twice a day, and a
/// mirror may be later.
const EXPIRED_INDEX: &str = r#"--aptopt=Acquire::Check-Valid-Until "false""#;

/// The treatment of a root filesystem that was built without some optional packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incomplete {
    /// It stays: a host runs on it, or its user does not mind.
    Keep,
    /// It is built anew, and stays if that fails.
    Replace,
}

/// Builds root filesystems from some mirrors.
#[derive(Debug)]
pub struct Builder<'a> {
    bed: &'a Bed,
    mirrors: Vec<Mirror>,
    retry: Retry,
}

/// Builds what is missing of these, side by side. The caller holds the build lock.
///
/// Returns true if something was built.
pub fn build(bed: &Bed, recipes: &[&Recipe], incomplete: Incomplete) -> Result<bool> {
    let missing: Vec<&Recipe> = recipes
        .iter()
        .copied()
        .filter(|recipe| {
            !recipe.path(bed).exists()
                || incomplete == Incomplete::Replace && !recipe.missing(bed).is_empty()
        })
        .collect();
    if missing.is_empty() {
        return Ok(false);
    }
    tools::install(bed)?;
    remove_unknown(bed)?;
    let names = missing
        .iter()
        .map(|recipe| format!("{} (Debian {})", recipe.name, recipe.suite));
    note(&format!(
        "building the root filesystem of {}; once, under a minute",
        names.collect::<Vec<_>>().join(" and ")
    ));
    let builder = Builder::new(bed, Mirror::of_machine(), Retry::MIRROR);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let builds: Vec<_> = missing
            .iter()
            .map(|recipe| scope.spawn(|| builder.build(recipe)))
            .collect();
        builds
            .into_iter()
            .filter_map(|build| match build.join() {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(_) => Some("a build panicked".to_owned()),
            })
            .collect()
    });
    if failures.is_empty() {
        Ok(true)
    } else {
        Err(anyhow!(failures.join("\n")))
    }
}

/// Removes interrupted builds, and root filesystems of descriptions that are no longer in use.
fn remove_unknown(bed: &Bed) -> Result<()> {
    let parent = bed.path("rootfs");
    fs::create_dir_all(&parent)?;
    for entry in fs::read_dir(&parent)? {
        let path = entry?.path();
        if ALL
            .iter()
            .all(|known| path != known.path(bed) && path != known.missing_file(bed))
        {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

impl<'a> Builder<'a> {
    /// Returns a builder that tries the mirrors in this order.
    #[must_use]
    pub fn new(bed: &'a Bed, mirrors: Vec<Mirror>, retry: Retry) -> Self {
        Self {
            bed,
            mirrors,
            retry,
        }
    }

    /// Builds one root filesystem.
    ///
    /// If the mirrors do not deliver some optional packages, it is built without them, and
    /// [`Recipe::missing`] names them. An existing root filesystem stays if the new one is not more complete.
    pub fn build(&self, recipe: &Recipe) -> Result<()> {
        let Self { bed, .. } = self;
        let what = format!("build the root filesystem of the {}", recipe.name);
        let all = self
            .retry
            .run(&what, |number| self.attempt(recipe, &[], number));
        let Err(error) = all else {
            return Ok(());
        };
        if recipe.path(bed).exists() {
            note(&format!(
                "cannot {what} with {}: {error:#}; it stays as it is",
                recipe.missing(bed).join(", ")
            ));
            return Ok(());
        }
        let hint = || {
            format!(
                "{what}; run the command again later, or set RUNNER_TESTBED_MIRROR to another Debian mirror; \
                 {} has all that was said",
                self.log(recipe).display()
            )
        };
        let dropped = self.optional_among_undelivered(recipe)?;
        if dropped.is_empty() {
            return Err(error).with_context(hint);
        }
        note(&format!(
            "cannot {what}: {error:#}; building it without {}, which only tests need",
            dropped.join(", ")
        ));
        self.attempt(recipe, &dropped, 0).with_context(hint)
    }

    /// Returns the optional packages to leave out after a failed attempt: those that were not delivered, or
    /// all if a package was not delivered that one of them may depend on.
    fn optional_among_undelivered(&self, recipe: &Recipe) -> Result<Vec<&'static str>> {
        let said = fs::read(self.log(recipe)).context("read the log of the build")?;
        let gone = undelivered::read(&String::from_utf8_lossy(&said));
        let named = |package: &&str| gone.iter().any(|gone| gone.package == **package);
        if gone.is_empty() || recipe.packages.iter().any(named) {
            return Ok(Vec::new());
        }
        if gone
            .iter()
            .all(|gone| recipe.optional.contains(&gone.package.as_str()))
        {
            return Ok(recipe.optional.iter().copied().filter(named).collect());
        }
        Ok(recipe.optional.to_vec())
    }

    /// Builds it once, without some of its optional packages, and puts it at its name.
    fn attempt(&self, recipe: &Recipe, dropped: &[&str], number: u32) -> Result<()> {
        let Self { bed, mirrors, .. } = self;
        let path = recipe.path(bed);
        let parent = path.parent().context("a directory has a parent")?;
        fs::create_dir_all(parent)?;
        // mmdebstrap's unprivileged apt reads its root, hence the mode. The directory goes with this value.
        let work = tempfile::Builder::new()
            .prefix(&format!("unfinished-{}-", recipe.name))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)?;
        let root = work.path().join("root");
        // Each mirror has two attempts, and the last one all others.
        let at = usize::try_from(number / 2)?.min(mirrors.len().saturating_sub(1));
        let mirror = mirrors.get(at).context("no mirror is known")?;
        let log = self.log(recipe);
        fs::write(&log, "")?;
        if let Err(error) = logged(&mut mmdebstrap(recipe, dropped, mirror, &root)?, &log) {
            let said = fs::read(&log).unwrap_or_default();
            let undelivered = undelivered::summary(&String::from_utf8_lossy(&said));
            return Err(undelivered.map_or(error, anyhow::Error::msg));
        }
        finish(recipe, &root)
            .with_context(|| format!("finish the root filesystem of the {}", recipe.name))?;
        let missing_file = recipe.missing_file(bed);
        if path.exists() {
            fs::rename(&path, work.path().join("old"))?;
        }
        if dropped.is_empty() {
            fs::remove_file(&missing_file).ok();
        } else {
            write_whole(&missing_file, dropped.join("\n").as_bytes())?;
        }
        fs::rename(&root, &path)?;
        Ok(())
    }

    fn log(&self, recipe: &Recipe) -> PathBuf {
        self.bed.path(format!("{}.log", recipe.name))
    }
}

fn mmdebstrap(recipe: &Recipe, dropped: &[&str], mirror: &Mirror, root: &Path) -> Result<Command> {
    let packages: Vec<&str> = recipe
        .packages
        .iter()
        .chain(recipe.optional)
        .copied()
        .filter(|package| !dropped.contains(package))
        .collect();
    let mut command = Command::new("mmdebstrap");
    command
        // Without --quiet: a failure shows what apt said.
        .arg("--format=directory")
        .arg(format!("--variant={}", recipe.variant))
        .arg(r#"--aptopt=APT::Install-Recommends "false""#)
        .arg(format!("--include={}", packages.join(",")))
        .args(
            recipe
                .excluded
                .iter()
                .map(|path| format!("--dpkgopt=path-exclude={path}")),
        )
        .args(
            apt_settings()?
                .iter()
                .map(|setting| format!("--aptopt={setting}")),
        )
        .args(recipe.is_testing().then_some(EXPIRED_INDEX))
        .arg(recipe.suite)
        .arg(root)
        .arg(mirror.source(recipe.suite))
        .env("LC_ALL", "C.UTF-8");
    Ok(command)
}

fn finish(recipe: &Recipe, root: &Path) -> Result<()> {
    for unit in recipe.masks {
        link("/dev/null", &root.join("etc/systemd/system").join(unit))?;
    }
    for (target, name) in recipe.links {
        link(target, &below(root, name)?)?;
    }
    for (name, content) in recipe.files {
        let path = below(root, name)?;
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    }
    // This machine's apt may name a proxy with a password, which does not belong into an image.
    let settings = root.join("etc/apt/apt.conf.d/99mmdebstrap");
    if settings.exists() {
        fs::remove_file(settings)?;
    }
    // Hosts and containers get their own.
    let resolvers = root.join("etc/resolv.conf");
    if fs::symlink_metadata(&resolvers).is_ok() {
        fs::remove_file(&resolvers)?;
    }
    Ok(())
}

fn below(root: &Path, name: &str) -> Result<PathBuf> {
    Ok(root.join(
        name.strip_prefix('/')
            .with_context(|| format!("{name} must be absolute"))?,
    ))
}

fn link(target: &str, path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?;
    }
    std::os::unix::fs::symlink(target, path).with_context(|| format!("link {}", path.display()))
}
