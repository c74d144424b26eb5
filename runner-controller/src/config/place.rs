//! Where a slot lives on the host. Everything is computed from its number and nothing is allocated,
//! so nothing can be leaked or fought over, and what a slot left behind is found by number alone.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::{Config, PoolConfig};
use crate::pool::{Slot, SlotId};

/// A slot with the configuration it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The pool.
    pub pool: &'a PoolConfig,
    /// The slot.
    pub slot: Slot,
}

impl<'a> Place<'a> {
    pub(super) fn new(config: &'a Config, pool: &'a PoolConfig, slot: Slot) -> Self {
        Self { config, pool, slot }
    }

    /// Uids per container: nspawn and sub-uid ranges come in 2^16.
    pub const UIDS: u32 = 65_536;
    /// Addresses per place: a /30 (network, host side, container side, broadcast).
    pub const ADDRESSES: u32 = 4;

    /// The slot's name, which is also its machine's.
    #[must_use]
    pub fn id(&self) -> SlotId {
        SlotId {
            pool: self.pool.name.clone(),
            slot: self.slot,
        }
    }

    /// Its number among all places of the host, from 0.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.pool.offset + u32::from(self.slot.number()) - 1
    }

    /// The host uid that is root in its container; the range is [`Place::UIDS`] long.
    #[must_use]
    pub fn uid_first(&self) -> u32 {
        self.config.network.uid_base + self.number() * Self::UIDS
    }

    /// Host-side name of its veth, at most 15 bytes.
    ///
    /// Named for the slot: a runner's name rarely fits an interface name, a slot's always does. Not
    /// `ve-…`, which networkd's stock `80-container-ve.network` would claim.
    #[must_use]
    pub fn veth(&self) -> String {
        format!("rc-{}", self.id())
    }

    /// Its gateway: the host side's address, /30.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.config
            .network
            .block
            .address(self.number() * Self::ADDRESSES + 1)
    }

    /// The container's address, /30.
    #[must_use]
    pub fn guest_address(&self) -> Ipv4Addr {
        self.config
            .network
            .block
            .address(self.number() * Self::ADDRESSES + 2)
    }

    /// The directory with its two sockets, owned by the daemon, bound into the container.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.config.slots_dir().join(self.id().to_string())
    }

    /// The directory with its life records, owned by root.
    #[must_use]
    pub fn records_dir(&self) -> PathBuf {
        self.config.records_dir().join(self.id().to_string())
    }
}
