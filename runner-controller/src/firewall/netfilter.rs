//! Requests to the kernel's netfilter over netlink, for which nft would be a whole program to start.

use std::io;

use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner};
use rtnetlink::packet_core::{
    NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

/// Largest part of an answer; the kernel sends at most 32 KiB at once.
const PART_BYTES: usize = 64 << 10;

/// Opens a connection to the kernel's netfilter. Its answers need `CAP_NET_ADMIN`.
pub(crate) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a request with these flags.
pub(crate) fn send(
    socket: &Socket,
    flags: u16,
    message: impl NetlinkSerializable,
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// Calls `each` for every message of the answer to a request, which ends with an acknowledgement or with the end of a dump.
pub(crate) fn for_each_answer(
    socket: &Socket,
    mut each: impl FnMut(NetfilterMessageInner) -> io::Result<()>,
) -> io::Result<()> {
    let mut part = vec![0; PART_BYTES];
    loop {
        let size = socket.recv(&mut &mut part[..], 0)?;
        let mut rest = part.get(..size).unwrap_or_default();
        while !rest.is_empty() {
            let packet: NetlinkMessage<NetfilterMessage> =
                NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            // Messages begin at multiples of four bytes.
            let length = (packet.header.length as usize).next_multiple_of(4);
            if let NetlinkPayload::InnerMessage(message) = packet.payload {
                each(message.inner)?;
            } else if let NetlinkPayload::Error(error) = packet.payload {
                return error.code.map_or(Ok(()), |_| Err(error.to_io()));
            } else if let NetlinkPayload::Done(done) = packet.payload {
                return match done.code {
                    0 => Ok(()),
                    code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
                };
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
