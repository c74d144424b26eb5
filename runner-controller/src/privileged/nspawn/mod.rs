//! The arguments of `systemd-nspawn`, computed from plain values.

mod capabilities;
pub(crate) mod families;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::rootfs::{Rootfs, STORE, SharedDir, StoreMount, hostname};
use crate::config::{Image, MINIMAL_TARGET, Place, ProxyConfig, SharedLimit};

/// Directory of the slot's sockets in the container.
const SOCKETS: &str = "/run/runner";
/// Directory of pseudo terminals in the container.
const TERMINALS: &str = "/dev/pts";

/// Settings for which nspawn has environment variables and no options.
pub(crate) const ENVIRONMENT: [(&str, &str); 3] = [
    // No other container uses this root, so it needs no lock. A SIGKILL would leave the lock file.
    ("SYSTEMD_NSPAWN_LOCK", "0"),
    // nspawn's tmpfs on /tmp has a tenth of the host's memory. In the layer, /tmp has the layer's limit.
    ("SYSTEMD_NSPAWN_TMPFS_TMP", "0"),
    ("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1"),
];

/// System calls that no container has. systemd 257 refuses all of them by default. 258 allows keyrings,
/// which are charged to users of the host.
const REFUSED: [&str; 17] = [
    "add_key",
    "bpf",
    "fanotify_init",
    "fanotify_mark",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "modify_ldt",
    "nfsservctl",
    "open_by_handle_at",
    "perf_event_open",
    "quotactl",
    "quotactl_fd",
    "request_key",
    "swapoff",
    "swapon",
];

/// System calls that every container has. systemd-nspawn allows them only with `CAP_IPC_LOCK`. The limit of
/// locked memory and the container's memory bound them.
const ALLOWED: [&str; 5] = ["mlock", "mlock2", "mlockall", "munlock", "munlockall"];

/// System calls that a container has where `docker = true`: runc makes a session keyring for each
/// container.
const FOR_DOCKER: [&str; 2] = ["add_key", "keyctl"];

/// Locked memory of a process where `docker = true`, in bytes, and no maximum for it. Elsewhere the same number
/// is the maximum, which is the kernel's default. A container of Docker may raise the limit, as with
/// `--ulimit memlock=-1:-1`. The memory of the job's container bounds it, and no container has swap.
const LOCKED_MEMORY_FOR_DOCKER: &str = "RLIMIT_MEMLOCK=8388608:infinity";

/// Arguments of the container's PID 1.
///
/// The console goes to the host's journal, which should have the runner's lines. The messages of the
/// boot are in the container's journal.
const INIT_ARGUMENTS: [&str; 3] = [
    "systemd.show_status=no",
    "systemd.log_level=notice",
    // GitHub's listener then exits with 100 and the number of its job's result, and without it with 0
    // whatever the result. The start record says that the listener has it (`returns_result`).
    "systemd.setenv=ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED=1",
];

/// Returns all arguments, without the program name.
pub(crate) fn arguments(place: Place<'_>, tree: &Rootfs) -> Vec<OsString> {
    let mut list = List::default();
    list.flag("--quiet");
    // Ignores a .nspawn file with the machine's name on the host.
    list.option("--settings", "no");
    list.option("--machine", place.id().to_string());
    list.option("--hostname", hostname(place));
    list.option("--directory", &tree.root);
    // The container stays in this unit, and gets no scope.
    list.flag("--keep-unit");
    // machined opens files of a registered container. A FIFO in the place of its os-release would hang
    // machined, and with it every start.
    list.option("--register", "no");
    list.option("--notify-ready", "yes");

    // The mounts have already mapped the ids of the root's files.
    let (uid, ids) = (place.uid_first(), Place::UIDS);
    list.option("--private-users", format!("{uid}:{ids}"));
    list.option("--private-users-ownership", "off");
    let capabilities = capabilities::sets(place.pool.docker, &place.pool.capabilities);
    list.option("--capability", capabilities.kept);
    list.option("--drop-capability", capabilities.dropped);
    // A call that is refused by name stays refused, whatever a version of nspawn allows by default.
    let is_refused = |call: &&&str| !(place.pool.docker && FOR_DOCKER.contains(call));
    let refused: Vec<&str> = REFUSED.iter().filter(is_refused).copied().collect();
    list.option("--system-call-filter", format!("~{}", refused.join(" ")));
    list.option("--system-call-filter", ALLOWED.join(" "));
    if place.pool.docker {
        list.option("--system-call-filter", FOR_DOCKER.join(" "));
        list.option("--rlimit", LOCKED_MEMORY_FOR_DOCKER);
    }
    // nspawn resets limits to the kernel's defaults, whatever limits the unit has.
    let limits = &place.pool.limits;
    let files = limits.open_files;
    list.option(
        "--rlimit",
        format!("RLIMIT_NOFILE={}:{files}", files.min(1024)),
    );
    for limit in SharedLimit::ALL {
        let (name, per_user) = (limit.name, limit.per_user(&limits.shared));
        list.option("--rlimit", format!("RLIMIT_{name}={per_user}"));
    }
    // With a piped core_pattern the host writes a job's memory, secrets included, to its own disk. One
    // byte is the limit at which the kernel dumps neither to a file nor to a pipe (core(5)); with 0 it
    // would still start the program of the pipe.
    list.option("--rlimit", "RLIMIT_CORE=1");

    // nspawn would truncate the link's name at 15 characters and add a hash.
    list.option("--network-veth-extra", format!("{}:host0", place.veth()));
    list.option("--resolv-conf", "off");
    list.option("--timezone", "off");
    list.option("--link-journal", "no");
    // nspawn makes a pty and copies it to the unit's journal. With "pipe" the container would hold an
    // open file of the host.
    list.option("--console", "read-only");

    // nspawn's /dev/shm has a tenth of the host's memory. A machine with the runner's memory would
    // have half of it.
    let shared = limits.memory.0 / 2;
    list.option(
        "--tmpfs",
        format!(
            "/dev/shm:mode=1777,nosuid,nodev,size={shared},nr_inodes={}",
            (shared / 4096).max(1024)
        ),
    );

    // The runner's $XDG_RUNTIME_DIR is below. nspawn's /run has a fifth of the host's memory. logind gives a
    // user's directory a tenth of the machine's (logind.conf(5)).
    let sessions = limits.memory.0 / 10;
    list.option(
        "--tmpfs",
        format!(
            "/run/user:mode=0755,nosuid,nodev,size={sessions},nr_inodes={}",
            (sessions / 4096).max(1024)
        ),
    );

    list.bind_tree(tree, place.pool.image.runner_root());

    match &place.pool.image {
        Image::Directory { .. } => list.flag("--boot"),
        Image::Nixos { system, store, .. } => {
            // Without --boot nspawn does not treat its child as an init.
            list.option("--kill-signal", "SIGRTMIN+3");
            let within = system.strip_prefix(store).unwrap_or(system);
            list.flag(Path::new(STORE).join(within).join("init"));
        }
    }
    for argument in INIT_ARGUMENTS {
        list.flag(argument);
    }
    if tree.minimal {
        list.flag(format!("systemd.unit={MINIMAL_TARGET}"));
    }
    // For guest/start, because the container cannot see the limits of the unit.
    let mut bounds = vec![
        ("MEMORY", limits.job_memory().0),
        ("TASKS", limits.job_tasks().into()),
    ];
    bounds.extend(limits.cpu.map(|cpu| ("CPU", cpu.quota_us())));
    for (what, bound) in bounds {
        list.flag(format!("systemd.setenv=RUNNER_JOB_{what}_MAX={bound}"));
    }
    // Every service of the container gets them: the listener and its jobs, Docker's and Nix's daemons.
    for (name, value) in place.pool.proxy.iter().flat_map(ProxyConfig::environment) {
        list.flag(format!("systemd.setenv={name}={value}"));
    }
    list.0
}

#[derive(Default)]
struct List(Vec<OsString>);

impl List {
    fn flag(&mut self, flag: impl Into<OsString>) {
        self.0.push(flag.into());
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        let mut argument = OsString::from(name);
        argument.push("=");
        argument.push(value.into());
        self.0.push(argument);
    }

    /// Adds the binds of everything that the launcher mounted besides the root.
    fn bind_tree(&mut self, tree: &Rootfs, runner_root: &Path) {
        // On a read-only mount the container can connect and write to the sockets, and can create no file.
        self.bind("--bind-ro", &tree.sockets, SOCKETS);
        // In the place of nspawn's devpts, which has no limit and no part of the reserve.
        self.bind("--bind", &tree.terminals, TERMINALS);
        self.bind("--bind", &tree.runner_root, runner_root);
        for (staged, target) in &tree.docker.storage {
            self.bind("--bind", staged, target);
        }
        for (staged, target) in &tree.docker.inits {
            self.bind("--bind-ro", staged, target);
        }
        for (staged, target) in &tree.devices {
            self.bind("--bind", staged, target);
        }
        for SharedDir {
            staged,
            target,
            read_only,
        } in &tree.binds
        {
            let option = if *read_only { "--bind-ro" } else { "--bind" };
            self.bind(option, staged, target);
        }
        match &tree.store {
            None => {}
            Some(StoreMount::Shared(store)) => self.bind_mapped(store, STORE),
            Some(StoreMount::Own(store)) => self.bind("--bind", store, STORE),
        }
    }

    fn bind(&mut self, name: &str, from: &Path, to: impl AsRef<Path>) {
        let mut value = escaped(from);
        value.push(":");
        value.push(escaped(to.as_ref()));
        self.option(name, value);
    }

    fn bind_mapped(&mut self, from: &Path, to: &str) {
        let mut value = escaped(from);
        value.push(":");
        value.push(to);
        value.push(":idmap");
        self.option("--bind-ro", value);
    }
}

/// Returns a path for use in `from:to:options`, in which nspawn needs a backslash before a colon.
fn escaped(path: &Path) -> OsString {
    let text = path.to_string_lossy();
    PathBuf::from(text.replace('\\', "\\\\").replace(':', "\\:")).into_os_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Capability, Config, testing};
    use crate::privileged::rootfs::DockerMounts;

    fn tree() -> Rootfs {
        Rootfs {
            root: "/run/rc/mnt/root".into(),
            sockets: "/run/rc/mnt/sockets".into(),
            terminals: "/run/rc/mnt/terminals".into(),
            runner_root: "/run/rc/mnt/runner".into(),
            store: None,
            docker: DockerMounts::default(),
            binds: Vec::new(),
            devices: Vec::new(),
            minimal: false,
        }
    }

    fn lines(config: &Config, slot: &str, tree: &Rootfs) -> Vec<String> {
        let place = config.place(&slot.parse().unwrap()).unwrap();
        arguments(place, tree)
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_directory_image_boots_with_its_slots_names_and_numbers() {
        let got = lines(&testing::config(), "ci-3", &tree());
        let capabilities = capabilities::sets(false, &BTreeSet::new());
        let kept = format!("--capability={}", capabilities.kept);
        let dropped = format!("--drop-capability={}", capabilities.dropped);
        let refused = format!("--system-call-filter=~{}", REFUSED.join(" "));
        let allowed = format!("--system-call-filter={}", ALLOWED.join(" "));
        let wanted = [
            "--quiet",
            "--settings=no",
            "--machine=ci-3",
            "--hostname=box-ci-3",
            "--directory=/run/rc/mnt/root",
            "--keep-unit",
            "--register=no",
            "--notify-ready=yes",
            "--private-users=537001984:65536",
            "--private-users-ownership=off",
            &kept,
            &dropped,
            &refused,
            &allowed,
            "--rlimit=RLIMIT_NOFILE=1024:65536",
            "--rlimit=RLIMIT_SIGPENDING=1024",
            "--rlimit=RLIMIT_MSGQUEUE=204800",
            "--rlimit=RLIMIT_CORE=1",
            "--network-veth-extra=rc-ci-3:host0",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=read-only",
            "--tmpfs=/dev/shm:mode=1777,nosuid,nodev,size=3221225472,nr_inodes=786432",
            "--tmpfs=/run/user:mode=0755,nosuid,nodev,size=644245094,nr_inodes=157286",
            "--bind-ro=/run/rc/mnt/sockets:/run/runner",
            "--bind=/run/rc/mnt/terminals:/dev/pts",
            "--bind=/run/rc/mnt/runner:/opt/actions-runner",
            "--boot",
            "systemd.show_status=no",
            "systemd.log_level=notice",
            "systemd.setenv=ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED=1",
            "systemd.setenv=RUNNER_JOB_MEMORY_MAX=6308233216",
            "systemd.setenv=RUNNER_JOB_TASKS_MAX=3968",
            "systemd.setenv=RUNNER_JOB_CPU_MAX=150000",
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn a_minimal_image_boots_its_runner_first() {
        let minimal = Rootfs {
            minimal: true,
            ..tree()
        };
        let first = "systemd.unit=github-runner.target".to_owned();
        assert!(lines(&testing::config(), "ci-3", &minimal).contains(&first));
        assert!(!lines(&testing::config(), "ci-3", &tree()).contains(&first));
    }

    #[test]
    fn every_service_of_a_container_gets_the_pools_proxy_and_no_credentials() {
        let mut config = testing::config();
        config.pools[0].proxy = Some(ProxyConfig {
            url: "http://10.0.0.5:3128".parse().unwrap(),
            no_proxy: vec!["localhost".into(), ".lan".into()],
            credentials_file: None,
        });
        let got = lines(&config, "ci-1", &tree());
        for wanted in [
            "systemd.setenv=https_proxy=http://10.0.0.5:3128",
            "systemd.setenv=HTTP_PROXY=http://10.0.0.5:3128",
            "systemd.setenv=no_proxy=localhost,.lan",
        ] {
            assert!(got.iter().any(|line| line == wanted), "{got:?}");
        }
        // Idle runners are replaced, and pools without a proxy keep their generation.
        let without = testing::config();
        assert_ne!(config.pools[0].generation(), without.pools[0].generation());
    }

    #[test]
    fn a_nixos_image_starts_the_closures_init_from_the_bound_store() {
        let mut config = testing::config();
        config.pools[0].image = Image::Nixos {
            system: "/srv/store/abc-nixos-system-worker".into(),
            store: "/srv/store".into(),
            runner_root: "/var/lib/runner".into(),
        };
        let tree = Rootfs {
            store: Some(StoreMount::Shared("/run/rc/mnt/store".into())),
            ..tree()
        };
        let got = lines(&config, "ci-1", &tree);
        assert!(got.contains(&"--bind-ro=/run/rc/mnt/store:/nix/store:idmap".to_owned()));
        assert!(got.contains(&"--kill-signal=SIGRTMIN+3".to_owned()));
        assert!(!got.contains(&"--boot".to_owned()));
        let init = "/nix/store/abc-nixos-system-worker/init";
        let at = got.iter().position(|argument| argument == init).unwrap();
        assert!(
            got[at + 1..]
                .iter()
                .all(|argument| !argument.starts_with('-'))
        );
    }

    #[test]
    fn a_containers_own_store_is_bound_writable_and_without_mapping() {
        let tree = Rootfs {
            store: Some(StoreMount::Own("/run/rc/mnt/own-store".into())),
            ..tree()
        };
        let got = lines(&testing::config(), "ci-1", &tree);
        assert!(got.contains(&"--bind=/run/rc/mnt/own-store:/nix/store".to_owned()));
    }

    #[test]
    fn docker_gets_storage_two_system_calls_and_locked_memory() {
        let mut config = testing::config();
        config.pools[0].docker = true;
        let tree = Rootfs {
            docker: DockerMounts {
                storage: vec![("/run/rc/mnt/layer/docker".into(), "/var/lib/docker".into())],
                inits: vec![(
                    "/run/rc/mnt/docker-init-0".into(),
                    "/usr/bin/docker-init".into(),
                )],
            },
            ..tree()
        };
        let with = lines(&config, "ci-1", &tree);
        assert!(with.contains(&"--bind=/run/rc/mnt/layer/docker:/var/lib/docker".to_owned()));
        assert!(with.contains(&"--system-call-filter=add_key keyctl".to_owned()));
        let init = "--bind-ro=/run/rc/mnt/docker-init-0:/usr/bin/docker-init".to_owned();
        assert!(with.contains(&init));
        assert!(with.contains(&"--rlimit=RLIMIT_MEMLOCK=8388608:infinity".to_owned()));
        let without = lines(&testing::config(), "ci-1", &self::tree());
        let more = with.iter().filter(|argument| !without.contains(argument));
        // The binds, both filters, the limit, and the two sets of capabilities.
        assert_eq!(more.count(), 7);
    }

    #[test]
    fn a_shared_directory_is_read_only_unless_the_pool_says_otherwise() {
        let shared = |name: &str, read_only| SharedDir {
            staged: format!("/run/rc/mnt/{name}").into(),
            target: format!("/mnt/{name}").into(),
            read_only,
        };
        let tree = Rootfs {
            binds: vec![shared("models", true), shared("ccache", false)],
            ..tree()
        };
        let got = lines(&testing::config(), "ci-1", &tree);
        assert!(got.contains(&"--bind-ro=/run/rc/mnt/models:/mnt/models".to_owned()));
        assert!(got.contains(&"--bind=/run/rc/mnt/ccache:/mnt/ccache".to_owned()));
    }

    #[test]
    fn a_pool_opens_a_device_and_a_capability_and_nothing_else() {
        let mut config = testing::config();
        config.pools[0].capabilities = BTreeSet::from([Capability::NetRaw]);
        let tree = Rootfs {
            devices: vec![("/run/rc/mnt/devices/232".into(), Path::new("/dev/kvm"))],
            ..tree()
        };
        let with = lines(&config, "ci-1", &tree);
        assert!(with.contains(&"--bind=/run/rc/mnt/devices/232:/dev/kvm".to_owned()));
        let without = lines(&testing::config(), "ci-1", &self::tree());
        let more = with.iter().filter(|argument| !without.contains(argument));
        // The bind, and the two sets of capabilities.
        assert_eq!(more.count(), 3);
    }

    #[test]
    fn a_container_without_a_limit_of_cores_is_told_none() {
        let mut config = testing::config();
        config.pools[0].limits.cpu = None;
        let told = lines(&config, "ci-1", &tree());
        assert!(told.iter().all(|argument| !argument.contains("CPU_MAX")));
    }

    #[test]
    fn a_colon_in_a_path_is_escaped() {
        assert_eq!(escaped(Path::new("/a:b\\c")), "/a\\:b\\\\c");
    }
}
