//! Answers that go wrong on request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// When to do what. Rules are tried in order; the first that matches and is not used up acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests; an empty match is every request.
    #[serde(rename = "match", default)]
    pub matches: Match,
    /// How often it acts; `null` for always.
    #[serde(default)]
    pub times: Option<u64>,
    /// How many matching requests pass untouched first.
    #[serde(default)]
    pub skip: u64,
    /// What happens.
    pub action: Action,
}

/// Which requests a rule means. All given parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// `GET`, `POST`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of path and query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
    /// The endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<crate::route::Endpoint>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Answered with this status; not handled.
    Status {
        /// 100..=599.
        code: u16,
        /// JSON body; GitHub's error shape when absent.
        #[serde(default)]
        body: Option<serde_json::Value>,
        /// Further headers.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// Handled after this long. Later rules still apply.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The connection is closed; the request is not handled.
    DropBefore,
    /// The request is handled, then the connection is closed without an answer.
    DropAfter,
    /// Handled; the connection is closed after so many bytes of the body.
    Truncate {
        /// Bytes of the body that arrive.
        bytes: usize,
    },
    /// A proxy's 502 with an HTML body; not handled.
    #[serde(rename = "html_502")]
    Html502,
    /// 403 with no calls left; not handled.
    PrimaryLimit {
        /// Seconds until the limit is said to reset.
        reset_in_s: u64,
    },
    /// 403 with the text of a secondary limit; not handled.
    SecondaryLimit {
        /// Value of `retry-after`; no such header when absent.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// 403 that is no limit; not handled.
    Forbidden {
        /// For instance `Resource not accessible by integration`.
        message: String,
    },
    /// A redirect; not handled.
    Redirect {
        /// Value of `Location`.
        to: String,
        /// 301, 302, 307 or 308.
        #[serde(default = "temporary_redirect")]
        code: u16,
    },
    /// Handled; then every number in the body is a string and every string a number.
    WrongTypes,
    /// A JSON body of this size; not handled.
    Giant {
        /// Bytes.
        bytes: usize,
    },
    /// Handled; the body arrives this slowly.
    SlowDrip {
        /// Bytes per second, at least 1.
        bytes_per_s: u32,
    },
}

fn temporary_redirect() -> u16 {
    307
}

impl Rule {
    /// A rule for `endpoint` that acts `times` times.
    #[must_use]
    pub fn on(
        endpoint: crate::route::Endpoint,
        times: impl Into<Option<u64>>,
        action: Action,
    ) -> Self {
        Self {
            matches: Match {
                endpoint: Some(endpoint),
                ..Match::default()
            },
            times: times.into(),
            skip: 0,
            action,
        }
    }
}

/// The rules in force, with what is left of them.
#[derive(Debug, Default)]
pub(crate) struct FaultList {
    pub(crate) rules: Vec<Rule>,
}

impl FaultList {
    /// The actions for one request: any number of delays, then at most one other.
    pub(crate) fn take(
        &mut self,
        method: &str,
        target: &str,
        endpoint: crate::route::Endpoint,
    ) -> (u64, Option<Action>) {
        let mut delay_ms = 0;
        for rule in &mut self.rules {
            if rule.times == Some(0) || !rule.matches.holds(method, target, endpoint) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            if let Action::Delay { ms } = rule.action {
                delay_ms += ms;
            } else {
                return (delay_ms, Some(rule.action.clone()));
            }
        }
        (delay_ms, None)
    }
}

impl Match {
    fn holds(&self, method: &str, target: &str, endpoint: crate::route::Endpoint) -> bool {
        self.method
            .as_ref()
            .is_none_or(|want| want.eq_ignore_ascii_case(method))
            && self
                .path_contains
                .as_ref()
                .is_none_or(|part| target.contains(part))
            && self.endpoint.is_none_or(|want| want == endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Endpoint;

    #[test]
    fn a_rule_skips_then_acts_then_is_used_up() {
        let mut rule = Rule::on(Endpoint::Mint, 1, Action::DropAfter);
        rule.skip = 1;
        let mut list = FaultList { rules: vec![rule] };
        let mut take = || list.take("POST", "/x", Endpoint::Mint).1;
        assert_eq!(take(), None);
        assert_eq!(take(), Some(Action::DropAfter));
        assert_eq!(take(), None);
    }

    #[test]
    fn delays_add_up_before_the_last_word() {
        let delay = Rule::on(Endpoint::List, None, Action::Delay { ms: 5 });
        let drop = Rule::on(Endpoint::List, None, Action::DropBefore);
        let mut list = FaultList {
            rules: vec![delay.clone(), delay, drop],
        };
        assert_eq!(
            list.take("GET", "/x", Endpoint::List),
            (10, Some(Action::DropBefore))
        );
        assert_eq!(list.take("GET", "/x", Endpoint::Mint), (0, None));
    }

    #[test]
    fn rules_read_as_documented() {
        let rule: Rule = serde_json::from_str(
            r#"{"match":{"endpoint":"mint"},"times":2,"action":{"primary_limit":{"reset_in_s":3}}}"#,
        )
        .unwrap();
        assert_eq!(
            rule,
            Rule::on(Endpoint::Mint, 2, Action::PrimaryLimit { reset_in_s: 3 })
        );
        let rule: Rule = serde_json::from_str(r#"{"action":"drop_before"}"#).unwrap();
        assert_eq!(rule.action, Action::DropBefore);
    }
}
