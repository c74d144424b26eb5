//! The rules of our one nftables table.
//!
//! A rule selects a pool by the pattern of its links' names, so no rule changes when a container
//! starts or ends.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::TABLE;
use super::chains::Chains;
use super::loaded::Loaded;
use crate::config::{Config, Connections, Fragments, SourcePorts};

/// Returns the table's comment, which names the rules in it.
#[must_use]
pub(super) fn fingerprint(config: &Config, loaded: &Loaded) -> String {
    // 96 bits are enough to tell rules apart. The check compares the rules themselves.
    format!("rules {:.24x}", Sha256::digest(rules(config, loaded)))
}

/// Returns the table without the commands that replace an earlier one.
///
/// Pools and address blocks that only `loaded` has stay in the table. `flags` is empty, or a line that
/// makes the loading process the owner.
///
/// A packet passes every table. If the host drops forwarded packets by default, as Docker and ufw
/// do, the host's own rules must let the runners out:
///
/// ```text
/// iifname "rc-*" accept
/// oifname "rc-*" ct state established,related accept
/// ```
#[must_use]
pub(super) fn table(config: &Config, loaded: &Loaded, flags: &str) -> String {
    format!(
        "table inet {TABLE} {{\n{flags}  comment \"{fingerprint}\"\n{rules}}}\n",
        fingerprint = fingerprint(config, loaded),
        rules = rules(config, loaded)
    )
}

/// Returns the rules of every slot, by the pattern of its link's name.
///
/// A link is named `rc-<pool>-<slot>`, and the name of a pool has no dash: `rc-a-*` is pool `a` alone,
/// and never a slot of pool `ab`.
fn rules(config: &Config, loaded: &Loaded) -> String {
    let mut all = loaded.clone();
    let configured = Loaded::configured(config);
    all.pools.extend(configured.pools);
    all.blocks.extend(configured.blocks);
    let mut chains = String::new();
    let (mut new, mut ports, mut fragments) = (Vec::new(), Vec::new(), Vec::new());
    let slots: usize = all.pools.values().map(|pool| usize::from(pool.slots)).sum();
    for (name, pool) in &all.pools {
        let Chains { out, to_host, .. } = pool;
        // Writing to a String cannot fail.
        let _ = write!(
            chains,
            "\n  chain {name}_out {{\n{out}  }}\n  chain {name}_to_host {{\n{to_host}  }}\n"
        );
        for slot in 1..=pool.slots {
            let link = format!("\"rc-{name}-{slot}\"");
            chains.push_str(&new_connections(name, slot, pool.open_connections));
            chains.push_str(&source_ports(name, slot, ports.len(), slots));
            chains.push_str(&fragments_of(name, slot));
            new.push(format!("{link} : jump {name}_{slot}_new"));
            ports.push(format!("{link} : jump {name}_{slot}_ports"));
            fragments.push(format!("{link} : jump {name}_{slot}_fragments"));
        }
    }
    let jump = |to: &str| {
        let mut rules = String::new();
        for name in all.pools.keys() {
            let _ = writeln!(rules, "    iifname \"rc-{name}-*\" jump {name}_{to}");
        }
        rules
    };
    let count = by_link("iifname \"rc-*\" ct state new", &new);
    let fragments = by_link("ip frag-off & 0x3fff != 0x0", &fragments);
    let mut masquerade = by_link("oifname != \"rc-*\"", &ports);
    for block in &all.blocks {
        let _ = writeln!(
            masquerade,
            "    ip saddr {block} oifname != \"rc-*\" masquerade"
        );
    }
    let (to_host, out) = (jump("to_host"), jump("out"));
    format!(
        "
  # Private, shared, link-local (cloud metadata), multicast and reserved ranges.
  set blocked4 {{
    type ipv4_addr
    flags interval
    elements = {{ 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12,
                 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/4, 240.0.0.0/4 }}
  }}

  # ARP does not pass these chains and needs no rule. A link connects one container with the host, so
  # no other container receives its ARP packets. A false address affects only that link, to which the
  # kernel routes only the link's own four addresses. A packet with a false source is dropped here.
  chain arriving {{
    # Before the kernel collects the fragments of a packet (priority -400), so that those of a false source
    # take no memory.
    type filter hook prerouting priority -500; policy accept;
    # Containers have IPv4 only.
    iifname \"rc-*\" meta nfproto ipv6 counter drop
    # The source is not the address at the other end of this link.
    iifname \"rc-*\" fib saddr . iif oif missing counter drop
{fragments}  }}
{chains}
  chain to_host {{
    type filter hook input priority filter - 5; policy accept;
    iifname \"rc-*\" ct state established,related accept
{count}{to_host}    iifname \"rc-*\" counter drop
  }}

  chain through_host {{
    type filter hook forward priority filter - 5; policy accept;
    iifname \"rc-*\" oifname \"rc-*\" counter drop
{count}{out}    iifname \"rc-*\" counter drop
    oifname \"rc-*\" ct state established,related accept
    oifname \"rc-*\" counter drop
  }}

  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
{masquerade}  }}
"
    )
}

/// Returns a rule that selects a chain by the name of a link, and nothing without links: the kernel refuses an
/// empty map.
fn by_link(condition: &str, chains: &[String]) -> String {
    if chains.is_empty() {
        return String::new();
    }
    format!("    {condition} iifname vmap {{ {} }}\n", chains.join(", "))
}

/// Returns the chain that gives a connection of a slot a port of the slot's range, so that one slot cannot take all
/// ports toward a destination.
fn source_ports(pool: &str, slot: u16, number: usize, slots: usize) -> String {
    let range = SourcePorts::of(number, slots);
    let (first, last) = (range.start(), range.end());
    format!(
        "  chain {pool}_{slot}_ports {{
    meta l4proto {{ tcp, udp }} masquerade to :{first}-{last}
  }}
"
    )
}

/// Returns the chain that drops a new connection of a slot that has its part of the host's table. A dropped
/// packet leaves no entry there.
fn new_connections(pool: &str, slot: u16, open: u32) -> String {
    format!(
        "  chain {pool}_{slot}_new {{
    ct count over {open} counter drop
    limit rate over {}/second burst {} packets counter drop
  }}
",
        Connections::PER_SECOND,
        Connections::BURST
    )
}

/// Returns the chain that drops a fragment of a slot that has its part of the memory for incomplete packets.
fn fragments_of(pool: &str, slot: u16) -> String {
    format!(
        "  chain {pool}_{slot}_fragments {{
    limit rate over {}/second burst {} packets counter drop
  }}
",
        Fragments::PER_SECOND,
        Fragments::BURST
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Egress;
    use crate::config::testing;

    #[test]
    fn a_fingerprint_changes_only_with_the_rules() {
        let config = testing::config();
        let mut other = testing::config();
        other.pools[0].labels.clear();
        let name = |config: &Config| fingerprint(config, &Loaded::default());
        assert_eq!(name(&config), name(&other));
        other.network.resolvers.pop();
        assert_ne!(name(&config), name(&other));
        let mut other = testing::config();
        other.pools[0].egress = Egress::Listed;
        assert_ne!(name(&config), name(&other));
        // The record of the same configuration changes nothing. A removed pool changes the name.
        let same = Loaded::configured(&config);
        assert_eq!(name(&config), fingerprint(&config, &same));
        let mut without = testing::config();
        without.pools = vec![testing::pool("other", 0)];
        assert_ne!(name(&without), fingerprint(&without, &same));
    }

    /// The rules of a pool's chain.
    fn chain(config: &Config, name: &str) -> Vec<String> {
        let rules = rules(config, &Loaded::default());
        let begin = format!("  chain {name} {{\n");
        let (_, rest) = rules.split_once(&begin).unwrap();
        let (chain, _) = rest.split_once("  }\n").unwrap();
        let lines = chain.lines().map(str::trim);
        lines
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    const DNS: &str = "ip daddr { 9.9.9.9, 1.1.1.1 } meta l4proto { tcp, udp } th dport 53 accept";
    const CACHE: &str = "ip daddr 192.168.7.9/32 tcp dport 3128 accept";
    const NETWORK: &str = "ip daddr 10.1.0.0/16 udp dport 123 accept";

    fn with(egress: Egress) -> Config {
        let mut config = testing::config();
        config.pools[0].egress = egress;
        config.pools[0].allow = ["192.168.7.9:3128", "10.1.0.0/16:123/udp"]
            .map(|entry| entry.parse().unwrap())
            .into();
        config
    }

    #[test]
    fn a_list_opens_before_anything_closes() {
        let rules = chain(&with(Egress::Internet), "ci_out");
        assert_eq!(rules[..3], [CACHE, NETWORK, DNS]);
        assert_eq!(rules[3..].last().unwrap(), "meta nfproto ipv4 accept");
    }

    #[test]
    fn nothing_follows_a_list_that_is_all() {
        let listed = with(Egress::Listed);
        assert_eq!(chain(&listed, "ci_out"), [CACHE, NETWORK, DNS]);
        let none = with(Egress::None);
        assert_eq!(chain(&none, "ci_out"), [CACHE, NETWORK]);
    }

    #[test]
    fn the_host_is_reached_by_its_own_address_and_by_no_network() {
        let listed = with(Egress::Listed);
        assert_eq!(chain(&listed, "ci_to_host"), [CACHE, DNS]);
    }

    #[test]
    fn every_pool_has_its_own_pattern() {
        let mut config = testing::config();
        config.pools = vec![testing::pool("a", 0), testing::pool("ab", 4)];
        config.pools[0].max_runners = 2;
        config.pools[1].max_runners = 1;
        assert_eq!(
            chain(&config, "through_host")[..6],
            [
                "type filter hook forward priority filter - 5; policy accept;",
                "iifname \"rc-*\" oifname \"rc-*\" counter drop",
                "iifname \"rc-*\" ct state new iifname vmap { \"rc-a-1\" : jump a_1_new, \
                 \"rc-a-2\" : jump a_2_new, \"rc-ab-1\" : jump ab_1_new }",
                "iifname \"rc-a-*\" jump a_out",
                "iifname \"rc-ab-*\" jump ab_out",
                "iifname \"rc-*\" counter drop",
            ]
        );
    }

    #[test]
    fn every_slot_has_its_own_count_of_connections() {
        let mut config = testing::config();
        config.pools[0].max_runners = 2;
        for slot in 1..=2 {
            assert_eq!(
                chain(&config, &format!("ci_{slot}_new")),
                [
                    "ct count over 8192 counter drop",
                    "limit rate over 128/second burst 16384 packets counter drop",
                ]
            );
        }
        assert_eq!(
            chain(&config, "ci_2_ports"),
            ["meta l4proto { tcp, udp } masquerade to :31012-60999"]
        );
        assert_eq!(
            chain(&config, "ci_2_fragments"),
            ["limit rate over 64/second burst 512 packets counter drop"]
        );
        assert_eq!(
            chain(&config, "arriving").last().unwrap(),
            "ip frag-off & 0x3fff != 0x0 iifname vmap { \"rc-ci-1\" : jump ci_1_fragments, \
             \"rc-ci-2\" : jump ci_2_fragments }"
        );
        // A record of a version without counts has none.
        let record = r#"{"pools": {"old": {"out": "", "to_host": ""}}, "blocks": []}"#;
        let record: Loaded = serde_json::from_str(record).unwrap();
        assert!(!rules(&config, &record).contains("old_1_new"));
        config.pools.clear();
        assert!(!rules(&config, &record).contains("vmap"));
    }

    #[test]
    fn the_table_carries_its_fingerprint() {
        let config = testing::config();
        let loaded = Loaded::default();
        let comment = format!("comment \"{}\"", fingerprint(&config, &loaded));
        assert!(table(&config, &loaded, "").contains(&comment));
    }

    #[test]
    fn a_removed_pool_keeps_its_rules_and_its_address_translation() {
        let before = testing::config();
        let mut config = testing::config();
        config.pools = vec![testing::pool("other", 0)];
        config.network.block = "10.99.0.0/16".parse().unwrap();
        config.network.resolvers = vec!["8.8.8.8".parse().unwrap()];
        let text = rules(&config, &Loaded::configured(&before));
        for line in [
            "iifname \"rc-ci-*\" jump ci_out",
            "iifname \"rc-other-*\" jump other_out",
            "ip saddr 10.200.0.0/16 oifname != \"rc-*\" masquerade",
            "ip saddr 10.99.0.0/16 oifname != \"rc-*\" masquerade",
            DNS,
            "ip daddr { 8.8.8.8 } meta l4proto { tcp, udp } th dport 53 accept",
        ] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}
