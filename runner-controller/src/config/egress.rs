//! Destinations of a pool's jobs: `egress` and `allow`.

use std::fmt;
use std::str::FromStr;

use super::units::{Ipv4Block, plain};

/// Destinations that jobs can reach, in addition to those in `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// Every public address, and the resolvers for DNS.
    #[default]
    Internet,
    /// The resolvers for DNS.
    Listed,
    /// None. Without the resolvers, a DNS query cannot carry data out either.
    None,
}

impl Egress {
    /// Returns the word in the configuration file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::Listed => "listed",
            Self::None => "none",
        }
    }

    /// Returns true if jobs may query the resolvers.
    #[must_use]
    pub fn has_dns(self) -> bool {
        match self {
            Self::Internet | Self::Listed => true,
            Self::None => false,
        }
    }
}

impl FromStr for Egress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Internet, Self::Listed, Self::None]
            .into_iter()
            .find(|egress| egress.as_str() == text)
            .ok_or_else(|| "it must be internet, listed or none".into())
    }
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns the word in the configuration file and in nftables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// An entry of `allow`: `10.0.0.5:443`, `192.168.7.0/24:3128/tcp`, `10.1.2.3:53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allow {
    /// Addresses that it allows.
    pub to: Ipv4Block,
    /// Port, never 0.
    pub port: u16,
    /// Protocol of the port.
    pub protocol: Protocol,
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addresses, port) = text.split_once(':').ok_or("it does not have a port")?;
        let to = if addresses.contains('/') {
            Ipv4Block::parse(addresses, 8..=32)?
        } else {
            let address = addresses.parse();
            Ipv4Block::single(address.map_err(|_| "its address is not IPv4".to_owned())?)
        };
        let (port, protocol) = match port.split_once('/') {
            None | Some((_, "tcp")) => (port, Protocol::Tcp),
            Some((_, "udp")) => (port, Protocol::Udp),
            Some((_, other)) => return Err(format!("{other:?} is neither tcp nor udp")),
        };
        let port = port.split('/').next().unwrap_or_default();
        let port = plain(port).filter(|port| *port > 0);
        Ok(Self {
            to,
            port: port.ok_or("its port is not a number from 1 to 65535")?,
            protocol,
        })
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, port, protocol } = self;
        write!(f, "{to}:{port}/{}", protocol.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_as_it_is_shown() {
        for (text, shown) in [
            ("10.0.0.5:443", "10.0.0.5/32:443/tcp"),
            ("192.168.7.0/24:3128/tcp", "192.168.7.0/24:3128/tcp"),
            ("10.1.2.3/32:53/udp", "10.1.2.3/32:53/udp"),
        ] {
            let entry: Allow = text.parse().unwrap();
            assert_eq!(entry.to_string(), shown);
            assert_eq!(shown.parse::<Allow>().unwrap(), entry);
        }
    }

    #[test]
    fn a_malformed_entry_is_refused_with_a_reason() {
        for (text, why) in [
            ("10.0.0.5", "not have a port"),
            ("10.0.0.5:0", "from 1 to 65535"),
            ("10.0.0.5:65536", "from 1 to 65535"),
            ("10.0.0.5:+80", "from 1 to 65535"),
            ("10.0.0.5:080", "from 1 to 65535"),
            ("10.0.0.5:80-90", "from 1 to 65535"),
            ("10.0.0.5:443/sctp", "neither tcp nor udp"),
            ("10.0.0.5:443/tcp/udp", "neither tcp nor udp"),
            ("cache.lan:443", "not IPv4"),
            ("[fd00::1]:443", "not IPv4"),
            ("10.0.0.5/24:443", "the block begins at 10.0.0.0"),
            ("0.0.0.0/0:443", "from 8 to 32"),
            ("", "not have a port"),
        ] {
            let error = text.parse::<Allow>().unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
