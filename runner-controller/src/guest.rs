//! `prepare-image`: what a root filesystem needs to be a runner's image, and what it can do without.
//!
//! Takes any systemd userland in a directory. May be repeated. The files are in `guest/`.

mod accounts;
mod docker;
mod nix_daemon;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use tree::Tree;

/// The job's user in an image that has none yet. GitHub's own images use the same ids.
const RUNNER_UID: u32 = 1001;
/// Where a runner lives unless the pool says otherwise.
const RUNNER_ROOT: &str = "opt/actions-runner";
const RUNNER_HOME: &str = "home/runner";
const WORK_FOLDER: &str = "home/runner/work";

const UNIT: &str = "github-runner.service";
const UNIT_TEXT: &str = include_str!("../guest/github-runner.service");
const START: &str = include_str!("../guest/start");
const JOB_STARTED: &str = include_str!("../guest/job-started.sh");
const LOCKS: &str = include_str!("../guest/run-lock.conf");
const JOURNALD: &str = include_str!("../guest/journald.conf");
const MASKED: &str = include_str!("../guest/masked");
const SUDOERS: &str = "runner ALL=(ALL) NOPASSWD:ALL\n";

/// Programs that the shipped scripts call.
const NEEDED: [&str; 5] = [
    "bin/bash",
    "bin/umount",
    "usr/bin/id",
    "usr/bin/setpriv",
    "usr/bin/timeout",
];

/// What the caller may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Let the job's user become root in its container without a password, if the image has sudo.
    pub sudo: bool,
    /// Let pools with `nix = true` use the image: its jobs have a Nix daemon of their container's own.
    pub nix: bool,
    /// Let the jobs of pools with `docker = true` use the image's Docker.
    pub docker: bool,
}

/// Why an image was not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Files in an image belong to root.
    #[error("prepare-image takes root, since what it writes must be root's in the image")]
    NotRoot,
    /// Not a place to write to.
    #[error("{}: {why}", dir.display())]
    Refused {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A step failed.
    #[error("{step} in the image")]
    Step {
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes a systemd root filesystem an image for runners. Tells what was done, for the one who ran it.
pub fn prepare_image(dir: &Path, options: Options) -> Result<Vec<String>, PrepareError> {
    if !geteuid().is_root() {
        return Err(PrepareError::NotRoot);
    }
    prepare(dir, options, Owners::Set)
}

/// Whether files get their owners. Tests run as anybody, and only root gives files away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owners {
    Set,
    #[cfg(test)]
    Keep,
}

fn prepare(dir: &Path, options: Options, owners: Owners) -> Result<Vec<String>, PrepareError> {
    let refuse = |why: String| PrepareError::Refused {
        dir: dir.to_owned(),
        why,
    };
    let tree = Tree::open(dir, owners == Owners::Set).map_err(|why| refuse(why.to_string()))?;
    if tree.is_the_hosts().map_err(|why| refuse(why.to_string()))? {
        return Err(refuse("this is the running system's root".into()));
    }
    if !tree.exists("usr/lib/systemd/systemd") || !tree.exists("etc/passwd") {
        return Err(refuse(
            "no systemd userland: usr/lib/systemd/systemd or etc/passwd is missing".into(),
        ));
    }
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|program| !tree.exists(program))
        .collect();
    if !missing.is_empty() {
        return Err(refuse(format!(
            "install bash, coreutils and util-linux in it; missing: {}",
            missing.join(", ")
        )));
    }
    if options.nix && !nix_daemon::is_installed(&tree) {
        return Err(refuse(format!(
            "--nix takes an image with Nix in it; install Debian's nix-bin or Nix's own installer's, \
             so that one of these is there: {}",
            nix_daemon::DAEMONS.join(", ")
        )));
    }
    if options.docker && docker::socket(&tree).is_none() {
        return Err(refuse(format!(
            "--docker takes an image with Docker in it; install Debian's docker.io or Docker's own \
             docker-ce, so that docker.socket is there and one of these: {}",
            docker::DAEMONS.join(", ")
        )));
    }
    install(&tree, options)
}

fn install(tree: &Tree, options: Options) -> Result<Vec<String>, PrepareError> {
    let step = |step: &'static str| {
        move |source: io::Error| PrepareError::Step {
            step: step.to_owned(),
            source,
        }
    };
    let mut done = Vec::new();

    let runner = accounts::ensure_runner(tree, RUNNER_UID).map_err(step("make user runner"))?;
    done.push(format!("user runner has uid {}", runner.uid));
    for (path, mode) in [
        (RUNNER_HOME, 0o755),
        (WORK_FOLDER, 0o755),
        (RUNNER_ROOT, 0o755),
    ] {
        tree.owned_dir(path, mode, runner.uid, runner.gid)
            .map_err(step("make the runner's directories"))?;
    }

    let install = step("install the runner's unit");
    tree.file("usr/lib/github-runner/start", 0o755, START)
        .and_then(|()| tree.file("usr/lib/github-runner/job-started.sh", 0o755, JOB_STARTED))
        .and_then(|()| tree.file(&format!("usr/lib/systemd/system/{UNIT}"), 0o644, UNIT_TEXT))
        .and_then(|()| {
            tree.link(
                &format!("etc/systemd/system/multi-user.target.wants/{UNIT}"),
                &format!("/usr/lib/systemd/system/{UNIT}"),
            )
        })
        .and_then(|()| {
            tree.link(
                "etc/systemd/system/default.target",
                "/usr/lib/systemd/system/multi-user.target",
            )
        })
        .map_err(install)?;
    done.push(format!("{UNIT} is installed and enabled"));

    tree.file(
        "etc/systemd/journald.conf.d/50-runner.conf",
        0o644,
        JOURNALD,
    )
    .map_err(step("bound the journal"))?;
    tree.file(
        "etc/systemd/system/run-lock.mount.d/50-runner.conf",
        0o644,
        LOCKS,
    )
    .map_err(step("bound the locks"))?;
    let mut masked = 0;
    for unit in masked_units() {
        tree.link(&format!("etc/systemd/system/{unit}"), "/dev/null")
            .map_err(step("mask units"))?;
        masked += 1;
    }
    done.push(format!("{masked} units are masked"));
    // "uninitialized", or no file, would make every boot a machine's first: 0.13 s of presets.
    tree.file("etc/machine-id", 0o444, "")
        .map_err(step("empty the machine id"))?;

    if options.nix {
        nix_daemon::install(tree).map_err(step("set up its Nix daemon"))?;
        done.push("nix-daemon.socket is installed and enabled, for pools with nix = true".into());
    }
    if options.docker
        && let Some(socket) = docker::socket(tree)
    {
        docker::install(tree, &socket).map_err(step("set up its Docker"))?;
        done.push("runner is in group docker, whose daemon starts with its first client".into());
    }
    if options.sudo {
        if tree.exists("usr/bin/sudo") {
            tree.file("etc/sudoers.d/runner", 0o440, SUDOERS)
                .map_err(step("allow sudo"))?;
            done.push("runner may use sudo".into());
        } else {
            done.push("the image has no sudo; nothing to allow".into());
        }
    }
    if !tree.exists(&format!("{RUNNER_ROOT}/bin/Runner.Listener")) {
        done.push(format!(
            "/{RUNNER_ROOT} has no runner yet: unpack actions-runner-linux-*.tar.gz there"
        ));
    }
    Ok(done)
}

fn masked_units() -> impl Iterator<Item = &'static str> {
    MASKED
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// As much of a userland as is looked at.
    fn userland() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in ["usr/lib/systemd", "usr/bin", "etc", "home", "opt"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        symlink("usr/bin", root.join("bin")).unwrap();
        for program in NEEDED {
            fs::write(root.join(program), "").unwrap();
        }
        fs::write(root.join("usr/lib/systemd/systemd"), "").unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        fs::write(root.join("etc/shadow"), "root:*:1::::::\n").unwrap();
        dir
    }

    fn prepare_here(dir: &Path) -> Result<Vec<String>, PrepareError> {
        prepare(dir, Options::default(), Owners::Keep)
    }

    fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut all = Vec::new();
        let mut left = vec![dir.to_owned()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let kind = path.symlink_metadata().unwrap().file_type();
                if kind.is_dir() {
                    left.push(path);
                } else if kind.is_symlink() {
                    let to = fs::read_link(&path).unwrap();
                    all.push((path, to.into_os_string().into_encoded_bytes()));
                } else {
                    let text = fs::read(&path).unwrap();
                    all.push((path, text));
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn an_image_gets_its_unit_enabled_and_its_user() {
        let image = userland();
        prepare_here(image.path()).unwrap();
        let read = |path: &str| fs::read_to_string(image.path().join(path)).unwrap();
        assert!(read("etc/passwd").contains("runner:x:1001:1001::/home/runner:/bin/bash\n"));
        assert!(read("etc/group").contains("runner:x:1001:\n"));
        assert!(read("etc/shadow").contains("runner:!"));
        assert_eq!(read("etc/machine-id"), "");
        let wants = "etc/systemd/system/multi-user.target.wants/github-runner.service";
        assert_eq!(
            fs::read_link(image.path().join(wants)).unwrap(),
            Path::new("/usr/lib/systemd/system/github-runner.service")
        );
        let start = image.path().join("usr/lib/github-runner/start");
        assert_eq!(
            start.metadata().unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert!(image.path().join("home/runner/work").is_dir());
    }

    #[test]
    fn preparing_twice_is_preparing_once() {
        let image = userland();
        prepare_here(image.path()).unwrap();
        let once = everything(image.path());
        prepare_here(image.path()).unwrap();
        assert_eq!(everything(image.path()), once);
    }

    #[test]
    fn what_is_no_userland_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(prepare_here(dir.path()).is_err());
        assert!(everything(dir.path()).is_empty());
        assert!(prepare_here(Path::new("/")).is_err());
        assert!(prepare_here(&dir.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_symlink_in_the_image_leads_nowhere_outside() {
        let outside = tempfile::tempdir().unwrap();
        let image = userland();
        fs::remove_dir(image.path().join("opt")).unwrap();
        symlink(outside.path(), image.path().join("opt")).unwrap();
        symlink(
            outside.path().join("x"),
            image.path().join("etc/machine-id"),
        )
        .unwrap();
        // Followed as the container would, the link ends in the image, where there is nothing.
        let _ = prepare_here(image.path());
        assert!(everything(outside.path()).is_empty());
    }

    #[test]
    fn an_image_for_nix_pools_has_a_daemon_and_users_that_build() {
        let image = userland();
        let options = Options {
            nix: true,
            ..Options::default()
        };
        let error = prepare(image.path(), options, Owners::Keep).unwrap_err();
        assert!(error.to_string().contains("nix-bin"), "{error}");
        assert!(!image.path().join("usr/lib/github-runner").exists());

        fs::write(image.path().join("usr/bin/nix-daemon"), "").unwrap();
        prepare(image.path(), options, Owners::Keep).unwrap();
        let once = everything(image.path());
        prepare(image.path(), options, Owners::Keep).unwrap();
        assert_eq!(everything(image.path()), once);
        let read = |path: &str| fs::read_to_string(image.path().join(path)).unwrap();
        assert!(read("etc/group").contains("nixbld:x:30000:nixbld1,nixbld2,"));
        let user = "nixbld32:x:30032:30000::/var/empty:/usr/sbin/nologin\n";
        assert!(read("etc/passwd").ends_with(user));
        assert!(read("etc/shadow").ends_with("nixbld32:!*:::::::\n"));
        let wants = "etc/systemd/system/sockets.target.wants/nix-daemon.socket";
        assert!(image.path().join(wants).symlink_metadata().is_ok());
    }

    #[test]
    fn an_image_for_docker_pools_starts_its_daemon_for_a_client() {
        let image = userland();
        let options = Options {
            docker: true,
            ..Options::default()
        };
        let error = prepare(image.path(), options, Owners::Keep).unwrap_err();
        assert!(error.to_string().contains("docker.io"), "{error}");
        assert!(!image.path().join("usr/lib/github-runner").exists());

        fs::create_dir_all(image.path().join("usr/sbin")).unwrap();
        fs::create_dir_all(image.path().join("usr/lib/systemd/system")).unwrap();
        fs::write(image.path().join("usr/sbin/dockerd"), "").unwrap();
        let unit = "usr/lib/systemd/system/docker.socket";
        fs::write(image.path().join(unit), "").unwrap();
        let error = prepare(image.path(), options, Owners::Keep).unwrap_err();
        assert_eq!(
            error.source().unwrap().to_string(),
            "etc/group has no group docker"
        );

        fs::write(image.path().join("etc/group"), "root:x:0:\ndocker:x:990:\n").unwrap();
        let wants = image
            .path()
            .join("etc/systemd/system/multi-user.target.wants");
        fs::remove_file(wants.join("docker.service")).ok();
        symlink("/x/docker.service", wants.join("docker.service")).unwrap();
        prepare(image.path(), options, Owners::Keep).unwrap();
        let once = everything(image.path());
        prepare(image.path(), options, Owners::Keep).unwrap();
        assert_eq!(everything(image.path()), once);
        let group = fs::read_to_string(image.path().join("etc/group")).unwrap();
        assert!(group.contains("docker:x:990:runner\n"), "{group}");
        let points = |path: &Path| fs::read_link(path).unwrap();
        let socket = "etc/systemd/system/sockets.target.wants/docker.socket";
        assert_eq!(
            points(&image.path().join(socket)),
            Path::new("/usr/lib/systemd/system/docker.socket")
        );
        assert_eq!(
            points(&wants.join("docker.service")),
            Path::new("/dev/null")
        );
    }

    #[test]
    fn an_image_without_what_the_scripts_call_is_refused() {
        let image = userland();
        fs::remove_file(image.path().join("usr/bin/setpriv")).unwrap();
        let error = prepare_here(image.path()).unwrap_err().to_string();
        assert!(error.contains("usr/bin/setpriv"), "{error}");
    }
}
