//! Checks of this host that `check-config --host` and `apply` share.

use std::path::Path;

use crate::config::{self, Config, GitHubConfig, HostFindings, INIT, Image, Mistake};
use crate::firewall::{self, Obstacle};
use crate::github;
use crate::guest::{self, Trial};
use crate::readings;
use crate::world::chain;

/// Returns the findings that no host file corrects: files, addresses, uids, and runners of images.
pub(super) fn lasting(config: &Config, file: &Path) -> HostFindings {
    let mut found = config::check_host(config, file);
    let ca_files = config.scopes.iter().filter_map(ca_file_mistake);
    found.mistakes.extend(ca_files);
    found.notes.extend(readings::lacking_protections());
    for (image, runner_root, pools) in directories(config) {
        let key = format!("pools.{}.image", pools[0]);
        let used_by = pools.join(", ");
        // The check above reports it, and no container of the image starts.
        if image.is_dir() && !image.join(INIT).exists() {
            continue;
        }
        if !guest::has_listener(image, runner_root) {
            // The check above reports a directory that is missing.
            if image.is_dir() {
                found.mistakes.push(Mistake {
                    key,
                    wrong: format!(
                        "{} does not have the runner, which pool {used_by} needs",
                        image.display()
                    ),
                    write: format!(
                        "unpack actions-runner-linux-*.tar.gz at {} of the image",
                        runner_root.display()
                    ),
                });
            }
            continue;
        }
        match guest::try_listener(image, runner_root) {
            Trial::Version(version) => found.notes.push(format!(
                "pool {used_by}: runner {version} starts in {}",
                image.display()
            )),
            Trial::Untried(reason) => found.notes.push(format!(
                "pool {used_by}: the runner in {} is not tried: {reason}",
                image.display()
            )),
            Trial::Failed(wrong) => found.mistakes.push(Mistake {
                key,
                wrong,
                write: "install the packages in the image".into(),
            }),
        }
    }
    found
}

/// Returns a mistake if `ca_file` has no certificate authorities. A file that cannot be read is the mistake
/// of another check.
fn ca_file_mistake(config: &GitHubConfig) -> Option<Mistake> {
    let file = config.ca_file.as_ref()?;
    let error = github::check_ca_file(config).err()?;
    file.is_file().then(|| Mistake {
        key: config.key("ca_file"),
        wrong: chain(&error),
        write: "a file with certificates in PEM".into(),
    })
}

/// Returns the directory images, each with its pools.
fn directories(config: &Config) -> Vec<(&Path, &Path, Vec<String>)> {
    let mut images: Vec<(&Path, &Path, Vec<String>)> = Vec::new();
    for pool in &config.pools {
        let Image::Directory { path, runner_root } = &pool.image else {
            continue;
        };
        let mut known = images.iter_mut();
        match known.find(|(image, root, _)| *image == path && *root == runner_root) {
            Some((.., pools)) => pools.push(pool.name.to_string()),
            None => images.push((path, runner_root, vec![pool.name.to_string()])),
        }
    }
    images
}

/// Returns the findings that the host files should correct: kernel tables and packet forwarding.
pub(super) fn correctable(config: &Config) -> HostFindings {
    let mut found = HostFindings {
        mistakes: config::check_kernel(config),
        notes: Vec::new(),
    };
    match firewall::obstacle(config) {
        Ok(obstacle) => found.mistakes.extend(obstacle.map(network_mistake)),
        Err(error) => found.notes.push(format!(
            "cannot read the host's firewall rules: {}; run this as root",
            chain(&error)
        )),
    }
    found
}

/// Returns the mistake that this host does not forward the packets of runners.
fn network_mistake(Obstacle { wrong, remedy }: Obstacle) -> Mistake {
    Mistake {
        key: "network".into(),
        wrong,
        write: remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_certificate_is_a_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let mut github = config::testing::config().scopes.remove(0);
        assert_eq!(ca_file_mistake(&github), None);
        github.ca_file = Some(file.clone());
        // The check of unreadable files reports a missing one.
        assert_eq!(ca_file_mistake(&github), None);
        std::fs::write(&file, "").unwrap();
        let mistake = ca_file_mistake(&github).unwrap();
        assert_eq!(mistake.key, "github.ca_file");
        assert!(mistake.wrong.contains("no certificate"), "{mistake:?}");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        assert_eq!(ca_file_mistake(&github), None);
    }
}
