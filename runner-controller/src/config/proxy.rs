//! HTTP proxies: the daemon's way to GitHub, and that of jobs.

use std::path::PathBuf;

use url::Url;

/// An HTTP proxy, through which connections are made by `CONNECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Address of the proxy, `http://HOST:PORT`.
    pub url: Url,
    /// Destinations that are reached without the proxy, as in the variable `NO_PROXY`.
    pub no_proxy: Vec<String>,
    /// File with `USER:PASSWORD` for the proxy. Jobs never have one.
    pub credentials_file: Option<PathBuf>,
}

impl ProxyConfig {
    /// Returns the address without a slash at its end.
    #[must_use]
    pub fn address(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Returns the environment variables by which programs find the proxy.
    ///
    /// There is not a standard for their case: curl reads `http_proxy` only, and other programs only the upper
    /// case. GitHub's runner prefers the lower case.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let address = || self.address().to_owned();
        let without = || self.no_proxy.join(",");
        vec![
            ("http_proxy", address()),
            ("HTTP_PROXY", address()),
            ("https_proxy", address()),
            ("HTTPS_PROXY", address()),
            ("no_proxy", without()),
            ("NO_PROXY", without()),
        ]
    }
}
