//! The way to GitHub through an HTTP proxy, and the certificate authorities of its TLS.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::setup::SetupError;
use crate::config::{GitHubConfig, ProxyConfig};

/// Returns the connector through the proxy, or `None` if the API is reached without one.
pub(super) fn tunnel(
    config: &GitHubConfig,
    connector: &HttpConnector,
) -> Result<Option<Tunnel<HttpConnector>>, SetupError> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let Some(proxy) = &config.proxy else {
        return Ok(None);
    };
    let Some(address) = address(proxy, config.api_url.as_str()) else {
        return Ok(None);
    };
    let tunnel = Tunnel::new(address, connector.clone());
    Ok(Some(match &proxy.credentials_file {
        None => tunnel,
        Some(file) => {
            let passed = directory.map(|directory| directory.join(config.proxy_credential()));
            tunnel.with_auth(credentials(passed, file)?)
        }
    }))
}

/// Returns the address of the proxy for a destination; `None` if `no_proxy` has the destination.
fn address(proxy: &ProxyConfig, destination: &str) -> Option<Uri> {
    let matcher = Matcher::builder()
        .all(proxy.address())
        .no(proxy.no_proxy.join(","))
        .build();
    let destination: Uri = destination.parse().ok()?;
    Some(matcher.intercept(&destination)?.uri().clone())
}

/// Reads `USER:PASSWORD` from the credential that systemd passed, or else from the configured file.
fn credentials(passed: Option<PathBuf>, file: &Path) -> Result<HeaderValue, SetupError> {
    let path = passed
        .filter(|path| path.exists())
        .unwrap_or_else(|| file.to_owned());
    let wrong = |source| SetupError::File {
        what: "the proxy's credentials".to_owned(),
        path: path.clone(),
        source,
    };
    let text = fs::read_to_string(&path).map_err(wrong)?;
    let text = text.trim();
    if text.lines().count() != 1 || !text.contains(':') {
        return Err(wrong(io::Error::other("it must be one line USER:PASSWORD")));
    }
    let header = format!("Basic {}", BASE64_STANDARD.encode(text));
    let mut header = HeaderValue::try_from(header).map_err(|_| SetupError::Header("proxy"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Returns the settings of TLS: the certificate authorities of this host, and those of `ca_file`.
///
/// # Errors
/// Neither this host nor `ca_file` has a certificate authority, or the file cannot be used.
pub(super) fn tls(config: &GitHubConfig) -> Result<ClientConfig, SetupError> {
    let host = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(host.certs);
    if let Some(file) = &config.ca_file {
        add_authorities(&mut roots, config, file)?;
    }
    if roots.is_empty() {
        let cause = host.errors.into_iter().next();
        let cause = cause.map_or_else(|| io::ErrorKind::NotFound.into(), io::Error::other);
        return Err(SetupError::Roots(cause));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Roots(io::Error::other(error)))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Returns an error if `ca_file` is configured and cannot be used.
pub fn check_ca_file(config: &GitHubConfig) -> Result<(), SetupError> {
    match &config.ca_file {
        Some(file) => add_authorities(&mut RootCertStore::empty(), config, file),
        None => Ok(()),
    }
}

/// Adds the certificates of `ca_file`, which is in PEM and has at least one.
fn add_authorities(
    roots: &mut RootCertStore,
    config: &GitHubConfig,
    file: &Path,
) -> Result<(), SetupError> {
    let wrong = |source| SetupError::File {
        what: format!("certificate authorities ({})", config.key("ca_file")),
        path: file.to_owned(),
        source,
    };
    let text = fs::read(file).map_err(wrong)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = parsed.map_err(|error| wrong(io::Error::other(error)))?;
    if found.is_empty() {
        return Err(wrong(io::Error::other("it has no certificate in PEM")));
    }
    for authority in found {
        let added = roots.add(authority);
        added.map_err(|error| wrong(io::Error::other(error)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(no_proxy: &[&str]) -> ProxyConfig {
        ProxyConfig {
            url: "http://proxy:3128".parse().unwrap(),
            no_proxy: no_proxy.iter().map(|entry| (*entry).to_owned()).collect(),
            credentials_file: None,
        }
    }

    #[test]
    fn no_proxy_names_hosts_domains_addresses_and_networks() {
        let is_direct = |no_proxy: &str, url: &str| address(&proxy(&[no_proxy]), url).is_none();
        for (no_proxy, url, direct) in [
            ("ghe.example", "https://ghe.example/api/v3", true),
            ("example", "https://ghe.example/api/v3", true),
            (".example", "https://ghe.example/api/v3", true),
            ("ghe.example", "https://other-ghe.example/", false),
            ("10.0.0.0/8", "https://10.1.2.3/api/v3", true),
            ("10.0.0.0/8", "https://11.1.2.3/api/v3", false),
            ("*", "https://api.github.com", true),
            ("ghe.example", "https://api.github.com", false),
        ] {
            assert_eq!(is_direct(no_proxy, url), direct, "{no_proxy} {url}");
        }
        let address = address(&proxy(&[]), "https://api.github.com").unwrap();
        assert_eq!(address, "http://proxy:3128");
    }

    #[test]
    fn the_credential_of_systemd_takes_precedence_and_is_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("configured");
        fs::write(&file, "ann:one\n").unwrap();
        let value = |passed: Option<PathBuf>| credentials(passed, &file);
        assert_eq!(value(None).unwrap(), "Basic YW5uOm9uZQ==");
        fs::write(dir.path().join("github-proxy"), "ann:two").unwrap();
        let passed = value(Some(dir.path().join("github-proxy"))).unwrap();
        assert_eq!(passed, "Basic YW5uOnR3bw==");
        assert!(passed.is_sensitive());
        for text in ["", "ann", "ann:one\nbob:two"] {
            fs::write(&file, text).unwrap();
            let error = value(None).unwrap_err().to_string();
            assert!(error.contains("proxy's credentials"), "{error}");
        }
    }
}
