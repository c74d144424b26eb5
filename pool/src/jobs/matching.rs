//! The pool that serves a job: GitHub's rule for labels, and a choice among several pools.

use std::collections::BTreeSet;

use super::job::KnownJob;
use crate::{PoolName, ScopeId};

/// Labels of a pool, and the scope whose jobs it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLabels {
    /// The pool.
    pub pool: PoolName,
    scope: ScopeId,
    labels: BTreeSet<String>,
}

impl PoolLabels {
    /// Returns the labels of a pool. GitHub ignores their case.
    #[must_use]
    pub fn new(pool: PoolName, scope: ScopeId, labels: &[String]) -> Self {
        let labels = labels.iter().map(|label| label.to_lowercase()).collect();
        Self {
            pool,
            scope,
            labels,
        }
    }

    /// Returns the number of labels that the job does not ask for, or `None` if the pool lacks one that it asks
    /// for, or if GitHub gives jobs of its scope to other runners.
    fn surplus(&self, job: &KnownJob, asked: &BTreeSet<String>) -> Option<usize> {
        let description = job.description();
        let is_in_scope =
            self.scope == job.key.scope || self.scope.covers(&description.repository, None);
        // GitHub gives a job without labels to no self-hosted runner.
        let fits = is_in_scope && !asked.is_empty() && asked.is_subset(&self.labels);
        fits.then(|| self.labels.len() - asked.len())
    }
}

/// Returns the pool that serves the job: of those whose labels include the job's, the one with the fewest further
/// labels, and of several such the first one.
pub(super) fn serving<'p>(pools: &'p [PoolLabels], job: &KnownJob) -> Option<&'p PoolName> {
    let labels = job.description().labels.iter();
    let asked: BTreeSet<String> = labels.map(|label| label.to_lowercase()).collect();
    let fitting = pools
        .iter()
        .filter_map(|pool| Some((pool.surplus(job, &asked)?, &pool.pool)));
    // `min_by_key` returns the first of equal ones.
    let best = fitting.min_by_key(|(surplus, _)| *surplus);
    best.map(|(_, pool)| pool)
}
