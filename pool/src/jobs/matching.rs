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
    /// True if GitHub assigns its jobs to a scale set.
    pub(super) has_scale_set: bool,
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
            has_scale_set: false,
        }
    }

    /// Returns the labels of a pool with a scale set, if `has_scale_set` is true.
    #[must_use]
    pub fn with_scale_set(self, has_scale_set: bool) -> Self {
        Self {
            has_scale_set,
            ..self
        }
    }

    /// Returns the number of labels that the job does not ask for, or the reason for which the pool does not fit it:
    /// it lacks a label, or GitHub gives jobs of its scope to other runners.
    fn surplus(&self, job: &KnownJob, asked: &BTreeSet<String>) -> Result<usize, Fit> {
        let description = job.description();
        // Another server may have a repository of the same name.
        let is_at_server = self.scope.parts().0 == job.key.scope.parts().0;
        let is_in_scope = self.scope == job.key.scope
            || (is_at_server && self.scope.covers(&description.repository, None));
        if !is_in_scope {
            return Err(Fit::OtherScope);
        }
        // GitHub gives a job without labels to no self-hosted runner.
        if asked.is_empty() {
            return Err(Fit::NoLabels);
        }
        let lacks: Vec<String> = asked.difference(&self.labels).cloned().collect();
        if lacks.is_empty() {
            Ok(self.labels.len() - asked.len())
        } else {
            Err(Fit::Lacks(lacks))
        }
    }
}

/// Relation of a pool to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// The pool serves the job.
    Serves,
    /// The pool has the job's labels and this many further ones, and another pool serves the job.
    Further(usize),
    /// The pool lacks these labels.
    Lacks(Vec<String>),
    /// The pool registers in another scope.
    OtherScope,
    /// The job has no labels.
    NoLabels,
}

fn asked(job: &KnownJob) -> BTreeSet<String> {
    let labels = job.description().labels.iter();
    labels.map(|label| label.to_lowercase()).collect()
}

/// Returns the pool that serves the job: of those whose labels include the job's, the one with the fewest further
/// labels, and of several such the first one.
pub(super) fn serving<'p>(pools: &'p [PoolLabels], job: &KnownJob) -> Option<&'p PoolName> {
    let asked = asked(job);
    let fitting = pools
        .iter()
        .filter_map(|pool| Some((pool.surplus(job, &asked).ok()?, &pool.pool)));
    // `min_by_key` returns the first of equal ones.
    let best = fitting.min_by_key(|(surplus, _)| *surplus);
    best.map(|(_, pool)| pool)
}

/// Returns the relation of each pool to the job. At most one serves it.
#[must_use]
pub fn fits(pools: &[PoolLabels], job: &KnownJob) -> Vec<(PoolName, Fit)> {
    let (best, asked) = (serving(pools, job), asked(job));
    let fit = |pool: &PoolLabels| match pool.surplus(job, &asked) {
        Ok(_) if best == Some(&pool.pool) => Fit::Serves,
        Ok(surplus) => Fit::Further(surplus),
        Err(reason) => reason,
    };
    pools
        .iter()
        .map(|pool| (pool.pool.clone(), fit(pool)))
        .collect()
}
