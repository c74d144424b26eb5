//! Where a pool's jobs may go: `egress` and `allow`.

use std::fmt;
use std::str::FromStr;

use super::Ipv4Block;
use super::units::plain;

/// How far a pool's jobs get, besides what its `allow` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// To every public address, and to the resolvers for DNS.
    #[default]
    Internet,
    /// To the resolvers for DNS.
    Listed,
    /// Nowhere; not to the resolvers either, so that no name can carry anything out.
    None,
}

impl Egress {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internet => "internet",
            Self::Listed => "listed",
            Self::None => "none",
        }
    }

    /// True if jobs may ask the resolvers.
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
            .ok_or_else(|| "it is none of internet, listed, none".into())
    }
}

/// What a port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As it is written, here and in nftables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One entry of `allow`: `10.0.0.5:443`, `192.168.7.0/24:3128/tcp`, `10.1.2.3:53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allow {
    /// The addresses.
    pub to: Ipv4Block,
    /// The port, never 0.
    pub port: u16,
    /// The port's protocol.
    pub protocol: Protocol,
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addresses, port) = text.split_once(':').ok_or("it has no port")?;
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
            port: port.ok_or("its port is no plain number from 1 to 65535")?,
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
    fn an_entry_is_read_and_shown() {
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
    fn what_is_no_entry_is_refused_with_a_reason() {
        for (text, why) in [
            ("10.0.0.5", "no port"),
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
            ("", "no port"),
        ] {
            let error = text.parse::<Allow>().unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
