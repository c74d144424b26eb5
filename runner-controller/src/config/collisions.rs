//! Addresses and uids of the configuration that this host already uses for something else.

use std::fs;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;

use super::mistake::Mistake;
use super::model::Config;
use super::place::Place;
use super::units::Ipv4Block;

/// Beginning of the names of the runners' links.
const OUR_LINKS: &str = "rc-";

/// Host files that give uids and gids to users: the file, and the fields with the first id and the count.
const ID_FILES: [(&str, usize, Option<usize>); 4] = [
    ("/etc/passwd", 2, None),
    ("/etc/group", 2, None),
    ("/etc/subuid", 1, Some(2)),
    ("/etc/subgid", 1, Some(2)),
];

/// Returns the mistakes and the notes about addresses and uids that this host uses already.
pub(super) fn check(config: &Config) -> (Vec<Mistake>, Vec<String>) {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let (mut mistakes, notes) = check_block(config.network.block, &addresses(), &routes);
    for (file, first, count) in ID_FILES {
        let text = fs::read_to_string(file).unwrap_or_default();
        mistakes.extend(check_ids(config, file, &text, first, count));
    }
    (mistakes, notes)
}

/// Returns the addresses of the host's links, without those of runners.
fn addresses() -> Vec<(String, Ipv4Addr)> {
    let links = getifaddrs().into_iter().flatten();
    let foreign = links.filter(|link| !link.interface_name.starts_with(OUR_LINKS));
    let addresses = foreign.filter_map(|link| {
        let address = link.address?.as_sockaddr_in()?.ip();
        Some((link.interface_name, address))
    });
    addresses.collect()
}

/// Returns the routes of `/proc/net/route` without the default route and those of runners.
///
/// Destination and mask are hexadecimal numbers in the byte order of the machine.
fn routes(text: &str) -> Vec<(String, Ipv4Block)> {
    let number = |text: &str| {
        let printed = u32::from_str_radix(text, 16).ok()?;
        Some(u32::from_be_bytes(printed.to_ne_bytes()))
    };
    let parsed = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (link, destination) = (fields.next()?, fields.next().and_then(number)?);
        let mask = fields.nth(5).and_then(number)?;
        let prefix = u8::try_from(mask.leading_ones()).ok()?;
        let is_foreign = prefix > 0 && !link.starts_with(OUR_LINKS);
        let block = Ipv4Block::of(Ipv4Addr::from_bits(destination), prefix)?;
        is_foreign.then(|| (link.to_owned(), block))
    });
    parsed.collect()
}

fn check_block(
    block: Ipv4Block,
    addresses: &[(String, Ipv4Addr)],
    text: &str,
) -> (Vec<Mistake>, Vec<String>) {
    let mistake = |wrong: String| Mistake {
        key: "network.block".into(),
        wrong,
        write: "a private block that neither this host nor its networks use".into(),
    };
    let (mut mistakes, mut notes) = (Vec::new(), Vec::new());
    for (link, address) in addresses {
        if block.contains(*address) {
            mistakes.push(mistake(format!(
                "{block} contains {address}, an address of this host on {link}"
            )));
        }
    }
    for (link, route) in routes(text) {
        if !route.overlaps(block) {
            continue;
        }
        if route.size() > block.size() {
            // A wider route still leads to everything outside of the block.
            notes.push(format!(
                "network.block {block} is a part of the route {route} through {link}; \
                 this host does not reach machines with its addresses there"
            ));
        } else {
            mistakes.push(mistake(format!(
                "{block} overlaps the route {route} through {link}"
            )));
        }
    }
    (mistakes, notes)
}

/// Returns a mistake for each pool whose ids a line of the file has.
fn check_ids(
    config: &Config,
    file: &str,
    text: &str,
    first: usize,
    count: Option<usize>,
) -> Vec<Mistake> {
    let entries = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let number = |index: usize| fields.get(index)?.trim().parse::<u64>().ok();
        let (begin, count) = (number(first)?, count.map_or(Some(1), number)?);
        Some((*fields.first()?, begin, begin.saturating_add(count)))
    });
    let entries: Vec<_> = entries.collect();
    let mut mistakes = Vec::new();
    for pool in &config.pools {
        let places = u64::from(Place::UIDS);
        let begin = u64::from(config.network.uid_base) + u64::from(pool.offset) * places;
        let end = begin + u64::from(pool.max_runners) * places;
        let used = entries
            .iter()
            .find(|(_, from, until)| *from < end && begin < *until);
        if let Some((name, from, until)) = used {
            mistakes.push(Mistake {
                key: "network.uid_base".into(),
                wrong: format!(
                    "pool {} takes the ids {begin} to {}, and {file} gives {from} to {} to {name}",
                    pool.name,
                    end - 1,
                    until - 1
                ),
                write: "a multiple of 65536 from which on all ids are free".into(),
            });
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    /// Returns a line of `/proc/net/route` as this machine would print it.
    fn line(link: &str, destination: &str, mask: &str) -> String {
        let number = |text: &str| {
            let address: Ipv4Addr = text.parse().unwrap();
            u32::from_ne_bytes(address.octets())
        };
        format!(
            "{link}\t{:08X}\t00000000\t0001\t0\t0\t0\t{:08X}\t0\t0\t0\n",
            number(destination),
            number(mask)
        )
    }

    fn check(lines: &[String], addresses: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let text = format!("Iface\tDestination\n{}", lines.concat());
        let addresses: Vec<(String, Ipv4Addr)> = addresses
            .iter()
            .map(|(link, address)| ((*link).to_owned(), address.parse().unwrap()))
            .collect();
        let block = testing::config().network.block;
        let (mistakes, notes) = check_block(block, &addresses, &text);
        (mistakes.into_iter().map(|it| it.wrong).collect(), notes)
    }

    #[test]
    fn a_block_that_the_host_uses_is_a_mistake() {
        let none = (Vec::<String>::new(), Vec::<String>::new());
        let other = [
            line("eth0", "0.0.0.0", "0.0.0.0"),
            line("eth0", "10.201.0.0", "255.255.0.0"),
            line("rc-ci-1", "10.200.0.0", "255.255.255.252"),
        ];
        assert_eq!(check(&other, &[("eth0", "10.201.0.1")]), none);
        let (mistakes, _) = check(&[line("lan0", "10.200.3.0", "255.255.255.0")], &[]);
        assert_eq!(
            mistakes,
            ["10.200.0.0/16 overlaps the route 10.200.3.0/24 through lan0"]
        );
        let (mistakes, _) = check(&[], &[("wg0", "10.200.9.9")]);
        assert_eq!(
            mistakes,
            ["10.200.0.0/16 contains 10.200.9.9, an address of this host on wg0"]
        );
    }

    #[test]
    fn a_wider_route_is_a_note() {
        let (mistakes, notes) = check(&[line("vpn0", "10.0.0.0", "255.0.0.0")], &[]);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert!(notes[0].contains("the route 10.0.0.0/8 through vpn0"));
    }

    #[test]
    fn ids_of_users_and_of_their_containers_are_a_mistake() {
        let mut config = testing::config();
        // Four slots: 536870912 to 537133055.
        config.network.uid_base = 0x2000_0000;
        let subuid = |line: &str| check_ids(&config, "/etc/subuid", line, 1, Some(2));
        assert!(subuid("ann:100000:65536\nbob:537133056:65536\nbroken\n").is_empty());
        let found = subuid("ann:100000:65536\nbob:537133055:1\n");
        assert_eq!(
            found[0].wrong,
            "pool ci takes the ids 536870912 to 537133055, and /etc/subuid gives 537133055 to 537133055 to bob"
        );
        let passwd = |line: &str| check_ids(&config, "/etc/passwd", line, 2, None);
        assert!(passwd("root:x:0:0::/root:/bin/sh\n").is_empty());
        assert_eq!(passwd("eve:x:536870912:100::/:/bin/sh\n").len(), 1);
    }
}
