//! Names of pools, slots, hosts and runners.
//!
//! All parsers are strict, because the names come back from units, from GitHub's list and from
//! directories, and root acts on some of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Error of a parser of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName {
    /// The text that is not such a name.
    pub given: String,
    /// The rule that it breaks, as a sentence for its author.
    pub rule: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.given, self.rule)
    }
}

impl std::error::Error for InvalidName {}

/// Name of a pool: `[a-z][a-z0-9]{0,7}`.
///
/// A name has no dash, because a dash nests slices (`runners-a-b.slice` lies in `runners-a.slice`) and
/// would make `a-1-2` ambiguous. It has at most eight characters, so that `rc-<pool>-<slot>` fits the
/// name of an interface (15 bytes: IFNAMSIZ in net/if.h counts the NUL).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PoolName(String);

impl PoolName {
    /// Maximum length in characters.
    pub const MAX_LEN: usize = 8;

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PoolName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut bytes = text.bytes();
        let is_valid = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && text.len() <= Self::MAX_LEN;
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName {
                given: text.to_owned(),
                rule: "a pool is named with 1 to 8 of a-z and 0-9, beginning with a letter, without dashes",
            })
        }
    }
}

impl From<PoolName> for String {
    fn from(pool: PoolName) -> Self {
        pool.0
    }
}

impl TryFrom<String> for PoolName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A numbered place of a pool, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// Highest number: three digits, so that it fits the name of an interface.
    pub const MAX: u16 = 999;

    /// Returns the slot with this number, if the number is valid.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&number).then_some(Self(number))
    }

    /// Returns slots 1 to `count` in order, at most to [`Slot::MAX`].
    pub fn first(count: u16) -> impl DoubleEndedIterator<Item = Self> {
        (1..=count.min(Self::MAX)).map(Self)
    }

    /// Returns the number, from 1.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl FromStr for Slot {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let digits =
            !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
        // `007` and `7` would be two unit names for one slot, and the second would pass a polkit rule
        // that names the first.
        let canonical = !text.starts_with('0');
        let number = if digits && canonical {
            text.parse().ok()
        } else {
            None
        };
        number.and_then(Self::new).ok_or_else(|| InvalidName {
            given: text.to_owned(),
            rule: "a slot is a number from 1 to 999 without leading zeros",
        })
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A slot of a pool, such as `ci-3`. Machine, socket directory and `FDNAME` have the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SlotId {
    /// Its pool.
    pub pool: PoolName,
    /// Its number in the pool.
    pub slot: Slot,
}

impl SlotId {
    /// Returns the name of its unit, such as `runner-ci@3.service`.
    #[must_use]
    pub fn unit(&self) -> String {
        format!("runner-{}@{}.service", self.pool, self.slot)
    }

    /// Returns the slot of a unit, or `None` unless the name is exactly a slot's.
    #[must_use]
    pub fn from_unit(unit: &str) -> Option<Self> {
        let (pool, slot) = unit
            .strip_prefix("runner-")?
            .strip_suffix(".service")?
            .split_once('@')?;
        Some(Self {
            pool: pool.parse().ok()?,
            slot: slot.parse().ok()?,
        })
    }
}

impl FromStr for SlotId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (pool, slot) = text.split_once('-').ok_or_else(|| InvalidName {
            given: text.to_owned(),
            rule: "a slot is written as its pool, a dash and its number, such as ci-3",
        })?;
        Ok(Self {
            pool: pool.parse()?,
            slot: slot.parse()?,
        })
    }
}

impl From<SlotId> for String {
    fn from(slot: SlotId) -> Self {
        slot.to_string()
    }
}

impl TryFrom<String> for SlotId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pool, self.slot)
    }
}

/// Prefix of the names of a host's runners: `[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(String);

impl HostId {
    /// Maximum length in characters. GitHub accepts names of runners up to 64.
    pub const MAX_LEN: usize = 32;

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let is_valid = !text.is_empty()
            && text.len() <= Self::MAX_LEN
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName {
                given: text.to_owned(),
                rule: "a host id is 1 to 32 of a-z, 0-9 and dash, with no dash at either end",
            })
        }
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a runner at GitHub, `<host>-<pool>-<slot>-<random>`. Every mint has a new random part.
///
/// A mint is not idempotent: a name that was sent once may be taken although no answer came. So no
/// name is ever sent twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunnerName {
    /// The host that the runner is on.
    pub host: HostId,
    /// The slot that the runner is in.
    pub slot: SlotId,
    random: String,
}

impl RunnerName {
    /// Length of the random part in characters: 32 bits as hexadecimal digits.
    pub const RANDOM_LEN: usize = 8;

    /// Returns the name for one mint. No earlier mint of the slot may have used `random`.
    #[must_use]
    pub fn new(host: HostId, slot: SlotId, random: u32) -> Self {
        Self {
            host,
            slot,
            random: format!("{random:08x}"),
        }
    }

    /// Parses a name from GitHub's list; `None` unless it is a name of `host`.
    ///
    /// The rest before the slot must equal the host id exactly, because host `fuzz` must not own the
    /// runners of `fuzz-a`.
    #[must_use]
    pub fn parse(host: &HostId, text: &str) -> Option<Self> {
        Self::of_any_host(text).filter(|name| name.host == *host)
    }

    /// Parses a name from GitHub's list; `None` unless it can be a name of a host of this program.
    #[must_use]
    pub fn of_any_host(text: &str) -> Option<Self> {
        let mut parts = text.rsplitn(4, '-');
        let random = parts.next()?;
        let slot = parts.next()?.parse().ok()?;
        let pool = parts.next()?.parse().ok()?;
        let host = parts.next()?.parse().ok()?;
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_valid = random.len() == Self::RANDOM_LEN && random.bytes().all(is_hex);
        is_valid.then(|| Self {
            host,
            slot: SlotId { pool, slot },
            random: random.to_owned(),
        })
    }
}

impl fmt::Display for RunnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.host, self.slot, self.random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostId {
        text.parse().unwrap()
    }

    #[test]
    fn a_pool_name_has_no_dash_and_at_most_eight_characters() {
        for good in ["c", "ci", "a1234567"] {
            assert_eq!(good.parse::<PoolName>().unwrap().as_str(), good);
        }
        for bad in ["", "1a", "a-b", "Ci", "a12345678", "ä", "a b", "a_b"] {
            assert!(bad.parse::<PoolName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slot_has_one_spelling() {
        assert_eq!("999".parse::<Slot>().unwrap().number(), 999);
        for bad in ["0", "007", "1000", "-1", "+1", "1 ", "", "٣"] {
            assert!(bad.parse::<Slot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_unit_belongs_to_a_slot_only_if_every_part_is_valid() {
        let slot: SlotId = "ci-3".parse().unwrap();
        assert_eq!(SlotId::from_unit(&slot.unit()), Some(slot));
        for other in [
            "runner-ci@03.service",
            "runner-ci@3.socket",
            "runner-ci.service",
            "xrunner-ci@3.service",
            "runner-@3.service",
        ] {
            assert_eq!(SlotId::from_unit(other), None, "{other}");
        }
    }

    #[test]
    fn a_runner_belongs_to_its_exact_host() {
        let name = RunnerName::new(host("fuzz-a"), "ci-3".parse().unwrap(), 0xbeef);
        assert_eq!(name.to_string(), "fuzz-a-ci-3-0000beef");
        assert_eq!(
            RunnerName::parse(&host("fuzz-a"), "fuzz-a-ci-3-0000beef"),
            Some(name)
        );
        assert_eq!(
            RunnerName::parse(&host("fuzz"), "fuzz-a-ci-3-0000beef"),
            None
        );
        assert_eq!(RunnerName::parse(&host("a"), "fuzz-a-ci-3-0000beef"), None);
        assert_eq!(
            RunnerName::parse(&host("fuzz-a"), "fuzz-a-ci-3-0000BEEF"),
            None
        );
        assert_eq!(
            RunnerName::parse(&host("fuzz-a"), "fuzz-a-ci-03-0000beef"),
            None
        );
    }

    #[test]
    fn the_longest_name_of_a_runner_fits_the_64_characters_of_github() {
        let slot = SlotId {
            pool: "a1234567".parse().unwrap(),
            slot: Slot::new(Slot::MAX).unwrap(),
        };
        let name = RunnerName::new(host(&"h".repeat(HostId::MAX_LEN)), slot, u32::MAX);
        assert!(name.to_string().len() <= 64);
    }

    #[test]
    fn only_names_of_this_program_count_as_its_runners() {
        assert!(RunnerName::of_any_host("host-01-ci-3-0a1b2c3d").is_some());
        for name in [
            "ci-3-0a1b2c3d",
            "host-ci-3-0a1b2c3",
            "host-ci-x-0a1b2c3d",
            "laptop",
        ] {
            assert!(RunnerName::of_any_host(name).is_none(), "{name}");
        }
    }
}
