//! `prepare-image`: turns a root filesystem with systemd into a runner image.
//!
//! It takes any systemd userland in a directory and may be repeated. It runs no program of the image on
//! the host, because the image is not trusted with root there. At the end it starts the listener once in a
//! container. The files that it installs are in `runner-controller/guest/`.
//!
//! - `tree`: files of the image, opened without leaving it
//! - `accounts`: users and groups of the image
//! - `session`: runtime directory and logins of the job's user
//! - `nix_daemon`, `docker`: optional services for jobs
//! - `masks`: units and generators that no container starts
//! - `minimal`: a boot that starts the runner first
//! - `trial`: the first start of the listener

mod accounts;
mod docker;
mod masks;
mod minimal;
mod nix_daemon;
mod session;
mod tree;
mod trial;

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::config::INIT;
use tree::Tree;

pub use trial::{ADVISED_PACKAGES, NEEDED_PACKAGES, Trial, try_listener};

/// Uid and gid of user `runner` in an image without one. GitHub's images use the same ids.
const RUNNER_UID: u32 = 1001;
/// Default directory of the runner's program; a pool may name another.
const RUNNER_ROOT: &str = "opt/actions-runner";
const RUNNER_HOME: &str = "home/runner";
const WORK_FOLDER: &str = "home/runner/work";

const UNIT: &str = "github-runner.service";
const UNIT_TEXT: &str = include_str!("../../guest/github-runner.service");
const START: &str = include_str!("../../guest/start");
const JOB_STARTED: &str = include_str!("../../guest/job-started.sh");
const LOCKS: &str = include_str!("../../guest/run-lock.conf");
const JOURNALD: &str = include_str!("../../guest/journald.conf");
const SUDOERS: &str = "runner ALL=(ALL) NOPASSWD:ALL\n";

/// Programs that our scripts in the image call.
const NEEDED: [&str; 5] = [
    "bin/bash",
    "bin/umount",
    "usr/bin/id",
    "usr/bin/setpriv",
    "usr/bin/timeout",
];

/// Options of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Let jobs become root in their container with sudo, without a password.
    pub sudo: bool,
    /// Set up the image's Nix for pools with `nix = true`. Each container runs a Nix daemon.
    pub nix: bool,
    /// Set up the image's Docker for pools with `docker = true`.
    pub docker: bool,
    /// Boot the runner first, and the rest of the system when the runner has its config.
    pub minimal: bool,
}

/// Failure to prepare an image.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The caller is not root, to whom the files of an image belong.
    #[error(
        "cannot prepare the image: permission denied; run this as root, because its files belong to root"
    )]
    NotRoot,
    /// The directory cannot become an image.
    #[error("cannot prepare {}: {reason}", dir.display())]
    Refused {
        /// Path of the directory.
        dir: PathBuf,
        /// Problem with the directory, and a hint.
        reason: String,
    },
    /// A step failed.
    #[error("cannot {step} in the image")]
    Step {
        /// Verb and object of the step.
        step: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Turns a systemd root filesystem into a runner image. Returns a line for each thing that was done.
pub fn prepare_image(dir: &Path, options: Options) -> Result<Vec<String>, PrepareError> {
    if !geteuid().is_root() {
        return Err(PrepareError::NotRoot);
    }
    let mut done = prepare(dir, options, Owners::Set)?;
    let runner_root = Path::new("/").join(RUNNER_ROOT);
    if has_listener(dir, &runner_root) {
        match try_listener(dir, &runner_root) {
            Trial::Version(version) => done.push(format!("the runner {version} starts")),
            Trial::Untried(reason) => {
                done.push(format!("the start of the runner is not tried: {reason}"));
            }
            Trial::Failed(reason) => {
                return Err(PrepareError::Refused {
                    dir: dir.to_owned(),
                    reason,
                });
            }
        }
    }
    Ok(done)
}

/// Returns true if the image has GitHub's listener. `runner_root` is its directory, absolute.
#[must_use]
pub fn has_listener(dir: &Path, runner_root: &Path) -> bool {
    let within = runner_root.strip_prefix("/").unwrap_or(runner_root);
    let path = within.join(trial::LISTENER);
    Tree::open(dir, false).is_ok_and(|tree| tree.exists(&path.to_string_lossy()))
}

/// Owners of new files. Tests run as any user, and only root can give files away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owners {
    Set,
    #[cfg(test)]
    Keep,
}

fn prepare(dir: &Path, options: Options, owners: Owners) -> Result<Vec<String>, PrepareError> {
    let refuse = |reason: String| PrepareError::Refused {
        dir: dir.to_owned(),
        reason,
    };
    let tree = Tree::open(dir, owners == Owners::Set).map_err(|error| refuse(error.to_string()))?;
    if tree
        .is_host_root()
        .map_err(|error| refuse(error.to_string()))?
    {
        return Err(refuse("it is the root of the running system".into()));
    }
    if !tree.exists(INIT) || !tree.exists("etc/passwd") {
        return Err(refuse(format!(
            "it does not hold a systemd userland; {INIT} or etc/passwd is missing"
        )));
    }
    let missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|program| !tree.exists(program))
        .collect();
    if !missing.is_empty() {
        return Err(refuse(format!(
            "{} is missing; install bash, coreutils and util-linux in it",
            missing.join(", ")
        )));
    }
    if options.nix && !nix_daemon::is_installed(&tree) {
        return Err(refuse(format!(
            "--nix needs Nix in the image; install Debian's nix-bin or use Nix's installer, so that one \
             of these exists: {}",
            nix_daemon::DAEMONS.join(", ")
        )));
    }
    if options.docker && docker::socket(&tree).is_none() {
        return Err(refuse(format!(
            "--docker needs Docker in the image; install Debian's docker.io or Docker's docker-ce, so \
             that docker.socket and one of these exist: {}",
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

    let runner = accounts::ensure_runner(tree, RUNNER_UID).map_err(step("create user runner"))?;
    done.push(format!("user runner has uid {}", runner.uid));
    for (path, mode) in [
        (RUNNER_HOME, 0o755),
        (WORK_FOLDER, 0o755),
        (RUNNER_ROOT, 0o755),
    ] {
        tree.owned_dir(path, mode, runner.uid, runner.gid)
            .map_err(step("create the directories of the runner"))?;
    }

    let install = step("install the unit of the runner");
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
    session::install(tree, runner).map_err(step("set up the session of the runner's user"))?;
    let masked = masks::install(tree).map_err(step("mask units"))?;
    done.push(format!("{masked} units are masked"));
    // With "uninitialized", or without the file, every boot would be a first boot: 0.13 s of presets.
    tree.file("etc/machine-id", 0o444, "")
        .map_err(step("empty the machine id"))?;

    if options.minimal {
        minimal::install(tree, runner.uid).map_err(step("set up the minimal boot"))?;
        done.push(
            "the runner boots first, and the rest of the system when it has its config".into(),
        );
    } else {
        minimal::remove(tree).map_err(step("remove the minimal boot"))?;
    }
    if options.nix {
        nix_daemon::install(tree).map_err(step("set up the Nix daemon"))?;
        done.push("nix-daemon.socket is installed and enabled for pools with nix = true".into());
    }
    if options.docker
        && let Some(socket) = docker::socket(tree)
    {
        docker::install(tree, &socket).map_err(step("set up Docker"))?;
        done.push(
            "runner is in group docker; the Docker daemon starts with its first client".into(),
        );
    }
    if options.sudo {
        if tree.exists("usr/bin/sudo") {
            tree.file("etc/sudoers.d/runner", 0o440, SUDOERS)
                .map_err(step("allow sudo"))?;
            done.push("runner may use sudo".into());
        } else {
            done.push("the image does not have sudo, so there is nothing to allow".into());
        }
    }
    if !tree.exists(&format!("{RUNNER_ROOT}/{}", trial::LISTENER)) {
        done.push(format!(
            "/{RUNNER_ROOT} does not have the runner yet; unpack actions-runner-linux-*.tar.gz there"
        ));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Returns the part of a userland that `prepare` checks.
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
        fs::write(root.join(INIT), "").unwrap();
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
    fn an_image_gets_an_enabled_unit_and_a_user() {
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
        assert_eq!(
            read("etc/tmpfiles.d/50-github-runner.conf"),
            "d /run/user/1001 0700 1001 1001\n"
        );
        assert_eq!(
            read("etc/systemd/system/github-runner.service.d/50-session.conf"),
            "[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/1001\n"
        );
        for masked in [
            "etc/tmpfiles.d/systemd-nologin.conf",
            "etc/systemd/system/multi-user.target.wants/systemd-logind.service",
        ] {
            let target = fs::read_link(image.path().join(masked)).unwrap();
            assert_eq!(target, Path::new("/dev/null"));
        }
    }

    #[test]
    fn preparing_an_image_twice_changes_nothing() {
        let image = userland();
        prepare_here(image.path()).unwrap();
        let once = everything(image.path());
        prepare_here(image.path()).unwrap();
        assert_eq!(everything(image.path()), once);
    }

    #[test]
    fn a_directory_without_a_userland_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(prepare_here(dir.path()).is_err());
        assert!(everything(dir.path()).is_empty());
        assert!(prepare_here(Path::new("/")).is_err());
        assert!(prepare_here(&dir.path().join("nowhere")).is_err());
    }

    #[test]
    fn a_symlink_in_the_image_does_not_lead_out_of_it() {
        let outside = tempfile::tempdir().unwrap();
        let image = userland();
        fs::remove_dir(image.path().join("opt")).unwrap();
        symlink(outside.path(), image.path().join("opt")).unwrap();
        symlink(
            outside.path().join("x"),
            image.path().join("etc/machine-id"),
        )
        .unwrap();
        // The link is followed as in the container, where its target does not exist.
        let _ = prepare_here(image.path());
        assert!(everything(outside.path()).is_empty());
    }

    #[test]
    fn an_image_for_nix_pools_has_a_daemon_and_build_users() {
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
    fn an_image_for_docker_pools_starts_the_daemon_with_its_first_client() {
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
            "etc/group does not have the group docker"
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
    fn a_minimal_boot_can_be_repeated_and_taken_back() {
        let image = userland();
        let options = Options {
            minimal: true,
            ..Options::default()
        };
        let root = image.path();
        // An operator's own mask stays.
        let generators = root.join("etc/systemd/system-generators");
        fs::create_dir_all(&generators).unwrap();
        symlink("/dev/null", generators.join("systemd-fstab-generator")).unwrap();
        prepare_here(root).unwrap();
        let before = everything(root);
        prepare(root, options, Owners::Keep).unwrap();
        let minimal = everything(root);
        prepare(root, options, Owners::Keep).unwrap();
        assert_eq!(everything(root), minimal);
        let target = root
            .join("usr/lib/systemd/system")
            .join(crate::config::MINIMAL_TARGET);
        assert!(target.is_file());
        let drop_in = "etc/systemd/system/github-runner.service.d/40-minimal.conf";
        let text = fs::read_to_string(root.join(drop_in)).unwrap();
        assert!(
            text.contains("\nRuntimeDirectory=github-runner user/1001\n"),
            "{text}"
        );
        let mask = generators.join("systemd-sysv-generator");
        assert_eq!(fs::read_link(mask).unwrap(), Path::new("../../../dev/null"));
        prepare_here(root).unwrap();
        assert_eq!(everything(root), before);
    }

    #[test]
    fn an_image_without_the_programs_of_our_scripts_is_refused() {
        let image = userland();
        fs::remove_file(image.path().join("usr/bin/setpriv")).unwrap();
        let error = prepare_here(image.path()).unwrap_err().to_string();
        assert!(error.contains("usr/bin/setpriv"), "{error}");
    }
}
