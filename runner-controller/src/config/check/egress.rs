//! `egress` and `allow` of a pool.

use std::net::Ipv4Addr;

use super::super::section::Section;
use super::super::{Allow, Egress, Ipv4Block, Network, PoolConfig, Protocol};

/// Each is a rule that packets pass one after the other; a longer list is better a proxy's.
const ALLOW_MAX: usize = 64;

const WRITE: &str = "allow = [\"10.0.0.5:443\", \"192.168.7.0/24:3128/tcp\", \"10.1.2.3:53/udp\"]";

/// What no list opens: the address, its prefix length, and why.
const NEVER: &[(Ipv4Addr, u8, &str)] = &[
    (Ipv4Addr::UNSPECIFIED, 8, "is no host's address"),
    (
        Ipv4Addr::new(127, 0, 0, 0),
        8,
        "is loopback: in a container that is the container itself",
    ),
    (
        Ipv4Addr::new(169, 254, 0, 0),
        16,
        "is link-local: a cloud hands out the host's own credentials there",
    ),
    (Ipv4Addr::new(224, 0, 0, 0), 3, "is multicast or reserved"),
];

/// Reads both keys of a pool.
pub(super) fn egress(section: &mut Section<'_>) -> (Egress, Vec<Allow>) {
    let egress: Option<Egress> = section.parsed("egress", "\"internet\", \"listed\" or \"none\"");
    let texts = section.texts("allow", WRITE).unwrap_or_default();
    if texts.len() > ALLOW_MAX {
        section.wrong(
            "allow",
            format!("{} entries are more than {ALLOW_MAX}", texts.len()),
            "networks in place of single addresses, or a proxy's address",
        );
    }
    let mut allow: Vec<Allow> = Vec::new();
    for text in &texts {
        match text.parse() {
            Err(why) => section.wrong("allow", format!("{text:?} cannot be used: {why}"), WRITE),
            Ok(entry) if allow.contains(&entry) => section.wrong(
                "allow",
                format!("{text:?} stands there twice"),
                "each address and port once",
            ),
            Ok(entry) => allow.push(entry),
        }
    }
    let egress = egress.unwrap_or_default();
    let reachable = |entry: &Allow| entry.protocol == Protocol::Tcp;
    // With a mistake in the list, that is what to report.
    if egress != Egress::Internet && texts.len() == allow.len() && !allow.iter().any(reachable) {
        section.wrong(
            "allow",
            format!(
                "with egress = \"{}\" a runner reaches GitHub through this list alone, and no tcp port is in it: it would never take a job",
                egress.as_str()
            ),
            "allow = [\"10.0.0.5:3128\"], the address of a proxy that the image's runner uses, or GitHub's own addresses",
        );
    }
    (egress, allow)
}

/// Checks where the lists lead to.
pub(super) fn check_allow(top: &Section<'_>, network: &Network, pools: &[PoolConfig]) {
    for pool in pools {
        for entry in &pool.allow {
            if let Some(wrong) = forbidden(entry.to, network) {
                top.wrong(
                    &format!("pools.{}.allow", pool.name),
                    format!("{entry} {wrong}"),
                    "addresses of other machines, or one address of this host's own",
                );
            }
        }
    }
}

fn forbidden(to: Ipv4Block, network: &Network) -> Option<&'static str> {
    let never = NEVER.iter().find_map(|(first, prefix, why)| {
        let range = Ipv4Block::parse(&format!("{first}/{prefix}"), 3..=16).ok()?;
        range.overlaps(to).then_some(*why)
    });
    never.or_else(|| {
        network
            .block
            .overlaps(to)
            .then_some("has addresses of the containers' own block, network.block")
    })
}
