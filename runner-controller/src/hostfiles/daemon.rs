//! The unit of the daemon.

use std::path::Path;

use super::file::{CLOSED_KERNEL, HostFile, Program, UNPRIVILEGED};
use super::mounts::MOUNTS_SOCKET;
use super::notify::SOCKET_UNIT;
use crate::config::{API_TOKEN_CREDENTIAL, Config, DAEMON_USER, TracesConfig, WebhookConfig};
use crate::firewall::FIREWALL_UNIT;

/// Number of file descriptors that systemd keeps for a slot: its socket, its FIFO, a waiting
/// connection, and the marker of an answered connection.
const KEPT_PER_SLOT: usize = 4;
/// Number of file descriptors that systemd keeps for the daemon, with room for later versions.
const KEPT_BESIDES: usize = 8;

pub(super) fn files(config: &Config, program: Program<'_>) -> Vec<HostFile> {
    vec![HostFile::unit(
        "runner-controller.service",
        service(config, program),
    )]
}

fn service(config: &Config, program: Program<'_>) -> String {
    let sweep = program.call("sweep-unowned");
    let run = program.call("run");
    let credentials = credentials(config);
    let (slots, api) = (config.slots_dir(), config.api_dir());
    let (slots, api) = (slots.display(), api.display());
    let kept = config.slots().count() * KEPT_PER_SLOT + KEPT_BESIDES;
    let state = state_directory(&config.state_dir);
    let notify = match &config.notify {
        Some(_) => format!("Wants={SOCKET_UNIT}\nAfter={SOCKET_UNIT}\n"),
        None => String::new(),
    };
    format!(
        "\
[Unit]
Description=Warm pool of CI runner containers
Requires=dbus.socket
After=dbus.socket network-online.target {FIREWALL_UNIT} systemd-tmpfiles-setup.service
Wants=network-online.target {FIREWALL_UNIT}
# The holder of mounts. Runners start without it, too.
After={MOUNTS_SOCKET}
Wants={MOUNTS_SOCKET}
{notify}# No start limit: a daemon that recovers late is better than a daemon that stays down.
StartLimitIntervalSec=0
# Containers outlive `systemctl isolate`, and so does the daemon that sees their ends.
IgnoreOnIsolate=yes

[Service]
# A reload is a SIGHUP. The daemon answers it, and ends if the configuration is valid; the next one starts.
Type=notify-reload
NotifyAccess=main
# Both run as root, and a failure does not stop the daemon. The first creates the directories of newly
# configured slots. The second sweeps slots that are no longer configured.
ExecStartPre=-+systemd-tmpfiles --create runner-controller.conf
ExecStartPre=-+{sweep}
ExecStart={run}
Restart=always
# The same delay each time: systemd counts restarts as long as the unit runs, so growing delays would
# punish the eighth crash of a year. In a circle of crashes, the lists of runners cost at most 1800 of the 5000
# calls that GitHub allows in an hour.
RestartSec=2s
TimeoutStartSec=60s
TimeoutStopSec=30s
WatchdogSec=30s
# Keeps the slots' sockets and waiting containers over a restart of the daemon.
FileDescriptorStoreMax={kept}
FileDescriptorStorePreserve=yes
{credentials}
User={DAEMON_USER}
Group={DAEMON_USER}
{state}
# Hardening. The exceptions and their reasons are below.
{UNPRIVILEGED}
{CLOSED_KERNEL}
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
PrivateIPC=yes
UMask=0077
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
MemoryMax=512M
TasksMax=64
LimitNOFILE=65536
# The program also marks its memory, in which the token is, as not to be dumped.
LimitCORE=0

# Exceptions from the hardening:
# The daemon creates the slots' sockets and its API socket.
ReadWritePaths={slots} {api}
# The daemon connects to GitHub, and over Unix sockets to systemd and containers. PrivateNetwork= and
# IPAddressDeny= are not possible, because GitHub's addresses change.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
# With PrivateUsers= the root users of all containers would have the uid of `nobody`. The daemon needs a
# peer's uid to identify the container that requests a JIT config.
PrivateUsers=no
# With ProcSubset=pid admission could not read the host's memory and load from /proc.
ProcSubset=all
# RootDirectory= is not possible, because the bus, journald and the slots' sockets are on the host.
# ProtectClock= leaves the real-time clock readable.

[Install]
WantedBy=multi-user.target
"
    )
}

/// Returns the credentials: for the API of each scope, the API's token, users and passwords of proxies, the
/// secrets of deliveries, and the headers for traces.
fn credentials(config: &Config) -> String {
    let logins = config.scopes.iter();
    let logins = logins.map(|scope| (scope.login_credential(), scope.login.file()));
    let token = config.api_token_file.as_deref();
    let token = token.map(|file| (API_TOKEN_CREDENTIAL.to_owned(), file));
    let proxies = config.scopes.iter().filter_map(|scope| {
        let file = scope.proxy.as_ref()?.credentials_file.as_deref()?;
        Some((scope.proxy_credential(), file))
    });
    let webhook = config.webhook.as_ref();
    let secret = webhook.map(|webhook| {
        let name = WebhookConfig::CREDENTIAL.to_owned();
        (name, webhook.secret_file.as_path())
    });
    let next = webhook.and_then(|webhook| {
        let name = WebhookConfig::NEXT_CREDENTIAL.to_owned();
        Some((name, webhook.next_secret_file.as_deref()?))
    });
    let headers = config.traces.as_ref().and_then(|traces| {
        let name = TracesConfig::CREDENTIAL.to_owned();
        Some((name, traces.headers_file.as_deref()?))
    });
    let all = logins.chain(token).chain(proxies);
    let all = all.chain(secret).chain(next).chain(headers);
    let lines = all.map(|(name, file)| format!("LoadCredential={name}:{}\n", file.display()));
    lines.collect::<Vec<_>>().concat()
}

/// Returns the setting for the state directory.
///
/// systemd creates a state directory below `/var/lib`, and tmpfiles creates one elsewhere.
fn state_directory(path: &Path) -> String {
    match path.strip_prefix("/var/lib") {
        Ok(name) => format!(
            "StateDirectory={}\nStateDirectoryMode=0700\n",
            name.display()
        ),
        Err(_) => format!("ReadWritePaths={}\n", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoginConfig, ProxyConfig, testing};

    #[test]
    fn each_scope_has_its_own_credentials() {
        let mut config = testing::config();
        let mut second = config.scopes[0].clone();
        second.login = LoginConfig::App {
            id: "1".into(),
            key_file: "/run/app".into(),
        };
        second.proxy = Some(ProxyConfig {
            url: "http://proxy:3128".parse().unwrap(),
            no_proxy: Vec::new(),
            credentials_file: Some("/run/proxy".into()),
        });
        config.api_token_file = Some("/run/api".into());
        config.traces = Some(TracesConfig {
            endpoint: "http://otel:4318".into(),
            headers_file: Some("/run/headers".into()),
        });
        config.scopes[0].name = Some("one".parse().unwrap());
        second.name = Some("two".parse().unwrap());
        config.scopes.push(second);
        assert_eq!(
            credentials(&config),
            "LoadCredential=github-token-one:/etc/runner-controller/token\n\
             LoadCredential=github-app-key-two:/run/app\n\
             LoadCredential=api-token:/run/api\n\
             LoadCredential=github-proxy-two:/run/proxy\n\
             LoadCredential=traces-headers:/run/headers\n"
        );
    }

    #[test]
    fn the_daemon_starts_again_after_the_same_short_delay_each_time() {
        let program = Program {
            binary: Path::new("/rc"),
            config: Path::new("/config"),
        };
        let unit = service(&testing::config(), program);
        let lines = unit.lines().filter(|line| {
            let growing = ["RestartSteps=", "RestartMaxDelaySec="];
            line.starts_with("Restart")
                || line.starts_with("StartLimit")
                || growing.iter().any(|key| line.starts_with(key))
        });
        let lines: Vec<&str> = lines.collect();
        assert_eq!(
            lines,
            ["StartLimitIntervalSec=0", "Restart=always", "RestartSec=2s"]
        );
    }
}
