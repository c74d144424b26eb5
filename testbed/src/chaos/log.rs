//! The record of a run so far: queued jobs, killed containers, faults, violations. All threads share it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::lab::Lab;

use super::jobs::JobDraft;
use super::outcomes::{Kill, Outcomes, QueuedJob, Target, classify};
use super::plan::FaultKind;

/// Count of the faults of one kind that hit a target, and of those that did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Injected {
    pub(super) hit: usize,
    pub(super) missed: usize,
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Violation {
    /// Seconds from the start of the run.
    pub(super) at_s: f64,
    /// The invariant and the facts.
    pub(super) story: String,
}

#[derive(Debug, Default)]
struct Entries {
    queued: BTreeMap<String, QueuedJob>,
    kills: Vec<Kill>,
    injected: BTreeMap<FaultKind, Injected>,
    violations: BTreeMap<String, Violation>,
    open_jobs: usize,
}

/// The shared record of a run.
#[derive(Debug)]
pub(super) struct RunLog {
    start: Instant,
    entries: Mutex<Entries>,
}

impl RunLog {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            entries: Mutex::default(),
        }
    }

    /// Returns milliseconds since 1970, the stand-in's clock too.
    pub(super) fn now_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Returns the time since the start of the run.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints one line with its time.
    pub(super) fn print(&self, subject: &str, details: &str) {
        let at = self.elapsed().as_secs_f64();
        stdio::progress(format_args!("{at:8.1} s  {subject:<25} {details}"));
    }

    /// Queues a job at the stand-in. After an error it is unknown whether the stand-in accepted the job.
    pub(super) fn queue(&self, lab: &Lab, draft: &JobDraft) -> Result<()> {
        let queued = |accepted| QueuedJob {
            intended: draft.intended,
            accepted,
        };
        let name = &draft.name;
        self.entries().queued.insert(name.clone(), queued(false));
        lab.sim().queue(&draft.job())?;
        self.entries().queued.insert(name.clone(), queued(true));
        Ok(())
    }

    /// Records that the injector killed `target` between `from_ms` and now.
    pub(super) fn killed(&self, from_ms: u64, target: Target) {
        let to_ms = Self::now_ms();
        self.entries().kills.push(Kill {
            from_ms,
            to_ms,
            target,
        });
    }

    /// Counts a fault and prints it.
    pub(super) fn fault_injected(&self, kind: FaultKind, hit: &Result<Option<String>>) {
        let mut entries = self.entries();
        let count = entries.injected.entry(kind).or_default();
        let details = match hit {
            Ok(Some(details)) => {
                count.hit += 1;
                details.clone()
            }
            Ok(None) => {
                count.missed += 1;
                "no target found".into()
            }
            Err(error) => {
                count.missed += 1;
                format!("failed: {error:#}")
            }
        };
        drop(entries);
        self.print(kind.name(), &details);
    }

    pub(super) fn injected(&self) -> BTreeMap<FaultKind, Injected> {
        self.entries().injected.clone()
    }

    /// Returns the number of unfinished jobs at the last check.
    pub(super) fn open_jobs(&self) -> usize {
        self.entries().open_jobs
    }

    /// Classifies every queued job by the stand-in's present state.
    pub(super) fn classify_jobs(&self, lab: &Lab) -> Result<Outcomes> {
        // The copy comes first, so that a job queued meanwhile is in neither of the two.
        let queued = self.entries().queued.clone();
        let jobs = lab.sim().jobs()?;
        let mut entries = self.entries();
        let outcomes = classify(&queued, &jobs, &entries.kills);
        entries.open_jobs = outcomes.open.len();
        Ok(outcomes)
    }

    /// Records and prints a violation, once per invariant; true if it is new.
    pub(super) fn violation(&self, invariant: &str, facts: &str) -> bool {
        let at_s = self.elapsed().as_secs_f64();
        let mut entries = self.entries();
        if entries.violations.contains_key(invariant) {
            return false;
        }
        let violation = Violation {
            at_s,
            story: format!("{invariant}: {facts}"),
        };
        entries.violations.insert(invariant.to_owned(), violation);
        drop(entries);
        self.print("VIOLATION", &format!("{invariant}: {facts}"));
        true
    }

    /// Returns all violations, oldest first.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let mut all: Vec<Violation> = self.entries().violations.values().cloned().collect();
        all.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        all
    }
}
