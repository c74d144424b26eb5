//! Everything on the host that a slot determines: names, addresses, uids and directories.
//!
//! All of it is computed from the slot's number and nothing is allocated. So nothing can leak, two
//! slots never compete, and leftovers of a slot are found by its number.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::model::Config;
use super::pool::PoolConfig;
use crate::pool::{Slot, SlotId};

/// A slot of a configuration.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Configuration of the host.
    pub config: &'a Config,
    /// Pool of the slot.
    pub pool: &'a PoolConfig,
    /// Number of the slot in its pool.
    pub slot: Slot,
}

impl Config {
    /// Returns the place of a slot; `None` if the configuration does not have the slot.
    #[must_use]
    pub fn place(&self, id: &SlotId) -> Option<Place<'_>> {
        let pool = self.pool(&id.pool)?;
        (id.slot.number() <= pool.max_runners).then_some(Place {
            config: self,
            pool,
            slot: id.slot,
        })
    }
}

impl Place<'_> {
    /// Number of uids per container: nspawn and sub-uid ranges come in 2^16.
    pub const UIDS: u32 = 65_536;
    /// Number of addresses per place: a /30 (network, host, container, broadcast).
    pub const ADDRESSES: u32 = 4;

    /// Returns the name of the slot, which is also the name of its machine.
    #[must_use]
    pub fn id(&self) -> SlotId {
        SlotId {
            pool: self.pool.name.clone(),
            slot: self.slot,
        }
    }

    /// Returns the place's number on this host, from 0.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.pool.offset + u32::from(self.slot.number()) - 1
    }

    /// Returns the host uid of root in the container, the first of [`Place::UIDS`].
    #[must_use]
    pub fn uid_first(&self) -> u32 {
        self.config.network.uid_base + self.number() * Self::UIDS
    }

    /// Returns the name of the veth interface on the host, at most 15 bytes.
    #[must_use]
    pub fn veth(&self) -> String {
        Self::veth_of(&self.id())
    }

    /// Returns the name of the veth interface of a slot that may no longer be configured.
    ///
    /// It contains the slot's name, which always fits; a runner's name rarely does. It does not begin
    /// with `ve-`, because networkd's stock file `80-container-ve.network` would claim it.
    #[must_use]
    pub fn veth_of(id: &SlotId) -> String {
        format!("rc-{id}")
    }

    /// Returns the host's address on the link, which is the container's gateway.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.config
            .network
            .block
            .address(self.number() * Self::ADDRESSES + 1)
    }

    /// Returns the container's address on the link.
    #[must_use]
    pub fn guest_address(&self) -> Ipv4Addr {
        self.config
            .network
            .block
            .address(self.number() * Self::ADDRESSES + 2)
    }

    /// Returns the directory of the slot's two sockets, which the daemon owns and the container sees.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.config.slots_dir().join(self.id().to_string())
    }

    /// Returns root's directory for the records of the slot.
    #[must_use]
    pub fn records_dir(&self) -> PathBuf {
        self.config.records_dir().join(self.id().to_string())
    }
}
