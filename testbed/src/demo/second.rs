//! The second act: three pools that follow GitHub's queue share one budget. A delivery wakes a pool, a scale set
//! serves a burst from two repositories, and a job with a priority goes before others that wait longer.

mod account;
mod claims;
mod jobs;

use std::time::Instant;

use anyhow::{Context, Result};
use github_sim::{DeliveryView, JobView};
use status::SetState;

use super::account::spans_of;
use super::claims::show;
use super::clock::{Clock, seconds};
use super::watch;
use crate::bed::note;
use crate::config::{Config, Pool};
use crate::hook;
use crate::journal;
use crate::lab::{DAEMON, Lab};

use claims::{SOON, Woken};
use jobs::{ALL, BUDGET, BUILD, BURST, DEPLOY, EARLIER, LATER, NIGHTLY};

/// Plays the second act on an empty host; true if every claim holds.
pub(super) fn act(lab: &Lab, clock: &Clock) -> Result<bool> {
    let config = config(lab)?;
    lab.install(&config)?;
    let mark = journal::mark(lab.host())?;
    lab.start()?;
    note(&format!(
        "act 2: three pools without a runner, and a budget of {BUDGET} runners"
    ));
    let woken = wake(lab, clock)?;
    let jobs =
        burst(lab, clock).inspect_err(|_| stdio::progress(format_args!("{}", lab.account())))?;
    let zero = claims::at_zero(lab, Instant::now());
    let registered = lab.sim().runners()?.len();
    lab.stop()?;
    let left = claims::set_is_left(&lab.sim().scale_sets()?, &lab.sim().stats()?);

    let units = journal::spans(&journal::since(lab.host(), &mark, "runner-*@*.service")?);
    let said = journal::since(lab.host(), &mark, DAEMON)?;
    stdio::progress(format_args!("\n{}", account::summary(&jobs)));
    stdio::progress(format_args!("{}", account::rows(&jobs)));
    let claims = [
        claims::woke(&woken),
        claims::back_at_zero(&woken),
        claims::ran_once(&spans_of(jobs.clone(), &units, &said), registered),
        claims::within_budget(&units),
        claims::fair(&jobs),
        claims::jumped(&jobs),
        zero,
        left,
    ];
    Ok(show(lab, &claims))
}

fn config(lab: &Lab) -> Result<Config> {
    let mut config = Config::small(lab.sim().api_url());
    config.url = "https://github.com/acme".into();
    config.top = format!(
        "{}\n[budget]\nrunners = {BUDGET}\n\n[[priority]]\nname = \"deploys\"\nrepository = [\"acme/widgets\"]\n\
         job = [\"deploy*\"]\nescalate_after = \"1m\"\n",
        hook::add(lab, "acme")?
    );
    config.pools = [
        (BUILD, "scale-set"),
        (LATER, "webhook"),
        (DEPLOY, "webhook"),
    ]
    .into_iter()
    .zip([0, 10, 20])
    .map(|((name, demand), offset)| pool(name, demand, offset))
    .collect();
    Ok(config)
}

/// Returns a pool that has no runner while nothing waits.
fn pool(name: &str, demand: &str, offset: u16) -> Pool {
    let mut pool = Pool::new(name, offset);
    (pool.min_idle, pool.min_spare, pool.max_runners) = (0, 0, 4);
    pool.layer_size = "256 MiB".into();
    pool.memory = "512 MiB".into();
    pool.more = format!("demand = \"{demand}\"\nscale_down_after = \"1s\"\n");
    pool
}

/// Queues a job for a pool without a runner, and waits until the pool has none again.
fn wake(lab: &Lab, clock: &Clock) -> Result<Woken> {
    lab.await_nothing_left(SOON)?;
    let units_before = lab.containers()?.len();
    watch::line(clock, "no runner; a job for the pool deploy is queued");
    let id = lab.sim().queue(&jobs::first()?)?;
    let job = lab.sim().await_success(id, SOON)?;
    let end = Instant::now();
    watch::line(
        clock,
        &format!(
            "it ran {:.1} s after it was queued",
            seconds(jobs::waited(&job))
        ),
    );
    let zero = claims::await_zero(lab, end);
    let queued = |delivery: &DeliveryView| {
        delivery.event == "workflow_job" && delivery.action.as_deref() == Some("queued")
    };
    let status = lab.look()?;
    let webhook = status.demand.and_then(|demand| demand.webhook);
    Ok(Woken {
        units_before,
        job,
        delivery: lab.sim().deliveries()?.into_iter().find(queued),
        unsigned: claims::refused(&webhook.context("the daemon takes no deliveries")?),
        zero,
    })
}

/// Queues the burst, and then jobs that compete with it. Returns all jobs but the one of [`wake`].
fn burst(lab: &Lab, clock: &Clock) -> Result<Vec<JobView>> {
    lab.await_status("the scale set's session", SOON, |status| {
        let set = status.demand.as_ref()?.scale_sets.first()?;
        let room = set.capacity.is_some_and(|room| room > 0);
        (set.state == SetState::Listening && room).then_some(())
    })?;
    watch::line(
        clock,
        &format!("{BURST} jobs of two repositories are queued for the scale set"),
    );
    lab.sim().queue_all(&jobs::burst()?)?;
    watch::until_over(lab, clock, 1 + EARLIER)?;

    watch::line(
        clock,
        &format!(
            "{NIGHTLY} jobs for the pool nightly are queued, and after them one with a priority"
        ),
    );
    lab.sim().queue_all(&jobs::late()?)?;
    let mut jobs = watch::until_over(lab, clock, ALL)?;
    jobs.retain(|job| job.name != "first");
    Ok(jobs)
}
