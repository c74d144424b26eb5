//! The one nftables table of ours: every slot, by the pattern of its link's name.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::HostFile;
use crate::config::Config;

/// The table's name, family `inet`.
pub const TABLE: &str = "runner_controller";

/// The unit that loads it.
pub const UNIT: &str = "runner-controller-firewall.service";

const FILE: &str = "/etc/runner-controller/firewall.nft";

/// The table's comment: names the rules that this configuration asks for.
#[must_use]
pub fn fingerprint(config: &Config) -> String {
    let mut name = String::from("rules ");
    for byte in Sha256::digest(rules(config).as_bytes()).iter().take(12) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

pub(super) fn files(config: &Config) -> Vec<HostFile> {
    vec![
        HostFile::new(FILE, table(config)),
        HostFile::unit(UNIT, unit()),
    ]
}

fn table(config: &Config) -> String {
    format!(
        "\
# The runners' network: out to the internet, and nowhere else. Loaded by {UNIT}.
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

fn rules(config: &Config) -> String {
    let resolvers: Vec<String> = config
        .network
        .resolvers
        .iter()
        .map(ToString::to_string)
        .collect();
    let resolvers = resolvers.join(", ");
    let block = config.network.block;
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

  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    # Jobs have IPv4 only.
    iifname \"rc-*\" meta nfproto ipv6 counter drop
    # A source that is not on the other end of this very link.
    iifname \"rc-*\" fib saddr . iif oif missing counter drop
  }}

  chain to_host {{
    type filter hook input priority filter - 5; policy accept;
    iifname \"rc-*\" ct state established,related accept
    # A named resolver may be this host.
    iifname \"rc-*\" ip daddr @dns4 meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname \"rc-*\" counter drop
  }}

  chain through_host {{
    type filter hook forward priority filter - 5; policy accept;
    iifname \"rc-*\" oifname \"rc-*\" counter drop
    iifname \"rc-*\" ip daddr @dns4 meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname \"rc-*\" meta l4proto {{ tcp, udp }} th dport {{ 53, 853 }} counter drop
    iifname \"rc-*\" ip daddr @blocked4 counter drop
    iifname \"rc-*\" accept
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

fn unit() -> String {
    format!(
        "\
[Unit]
Description=Firewall of the CI runners
# Its rules are gone when nftables.service flushes everything, so they come back with it.
After=nftables.service systemd-modules-load.service systemd-sysctl.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
Before=runner-controller.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=nft -f {FILE}
ExecReload=nft -f {FILE}
ExecStop=nft delete table inet {TABLE}

[Install]
WantedBy=multi-user.target
"
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
        other.pools.clear();
        assert_eq!(fingerprint(&config), fingerprint(&other));
        other.network.resolvers.pop();
        assert_ne!(fingerprint(&config), fingerprint(&other));
    }

    #[test]
    fn the_table_carries_its_fingerprint() {
        let config = testing::config();
        let comment = format!("comment \"{}\"", fingerprint(&config));
        assert!(table(&config).contains(&comment));
    }
}
