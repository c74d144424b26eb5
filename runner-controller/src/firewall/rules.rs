//! The rules of our one nftables table.
//!
//! A rule selects a pool by the pattern of its links' names, so no rule changes when a container
//! starts or ends.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::config::{Allow, Config, Egress, PoolConfig};

/// Name of the table, family `inet`.
pub(super) const TABLE: &str = "runner_controller";

/// Unit that loads the table.
pub(crate) const FIREWALL_UNIT: &str = "runner-controller-firewall.service";

/// Returns the table's comment, which names the rules that this configuration asks for.
pub(super) fn fingerprint(config: &Config) -> String {
    // 96 bits are enough to tell configurations apart. The check compares the rules themselves.
    format!("rules {:.24x}", Sha256::digest(rules(config)))
}

/// Returns the text that nft loads.
pub(super) fn table(config: &Config) -> String {
    format!(
        "\
# Firewall of the runners: they reach the internet and nothing else. {FIREWALL_UNIT} loads it.
#
# One table holds all rules, and one transaction replaces it. No rule matches traffic of other
# programs. A packet also passes every other table. If the host drops forwarded packets by default
# (Docker and ufw do), its own rules must accept the runners' packets:
#   iifname \"rc-*\" accept
#   oifname \"rc-*\" ct state established,related accept

table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  # The launcher refuses to start a runner unless it finds this comment.
  comment \"{fingerprint}\"
{rules}}}
",
        fingerprint = fingerprint(config),
        rules = rules(config)
    )
}

/// Returns the rules of all pools.
///
/// A link has the name `rc-<pool>-<slot>`, and a pool's name has no dash. So the pattern `rc-a-*`
/// matches the links of pool `a`, and no link of pool `ab`.
fn rules(config: &Config) -> String {
    let resolvers: Vec<String> = config
        .network
        .resolvers
        .iter()
        .map(ToString::to_string)
        .collect();
    let resolvers = resolvers.join(", ");
    let block = config.network.block;
    let chains: String = config.pools.iter().map(chains).collect();
    let jump = |to: &str| {
        let mut rules = String::new();
        for PoolConfig { name, .. } in &config.pools {
            let _ = writeln!(rules, "    iifname \"rc-{name}-*\" jump {name}_{to}");
        }
        rules
    };
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
  set dns4 {{
    type ipv4_addr
    elements = {{ {resolvers} }}
  }}

  # ARP does not pass these chains and needs no rule. A link connects one container with the host, so
  # no other container receives its ARP packets. A false address affects only that link, to which the
  # kernel routes only the link's own four addresses. A packet with a false source is dropped here.
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    # Containers have IPv4 only.
    iifname \"rc-*\" meta nfproto ipv6 counter drop
    # The source is not the address at the other end of this link.
    iifname \"rc-*\" fib saddr . iif oif missing counter drop
  }}
{chains}
  chain to_host {{
    type filter hook input priority filter - 5; policy accept;
    iifname \"rc-*\" ct state established,related accept
{to_host}    iifname \"rc-*\" counter drop
  }}

  chain through_host {{
    type filter hook forward priority filter - 5; policy accept;
    iifname \"rc-*\" oifname \"rc-*\" counter drop
{out}    iifname \"rc-*\" counter drop
    oifname \"rc-*\" ct state established,related accept
    oifname \"rc-*\" counter drop
  }}

  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {block} oifname != \"rc-*\" masquerade
  }}
"
    )
}

/// Returns the chains of one pool. The calling chain drops a packet that they do not accept.
fn chains(pool: &PoolConfig) -> String {
    let name = &pool.name;
    let accept = |entry: &Allow| {
        let Allow { to, port, protocol } = entry;
        format!(
            "    ip daddr {to} {} dport {port} accept\n",
            protocol.as_str()
        )
    };
    let all: String = pool.allow.iter().map(accept).collect();
    // A listed network means the machines on it. It does not open the host's own address on that
    // network, unless the list has that address itself.
    let single = pool.allow.iter().filter(|entry| entry.to.is_single());
    let single: String = single.map(accept).collect();
    let dns = if pool.egress.has_dns() {
        "    ip daddr @dns4 meta l4proto { tcp, udp } th dport 53 accept\n"
    } else {
        ""
    };
    let rest = match pool.egress {
        Egress::Internet => {
            "    # DNS goes to the configured resolvers only.
    meta l4proto { tcp, udp } th dport { 53, 853 } counter drop
    ip daddr @blocked4 counter drop
    meta nfproto ipv4 accept\n"
        }
        Egress::Listed | Egress::None => "",
    };
    format!(
        "
  # Pool {name}: egress = \"{egress}\".
  chain {name}_out {{
{all}{dns}{rest}  }}
  chain {name}_to_host {{
{single}{dns}  }}
",
        egress = pool.egress.as_str()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::testing;

    #[test]
    fn a_fingerprint_changes_only_with_the_rules() {
        let config = testing::config();
        let mut other = testing::config();
        other.pools[0].labels.clear();
        assert_eq!(fingerprint(&config), fingerprint(&other));
        other.network.resolvers.pop();
        assert_ne!(fingerprint(&config), fingerprint(&other));
        let mut other = testing::config();
        other.pools[0].egress = Egress::Listed;
        assert_ne!(fingerprint(&config), fingerprint(&other));
    }

    /// Returns the rules of a chain.
    fn chain(config: &Config, name: &str) -> Vec<String> {
        let rules = rules(config);
        let begin = format!("  chain {name} {{\n");
        let (_, rest) = rules.split_once(&begin).unwrap();
        let (chain, _) = rest.split_once("  }\n").unwrap();
        let lines = chain.lines().map(str::trim);
        lines
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    }

    const DNS: &str = "ip daddr @dns4 meta l4proto { tcp, udp } th dport 53 accept";
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
    fn allowed_destinations_come_before_every_drop() {
        let rules = chain(&with(Egress::Internet), "ci_out");
        assert_eq!(rules[..3], [CACHE, NETWORK, DNS]);
        assert_eq!(rules[3..].last().unwrap(), "meta nfproto ipv4 accept");
    }

    #[test]
    fn without_internet_egress_only_listed_destinations_are_accepted() {
        let listed = with(Egress::Listed);
        assert_eq!(chain(&listed, "ci_out"), [CACHE, NETWORK, DNS]);
        let none = with(Egress::None);
        assert_eq!(chain(&none, "ci_out"), [CACHE, NETWORK]);
    }

    #[test]
    fn a_listed_network_does_not_open_the_host() {
        let listed = with(Egress::Listed);
        assert_eq!(chain(&listed, "ci_to_host"), [CACHE, DNS]);
    }

    #[test]
    fn every_pool_has_its_own_link_pattern() {
        let mut config = testing::config();
        config.pools = vec![testing::pool("a", 0), testing::pool("ab", 4)];
        assert_eq!(
            chain(&config, "through_host")[..5],
            [
                "type filter hook forward priority filter - 5; policy accept;",
                "iifname \"rc-*\" oifname \"rc-*\" counter drop",
                "iifname \"rc-a-*\" jump a_out",
                "iifname \"rc-ab-*\" jump ab_out",
                "iifname \"rc-*\" counter drop",
            ]
        );
    }

    #[test]
    fn the_table_carries_its_fingerprint() {
        let config = testing::config();
        let comment = format!("comment \"{}\"", fingerprint(&config));
        assert!(table(&config).contains(&comment));
    }
}
