//! Claims that hold for each listener in the image, the stand-in and GitHub's own.
//!
//! `cargo verify --only runner` runs these claims. With `--runner DIR`, the listener is GitHub's, so nothing here
//! may depend on reports or faults that only the stand-in has.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use github_sim::{Conclusion, GoneCause, JobSpec, JobState, JobStep};
use status::Verdict;

use super::common::{await_busy, await_end, await_no_strangers, await_verdict, ensure_says, idle};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::lab::Lab;
use crate::sim::pool_job;

/// Claims that hold for each listener.
pub(super) const SUITE: Suite = suite![SMALL;
    a_listener_runs_the_steps_and_uploads_their_log,
    a_listener_stops_at_the_step_that_fails,
    a_listener_ends_a_cancelled_job,
    a_listener_whose_runner_is_deleted_leaves,
];

/// Timeout for one job of GitHub's runner on a busy machine. Its worker alone takes 1.3 s on an idle one, and 16 s
/// to end a cancelled step.
const PATIENCE: Duration = Duration::from_mins(2);

fn step(name: &str, run: &str) -> JobStep {
    JobStep {
        name: name.into(),
        run: run.into(),
    }
}

fn a_listener_runs_the_steps_and_uploads_their_log(lab: &mut Lab) -> Result<()> {
    let mut job = JobSpec {
        steps: vec![
            step("first", "echo \"FROM_STEP=first\" >> \"$GITHUB_ENV\""),
            step(
                "second",
                "echo \"said $GREETING $FROM_STEP by $(id -un) in $GITHUB_REPOSITORY\"",
            ),
        ],
        ..pool_job("steps", "ci", "")
    };
    // The value is a text and not an expression.
    job.env.insert("GREETING".into(), "${{ hello }}".into());
    let id = lab.sim().queue(&job)?;
    let job = lab.sim().await_success(id, PATIENCE)?;
    let wanted = "said ${{ hello }} first by runner in acme/widgets";
    ensure_says(&job.facts.log_tail, &[wanted])?;
    let name = job.runner_name.context("a job that ran has a runner")?;
    let runners = lab.sim().runners()?;
    let runner = runners.iter().find(|runner| runner.name == name);
    let gone = runner.and_then(|runner| runner.gone);
    ensure!(gone == Some(GoneCause::JobDone), "{name}: {gone:?}");
    await_verdict(lab, &name, Verdict::JobDone)?;
    lab.await_settled(PATIENCE)?;
    await_no_strangers(lab)
}

fn a_listener_stops_at_the_step_that_fails(lab: &mut Lab) -> Result<()> {
    let job = JobSpec {
        steps: vec![
            step("first", "false | cat; echo never"),
            step("second", "echo reached-the-second"),
        ],
        ..pool_job("fails", "ci", "")
    };
    let id = lab.sim().queue(&job)?;
    let job = lab.sim().await_job(id, JobState::Completed, PATIENCE)?;
    ensure!(
        job.conclusion == Some(Conclusion::Failure) && job.reason.is_none(),
        "{}",
        job.summary()
    );
    ensure_says(&job.facts.log_tail, &["exit code 1"])?;
    let said: Vec<&str> = job.facts.log_tail.lines().collect();
    ensure!(
        !said.contains(&"never") && !said.contains(&"reached-the-second"),
        "the job went on: {said:?}"
    );
    await_verdict(lab, &job.runner_name.unwrap_or_default(), Verdict::JobDone)?;
    lab.await_settled(PATIENCE).map(drop)
}

fn a_listener_ends_a_cancelled_job(lab: &mut Lab) -> Result<()> {
    let id = lab.sim().queue(&pool_job("long", "ci", "sleep 1000"))?;
    let runner = await_busy(lab, id)?;
    lab.sim().cancel(id)?;
    let job = lab.sim().await_job(id, JobState::Completed, PATIENCE)?;
    ensure!(
        job.conclusion == Some(Conclusion::Cancelled) && job.reason.is_none(),
        "{}",
        job.summary()
    );
    await_verdict(lab, &runner.runner.unwrap_or_default(), Verdict::JobDone)?;
    lab.await_settled(PATIENCE).map(drop)
}

fn a_listener_whose_runner_is_deleted_leaves(lab: &mut Lab) -> Result<()> {
    let runner = idle(&lab.await_settled(PATIENCE)?)?;
    let id = runner.runner_id.context("an idle runner has an id")?;
    lab.sim().delete_runner(id.0)?;
    await_end(lab, &runner.runner.unwrap_or_default())?;
    lab.await_settled(PATIENCE).map(drop)
}
