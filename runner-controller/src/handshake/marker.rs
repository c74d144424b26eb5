//! The exchange with one runner, in a memfd that outlives the daemon.
//!
//! The file is in systemd's file descriptor store beside the sockets, so it exists exactly as long as they
//! do. It is written before the answer is sent: a daemon that is killed between the two leaves "answered"
//! behind, so no runner is ever answered twice.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::note::MAX_LINE;

/// Size of the file. It is written with one call and within one page, so it is never seen half-written.
const SIZE: usize = 1024;

/// Identity of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) device: u64,
    pub(super) number: u64,
}

/// Answer to a runner: its config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The runner may be answered once.
    Due,
    /// The runner was answered, is being answered, or this is unknown.
    Given,
}

/// State of the exchange with one runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) answer: Answer,
    /// Socket file of the listener when it was bound.
    pub(super) listener: Option<Inode>,
    /// Line that the job wrote, raw.
    pub(super) line: Option<Vec<u8>>,
}

impl Exchange {
    /// Safe assumption without a marker.
    pub(super) const UNKNOWN: Self = Self {
        answer: Answer::Given,
        listener: None,
        line: None,
    };

    /// Returns the exchange with a runner that is about to start.
    pub(super) fn new(listener: Inode) -> Self {
        Self {
            answer: Answer::Due,
            listener: Some(listener),
            line: None,
        }
    }

    fn encode(&self) -> [u8; SIZE] {
        let answer = match self.answer {
            Answer::Due => "due",
            Answer::Given => "given",
        };
        let (device, number) = self
            .listener
            .map_or((0, 0), |inode| (inode.device, inode.number));
        let (told, line) = match &self.line {
            Some(line) => ("told", line.as_slice()),
            None => ("silent", [].as_slice()),
        };
        let line = &line[..line.len().min(MAX_LINE)];
        let head = format!("v1 {answer} {device} {number} {told} {}\n", line.len());
        let mut bytes = [0; SIZE];
        bytes[..head.len()].copy_from_slice(head.as_bytes());
        bytes[head.len()..head.len() + line.len()].copy_from_slice(line);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let fields: Vec<&str> = head.split(' ').collect();
        let ["v1", answer, device, number, told, length] = fields[..] else {
            return None;
        };
        let inode = Inode {
            device: device.parse().ok()?,
            number: number.parse().ok()?,
        };
        let length: usize = length.parse().ok()?;
        let line = bytes[end + 1..].get(..length)?;
        Some(Self {
            answer: match answer {
                "due" => Answer::Due,
                "given" => Answer::Given,
                _ => return None,
            },
            listener: (inode.number != 0).then_some(inode),
            line: (told == "told").then(|| line.to_vec()),
        })
    }
}

/// File that holds an [`Exchange`].
#[derive(Debug)]
pub(super) struct Marker(File);

impl Marker {
    /// Creates an empty file; [`Marker::write`] fills it.
    pub(super) fn create() -> io::Result<Self> {
        let fd = memfd_create("jit-exchange", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self(File::from(fd)))
    }

    /// Reads a file that systemd stored.
    pub(super) fn restored(fd: OwnedFd) -> io::Result<(Self, Exchange)> {
        let file = File::from(fd);
        let mut bytes = [0; SIZE];
        file.read_exact_at(&mut bytes, 0)?;
        Ok((
            Self(file),
            Exchange::decode(&bytes).unwrap_or(Exchange::UNKNOWN),
        ))
    }

    pub(super) fn write(&self, exchange: &Exchange) -> io::Result<()> {
        self.0.write_all_at(&exchange.encode(), 0)
    }
}

impl AsFd for Marker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Checks that an exchange reads back as it was written.
#[cfg(any(test, fuzzing))]
pub(super) fn try_bytes(bytes: &[u8]) {
    if let Some(exchange) = Exchange::decode(bytes) {
        assert_eq!(Exchange::decode(&exchange.encode()), Some(exchange));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LISTENER: Inode = Inode {
        device: 27,
        number: 4711,
    };

    #[test]
    fn an_exchange_reads_back_as_it_was_written() {
        let marker = Marker::create().unwrap();
        let mut exchange = Exchange::new(LISTENER);
        exchange.line = Some(vec![b'x'; MAX_LINE]);
        marker.write(&exchange).unwrap();
        exchange.answer = Answer::Given;
        exchange.line = Some(b"v1\tshorter".to_vec());
        marker.write(&exchange).unwrap();

        let copy = marker.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(Marker::restored(copy).unwrap().1, exchange);
    }

    #[test]
    fn an_unwritten_file_is_not_a_marker() {
        let marker = Marker::create().unwrap();
        assert!(Marker::restored(marker.as_fd().try_clone_to_owned().unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn any_content_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..SIZE)) {
            try_bytes(&bytes);
            try_bytes(&[b"v1 due 1 2 told ".as_slice(), &bytes].concat());
        }
    }
}
