//! Claims about the set-up of the test host: no single file on a mirror stops it.
//!
//! [`mirror`] stands in for a Debian mirror that loses files, cuts transfers off and serves an old index;
//! [`repository`] makes its packages. The last claim boots a host and runs the demo in an empty directory.

mod mirror;
mod repository;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, last_lines, remove_tree};
use crate::packages::apt::Apt;
use crate::packages::retry::Retry;
use crate::packages::tools;
use crate::rootfs::{self, Builder, GUEST, HOST, Recipe};
use crate::supervise;
use mirror::{Content, Kind, Mirror};
use repository::{Repository, SUITE};

/// A claim about the set-up.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The claim, `like_this`.
    pub name: &'static str,
    check: fn(&Scene) -> Result<()>,
}

/// Every claim, the quick ones first.
pub const CLAIMS: &[Claim] = &[
    Claim {
        name: "a_lost_package_that_only_tests_need_is_left_out_until_it_is_back",
        check: a_lost_package_that_only_tests_need_is_left_out_until_it_is_back,
    },
    Claim {
        name: "a_lost_package_that_is_needed_is_named_and_leaves_nothing",
        check: a_lost_package_that_is_needed_is_named_and_leaves_nothing,
    },
    Claim {
        name: "an_old_index_is_fetched_again",
        check: an_old_index_is_fetched_again,
    },
    Claim {
        name: "a_transfer_that_breaks_off_starts_again",
        check: a_transfer_that_breaks_off_starts_again,
    },
    Claim {
        name: "a_second_mirror_delivers_what_the_first_lost",
        check: a_second_mirror_delivers_what_the_first_lost,
    },
    Claim {
        name: "a_package_for_this_machine_is_fetched_again_and_named",
        check: a_package_for_this_machine_is_fetched_again_and_named,
    },
    Claim {
        name: "an_empty_machine_runs_the_demo_without_source_packages",
        check: an_empty_machine_runs_the_demo_without_source_packages,
    },
];

/// More requests than any claim makes.
const ALWAYS: u32 = u32::MAX;
/// The attempts of the product without its pauses.
const QUICK: Retry = Retry {
    attempts: Retry::MIRROR.attempts,
    pause: Duration::ZERO,
};

/// A root filesystem of two packages, unpacked and not configured: none has a program.
const TINY: Recipe = Recipe {
    name: "tiny",
    suite: SUITE,
    variant: "extract",
    packages: &["needed"],
    optional: &["handy"],
    masks: &[],
    files: &[],
    links: &[],
    excluded: &[],
};

/// A mirror of a small repository, and an empty directory to build in.
struct Scene {
    mirror: Mirror,
    bed: Bed,
    dir: tempfile::TempDir,
}

impl Claim {
    /// Checks the claim in a directory below the bed, which is removed.
    pub fn check(&self, bed: &Bed) -> Result<()> {
        tools::install(bed)?;
        let scene = Scene::new(bed)?;
        (self.check)(&scene)
    }
}

impl Scene {
    fn new(bed: &Bed) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("setup-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(bed.dir())?;
        let files = dir.path().join("mirror");
        fs::create_dir(&files)?;
        let mut repository = Repository::new(&files)?;
        repository.add("needed", "1")?;
        repository.add("handy", "1")?;
        repository.publish("dists")?;
        Ok(Self {
            mirror: Mirror::start(Content::Directory(files))?,
            bed: Bed::at(&dir.path().join("bed"))?,
            dir,
        })
    }

    /// Returns the directory of the mirror's files.
    fn files(&self) -> PathBuf {
        self.dir.path().join("mirror")
    }

    fn build(&self) -> Result<()> {
        self.build_from(vec![self.mirror.for_builder()])
    }

    fn build_from(&self, mirrors: Vec<rootfs::Mirror>) -> Result<()> {
        Builder::new(&self.bed, mirrors, QUICK).build(&TINY)
    }

    /// Returns the content of a package's file in the built root filesystem, if it is there.
    fn built(&self, package: &str) -> Option<String> {
        fs::read_to_string(TINY.path(&self.bed).join("usr/share").join(package)).ok()
    }

    /// Fails unless the directory of root filesystems has these entries.
    fn ensure_only(&self, wanted: &[&Path]) -> Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.bed.path("rootfs"))? {
            found.push(entry?.path());
        }
        ensure!(
            found.len() == wanted.len()
                && wanted.iter().all(|path| found.iter().any(|f| f == path)),
            "the directory has {found:?} and not {wanted:?}"
        );
        Ok(())
    }
}

/// Returns the text of a failure.
fn failure<T>(outcome: Result<T>) -> Result<String> {
    match outcome {
        Ok(_) => anyhow::bail!("it did not fail"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn a_lost_package_that_only_tests_need_is_left_out_until_it_is_back(scene: &Scene) -> Result<()> {
    let path = TINY.path(&scene.bed);
    scene.mirror.inject("handy_1", Kind::NotFound, ALWAYS);
    scene.build()?;
    ensure!(scene.built("needed").as_deref() == Some("1"));
    ensure!(scene.built("handy").is_none());
    ensure!(TINY.missing(&scene.bed) == ["handy"]);
    scene.ensure_only(&[&path, &path.with_extension("missing")])?;

    // Still lost: the next run keeps it.
    scene.build()?;
    ensure!(TINY.missing(&scene.bed) == ["handy"]);

    scene.mirror.heal();
    scene.build()?;
    ensure!(scene.built("handy").as_deref() == Some("1"));
    ensure!(TINY.missing(&scene.bed).is_empty());
    scene.ensure_only(&[&path])
}

fn a_lost_package_that_is_needed_is_named_and_leaves_nothing(scene: &Scene) -> Result<()> {
    scene.mirror.inject("needed_1", Kind::NotFound, ALWAYS);
    let said = failure(scene.build())?;
    for part in ["needed (404", "RUNNER_TESTBED_MIRROR", "tiny.log"] {
        ensure!(said.contains(part), "no {part:?} in: {said}");
    }
    scene.ensure_only(&[])?;
    let asked = scene.mirror.asked("dists/").len();
    ensure!(
        asked >= usize::try_from(QUICK.attempts)?,
        "the index was asked for {asked} times"
    );
    scene.mirror.heal();
    scene.build()?;
    ensure!(scene.built("needed").as_deref() == Some("1"));
    Ok(())
}

fn an_old_index_is_fetched_again(scene: &Scene) -> Result<()> {
    let mut next = Repository::new(&scene.files())?;
    next.add("needed", "2")?;
    next.add("handy", "1")?;
    next.publish("dists.next")?;
    scene.mirror.inject("needed_1", Kind::Outdated, 1);
    scene.build()?;
    ensure!(scene.built("needed").as_deref() == Some("2"));
    ensure!(scene.built("handy").as_deref() == Some("1"));
    scene.ensure_only(&[&TINY.path(&scene.bed)])
}

fn a_transfer_that_breaks_off_starts_again(scene: &Scene) -> Result<()> {
    scene.mirror.inject("needed_1", Kind::Cut, 2);
    scene.build()?;
    ensure!(scene.built("needed").as_deref() == Some("1"));
    let asked = scene.mirror.asked("needed_1").len();
    ensure!(asked >= 3, "the archive was asked for {asked} times");

    // Without an end the failure names the package.
    remove_tree(&TINY.path(&scene.bed))?;
    scene.mirror.inject("needed_1", Kind::Cut, ALWAYS);
    let said = failure(scene.build())?;
    ensure!(said.contains("needed ("), "no package in: {said}");
    scene.ensure_only(&[])
}

fn a_second_mirror_delivers_what_the_first_lost(scene: &Scene) -> Result<()> {
    let second = Mirror::start(Content::Directory(scene.files()))?;
    scene.mirror.inject("needed_1", Kind::NotFound, ALWAYS);
    scene.build_from(vec![scene.mirror.for_builder(), second.for_builder()])?;
    ensure!(scene.built("needed").as_deref() == Some("1"));
    ensure!(!second.asked("needed_1").is_empty());
    Ok(())
}

/// apt itself, with directories and a status of the scene: nothing is installed on this machine.
fn a_package_for_this_machine_is_fetched_again_and_named(scene: &Scene) -> Result<()> {
    let dir = scene.dir.path().join("apt");
    for name in [
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "lists/partial",
        "cache/archives/partial",
    ] {
        fs::create_dir_all(dir.join(name))?;
    }
    fs::write(dir.join("status"), "")?;
    let source = format!("deb [trusted=yes] {} {SUITE} main\n", scene.mirror.url());
    fs::write(dir.join("sources.list"), source)?;
    let path = |name: &str| dir.join(name).display().to_string();
    let options = vec![
        format!("Dir::Etc={}", path("etc/apt")),
        format!("Dir::Etc::sourcelist={}", path("sources.list")),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::State::lists={}", path("lists")),
        format!("Dir::State::status={}", path("status")),
        format!("Dir::Cache={}", path("cache")),
        "Acquire::http::Proxy::127.0.0.1=DIRECT".to_owned(),
    ];
    let apt = Apt::new(dir.join("apt.log")).with(options, QUICK);
    let target = dir.join("unpacked");
    scene.mirror.inject("needed_1", Kind::NotFound, 1);
    apt.unpack("needed", &target)?;
    ensure!(fs::read_to_string(target.join("usr/share/needed"))? == "1");

    remove_tree(&target)?;
    scene.mirror.inject("needed_1", Kind::NotFound, ALWAYS);
    let said = failure(apt.unpack("needed", &target))?;
    ensure!(said.contains("needed (404"), "no package in: {said}");
    ensure!(!target.exists(), "a part of the package is left");
    let said = failure(apt.unpack("unheard-of", &target))?;
    ensure!(said.contains("unheard-of"), "no package in: {said}");
    for entry in fs::read_dir(&dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.starts_with("unfinished-"), "{name} is left");
    }
    Ok(())
}

/// The README's first command, in an empty directory, from a mirror that has no source package and has lost
/// a package that only tests need.
fn an_empty_machine_runs_the_demo_without_source_packages(scene: &Scene) -> Result<()> {
    let upstream = rootfs::Mirror::of_machine();
    let upstream = upstream.first().context("this machine has no mirror")?;
    let mirror = Mirror::start(Content::Mirror(upstream.url.clone()))?;
    for lost in [".dsc", ".orig.tar", ".debian.tar", "/source/", "/strace_"] {
        mirror.inject(lost, Kind::NotFound, ALWAYS);
    }
    let dir = scene.dir.path().join("empty");
    let output = supervise::unsupervised("/proc/self/exe")
        .arg("demo")
        .env("RUNNER_TESTBED_DIR", &dir)
        .env("RUNNER_TESTBED_MIRROR", mirror.url())
        .stdin(Stdio::null())
        .output()
        .context("run the demo")?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    ensure!(
        output.status.success(),
        "the demo ended with {}:\n{}",
        output.status,
        last_lines(&said, 60)
    );
    ensure!(
        said.contains("without strace"),
        "the demo does not name the lost package:\n{said}"
    );
    ensure!(
        said.contains("20 jobs are done: 20 succeeded"),
        "the demo did not run all jobs:\n{said}"
    );
    let bed = Bed::at(&dir)?;
    for recipe in [&HOST, &GUEST] {
        ensure!(recipe.missing(&bed) == ["strace"]);
    }
    let sources = mirror.asked("/source/");
    ensure!(sources.is_empty(), "the mirror was asked for {sources:?}");
    Ok(())
}
