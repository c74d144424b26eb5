//! The `[traces]` table.

use std::path::PathBuf;

use url::{Host, Url};

/// Collector that gets the traces of runners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracesConfig {
    /// Its address, to which `/v1/traces` is added.
    pub endpoint: String,
    /// File with a header on each line, which are secrets. The daemon's unit loads it as the credential
    /// `traces-headers`.
    pub headers_file: Option<PathBuf>,
}

impl TracesConfig {
    /// Name of the systemd credential that holds the headers.
    pub const CREDENTIAL: &'static str = "traces-headers";

    /// Returns true if headers leave this host without TLS.
    #[must_use]
    pub fn sends_headers_in_the_clear(&self) -> bool {
        let Ok(url) = self.endpoint.parse::<Url>() else {
            return false;
        };
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        self.headers_file.is_some() && url.scheme() == "http" && !is_loopback
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_need_tls_unless_the_collector_is_on_this_host() {
        let is_clear = |endpoint: &str| {
            let config = TracesConfig {
                endpoint: endpoint.into(),
                headers_file: Some("/run/h".into()),
            };
            config.sends_headers_in_the_clear()
        };
        for local in [
            "http://localhost:4318",
            "http://127.0.0.1",
            "http://[::1]:4318",
        ] {
            assert!(!is_clear(local), "{local}");
        }
        assert!(!is_clear("https://otel.example"));
        assert!(is_clear("http://otel.example:4318"));
        let without = TracesConfig {
            endpoint: "http://otel.example".into(),
            headers_file: None,
        };
        assert!(!without.sends_headers_in_the_clear());
    }
}
