//! Steps of workflows in a container: those that work on GitHub's own machines, in an image with the tools that
//! those have.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::common::ensure_says;
use super::docker::{FIXTURE, in_each, run_in};
use super::suite::{Suite, suite};
use crate::lab::Lab;
use crate::sim::pool_job;

pub(super) const SUITE: Suite = suite![FIXTURE;
    a_container_resolves_its_name_and_keeps_the_images_hosts,
    a_directory_of_the_image_can_be_renamed,
    a_job_logs_in_over_ssh_at_its_container,
    a_job_has_a_runtime_directory_and_a_user_manager_on_request,
    a_scheduled_shutdown_waits,
    a_job_locks_memory,
    docker_containers_lock_memory_and_get_two_more_capabilities,
    docker_starts_containers_with_an_init,
    dockers_containerd_image_store_works,
    runtimes_see_the_limit_of_cores,
    docker_containers_do_not_see_the_jobs_quota,
    podman_and_buildah_run_as_root_in_docker_pools,
    rootless_podman_is_refused_its_ids,
    devices_of_the_host_cannot_be_opened,
    a_program_with_a_foreign_file_capability_runs_as_a_copy,
];

/// Pool with the same image, without Docker and with one core.
const BOUNDED: &str = "bounded";
/// Timeout for a job that compiles with a cold cache on a busy machine.
const COMPILED: Duration = Duration::from_mins(4);

const SESSION: &str = include_str!("inside/session.sh");
const LOGIN: &str = include_str!("inside/login.sh");
const CORES: &str = include_str!("inside/cores.sh");
const PODMAN: &str = include_str!("inside/podman.sh");
const ROOTLESS: &str = include_str!("inside/rootless.sh");
const INIT: &str = include_str!("inside/init.sh");

fn a_container_resolves_its_name_and_keeps_the_images_hosts(lab: &mut Lab) -> Result<()> {
    // The resolver outside answers for every name, with another address.
    let script = "cat >Name.java <<'END'\n\
         public class Name { public static void main(String[] a) throws Exception { \
         System.out.println(\"java: \" + java.net.InetAddress.getLocalHost()); } }\n\
         END\n\
         echo \"name: $(getent hosts \"$(hostname)\" | tr -s ' ')\"\n\
         echo \"image: $(getent hosts ip6-allnodes | tr -s ' ')\"\n\
         echo \"sudo: $(sudo true 2>&1)\"\n\
         java Name.java";
    let job = run_in(lab, "ci", script)?;
    let name = "testhost-ci-1";
    ensure_says(
        &job.facts.log_tail,
        &[
            &format!("name: 127.0.1.1 {name}\n"),
            "image: ff02::1 ip6-allnodes\n",
            "sudo: \n",
            &format!("java: {name}/127.0.1.1\n"),
        ],
    )
}

fn a_directory_of_the_image_can_be_renamed(lab: &mut Lab) -> Result<()> {
    // mv(1) would copy where rename(2) fails, and so would hide the failure.
    let script = "before=$(find /usr/share/perl5 -type f | wc -l)\n\
         sudo perl -e 'rename(\"/usr/share/perl5\", \"/usr/share/renamed\") or die \"rename: $!\\n\"'\n\
         [ ! -e /usr/share/perl5 ] && [ \"$before\" -gt 9 ]\n\
         [ \"$(find /usr/share/renamed -type f | wc -l)\" = \"$before\" ]\n\
         find /usr/share/renamed -type f -exec cat {} + >/dev/null\n\
         sudo perl -e 'rename(\"/usr/share/renamed/Debconf\", \"/home/runner/moved\") or die \"rename: $!\\n\"'\n\
         sudo touch /home/runner/moved/new\n\
         echo \"owners: $(find /usr/share/renamed /home/runner/moved -printf '%U\\n' | sort -u)\"\n\
         echo \"moved: $(find /home/runner/moved -name '*.pm' | wc -l)\"";
    for pool in ["ci", "disk", BOUNDED] {
        let job = run_in(lab, pool, script)?;
        let said = &job.facts.log_tail;
        ensure_says(said, &["owners: 0\n"]).with_context(|| pool.to_owned())?;
        ensure!(!said.contains("moved: 0\n"), "{pool}: {said}");
    }
    Ok(())
}

fn a_job_logs_in_over_ssh_at_its_container(lab: &mut Lab) -> Result<()> {
    in_both(lab, LOGIN, &["logged in as runner\n"])
}

fn a_job_has_a_runtime_directory_and_a_user_manager_on_request(lab: &mut Lab) -> Result<()> {
    in_both(
        lab,
        SESSION,
        &[
            "directory: /run/user/1001 runner 700\n",
            "managed as runner in /run/user/1001\n",
        ],
    )
}

fn a_scheduled_shutdown_waits(lab: &mut Lab) -> Result<()> {
    let script = "sudo shutdown +60 2>&1\n\
         busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \
         ScheduledShutdown\n\
         sudo shutdown -c 2>&1\n\
         echo \"still here: $(systemctl is-system-running)\"";
    in_both(
        lab,
        script,
        &["(st) \"poweroff\" ", "still here: running\n"],
    )
}

/// Runs a job in a stock and in a minimal image, and checks its output.
fn in_both(lab: &Lab, script: &str, words: &[&str]) -> Result<()> {
    for pool in [BOUNDED, "disk"] {
        let job = run_in(lab, pool, script)?;
        ensure_says(&job.facts.log_tail, words).with_context(|| pool.to_owned())?;
    }
    Ok(())
}

/// Locks a page, and says the limit.
const LOCK: &str = "perl -e '$page = \"x\" x 4096; \
     printf \"mlock %s\\n\", syscall(149, $page, 4096) ? $! : \"done\"'; \
     echo \"limit $(ulimit -Hl)\"";

fn a_job_locks_memory(lab: &mut Lab) -> Result<()> {
    // The number of mlock(2) differs between machines.
    let lock = LOCK.replace("149", MLOCK);
    for pool in ["plain", "ci"] {
        let job = run_in(lab, pool, &lock)?;
        ensure_says(&job.facts.log_tail, &["mlock done\n", "limit 8192\n"])
            .with_context(|| pool.to_owned())?;
    }
    Ok(())
}

/// Number of mlock(2) (asm/unistd.h).
const MLOCK: &str = if cfg!(target_arch = "x86_64") {
    "149"
} else {
    "228"
};

fn docker_containers_lock_memory_and_get_two_more_capabilities(lab: &mut Lab) -> Result<()> {
    // A test host may have a lower maximum than the pool allows. `cargo verify --only qemu` shows that there
    // is none.
    let most = lab.host().sh("ulimit -Hl")?;
    let most = most.trim().parse::<u64>().ok();
    let (asked, locked) = most.map_or(("-1".to_owned(), "unlimited".to_owned()), |kib| {
        ((kib << 10).to_string(), kib.to_string())
    });
    let script = "docker run --rm --cap-add=IPC_LOCK --cap-add=SYS_NICE base \
         sh -c 'echo \"capabilities $(grep CapEff /proc/self/status | cut -f2)\"'\n\
         docker run --rm --ulimit memlock=$ASKED:$ASKED base sh -c 'echo \"locked $(ulimit -l)\"'";
    in_each(lab, &format!("ASKED={asked}\n{script}"), |said| {
        ensure_says(said, &[&format!("locked {locked}\n")])?;
        let set = said
            .lines()
            .find_map(|line| line.strip_prefix("capabilities "))
            .with_context(|| said.to_owned())?;
        // Bits of capabilities(7).
        let two = 1_u64 << 14 | 1 << 23;
        ensure!(u64::from_str_radix(set, 16)? & two == two, "{set}");
        Ok(())
    })
}

fn docker_starts_containers_with_an_init(lab: &mut Lab) -> Result<()> {
    in_each(lab, INIT, |said| {
        ensure_says(
            said,
            &["run: docker-init\n", "compose: docker-init", "exit: 3\n"],
        )
    })
}

/// Selects the image store that is Docker's default since version 29, before the daemon starts.
const OTHER_STORE: &str = "sudo mkdir -p /etc/docker\n\
     echo '{ \"features\": { \"containerd-snapshotter\": true } }' | sudo tee /etc/docker/daemon.json >/dev/null\n";
/// Builds an image and runs it, with a file that its first layer has.
const USE_STORE: &str = "echo \"store: $(docker info --format '{{.DriverStatus}}')\"\n\
     printf 'FROM base\\nRUN echo built >/made\\n' | docker build --quiet --tag built - >/dev/null\n\
     docker run --rm built sh -c 'cat /made; rm /bin/cat && echo removed'\n\
     sudo du -s /var/lib/containerd | sed 's/^/used: /'";

fn dockers_containerd_image_store_works(lab: &mut Lab) -> Result<()> {
    for pool in super::docker::POOLS {
        let base = super::docker::BASE;
        let job = run_in(lab, pool, &format!("{OTHER_STORE}{base}\n{USE_STORE}"))?;
        ensure_says(
            &job.facts.log_tail,
            &[
                "store: [[driver-type io.containerd.snapshotter.v1]]",
                "built\n",
                "removed\n",
            ],
        )
        .with_context(|| pool.to_owned())?;
    }
    Ok(())
}

fn podman_and_buildah_run_as_root_in_docker_pools(lab: &mut Lab) -> Result<()> {
    for pool in super::docker::POOLS {
        let said = run_in(lab, pool, PODMAN)?.facts.log_tail;
        ensure_says(
            &said,
            &["podman runs what buildah built\n", "driver: overlay\n"],
        )
        .with_context(|| pool.to_owned())?;
    }
    Ok(())
}

fn rootless_podman_is_refused_its_ids(lab: &mut Lab) -> Result<()> {
    let said = run_in(lab, "ci", ROOTLESS)?.facts.log_tail;
    ensure_says(&said, &["newuidmap", "rootless: no container\n"])
}

/// Opens four devices of the host, as root, after an attempt to create their nodes.
const DEVICES: &str = "for device in 'kvm 232' 'fuse 229' 'net/tun 200' 'loop-control 237'; do\n\
     set -- $device\n\
     sudo mknod \"/dev/$1\" c 10 \"$2\" 2>/dev/null || true\n\
     sudo sh -c \"test -c /dev/$1 && exec 3<>/dev/$1\" 2>/dev/null && echo \"$1: open\" || echo \"$1: closed\"\n\
     done";

fn devices_of_the_host_cannot_be_opened(lab: &mut Lab) -> Result<()> {
    for pool in ["ci", BOUNDED] {
        let said = run_in(lab, pool, DEVICES)?.facts.log_tail;
        for device in ["kvm", "fuse", "net/tun", "loop-control"] {
            ensure_says(&said, &[&format!("{device}: closed\n")])
                .with_context(|| pool.to_owned())?;
        }
    }
    Ok(())
}

fn runtimes_see_the_limit_of_cores(lab: &mut Lab) -> Result<()> {
    let id = lab.sim().queue(&pool_job("cores", BOUNDED, CORES))?;
    let job = lab.sim().await_success(id, COMPILED)?;
    let said = &job.facts.log_tail;
    // With one core, the machine's own number would be no proof.
    ensure!(
        !said.contains("online: 0\n"),
        "this machine has one core, so a limit of one shows nothing: {said}"
    );
    ensure_says(said, &["nproc: 1\n", "go: 1\n"])?;
    // These read the control group, which a test host has only where the machine's controllers are free.
    // `cargo verify --only qemu` shows the quota there.
    if said.contains("quota: 100000 100000\n") {
        ensure_says(said, &["node: 1\n", "java: 1\n"])?;
    } else {
        ensure_says(said, &["quota: none\n"])?;
    }
    Ok(())
}

fn docker_containers_do_not_see_the_jobs_quota(lab: &mut Lab) -> Result<()> {
    // A control group namespace for each container, and only the environment that is asked for.
    let script = "export OMP_NUM_THREADS=1 GOMAXPROCS=1\n\
         docker run --rm --env GOMAXPROCS base sh -c 'echo \"group $(grep ^0:: /proc/self/cgroup | cut -d: -f3) \
         threads ${OMP_NUM_THREADS-none} ${GOMAXPROCS-none}\"'";
    in_each(lab, script, |said| {
        ensure_says(said, &["group / threads none 1\n"])
    })
}

fn a_program_with_a_foreign_file_capability_runs_as_a_copy(lab: &mut Lab) -> Result<()> {
    // CAP_NET_RAW as permitted and effective (struct vfs_cap_data in linux/capability.h).
    let script = "cp /bin/echo raw\n\
         sudo python3 -c 'import os, struct; \
         os.setxattr(\"raw\", \"security.capability\", struct.pack(\"<5I\", 0x2000001, 1 << 13, 0, 0, 0))'\n\
         ./raw with it 2>&1 || echo \"status $?\"\n\
         cp raw copy\n\
         ./copy without it";
    let said = run_in(lab, BOUNDED, script)?.facts.log_tail;
    ensure_says(
        &said,
        &["Operation not permitted", "status 126\n", "without it\n"],
    )?;
    // With Docker's capabilities, the program runs.
    ensure_says(&run_in(lab, "ci", script)?.facts.log_tail, &["with it\n"])
}
