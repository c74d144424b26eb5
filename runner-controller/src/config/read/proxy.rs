//! A `proxy` table of `[github]` or of a pool.

use std::net::Ipv4Addr;

use url::{Host, Url};

use super::section::Section;
use crate::config::egress::{Allow, Protocol};
use crate::config::proxy::ProxyConfig;

/// Destinations that jobs reach without a proxy, unless the configuration says otherwise: their container.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Reads the daemon's proxy.
pub(super) fn of_daemon(section: &mut Section<'_>) -> Option<ProxyConfig> {
    let mut table = section.has("proxy").then(|| section.section("proxy"))?;
    let file = table.path("credentials_file", "\"/run/agenix/github-proxy\"");
    if file
        .as_ref()
        .is_some_and(|path| path.starts_with("/nix/store"))
    {
        table.wrong(
            "credentials_file",
            "every user of the host can read /nix/store",
            "a path outside it, such as one below /run/agenix",
        );
    }
    let proxy = read(&mut table, &[]);
    table.finish();
    proxy.map(|proxy| ProxyConfig {
        credentials_file: file,
        ..proxy
    })
}

/// Reads the proxy of a pool's jobs. `allow` must open the way to a proxy with a private address.
pub(super) fn of_pool(section: &mut Section<'_>, allow: &[Allow]) -> Option<ProxyConfig> {
    let mut table = section.has("proxy").then(|| section.section("proxy"))?;
    let proxy = read(&mut table, &LOOPBACK);
    if let Some(proxy) = &proxy
        && let Some(Host::Ipv4(address)) = proxy.url.host()
        && !is_public(address)
    {
        let port = proxy.url.port_or_known_default().unwrap_or(80);
        let opens = |entry: &Allow| {
            entry.to.contains(address) && entry.port == port && entry.protocol == Protocol::Tcp
        };
        if !allow.iter().any(opens) {
            table.wrong(
                "url",
                format!("jobs do not reach {address}:{port}, because allow does not have it"),
                format!("allow = [\"{address}:{port}\"] in the pool"),
            );
        }
    }
    table.finish();
    proxy
}

fn is_public(address: Ipv4Addr) -> bool {
    !(address.is_private() || address.is_loopback() || address.is_link_local())
}

fn read(table: &mut Section<'_>, no_proxy: &[&str]) -> Option<ProxyConfig> {
    let example = "\"http://proxy.example.org:3128\"";
    let url: Option<Url> = table.required("url", example, Section::parsed);
    let url = url.filter(|url| match reject(url) {
        None => true,
        Some(wrong) => {
            table.wrong("url", wrong, format!("url = {example}"));
            false
        }
    });
    let defaults = no_proxy.iter().map(|entry| (*entry).to_owned()).collect();
    let no_proxy = table.texts(
        "no_proxy",
        "[\"ghe.example.org\", \".internal\", \"10.0.0.0/8\"]",
    );
    let no_proxy: Vec<String> = no_proxy.unwrap_or(defaults);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".:-_/*[]".contains(c);
    for entry in &no_proxy {
        if entry.is_empty() || !entry.chars().all(is_plain) {
            table.wrong(
                "no_proxy",
                format!("{entry:?} is not a host name, a domain, an address or a network"),
                "no_proxy = [\"ghe.example.org\", \".internal\", \"10.0.0.0/8\"]",
            );
        }
    }
    Some(ProxyConfig {
        url: url?,
        no_proxy,
        credentials_file: None,
    })
}

/// Returns the reason why a URL is not the address of a proxy.
fn reject(url: &Url) -> Option<&'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        return Some("every user can read this file; write the credentials into credentials_file");
    }
    let is_bare = url.query().is_none() && url.fragment().is_none() && url.path() == "/";
    if url.scheme() != "http" || url.host().is_none() || !is_bare {
        return Some("the address of an HTTP proxy is http://HOST:PORT");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::section::Report;

    fn read_from(
        text: &str,
        of: impl Fn(&mut Section<'_>) -> Option<ProxyConfig>,
    ) -> (Option<ProxyConfig>, Vec<String>) {
        let report = Report::default();
        let mut section = Section::new("x", text.parse().unwrap(), &report);
        let proxy = of(&mut section);
        section.finish();
        let mistakes = report.into_list().into_iter();
        (proxy, mistakes.map(|mistake| mistake.key).collect())
    }

    #[test]
    fn the_daemons_proxy_has_an_address_without_credentials() {
        let good = "proxy = { url = \"http://p:3128\", credentials_file = \"/run/p\", no_proxy = [\"ghe\", \".lan\"] }";
        let (proxy, mistakes) = read_from(good, of_daemon);
        let proxy = proxy.unwrap();
        assert_eq!((proxy.address(), mistakes.len()), ("http://p:3128", 0));
        assert_eq!(proxy.no_proxy, ["ghe", ".lan"]);
        assert_eq!(read_from("", of_daemon), (None, vec![]));
        for (text, key) in [
            ("proxy = { }", "x.proxy.url"),
            ("proxy = { url = \"p:3128\" }", "x.proxy.url"),
            ("proxy = { url = \"https://p:3128\" }", "x.proxy.url"),
            ("proxy = { url = \"http://me:pw@p:3128\" }", "x.proxy.url"),
            ("proxy = { url = \"http://p:3128/path\" }", "x.proxy.url"),
            (
                "proxy = { url = \"http://p\", no_proxy = [\"a b\"] }",
                "x.proxy.no_proxy",
            ),
            (
                "proxy = { url = \"http://p\", credentials_file = \"/nix/store/x\" }",
                "x.proxy.credentials_file",
            ),
        ] {
            assert_eq!(read_from(text, of_daemon).1, [key], "{text}");
        }
    }

    #[test]
    fn jobs_must_reach_their_proxy_and_get_no_credentials() {
        let text = "proxy = { url = \"http://10.0.0.5:3128\" }";
        let allow: Vec<Allow> = vec!["10.0.0.0/24:3128".parse().unwrap()];
        let (proxy, mistakes) = read_from(text, |section| of_pool(section, &allow));
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let environment = proxy.unwrap().environment();
        assert!(environment.contains(&("HTTPS_PROXY", "http://10.0.0.5:3128".into())));
        assert!(environment.contains(&("no_proxy", "localhost,127.0.0.1,::1".into())));
        let closed = |text| read_from(text, |section| of_pool(section, &[])).1;
        assert_eq!(closed(text), ["x.proxy.url"]);
        assert!(closed("proxy = { url = \"http://198.51.100.9:3128\" }").is_empty());
        let secret = "proxy = { url = \"http://p\", credentials_file = \"/run/p\" }";
        assert_eq!(closed(secret), ["x.proxy.credentials_file"]);
    }
}
