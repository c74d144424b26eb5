//! From the file as written to a [`Config`], collecting every mistake on the way.

mod egress;
mod login;
mod pool;
mod reserve;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::section::{Report, Section};
use super::{
    Config, DEFAULT_RUN_DIR, GitHubConfig, Image, Ipv4Block, Mistakes, Network, Place, PoolConfig,
    Scope,
};
use crate::pool::HostId;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// `sun_path` in sys/un.h holds 108 bytes with its NUL.
const SOCKET_PATH_MAX: usize = 107;
/// Host uids a container may take end here: what lies above is not for containers
/// (systemd's UIDS-GIDS.md), and what lies below `UID_MIN` belongs to people and sub-uids.
const UID_END: u64 = 0x7000_0000;
const UID_MIN: u32 = 0x0008_0000;
/// Above systemd's usual sub-uid ranges, below the end, room for 24,000 places.
const UID_BASE: u32 = 0x1000_0000;

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let text = std::fs::read_to_string(path).map_err(|why| Mistakes {
        file: path.to_owned(),
        list: vec![super::Mistake {
            key: "(file)".into(),
            wrong: format!("it cannot be read: {why}"),
            write: "a TOML file; README.md has a starting point".into(),
        }],
    })?;
    parse(path, &text)
}

/// Checks the text of `file`.
pub fn parse(file: &Path, text: &str) -> Result<Config, Mistakes> {
    let report = Report::default();
    let config = match text.parse::<toml::Table>() {
        Ok(table) => read(Section::new("", table, &report)),
        Err(why) => {
            report.add(
                "(file)",
                format!("it is not TOML: {}", why.to_string().trim()),
                "a correct line",
            );
            None
        }
    };
    let list = report.into_list();
    match config {
        Some(config) if list.is_empty() => Ok(config),
        Some(_) | None => Err(Mistakes {
            file: file.to_owned(),
            list,
        }),
    }
}

fn read(mut top: Section<'_>) -> Option<Config> {
    let host: Option<HostId> = top.required("host", "\"runner-01\"", Section::parsed);
    let state_dir = directory(&mut top, "state_dir", "/var/lib/runner-controller");
    let run_dir = directory(&mut top, "run_dir", DEFAULT_RUN_DIR);
    let layer_dir = directory(&mut top, "layer_dir", "/var/lib/runner-layers");
    let reconcile = top.duration("reconcile", MINUTE, SECOND..=10 * MINUTE);
    let listen = top
        .texts("listen", "[\"127.0.0.1:9817\"]")
        .unwrap_or_default();
    let listen: Vec<SocketAddr> = listen
        .iter()
        .filter_map(|text| {
            let address = text.parse().ok();
            if address.is_none() {
                top.wrong(
                    "listen",
                    format!("{text:?} is not an address with a port"),
                    "listen = [\"127.0.0.1:9817\"]",
                );
            }
            address
        })
        .collect();
    let api_token_file = api_token_file(&mut top, &listen);
    let github = github(top.section("github"));
    let network = network(top.section("network"));
    let reserve = reserve::reserve(top.section("reserve"));

    let mut pools = Vec::new();
    let sections = top.sections("pools");
    if sections.is_empty() {
        top.wrong(
            "pools",
            "there is no pool",
            "a table such as [pools.ci] with labels, image and max_runners",
        );
    }
    let mut complete = true;
    let scope = github.as_ref().map(|github| &github.scope);
    for (name, section) in sections {
        let pool = pool::pool(&name, section, scope, reconcile);
        complete &= pool.is_some();
        pools.extend(pool);
    }

    let longest = Path::new("slots/a2345678-999/jit.sock");
    if run_dir.join(longest).as_os_str().len() > SOCKET_PATH_MAX {
        top.wrong(
            "run_dir",
            "the sockets' paths below it would be longer than 107 bytes",
            "a shorter directory, such as \"/run/runner-controller\"",
        );
    }
    let dirs = BTreeSet::from([&state_dir, &run_dir, &layer_dir]);
    if dirs.len() < 3 {
        top.wrong(
            "layer_dir",
            "state_dir, run_dir and layer_dir must be three directories: they have different owners",
            "leave them out for the defaults",
        );
    }
    if let Some(network) = &network {
        check_places(&top, network, &pools);
        egress::check_allow(&top, network, &pools);
    }
    top.finish();

    complete.then_some(Config {
        host: host?,
        github: github?,
        network: network?,
        pools,
        state_dir,
        run_dir,
        layer_dir,
        reconcile,
        reserve,
        listen,
        api_token_file,
    })
}

fn directory(section: &mut Section<'_>, key: &'static str, default: &str) -> PathBuf {
    section
        .path(key, &format!("{default:?}"))
        .unwrap_or_else(|| PathBuf::from(default))
}

/// A token of its own, for the listeners on TCP.
fn api_token_file(top: &mut Section<'_>, listen: &[SocketAddr]) -> Option<PathBuf> {
    let file = top.path("api_token_file", "\"/run/agenix/runner-controller-api\"")?;
    if file.starts_with("/nix/store") {
        top.wrong(
            "api_token_file",
            "everything in /nix/store can be read by everybody on the host",
            "a path outside it, such as \"/run/agenix/runner-controller-api\"",
        );
    }
    if listen.is_empty() {
        top.wrong(
            "api_token_file",
            "nothing listens on TCP, and the Unix socket asks who it is and takes no token",
            "listen = [\"127.0.0.1:9817\"] beside it, or leave it out",
        );
    }
    Some(file)
}

fn github(mut section: Section<'_>) -> Option<GitHubConfig> {
    let url = section.required(
        "url",
        "\"https://github.com/OWNER/REPO\" or \"https://github.com/ORG\"",
        Section::text,
    );
    let scope = url.and_then(|url| match scope(&url) {
        Ok(found) => Some(found),
        Err(why) => {
            section.wrong(
                "url",
                format!("{url:?} {why}"),
                "url = \"https://github.com/OWNER/REPO\" or \"https://github.com/ORG\"",
            );
            None
        }
    });
    let plain_http = section.flag("allow_plain_http").unwrap_or(false);
    let given: Option<Url> = section.parsed("api_url", "\"https://api.github.com\"");
    let api_url = given.or_else(|| scope.as_ref().map(|(_, default)| default.clone()));
    if let Some(url) = &api_url {
        let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() || !bare {
            section.wrong(
                "api_url",
                format!("\"{url}\" is not the plain base of an API"),
                "api_url = \"https://api.github.com\"",
            );
        } else if url.scheme() == "http" && !plain_http {
            section.wrong(
                "api_url",
                "http:// would send the token in the clear",
                "an https:// URL, or allow_plain_http = true where nobody can listen",
            );
        }
    }
    let api_version = section
        .text("api_version", "\"2022-11-28\"")
        .unwrap_or_else(|| "2022-11-28".into());
    let dated = api_version.len() == 10
        && api_version.bytes().enumerate().all(|(i, b)| {
            if i == 4 || i == 7 {
                b == b'-'
            } else {
                b.is_ascii_digit()
            }
        });
    if !dated {
        section.wrong(
            "api_version",
            format!("{api_version:?} is not a date"),
            "api_version = \"2022-11-28\"",
        );
    }
    let login = login::read(&mut section);
    let timeout = section.duration("timeout", 15 * SECOND, SECOND..=2 * MINUTE);
    section.finish();
    Some(GitHubConfig {
        scope: scope?.0,
        api_url: api_url?,
        api_version,
        login: login?,
        timeout,
    })
}

/// The scope that a web address names, and its API's base: `api.github.com` for github.com,
/// `api.HOST` for data residency (`*.ghe.com`), `HOST/api/v3` for GitHub Enterprise Server.
fn scope(text: &str) -> Result<(Scope, Url), &'static str> {
    let url: Url = text.parse().map_err(|_| "is not a URL")?;
    let host = url.host_str().ok_or("has no host")?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("does not begin with https://");
    }
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let hosted = matches!(host, "github.com" | "www.github.com" | "github.localhost");
    let api = if hosted {
        "https://api.github.com".to_owned()
    } else if host.ends_with(".ghe.com") {
        format!("https://api.{authority}")
    } else {
        format!("{}://{authority}/api/v3", url.scheme())
    };
    let api = api.parse().map_err(|_| "has no usable host")?;
    let parts: Vec<&str> = url
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let word = |part: &str| {
        part.len() <= 100
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !matches!(part, "." | "..")
    };
    if !parts.iter().all(|part| word(part)) {
        return Err("has characters that no owner or repository has");
    }
    match parts[..] {
        ["enterprises", ..] => {
            Err("is an enterprise; runners of an organisation or a repository are supported")
        }
        [org] => Ok((
            Scope::Organization {
                org: org.to_owned(),
            },
            api,
        )),
        [owner, repo] => Ok((
            Scope::Repository {
                owner: owner.to_owned(),
                repo: repo.strip_suffix(".git").unwrap_or(repo).to_owned(),
            },
            api,
        )),
        _ => Err("names neither an organisation nor a repository"),
    }
}

fn network(mut section: Section<'_>) -> Option<Network> {
    let block: Option<Ipv4Block> = section.required("block", "\"10.200.0.0/16\"", Section::parsed);
    if let Some(block) = block {
        let inside = [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
        ]
        .iter()
        .filter_map(|range| range.parse::<Ipv4Block>().ok())
        .any(|range| range.contains(block.address(0)) && range.size() >= block.size());
        if !inside {
            section.wrong(
                "block",
                format!("{block} is not private, so jobs could not reach the real owner of those addresses"),
                "a block of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10 that the host does not use",
            );
        }
    }
    let example = "[\"9.9.9.9\", \"1.1.1.1\"]";
    let resolvers = section.required("resolvers", example, Section::texts);
    let write = format!("resolvers = {example}");
    let resolvers: Option<Vec<Ipv4Addr>> = resolvers.map(|list| {
        if list.is_empty() || list.len() > 3 {
            section.wrong(
                "resolvers",
                "resolv.conf takes one to three servers",
                &write,
            );
        }
        list.iter()
            .filter_map(|text| {
                let Ok(address) = text.parse::<Ipv4Addr>() else {
                    section.wrong(
                        "resolvers",
                        format!("{text:?} is not an IPv4 address"),
                        &write,
                    );
                    return None;
                };
                let wrong = if address.is_loopback() {
                    "is loopback: in a container that is the container itself"
                } else if address.is_unspecified()
                    || address.is_multicast()
                    || address.is_broadcast()
                {
                    "is no host's address"
                } else if block.is_some_and(|block| block.contains(address)) {
                    "lies in the containers' own block"
                } else {
                    return Some(address);
                };
                section.wrong("resolvers", format!("{address} {wrong}"), &write);
                None
            })
            .collect()
    });
    let uid_base = section
        .number("uid_base", UID_MIN..=0x6fff_0000)
        .unwrap_or(UID_BASE);
    if !uid_base.is_multiple_of(Place::UIDS) {
        section.wrong(
            "uid_base",
            format!("{uid_base} is not a multiple of 65536"),
            format!("uid_base = {}", uid_base - uid_base % Place::UIDS),
        );
    }
    section.finish();
    Some(Network {
        block: block?,
        resolvers: resolvers?,
        uid_base,
    })
}

/// Places must not overlap, and their addresses and uids must exist.
fn check_places(top: &Section<'_>, network: &Network, pools: &[PoolConfig]) {
    let mut by_offset: Vec<&PoolConfig> = pools.iter().collect();
    by_offset.sort_by_key(|pool| (pool.offset, &pool.name));
    let mut free = 0;
    for pool in by_offset {
        let key = format!("pools.{}", pool.name);
        if pool.offset < free {
            top.wrong(
                &format!("{key}.offset"),
                format!("places {} and up are another pool's", pool.offset),
                format!("offset = {free} or more, where no other pool's places are"),
            );
        }
        let end = pool.offset + u32::from(pool.max_runners);
        free = free.max(end);
        if u64::from(end) * u64::from(Place::ADDRESSES) > network.block.size() {
            top.wrong(
                &format!("{key}.max_runners"),
                format!(
                    "network.block {} has {} places of four addresses, and this pool needs places up to {end}",
                    network.block,
                    network.block.size() / u64::from(Place::ADDRESSES)
                ),
                "a larger network.block, a lower offset, or fewer runners",
            );
        }
        if u64::from(network.uid_base) + u64::from(end) * u64::from(Place::UIDS) > UID_END {
            top.wrong(
                &format!("{key}.max_runners"),
                format!("its uids would pass {UID_END}, the end of the range for containers"),
                format!("a lower network.uid_base (default {UID_BASE}), a lower offset, or fewer runners"),
            );
        }
    }
}

/// What pulls the runner's unit into an image's boot.
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/github-runner.service";

/// Checks what only the host can tell: the secret's file and the images.
#[must_use]
pub fn check_host(config: &Config) -> Vec<super::Mistake> {
    let report = Report::default();
    login::check_host(&config.github.login, &report);
    for pool in &config.pools {
        let key = format!("pools.{}.image", pool.name);
        match &pool.image {
            Image::Directory { path, .. } => {
                let init = [
                    "usr/lib/systemd/systemd",
                    "lib/systemd/systemd",
                    "sbin/init",
                ];
                if !init
                    .iter()
                    .any(|file| path.join(file).symlink_metadata().is_ok())
                {
                    report.add(
                        format!("{key}.path"),
                        format!("{} holds no systemd userland", path.display()),
                        "a root filesystem, prepared by `runner-controller prepare-image DIR`",
                    );
                } else if path.join(ENABLED).symlink_metadata().is_err() {
                    report.add(
                        format!("{key}.path"),
                        format!("{} has no github-runner.service", path.display()),
                        format!("run `runner-controller prepare-image {}`", path.display()),
                    );
                }
            }
            Image::Nixos { system, .. } => {
                if system.join("init").symlink_metadata().is_err() {
                    report.add(
                        format!("{key}.system"),
                        format!("{} has no init", system.display()),
                        "the store path of a NixOS system built for containers",
                    );
                }
            }
        }
        pool::check_nix(&report, pool);
    }
    report.into_list()
}

#[cfg(test)]
mod tests;
