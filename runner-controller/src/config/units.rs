//! Values with their unit: `"6 GiB"`, `1.5` cores, `10.200.0.0/16`.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A number of bytes, written with its unit: `"512 MiB"`, `"6 GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err("a size needs a unit".into());
        }
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytesize::ByteSize(self.0).display().iec().fmt(f)
    }
}

/// Share of processor time, in thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Cpu {
    /// Thousandths of a core; 1,000 is one core.
    pub millicores: u32,
}

impl Cpu {
    /// Returns the value for systemd's `CPUQuota=`: `150%` is one and a half cores.
    #[must_use]
    pub fn quota(self) -> String {
        format!("{}%", self.millicores.div_ceil(10))
    }

    /// Returns the microseconds of [`Cpu::quota`] in each tenth of a second, which is the kernel's period
    /// unless a unit sets another.
    #[must_use]
    pub fn quota_us(self) -> u64 {
        u64::from(self.millicores.div_ceil(10)) * 1000
    }
}

/// A block of IPv4 addresses with its prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Block {
    first: u32,
    prefix: u8,
}

impl Ipv4Block {
    /// Returns the address at this offset, which must be below [`Ipv4Block::size`].
    #[must_use]
    pub fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.wrapping_add(offset))
    }

    /// Returns the number of addresses.
    #[must_use]
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// Returns true if the address is in the block.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u64::from(address.to_bits().wrapping_sub(self.first)) < self.size()
    }
}

impl Ipv4Block {
    /// Returns the block of one address.
    #[must_use]
    pub fn single(address: Ipv4Addr) -> Self {
        Self {
            first: address.to_bits(),
            prefix: 32,
        }
    }

    /// Returns the block with this prefix length, at most 32, that begins at the address.
    #[must_use]
    pub(super) fn of(first: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self {
            first: first.to_bits(),
            prefix,
        })
    }

    /// Returns true for a block of one address.
    #[must_use]
    pub fn is_single(self) -> bool {
        self.prefix == 32
    }

    /// Returns true if the blocks have an address in common. The one with the longer prefix is then part
    /// of the other.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(Ipv4Addr::from_bits(other.first))
            || other.contains(Ipv4Addr::from_bits(self.first))
    }

    /// Parses `ADDRESS/PREFIX` with a prefix length in this range.
    pub(super) fn parse(text: &str, prefixes: RangeInclusive<u8>) -> Result<Self, String> {
        let (address, prefix) = text
            .split_once('/')
            .ok_or("it does not have a prefix length")?;
        let address: Ipv4Addr = address
            .parse()
            .map_err(|_| "its address is not IPv4".to_owned())?;
        let prefix = plain(prefix)
            .filter(|prefix| prefixes.contains(prefix))
            .ok_or_else(|| {
                let (least, most) = (prefixes.start(), prefixes.end());
                format!("its prefix length is not a number from {least} to {most}")
            })?;
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix))
            .unwrap_or_default();
        let first = address.to_bits();
        if first & !mask != 0 {
            return Err(format!(
                "its address has bits below the prefix; the block begins at {}",
                Ipv4Addr::from_bits(first & mask)
            ));
        }
        Ok(Self { first, prefix })
    }
}

/// Parses a number without a sign and without leading zeros, which other programs read as octal.
pub(super) fn plain<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    let number: Option<T> = text.parse().ok();
    number.filter(|number| number.to_string() == text)
}

impl FromStr for Ipv4Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, 8..=30)
    }
}

impl fmt::Display for Ipv4Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.first), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_accepted_only_in_the_form_in_which_it_is_shown() {
        for text in ["10.0.0.0/8", "10.200.0.0/16", "11.200.0.0/30"] {
            assert_eq!(text.parse::<Ipv4Block>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("11.200.0.0/+16", "not a number from 8 to 30"),
            ("11.200.0.0/016", "not a number"),
            ("11.200.0.0/ 16", "not a number"),
            ("11.200.0.0/-1", "not a number"),
            ("11.200.0.0/", "not a number"),
            ("11.200.0.0/31", "not a number"),
            ("11.200.0.0/272", "not a number"),
            ("11.200.0.0", "not have a prefix length"),
            ("011.200.0.0/16", "not IPv4"),
            ("11.200.0.1/16", "the block begins at 11.200.0.0"),
        ] {
            let error = text.parse::<Ipv4Block>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
