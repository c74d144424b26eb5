//! Which endpoint a request means.

use serde::{Deserialize, Serialize};

use crate::scope::Scope;

/// The endpoints, as fault rules and statistics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST …/actions/runners/generate-jitconfig`
    Mint,
    /// `GET …/actions/runners`
    List,
    /// `GET …/actions/runners/{id}`
    Get,
    /// `DELETE …/actions/runners/{id}`
    Delete,
    /// `GET /orgs/{org}/actions/runner-groups`
    Groups,
    /// `GET …/installation`, of an App
    Installation,
    /// `POST /app/installations/{id}/access_tokens`
    AccessToken,
    /// `GET /rate_limit`
    RateLimit,
    /// `GET /meta`
    Meta,
    /// `POST /oauth2/token`: a listener's access token.
    Token,
    /// `POST /broker/session`
    Session,
    /// `DELETE /broker/session`
    SessionDelete,
    /// `GET /broker/message`
    Message,
    /// `POST /broker/acknowledge`
    Acknowledge,
    /// `POST /run/{request}/acquirejob`
    Acquire,
    /// `POST /run/{request}/renewjob`
    Renew,
    /// `POST /run/{request}/completejob`
    Complete,
    /// `POST /run/{request}/facts`, our own.
    Facts,
    /// Anything else.
    Unknown,
}

/// A request's endpoint with what its path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// REST, with the path template in the `OpenAPI` document.
    Rest {
        endpoint: Endpoint,
        template: &'static str,
        scope: Option<Scope>,
        /// The id of the runner, or of the App's installation, as written.
        id: Option<String>,
    },
    /// What listeners call; the second part is the request id of a job.
    Broker(Endpoint, String),
    /// The control API: segments after `/_sim`.
    Control(Vec<String>),
    Unknown,
}

impl Endpoint {
    /// Its name in rules and statistics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mint => "mint",
            Self::List => "list",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::Groups => "groups",
            Self::Installation => "installation",
            Self::AccessToken => "access_token",
            Self::RateLimit => "rate_limit",
            Self::Meta => "meta",
            Self::Token => "token",
            Self::Session => "session",
            Self::SessionDelete => "session_delete",
            Self::Message => "message",
            Self::Acknowledge => "acknowledge",
            Self::Acquire => "acquire",
            Self::Renew => "renew",
            Self::Complete => "complete",
            Self::Facts => "facts",
            Self::Unknown => "unknown",
        }
    }
}

impl Route {
    pub(crate) fn of(method: &str, path: &str) -> Self {
        let segments: Vec<String> = path
            .trim_start_matches('/')
            .split('/')
            .map(|s| {
                percent_encoding::percent_decode_str(s)
                    .decode_utf8_lossy()
                    .into_owned()
            })
            .collect();
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (method, parts.as_slice()) {
            (_, ["_sim", rest @ ..]) => Self::Control(rest.iter().map(|&s| s.into()).collect()),
            ("POST", ["oauth2", "token"]) => Self::Broker(Endpoint::Token, String::new()),
            ("POST", ["broker", "session"]) => Self::Broker(Endpoint::Session, String::new()),
            ("DELETE", ["broker", "session"]) => {
                Self::Broker(Endpoint::SessionDelete, String::new())
            }
            ("GET", ["broker", "message"]) => Self::Broker(Endpoint::Message, String::new()),
            ("POST", ["broker", "acknowledge"]) => {
                Self::Broker(Endpoint::Acknowledge, String::new())
            }
            ("POST", ["run", request, verb]) => match *verb {
                "acquirejob" => Self::Broker(Endpoint::Acquire, (*request).into()),
                "renewjob" => Self::Broker(Endpoint::Renew, (*request).into()),
                "completejob" => Self::Broker(Endpoint::Complete, (*request).into()),
                "facts" => Self::Broker(Endpoint::Facts, (*request).into()),
                _ => Self::Unknown,
            },
            ("GET", ["rate_limit"]) => Self::rest(Endpoint::RateLimit, "/rate_limit"),
            ("POST", ["app", "installations", id, "access_tokens"]) => Self::Rest {
                endpoint: Endpoint::AccessToken,
                template: "/app/installations/{installation_id}/access_tokens",
                scope: None,
                id: Some((*id).to_owned()),
            },
            ("GET", ["orgs", org, "installation"]) => Self::Rest {
                endpoint: Endpoint::Installation,
                template: "/orgs/{org}/installation",
                scope: Some(Scope::Organization((*org).into())),
                id: None,
            },
            ("GET", ["repos", owner, name, "installation"]) => Self::Rest {
                endpoint: Endpoint::Installation,
                template: "/repos/{owner}/{repo}/installation",
                scope: Some(Scope::Repository {
                    owner: (*owner).into(),
                    name: (*name).into(),
                }),
                id: None,
            },
            ("GET", ["meta"]) => Self::rest(Endpoint::Meta, "/meta"),
            (method, ["orgs", org, "actions", rest @ ..]) => {
                let scope = Scope::Organization((*org).into());
                Self::scoped(method, scope, rest)
            }
            (method, ["repos", owner, name, "actions", rest @ ..]) => {
                let scope = Scope::Repository {
                    owner: (*owner).into(),
                    name: (*name).into(),
                };
                Self::scoped(method, scope, rest)
            }
            _ => Self::Unknown,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Rest { endpoint, .. } | Self::Broker(endpoint, _) => *endpoint,
            Self::Control(_) | Self::Unknown => Endpoint::Unknown,
        }
    }

    fn rest(endpoint: Endpoint, template: &'static str) -> Self {
        Self::Rest {
            endpoint,
            template,
            scope: None,
            id: None,
        }
    }

    fn scoped(method: &str, scope: Scope, rest: &[&str]) -> Self {
        let in_org = matches!(scope, Scope::Organization(_));
        let pick = |org, repo| if in_org { org } else { repo };
        let (endpoint, template, id) = match (method, rest) {
            ("POST", ["runners", "generate-jitconfig"]) => (
                Endpoint::Mint,
                pick(
                    "/orgs/{org}/actions/runners/generate-jitconfig",
                    "/repos/{owner}/{repo}/actions/runners/generate-jitconfig",
                ),
                None,
            ),
            ("GET", ["runners"]) => (
                Endpoint::List,
                pick(
                    "/orgs/{org}/actions/runners",
                    "/repos/{owner}/{repo}/actions/runners",
                ),
                None,
            ),
            ("GET" | "DELETE", ["runners", id]) => (
                if method == "GET" {
                    Endpoint::Get
                } else {
                    Endpoint::Delete
                },
                pick(
                    "/orgs/{org}/actions/runners/{runner_id}",
                    "/repos/{owner}/{repo}/actions/runners/{runner_id}",
                ),
                Some((*id).to_owned()),
            ),
            ("GET", ["runner-groups"]) if in_org => {
                (Endpoint::Groups, "/orgs/{org}/actions/runner-groups", None)
            }
            _ => return Self::Unknown,
        };
        Self::Rest {
            endpoint,
            template,
            scope: Some(scope),
            id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_serde_writes() {
        for endpoint in [Endpoint::Mint, Endpoint::SessionDelete, Endpoint::RateLimit] {
            let written = serde_json::to_value(endpoint).unwrap();
            assert_eq!(written, endpoint.name());
        }
    }

    #[test]
    fn both_scopes_are_known() {
        let of = |method, path| Route::of(method, path).endpoint();
        assert_eq!(
            of("POST", "/orgs/a/actions/runners/generate-jitconfig"),
            Endpoint::Mint
        );
        assert_eq!(of("GET", "/repos/a/b/actions/runners"), Endpoint::List);
        assert_eq!(
            of("DELETE", "/repos/a/b/actions/runners/7"),
            Endpoint::Delete
        );
        assert_eq!(
            of("GET", "/repos/a/b/actions/runner-groups"),
            Endpoint::Unknown
        );
        assert_eq!(of("PUT", "/orgs/a/actions/runners"), Endpoint::Unknown);
    }
}
