//! Containers that cannot become runners, and jobs that take too long, beside a pool that
//! works.

use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use github_sim::{Conclusion, Endpoint, Fault, JobState};
use status::{FailureKind, PhaseKind, Status, Verdict};

use super::common::{SOON, await_verdict, ensure_says, machine_of};
use super::fixture::{Fixture, one};
use super::suite::{Suite, suite};
use crate::config::{Config, Image, Pool};
use crate::image;
use crate::lab::Lab;
use crate::readings::summary;
use crate::sim::pool_job;
use crate::wait::{Seen, wait_until};

/// Pools that cannot work, each for another reason, beside one that works.
pub(super) const FIXTURE: Fixture = Fixture {
    name: "broken pools",
    config: |lab| config(lab).map(Some),
    await_ready,
};

pub(super) const SUITE: Suite = suite![FIXTURE;
    a_refusing_launcher_is_a_boot_failure_with_its_reason,
    an_init_that_dies_is_a_boot_failure,
    an_image_that_never_asks_is_a_boot_timeout,
    a_pool_that_cannot_boot_disturbs_no_other,
    a_job_past_its_time_fails_at_github,
    a_runner_that_never_comes_online_is_replaced,
    a_repaired_pool_works_again,
    a_removed_pool_ends_a_container_that_hangs,
];

/// Link that starts the runner's unit when an image boots.
const WANTS: &str = "etc/systemd/system/multi-user.target.wants/github-runner.service";
const INIT: &str = "usr/lib/systemd/systemd";

/// Makes the images, and returns a pool for each. Pool `late` works.
fn config(lab: &Lab) -> Result<Config> {
    let host = lab.host();
    image::variant(host, "gone", |root| {
        std::fs::remove_file(root.join(INIT)).context("take its init away")
    })?;
    image::variant(host, "dead", |root| {
        let init = root.join(INIT);
        std::fs::remove_file(&init)?;
        std::fs::write(&init, "#!/bin/sh\nexit 9\n")?;
        std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755))?;
        Ok(())
    })?;
    image::variant(host, "mute", |root| {
        std::fs::remove_file(root.join(WANTS)).context("take its runner's unit away")
    })?;
    Ok(pools(lab))
}

/// Returns the pools with the existing images.
fn pools(lab: &Lab) -> Config {
    let pool = |name: &str, offset: u16| Pool {
        image: Image::Directory(image::inside(name)),
        ..one(name, offset)
    };
    let mut mute = pool("mute", 2);
    mute.timeouts = vec![("boot", "3s".into())];
    let mut late = one("late", 3);
    late.timeouts
        .extend([("job", "2s".into()), ("registration", "4s".into())]);
    let mut config = Config::small(lab.sim().api_url());
    config.reconcile = "2s".into();
    config.pools = vec![pool("gone", 0), pool("dead", 1), mute, late];
    config
}

/// Waits for the pool that works. The others are never ready.
fn await_ready(lab: &Lab) -> Result<()> {
    lab.await_status("an idle runner of the pool that works", SOON, |status| {
        let pool = status.pool("late")?;
        (pool.phases.get(&PhaseKind::Idle) == Some(&1)).then_some(())
    })
}

/// Waits until two boots of a pool have failed with this verdict and exit, and checks that
/// status and health give the reason.
fn await_failures(lab: &Lab, pool: &str, verdict: Verdict, exit: &str, reason: &str) -> Result<()> {
    let find = |status: &Status| {
        let backoff = status.pool(pool)?.backoffs.first()?.clone();
        let ended = status
            .recent
            .iter()
            .find(|ended| ended.slot.to_string() == format!("{pool}-1"))?;
        (backoff.failures >= 2).then(|| (backoff, ended.clone()))
    };
    let (backoff, ended) = lab.await_status(&format!("two failed boots of {pool}"), SOON, find)?;
    ensure!(
        backoff.failure == FailureKind::Boot && ended.verdict == verdict,
        "{backoff:?}; {ended:?}"
    );
    ensure_says(&ended.exit.unwrap_or_default(), &[exit, reason])?;
    ensure_says(&backoff.reason, &[&format!("{pool}-1"), verdict.as_ref()])?;
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 503, "healthy all the same: {health:?}");
    ensure_says(
        &health.body,
        &[&format!("pool {pool} has no runner"), verdict.as_ref()],
    )?;
    let status = lab.look()?;
    let counted = status
        .pool(pool)
        .and_then(|pool| pool.verdicts.get(&verdict).copied())
        .unwrap_or_default();
    ensure!(counted >= 2, "{}", summary(&status));
    ensure!(
        status
            .pool(pool)
            .is_some_and(|pool| pool.verdicts.len() == 1),
        "{}",
        summary(&status)
    );
    Ok(())
}

fn a_refusing_launcher_is_a_boot_failure_with_its_reason(lab: &mut Lab) -> Result<()> {
    await_failures(lab, "gone", Verdict::BootFailed, "status 81", "image")?;
    let words = "systemd userland in";
    lab.await_status("the launcher's reason in the status", SOON, |status| {
        let backoff = status.pool("gone")?.backoffs.first()?;
        backoff.reason.contains(words).then_some(())
    })?;
    // The launcher's message is in the unit's journal, too.
    ensure_says(
        &lab.journal("runner-gone@1.service", 20),
        &["systemd userland"],
    )
}

fn an_init_that_dies_is_a_boot_failure(lab: &mut Lab) -> Result<()> {
    await_failures(lab, "dead", Verdict::BootFailed, "status 9", "status 9")
}

fn an_image_that_never_asks_is_a_boot_timeout(lab: &mut Lab) -> Result<()> {
    await_failures(lab, "mute", Verdict::BootTimeout, "", "")
}

fn a_pool_that_cannot_boot_disturbs_no_other(lab: &mut Lab) -> Result<()> {
    for _ in 0..2 {
        let id = lab.sim().queue(&pool_job("well", "late", "true"))?;
        let job = lab.sim().await_success(id, SOON)?;
        await_verdict(lab, &job.runner_name.unwrap_or_default(), Verdict::JobDone)?;
    }
    // The backoff bounds the number of boots.
    let status = lab.look()?;
    for pool in ["gone", "dead"] {
        let pool = status.pool(pool).context("a pool is missing")?;
        let backoff = pool.backoffs.first().context("it does not wait")?;
        ensure!(
            backoff.failures < 10,
            "{} boots were tried: {}",
            backoff.failures,
            summary(&status)
        );
    }
    Ok(())
}

fn a_job_past_its_time_fails_at_github(lab: &mut Lab) -> Result<()> {
    let long = pool_job(
        "too long",
        "late",
        "trap 'echo heard; exit 1' INT; sleep 600 & wait",
    );
    let id = lab.sim().queue(&long)?;
    let job = lab.sim().await_job(id, JobState::Completed, SOON)?;
    ensure!(
        job.conclusion == Some(Conclusion::Failure),
        "GitHub heard: {}",
        job.summary()
    );
    let name = job.runner_name.context("it had a runner")?;
    let ended = await_verdict(lab, &name, Verdict::JobTimeout)?;
    ensure!(
        ended.job_ms.is_some_and(|ms| (2000..10_000).contains(&ms)),
        "its job ran {:?} ms",
        ended.job_ms
    );
    ensure!(machine_of(&name) == "late-1", "{name}");
    await_ready(lab)?;
    ensure!(
        !lab.sim().registered()?.contains(&name),
        "{name} is still registered"
    );
    Ok(())
}

fn a_runner_that_never_comes_online_is_replaced(lab: &mut Lab) -> Result<()> {
    await_ready(lab)?;
    lab.sim()
        .fault(Endpoint::Token, Some(1), &Fault::Delay { ms: 60_000 })?;
    let id = lab.sim().queue(&pool_job("before", "late", "true"))?;
    lab.sim().await_success(id, SOON)?;
    let ended = lab.await_status("a runner that was not seen online", SOON, |status| {
        let mut recent = status.recent.iter();
        recent
            .find(|ended| ended.verdict == Verdict::RegistrationTimeout)
            .cloned()
    })?;
    let name = ended.runner.context("it was registered")?;
    // The daemon asked GitHub first, because the runner might have had a job.
    ensure!(
        !lab.sim().registered()?.contains(&name),
        "{name} is still registered"
    );
    await_ready(lab)
}

fn a_repaired_pool_works_again(lab: &mut Lab) -> Result<()> {
    image::variant(lab.host(), "gone", |_| Ok(()))?;
    lab.api("POST", "/undrain")?;
    let id = lab.sim().queue(&pool_job("mended", "gone", "true"))?;
    lab.sim().await_success(id, SOON)?;
    lab.await_status("no more trouble with it", SOON, |status| {
        status.pool("gone")?.backoffs.is_empty().then_some(())
    })
}

fn a_removed_pool_ends_a_container_that_hangs(lab: &mut Lab) -> Result<()> {
    let all = pools(lab);
    let patient = all.clone().with("mute", |pool| {
        pool.timeouts = vec![("boot", "1h".into())];
    });
    reconfigure(lab, &patient)?;
    let mute = wait_until("a container that hangs", SOON, || {
        let status = lab.look()?;
        let runner = status.machine("mute-1").cloned();
        // A daemon that adopts it cannot know that it never got a config. The daemon before may
        // have ended it in its last moment.
        let runner = runner.filter(|runner| {
            matches!(runner.phase, PhaseKind::Booting | PhaseKind::Registering)
                && runner.invocation.is_some()
        });
        let up = lab.show("runner-mute@1.service", "ActiveState")? == "active";
        Ok(match runner {
            Some(runner) if up => Seen::Done(runner),
            runner => Seen::NotYet(format!("{runner:?}, up: {up}")),
        })
    })?;
    let mut fewer = patient;
    fewer.pools.retain(|pool| pool.name != "mute");
    reconfigure(lab, &fewer)?;
    // The last daemon may have answered it at its end. So two of GitHub's lists must lack it,
    // and a list counts half a minute after the registration.
    let ended = lab.await_status("its end", 3 * SOON, |status| {
        let mut recent = status.recent.iter();
        let ended = recent.find(|ended| ended.slot == mute.slot)?;
        (ended.verdict == Verdict::ScaledDown).then(|| ended.clone())
    })?;
    ensure!(ended.runner.is_none(), "{ended:?}");
    ensure!(
        lab.show(&mute.unit, "ActiveState")? != "active",
        "{} runs on",
        mute.unit
    );
    reconfigure(lab, &all)?;
    await_ready(lab)
}

/// Installs a configuration and restarts the daemon.
fn reconfigure(lab: &Lab, config: &Config) -> Result<()> {
    lab.install(config)?;
    lab.reload()
}
