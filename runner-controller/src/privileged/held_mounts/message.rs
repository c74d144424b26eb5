//! The message from `connect` to the holder: the name of a slot, the mount namespace of its container, and the
//! processes whose end is the container's.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, recvmsg, sendmsg, socket_with,
};

use crate::pool::SlotId;

/// Maximum number of processes in a message. There are five: systemd-nspawn, three programs beside it, and the container's
/// init.
pub(crate) const MAX_PROCESSES: usize = 8;
/// Maximum number of descriptors in a message.
const MAX_DESCRIPTORS: usize = MAX_PROCESSES + 1;
/// Maximum length of a message. A slot's name has 12 bytes at most.
const MAX_BYTES: usize = 32;
/// Timeout for a message after its connection. `connect` sends it at once.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Mounts of a container that has started.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) slot: SlotId,
    pub(super) namespace: OwnedFd,
    /// Processes that use the mounts; at least one.
    pub(super) processes: Vec<OwnedFd>,
}

/// Reason why a message is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("the sender is user {0} and not root")]
    Sender(u32),
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    #[error("it is longer than {MAX_BYTES} bytes, or has more than {MAX_DESCRIPTORS} descriptors")]
    Size,
    #[error("its text is not the name of a slot")]
    Slot,
    #[error("it does not have a descriptor of a namespace and one of a process")]
    Descriptors,
    #[error("its descriptor of a namespace is of {0}")]
    Namespace(String),
    #[error("one of its descriptors of processes is of {0}")]
    Process(String),
}

/// Sends the mounts of a slot's container to the holder's socket. Never waits.
pub(crate) fn send(
    socket: &Path,
    slot: &SlotId,
    namespace: BorrowedFd<'_>,
    processes: &[OwnedFd],
) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let to = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&to, &SocketAddrUnix::new(socket)?)?;
    let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(namespace)
        .chain(processes.iter().map(AsFd::as_fd))
        .collect();
    send_raw(&to, slot.to_string().as_bytes(), &descriptors)
}

fn send_raw(to: &impl AsFd, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2 * MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    sendmsg(to, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads the message of a connection.
pub(super) fn receive(connection: &UnixStream) -> Result<Message, Refused> {
    let sender = getsockopt(connection, sockopt::PeerCredentials).map_err(io::Error::from)?;
    if sender.uid() != 0 {
        return Err(Refused::Sender(sender.uid()));
    }
    connection.set_read_timeout(Some(TIMEOUT))?;
    let mut text = [0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let received = recvmsg(
        connection,
        &mut parts,
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .map_err(io::Error::from)?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = part {
            descriptors.extend(sent);
        }
    }
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    // The kernel's alignment leaves room for one more descriptor.
    if received.flags.intersects(cut) || descriptors.len() > MAX_DESCRIPTORS {
        return Err(Refused::Size);
    }
    parse(text.get(..received.bytes).unwrap_or_default(), descriptors)
}

/// Reads a message from its text and its descriptors.
fn parse(text: &[u8], descriptors: Vec<OwnedFd>) -> Result<Message, Refused> {
    let text = std::str::from_utf8(text).map_err(|_| Refused::Slot)?;
    let slot = text.parse().map_err(|_| Refused::Slot)?;
    let mut descriptors = descriptors.into_iter();
    let namespace = descriptors.next().ok_or(Refused::Descriptors)?;
    let processes: Vec<OwnedFd> = descriptors.collect();
    if processes.is_empty() {
        return Err(Refused::Descriptors);
    }
    // namespaces(7)
    let kind = kind_of(&namespace)?;
    if !kind.starts_with("mnt:[") {
        return Err(Refused::Namespace(kind));
    }
    for process in &processes {
        let kind = kind_of(process)?;
        // Linux 6.9 and later have no other name for it (pidfs_dname in fs/pidfs.c).
        if kind != "anon_inode:[pidfd]" {
            return Err(Refused::Process(kind));
        }
    }
    Ok(Message {
        slot,
        namespace,
        processes,
    })
}

/// Returns the kernel's name of what a descriptor is of: for a file its path, otherwise its kind and number.
fn kind_of(fd: &OwnedFd) -> io::Result<String> {
    let name = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixDatagram;

    use nix::unistd::geteuid;
    use rustix::net::socketpair;
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    fn file(path: &str) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn namespace() -> OwnedFd {
        file("/proc/self/ns/mnt")
    }

    fn process() -> OwnedFd {
        pidfd_open(getpid(), PidfdFlags::empty()).unwrap()
    }

    #[test]
    fn a_message_has_a_slot_a_mount_namespace_and_processes() {
        let message = parse(b"ci-12", vec![namespace(), process(), process()]).unwrap();
        assert_eq!(message.slot.to_string(), "ci-12");
        assert_eq!(message.processes.len(), 2);
    }

    #[test]
    fn a_message_with_other_descriptors_is_refused() {
        let refused = |descriptors| parse(b"ci-1", descriptors).unwrap_err();
        for few in [vec![], vec![namespace()]] {
            assert!(matches!(refused(few), Refused::Descriptors));
        }
        let datagram = || OwnedFd::from(UnixDatagram::unbound().unwrap());
        for other in [
            file("/proc/self/ns/net"),
            file("/proc/self/ns/user"),
            file("/proc/self/ns"),
            file("/"),
            datagram(),
            process(),
        ] {
            let refused = refused(vec![other, process()]);
            assert!(matches!(refused, Refused::Namespace(_)), "{refused}");
        }
        for other in [namespace(), file("/proc/self/stat"), datagram()] {
            let refused = refused(vec![namespace(), process(), other]);
            assert!(matches!(refused, Refused::Process(_)), "{refused}");
        }
        // A file can have any name.
        let dir = tempfile::tempdir().unwrap();
        for name in ["mnt:[1]", "anon_inode:[pidfd]"] {
            let path = dir.path().join(name);
            let named: OwnedFd = File::create(&path).unwrap().into();
            let refused = refused(vec![named, process()]);
            assert!(matches!(refused, Refused::Namespace(_)), "{refused}");
        }
    }

    #[test]
    fn a_message_with_another_text_is_refused() {
        let texts: [&[u8]; 9] = [
            b"", b"ci", b"ci-0", b"ci-01", b"ci-1000", b"../ci-1", b"ci-1\n", b"ci-1\0", b"\xff-1",
        ];
        for text in texts {
            let refused = parse(text, vec![namespace(), process()]).unwrap_err();
            assert!(matches!(refused, Refused::Slot), "{text:?}: {refused}");
        }
    }

    /// Sends a message from this process, and reads it.
    fn received(text: &[u8], descriptors: &[OwnedFd]) -> Result<Message, Refused> {
        let kind = SocketType::SEQPACKET;
        let (from, to) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        send_raw(&from, text, &borrowed).unwrap();
        receive(&UnixStream::from(to))
    }

    #[test]
    fn only_a_whole_message_of_root_is_received() {
        let good = received(b"ci-1", &[namespace(), process()]);
        if !geteuid().is_root() {
            assert!(matches!(good.unwrap_err(), Refused::Sender(_)));
            return;
        }
        assert_eq!(good.unwrap().slot.to_string(), "ci-1");
        let many: Vec<OwnedFd> = (0..2 * MAX_DESCRIPTORS).map(|_| process()).collect();
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for count in [MAX_DESCRIPTORS + 1, 2 * MAX_DESCRIPTORS] {
            let refused = received(b"ci-1", &many[..count]).unwrap_err();
            assert!(matches!(refused, Refused::Size), "{count}: {refused}");
        }
        let long = [b'a'; MAX_BYTES + 1];
        assert!(matches!(
            received(&long, &[namespace(), process()]).unwrap_err(),
            Refused::Size
        ));
        // Descriptors of a refused message do not stay.
        assert!(open() <= before, "{} of {before}", open());
    }

    #[test]
    fn a_connection_without_a_message_is_refused() {
        let (from, to) = UnixStream::pair().unwrap();
        drop(from);
        let refused = receive(&to).unwrap_err();
        let known = matches!(refused, Refused::Slot | Refused::Sender(_));
        assert!(known, "{refused}");
    }

    #[test]
    fn sending_to_a_missing_or_a_full_socket_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mounts.sock");
        let send = || {
            let slot = "ci-1".parse().unwrap();
            send(&path, &slot, namespace().as_fd(), &[process()])
        };
        assert_eq!(send().unwrap_err().kind(), io::ErrorKind::NotFound);
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let listener = socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        assert_eq!(send().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        rustix::net::listen(&listener, 0).unwrap();
        send().unwrap();
        assert_eq!(send().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
