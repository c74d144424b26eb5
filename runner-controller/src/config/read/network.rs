//! The `[network]` table, and the places that pools take of it.

use std::net::Ipv4Addr;

use super::section::Section;
use crate::config::model::Network;
use crate::config::place::Place;
use crate::config::pool::PoolConfig;
use crate::config::units::Ipv4Block;

/// First uid after systemd's range for containers (UIDS-GIDS.md).
const UID_END: u64 = 0x7000_0000;
/// Lowest `uid_base`. Uids below belong to people and to sub-uid ranges.
const UID_MIN: u32 = 0x0008_0000;
/// Default `uid_base`: above the usual sub-uid ranges, with 24,000 places below [`UID_END`].
const UID_BASE: u32 = 0x1000_0000;

pub(super) fn network(mut section: Section<'_>) -> Option<Network> {
    let block: Option<Ipv4Block> = section.required("block", "\"10.200.0.0/16\"", Section::parsed);
    if let Some(block) = block {
        let is_private = [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
        ]
        .iter()
        .filter_map(|range| range.parse::<Ipv4Block>().ok())
        .any(|range| range.contains(block.address(0)) && range.size() >= block.size());
        if !is_private {
            section.wrong(
                "block",
                format!("{block} is not private, so jobs cannot reach the machines that own these addresses"),
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
                "resolv.conf takes one to three nameservers",
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
                    "is loopback, which is the container itself"
                } else if address.is_unspecified()
                    || address.is_multicast()
                    || address.is_broadcast()
                {
                    "is not an address of a host"
                } else if block.is_some_and(|block| block.contains(address)) {
                    "is in network.block, the addresses of containers"
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

/// Checks that the places of pools do not overlap, and that each has addresses and uids.
pub(super) fn check_places(top: &Section<'_>, network: &Network, pools: &[PoolConfig]) {
    let mut by_offset: Vec<&PoolConfig> = pools.iter().collect();
    by_offset.sort_by_key(|pool| (pool.offset, &pool.name));
    let mut free = 0;
    for pool in by_offset {
        let key = format!("pools.{}", pool.name);
        if pool.offset < free {
            top.wrong(
                &format!("{key}.offset"),
                format!("another pool has places from {} on", pool.offset),
                format!("offset = {free} or more, if no other pool has places there"),
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
                format!("its uids go beyond {UID_END}, the end of the range for containers"),
                format!("a lower network.uid_base (default {UID_BASE}), a lower offset, or fewer runners"),
            );
        }
    }
}
