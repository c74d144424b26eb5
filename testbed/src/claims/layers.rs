//! Every kind of image and of writable layer, in an organisation.

use anyhow::{Context, Result, ensure};
use github_sim::{Conclusion, JobState};
use status::{JobResult, RunnerStatus, Verdict};

use super::common::{
    SOON, await_busy, await_no_strangers, await_verdict, ensure_says, finish_held, in_container,
};
use super::fixture::{Fixture, one};
use super::suite::{Suite, suite};
use crate::config::{Config, Image, Pool};
use crate::image;
use crate::lab::Lab;
use crate::sim::pool_job;

/// Pools of every kind of image and layer, in an organisation.
pub(super) const FIXTURE: Fixture = Fixture {
    name: "images and layers",
    config: |lab| config(lab).map(Some),
    await_ready: super::fixture::await_settled,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    every_kind_of_image_and_layer_runs_jobs,
    a_store_is_read_only_and_of_the_containers_ids,
    a_layer_is_as_large_as_configured_and_no_larger,
    a_job_that_fills_its_layer_fails_with_its_log_and_its_listener_ends_well,
    every_job_log_says_where_the_job_ran,
    the_runners_own_directory_is_never_on_disk,
    a_disk_layer_is_removed_with_its_runner,
];

/// Names of the pools and of the jobs' labels.
pub(super) const POOLS: [&str; 4] = ["mem", "disk", "nixmem", "nixdisk"];
/// Pools with a layer on disk.
const ON_DISK: [&str; 2] = ["disk", "nixdisk"];
/// Size of every layer in MiB, which is enough to boot.
const LAYER_MIB: u64 = 96;

/// Returns one pool of each kind.
fn config(lab: &Lab) -> Result<Config> {
    let (system, store) = image::store(lab.host())?;
    let nixos = Image::Nixos { system, store };
    let mut config = Config::small(lab.sim().api_url());
    config.url = "https://github.com/acme".into();
    config.reconcile = "2s".into();
    let pools = POOLS.iter().zip(0..).map(|(name, offset)| {
        let mut pool: Pool = one(name, offset);
        pool.layer_size = format!("{LAYER_MIB} MiB");
        if ON_DISK.contains(name) {
            pool.layer = "disk";
        }
        if name.starts_with("nix") {
            pool.image = nixos.clone();
        }
        pool
    });
    config.pools = pools.collect();
    Ok(config)
}

/// Runs one job in every pool at once, and returns the output of each.
fn in_all(lab: &Lab, script: &str) -> Result<Vec<(&'static str, String)>> {
    let jobs = POOLS.map(|pool| pool_job(pool, pool, script));
    let ids = lab.sim().queue_all(&jobs)?;
    POOLS
        .into_iter()
        .zip(ids)
        .map(|(pool, id)| {
            let job = lab
                .sim()
                .await_success(id, SOON)
                .with_context(|| pool.to_owned())?;
            await_verdict(lab, &job.runner_name.unwrap_or_default(), Verdict::JobDone)?;
            Ok((pool, job.facts.log_tail))
        })
        .collect()
}

fn every_kind_of_image_and_layer_runs_jobs(lab: &mut Lab) -> Result<()> {
    for _ in 0..2 {
        for (pool, said) in in_all(
            lab,
            "id -un; systemctl is-system-running; pwd; touch mine /tmp/mine",
        )? {
            ensure_says(&said, &["runner", "/home/runner/work"])
                .with_context(|| pool.to_owned())?;
        }
    }
    await_no_strangers(lab)
}

fn a_store_is_read_only_and_of_the_containers_ids(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    for pool in ["nixmem", "nixdisk"] {
        let look = "stat -c %u /nix/store/*/userland/usr/bin/env; \
                    touch /nix/store/mine /nix/store/*/mine 2>&1; ls /nix/store | wc -l";
        let said = in_container(lab, &format!("{pool}-1"), &["sh", "-c", look])?;
        ensure_says(&said, &["Read-only file system"]).with_context(|| pool.to_owned())?;
        let lines: Vec<&str> = said.lines().collect();
        ensure!(
            lines.first() == Some(&"0") && lines.last() == Some(&"1"),
            "{pool}: {said}"
        );
    }
    Ok(())
}

fn a_layer_is_as_large_as_configured_and_no_larger(lab: &mut Lab) -> Result<()> {
    let script = "set +e; for dir in /home/runner/work /tmp; do\n\
                  head -c 300M /dev/zero 2>&1 >$dir/fill | tail -n 1\n\
                  echo \"wrote $(stat -c %s $dir/fill)\"; rm $dir/fill\n\
                  done\n\
                  mkdir many; i=0; while [ $i -lt 100000 ]; do : >many/$i || break; i=$((i + 1)); done\n\
                  echo \"made $(ls many | wc -l)\"";
    for (pool, said) in in_all(lab, script)? {
        let wrote: Vec<u64> = said
            .lines()
            .filter_map(|line| line.strip_prefix("wrote ")?.parse().ok())
            .collect();
        let mib = 1 << 20;
        ensure!(
            wrote.len() == 2
                && wrote
                    .iter()
                    .all(|bytes| (LAYER_MIB / 2 * mib..=LAYER_MIB * mib).contains(bytes)),
            "{pool}: {said}"
        );
        // A tmpfs may have one inode for each page, and an ext4 one for each 16 KiB
        // (mke2fs.conf(5)).
        let made: Option<u64> = said
            .lines()
            .find_map(|line| line.strip_prefix("made ")?.parse().ok());
        ensure!(
            said.matches("No space left on device").count() == 3
                && made.is_some_and(|files| (1000..=LAYER_MIB << 8).contains(&files)),
            "{pool}: {said}"
        );
    }
    Ok(())
}

fn a_job_that_fills_its_layer_fails_with_its_log_and_its_listener_ends_well(
    lab: &mut Lab,
) -> Result<()> {
    let bytes = "head -c 1G /dev/zero >fill";
    let inodes = "mkdir many; i=0; while : >many/$i; do i=$((i + 1)); done; false";
    for script in [bytes, inodes] {
        let jobs = POOLS.map(|pool| pool_job(pool, pool, script));
        for id in lab.sim().queue_all(&jobs)? {
            let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
            let told = job.conclusion == Some(Conclusion::Failure)
                && job.facts.log_tail.contains("No space left on device")
                && job.facts.log_tail.contains("exit code 1");
            ensure!(told, "{}: {}", job.summary(), job.facts.log_tail);
            let name = job.runner_name.context("a job has a runner")?;
            let ended = await_verdict(lab, &name, Verdict::JobDone)?;
            ensure!(ended.result == Some(JobResult::Failed), "{ended:?}");
        }
    }
    await_no_strangers(lab)
}

fn every_job_log_says_where_the_job_ran(lab: &mut Lab) -> Result<()> {
    for (pool, said) in in_all(lab, "ls -l /opt/actions-runner/.setup_info || true")? {
        let lines = [
            "Host: testhost",
            &format!("Pool: {pool}"),
            &format!("Slot: {pool}-"),
            "Network: the internet",
            "Timeout: ",
        ];
        ensure_says(&said, &lines).with_context(|| pool.to_owned())?;
    }
    Ok(())
}

/// A job that makes up a word, writes it to the runner's directory and to the work folder, and
/// waits. The word is only there, and in halves in the job's log.
const WORDS: &str = "word() { od -An -N16 -tx1 /dev/urandom | tr -d ' \\n'; }\n\
                     own=$(word); work=$(word)\n\
                     for i in $(seq 1000); do echo $own; done >/opt/actions-runner/words\n\
                     for i in $(seq 1000); do echo $work; done >words\n\
                     sync\n\
                     echo \"own ${own:0:16} ${own:16}\"; echo \"work ${work:0:16} ${work:16}\"\n\
                     touch /tmp/written; until [ -e /tmp/go ]; do sleep 0.05; done";

fn the_runners_own_directory_is_never_on_disk(lab: &mut Lab) -> Result<()> {
    let jobs = ON_DISK.map(|pool| pool_job(pool, pool, WORDS));
    let ids = lab.sim().queue_all(&jobs)?;
    let busy: Vec<RunnerStatus> = ids
        .iter()
        .map(|id| await_busy(lab, *id))
        .collect::<Result<_>>()?;
    let mut images = Vec::new();
    for runner in &busy {
        let wait = "until [ -e /tmp/written ]; do sleep 0.05; done; stat -f -c %T /opt/actions-runner; \
                    grep ' /opt/actions-runner ' /proc/self/mountinfo";
        in_container(lab, &runner.machine(), &["timeout", "20", "sh", "-c", wait])?;
    }
    for device in lab.disk_images()? {
        images.push(lab.host().run(&[
            "grep",
            "--text",
            "--only-matching",
            "--extended-regexp",
            "^[0-9a-f]{32}$",
            &device,
        ])?);
    }
    ensure!(images.len() == 2, "{} disk images", images.len());
    let images = images.concat();
    for (id, runner) in ids.iter().zip(&busy) {
        let job = finish_held(lab, *id, runner)?;
        let word = |name: &str| {
            job.facts.log_tail.lines().find_map(|line| {
                let (first, second) = line.strip_prefix(name)?.trim().split_once(' ')?;
                Some(format!("{first}{second}"))
            })
        };
        let (memory, disk) = word("own ")
            .zip(word("work "))
            .context("it said no words")?;
        ensure!(
            images.contains(&disk),
            "{}: the work folder is on no disk",
            job.name
        );
        ensure!(
            !images.contains(&memory),
            "{}: the runner's own directory is on disk",
            job.name
        );
    }
    Ok(())
}

fn a_disk_layer_is_removed_with_its_runner(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let devices = lab.disk_images()?;
    ensure!(devices.len() == 2, "loop devices: {devices:?}");
    let layers = lab.host().run(&["ls", "-A", &lab.host().layer_dir()])?;
    ensure!(layers.is_empty(), "a layer has a name: {layers}");
    lab.host()
        .run(&["runner-controller", "drain", "--wait", "--timeout", "30s"])?;
    lab.await_nothing_left(SOON)?;
    lab.api("POST", "/undrain")?;
    lab.await_settled(SOON).map(drop)
}
