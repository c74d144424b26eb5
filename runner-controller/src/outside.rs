//! Parsers of bytes from outside, for fuzzing.
//!
//! Each is a function of bytes that panics if a parser panics or breaks a promise. The fuzz targets
//! (`fuzz/`) call these functions; `cargo test` calls them with the corpus and with random bytes.
//! They are compiled for nothing else.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a panic is how a check fails"
)]

use std::path::Path;

use crate::config::{self, Place};
use crate::hostfiles;
use crate::pool::{HostId, PoolName, RunnerName, Slot, SlotId};
use crate::status::Status;
use crate::world::Invocation;

/// Function that checks a parser with some bytes.
pub type Parser = fn(&[u8]);

/// All parsers, by the names of their fuzz targets.
pub const PARSERS: [(&str, Parser); 11] = [
    ("api", api),
    ("config", config),
    ("delivery", delivery),
    ("github_answer", github_answer),
    ("github_refusal", github_refusal),
    ("handshake", handshake),
    ("host_listing", host_listing),
    ("names", names),
    ("runner_record", runner_record),
    ("set_message", set_message),
    ("status_text", status_text),
];

/// Checks a request to the API: a line `METHOD PATH`, header lines, an empty line, and the body.
pub fn api(bytes: &[u8]) {
    crate::http::try_request(bytes);
}

/// Checks that an accepted configuration can be rendered to host files without control characters.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(config) = config::parse(Path::new("/etc/config.toml"), text) else {
        return;
    };
    for id in config.slots() {
        let place: Option<Place<'_>> = config.place(&id);
        let place = place.expect("a slot of the configuration has a place");
        assert!(
            place.veth().len() <= 15,
            "the name of an interface has at most 15 bytes"
        );
        assert!(u64::from(place.uid_first()) + u64::from(Place::UIDS) <= 0x7000_0000);
        assert!(config.network.block.contains(place.guest_address()));
    }
    let binary = Path::new("/usr/bin/runner-controller");
    for file in hostfiles::render(&config, binary, Path::new("/etc/config.toml")) {
        let is_control = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!file.text.contains(is_control), "{}", file.path.display());
    }
}

/// Checks a delivery of GitHub's: a line with the event, and the body.
pub fn delivery(bytes: &[u8]) {
    crate::webhook::try_delivery(bytes);
}

/// Checks a message of a scale set.
pub fn set_message(bytes: &[u8]) {
    crate::github::try_message(bytes);
}

/// Checks GitHub's answers to a list, a mint and a query for groups, and a JIT config.
pub fn github_answer(bytes: &[u8]) {
    crate::github::try_answer(bytes);
}

/// Checks GitHub's refusals: a line with the status, header lines, an empty line, and the body.
pub fn github_refusal(bytes: &[u8]) {
    crate::github::try_refusal(bytes);
}

/// Checks the line that a job writes, and descriptors of a slot that systemd stored.
pub fn handshake(bytes: &[u8]) {
    crate::handshake::try_bytes(bytes);
}

/// Checks tables that root reads: of `systemctl`, `nft` and `/proc`.
pub fn host_listing(bytes: &[u8]) {
    crate::privileged::try_listing(&String::from_utf8_lossy(bytes));
}

/// Checks the records that root writes for a slot.
pub fn runner_record(bytes: &[u8]) {
    crate::slot_records::try_record(bytes);
}

/// Checks that accepted names, numbers and tokens are written as they were read.
pub fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let same = |read: Option<String>| {
        if let Some(read) = read {
            assert_eq!(read, text);
            assert!(read.bytes().all(|b| b.is_ascii_graphic()));
        }
    };
    same(text.parse::<PoolName>().ok().map(|name| name.to_string()));
    same(text.parse::<Slot>().ok().map(|slot| slot.to_string()));
    same(text.parse::<SlotId>().ok().map(|slot| slot.to_string()));
    same(text.parse::<HostId>().ok().map(|host| host.to_string()));
    same(SlotId::from_unit(text).map(|slot| slot.unit()));
    same(Invocation::parse(text).map(|invocation| invocation.to_string()));
    same(
        text.parse::<config::Ipv4Block>()
            .ok()
            .map(|block| block.to_string()),
    );
    if let Ok(entry) = text.parse::<config::Allow>() {
        assert_eq!(entry.to_string().parse(), Ok(entry));
    }
    if let Some((host, _)) = text.split_once('-')
        && let Ok(host) = host.parse()
    {
        same(RunnerName::parse(&host, text).map(|name| name.to_string()));
    }
    let _ = text.parse::<config::ByteSize>();
    if let Ok(token) = crate::github::Token::new(text) {
        assert_eq!(format!("{token:?}"), "Token(redacted)");
    }
}

/// Checks that a status becomes terminal text without control characters, and metrics of one line
/// each.
pub fn status_text(bytes: &[u8]) {
    let Ok(status) = serde_json::from_slice::<Status>(bytes) else {
        return;
    };
    crate::commands::try_status(&status);
    crate::http::try_metrics(&status);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    /// Returns the corpus of a parser.
    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(name);
        let listed = fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
        let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    #[test]
    fn every_parser_withstands_its_corpus() {
        for (name, parser) in PARSERS {
            let corpus = corpus(name);
            assert!(corpus.len() >= 3, "{name} has {} files", corpus.len());
            for bytes in corpus {
                parser(&bytes);
            }
        }
    }

    #[test]
    fn every_parser_is_a_fuzz_target() {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
        let mut targets: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                path.file_stem().unwrap().to_str().unwrap().to_owned()
            })
            .collect();
        targets.sort();
        assert_eq!(targets, PARSERS.map(|(name, _)| name));
    }

    /// Returns a strategy for inputs near the corpus: one file cut and followed by another, with a few
    /// bytes overwritten.
    fn near(corpus: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
        let one = proptest::sample::select(corpus.to_vec());
        let two = proptest::sample::select(corpus.to_vec());
        let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
        (one, two, edits, any::<prop::sample::Index>()).prop_map(|(one, two, edits, cut)| {
            let mut bytes = one;
            bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
            bytes.extend(two);
            for (at, byte) in edits {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes
        })
    }

    #[test]
    fn every_parser_withstands_random_bytes_and_variations_of_its_corpus() {
        for (name, parser) in PARSERS {
            let corpus = corpus(name);
            let any_bytes = proptest::collection::vec(any::<u8>(), 0..600);
            let input = prop_oneof![any_bytes, near(&corpus)];
            proptest!(ProptestConfig::with_cases(200), |(bytes in input)| parser(&bytes));
        }
    }
}
