//! Tables of the kernel's network that all network namespaces of a host share.
//!
//! The kernel has neither a maximum for a user nor one for a namespace. Sockets and their buffers are memory of
//! the container, so the host-wide maxima are above what the memory of all runners can hold. An entry of the
//! neighbour table is not, so a job that makes network namespaces can take all of them.

use std::ops::RangeInclusive;

use super::model::Config;
use super::tables::memory_bytes;

/// Smallest memory of a TCP socket (`TCP` in `slabtop`).
const SOCKET_BYTES: u64 = 2048;
/// Orphaned sockets of the host: the kernel's default on a host with 8 GiB of memory.
const HOST_ORPHANS: u64 = 1 << 15;
/// Smallest page. The kernel counts buffers of sockets in pages.
const PAGE_BYTES: u64 = 4096;
/// Pages of the host's buffers: 8 GiB. The kernel's default for TCP is a tenth of the memory, and for UDP a fifth.
const HOST_PAGES: u64 = (8 << 30) / PAGE_BYTES;
/// The kernel's default maximum of neighbours, which stays the host's.
const HOST_NEIGHBOURS: u64 = 1024;
/// Neighbours of a runner. Its link has permanent entries, which do not count. Networks of Docker have others.
const NEIGHBOURS: u64 = 128;
/// Maximum that the kernel accepts for a number of sockets.
const KERNEL_MAXIMUM: u64 = i32::MAX as u64;

/// Returns the kernel's settings for these tables, each with its value.
#[must_use]
pub fn network_settings(config: &Config) -> [(&'static str, String); 6] {
    let memory = memory_bytes(config);
    let orphans = (HOST_ORPHANS + memory / SOCKET_BYTES).min(KERNEL_MAXIMUM);
    // The kernel's three numbers are as 3 to 4 to 6 (`tcp_init_mem` in net/ipv4/tcp.c). Above the second, sockets
    // of all containers have smaller buffers.
    let of_runners = memory / PAGE_BYTES;
    let [low, pressure, high] = [3, 4, 6].map(|part| of_runners + HOST_PAGES * part / 6);
    let buffers = format!("{low} {pressure} {high}");
    let neighbours = HOST_NEIGHBOURS + NEIGHBOURS * config.slots_count();
    [
        ("net.ipv4.tcp_max_orphans", orphans.to_string()),
        ("net.ipv4.tcp_mem", buffers.clone()),
        ("net.ipv4.udp_mem", buffers),
        // Above this number, the kernel removes entries that are older than five seconds.
        (
            "net.ipv4.neigh.default.gc_thresh2",
            (neighbours / 2).to_string(),
        ),
        ("net.ipv4.neigh.default.gc_thresh3", neighbours.to_string()),
        (
            "net.ipv4.ipfrag_high_thresh",
            Fragments::host_maximum_bytes(config).to_string(),
        ),
    ]
}

/// Fragments of packets that runners send.
///
/// The host collects the fragments of a packet before its rules see the packet. Fragments whose packet never
/// becomes complete take the host's memory for half a minute (`net.ipv4.ipfrag_time`), and without memory the host
/// drops the fragments of all others. Our rules bound each slot, and the memory has room for all slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragments;

impl Fragments {
    /// Maximum number of fragments at once.
    pub const BURST: u32 = 512;
    /// Maximum number of fragments in each second after a burst.
    pub const PER_SECOND: u32 = 64;
    /// Seconds for which the kernel waits for the rest of a packet.
    const SECONDS: u32 = 30;
    /// Largest memory of a fragment, which is not longer than the link's 1500 bytes.
    const BYTES: u64 = 4096;
    /// The kernel's default, which stays the host's.
    const HOST_BYTES: u64 = 4 << 20;

    /// Returns the host-wide maximum of their memory.
    #[must_use]
    pub fn host_maximum_bytes(config: &Config) -> u64 {
        let of_slot = u64::from(Self::BURST + Self::PER_SECOND * Self::SECONDS) * Self::BYTES;
        Self::HOST_BYTES + of_slot * config.slots_count()
    }
}

/// Ports of the host's address for connections of runners.
///
/// A connection needs a port that no other connection to the same address and port has. Each slot has its range,
/// so a runner cannot take those of another. The kernel gives a port again when its connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePorts;

impl SourcePorts {
    /// First port that the kernel gives to a connection whose port is taken (`nf_nat_l4proto_unique_tuple`).
    const FIRST: u16 = 1024;
    /// Number of ports for all slots. The last 4536 stay free: the kernel gives them to the host's connections
    /// whose port a runner has.
    const ALL: u16 = 61_000 - Self::FIRST;

    /// Returns the range of one of `slots` slots, of which the first has the number 0.
    #[must_use]
    pub fn of(number: usize, slots: usize) -> RangeInclusive<u16> {
        let slots = u16::try_from(slots).unwrap_or(u16::MAX).max(1);
        let size = (Self::ALL / slots).max(1);
        // With more slots than ports, several share one.
        let places = usize::from(Self::ALL / size);
        let place = u16::try_from(number % places).unwrap_or_default();
        let first = Self::FIRST + place * size;
        first..=first + (size - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, testing};

    #[test]
    fn sockets_end_with_the_memory_of_all_runners() {
        let mut config = testing::config();
        config.pools.truncate(1);
        config.pools[0].max_runners = 60;
        config.pools[0].limits.memory = ByteSize(4 << 30);
        let settings = network_settings(&config);
        let values = settings.each_ref().map(|(_, value)| value.as_str());
        assert_eq!(
            values,
            [
                "125861888",
                "63963136 64312661 65011712",
                "63963136 64312661 65011712",
                "4352",
                "8704",
                "601882624"
            ]
        );
        config.pools[0].limits.memory = ByteSize(1 << 40);
        assert_eq!(network_settings(&config)[0].1, KERNEL_MAXIMUM.to_string());
    }

    #[test]
    fn ranges_of_ports_are_apart_and_leave_some_to_the_host() {
        for slots in [1, 2, 7, 60, 500, 16_384] {
            let ranges: Vec<_> = (0..slots)
                .map(|number| SourcePorts::of(number, slots))
                .collect();
            assert_eq!(*ranges[0].start(), 1024);
            assert!(ranges.iter().all(|range| range.start() <= range.end()));
            assert!(ranges.is_sorted_by(|one, next| one.end() < next.start()));
            assert!(*ranges[slots - 1].end() < 61_000);
        }
        assert_eq!(SourcePorts::of(0, 60), 1024..=2022);
        assert_eq!(SourcePorts::of(59_976, 59_977), 1024..=1024);
    }
}
