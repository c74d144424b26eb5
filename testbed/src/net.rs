//! The test host's surroundings: network namespaces that play the internet and a neighbour's LAN.
//!
//! Neither has a route back to the containers' block, so only traffic that the host masquerades
//! gets an answer; and the LAN and the metadata address do answer the host, so that a container's
//! silence there is a rule's doing.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::TestHost;

/// The host's own address on the internet.
pub const UPLINK: &str = "198.51.100.1";
/// GitHub's.
pub const GITHUB: &str = "198.51.100.7";
/// The resolver's.
pub const RESOLVER: &str = "198.51.100.53";
/// Metadata address of clouds, which no job may reach.
pub const METADATA: &str = "169.254.169.254";
/// A machine on the host's LAN.
pub const NEIGHBOUR: &str = "192.168.77.2";
/// The network namespace that plays the internet.
pub const INTERNET: &str = "internet";
/// The longest request that is read to its end.
const REQUEST_MAX: usize = 4096;
/// The units that make and fill the namespaces.
const UNITS: &[&str] = &[
    "testbed-internet.service",
    "testbed-lan.service",
    "testbed-internet-answers.service",
    "testbed-lan-answers.service",
];

/// A namespace on the other end of a veth.
struct Net {
    name: &'static str,
    link: &'static str,
    host: &'static str,
    /// Addresses inside, with their prefix.
    inside: &'static [&'static str],
    /// Destinations beyond the prefix that the host reaches through it.
    routes: &'static [&'static str],
}

const NETS: &[Net] = &[
    Net {
        name: INTERNET,
        link: "inet0",
        host: "198.51.100.1/24",
        inside: &["198.51.100.7/24", "198.51.100.53/24", "169.254.169.254/32"],
        // Everything else is sent there too, as to any uplink, and gets no answer.
        routes: &["169.254.169.254/32", "default via 198.51.100.7"],
    },
    Net {
        name: "lan",
        link: "lan0",
        host: "192.168.77.1/24",
        inside: &["192.168.77.2/24"],
        routes: &[],
    },
];

impl Net {
    fn unit(&self) -> String {
        let Self {
            name, link, host, ..
        } = self;
        let mut commands = vec![
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("address add {host} dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} link set lo up"),
        ];
        commands.extend(
            self.inside
                .iter()
                .map(|address| format!("-n {name} address add {address} dev eth0")),
        );
        commands.push(format!("-n {name} link set eth0 up"));
        commands.extend(
            self.routes
                .iter()
                .map(|route| format!("route add {route} dev {link}")),
        );
        let mut unit = format!(
            "[Unit]\nDescription=A network that plays the {name}\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        );
        for command in commands {
            // Writing to a String cannot fail.
            writeln!(unit, "ExecStart=ip {command}").ok();
        }
        writeln!(unit, "ExecStop=ip netns delete {name}").ok();
        unit
    }

    fn answers(&self, arguments: &str) -> String {
        let Self { name, .. } = self;
        format!(
            "[Unit]\nDescription=Server in the {name}\nRequires=testbed-{name}.service\n\
             After=testbed-{name}.service\n\n[Service]\nNetworkNamespacePath=/run/netns/{name}\n\
             ExecStart=/usr/local/bin/testbed inner answer {arguments}\n"
        )
    }
}

/// Makes the networks, if they are not there yet.
pub fn bring_up(host: &TestHost) -> Result<()> {
    let dir = "/etc/systemd/system";
    host.install(Path::new("/proc/self/exe"), "/usr/local/bin/testbed", 0o755)?;
    for net in NETS {
        let dns = if net.name == INTERNET {
            format!(" --dns {RESOLVER}:53")
        } else {
            String::new()
        };
        host.write(
            &format!("{dir}/testbed-{}.service", net.name),
            net.unit().as_bytes(),
            0o644,
        )?;
        let answers = net.answers(&format!("--http 0.0.0.0:80{dns}"));
        host.write(
            &format!("{dir}/testbed-{}-answers.service", net.name),
            answers.as_bytes(),
            0o644,
        )?;
    }
    host.run(&["systemctl", "daemon-reload"])?;
    let mut start = vec!["systemctl", "start"];
    start.extend(UNITS);
    host.run(&start).map(drop)
}

/// Tells everybody who connects to `http` from where they seem to come, and resolves every name
/// to GitHub's address on `dns`. Runs until it is killed.
pub fn answer(http: &[SocketAddr], dns: Option<SocketAddr>) -> Result<()> {
    // All or none: a thread that serves already would keep a half-started answerer alive.
    let listeners: Vec<TcpListener> = http
        .iter()
        .map(|address| TcpListener::bind(address).with_context(|| format!("listen on {address}")))
        .collect::<Result<_>>()?;
    let resolver = dns
        .map(|address| UdpSocket::bind(address).with_context(|| format!("listen on {address}")))
        .transpose()?;
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || {
                for stream in listener.incoming().flatten() {
                    greet(stream).ok();
                }
            });
        }
        if let Some(socket) = &resolver {
            scope.spawn(move || {
                let mut buffer = [0; 512];
                while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    if let Some(reply) = resolve(&buffer[..length]) {
                        socket.send_to(&reply, peer).ok();
                    }
                }
            });
        }
    });
    Ok(())
}

fn greet(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let peer = stream.peer_addr()?.ip();
    let body = format!("you are {peer}\n");
    // The request does not matter, but closing with unread bytes would be a reset. A shell may send a
    // request line by line.
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < REQUEST_MAX {
        let mut more = [0; 512];
        match stream.read(&mut more) {
            Ok(0) | Err(_) => break,
            Ok(length) => request.extend_from_slice(&more[..length]),
        }
    }
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

/// Answers one query (RFC 1035 section 4): an A record for any name, nothing for other types.
fn resolve(query: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name_length = {
        let mut at = HEADER;
        while *query.get(at)? != 0 {
            at += usize::from(query[at]) + 1;
        }
        at + 1 - HEADER
    };
    let question = query.get(HEADER..HEADER + name_length + 4)?;
    let is_address = question[name_length..] == [0, 1, 0, 1];
    let mut reply = Vec::with_capacity(64);
    reply.extend_from_slice(query.get(..2)?);
    // Response, recursion desired and available, no error; one question, perhaps one answer.
    reply.extend_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if is_address {
        let address: Ipv4Addr = GITHUB.parse().ok()?;
        // The name by pointer to the question, type A, class IN, 60 seconds, 4 bytes.
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend_from_slice(&address.octets());
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(kind: u8) -> Vec<u8> {
        let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x06github\x04test\x00");
        query.extend_from_slice(&[0, kind, 0, 1]);
        query
    }

    #[test]
    fn every_name_is_githubs_address() {
        let reply = resolve(&query(1)).unwrap();
        assert_eq!(&reply[..2], &[0xab, 0xcd]);
        assert_eq!(&reply[reply.len() - 4..], &[198, 51, 100, 7]);
    }

    #[test]
    fn other_record_types_are_empty_and_a_cut_query_is_ignored() {
        let reply = resolve(&query(28)).unwrap();
        assert_eq!(reply[7], 0);
        assert_eq!(resolve(&query(1)[..20]), None);
    }

    #[test]
    fn nothing_leads_back_to_the_containers() {
        for net in NETS {
            let inside = format!("-n {} route", net.name);
            assert!(!net.unit().contains(&inside), "{}", net.unit());
        }
    }
}
