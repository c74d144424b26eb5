//! A scope: the `[github]` table, or a `[scopes.<name>]` table.

use url::Url;

use super::section::{MINUTE, SECOND, Section};
use super::{login, proxy};
use crate::config::github::{GitHubConfig, LoginConfig, Scope, ScopeName};
use crate::pool::DEFAULT_MINTS_PER_MINUTE;

/// Maximum of `mints_per_minute`. GitHub Enterprise Server has no limits by default.
const MAX_MINTS_PER_MINUTE: usize = 1_000;

pub(super) fn github(mut section: Section<'_>, name: Option<ScopeName>) -> Option<GitHubConfig> {
    let url = section.required(
        "url",
        "\"https://github.com/OWNER/REPO\" or \"https://github.com/ORG\"",
        Section::text,
    );
    let server_url = url.as_deref().and_then(server);
    let scope = url.and_then(|url| match scope(&url) {
        Ok(found) => Some(found),
        Err(wrong) => {
            section.wrong(
                "url",
                format!("{url:?} {wrong}"),
                "url = \"https://github.com/OWNER/REPO\" or \"https://github.com/ORG\"",
            );
            None
        }
    });
    let plain_http = section.flag("allow_plain_http").unwrap_or(false);
    let given: Option<Url> = section.parsed("api_url", "\"https://api.github.com\"");
    let api_url = given.or_else(|| scope.as_ref().map(|(_, default)| default.clone()));
    if let Some(url) = &api_url {
        let is_bare =
            url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() || !is_bare {
            section.wrong(
                "api_url",
                format!("\"{url}\" is not the base URL of an API"),
                "api_url = \"https://api.github.com\"",
            );
        } else if url.scheme() == "http" && !plain_http {
            section.wrong(
                "api_url",
                "http:// sends the token in the clear",
                "an https:// URL, or allow_plain_http = true on a network without eavesdroppers",
            );
        }
    }
    let api_version = section
        .text("api_version", "\"2022-11-28\"")
        .unwrap_or_else(|| "2022-11-28".into());
    let is_date = api_version.len() == 10
        && api_version.bytes().enumerate().all(|(i, b)| {
            if i == 4 || i == 7 {
                b == b'-'
            } else {
                b.is_ascii_digit()
            }
        });
    if !is_date {
        section.wrong(
            "api_version",
            format!("{api_version:?} is not a date"),
            "api_version = \"2022-11-28\"",
        );
    }
    let login = login::read(&mut section);
    let is_enterprise = matches!(scope, Some((Scope::Enterprise { .. }, _)));
    if is_enterprise && matches!(login, Some(LoginConfig::App { .. })) {
        section.wrong(
            "app",
            "GitHub gives an App no access to the runners of an enterprise",
            "token_file, with a classic token that has the scope manage_runners:enterprise",
        );
    }
    let timeout = section.duration("timeout", 15 * SECOND, SECOND..=2 * MINUTE);
    let mints_per_minute = section
        .number("mints_per_minute", 1..=MAX_MINTS_PER_MINUTE)
        .unwrap_or(DEFAULT_MINTS_PER_MINUTE);
    let proxy = proxy::of_daemon(&mut section);
    let ca_file = section.path("ca_file", "\"/etc/ssl/private-ca.pem\"");
    section.finish();
    Some(GitHubConfig {
        name,
        scope: scope?.0,
        api_url: api_url?,
        server_url: server_url?,
        api_version,
        login: login?,
        mints_per_minute,
        timeout,
        proxy,
        ca_file,
    })
}

/// Returns scheme, host and port of a web address, which the pages of GitHub share.
fn server(text: &str) -> Option<String> {
    let url: Url = text.parse().ok()?;
    let host = url.host_str()?;
    let port = url.port().map(|port| format!(":{port}"));
    let host = host.strip_prefix("www.").unwrap_or(host);
    Some(format!(
        "{}://{host}{}",
        url.scheme(),
        port.unwrap_or_default()
    ))
}

/// Returns the scope of a web address and the base URL of its API: `api.github.com` for github.com,
/// `api.HOST` for data residency (`*.ghe.com`), `HOST/api/v3` for GitHub Enterprise Server.
pub(super) fn scope(text: &str) -> Result<(Scope, Url), &'static str> {
    let url: Url = text.parse().map_err(|_| "is not a URL")?;
    let host = url.host_str().ok_or("does not name a host")?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("does not begin with https://");
    }
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let is_github_com = matches!(host, "github.com" | "www.github.com" | "github.localhost");
    let api = if is_github_com {
        "https://api.github.com".to_owned()
    } else if host.ends_with(".ghe.com") {
        format!("https://api.{authority}")
    } else {
        format!("{}://{authority}/api/v3", url.scheme())
    };
    let api = api.parse().map_err(|_| "does not name a usable host")?;
    let parts: Vec<&str> = url
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    let is_name = |part: &str| {
        part.len() <= 100
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !matches!(part, "." | "..")
    };
    if !parts.iter().all(|part| is_name(part)) {
        return Err("has characters that a name of an owner or a repository cannot have");
    }
    match parts[..] {
        ["enterprises"] => Err("names no enterprise; write https://HOST/enterprises/ENTERPRISE"),
        ["enterprises", enterprise] => Ok((
            Scope::Enterprise {
                enterprise: enterprise.to_owned(),
            },
            api,
        )),
        ["enterprises", ..] => Err("is a page about an enterprise; end it after the enterprise"),
        ["orgs", ..] => {
            Err("is a page about an organisation; write https://HOST/ORG without \"orgs\"")
        }
        [org] => Ok((
            Scope::Organization {
                org: org.to_owned(),
            },
            api,
        )),
        [owner, repo] => Ok((
            Scope::Repository {
                owner: owner.to_owned(),
                repo: repo.strip_suffix(".git").unwrap_or(repo).to_owned(),
            },
            api,
        )),
        _ => Err("names neither a repository nor an organisation nor an enterprise"),
    }
}
