//! Checks of this host: the files that a configuration names, systemd-nspawn, and the kernel's shared tables.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::User;

use super::bind::Bind;
use super::collisions;
use super::github::{GitHubConfig, LoginConfig};
use super::mistake::Mistake;
use super::model::{Config, DAEMON_USER};
use super::pool::{Image, Nix, PoolConfig};
use super::tables;

/// Link that starts the runner's unit at an image's boot.
const RUNNER_ENABLED: &str = "etc/systemd/system/multi-user.target.wants/github-runner.service";
/// Link that starts the Nix daemon's socket at an image's boot. Links in an image are not followed,
/// because their targets are paths in the container.
const NIX_ENABLED: &str = "etc/systemd/system/sockets.target.wants/nix-daemon.socket";
/// Unit of the runner in an image, and its line that reads the pool's `environment`.
const RUNNER_UNIT: &str = "usr/lib/systemd/system/github-runner.service";
const READS_ENVIRONMENT: &str = "EnvironmentFile=-/etc/github-runner.env";
/// Program that makes a directory a systemd userland. The launcher refuses an image without it.
pub(crate) const INIT: &str = "usr/lib/systemd/systemd";
/// Target that a container boots if its image has it (`prepare-image --minimal`).
pub(crate) const MINIMAL_TARGET: &str = "github-runner.target";

/// Findings of a check of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFindings {
    /// Mistakes, which keep runners from working or endanger the host.
    pub mistakes: Vec<Mistake>,
    /// Notes on conditions that may not be intended.
    pub notes: Vec<String>,
}

/// Returns the findings that only this host can show: secrets that are unreadable or open to every user,
/// a configuration that the daemon cannot read, incomplete images, and addresses and uids that the host
/// uses already.
///
/// `file` is the configuration file.
#[must_use]
pub fn check_host(config: &Config, file: &Path) -> HostFindings {
    let (mut mistakes, mut notes) = collisions::check(config);
    mistakes.extend(check_readable("(file)", file));
    let path = std::env::var_os("PATH").unwrap_or_default();
    mistakes.extend(check_nspawn(&path));
    for scope in &config.scopes {
        mistakes.extend(check_scope(scope));
    }
    let webhook = config.webhook.as_ref();
    let next = webhook.and_then(|webhook| webhook.next_secret_file.as_ref());
    let headers = config.traces.as_ref();
    let headers = headers.and_then(|traces| traces.headers_file.as_ref());
    for (key, file) in [
        ("api_token_file", config.api_token_file.as_ref()),
        (
            "webhook.secret_file",
            webhook.map(|webhook| &webhook.secret_file),
        ),
        ("webhook.next_secret_file", next),
        ("traces.headers_file", headers),
    ] {
        mistakes.extend(file.and_then(|file| check_mode(key, file)));
    }
    for pool in &config.pools {
        mistakes.extend(check_image(pool));
        mistakes.extend(check_nix(pool));
        mistakes.extend(check_environment(pool));
        mistakes.extend(check_devices(pool, exists));
        for (at, bind) in pool.binds.iter().enumerate() {
            let key = format!("pools.{}.binds.{at}.from", pool.name);
            mistakes.extend(check_bind(&key, bind));
            notes.extend(shared_disk(&key, bind, &config.state_dir));
        }
    }
    HostFindings { mistakes, notes }
}

/// Returns the kernel tables that the configured slots do not fit. The rendered `sysctl.d` file sets them.
#[must_use]
pub fn check_kernel(config: &Config) -> Vec<Mistake> {
    tables::too_small(config, setting)
}

/// Returns a mistake if the daemon's user cannot read a file that holds no secret.
fn check_readable(key: &str, file: &Path) -> Option<Mistake> {
    let file = match file.canonicalize() {
        Ok(file) => file,
        Err(error) => {
            let wrong = format!("{} cannot be read: {error}", file.display());
            return Some(mistake(key.into(), wrong, "a file that exists"));
        }
    };
    let user = User::from_name(DAEMON_USER).ok().flatten();
    let ids = user.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
    let closed = file.ancestors().find_map(|path| {
        let seen = path.metadata().ok()?;
        let needed = if path == file { 0o4 } else { 0o1 };
        let owner = (seen.uid(), seen.gid());
        (!is_allowed(seen.mode(), owner, ids, needed)).then(|| (path.to_owned(), seen.mode()))
    });
    closed.map(|(path, mode)| {
        let bits = if path == file { "go+r" } else { "go+x" };
        let shown = path.display();
        mistake(
            key.into(),
            format!(
                "the user {DAEMON_USER} cannot read {}: {shown} has mode {:04o}",
                file.display(),
                mode & 0o7777
            ),
            format!("run `chmod {bits} {shown}`; it holds no secret"),
        )
    })
}

/// Returns true if a mode allows access to a user. A user that does not exist yet is an other one.
fn is_allowed(mode: u32, owner: (u32, u32), user: Option<(u32, u32)>, needed: u32) -> bool {
    let shift = match user {
        Some((uid, _)) if uid == owner.0 => 6,
        Some((_, gid)) if gid == owner.1 => 3,
        Some(_) | None => 0,
    };
    mode >> shift & needed == needed
}

/// Returns a mistake if systemd-nspawn is in none of these directories, which are separated by colons.
fn check_nspawn(path: &OsStr) -> Option<Mistake> {
    let is_installed = std::env::split_paths(path).any(|dir| exists(&dir.join("systemd-nspawn")));
    (!is_installed).then(|| {
        let wrong = "systemd-nspawn is not installed, so no container starts".into();
        let write = "install systemd's container tools, such as the package systemd-container";
        mistake("(host)".into(), wrong, write)
    })
}

/// Returns a mistake if every user of the host can read a file with a secret.
fn check_mode(key: &str, file: &Path) -> Option<Mistake> {
    let mode = match file.metadata() {
        Ok(seen) => seen.mode() & 0o7777,
        Err(error) => {
            let wrong = format!("{} cannot be read: {error}", file.display());
            return Some(mistake(
                key.into(),
                wrong,
                "a file that holds the secret alone",
            ));
        }
    };
    (mode & 0o007 != 0).then(|| {
        let shown = file.display();
        mistake(
            key.into(),
            format!("every user of this host has access to {shown} (mode {mode:04o})"),
            format!("run `chmod 0600 {shown}`, and replace the secret if the host has other users"),
        )
    })
}

fn mistake(key: String, wrong: String, write: impl Into<String>) -> Mistake {
    Mistake {
        key,
        wrong,
        write: write.into(),
    }
}

/// Reads a number from a file of the kernel.
fn setting(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Returns the mistakes in the files of a scope.
fn check_scope(scope: &GitHubConfig) -> Vec<Mistake> {
    let ca_file = scope.ca_file.as_ref();
    let readable = ca_file.and_then(|file| check_readable(&scope.key("ca_file"), file));
    let proxy = scope.proxy.as_ref();
    let proxy = proxy.and_then(|proxy| proxy.credentials_file.as_ref());
    let key = scope.key("proxy.credentials_file");
    let proxy = proxy.and_then(|file| check_mode(&key, file));
    let secret = check_secret(&scope.login_key(), &scope.login);
    readable.into_iter().chain(secret).chain(proxy).collect()
}

/// Returns a mistake in the file of credentials for GitHub.
fn check_secret(key: &str, login: &LoginConfig) -> Option<Mistake> {
    let file = login.file();
    let is_token = matches!(login, LoginConfig::Token { .. });
    let alone = "a file that holds the secret alone";
    let (wrong, write) = match std::fs::read_to_string(file) {
        Err(error) => (format!("cannot be read: {error}"), alone),
        Ok(text) if text.trim().is_empty() => ("is empty".into(), alone),
        Ok(text) if is_token && text.trim().lines().count() > 1 => (
            "has more than one line".into(),
            "a file that holds the token alone",
        ),
        Ok(text) if !is_token && !text.contains("-----BEGIN ") => (
            "is not a PEM key".into(),
            "the .pem file that GitHub generated for the App",
        ),
        Ok(_) => return check_mode(key, file),
    };
    let wrong = format!("{} {wrong}", file.display());
    Some(mistake(key.into(), wrong, write))
}

fn check_image(pool: &PoolConfig) -> Option<Mistake> {
    let key = |name: &str| format!("pools.{}.image.{name}", pool.name);
    match &pool.image {
        Image::Directory { path, .. } => {
            let shown = path.display();
            if !exists(&path.join(INIT)) {
                return Some(mistake(
                    key("path"),
                    format!("{shown} does not hold a systemd userland: {INIT} is missing"),
                    format!(
                        "a root filesystem with it: restore it in {shown}, or build the image again, as `runner-controller docs other-hosts` shows"
                    ),
                ));
            }
            (!exists(&path.join(RUNNER_ENABLED))).then(|| {
                mistake(
                    key("path"),
                    format!("{shown} does not have github-runner.service"),
                    format!("run `runner-controller prepare-image {shown}`"),
                )
            })
        }
        Image::Nixos { system, .. } => (!exists(&system.join("init"))).then(|| {
            mistake(
                key("system"),
                format!("{} does not have an init", system.display()),
                "the store path of a NixOS system built for containers",
            )
        }),
    }
}

fn check_nix(pool: &PoolConfig) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let Some(nix) = &pool.nix else {
        return mistakes;
    };
    if let Image::Directory { path, .. } = &pool.image
        && !exists(&path.join(NIX_ENABLED))
    {
        let path = path.display();
        mistakes.push(mistake(
            format!("pools.{}.nix", pool.name),
            format!("{path} does not have nix-daemon.socket"),
            format!(
                "nix = false, or install Nix in the image and run \
                 `runner-controller prepare-image --nix {path}`"
            ),
        ));
    }
    if let Some(registration) = &nix.registration {
        let file = match &pool.image {
            Image::Directory { path, .. } => {
                path.join(registration.strip_prefix("/").unwrap_or(registration))
            }
            Image::Nixos { store, .. } => {
                let within = registration.strip_prefix(Nix::STORE);
                store.join(within.unwrap_or(registration))
            }
        };
        if !exists(&file) {
            mistakes.push(mistake(
                format!("pools.{}.image.registration", pool.name),
                format!("{} does not exist", file.display()),
                "output of `nix-store --dump-db`, or the registration of pkgs.closureInfo",
            ));
        }
    }
    mistakes
}

/// Returns a mistake if an image was prepared by a version without `environment`.
fn check_environment(pool: &PoolConfig) -> Option<Mistake> {
    let Image::Directory { path, .. } = &pool.image else {
        return None;
    };
    let unit = std::fs::read_to_string(path.join(RUNNER_UNIT)).ok()?;
    let reads = unit.lines().any(|line| line == READS_ENVIRONMENT);
    (!reads && !pool.environment.is_empty()).then(|| {
        let shown = path.display();
        mistake(
            format!("pools.{}.environment", pool.name),
            format!("the image {shown} was prepared by a version without this key"),
            format!("run `runner-controller prepare-image {shown}`, with its former options"),
        )
    })
}

/// Returns a mistake for each device that this host does not have.
fn check_devices(pool: &PoolConfig, exists: impl Fn(&Path) -> bool) -> Vec<Mistake> {
    let missing = pool
        .devices
        .iter()
        .filter(|device| !exists(Path::new(device.path())));
    let mistakes = missing.map(|device| {
        mistake(
            format!("pools.{}.devices", pool.name),
            format!("this host does not have {}", device.path()),
            format!(
                "load the module {}, or remove it from devices",
                device.module()
            ),
        )
    });
    mistakes.collect()
}

/// Returns a mistake if the launcher cannot bind a directory.
fn check_bind(key: &str, bind: &Bind) -> Option<Mistake> {
    let shown = bind.from.display();
    let write = "a directory behind no symlink, whose parents only root can write";
    let seen = match bind.from.symlink_metadata() {
        Ok(seen) => seen,
        Err(error) => {
            let wrong = format!("{shown} cannot be read: {error}");
            return Some(mistake(key.into(), wrong, write));
        }
    };
    let wrong = if seen.is_dir() {
        bind.wrong_owner(seen.uid(), seen.gid())?
    } else {
        format!("{shown} is not a directory")
    };
    Some(mistake(key.into(), wrong, write))
}

/// Returns a note if jobs can fill the file system of the daemon's records.
fn shared_disk(key: &str, bind: &Bind, state_dir: &Path) -> Option<String> {
    let device = |path: &Path| path.metadata().ok().map(|seen| seen.dev());
    let is_shared = !bind.read_only && device(&bind.from)? == device(state_dir)?;
    is_shared.then(|| {
        format!(
            "{key}: jobs can fill the file system of {}, which also has the daemon's records; \
             a file system for this directory alone, or a quota for its owner, prevents that",
            bind.from.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_must_hold_a_secret_of_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let wrong = |login: &LoginConfig| check_secret("x", login).map(|mistake| mistake.wrong);
        let token = LoginConfig::Token { file: file.clone() };
        let app = LoginConfig::App {
            id: "1".into(),
            key_file: file.clone(),
        };
        assert!(wrong(&token).unwrap().contains("cannot be read"));
        std::fs::write(&file, "ghp_one\nghp_two\n").unwrap();
        assert!(wrong(&token).unwrap().contains("more than one line"));
        assert!(wrong(&app).unwrap().contains("not a PEM key"));
        std::fs::write(&file, "-----BEGIN RSA PRIVATE KEY-----\n").unwrap();
        set_mode(&file, 0o640);
        assert_eq!(wrong(&app), None);
        set_mode(&file, 0o644);
        assert!(wrong(&app).unwrap().contains("every user of this host"));
    }

    fn set_mode(file: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn an_image_needs_the_program_that_the_launcher_needs() {
        let dir = tempfile::tempdir().unwrap();
        let mut pool = super::super::testing::config().pools.remove(0);
        pool.image = Image::Directory {
            path: dir.path().to_owned(),
            runner_root: "/opt/actions-runner".into(),
        };
        let wrong = || {
            check_image(&pool)
                .map(|mistake| mistake.wrong)
                .unwrap_or_default()
        };
        for (program, problem) in [
            ("sbin/init", "usr/lib/systemd/systemd is missing"),
            (INIT, "github-runner.service"),
        ] {
            let program = dir.path().join(program);
            std::fs::create_dir_all(program.parent().unwrap()).unwrap();
            std::fs::write(program, "").unwrap();
            assert!(wrong().contains(problem), "{}", wrong());
        }
    }

    #[test]
    fn a_mode_allows_the_owner_its_group_or_others() {
        let daemon = Some((990, 991));
        for (mode, owner, user, allowed) in [
            (0o644, (0, 0), daemon, true),
            (0o600, (0, 0), daemon, false),
            (0o640, (0, 991), daemon, true),
            (0o640, (0, 0), None, false),
            (0o400, (990, 0), daemon, true),
        ] {
            assert_eq!(is_allowed(mode, owner, user, 0o4), allowed, "{mode:o}");
        }
        assert!(!is_allowed(0o700, (0, 0), daemon, 0o1));
    }

    #[test]
    fn a_configuration_that_the_daemon_cannot_read_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "").unwrap();
        set_mode(&file, 0o600);
        let found = check_readable("(file)", &file).unwrap();
        assert!(found.wrong.ends_with("has mode 0600"), "{found:?}");
        assert!(found.write.starts_with("run `chmod go+r "), "{found:?}");
        set_mode(&file, 0o644);
        assert_eq!(check_readable("(file)", &file), None);
        set_mode(dir.path(), 0o700);
        let found = check_readable("(file)", &file).unwrap();
        assert!(found.write.starts_with("run `chmod go+x "), "{found:?}");
    }

    #[test]
    fn an_image_of_an_earlier_version_has_no_environment() {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join(RUNNER_UNIT);
        std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
        std::fs::write(&unit, "[Service]\n").unwrap();
        let mut pool = crate::config::testing::pool("ci", 0);
        pool.image = Image::Directory {
            path: dir.path().into(),
            runner_root: "/opt/actions-runner".into(),
        };
        assert_eq!(check_environment(&pool), None);
        pool.environment.insert("A".into(), "b".into());
        let found = check_environment(&pool).unwrap();
        assert_eq!(found.key, "pools.ci.environment");
        std::fs::write(&unit, format!("[Service]\n{READS_ENVIRONMENT}\n")).unwrap();
        assert_eq!(check_environment(&pool), None);
        let guest = include_str!("../../guest/github-runner.service");
        assert!(guest.lines().any(|line| line == READS_ENVIRONMENT));
    }

    #[test]
    fn a_device_that_the_host_lacks_is_a_mistake() {
        let mut pool = crate::config::testing::pool("ci", 0);
        pool.devices = crate::config::Device::ALL.into();
        let found = check_devices(&pool, |path| path == Path::new("/dev/fuse"));
        let wrong: Vec<&str> = found.iter().map(|mistake| mistake.wrong.as_str()).collect();
        let wanted = [
            "this host does not have /dev/kvm",
            "this host does not have /dev/net/tun",
        ];
        assert_eq!(wrong, wanted);
    }

    #[test]
    fn a_bind_that_the_launcher_refuses_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let mut bind = Bind {
            from: dir.path().into(),
            to: "/mnt".into(),
            read_only: true,
        };
        assert_eq!(check_bind("x", &bind), None);
        assert_eq!(shared_disk("x", &bind, dir.path()), None);
        bind.read_only = false;
        assert!(shared_disk("x", &bind, dir.path()).is_some());
        for (name, words) in [
            ("file", "is not a directory"),
            ("none", "cannot be read"),
            ("link", "is not a directory"),
        ] {
            bind.from = dir.path().join(name);
            match name {
                "file" => std::fs::write(&bind.from, "").unwrap(),
                "link" => std::os::unix::fs::symlink(dir.path(), &bind.from).unwrap(),
                _ => {}
            }
            let found = check_bind("x", &bind).unwrap();
            assert!(found.wrong.contains(words), "{found:?}");
        }
    }

    #[test]
    fn a_host_without_nspawn_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().as_os_str();
        let missing = check_nspawn(path).unwrap();
        assert!(missing.wrong.contains("not installed"), "{missing:?}");
        std::fs::write(dir.path().join("systemd-nspawn"), "").unwrap();
        assert_eq!(check_nspawn(path), None);
    }
}
