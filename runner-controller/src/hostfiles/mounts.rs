//! The socket and the service of the holder of mounts.

use std::path::Path;

use super::file::{CLOSED_KERNEL, HostFile, UNPRIVILEGED, quoted};
use crate::config::Config;

/// Socket to which `connect` sends the mounts of a container.
pub const MOUNTS_SOCKET: &str = "runner-controller-mounts.socket";
/// Service that holds them.
pub const MOUNTS_SERVICE: &str = "runner-controller-mounts.service";

/// Descriptors for a slot: a namespace and eight processes of a container that lives, and a connection.
const DESCRIPTORS_PER_SLOT: u64 = 10;
/// Threads for a slot: two that free the files of ended runners.
const THREADS_PER_SLOT: u64 = 2;
/// Memory for a slot: the stacks and the kernel's part of these threads, and the descriptors.
const BYTES_PER_SLOT: u64 = 128 << 10;
/// Memory of the program itself, of which it uses a tenth.
const BYTES: u64 = 32 << 20;

pub(super) fn files(config: &Config, binary: &Path) -> Vec<HostFile> {
    vec![
        HostFile::unit(MOUNTS_SOCKET, socket(config)),
        HostFile::unit(MOUNTS_SERVICE, service(config, binary)),
    ]
}

fn socket(config: &Config) -> String {
    let path = config.mounts_socket();
    let path = path.display();
    let waiting = config.slots_count();
    format!(
        "\
[Unit]
Description=Mounts of CI runners
# The daemon wants it, so it starts with the daemon. Containers outlive `systemctl isolate`, and so does it.
IgnoreOnIsolate=yes

[Socket]
ListenSequentialPacket={path}
# Only root's program `connect` sends mounts. It never waits, and a runner starts without the socket, too.
SocketMode=0600
RemoveOnStop=yes
Backlog={waiting}
"
    )
}

fn service(config: &Config, binary: &Path) -> String {
    let binary = quoted(binary);
    let slots = config.slots_count();
    let descriptors = 64 + slots * DESCRIPTORS_PER_SLOT;
    let tasks = 8 + slots * THREADS_PER_SLOT;
    let memory = BYTES + slots * BYTES_PER_SLOT;
    format!(
        "\
[Unit]
Description=Removal of the files of ended CI runners
# A socket does not start while its service runs, so both stop together.
Requires={MOUNTS_SOCKET}
IgnoreOnIsolate=yes

[Service]
# The kernel frees the files of a runner in the process that drops the last reference to its mounts. This
# process drops it, so that no slot waits. A restart is harmless: it frees what ended, and slots whose
# containers run wait as they would without it.
Type=exec
ExecStart={binary} hold-mounts
StandardInput=socket
StandardOutput=journal
StandardError=journal
# Beside the slices of the pools, with a tenth of the weight of one of them. If no controller divides
# the processor, the niceness is a tenth of a process's weight.
Slice=runners.slice
CPUWeight=10
Nice=10
# The kernel does not interrupt the removal of files.
TimeoutStopSec=5min

# A descriptor of a mount namespace gives no access to it without CAP_SYS_ADMIN.
DynamicUser=yes
{UNPRIVILEGED}
PrivateNetwork=yes
{CLOSED_KERNEL}
ProcSubset=pid
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
# Only for the journal.
RestrictAddressFamilies=AF_UNIX
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
UMask=0777
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @chown @ipc @keyring @memlock
SystemCallErrorNumber=EPERM
# By the number of slots.
LimitNOFILE={descriptors}
TasksMax={tasks}
MemoryMax={memory}
LimitCORE=0
"
    )
}
