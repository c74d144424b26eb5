//! Directories of the host that jobs share, and the variables, devices and capabilities that a pool gives to its
//! jobs.

use anyhow::{Context, Result, ensure};
use status::Verdict;

use super::common::{SOON, as_its_root, await_verdict, ensure_says, in_container, stop_all};
use super::fixture::{Fixture, one};
use super::suite::{Suite, suite};
use super::trust::fail_to_start;
use crate::config::{Config, Image};
use crate::image;
use crate::lab::Lab;
use crate::sim::pool_job;

/// Pools that share directories of the host. `ci` and `nixos` write to one, and `pr` only reads it.
const FIXTURE: Fixture = Fixture {
    name: "shared directories",
    config: |lab| config(lab).map(Some),
    await_ready: super::fixture::await_settled,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    jobs_get_the_variables_of_their_pool,
    jobs_of_all_pools_share_a_directory_of_the_host,
    a_shared_directory_gives_a_container_no_right_of_root,
    a_pool_opens_devices_to_the_users_of_its_jobs,
    a_pool_opens_a_capability_to_programs_that_have_it,
    a_directory_that_others_can_replace_is_not_shared,
];

/// Directories of the host: one of a user without a name, and one of root. The host's own root may be an
/// overlay, which supports no ID-mapped mounts.
const DIRECTORIES: &str = "mkdir -p /srv/shared && { mountpoint -q /srv/shared || mount -t tmpfs -o mode=0755 shared /srv/shared; }\n\
     rm -rf /srv/shared/* && mkdir /srv/shared/cache /srv/shared/models\n\
     chown 4711:4712 /srv/shared/cache\n\
     echo weights >/srv/shared/models/model && echo private >/srv/shared/models/private\n\
     chmod 0600 /srv/shared/models/private";
const BINDS: &str = "binds = [{ from = \"/srv/shared/cache\", to = \"/var/cache/shared\", read_only = false }, \
     { from = \"/srv/shared/models\", to = \"/mnt/deep/models\" }]\n";
const READ_ONLY: &str = "binds = [{ from = \"/srv/shared/cache\", to = \"/var/cache/shared\" }]\n";
/// A variable whose value has every character that a file of systemd may change.
const VARIABLES: &str = "environment = { GIVEN = 'a \"b\" $c `d` \\e #f %g', RUNNER_TOOL_CACHE = \"/home/runner/tools\" }\n";

fn config(lab: &Lab) -> Result<Config> {
    lab.host().sh(DIRECTORIES)?;
    let (system, store) = image::store(lab.host())?;
    let mut config = Config::small(lab.sim().api_url());
    config.reconcile = "2s".into();
    lab.host().sh(NODES)?;
    let nixos = Image::Nixos { system, store };
    let mut pools = [
        one("ci", 0),
        one("pr", 8),
        one("nixos", 16),
        one("open", 24),
    ];
    pools[2].image = nixos;
    pools[3].more = OPENED.into();
    for pool in &mut pools[..3] {
        let binds = if pool.name == "pr" { READ_ONLY } else { BINDS };
        pool.more = format!("{VARIABLES}{binds}");
    }
    config.pools = pools.into();
    Ok(config)
}

/// Runs one job in a pool until its runner has ended, and returns its output.
fn run_in(lab: &Lab, pool: &str, script: &str) -> Result<String> {
    let id = lab.sim().queue(&pool_job(pool, pool, script))?;
    let job = lab.sim().await_success(id, SOON);
    let job = job.with_context(|| pool.to_owned())?;
    await_verdict(lab, &job.runner_name.unwrap_or_default(), Verdict::JobDone)?;
    Ok(job.facts.log_tail)
}

fn jobs_get_the_variables_of_their_pool(lab: &mut Lab) -> Result<()> {
    let script = "echo \"given: [$GIVEN]\"; echo \"tools: [$RUNNER_TOOL_CACHE]\"";
    for pool in ["ci", "nixos"] {
        let said = run_in(lab, pool, script)?;
        let wanted = [
            "given: [a \"b\" $c `d` \\e #f %g]\n",
            "tools: [/home/runner/tools]\n",
        ];
        ensure_says(&said, &wanted).with_context(|| pool.to_owned())?;
        // Other services of the container do not have them.
        lab.await_settled(SOON)?;
        let machine = format!("{pool}-1");
        let others = as_its_root(lab, &machine, "env; systemctl show-environment")?;
        ensure!(!others.contains("GIVEN"), "{others}");
    }
    Ok(())
}

fn jobs_of_all_pools_share_a_directory_of_the_host(lab: &mut Lab) -> Result<()> {
    let shared = "cd /var/cache/shared";
    let write = format!(
        "{shared} && echo from $(hostname) >made && mkdir below && echo owner: $(stat -c %U:%G . made below)\n\
         cat /mnt/deep/models/model\n\
         cat /mnt/deep/models/private 2>&1 || true\n\
         touch /mnt/deep/models/new 2>&1 || true"
    );
    let said = run_in(lab, "ci", &write)?;
    ensure_says(
        &said,
        &[
            "owner: runner:runner runner:runner runner:runner\n",
            "weights\n",
            "private: Permission denied\n",
            "new': Read-only file system\n",
        ],
    )?;
    // A job of another slot, with other ids and another image, is the same user of the host.
    let append = format!("{shared} && echo from another image >>made && rmdir below && cat made");
    let said = run_in(lab, "nixos", &append)?;
    ensure_says(&said, &["from testhost-ci-1\nfrom another image\n"])?;
    let owners = lab.host().sh("stat -c '%u:%g %F' /srv/shared/cache/*")?;
    ensure!(owners == "4711:4712 regular file\n", "{owners}");
    let read = format!("{shared} && cat made; touch new 2>&1 || true; rm -f made 2>&1 || true");
    let said = run_in(lab, "pr", &read)?;
    ensure_says(
        &said,
        &[
            "from another image\n",
            "new': Read-only file system\n",
            "'made': Read-only file system\n",
        ],
    )
}

fn a_shared_directory_gives_a_container_no_right_of_root(lab: &mut Lab) -> Result<()> {
    lab.host().sh(
        "cd /srv/shared/cache && echo secret >of-root && chmod 0600 of-root\n\
         cp /bin/true setuid && chmod 4755 setuid",
    )?;
    lab.await_settled(SOON)?;
    let attempts = "exec 2>&1; set +e\n\
         cd /var/cache/shared\n\
         touch of-its-root; cat of-root; chown root setuid; chmod 4755 setuid\n\
         mknod null c 1 3\n\
         mount -o remount,bind,rw /mnt/deep/models && echo writable\n\
         mount -o remount,bind,suid,dev /var/cache/shared && echo unlocked\n\
         umount /var/cache/shared && echo unmounted\n\
         setpriv --reuid=runner --regid=runner --init-groups touch of-the-user && echo made\n\
         findmnt --noheadings --output OPTIONS /var/cache/shared\n\
         findmnt --noheadings --output OPTIONS /mnt/deep/models";
    for pool in ["ci", "nixos"] {
        let said = as_its_root(lab, &format!("{pool}-1"), attempts)?;
        ensure_says(
            &said,
            &[
                "'of-its-root': Value too large for defined data type\n",
                "of-root: Permission denied\n",
                "ownership of 'setuid': Value too large for defined data type\n",
                "permissions of 'setuid': Value too large for defined data type\n",
                "null: Value too large for defined data type\n",
                "made\n",
            ],
        )
        .with_context(|| pool.to_owned())?;
        for word in ["writable", "unlocked", "unmounted"] {
            ensure!(!said.contains(word), "{pool}: {said}");
        }
        let flags: Vec<&str> = said.lines().rev().take(2).collect();
        ensure!(
            flags[1].starts_with("rw,nosuid,nodev") && flags[0].starts_with("ro,nosuid,nodev"),
            "{pool}: {said}"
        );
        lab.host().run(&["rm", "/srv/shared/cache/of-the-user"])?;
    }
    // The mount point's new parents belong to root in the container, and not to the host's.
    let parents = ["stat", "-c", "%u", "/mnt/deep", "/mnt/deep/models/.."];
    let owners = in_container(lab, "ci-1", &parents)?;
    ensure!(owners == "0\n0\n", "{owners}");
    lab.host()
        .sh("cd /srv/shared/cache && rm of-root setuid")
        .map(drop)
}

/// Nodes of the test host, as a host with these modules has them.
const NODES: &str = "mkdir -p /dev/net\n\
     for node in 'kvm 232' 'fuse 229' 'net/tun 200'; do set -- $node\n\
     [ -c /dev/$1 ] || mknod -m 0600 /dev/$1 c 10 $2; done";
const OPENED: &str = "devices = [\"/dev/kvm\", \"/dev/fuse\", \"/dev/net/tun\"]\n\
     capabilities = [\"CAP_NET_RAW\"]\n";

/// Uses each device as the job's user: the version of KVM's interface, a tunnel in a network namespace of the job,
/// and a file system that its root mounts.
const USE_DEVICES: &str = include_str!("shared/devices.py");

fn a_pool_opens_devices_to_the_users_of_its_jobs(lab: &mut Lab) -> Result<()> {
    let script = format!("cat >devices.py <<'END'\n{USE_DEVICES}\nEND\npython3 devices.py");
    let said = run_in(lab, "open", &script)?;
    let wanted = ["kvm: version 12\n", "fuse: open\n", "tun: made job0\n"];
    ensure_says(&said, &wanted)?;
    let said = run_in(lab, "ci", &script)?;
    let closed = ["kvm: closed\n", "fuse: closed\n", "tun: closed\n"];
    ensure_says(&said, &closed)?;
    lab.await_settled(SOON)?;
    // The nodes are the only ones that its root can open, and it makes no other.
    let nodes = "exec 2>&1; set +e\n\
         exec 3<>/dev/fuse && mkdir -p /tmp/m && \
         mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 served /tmp/m && echo mounted && umount -l /tmp/m\n\
         mknod /tmp/loop b 7 0 || echo no node\n\
         find / -xdev -type b 2>/dev/null | grep . || echo no disks\n\
         for file in /dev/* /dev/net/*; do [ ! -c $file ] || stat -c '%n %a' $file; done";
    let said = as_its_root(lab, "open-1", nodes)?;
    ensure_says(
        &said,
        &[
            "mounted\n",
            "no node\n",
            "no disks\n",
            "/dev/fuse 666\n",
            "/dev/kvm 666\n",
            "/dev/net/tun 666\n",
        ],
    )
}

fn a_pool_opens_a_capability_to_programs_that_have_it(lab: &mut Lab) -> Result<()> {
    // CAP_NET_RAW as permitted and effective (struct vfs_cap_data in linux/capability.h).
    let prepare = "cp $(readlink -f $(command -v python3)) /tmp/raw && chmod 0755 /tmp/raw\n\
         python3 -c 'import os, struct; \
         os.setxattr(\"/tmp/raw\", \"security.capability\", struct.pack(\"<5I\", 0x2000001, 1 << 13, 0, 0, 0))'\n\
         grep CapBnd /proc/self/status\n\
         setpriv --reuid=runner --regid=runner --init-groups /tmp/raw -c \
         'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print(\"raw socket\")' 2>&1";
    lab.await_settled(SOON)?;
    let said = as_its_root(lab, "open-1", prepare)?;
    let mask = super::limits::KEPT
        .iter()
        .fold(1_u64 << 13, |mask, bit| mask | 1 << bit);
    ensure_says(&said, &["raw socket\n", &format!("CapBnd:\t{mask:016x}\n")])?;
    let said = as_its_root(lab, "ci-1", &format!("{prepare} || true"))?;
    ensure_says(&said, &["Operation not permitted"])?;
    ensure!(!said.contains("raw socket"), "{said}");
    Ok(())
}

/// Changes of the host, the scripts that undo them, and the launcher's words.
const FAULTS: [(&str, &str, &str); 6] = [
    (
        "chown 4711 /srv/shared",
        "chown root /srv/shared",
        "/srv/shared belongs to uid 4711; it must belong to root",
    ),
    (
        "chmod o+w /srv/shared",
        "chmod o-w /srv/shared",
        "/srv/shared has mode 0757; only root may write it",
    ),
    (
        "mv /srv/shared/cache /srv/shared/real && ln -s real /srv/shared/cache",
        "rm /srv/shared/cache && mv /srv/shared/real /srv/shared/cache",
        "open /srv/shared/cache as a directory without following a symlink",
    ),
    (
        "chown root:4712 /srv/shared/cache",
        "chown 4711 /srv/shared/cache",
        "/srv/shared/cache belongs to root, so jobs cannot write to it",
    ),
    (
        "chgrp root /srv/shared/cache",
        "chgrp 4712 /srv/shared/cache",
        "/srv/shared/cache belongs to the group of root",
    ),
    (
        "chown runner-controller /srv/shared/cache",
        "chown 4711 /srv/shared/cache",
        "/srv/shared/cache belongs to runner-controller",
    ),
];

fn a_directory_that_others_can_replace_is_not_shared(lab: &mut Lab) -> Result<()> {
    stop_all(lab)?;
    for (done, undone, words) in FAULTS {
        lab.host().sh(done)?;
        let said = fail_to_start(lab, "runner-ci@1.service");
        lab.host().sh(undone)?;
        said.and_then(|said| ensure_says(&said, &[words, "status=92/"]))
            .context(done)?;
    }
    lab.start()?;
    lab.await_settled(SOON).map(drop)
}
