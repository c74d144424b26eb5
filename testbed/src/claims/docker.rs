//! Jobs that use Docker in their container, and the access that this does not give them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use github_sim::JobView;
use status::{PhaseKind, Status, Verdict};

use super::common::{
    as_its_root, await_busy, await_verdict, ensure_says, finish_held, in_container,
};
use super::fixture::{Fixture, one};
use super::suite::{Suite, suite};
use crate::config::{Config, Image};
use crate::image;
use crate::lab::Lab;
use crate::net::{METADATA, NEIGHBOUR, UPLINK};
use crate::sim::pool_job;

/// Pools whose jobs have Docker, and two whose jobs do not.
pub(super) const FIXTURE: Fixture = Fixture {
    name: "docker",
    config: |lab| config(lab).map(Some),
    await_ready: super::fixture::await_settled,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    a_docker_daemon_waits_for_its_first_client,
    jobs_run_docker_containers_on_a_bridge,
    jobs_build_docker_images_with_both_builders,
    jobs_with_docker_container_steps_run,
    dockers_storage_is_in_the_layer_and_ends_with_it,
    docker_opens_two_system_calls_and_six_capabilities,
    bridged_packets_of_the_host_pass_its_firewall_by,
];

/// Pools with Docker, one for each kind of layer. The image of the second one is minimal.
pub(super) const POOLS: [&str; 2] = ["ci", "disk"];
/// Size of every layer, in MiB.
const LAYER_MIB: u64 = 256;
/// Timeout for a job that starts Docker's daemon, which takes two seconds on an idle machine.
const SOON: Duration = Duration::from_mins(2);

pub(super) const BASE: &str = include_str!("docker/base.sh");
const RUN: &str = include_str!("docker/run.sh");
const BUILD: &str = include_str!("docker/build.sh");
const STEP: &str = include_str!("docker/step.sh");
const CALLS: &str = include_str!("docker/calls.c");

/// Returns two pools with Docker, one with Docker's rights and a compiler instead, one without either, and
/// one with the image of the first one and one core. The second one also has a spare.
fn config(lab: &Lab) -> Result<Config> {
    let image = Image::Directory(image::with_docker(lab.host())?);
    let mut config = Config::small(lab.sim().api_url());
    config.reconcile = "2s".into();
    let mut pools: Vec<_> = ["ci", "disk", "opened", "plain", "bounded"]
        .iter()
        .zip([0, 8, 16, 24, 32])
        .map(|(name, offset)| one(name, offset))
        .collect();
    for pool in &mut pools {
        pool.docker = !["plain", "bounded"].contains(&pool.name.as_str());
        if pool.name == "bounded" {
            pool.image = image.clone();
            pool.layer_size = "512 MiB".into();
            pool.cpu = Some(1);
        }
        if POOLS.contains(&pool.name.as_str()) {
            pool.image = image.clone();
            pool.layer_size = format!("{LAYER_MIB} MiB");
        }
        if pool.name == "disk" {
            pool.layer = "disk";
            pool.image = Image::Directory(image::with_docker_minimal(lab.host())?);
            (pool.min_spare, pool.max_runners) = (1, 2);
        }
    }
    config.pools = pools;
    Ok(config)
}

/// Returns the machine of a pool's runner in a phase.
pub(super) fn in_phase(status: &Status, pool: &str, phase: PhaseKind) -> Result<String> {
    let runners = status.in_phase(phase);
    let mut machines = runners.iter().map(|runner| runner.machine());
    machines
        .find(|machine| machine.starts_with(&format!("{pool}-")))
        .with_context(|| format!("{pool} has no runner that is {phase}"))
}

/// Runs one job until it has succeeded and its runner has ended, and returns the job.
pub(super) fn run_in(lab: &Lab, pool: &str, script: &str) -> Result<JobView> {
    let id = lab.sim().queue(&pool_job(pool, pool, script))?;
    let job = lab
        .sim()
        .await_success(id, SOON)
        .with_context(|| pool.to_owned())?;
    let runner = job.runner_name.as_deref().unwrap_or_default();
    await_verdict(lab, runner, Verdict::JobDone)?;
    Ok(job)
}

/// Runs a job in every pool with Docker, and checks its output.
pub(super) fn in_each(lab: &Lab, script: &str, check: impl Fn(&str) -> Result<()>) -> Result<()> {
    for pool in POOLS {
        let job = run_in(lab, pool, &format!("{BASE}\n{script}"))?;
        check(&job.facts.log_tail).with_context(|| pool.to_owned())?;
    }
    Ok(())
}

fn a_docker_daemon_waits_for_its_first_client(lab: &mut Lab) -> Result<()> {
    let status = lab.await_settled(SOON)?;
    for pool in POOLS {
        let look = "until systemctl --quiet is-active multi-user.target; do sleep 0.05; done; \
                    systemctl is-active docker.socket docker.service containerd.service; \
                    systemctl is-system-running";
        let machine = in_phase(&status, pool, PhaseKind::Idle)?;
        let said = as_its_root(lab, &machine, &format!("{look} || true"))?;
        ensure!(said == "active\ninactive\ninactive\nrunning\n", "{said}");
    }
    Ok(())
}

fn jobs_run_docker_containers_on_a_bridge(lab: &mut Lab) -> Result<()> {
    let closed = [METADATA, NEIGHBOUR, UPLINK];
    let script = format!("CLOSED='{}'\n{RUN}", closed.join(" "));
    in_each(lab, &script, |said| {
        ensure_says(
            said,
            &[
                "driver overlay2",
                &format!("bridged you are {UPLINK}"),
                "\nhello\n",
            ],
        )?;
        for address in closed {
            ensure_says(said, &[&format!("closed {address}")])?;
        }
        Ok(())
    })
}

fn jobs_build_docker_images_with_both_builders(lab: &mut Lab) -> Result<()> {
    in_each(lab, BUILD, |said| {
        for kit in 0..2 {
            let lines = [
                format!("kit {kit}: FROM THE CONTEXT"),
                format!("kit {kit}: you are {UPLINK}"),
            ];
            ensure_says(said, &lines.each_ref().map(String::as_str))?;
        }
        Ok(())
    })
}

fn jobs_with_docker_container_steps_run(lab: &mut Lab) -> Result<()> {
    in_each(lab, STEP, |said| {
        ensure_says(
            said,
            &[
                &format!("step in /__w with /github/home as 0: you are {UPLINK}"),
                "service served",
                "outside made",
                "action sees made",
            ],
        )
    })
}

/// Fills Docker's storage beyond the layer, and leaves a container, an image and a volume.
const LEAVE: &str = "docker volume create left >/dev/null\n\
     docker run --log-driver none -v left:/left base sh -c \
     'dd if=/dev/zero of=/left/fill bs=1M count=1024; echo \"left $?\"; rm /left/fill' 2>&1\n\
     docker run --detach --restart always base sleep 600 >/dev/null\n\
     touch /tmp/left; until [ -e /tmp/go ]; do sleep 0.05; done";

fn dockers_storage_is_in_the_layer_and_ends_with_it(lab: &mut Lab) -> Result<()> {
    for pool in POOLS {
        let job = pool_job(pool, pool, &format!("{BASE}\n{LEAVE}"));
        let id = lab.sim().queue(&job)?;
        let busy = await_busy(lab, id)?;
        let wait =
            "until [ -e /tmp/left ]; do sleep 0.05; done; df --output=size -B 1M /var/lib/docker";
        let said = in_container(lab, &busy.machine(), &["timeout", "90", "sh", "-c", wait])?;
        let mib: u64 = said
            .lines()
            .last()
            .and_then(|line| line.trim().parse().ok())
            .with_context(|| said.clone())?;
        ensure!(mib <= LAYER_MIB, "{pool}: docker has {mib} MiB");
        let job = finish_held(lab, id, &busy)?;
        ensure_says(
            &job.facts.log_tail,
            &["No space left on device", "\nleft 1\n"],
        )
        .with_context(|| pool.to_owned())?;
        await_verdict(
            lab,
            job.runner_name.as_deref().unwrap_or_default(),
            Verdict::JobDone,
        )?;
        let next = run_in(
            lab,
            pool,
            "echo \"there is: $(docker ps -aq; docker images -q; docker volume ls -q)\"",
        )?;
        ensure_says(&next.facts.log_tail, &["there is: \n"]).with_context(|| pool.to_owned())?;
    }
    Ok(())
}

fn docker_opens_two_system_calls_and_six_capabilities(lab: &mut Lab) -> Result<()> {
    let probe = format!(
        "cat >calls.c <<'END'\n{CALLS}\nEND\ngcc -w -o /tmp/calls calls.c\n\
         touch /tmp/made; until [ -e /tmp/go ]; do sleep 0.05; done"
    );
    let mut refused = Vec::new();
    let mut bounding = Vec::new();
    for pool in ["plain", "opened"] {
        let id = lab.sim().queue(&pool_job(pool, pool, &probe))?;
        let busy = await_busy(lab, id)?;
        let said = as_its_root(
            lab,
            &busy.machine(),
            "until [ -e /tmp/made ]; do sleep 0.05; done; /tmp/calls; grep CapBnd /proc/self/status",
        )?;
        // The numbers differ between x86-64 and other machines, so the compiler provides them.
        let numbers = said
            .lines()
            .find(|line| line.starts_with("add_key "))
            .with_context(|| said.clone())?;
        let wanted: BTreeSet<u32> = numbers
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let calls: BTreeSet<u32> = said
            .lines()
            .filter_map(|line| line.strip_prefix("refused ")?.parse().ok())
            .collect();
        let bound = said
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:\t"))
            .with_context(|| said.clone())?;
        refused.push((calls, wanted));
        bounding.push(u64::from_str_radix(bound, 16)?);
        finish_held(lab, id, &busy)?;
    }
    let [(plain, wanted), (opened, _)] = &refused[..] else {
        anyhow::bail!("two pools");
    };
    let more: BTreeSet<u32> = plain.symmetric_difference(opened).copied().collect();
    ensure!(more == *wanted && plain.is_superset(&more), "{more:?}");
    // MKNOD, NET_ADMIN, NET_RAW, AUDIT_WRITE, IPC_LOCK, SYS_NICE of capabilities(7).
    let six = [27, 12, 13, 29, 14, 23]
        .iter()
        .fold(0_u64, |set, bit| set | 1 << bit);
    ensure!(
        bounding[1] & !bounding[0] == six && bounding[0] & !bounding[1] == 0,
        "{bounding:x?}"
    );
    Ok(())
}

/// The switches of `br_netfilter` are on in every new network namespace. A boot and `apply` read the file
/// that turns them off on the host.
fn bridged_packets_of_the_host_pass_its_firewall_by(lab: &mut Lab) -> Result<()> {
    let read = "cd /proc/sys/net/bridge && cat bridge-nf-call-iptables bridge-nf-call-ip6tables bridge-nf-call-arptables";
    lab.host()
        .run(&["/usr/lib/systemd/systemd-sysctl", "--prefix=/net/bridge"])?;
    let host = lab.host().sh(read)?;
    ensure!(host == "0\n0\n0\n", "the host's switches: {host}");
    let control = lab.host().run(&["unshare", "--net", "sh", "-c", read])?;
    ensure!(control == "1\n1\n1\n", "a new namespace: {control}");
    Ok(())
}
