//! Rules of other programs through which a runner's packets must pass as well.
//!
//! A packet passes every table, and each can drop it: Docker and ufw give the chain `FORWARD` the policy
//! drop. This module follows a runner's packet through every other base chain of the hook `forward`.
//! An expression that it does not know may match or not. A chain counts as blocking only if the
//! packet cannot be accepted in either case, so an unknown rule never closes admission.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::TABLE;

/// Depth at which the kernel refuses more jumps (`NFT_JUMP_STACK_SIZE` in `nf_tables.h`).
const JUMPS_MAX: usize = 16;

/// A packet between a runner and another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    /// Interface on which it arrives, if it is known.
    pub(super) arrives: Option<String>,
    /// Interface through which it leaves, if it is known.
    pub(super) leaves: Option<String>,
    /// Source address, if it is known.
    pub(super) source: Option<Ipv4Addr>,
    /// Destination address, if it is known.
    pub(super) destination: Option<Ipv4Addr>,
    /// State of its connection: `new` or `established`.
    pub(super) state: &'static str,
}

/// A base chain that drops a runner's packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocking {
    /// Family, table and chain, as nft names them.
    pub(super) chain: String,
    /// True if the chain's policy drops them, and false if a rule does.
    pub(super) by_policy: bool,
}

/// Result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    Maybe,
    No,
}

impl Match {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            (Self::Maybe, _) | (_, Self::Maybe) => Self::Maybe,
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, Self::No) => Self::No,
            (Self::Maybe, _) | (_, Self::Maybe) => Self::Maybe,
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::Maybe => Self::Maybe,
            Self::No => Self::Yes,
        }
    }

    fn is(found: bool) -> Self {
        if found { Self::Yes } else { Self::No }
    }
}

/// Possible ends of a packet's way through a chain.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    accepted: bool,
    /// The packet reaches the end of the chain, or a `return`.
    passed: bool,
}

struct Chain<'a> {
    /// Policy of a base chain of the hook `forward`.
    policy: Option<&'a str>,
    rules: Vec<&'a [Value]>,
}

/// The chains of the host by family, table and name.
struct Ruleset<'a>(BTreeMap<[&'a str; 3], Chain<'a>>);

/// Returns the base chains of other tables that drop the packet in any case.
///
/// `ruleset` is the output of `nft --json list ruleset`.
pub(super) fn blocking(ruleset: &Value, packet: &Packet) -> Vec<Blocking> {
    let ruleset = Ruleset::parse(ruleset);
    let base = ruleset
        .0
        .iter()
        .filter_map(|(name, chain)| Some((name, chain.policy?)));
    let mut blocking = Vec::new();
    for (name, policy) in base {
        let [family, table, _] = *name;
        let is_passed = !["ip", "inet"].contains(&family) || (family, table) == ("inet", TABLE);
        if is_passed {
            continue;
        }
        let ends = ruleset.follow(*name, packet, 0);
        let may_leave = ends.accepted || ends.passed && policy == "accept";
        if !may_leave {
            blocking.push(Blocking {
                chain: name.join(" "),
                by_policy: ends.passed,
            });
        }
    }
    blocking
}

impl<'a> Ruleset<'a> {
    fn parse(ruleset: &'a Value) -> Self {
        let mut chains: BTreeMap<[&str; 3], Chain<'_>> = BTreeMap::new();
        let objects = ruleset["nftables"].as_array().into_iter().flatten();
        for object in objects {
            let name = |value: &'a Value, key: &str| {
                let text = |key: &str| value[key].as_str();
                Some([text("family")?, text("table")?, text(key)?])
            };
            if let Some(named) = name(&object["chain"], "name") {
                let chain = &object["chain"];
                let is_base = chain["hook"] == "forward" && chain["type"] == "filter";
                let policy = is_base.then(|| chain["policy"].as_str().unwrap_or("accept"));
                let rules = Vec::new();
                chains.insert(named, Chain { policy, rules });
            }
            let rule = name(&object["rule"], "chain").and_then(|chain| chains.get_mut(&chain));
            if let (Some(chain), Some(expressions)) = (rule, object["rule"]["expr"].as_array()) {
                chain.rules.push(expressions);
            }
        }
        Self(chains)
    }

    fn follow(&self, name: [&str; 3], packet: &Packet, depth: usize) -> Ends {
        let Some(chain) = self.0.get(&name).filter(|_| depth <= JUMPS_MAX) else {
            // It cannot be followed, so both ends are possible.
            return Ends {
                accepted: true,
                passed: true,
            };
        };
        let mut ends = Ends::default();
        for rule in &chain.rules {
            let mut matched = Match::Yes;
            for statement in *rule {
                if matched == Match::No {
                    break;
                }
                for (found, verdict) in verdicts(statement, packet) {
                    let taken = matched.and(found);
                    if taken == Match::No {
                        continue;
                    }
                    let through = match verdict {
                        Verdict::Accept => Ends {
                            accepted: true,
                            passed: false,
                        },
                        Verdict::Drop => Ends::default(),
                        Verdict::Return => Ends {
                            accepted: false,
                            passed: true,
                        },
                        Verdict::Jump(target) | Verdict::Goto(target) => {
                            self.follow([name[0], name[1], target], packet, depth + 1)
                        }
                    };
                    ends.accepted |= through.accepted;
                    let continues = matches!(verdict, Verdict::Jump(_)) && through.passed;
                    ends.passed |= through.passed && !continues;
                    if taken == Match::Yes && !continues {
                        return ends;
                    }
                }
                matched = matched.and(condition(statement, rule, packet));
            }
        }
        ends.passed = true;
        ends
    }
}

enum Verdict<'a> {
    Accept,
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
}

fn verdict(statement: &Value) -> Option<Verdict<'_>> {
    let (kind, value) = statement.as_object()?.iter().next()?;
    match kind.as_str() {
        "accept" | "queue" => Some(Verdict::Accept),
        "drop" | "reject" => Some(Verdict::Drop),
        "return" => Some(Verdict::Return),
        "jump" => value["target"].as_str().map(Verdict::Jump),
        "goto" => value["target"].as_str().map(Verdict::Goto),
        "xt" if value["type"] == "target" => match value["name"].as_str()? {
            "REJECT" => Some(Verdict::Drop),
            // The packet may be accepted there.
            "NFQUEUE" => Some(Verdict::Accept),
            _ => None,
        },
        _ => None,
    }
}

/// Returns the verdicts of a statement, each with its condition. A map has several.
fn verdicts<'a>(statement: &'a Value, packet: &Packet) -> Vec<(Match, Verdict<'a>)> {
    let Some(map) = statement.get("vmap") else {
        return verdict(statement)
            .map(|verdict| (Match::Yes, verdict))
            .into_iter()
            .collect();
    };
    let Some(elements) = map["data"]["set"].as_array() else {
        // A named map is not listed with its elements.
        return vec![(Match::Maybe, Verdict::Accept)];
    };
    let elements = elements.iter().filter_map(|element| {
        let found = compare(&map["key"], &element[0], packet);
        Some((found, verdict(&element[1])?))
    });
    elements.collect()
}

/// Returns the condition that a statement adds to those after it.
fn condition(statement: &Value, rule: &[Value], packet: &Packet) -> Match {
    let Some((kind, value)) = statement
        .as_object()
        .and_then(|object| object.iter().next())
    else {
        return Match::Maybe;
    };
    match kind.as_str() {
        "match" => {
            let found = compare(&value["left"], &value["right"], packet);
            if value["op"] == "!=" {
                found.not()
            } else {
                found
            }
        }
        "counter" | "log" | "mangle" => Match::Yes,
        "xt" if value["type"] == "target" => Match::Yes,
        // nft does not list the states of iptables' `--ctstate`. Docker and ufw accept replies by a rule
        // without another condition. A rule with another one may also accept new connections.
        "xt" if value["name"] == "conntrack"
            && packet.state == "new"
            && !rule.iter().any(|other| other.get("match").is_some()) =>
        {
            Match::No
        }
        _ => Match::Maybe,
    }
}

/// Compares a property of the packet with a value, a network, or a set of them.
fn compare(left: &Value, right: &Value, packet: &Packet) -> Match {
    let list = right["set"].as_array().or_else(|| right.as_array());
    if let Some(list) = list {
        let found = list.iter().map(|value| compare(left, value, packet));
        return found.fold(Match::No, Match::or);
    }
    if left["meta"].is_object() {
        return match left["meta"]["key"].as_str() {
            Some("iifname" | "iif") => interface(packet.arrives.as_deref(), right),
            Some("oifname" | "oif") => interface(packet.leaves.as_deref(), right),
            Some("nfproto") => Match::is(right == "ipv4"),
            Some("l4proto") => Match::is(right == "tcp" || *right == 6),
            _ => Match::Maybe,
        };
    }
    if left["ct"].is_object() {
        return match left["ct"]["key"].as_str() {
            Some("state") => Match::is(right == packet.state),
            // A runner's connection is not translated to another destination.
            Some("status") if right == "dnat" => Match::No,
            _ => Match::Maybe,
        };
    }
    let payload = &left["payload"];
    match (payload["protocol"].as_str(), payload["field"].as_str()) {
        (Some("ip"), Some("saddr")) => address(packet.source, right),
        (Some("ip"), Some("daddr")) => address(packet.destination, right),
        (Some("ip"), Some("protocol")) => Match::is(right == "tcp" || *right == 6),
        (Some("ip6" | "icmp" | "icmpv6" | "udp" | "sctp" | "dccp"), _) => Match::No,
        _ => Match::Maybe,
    }
}

fn interface(known: Option<&str>, pattern: &Value) -> Match {
    let (Some(known), Some(pattern)) = (known, pattern.as_str()) else {
        return Match::Maybe;
    };
    match pattern.strip_suffix('*') {
        _ if pattern.starts_with('@') => Match::Maybe,
        Some(begin) => Match::is(known.starts_with(begin)),
        None => Match::is(known == pattern),
    }
}

fn address(known: Option<Ipv4Addr>, value: &Value) -> Match {
    let network = &value["prefix"];
    let (text, length) = if network.is_object() {
        (network["addr"].as_str(), network["len"].as_u64())
    } else {
        (value.as_str(), Some(32))
    };
    let base = text.and_then(|text| text.parse::<Ipv4Addr>().ok());
    let (Some(known), Some(base), Some(length @ 0..=32)) = (known, base, length) else {
        return Match::Maybe;
    };
    // A shift of all 32 bits leaves nothing to compare.
    let network = |address: Ipv4Addr| u64::from(address.to_bits()) >> (32 - length);
    Match::is(network(known) == network(base))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn out() -> Packet {
        Packet {
            arrives: Some("rc-ci-1".into()),
            leaves: Some("eth0".into()),
            source: Some(Ipv4Addr::new(10, 200, 0, 2)),
            destination: None,
            state: "new",
        }
    }

    fn back() -> Packet {
        Packet {
            arrives: None,
            leaves: Some("rc-ci-1".into()),
            source: None,
            destination: Some(Ipv4Addr::new(10, 200, 0, 2)),
            state: "established",
        }
    }

    /// Returns a ruleset with a chain FORWARD, and a chain U to jump to.
    fn ruleset(policy: &str, rules: &[Value], others: &[Value]) -> Value {
        let chain = |name: &str| json!({"family": "ip", "table": "filter", "name": name});
        let mut base = chain("FORWARD");
        base["type"] = json!("filter");
        base["hook"] = json!("forward");
        base["policy"] = json!(policy);
        let mut objects = vec![json!({"chain": base}), json!({"chain": chain("U")})];
        for (name, rules) in [("FORWARD", rules), ("U", others)] {
            objects.extend(rules.iter().map(
                |expr| json!({"rule": {"family": "ip", "table": "filter", "chain": name, "expr": expr}}),
            ));
        }
        json!({ "nftables": objects })
    }

    fn is(left: &Value, right: &Value) -> Value {
        json!({"match": {"op": "==", "left": left, "right": right}})
    }

    fn link(key: &str, name: &str) -> Value {
        is(&json!({"meta": {"key": key}}), &json!(name))
    }

    fn drops(policy: &str, rules: &[Value], others: &[Value], packet: &Packet) -> bool {
        !blocking(&ruleset(policy, rules, others), packet).is_empty()
    }

    #[test]
    fn a_policy_drops_what_no_rule_accepts() {
        assert!(drops("drop", &[], &[], &out()));
        assert!(!drops("accept", &[], &[], &out()));
        let found = blocking(&ruleset("drop", &[], &[]), &out());
        assert_eq!(found[0].chain, "ip filter FORWARD");
        assert!(found[0].by_policy);
        let reject = [json!([{"reject": null}])];
        assert!(!blocking(&ruleset("accept", &reject, &[]), &out())[0].by_policy);
    }

    #[test]
    fn a_rule_for_our_links_or_addresses_opens_a_chain() {
        let source = json!({"payload": {"protocol": "ip", "field": "saddr"}});
        let prefix = |length| json!({"prefix": {"addr": "10.200.0.0", "len": length}});
        for (condition, opens) in [
            (link("iifname", "rc-*"), true),
            (link("iifname", "rc-ci-1"), true),
            (link("iifname", "docker0"), false),
            (link("oifname", "eth0"), true),
            (is(&source, &prefix(16)), true),
            (is(&source, &json!("10.0.0.1")), false),
            (is(&source, &json!("@mine")), true),
            (is(&source, &json!({"set": ["10.0.0.1", prefix(24)]})), true),
            (
                is(
                    &json!({"ct": {"key": "state"}}),
                    &json!(["established", "related"]),
                ),
                false,
            ),
            (
                is(
                    &json!({"ct": {"key": "state"}}),
                    &json!(["established", "new"]),
                ),
                true,
            ),
            (is(&json!({"ct": {"key": "status"}}), &json!("dnat")), false),
            (
                is(
                    &json!({"payload": {"protocol": "ip", "field": "protocol"}}),
                    &json!("icmp"),
                ),
                false,
            ),
            (json!({"xt": {"type": "match", "name": "conntrack"}}), false),
            (json!({"xt": {"type": "match", "name": "mark"}}), true),
            (json!({"something": "new"}), true),
        ] {
            let rule = [json!([condition, {"counter": null}, {"accept": null}])];
            assert_eq!(!drops("drop", &rule, &[], &out()), opens, "{condition}");
        }
    }

    #[test]
    fn the_state_of_an_iptables_rule_with_another_condition_is_not_guessed() {
        let rule = [json!([link("iifname", "rc-*"),
            {"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}])];
        assert!(!drops("drop", &rule, &[], &out()));
    }

    #[test]
    fn chains_are_followed() {
        let jump = [json!([{"jump": {"target": "U"}}])];
        let goto = [
            json!([{"goto": {"target": "U"}}]),
            json!([{"accept": null}]),
        ];
        let accept = [json!([{"accept": null}])];
        let back = [json!([{"return": null}]), json!([{"accept": null}])];
        assert!(!drops("drop", &jump, &accept, &out()));
        assert!(drops("drop", &jump, &back, &out()));
        assert!(drops("drop", &goto, &[], &out()));
        assert!(!drops("accept", &goto, &[], &out()));
        let again = [json!([{"jump": {"target": "U"}}])];
        assert!(
            !drops("drop", &again, &again, &out()),
            "a circle is not followed"
        );
        let map = |target: &str| {
            [json!([{"vmap": {"key": {"meta": {"key": "iifname"}},
                "data": {"set": [[target, {"accept": null}]]}}}])]
        };
        assert!(drops("drop", &map("eth1"), &[], &out()));
        assert!(!drops("drop", &map("rc-*"), &[], &out()));
    }

    #[test]
    fn replies_need_a_rule_too() {
        let only_out = [json!([link("iifname", "rc-*"), {"accept": null}])];
        assert!(drops(
            "drop",
            &[json!([link("oifname", "docker0"), {"accept": null}])],
            &[],
            &back()
        ));
        // The uplink is not known here, so the first rule may be of it.
        assert!(!drops("drop", &only_out, &[], &back()));
        let replies = [json!([{"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}])];
        assert!(!drops("drop", &replies, &[], &back()));
    }

    #[test]
    fn our_table_other_hooks_and_other_families_do_not_count() {
        let chain = |family: &str, table: &str, hook: &str| {
            json!({"nftables": [{"chain": {"family": family, "table": table, "name": "c",
                "type": "filter", "hook": hook, "policy": "drop"}}]})
        };
        assert_eq!(blocking(&chain("ip", "filter", "forward"), &out()).len(), 1);
        for (family, table, hook) in [
            ("inet", TABLE, "forward"),
            ("ip6", "filter", "forward"),
            ("bridge", "filter", "forward"),
            ("ip", "filter", "input"),
        ] {
            let found = blocking(&chain(family, table, hook), &out());
            assert!(found.is_empty(), "{found:?}");
        }
        assert!(blocking(&json!(null), &out()).is_empty());
    }
}
