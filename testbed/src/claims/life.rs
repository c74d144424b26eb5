//! A runner's life, from boot to gone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::config::Config;
use crate::lab::Lab;
use crate::sim::NewJob;
use crate::wait::{Seen, wait_until};

/// Boots are 0.2 s; this is for a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(30);

pub(super) fn a_spare_waits_unregistered(lab: &mut Lab) -> Result<()> {
    let config = Config::small(lab.sim().api_url()).with("ci", |pool| {
        pool.min_idle = 0;
        pool.max_runners = 1;
    });
    lab.install(&config)?;
    lab.start()?;
    lab.await_active(1, SOON)?;
    let registered = lab.sim().registered()?;
    ensure!(
        registered.is_empty(),
        "a spare was registered: {registered:?}"
    );
    Ok(())
}

pub(super) fn a_job_has_a_container_of_its_own(lab: &mut Lab) -> Result<()> {
    lab.install(&Config::small(lab.sim().api_url()))?;
    lab.start()?;
    let job = NewJob::new(
        "look",
        "ci",
        "id -un; systemd-detect-virt; cat /etc/hostname; touch /tmp/mine",
    );
    let mut lives = BTreeSet::new();
    for _ in 0..3 {
        let id = lab.sim().queue(&job)?;
        let done = lab.sim().await_success(id, SOON)?;
        ensure!(
            done.facts.log_tail.contains("runner"),
            "the job ran as another user: {}",
            done.facts.log_tail
        );
        lives.insert(done.runner_name.unwrap_or_default());
    }
    ensure!(lives.len() == 3, "three jobs ran on {lives:?}");
    Ok(())
}

pub(super) fn a_failed_job_is_a_job_done(lab: &mut Lab) -> Result<()> {
    lab.install(&Config::small(lab.sim().api_url()))?;
    lab.start()?;
    let bad = lab.sim().queue(&NewJob::new("bad", "ci", "exit 3"))?;
    let bad = lab.sim().await_job(bad, "completed", SOON)?;
    ensure!(
        bad.conclusion.as_deref() == Some("failure"),
        "{}",
        bad.summary()
    );
    let good = lab.sim().queue(&NewJob::new("good", "ci", "true"))?;
    lab.sim().await_success(good, SOON).map(drop)
}

pub(super) fn a_killed_daemon_costs_no_job(lab: &mut Lab) -> Result<()> {
    lab.install(&Config::small(lab.sim().api_url()))?;
    lab.start()?;
    let id = lab.sim().queue(&NewJob::new(
        "long",
        "ci",
        "for i in $(seq 40); do sleep 0.1; done",
    ))?;
    let running = lab.sim().await_job(id, "in_progress", SOON)?;
    let before = lab.containers()?;
    lab.kill()?;
    lab.start()?;
    let done = lab.sim().await_success(id, SOON)?;
    ensure!(
        done.runner_name == running.runner_name && done.attempts == 1,
        "{}",
        done.summary()
    );
    wait_until("lives from before the kill", SOON, || {
        let now = lab.containers()?;
        let kept = now
            .iter()
            .filter(|c| before.iter().any(|b| b.invocation == c.invocation))
            .count();
        // One of two ended with its job; the other waits on.
        Ok(if kept == 1 {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{now:?}"))
        })
    })
}
