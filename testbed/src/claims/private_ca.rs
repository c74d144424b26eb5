//! GitHub behind a proxy, with a certificate of a private authority.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::common::{SOON, ensure_says, run};
use super::fixture::{EMPTY, small};
use super::suite::{Suite, suite};
use crate::config::Config;
use crate::lab::{DAEMON, Lab};
use crate::net::{GITHUB, INTERNET};
use crate::sim::PORT;

pub(super) const SUITE: Suite = suite![EMPTY;
    a_daemon_behind_a_proxy_trusts_its_ca_file_and_names_an_unknown_authority,
];

/// Name of GitHub that no resolver has, so the proxy alone can connect to it.
const HIDDEN: &str = "github.corp.example";
const TLS_PORT: u16 = 8443;
const PROXY_PORT: u16 = 3128;
/// Directory of the authority and its certificates, and of what the proxy was asked.
const DIR: &str = "/run/testbed-ca";
const SERVERS: [&str; 2] = ["testbed-tls.service", "testbed-proxy.service"];
/// Maximum time from a start of the daemon until it tells an error.
const TOLD_WITHIN: Duration = Duration::from_mins(1);

/// Makes an authority, and a certificate that it vouches for.
const MAKE_CERTIFICATES: &str = "
new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
openssl req -x509 $new -days 30 -subj '/CN=Acme private CA' -keyout ca.key -out ca.pem
openssl req $new -subj /CN=github -keyout server.key -out server.csr
echo subjectAltName=DNS:$HIDDEN >server.ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile server.ext -out server.pem
cat server.pem server.key >both.pem
";

/// A proxy that connects its clients to the hidden server.
const PROXY: &str = r#"#!/bin/sh
read -r asked
end=$(printf '\r')
while IFS= read -r line && [ "$line" != "$end" ]; do :; done
echo "$asked" >>$DIR/asked
printf 'HTTP/1.1 200 OK\r\n\r\n'
exec socat - TCP:$GITHUB:$TLS_PORT
"#;

fn a_daemon_behind_a_proxy_trusts_its_ca_file_and_names_an_unknown_authority(
    lab: &mut Lab,
) -> Result<()> {
    let outcome = start_servers(lab).and_then(|()| work_behind_proxy(lab));
    for unit in SERVERS {
        lab.host()
            .sh(&format!("systemctl stop {unit} 2>/dev/null || true"))?;
    }
    lab.host().sh(&format!("rm -rf {DIR}"))?;
    outcome
}

fn start_servers(lab: &Lab) -> Result<()> {
    let host = lab.host();
    host.sh(&format!(
        "set -e; mkdir -p {DIR}; cd {DIR}; HIDDEN={HIDDEN}; {MAKE_CERTIFICATES}"
    ))?;
    let proxy = PROXY
        .replace("$DIR", DIR)
        .replace("$GITHUB", GITHUB)
        .replace("$TLS_PORT", &TLS_PORT.to_string());
    host.write(&format!("{DIR}/proxy"), proxy.as_bytes(), 0o755)?;
    let listen = [
        format!("OPENSSL-LISTEN:{TLS_PORT},fork,reuseaddr,verify=0,cert={DIR}/both.pem"),
        format!("TCP-LISTEN:{PROXY_PORT},fork,reuseaddr"),
    ];
    let connect = [format!("TCP:{GITHUB}:{PORT}"), format!("EXEC:{DIR}/proxy")];
    for ((unit, listen), connect) in SERVERS.iter().zip(&listen).zip(&connect) {
        host.run(&[
            "systemd-run",
            "--quiet",
            "--collect",
            &format!("--unit={unit}"),
            &format!("--property=NetworkNamespacePath=/run/netns/{INTERNET}"),
            "socat",
            listen,
            connect,
        ])?;
    }
    Ok(())
}

fn work_behind_proxy(lab: &Lab) -> Result<()> {
    lab.install(&hidden(""))?;
    lab.start()?;
    let error = lab.await_status("an error of GitHub's", TOLD_WITHIN, |status| {
        status.github.error.clone()
    })?;
    let words = ["UnknownIssuer", "github.ca_file"];
    ensure_says(&error, &words)?;
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 503, "healthy all the same: {health:?}");
    ensure_says(&health.body, &words)?;

    lab.install(&hidden(&format!("ca_file = \"{DIR}/ca.pem\"\n")))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON)?;
    run(lab, "true")?;
    lab.await_settled(SOON)?;
    let asked = lab.host().sh(&format!("sort -u {DIR}/asked"))?;
    let connect = format!("CONNECT {HIDDEN}:{TLS_PORT} HTTP/1.1");
    ensure!(asked.trim() == connect, "the proxy was asked for {asked}");
    Ok(())
}

/// Returns the configuration of a daemon that reaches GitHub through the proxy alone.
fn hidden(more: &str) -> Config {
    let mut config = small(&format!("https://{HIDDEN}:{TLS_PORT}"));
    let proxy = format!("\nproxy = {{ url = \"http://{GITHUB}:{PROXY_PORT}\" }}\n{more}");
    config.login.push_str(&proxy);
    config
}
