//! Faults that are injected into answers on request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;

/// A fault and the requests that it is injected into. Rules are tried in order; the first that
/// matches and is not used up takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Requests that the rule applies to; all requests when empty.
    #[serde(rename = "match", default)]
    pub matches: RequestMatch,
    /// Number of times the fault is injected; `null` for always.
    #[serde(default)]
    pub times: Option<u64>,
    /// Number of matching requests that pass untouched first.
    #[serde(default)]
    pub skip: u64,
    /// The fault.
    pub fault: Fault,
}

/// A condition on requests. All given parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestMatch {
    /// `GET`, `POST`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// A part of path and query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
    /// The endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
}

/// A fault. A request that is "not handled" changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Not handled; the answer has this status.
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
    /// Handled after a delay. Later rules still apply.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Not handled; the connection is closed without an answer.
    DropBefore,
    /// Handled; the connection is closed without an answer.
    DropAfter,
    /// Handled; the connection is closed inside the body.
    Truncate {
        /// Bytes of the body that arrive.
        bytes: usize,
    },
    /// Handled; the connection is reset (TCP RST) inside the body.
    Reset {
        /// Bytes of the body that are sent. A reset may overtake them.
        bytes: usize,
    },
    /// Handled; `Content-Length` has this value. If it is larger than the body, the client waits for
    /// the rest. If it is smaller, the rest looks like the start of the next answer.
    ContentLength {
        /// Bytes.
        bytes: usize,
    },
    /// Not handled; random bytes arrive, then the connection is closed.
    Garbage {
        /// Number of random bytes.
        bytes: usize,
    },
    /// Not handled; the answer is a proxy's 502 with an HTML body.
    #[serde(rename = "html_502")]
    Html502,
    /// Not handled; the answer is 403 with no calls left.
    PrimaryLimit {
        /// Seconds until the announced reset.
        reset_in_s: u64,
    },
    /// Not handled; the answer is 403 with the text of a secondary limit.
    SecondaryLimit {
        /// Value of `retry-after`; no such header when absent.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// Not handled; the answer is a 403 that is not a limit.
    Forbidden {
        /// For example `Resource not accessible by integration`.
        message: String,
    },
    /// Not handled; the answer is a redirect.
    Redirect {
        /// Value of `Location`.
        to: String,
        /// 301, 302, 307 or 308.
        #[serde(default = "temporary_redirect")]
        code: u16,
    },
    /// Handled; every number in the body becomes a string, and every string a number.
    WrongTypes,
    /// Not handled; the answer has a JSON body of this size.
    Giant {
        /// Bytes.
        bytes: usize,
    },
    /// Handled; the body arrives slowly.
    SlowDrip {
        /// Bytes per second, at least 1.
        bytes_per_s: u32,
    },
}

fn temporary_redirect() -> u16 {
    307
}

impl Fault {
    /// Returns an answer with this status and GitHub's error shape.
    #[must_use]
    pub fn status(code: u16) -> Self {
        Self::Status {
            code,
            body: None,
            headers: BTreeMap::new(),
        }
    }

    /// Returns an answer with this status and JSON body.
    #[must_use]
    pub fn answer(code: u16, body: serde_json::Value) -> Self {
        Self::Status {
            code,
            body: Some(body),
            headers: BTreeMap::new(),
        }
    }
}

impl FaultRule {
    /// Returns a rule that injects `fault` into calls of `endpoint`, `times` times or always.
    #[must_use]
    pub fn on(endpoint: Endpoint, times: impl Into<Option<u64>>, fault: Fault) -> Self {
        Self {
            matches: RequestMatch {
                endpoint: Some(endpoint),
                ..RequestMatch::default()
            },
            times: times.into(),
            skip: 0,
            fault,
        }
    }
}

/// The rules in force, with what is left of their counts.
#[derive(Debug, Default)]
pub(crate) struct FaultInjector {
    pub(crate) rules: Vec<FaultRule>,
}

impl FaultInjector {
    /// Takes the faults for one request: a delay in milliseconds, and at most one other fault.
    pub(crate) fn take(
        &mut self,
        method: &str,
        target: &str,
        endpoint: Endpoint,
    ) -> (u64, Option<Fault>) {
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
            if let Fault::Delay { ms } = rule.fault {
                delay_ms += ms;
            } else {
                return (delay_ms, Some(rule.fault.clone()));
            }
        }
        (delay_ms, None)
    }
}

impl RequestMatch {
    fn holds(&self, method: &str, target: &str, endpoint: Endpoint) -> bool {
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

    #[test]
    fn a_rule_skips_then_acts_then_is_used_up() {
        let mut rule = FaultRule::on(Endpoint::Mint, 1, Fault::DropAfter);
        rule.skip = 1;
        let mut injector = FaultInjector { rules: vec![rule] };
        let mut take = || injector.take("POST", "/x", Endpoint::Mint).1;
        assert_eq!(take(), None);
        assert_eq!(take(), Some(Fault::DropAfter));
        assert_eq!(take(), None);
    }

    #[test]
    fn delays_add_up_before_another_fault() {
        let delay = FaultRule::on(Endpoint::List, None, Fault::Delay { ms: 5 });
        let drop = FaultRule::on(Endpoint::List, None, Fault::DropBefore);
        let mut injector = FaultInjector {
            rules: vec![delay.clone(), delay, drop],
        };
        assert_eq!(
            injector.take("GET", "/x", Endpoint::List),
            (10, Some(Fault::DropBefore))
        );
        assert_eq!(injector.take("GET", "/x", Endpoint::Mint), (0, None));
    }

    #[test]
    fn rules_have_the_documented_json_form() {
        let rule: FaultRule = serde_json::from_str(
            r#"{"match":{"endpoint":"mint"},"times":2,"fault":{"primary_limit":{"reset_in_s":3}}}"#,
        )
        .unwrap();
        assert_eq!(
            rule,
            FaultRule::on(Endpoint::Mint, 2, Fault::PrimaryLimit { reset_in_s: 3 })
        );
        let rule: FaultRule = serde_json::from_str(r#"{"fault":"drop_before"}"#).unwrap();
        assert_eq!(rule.fault, Fault::DropBefore);
    }
}
