//! The generation of the kernel's rules, and the flags of our table: enough to know that nothing has changed since
//! the last comparison.
//!
//! The kernel counts every change of any table in a network namespace (`NFTA_GEN_ID`, `nft_base_seq` in
//! `nf_tables_api.c`), whichever program makes it. It does not count that the owner of a table ends.

use std::fmt;
use std::io;

use netlink_packet_netfilter::nftables::{
    GenAttribute, GenMessage, NfTablesMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use rtnetlink::packet_core::NLM_F_ACK;
use rtnetlink::sys::Socket;

use super::{TABLE, netfilter};

/// The rules of the host, as far as two readings tell whether they changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ruleset {
    generation: u32,
    flags: TableFlags,
}

impl Ruleset {
    /// Asks the kernel. Fails if our table is missing.
    pub(super) fn read() -> io::Result<Self> {
        let socket = netfilter::open()?;
        let request = NfTablesMessage::GetGen(GenMessage { attributes: vec![] });
        let generation = ask(&socket, NetfilterProtoFamily::Unspec, request, |answer| {
            let NfTablesMessage::NewGen(GenMessage { attributes }) = answer else {
                return None;
            };
            attributes.into_iter().find_map(|attribute| {
                if let GenAttribute::Id(generation) = attribute {
                    Some(generation)
                } else {
                    None
                }
            })
        })?;
        let name = vec![TableAttribute::Name(TABLE.to_owned())];
        let table = NfTablesMessage::GetTable(TableMessage { attributes: name });
        let flags = ask(&socket, NetfilterProtoFamily::Inet, table, |answer| {
            let NfTablesMessage::NewTable(TableMessage { attributes }) = answer else {
                return None;
            };
            attributes.into_iter().find_map(|attribute| {
                if let TableAttribute::Flags(flags) = attribute {
                    Some(flags)
                } else {
                    None
                }
            })
        })?;
        Ok(Self { generation, flags })
    }

    /// Returns true if our table has an owner, and works.
    pub(super) fn is_owned(self) -> bool {
        self.flags == TableFlags::Owner | TableFlags::Persisent
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "generation {} flags {:x}",
            self.generation,
            self.flags.bits()
        )
    }
}

/// Sends a request, and returns what `find` finds in its answer.
fn ask<T>(
    socket: &Socket,
    family: NetfilterProtoFamily,
    request: NfTablesMessage,
    find: impl Fn(NfTablesMessage) -> Option<T>,
) -> io::Result<T> {
    let message = NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), request);
    netfilter::send(socket, NLM_F_ACK, message)?;
    let mut found = None;
    netfilter::for_each_answer(socket, |answer| {
        if let NetfilterMessageInner::NfTables(answer) = answer {
            found = find(answer).or(found.take());
        }
        Ok(())
    })?;
    found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
