//! Entries of the host's connection tracking table, which a container leaves behind.
//!
//! A connection that was never closed keeps its entry for five days (`nf_conntrack_tcp_timeout_established`). The
//! entry counts among the slot's open connections and takes one of the slot's ports. A job can prevent the end of all
//! its connections, for example by taking down its link. Therefore a container begins without entries of earlier ones.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::thread::{self, JoinHandle};

use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, Tuple};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nix::errno::Errno;
use rtnetlink::packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NetlinkSerializable, Nla,
};

use crate::firewall::netfilter;

/// Number of an entry (`CTA_ID`, `nfnetlink_conntrack.h`).
const ID: u16 = 12;
/// Zone of an entry (`CTA_ZONE`).
const ZONE: u16 = 18;
/// Type of the message that asks for entries (`NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET`).
const GET: u16 = 1 << 8 | 1;

/// A deletion that goes on in a thread: the kernel takes milliseconds to look through the whole table.
#[derive(Debug)]
pub(crate) struct Deletion(JoinHandle<io::Result<()>>);

impl Deletion {
    /// Begins to delete the entries of all connections that began at an address. Needs `CAP_NET_ADMIN`.
    pub(crate) fn begin(source: Ipv4Addr) -> Self {
        Self(thread::spawn(move || delete_from(source)))
    }

    /// Waits for the end of the deletion.
    pub(crate) fn finish(self) -> io::Result<()> {
        let panicked = |_| Err(io::Error::other("the thread panicked"));
        self.0.join().unwrap_or_else(panicked)
    }
}

fn delete_from(source: Ipv4Addr) -> io::Result<()> {
    let list = netfilter::open()?;
    let delete = netfilter::open()?;
    netfilter::send(&list, NLM_F_DUMP, ListFrom(source))?;
    netfilter::for_each_answer(&list, |entry| {
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = entry else {
            return Ok(());
        };
        if !is_from(&attributes, source) {
            return Ok(());
        }
        let names = attributes.into_iter().filter(is_name).collect();
        let message = NetfilterMessage::new(header(), ConntrackMessage::Delete(names));
        netfilter::send(&delete, NLM_F_ACK, message)?;
        match netfilter::for_each_answer(&delete, |_| Ok(())) {
            // The entry has expired meanwhile.
            Err(why) if why.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            result => result,
        }
    })
}

/// Request for the entries of connections that began at an address.
struct ListFrom(Ipv4Addr);

impl ListFrom {
    fn tuple(&self) -> ConntrackAttribute {
        let address = IPTuple::SourceAddress(IpAddr::V4(self.0));
        ConntrackAttribute::CtaTupleOrig(vec![Tuple::Ip(vec![address])])
    }
}

impl NetlinkSerializable for ListFrom {
    fn message_type(&self) -> u16 {
        GET
    }

    fn buffer_len(&self) -> usize {
        header().buffer_len() + self.tuple().buffer_len() + Filter.buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        emit_all(&[&header(), &self.tuple(), &Filter], buffer);
    }
}

/// The attribute that says which part of a tuple must match: the source address of the original direction
/// (`CTA_FILTER`, since Linux 5.8).
struct Filter;

impl Filter {
    /// Parts of the original direction: `CTA_FILTER_F_CTA_IP_SRC` of `nf_internals.h`. No part of the reply.
    fn directions() -> [DefaultNla; 2] {
        [(1, 1_u32), (2, 0)].map(|(kind, parts)| DefaultNla::new(kind, parts.to_ne_bytes().into()))
    }
}

impl Nla for Filter {
    fn kind(&self) -> u16 {
        25
    }

    fn is_nested(&self) -> bool {
        true
    }

    fn value_len(&self) -> usize {
        Self::directions().as_slice().buffer_len()
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        Self::directions().as_slice().emit(buffer);
    }
}

/// Writes parts of a message one after the other.
fn emit_all(parts: &[&dyn Emitable], buffer: &mut [u8]) {
    let mut rest = buffer;
    for part in parts {
        let (place, after) = rest.split_at_mut(part.buffer_len());
        part.emit(place);
        rest = after;
    }
}

fn header() -> NetfilterHeader {
    NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0)
}

/// Returns true if a connection began at this address. A kernel without [`Filter`] lists all entries.
fn is_from(attributes: &[ConntrackAttribute], source: Ipv4Addr) -> bool {
    let address = IPTuple::SourceAddress(IpAddr::V4(source));
    attributes.iter().any(|attribute| {
        matches!(attribute, ConntrackAttribute::CtaTupleOrig(parts)
            if parts.iter().any(|part| matches!(part, Tuple::Ip(parts) if parts.contains(&address))))
    })
}

/// Returns true for an attribute by which the kernel finds an entry.
fn is_name(attribute: &ConntrackAttribute) -> bool {
    matches!(attribute, ConntrackAttribute::CtaTupleOrig(_))
        || [ID, ZONE].contains(&attribute.kind())
}
