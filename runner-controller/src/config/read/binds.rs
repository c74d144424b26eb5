//! The directories of the host that containers of a pool have (`binds`).

use std::path::Path;

use super::section::{Report, Section};
use crate::config::bind::Bind;
use crate::config::model::Config;
use crate::config::pool::{Image, Nix, PoolConfig};

/// Maximum number of directories. The launcher's directory has room for twice as many mount points.
const BINDS_MAX: usize = 16;

/// Trees of the host that no container has: the host's programs, settings, secrets, sockets and logs.
pub(super) const HOST_TREES: [&str; 19] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/var/lib/docker",
    "/var/lib/machines",
    "/var/lib/systemd",
    "/var/log",
    "/var/run",
    "/var/tmp",
];

/// Trees of a container that a bind would break.
pub(super) const GUEST_TREES: [&str; 16] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/nix",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/log",
];

/// Directories of a container in which a bind may lie, and which it may not hide.
pub(super) const GUEST_PARENTS: [&str; 2] = ["/tmp", "/var/tmp"];

/// Reads the directories of the host that containers have. [`check`] checks where they may be.
pub(super) fn of_pool(section: &mut Section<'_>) -> Vec<Bind> {
    let example = "[{ from = \"/srv/models\", to = \"/mnt/models\" }]";
    let tables = section.tables("binds", example);
    if tables.len() > BINDS_MAX {
        section.wrong(
            "binds",
            format!("{} directories are more than {BINDS_MAX}", tables.len()),
            "one directory above several of them",
        );
    }
    let mut binds: Vec<Bind> = Vec::new();
    for mut table in tables {
        let from = table.required("from", "\"/srv/models\"", Section::path);
        let to = table.required("to", "\"/mnt/models\"", Section::path);
        let read_only = table.flag("read_only").unwrap_or(true);
        if let (Some(from), Some(to)) = (from, to) {
            let is_taken = |other: &&Bind| to.starts_with(&other.to) || other.to.starts_with(&to);
            if let Some(other) = binds.iter().find(is_taken) {
                table.wrong(
                    "to",
                    format!("{} and {} overlap", to.display(), other.to.display()),
                    "directories beside each other",
                );
            }
            binds.push(Bind {
                from,
                to,
                read_only,
            });
        }
        table.finish();
    }
    binds
}

/// Checks that every bind keeps to the places that are open to containers.
pub(super) fn check(report: &Report, config: &Config) {
    for pool in &config.pools {
        for (at, bind) in pool.binds.iter().enumerate() {
            let key = |name| format!("pools.{}.binds.{at}.{name}", pool.name);
            if let Some(wrong) = wrong_source(bind, config) {
                let write = "a directory for jobs alone, such as \"/srv/ccache\"";
                report.add(key("from"), wrong, write);
            }
            if let Some(wrong) = wrong_target(bind, pool) {
                let write = "another path, such as \"/mnt/ccache\"";
                report.add(key("to"), wrong, write);
            }
        }
    }
}

/// Returns the reason why no container may have this directory of the host.
fn wrong_source(bind: &Bind, config: &Config) -> Option<String> {
    let from = &bind.from;
    let shown = from.display();
    if let Some(tree) = HOST_TREES
        .iter()
        .find(|tree| overlap(from, Path::new(tree)))
    {
        return Some(format!(
            "{shown} has a part of {tree}, which belongs to the host alone"
        ));
    }
    let store = Path::new(Nix::STORE);
    let is_store_path = from.starts_with(store) && from != store;
    if overlap(from, Path::new("/nix")) && !is_store_path {
        return Some(format!(
            "{shown} is not a path below {}, the only part of /nix for a container",
            store.display()
        ));
    }
    let own = [&config.state_dir, &config.run_dir, &config.layer_dir];
    let images = config.pools.iter().filter_map(|pool| match &pool.image {
        Image::Directory { path, .. } => Some(path),
        Image::Nixos { .. } => None,
    });
    if let Some(other) = own.into_iter().chain(images).find(|dir| overlap(from, dir)) {
        return Some(format!(
            "{shown} and {} overlap, which is for the daemon and root alone",
            other.display()
        ));
    }
    let secret = config.secret_files().find(|file| file.starts_with(from));
    secret.map(|file| format!("{shown} contains {}, a secret", file.display()))
}

/// Returns the reason why a container cannot have the directory at this path.
fn wrong_target(bind: &Bind, pool: &PoolConfig) -> Option<String> {
    let to = &bind.to;
    let shown = to.display();
    let root = pool.image.runner_root();
    let trees = GUEST_TREES.iter().map(Path::new).chain([root]);
    if let Some(tree) = trees.into_iter().find(|tree| overlap(to, tree)) {
        return Some(format!(
            "{shown} would hide or change {} of the container",
            tree.display()
        ));
    }
    let parents = GUEST_PARENTS.iter().map(Path::new);
    let hidden = parents
        .chain([Path::new(&pool.work_folder)])
        .find(|parent| parent.starts_with(to));
    hidden.map(|parent| format!("{shown} would hide {} of the container", parent.display()))
}

/// Returns true if one of two paths is in the other, or if they are equal.
fn overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, testing};

    fn bind(from: &str, to: &str) -> Bind {
        Bind {
            from: from.into(),
            to: to.into(),
            read_only: true,
        }
    }

    #[test]
    fn a_container_gets_no_directory_of_the_hosts_system_or_with_secrets() {
        let mut config = testing::config();
        config.api_token_file = Some("/srv/secrets/api-token".into());
        for from in [
            "/",
            "/etc/ssl",
            "/var",
            "/var/lib",
            "/run/docker.sock",
            "/proc/1",
            "/var/lib/runner-controller",
            "/var/lib/runner-controller-layers/x",
            "/var/lib/machines/ci",
            "/nix",
            "/nix/store",
            "/nix/var/nix/daemon-socket",
            "/srv",
            "/srv/secrets",
        ] {
            assert!(
                wrong_source(&bind(from, "/mnt"), &config).is_some(),
                "{from}"
            );
        }
        for from in [
            "/srv/ccache",
            "/var/cache/models",
            "/nix/store/abc-model",
            "/home/ci",
        ] {
            assert_eq!(wrong_source(&bind(from, "/mnt"), &config), None, "{from}");
        }
    }

    #[test]
    fn a_bind_hides_nothing_that_a_container_needs() {
        let pool = testing::pool("ci", 0);
        for to in [
            "/",
            "/opt",
            "/opt/actions-runner",
            "/opt/actions-runner/bin",
            "/usr/share/models",
            "/etc/ssl",
            "/run/runner",
            "/var",
            "/var/lib/docker/volumes",
            "/home/runner",
            "/home/runner/work",
            "/nix/store",
            "/tmp",
        ] {
            assert!(wrong_target(&bind("/srv/x", to), &pool).is_some(), "{to}");
        }
        for to in [
            "/mnt",
            "/opt/models",
            "/home/runner/work/_tool",
            "/var/cache/ccache",
            "/tmp/x",
        ] {
            assert_eq!(wrong_target(&bind("/srv/x", to), &pool), None, "{to}");
        }
    }

    /// Returns the keys of all mistakes of a configuration with these lines in its pool.
    fn mistakes(lines: &str) -> Vec<String> {
        let text = format!("{}{lines}\n", testing::TEXT);
        let result = parse(Path::new("config.toml"), &text);
        let list = result.err().map(|mistakes| mistakes.list);
        list.into_iter().flatten().map(|found| found.key).collect()
    }

    #[test]
    fn a_bind_is_read_only_unless_it_says_otherwise() {
        let lines = "binds = [{ from = \"/srv/models\", to = \"/mnt/models\" }, \
             { from = \"/srv/ccache\", to = \"/mnt/ccache\", read_only = false }]";
        let config = parse(Path::new("x"), &format!("{}{lines}", testing::TEXT)).unwrap();
        let modes: Vec<bool> = config.pools[0]
            .binds
            .iter()
            .map(|bind| bind.read_only)
            .collect();
        assert_eq!(modes, [true, false]);
        assert_ne!(
            config.pools[0].generation(),
            testing::config().pools[0].generation()
        );
    }

    #[test]
    fn each_mistake_of_a_bind_names_its_place_in_the_list() {
        for (binds, key) in [
            ("{ to = \"/mnt/x\" }", "pools.ci.binds.0.from"),
            ("{ from = \"/srv/x\" }", "pools.ci.binds.0.to"),
            (
                "{ from = \"srv\", to = \"/mnt/x\" }",
                "pools.ci.binds.0.from",
            ),
            (
                "{ from = \"/srv/../etc\", to = \"/mnt/x\" }",
                "pools.ci.binds.0.from",
            ),
            (
                "{ from = \"/etc\", to = \"/mnt/x\" }",
                "pools.ci.binds.0.from",
            ),
            (
                "{ from = \"/srv/x\", to = \"/usr/lib\" }",
                "pools.ci.binds.0.to",
            ),
            (
                "{ from = \"/srv/x\", to = \"/mnt/x\", mode = \"rw\" }",
                "pools.ci.binds.0.mode",
            ),
            (
                "{ from = \"/srv/x\", to = \"/mnt/x\" }, { from = \"/srv/y\", to = \"/mnt/x/y\" }",
                "pools.ci.binds.1.to",
            ),
        ] {
            assert_eq!(mistakes(&format!("binds = [{binds}]")), [key], "{binds}");
        }
        assert_eq!(mistakes("binds = [\"/srv/x\"]"), ["pools.ci.binds"]);
        let many: Vec<String> = (0..=BINDS_MAX)
            .map(|at| format!("{{ from = \"/srv/x\", to = \"/mnt/{at}\" }}"))
            .collect();
        assert_eq!(
            mistakes(&format!("binds = [{}]", many.join(", "))),
            ["pools.ci.binds"]
        );
    }
}
