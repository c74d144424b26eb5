//! Addresses that the jobs of each pool reach.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use super::common::{SOON, ensure_says};
use super::fixture::{EMPTY, one};
use super::isolation::{probe, with_host_answers};
use super::suite::{Suite, suite};
use crate::config::{Config, Pool};
use crate::lab::Lab;
use crate::net::{GITHUB, METADATA, NEIGHBOUR, RESOLVER};
use crate::sim::{PORT, pool_job};

pub(super) const SUITE: Suite = suite![EMPTY;
    each_pool_reaches_what_it_is_given_and_no_more,
];

/// The host's address on its LAN.
const LAN_SIDE: &str = "192.168.77.1";

/// Reached or not, in the order of [`PLACES`] and then the resolver.
type Reach = [bool; 6];

/// Name, address and port of each place that jobs try to reach.
const PLACES: [(&str, &str, u16); 5] = [
    ("internet", GITHUB, 80),
    ("github", GITHUB, PORT),
    ("neighbour", NEIGHBOUR, 80),
    ("host", LAN_SIDE, 80),
    ("metadata", METADATA, 80),
];

/// Returns pools and the places that their jobs reach. The name of one pool begins with the
/// name of another, and so do the names of their links.
fn pools() -> Vec<(Pool, Reach)> {
    let github = format!("{GITHUB}:{PORT}");
    let pool = |name: &str, offset: u16, egress: &'static str, allow: &[&str]| Pool {
        egress,
        allow: allow.iter().map(|&entry| entry.to_owned()).collect(),
        ..one(name, offset)
    };
    let neighbour = format!("{NEIGHBOUR}:80");
    let host = format!("{LAN_SIDE}:80/tcp");
    vec![
        (
            pool("a", 0, "internet", &[]),
            [true, true, false, false, false, true],
        ),
        (
            pool("ab", 1, "internet", &[&neighbour]),
            [true, true, true, false, false, true],
        ),
        (
            // A listed network does not open this host's address on it.
            pool("list", 2, "listed", &[&github, "192.168.77.0/24:80"]),
            [false, true, true, false, false, true],
        ),
        (
            pool("none", 3, "none", &[&github, &host]),
            [false, true, false, true, false, false],
        ),
    ]
}

fn each_pool_reaches_what_it_is_given_and_no_more(lab: &mut Lab) -> Result<()> {
    let pools = pools();
    let mut config = Config::small(lab.sim().api_url());
    config.pools = pools.iter().map(|(pool, _)| pool.clone()).collect();
    lab.install(&config)?;
    lab.start()?;
    with_host_answers(lab, |lab| {
        for (_, address, port) in PLACES {
            let port = port.to_string();
            let open = lab
                .host()
                .output(&["nc", "-z", "-w", "1", address, &port])?;
            ensure!(open.status.success(), "{address}:{port} does not answer");
        }
        for (pool, reach) in &pools {
            check(lab, pool, *reach).with_context(|| format!("pool {}", pool.name))?;
        }
        Ok(())
    })
}

fn check(lab: &Lab, pool: &Pool, reach: Reach) -> Result<()> {
    let mut script = String::new();
    for (name, address, port) in PLACES {
        probe(&mut script, name, address, port);
    }
    script.push_str("wait\n");
    // The address of `x`, by a query that the job sends to the resolver itself.
    writeln!(
        script,
        "exec 3<>/dev/udp/{RESOLVER}/53\n\
         printf '\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1x\\0\\0\\1\\0\\1' >&3\n\
         timeout 1 head -c 12 <&3 | wc -c | grep -qx 12 && echo resolver open || echo resolver closed\n\
         grep -c ^nameserver /etc/resolv.conf || true"
    )?;
    let id = lab.sim().queue(&pool_job("reach", &pool.name, &script))?;
    let said = lab.sim().await_success(id, SOON)?.facts.log_tail;
    let names = PLACES.iter().map(|(name, ..)| *name).chain(["resolver"]);
    for (name, open) in names.zip(reach) {
        let word = if open { "open" } else { "closed" };
        ensure_says(&said, &[&format!("{name} {word}")])?;
    }
    let servers = if pool.egress == "none" {
        "\n0\n"
    } else {
        "\n1\n"
    };
    ensure!(
        format!("\n{said}\n").contains(servers),
        "its resolv.conf is not what it should be: {said}"
    );
    Ok(())
}
