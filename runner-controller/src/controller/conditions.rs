//! The parts of the world that fail, logged at each change.

use std::collections::BTreeMap;

use tracing::{info, warn};

use crate::pool::{ScopeId, Shortages};
use crate::world::RegistryError;

use super::writes::FailedWrite;

/// Condition of the calls to GitHub for one scope.
#[derive(Debug, Default)]
pub(super) struct GitHubCondition {
    /// Time of the last successful call, in milliseconds since 1970.
    pub(super) ok_unix_ms: Option<u64>,
    /// The last failed call and its time in milliseconds since 1970, until a call succeeds.
    pub(super) error: Option<(String, u64)>,
}

/// Condition of each part of the world.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// Calls to GitHub for each configured scope.
    pub(super) github: BTreeMap<ScopeId, GitHubCondition>,
    /// Error of the last call for each scope of an earlier configuration.
    pub(super) former_errors: BTreeMap<ScopeId, String>,
    /// Error of the last observation of all units.
    pub(super) systemd_error: Option<String>,
    /// Problem of the firewall.
    pub(super) firewall_problem: Option<String>,
    /// Resources that the host runs short of.
    pub(super) shortages: Shortages,
    /// Error of the last access to the records.
    pub(super) records_error: Option<String>,
}

impl Conditions {
    /// Returns true if the host is not fit for new runners.
    pub(super) fn block_admission(&self) -> bool {
        self.systemd_error.is_some()
            || self.firewall_problem.is_some()
            || !self.shortages.is_empty()
    }

    /// Returns the conditions that close admission, each in words.
    pub(super) fn blocks(&self) -> Vec<String> {
        let mut blocks = Vec::new();
        if let Some(error) = &self.systemd_error {
            blocks.push(format!("systemd: {error}"));
        }
        if let Some(problem) = &self.firewall_problem {
            blocks.push(format!("firewall: {problem}"));
        }
        for (resource, reason) in &self.shortages {
            blocks.push(format!("{resource}: {reason}"));
        }
        blocks
    }

    pub(super) fn github_succeeded(&mut self, scope: &ScopeId, unix_ms: u64) {
        let condition = self.github.entry(scope.clone()).or_default();
        if let Some((last, _)) = condition.error.take() {
            info!(
                %scope,
                last, "GitHub answers again for {scope}; the last error was: {last}"
            );
        }
        condition.ok_unix_ms = Some(unix_ms);
    }

    pub(super) fn github_failed(&mut self, scope: &ScopeId, error: &RegistryError, unix_ms: u64) {
        warn!(
            %scope,
            operation = error.operation,
            status = error.status,
            request_id = error.request_id,
            %error,
            "call to GitHub for {scope} failed: {error}"
        );
        let condition = self.github.entry(scope.clone()).or_default();
        condition.error = Some((error.to_string(), unix_ms));
    }

    /// Notes the result of a call for a scope of an earlier configuration.
    pub(super) fn set_former(&mut self, scope: &ScopeId, error: Option<String>) {
        let Some(error) = error else {
            self.former_errors.remove(scope);
            return;
        };
        if self.former_errors.get(scope) != Some(&error) {
            warn!(%scope, error, "call for the former scope {scope} failed: {error}");
        }
        self.former_errors.insert(scope.clone(), error);
    }

    pub(super) fn set_systemd(&mut self, error: Option<String>) {
        match (&self.systemd_error, &error) {
            (Some(_), None) => info!("systemd answers again"),
            (old, Some(error)) if old.as_ref() != Some(error) => {
                warn!(error, "closing admission: cannot observe units: {error}");
            }
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
        self.systemd_error = error;
    }

    pub(super) fn set_firewall(&mut self, problem: Option<String>) {
        match (&self.firewall_problem, &problem) {
            (Some(_), None) => info!("the firewall is in order again"),
            (old, Some(problem)) if old.as_ref() != Some(problem) => warn!(
                problem,
                "closing admission because of the firewall: {problem}"
            ),
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
        self.firewall_problem = problem;
    }

    pub(super) fn set_shortages(&mut self, shortages: Shortages) {
        let before = std::mem::replace(&mut self.shortages, shortages);
        for (resource, reason) in &self.shortages {
            if !before.contains_key(resource) {
                warn!(
                    %resource,
                    reason,
                    "closing admission: the host runs short of {resource}: {reason}"
                );
            }
        }
        for resource in before.keys() {
            if !self.shortages.contains_key(resource) {
                info!(%resource, "the host has enough {resource} again");
            }
        }
    }

    pub(super) fn set_records(&mut self, result: Result<(), &FailedWrite>) {
        let Err(failed) = result else {
            if self.records_error.take().is_some() {
                info!("the records are written again");
            }
            return;
        };
        let reason = &failed.reason;
        if self.records_error.as_ref() != Some(reason) {
            let consequence = if failed.is_transient {
                "the daemon keeps them in memory and retries"
            } else {
                "history is lost, and no job is affected"
            };
            warn!(reason, "cannot write the records: {reason}; {consequence}");
        }
        self.records_error = Some(reason.clone());
    }
}
