//! Shows the jobs while they run: a line for each that starts or ends, and at a terminal one line
//! below them that tells what every slot does now.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use github_sim::{JobState, JobView};
use status::RunnerStatus;

use super::clock::{Clock, seconds};
use crate::lab::Lab;
use crate::wait::{Seen, wait_until};

/// For a machine that is busy with other things.
const LIMIT: Duration = Duration::from_mins(10);

/// Follows the jobs until all are over, and returns them.
pub(super) fn jobs(lab: &Lab, clock: &Clock) -> Result<Vec<JobView>> {
    let mut screen = Screen::new();
    let mut known: BTreeMap<u64, JobState> = BTreeMap::new();
    let done = wait_until("the jobs to be over", LIMIT, || {
        let jobs = lab.sim().jobs()?;
        for job in &jobs {
            let before = known.insert(job.id, job.status);
            if before == Some(job.status) {
                continue;
            }
            if let Some(line) = news(job) {
                screen.line(&format!("{:6.1} s  {line}", clock.seconds()));
            }
        }
        let over = jobs
            .iter()
            .filter(|job| job.status == JobState::Completed)
            .count();
        if over == jobs.len() {
            return Ok(Seen::Done(jobs));
        }
        let now = format!("{over} of {} done · {}", jobs.len(), slots(lab, &jobs));
        screen.status(&now);
        Ok(Seen::NotYet(now))
    });
    screen.clear();
    done
}

/// Interval between the lines of [`until_over`], in jobs.
const EVERY: usize = 10;

/// Prints an event with its time.
pub(super) fn line(clock: &Clock, text: &str) {
    Screen::new().line(&format!("{:6.1} s  {text}", clock.seconds()));
}

/// Follows the jobs until `count` of them are over, with a line for every tenth, and returns all.
pub(super) fn until_over(lab: &Lab, clock: &Clock, count: usize) -> Result<Vec<JobView>> {
    let mut screen = Screen::new();
    let mut told = None;
    let done = wait_until("the jobs to be over", LIMIT, || {
        let jobs = lab.sim().jobs()?;
        let over = jobs
            .iter()
            .filter(|job| job.status == JobState::Completed)
            .count();
        let tens = over / EVERY;
        if told.is_some_and(|told| told < tens) {
            let text = format!("{over} of {} done", jobs.len());
            screen.line(&format!("{:6.1} s  {text}", clock.seconds()));
        }
        told = Some(tens);
        if over >= count {
            return Ok(Seen::Done(jobs));
        }
        let now = format!("{over} of {} done · {}", jobs.len(), slots(lab, &jobs));
        screen.status(&now);
        Ok(Seen::NotYet(now))
    });
    screen.clear();
    done
}

fn news(job: &JobView) -> Option<String> {
    let JobView { name, .. } = job;
    let machine = super::account::machine_of(job).unwrap_or("?");
    match job.status {
        JobState::InProgress => Some(format!("{machine:<6} runs {name}")),
        JobState::Completed => {
            let end = job
                .conclusion
                .map_or_else(|| "no conclusion".to_owned(), |end| end.to_string());
            let took = job
                .completed_at
                .zip(job.started_at)
                .map_or(0.0, |(end, start)| seconds(end.saturating_sub(start)));
            Some(format!("{machine:<6} {end} of {name} after {took:.1} s"))
        }
        JobState::Queued | JobState::Assigned => None,
    }
}

/// Returns the state of every slot on one line. A failure to read it does not end the watch.
fn slots(lab: &Lab, jobs: &[JobView]) -> String {
    let status = match lab.look() {
        Ok(status) => status,
        Err(error) => return format!("{error:#}"),
    };
    let runner = |runner: &RunnerStatus| {
        let RunnerStatus {
            slot,
            phase,
            runner,
            ..
        } = runner;
        let job = jobs
            .iter()
            .find(|job| job.status == JobState::InProgress && job.runner_name == *runner)
            .map_or(String::new(), |job| format!(" {}", job.name));
        format!("{slot} {phase}{job}")
    };
    let runners: Vec<String> = status.runners().map(runner).collect();
    runners.join(" · ")
}

/// Standard output, with a line at its end that is written anew if it is a terminal.
struct Screen {
    /// Columns of the terminal.
    width: Option<usize>,
}

impl Screen {
    fn new() -> Self {
        let width = std::io::stdout()
            .is_terminal()
            .then(|| terminal_width().unwrap_or(80));
        Self { width }
    }

    fn line(&mut self, text: &str) {
        self.clear();
        stdio::progress(format_args!("{text}"));
    }

    fn status(&mut self, text: &str) {
        if let Some(width) = self.width {
            // A line that wraps could not be written over.
            let text: String = text.chars().take(width.saturating_sub(1)).collect();
            rewrite(&text);
        }
    }

    fn clear(&mut self) {
        if self.width.is_some() {
            rewrite("");
        }
    }
}

/// Writes the last line anew. A terminal that is gone shows nothing.
fn rewrite(text: &str) {
    let mut out = std::io::stdout().lock();
    write!(out, "\r{text}\x1b[K")
        .and_then(|()| out.flush())
        .ok();
}

fn terminal_width() -> Option<usize> {
    let output = Command::new("stty")
        .arg("size")
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
