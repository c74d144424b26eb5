//! The daemon's status document as its readers see it. Unknown fields are ignored, as by a monitoring
//! script.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

/// The document behind `/status`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    /// `running`, `draining`, `drained`, `clearing` or `cleared`.
    pub state: String,
    /// Why no new runner is started or registered.
    pub closed: Vec<String>,
    /// When this was told, by the daemon's clock, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// State of the connection to GitHub.
    pub github: GitHub,
    /// Registrations that no container owns.
    pub strays: Vec<String>,
    /// The pools.
    pub pools: Vec<Pool>,
    /// Runners that ended, newest first.
    pub recent: Vec<Ended>,
}

/// State of the connection to GitHub.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct GitHub {
    /// The last failure; gone when a call works again.
    pub error: Option<String>,
}

/// One pool.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Desired numbers.
    pub wanted: Wanted,
    /// Runners by phase.
    pub phases: BTreeMap<String, usize>,
    /// Runners that ended since the daemon started, by verdict.
    pub verdicts: BTreeMap<String, usize>,
    /// Failures that delay new tries.
    pub backoffs: Vec<Backoff>,
    /// Each container.
    pub runners: Vec<Runner>,
}

/// Desired numbers of a pool.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Wanted {
    /// Registered and waiting.
    pub idle: usize,
    /// Booted and not registered.
    pub spare: usize,
}

/// Something that keeps failing.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Backoff {
    /// `boot`, `mint`, `unauthorized`, `forbidden`, `not_found`, `invalid`, `limited`, `expired` or
    /// `version`.
    #[serde(rename = "trouble")]
    pub failure: String,
    /// Failures in a row.
    pub failures: u32,
    /// Milliseconds until the next try.
    pub retry_in_ms: u64,
    /// The last failure, in words.
    pub reason: String,
}

/// One container.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Runner {
    /// The slot.
    pub machine: String,
    /// Its unit.
    pub unit: String,
    /// Its phase.
    pub phase: String,
    /// Its name at GitHub.
    pub runner: Option<String>,
    /// Its id at GitHub.
    pub runner_id: Option<u64>,
    /// systemd's name for this start.
    pub invocation: Option<String>,
    /// Its job.
    pub job: Option<Job>,
}

/// A job, as it describes itself.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Job {
    /// `owner/repo`.
    pub repository: String,
    /// The workflow's name.
    pub workflow: String,
    /// The job's key.
    pub job: String,
    /// The run's id.
    pub run_id: String,
}

/// A runner that ended.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Ended {
    /// The slot.
    pub machine: String,
    /// Its verdict.
    pub verdict: String,
    /// Its name at GitHub.
    pub runner: Option<String>,
    /// When, by the daemon's clock, in milliseconds since 1970.
    pub ended_unix_ms: u64,
    /// Exit of its container, in words.
    pub exit: Option<String>,
    /// Milliseconds its job ran.
    pub job_ms: Option<u64>,
}

impl Status {
    /// Every container of every pool.
    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.pools.iter().flat_map(|pool| &pool.runners)
    }

    /// The containers in a phase.
    #[must_use]
    pub fn in_phase(&self, phase: &str) -> Vec<&Runner> {
        self.runners()
            .filter(|runner| runner.phase == phase)
            .collect()
    }

    /// The container of a slot.
    #[must_use]
    pub fn machine(&self, machine: &str) -> Option<&Runner> {
        self.runners().find(|runner| runner.machine == machine)
    }

    /// The container of a runner.
    #[must_use]
    pub fn runner(&self, name: &str) -> Option<&Runner> {
        self.runners()
            .find(|runner| runner.runner.as_deref() == Some(name))
    }

    /// A pool.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// Returns the end of a runner.
    #[must_use]
    pub fn ended(&self, runner: &str) -> Option<&Ended> {
        self.recent
            .iter()
            .find(|ended| ended.runner.as_deref() == Some(runner))
    }

    /// Returns a failure that delays new tries in any pool.
    #[must_use]
    pub fn backoff(&self, failure: &str) -> Option<&Backoff> {
        self.pools
            .iter()
            .flat_map(|pool| &pool.backoffs)
            .find(|backoff| backoff.failure == failure)
    }

    /// True if every pool has what is wanted of it and nothing else is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.strays.is_empty() && self.is_staffed()
    }

    /// The same, whatever is left at GitHub.
    #[must_use]
    pub fn is_staffed(&self) -> bool {
        self.state == "running" && self.pools.iter().all(Pool::is_settled)
    }

    /// In one line, for the report of a wait that timed out.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = self.state.clone();
        for runner in self.runners() {
            // Writing to a String cannot fail, here and below.
            write!(text, "; {} {}", runner.machine, runner.phase).ok();
        }
        for pool in &self.pools {
            for backoff in &pool.backoffs {
                let Backoff {
                    failure,
                    failures,
                    retry_in_ms,
                    reason,
                } = backoff;
                let name = &pool.name;
                write!(
                    text,
                    "; {name}: {failure} failed {failures} times, again in {retry_in_ms} ms: {reason}"
                )
                .ok();
            }
        }
        for ended in self.recent.iter().take(3) {
            let exit = ended.exit.as_deref().unwrap_or("no record");
            write!(text, "; {} ended: {}, {exit}", ended.machine, ended.verdict).ok();
        }
        if !self.strays.is_empty() {
            write!(text, "; strays {}", self.strays.join(" ")).ok();
        }
        if let Some(error) = &self.github.error {
            write!(text, "; GitHub: {error}").ok();
        }
        text
    }
}

impl Pool {
    fn is_settled(&self) -> bool {
        let count = |phase: &str| self.phases.get(phase).copied().unwrap_or_default();
        count("idle") == self.wanted.idle
            && count("spare") == self.wanted.spare
            && self.runners.len() == self.wanted.idle + self.wanted.spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_with_a_busy_runner_is_not_settled() {
        let wanted = Wanted { idle: 1, spare: 0 };
        let mut pool = Pool {
            wanted,
            runners: vec![Runner::default()],
            ..Pool::default()
        };
        pool.phases.insert("idle".into(), 1);
        assert!(pool.is_settled());
        pool.runners.push(Runner::default());
        assert!(!pool.is_settled());
    }
}
