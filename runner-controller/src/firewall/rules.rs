//! The rules of our one nftables table. They select a slot by the pattern of its link's name.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::config::{Allow, Config, Egress, PoolConfig};

/// Name of the table, family `inet`.
pub(super) const TABLE: &str = "runner_controller";

/// Unit that loads the table.
pub(crate) const FIREWALL_UNIT: &str = "runner-controller-firewall.service";

/// Returns the table's comment, which names the rules that this configuration asks for.
pub(super) fn fingerprint(config: &Config) -> String {
    let mut name = String::from("rules ");
    for byte in Sha256::digest(rules(config).as_bytes()).iter().take(12) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

/// Returns the text that nft loads.
pub(super) fn table(config: &Config) -> String {
    format!(
        "\
# The runners' network: out to the internet, and nowhere else. Loaded by {FIREWALL_UNIT}.
#
# All of it is in one table, which is replaced in one step, and no rule looks at traffic that is not
# a runner's. A packet also passes every other table: if the host drops what it forwards by default
# (Docker does, and ufw), its own rules must let runners out:
#   iifname \"rc-*\" accept
#   oifname \"rc-*\" ct state established,related accept

table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  # The launcher starts no runner unless it finds this.
  comment \"{fingerprint}\"
{rules}}}
",
        fingerprint = fingerprint(config),
        rules = rules(config)
    )
}

/// Every slot's rules, by the pattern of its link's name. A link is named `rc-<pool>-<slot>`, and no
/// pool has a dash in its name: `rc-a-*` is pool `a` alone, and never a slot of pool `ab`.
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

  # ARP passes none of this, and needs no rule. A link has two ends: nobody else hears what a
  # container claims there. To the host a lie about an address is good for that one link, where the
  # kernel sends nothing but what goes to the link's own four addresses. And whatever address a
  # container takes for itself, a source other than its own is dropped here.
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    # Jobs have IPv4 only.
    iifname \"rc-*\" meta nfproto ipv6 counter drop
    # A source that is not on the other end of this very link.
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

/// Where one pool's packets may go. What falls out of a chain is dropped by its caller.
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
    // A network that is listed means the machines on it. This host, which may have an address there,
    // is meant only by that very address.
    let single = pool.allow.iter().filter(|entry| entry.to.is_single());
    let single: String = single.map(accept).collect();
    let dns = if pool.egress.has_dns() {
        "    ip daddr @dns4 meta l4proto { tcp, udp } th dport 53 accept\n"
    } else {
        ""
    };
    let rest = match pool.egress {
        Egress::Internet => {
            "    # Names are asked of the resolvers alone.
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
    fn a_fingerprint_changes_with_the_rules_and_with_nothing_else() {
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

    /// The rules of a pool's chain.
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
