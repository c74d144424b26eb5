//! The keys `egress` and `allow` of a pool.

use std::net::Ipv4Addr;

use super::section::Section;
use crate::config::egress::{Allow, Egress, Protocol};
use crate::config::model::Network;
use crate::config::pool::PoolConfig;
use crate::config::units::Ipv4Block;

/// Maximum number of entries. Packets pass the rule of each entry; a proxy suits a longer list better.
const ALLOW_MAX: usize = 64;

const WRITE: &str = "allow = [\"10.0.0.5:443\", \"192.168.7.0/24:3128/tcp\", \"10.1.2.3:53/udp\"]";

/// Blocks that an entry must not overlap: first address, prefix length, and reason.
const NEVER: &[(Ipv4Addr, u8, &str)] = &[
    (Ipv4Addr::UNSPECIFIED, 8, "is not an address of a host"),
    (
        Ipv4Addr::new(127, 0, 0, 0),
        8,
        "is loopback, which is the container itself",
    ),
    (
        Ipv4Addr::new(169, 254, 0, 0),
        16,
        "is link-local, where a cloud hands out the credentials of the host",
    ),
    (Ipv4Addr::new(224, 0, 0, 0), 3, "is multicast or reserved"),
];

/// Reads both keys.
pub(super) fn egress(section: &mut Section<'_>) -> (Egress, Vec<Allow>) {
    let egress: Option<Egress> = section.parsed("egress", "\"internet\", \"listed\" or \"none\"");
    let texts = section.texts("allow", WRITE).unwrap_or_default();
    if texts.len() > ALLOW_MAX {
        section.wrong(
            "allow",
            format!(
                "{} entries are more than the maximum of {ALLOW_MAX}",
                texts.len()
            ),
            "networks instead of single addresses, or the address of a proxy",
        );
    }
    let mut allow: Vec<Allow> = Vec::new();
    for text in &texts {
        match text.parse() {
            Err(error) => {
                section.wrong("allow", format!("{text:?} is invalid: {error}"), WRITE);
            }
            Ok(entry) if allow.contains(&entry) => section.wrong(
                "allow",
                format!("{text:?} repeats an earlier entry"),
                "each address and port once",
            ),
            Ok(entry) => allow.push(entry),
        }
    }
    let egress = egress.unwrap_or_default();
    let reachable = |entry: &Allow| entry.protocol == Protocol::Tcp;
    // A mistake in an entry is reported alone.
    if egress != Egress::Internet && texts.len() == allow.len() && !allow.iter().any(reachable) {
        section.wrong(
            "allow",
            format!(
                "with egress = \"{}\" a runner reaches GitHub through this list alone, and without a tcp port in it takes no job",
                egress.as_str()
            ),
            "allow = [\"10.0.0.5:3128\"], the address of a proxy that the runner in the image uses, or addresses of GitHub",
        );
    }
    (egress, allow)
}

/// Checks the addresses of all entries.
pub(super) fn check_allow(top: &Section<'_>, network: &Network, pools: &[PoolConfig]) {
    for pool in pools {
        for entry in &pool.allow {
            if let Some(reason) = forbidden(entry.to, network) {
                top.wrong(
                    &format!("pools.{}.allow", pool.name),
                    format!("{entry} {reason}"),
                    "addresses of other machines, or one address of this host",
                );
            }
        }
    }
}

/// Returns the reason if an entry must not have these addresses.
fn forbidden(to: Ipv4Block, network: &Network) -> Option<&'static str> {
    let never = NEVER.iter().find_map(|(first, prefix, why)| {
        let range = Ipv4Block::parse(&format!("{first}/{prefix}"), 3..=16).ok()?;
        range.overlaps(to).then_some(*why)
    });
    never.or_else(|| {
        network
            .block
            .overlaps(to)
            .then_some("has addresses in network.block, the addresses of containers")
    })
}
