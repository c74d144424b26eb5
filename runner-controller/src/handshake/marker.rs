//! What this life of a slot has been given and has said, in a memfd that outlives the daemon.
//!
//! The file lies in systemd's file descriptor store beside the sockets, so it lives exactly as
//! long as they do, and it is written in place: a daemon that is killed between "answered" and the
//! answer leaves "answered" behind, and no life is ever answered twice.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::note::MAX_LINE;

/// The whole file. Written with one call and within one page, so never seen half-written.
const SIZE: usize = 1024;

/// Which file a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    pub(super) device: u64,
    pub(super) number: u64,
}

/// Whether this life has its config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It may be answered once.
    Due,
    /// It was answered, or is being answered, or nobody knows.
    Given,
}

/// What is known of a life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Runner {
    pub(super) answer: Answer,
    /// The listener's path when it was bound.
    pub(super) listener: Option<Inode>,
    /// The line its job wrote, raw.
    pub(super) line: Option<Vec<u8>>,
}

impl Runner {
    /// The safe thing to believe when nothing is known.
    pub(super) const UNKNOWN: Self = Self {
        answer: Answer::Given,
        listener: None,
        line: None,
    };

    /// A life that has just begun.
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

/// The file that holds a [`Runner`].
#[derive(Debug)]
pub(super) struct Marker(File);

impl Marker {
    /// A new file; the first [`Marker::write`] gives it its content.
    pub(super) fn create() -> io::Result<Self> {
        let fd = memfd_create("runner-life", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self(File::from(fd)))
    }

    /// One that systemd kept.
    pub(super) fn restored(fd: OwnedFd) -> io::Result<(Self, Runner)> {
        let file = File::from(fd);
        let mut bytes = [0; SIZE];
        file.read_exact_at(&mut bytes, 0)?;
        Ok((
            Self(file),
            Runner::decode(&bytes).unwrap_or(Runner::UNKNOWN),
        ))
    }

    pub(super) fn write(&self, runner: &Runner) -> io::Result<()> {
        self.0.write_all_at(&runner.encode(), 0)
    }
}

impl AsFd for Marker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What is read is read again as it is written.
#[cfg(any(test, fuzzing))]
pub(super) fn try_bytes(bytes: &[u8]) {
    if let Some(runner) = Runner::decode(bytes) {
        assert_eq!(Runner::decode(&runner.encode()), Some(runner));
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
    fn a_life_is_read_back_as_it_was_written() {
        let marker = Marker::create().unwrap();
        let mut runner = Runner::new(LISTENER);
        runner.line = Some(vec![b'x'; MAX_LINE]);
        marker.write(&runner).unwrap();
        runner.answer = Answer::Given;
        runner.line = Some(b"v1\tshorter".to_vec());
        marker.write(&runner).unwrap();

        let copy = marker.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(Marker::restored(copy).unwrap().1, runner);
    }

    #[test]
    fn an_unwritten_file_is_not_taken_for_a_life() {
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
