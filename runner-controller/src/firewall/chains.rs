//! The chains of one pool, from its configuration.

use serde::{Deserialize, Serialize};

use crate::config::{Allow, Config, Egress, PoolConfig, SharedParts};

/// Chains of one pool. They name every address themselves, so they do not depend on the rest of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chains {
    /// Rules for packets that leave through the host.
    pub(super) out: String,
    /// Rules for packets to the host itself.
    pub(super) to_host: String,
    /// Number of the pool's slots, each of which has its own count of connections.
    #[serde(default)]
    pub(super) slots: u16,
    /// Maximum number of open connections of each slot. A record without it is of a version that had the
    /// default.
    #[serde(default = "open_connections")]
    pub(super) open_connections: u32,
}

fn open_connections() -> u32 {
    SharedParts::default().connections
}

impl Chains {
    /// Returns the chains of one pool. The caller drops every packet that passes through a chain.
    pub(super) fn of(config: &Config, pool: &PoolConfig) -> Self {
        let accept = |entry: &Allow| {
            let Allow { to, port, protocol } = entry;
            format!(
                "    ip daddr {to} {} dport {port} accept\n",
                protocol.as_str()
            )
        };
        let all: String = pool.allow.iter().map(accept).collect();
        // A listed network means the machines on it. This host may have an address there; only an entry
        // for that very address opens it.
        let single = pool.allow.iter().filter(|entry| entry.to.is_single());
        let single: String = single.map(accept).collect();
        let dns = if pool.egress.has_dns() {
            let resolvers = config.network.resolvers.iter().map(ToString::to_string);
            let resolvers = resolvers.collect::<Vec<_>>().join(", ");
            format!(
                "    ip daddr {{ {resolvers} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n"
            )
        } else {
            String::new()
        };
        let rest = match pool.egress {
            Egress::Internet => {
                "    # Jobs ask the configured resolvers and no other DNS server.
    meta l4proto { tcp, udp } th dport { 53, 853 } counter drop
    ip daddr @blocked4 counter drop
    meta nfproto ipv4 accept\n"
            }
            Egress::Listed | Egress::None => "",
        };
        Self {
            out: format!("{all}{dns}{rest}"),
            to_host: format!("{single}{dns}"),
            slots: pool.max_runners,
            open_connections: pool.limits.shared.connections,
        }
    }
}
