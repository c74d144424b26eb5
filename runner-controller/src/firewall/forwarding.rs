//! Forwarding of a runner's packets by this host: the kernel's switches, and the rules of other programs.

use std::fs;

use serde_json::Value;

use super::error::{FirewallError, Obstacle};
use super::foreign::{Blocking, Packet, blocking};
use super::nft;
use crate::config::{Config, Egress, Place, PoolConfig};
use crate::pool::Slot;

/// Switches that must be on: the first is for all links, the second for links that are made later.
const SWITCHES: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv4.conf.default.forwarding"];

/// Returns the reason for which the kernel forwards no packet of a runner.
///
/// Reads two files, so every start can afford it.
#[must_use]
pub fn switched_off() -> Option<Obstacle> {
    judge_switches(SWITCHES.map(|name| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::read_to_string(path).ok()
    }))
}

fn judge_switches(values: [Option<String>; 2]) -> Option<Obstacle> {
    let is_off = |value: &Option<String>| value.as_ref().is_some_and(|text| text.trim() == "0");
    let mut switches = SWITCHES.iter().zip(&values);
    let (name, _) = switches.find(|(_, value)| is_off(value))?;
    Some(Obstacle {
        wrong: format!("this host forwards no packets, so runners reach nothing ({name} is 0)"),
        remedy: "run `sysctl --system`; `grep -r forward /etc/sysctl.d /etc/sysctl.conf` finds what sets it"
            .into(),
    })
}

/// Returns the reason for which this host does not forward the packets of runners.
///
/// Needs `CAP_NET_ADMIN`, because it lists the rules of all programs.
pub fn obstacle(config: &Config) -> Result<Option<Obstacle>, FirewallError> {
    if let Some(reason) = switched_off() {
        return Ok(Some(reason));
    }
    let ruleset = nft::list_all()?;
    let uplinks = fs::read_to_string("/proc/net/route").unwrap_or_default();
    Ok(judge(config, &ruleset, &uplinks))
}

/// Judges the host's rules. `routes` is `/proc/net/route`.
fn judge(config: &Config, ruleset: &Value, routes: &str) -> Option<Obstacle> {
    let uplinks = uplinks(routes);
    for pool in &config.pools {
        let Some(slot) = Slot::first(1).next() else {
            continue;
        };
        let place = Place { config, pool, slot };
        let ways = packets(&place, pool, &uplinks);
        // A packet with several ways out is dropped only if each is closed.
        let mut found: Option<Blocking> = None;
        let is_out_closed = ways.iter().all(|packet| {
            found = blocking(ruleset, packet).into_iter().next();
            found.is_some()
        });
        if !is_out_closed {
            found = blocking(ruleset, &reply(&place)).into_iter().next();
        }
        if let Some(blocking) = found {
            return Some(describe(&blocking));
        }
    }
    None
}

fn describe(blocking: &Blocking) -> Obstacle {
    let chain = &blocking.chain;
    let by = if blocking.by_policy {
        "by its policy"
    } else {
        "by a rule"
    };
    let insert = format!("nft insert rule {chain}");
    Obstacle {
        wrong: format!(
            "another program's chain `{chain}` drops the packets of runners {by}, so runners reach nothing"
        ),
        remedy: format!(
            "run `{insert} iifname \"rc-*\" accept` and `{insert} oifname \"rc-*\" ct state established,related accept`, \
             and add both rules where that program keeps its own: `runner-controller docs firewall` shows Docker's and ufw's"
        ),
    }
}

/// Returns the links of default routes in `/proc/net/route`, whose destination and mask are zero.
fn uplinks(routes: &str) -> Vec<String> {
    let fields = routes.lines().skip(1).map(|line| {
        let mut fields = line.split_whitespace();
        (fields.next(), fields.next(), fields.nth(5))
    });
    let default = fields.filter_map(|fields| match fields {
        (Some(link), Some("00000000"), Some("00000000")) => Some(link.to_owned()),
        _ => None,
    });
    default.collect()
}

/// Returns a new connection's packet for each link through which it may leave.
fn packets(place: &Place<'_>, pool: &PoolConfig, uplinks: &[String]) -> Vec<Packet> {
    let packet = |leaves: Option<String>| Packet {
        arrives: Some(place.veth()),
        leaves,
        source: Some(place.guest_address()),
        destination: None,
        state: "new",
    };
    match pool.egress {
        Egress::Internet if !uplinks.is_empty() => {
            uplinks.iter().cloned().map(Some).map(packet).collect()
        }
        // The links to the destinations of `allow` are not known.
        Egress::Internet | Egress::Listed | Egress::None => vec![packet(None)],
    }
}

fn reply(place: &Place<'_>) -> Packet {
    Packet {
        arrives: None,
        leaves: Some(place.veth()),
        source: None,
        destination: Some(place.guest_address()),
        state: "established",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::testing;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
        eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\n\
        wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n";

    fn forward(rules: &[Value]) -> Value {
        let mut objects = vec![json!({"chain": {"family": "ip", "table": "filter",
            "name": "FORWARD", "type": "filter", "hook": "forward", "policy": "drop"}})];
        objects.extend(rules.iter().map(
            |expr| json!({"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "expr": expr}}),
        ));
        json!({ "nftables": objects })
    }

    fn link(key: &str, name: &str) -> Value {
        json!([{"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}}, {"accept": null}])
    }

    #[test]
    fn forwarding_that_is_off_is_an_obstacle() {
        let values = |first: &str, second: &str| [first, second].map(|text| Some(text.to_owned()));
        assert_eq!(judge_switches(values("1\n", "1\n")), None);
        let all = judge_switches(values("0\n", "1\n")).unwrap().to_string();
        assert!(all.contains("net.ipv4.ip_forward is 0"), "{all}");
        let later = judge_switches(values("1\n", "0\n")).unwrap().to_string();
        assert!(later.contains("conf.default.forwarding is 0"), "{later}");
        assert_eq!(judge_switches([None, None]), None);
    }

    #[test]
    fn only_default_routes_lead_to_the_internet() {
        assert_eq!(uplinks(ROUTES), ["eth0"]);
        assert!(uplinks("").is_empty());
    }

    #[test]
    fn dockers_rules_for_its_own_links_do_not_let_runners_out() {
        let config = testing::config();
        let docker = [link("oifname", "docker0"), link("iifname", "docker0")];
        let reason = judge(&config, &forward(&docker), ROUTES).unwrap().wrong;
        assert!(reason.contains("`ip filter FORWARD`"), "{reason}");
        assert!(reason.contains("by its policy"), "{reason}");
        let both = [link("iifname", "rc-*"), link("oifname", "rc-*")];
        assert_eq!(judge(&config, &forward(&both), ROUTES), None);
        assert_eq!(judge(&config, &json!({"nftables": []}), ROUTES), None);
    }

    #[test]
    fn a_link_that_a_pool_may_use_is_not_an_obstacle() {
        let mut config = testing::config();
        let lan = [link("oifname", "lan0"), link("oifname", "rc-*")];
        assert!(judge(&config, &forward(&lan), ROUTES).is_some());
        for pool in &mut config.pools {
            pool.egress = Egress::Listed;
        }
        assert_eq!(judge(&config, &forward(&lan), ROUTES), None);
    }
}
