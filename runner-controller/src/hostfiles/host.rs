//! Files for the daemon's user, its permissions at systemd, directories, and the kernel.

use std::fmt::Write;

use super::file::HostFile;
use crate::config::{
    AioRequests, Config, Connections, DAEMON_USER, LOG_BUNDLES_DIR, Terminals, UserTable,
    host_maximum, network_settings,
};

pub(super) fn files(config: &Config) -> Vec<HostFile> {
    vec![
        HostFile::new(
            "/etc/polkit-1/rules.d/50-runner-controller.rules",
            polkit(config),
        ),
        HostFile::new("/etc/tmpfiles.d/runner-controller.conf", tmpfiles(config)),
        HostFile::new("/etc/sysusers.d/runner-controller.conf", sysusers(config)),
        HostFile::new("/etc/sysctl.d/60-runner-controller.conf", sysctl(config)),
        HostFile::new(
            "/etc/modules-load.d/runner-controller.conf",
            modules(config),
        ),
        HostFile::new(
            "/etc/systemd/network/00-runner-controller.network",
            NETWORKD.to_owned(),
        ),
        HostFile::new(
            "/etc/systemd/network/00-runner-controller.link",
            UDEV.to_owned(),
        ),
        HostFile::new(
            "/etc/NetworkManager/conf.d/00-runner-controller.conf",
            NETWORK_MANAGER.to_owned(),
        ),
    ]
}

/// Keeps systemd-networkd off the runners' links. It uses the first file that matches, in the order of names,
/// and removes addresses that are not in it.
const NETWORKD: &str = "\
# The launcher gives these links their addresses. A later file for all links must not take them.
[Match]
Name=rc-*

[Link]
Unmanaged=yes
";

/// Keeps udev from renaming the runners' links, because the firewall's rules name them.
const UDEV: &str = "\
[Match]
OriginalName=rc-*

[Link]
NamePolicy=keep
MACAddressPolicy=none
";

/// Keeps `NetworkManager` off the runners' links. A section for these links adds to other files' lists, and
/// `unmanaged-devices` would replace them.
const NETWORK_MANAGER: &str = "\
# The launcher gives these links their addresses.
[device-runner-controller]
match-device=interface-name:rc-*
managed=0
";

fn polkit(config: &Config) -> String {
    let pools: Vec<String> = config
        .pools
        .iter()
        .map(|pool| format!("    \"{}\": {}", pool.name, pool.max_runners))
        .collect();
    let pools = pools.join(",\n");
    format!(
        r#"// Requests of the runner controller's daemon that systemd accepts: to start the units of configured
// slots, and to stop and kill any unit with the name of a slot's unit. Slots and pools that were
// configured before have such units, until the daemon ends those without a job. Everything else is
// refused, whatever other rules say.

var runnerSlots = {{
{pools}
}};

polkit.addRule(function (action, subject) {{
    if (subject.user != "{DAEMON_USER}") {{
        return polkit.Result.NOT_HANDLED;
    }}
    if (action.id != "org.freedesktop.systemd1.manage-units") {{
        return polkit.Result.NO;
    }}
    var verb = action.lookup("verb");
    // One spelling for each slot: no leading zeros, nothing before or after.
    var unit = /^runner-([a-z][a-z0-9]{{0,7}})@([1-9][0-9]{{0,2}})\.service$/.exec(action.lookup("unit"));
    if (unit === null) {{
        return polkit.Result.NO;
    }}
    if (verb == "stop" || verb == "kill") {{
        return polkit.Result.YES;
    }}
    var configured = runnerSlots.hasOwnProperty(unit[1]) && Number(unit[2]) <= runnerSlots[unit[1]];
    // The verb is "start" for a transient unit as well, and such a unit runs any command as root. Only
    // the message tells the two apart (polkit_message_for_job in systemd's src/core/dbus-unit.c).
    var plain = action.lookup("polkit.message") == "Authentication is required to start '$(unit)'.";
    return configured && verb == "start" && plain ? polkit.Result.YES : polkit.Result.NO;
}});
"#
    )
}

fn tmpfiles(config: &Config) -> String {
    let run = config.run_dir.display();
    let slots = config.slots_dir();
    let records = config.records_dir();
    let api = config.api_dir();
    let layers = config.layer_dir.display();
    let mut text = format!(
        "\
# The parents belong to root, so that no other user can replace a slot's directory.
d {run} 0755 root root -
d {slots} 0750 root {DAEMON_USER} -
d {records} 0750 root {DAEMON_USER} -
# The API's socket. It has no socket unit, because a status request must not start a stopped daemon.
d {api} 0750 {DAEMON_USER} {DAEMON_USER} -
L+ {run}/api.sock - - - - {api}/api.sock
# Root's report of the firewall check. Every user may read it.
d {firewall} 0755 root root -
# Launchers mount here, each in its own mount namespace. On the host it stays empty.
d {mnt} 0700 root root -
# The directories of runners in memory, from the start of a container until its sweep.
d {own} 0700 root root -
# Writable layers on disk, with the files of jobs.
d {layers} 0700 root root -
# Log files of listeners, with secrets removed. The daemon's group may read them. systemd removes old ones.
d {bundles} 2750 root {DAEMON_USER} m:{age}s
",
        slots = slots.display(),
        records = records.display(),
        api = api.display(),
        firewall = config.firewall_dir().display(),
        mnt = config.mount_dir().display(),
        own = config.own_dirs().display(),
        bundles = LOG_BUNDLES_DIR,
        age = config.logs.age.as_secs(),
    );
    if config.state_dir.strip_prefix("/var/lib").is_err() {
        let state = config.state_dir.display();
        let _ = writeln!(text, "d {state} 0700 {DAEMON_USER} {DAEMON_USER} -");
    }
    text += "\n# For each slot: the daemon's sockets, and root's records.\n";
    for slot in config.slots() {
        let slots = slots.display();
        let records = records.display();
        let _ = writeln!(text, "d {slots}/{slot} 0755 {DAEMON_USER} {DAEMON_USER} -");
        let _ = writeln!(text, "d {records}/{slot} 0750 root {DAEMON_USER} -");
    }
    text
}

fn sysusers(config: &Config) -> String {
    format!(
        "u {DAEMON_USER} - \"Runner controller\" {}\n",
        config.state_dir.display()
    )
}

fn sysctl(config: &Config) -> String {
    let mut text = String::from(
        "\
# Runners reach the internet through this host. Other rules decide what else the host forwards.
net.ipv4.ip_forward = 1

# The kernel counts the objects of all containers for the host's root as well. Each container has its own
# maximum and its memory; these maxima are above what the memory of all configured slots can hold.
",
    );
    let maximum = host_maximum(config);
    for table in UserTable::ALL {
        // The dash is for kernels that do not have the setting.
        let _ = writeln!(text, "-{} = {maximum}", table.sysctl);
    }
    let _ = writeln!(
        text,
        "\n# Connections of the host, and the part of each slot.\n-{} = {}",
        Connections::SYSCTL,
        Connections::host_maximum(config)
    );
    let _ = writeln!(
        text,
        "\n# Pseudo terminals of the host and the part of each slot, which are reserved, and of everything else.\n\
         {} = {}\n{} = {}",
        Terminals::SYSCTL,
        Terminals::host_maximum(config),
        Terminals::RESERVE,
        Terminals::host_reserve(config)
    );
    let _ = writeln!(
        text,
        "\n# Requests of asynchronous I/O: more than the memory of all configured slots can hold.\n-{} = {}",
        AioRequests::SYSCTL,
        AioRequests::host_maximum(config)
    );
    text += "
# Orphaned TCP sockets and buffers of sockets: more than the memory of all configured slots can hold. The
# number of neighbours and the memory for fragments of packets grow with the slots. A host in a container has
# only the last of these settings.
";
    for (setting, value) in network_settings(config) {
        let _ = writeln!(text, "-{setting} = {value}");
    }
    if has_docker(config) {
        text += "
# The module br_netfilter, which docker in containers may need, sends the host's bridged packets through the
# host's firewall, those of virtual machines included. Each container has its own switches. A host that needs
# them on, such as one of Kubernetes, sets them in a file whose name comes later.
-net.bridge.bridge-nf-call-iptables = 0
-net.bridge.bridge-nf-call-ip6tables = 0
-net.bridge.bridge-nf-call-arptables = 0
";
    }
    text
}

fn has_docker(config: &Config) -> bool {
    config.pools.iter().any(|pool| pool.docker)
}

fn modules(config: &Config) -> String {
    let mut text = String::from(
        "\
# Modules for containers. The unit that starts a container does not load them, and a container cannot.
loop
nf_conntrack
nf_conntrack_netlink
nf_nat
nft_chain_nat
nft_connlimit
nft_fib_inet
nft_limit
nft_masq
overlay
veth
",
    );
    if has_docker(config) {
        text += "\
# Modules for docker in containers: its bridge, and its iptables rules.
br_netfilter
bridge
nft_compat
xt_MASQUERADE
xt_addrtype
xt_conntrack
xt_nat
xt_tcpudp
";
    }
    text
}
