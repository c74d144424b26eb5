//! Checks of this host: the files that a configuration names, and the kernel's shared tables.

use std::path::Path;

use super::github::LoginConfig;
use super::mistake::Mistake;
use super::model::Config;
use super::pool::{Image, Nix, PoolConfig};
use super::tables;

/// Link that starts the runner's unit at an image's boot.
const RUNNER_ENABLED: &str = "etc/systemd/system/multi-user.target.wants/github-runner.service";
/// Link that starts the Nix daemon's socket at an image's boot. Links in an image are not followed,
/// because their targets are paths in the container.
const NIX_ENABLED: &str = "etc/systemd/system/sockets.target.wants/nix-daemon.socket";
/// Programs that make a directory a systemd userland.
const INIT: [&str; 3] = [
    "usr/lib/systemd/systemd",
    "lib/systemd/systemd",
    "sbin/init",
];

/// Returns the mistakes that only this host can show: unreadable secrets, incomplete images, and kernel
/// tables that the configured slots do not fit.
#[must_use]
pub fn check_host(config: &Config) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    mistakes.extend(check_secret(&config.github.login));
    for pool in &config.pools {
        mistakes.extend(check_image(pool));
        mistakes.extend(check_nix(pool));
    }
    mistakes.extend(tables::too_small(config, setting));
    mistakes
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

fn check_secret(login: &LoginConfig) -> Option<Mistake> {
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
        Ok(_) => return None,
    };
    let wrong = format!("{} {wrong}", file.display());
    Some(mistake(login.key().into(), wrong, write))
}

fn check_image(pool: &PoolConfig) -> Option<Mistake> {
    let key = |name: &str| format!("pools.{}.image.{name}", pool.name);
    match &pool.image {
        Image::Directory { path, .. } => {
            let shown = path.display();
            if !INIT.iter().any(|file| exists(&path.join(file))) {
                return Some(mistake(
                    key("path"),
                    format!("{shown} does not hold a systemd userland"),
                    "a root filesystem, prepared by `runner-controller prepare-image DIR`",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_must_hold_a_secret_of_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let wrong = |login: &LoginConfig| check_secret(login).map(|mistake| mistake.wrong);
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
        assert_eq!(wrong(&app), None);
    }
}
