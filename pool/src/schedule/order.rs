//! Priorities, and the order in which waiting jobs have their turns.

use std::time::Duration;

use crate::JobDescription;

/// Default of [`OrderRules::fairness_age`].
pub const DEFAULT_FAIRNESS_AGE: Duration = Duration::from_mins(5);
/// Default of [`OrderRules::reserve_after`].
pub const DEFAULT_RESERVE_AFTER: Duration = Duration::from_hours(1);

/// Rules of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRules {
    /// Wait after which jobs are one queue by the time at which GitHub queued them, whatever their priority.
    pub fairness_age: Duration,
    /// Wait after which a job that does not fit the budget keeps smaller jobs from its place, too.
    pub reserve_after: Duration,
    /// Maximum number of jobs of one repository for which this host has runners at once.
    pub max_per_repository: Option<usize>,
    /// Priorities, the most urgent one first. Jobs that match none come after them.
    pub priorities: Vec<Priority>,
}

impl Default for OrderRules {
    fn default() -> Self {
        Self {
            fairness_age: DEFAULT_FAIRNESS_AGE,
            reserve_after: DEFAULT_RESERVE_AFTER,
            max_per_repository: None,
            priorities: Vec::new(),
        }
    }
}

/// A priority. A job has the first one that matches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priority {
    /// Its name.
    pub name: String,
    /// Repositories (`owner/repo`) of its jobs; all if empty.
    pub repositories: Vec<Glob>,
    /// Names of their workflows; all if empty.
    pub workflows: Vec<Glob>,
    /// Names of the jobs; all if empty.
    pub jobs: Vec<Glob>,
    /// Each time that a job has waited for so long, it rises by one priority.
    pub escalate_after: Duration,
}

impl Priority {
    fn has(&self, job: &JobDescription) -> bool {
        let any = |globs: &[Glob], text: &str| {
            globs.is_empty() || globs.iter().any(|glob| glob.matches(text))
        };
        any(&self.repositories, &job.repository)
            && any(&self.workflows, &job.workflow)
            && any(&self.jobs, &job.name)
    }
}

/// A pattern for a whole text, in which `*` stands for any characters. It ignores the case of ASCII letters, as
/// GitHub does in the names of repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Returns the pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_ascii_lowercase())
    }

    /// Returns true if the pattern stands for the whole text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == text;
        };
        let Some(mut left) = text.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = rest.split('*').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            // The first place of a part leaves the most text for those after it.
            match left.find(part) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(last)
    }
}

/// Place of a job in the order: the smaller one is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    is_young: bool,
    priority: usize,
    queued_unix_ms: u64,
}

impl OrderRules {
    /// Returns the number of the job's priority: 0 for the most urgent one, and the number of priorities for a job
    /// that matches none.
    #[must_use]
    pub fn priority(&self, job: &JobDescription) -> usize {
        let found = self
            .priorities
            .iter()
            .position(|priority| priority.has(job));
        found.unwrap_or(self.priorities.len())
    }

    /// Returns the place of a job in the order.
    ///
    /// Of two jobs with the same priority the one that was queued first is first, at any time.
    #[must_use]
    pub(crate) fn rank(&self, priority: usize, queued_unix_ms: u64, unix_ms: u64) -> Rank {
        let waited = unix_ms.saturating_sub(queued_unix_ms);
        let is_young = waited < millis(self.fairness_age);
        let rises = self.priorities.get(priority).map_or(0, |priority| {
            waited / millis(priority.escalate_after).max(1)
        });
        let rises = usize::try_from(rises).unwrap_or(usize::MAX);
        Rank {
            is_young,
            priority: if is_young {
                priority.saturating_sub(rises)
            } else {
                0
            },
            queued_unix_ms,
        }
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
