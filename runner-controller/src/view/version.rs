//! Versions of the runner in the pools, and what to do about one that GitHub refuses soon.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::notice::{Notice, Weight};
use super::span;
use crate::status::{
    DaemonState, FailureKind, Freshness, PoolStatus, Status, VersionRemedy, VersionStatus,
};

/// Returns a sentence for each version of the runner, with the pools that have it. A version whose end makes the host
/// unhealthy is left to the health.
#[must_use]
pub fn versions(status: &Status) -> Vec<Notice> {
    let mut by_text: BTreeMap<(Weight, String), Vec<&str>> = BTreeMap::new();
    let is_running = status.state == DaemonState::Running;
    for pool in &status.pools {
        // It is a reason of the health, too.
        if is_running && ended(pool, status.at_unix_ms).is_some() {
            continue;
        }
        // GitHub refuses it, whatever it tells about the date. The pool's backoff says so.
        if pool
            .backoffs
            .iter()
            .any(|backoff| backoff.failure == FailureKind::Version)
        {
            continue;
        }
        if let Some(version) = &pool.runner_version {
            let (weight, text) = sentence(version, status.at_unix_ms);
            let pools = by_text.entry((weight, text)).or_default();
            pools.push(&pool.name);
        }
    }
    let notices = by_text.into_iter().map(|((weight, text), pools)| {
        let noun = if pools.len() == 1 { "pool" } else { "pools" };
        Notice {
            weight,
            text: format!("{noun} {}: {text}", pools.join(", ")),
        }
    });
    notices.collect()
}

/// Returns the problem of a pool whose runners GitHub refuses by now.
pub(super) fn ended(pool: &PoolStatus, at_unix_ms: u64) -> Option<String> {
    let version = pool.runner_version.as_ref()?;
    let is_over = version.end?.at(at_unix_ms) == Freshness::Over;
    is_over.then(|| format!("pool {}: {}", pool.name, sentence(version, at_unix_ms).1))
}

/// Returns the sentence of a pool whose version is near its end, or past it.
#[must_use]
pub fn version_problem(pool: &PoolStatus, at_unix_ms: u64) -> Option<String> {
    let (weight, text) = sentence(pool.runner_version.as_ref()?, at_unix_ms);
    (weight == Weight::Problem).then(|| format!("pool {}: {text}", pool.name))
}

fn sentence(status: &VersionStatus, at_unix_ms: u64) -> (Weight, String) {
    let version = status.version;
    let Some(end) = status.end else {
        let text = match status.asked_unix_ms {
            Some(_) => format!("runner {version}; GitHub does not tell until when it accepts it"),
            None => format!("runner {version}; GitHub has not told yet until when it accepts it"),
        };
        return (Weight::Fact, text);
    };
    let Some(unix_ms) = end.unix_ms() else {
        let text = format!("runner {version}; GitHub has set no date for its end");
        return (Weight::Fact, text);
    };
    let (date, left) = (date(unix_ms), span(unix_ms.saturating_sub(at_unix_ms)));
    let remedy = remedy(status.remedy);
    match end.at(at_unix_ms) {
        Freshness::Fresh => {
            let text = format!("runner {version}; GitHub accepts it for {left}, until {date}");
            (Weight::Fact, text)
        }
        Freshness::NearEnd => {
            let text = format!("GitHub refuses runner {version} in {left}, on {date}; {remedy}");
            (Weight::Problem, text)
        }
        Freshness::Over => {
            let text = format!("GitHub refuses runner {version} since {date}; {remedy}");
            (Weight::Problem, text)
        }
    }
}

fn remedy(remedy: VersionRemedy) -> &'static str {
    match remedy {
        VersionRemedy::Nixpkgs => {
            "run `nix flake update nixpkgs-runner` (or the input that has your github-runner), then deploy; \
             `runner-controller docs version-ends` tells more"
        }
        VersionRemedy::Rebuild => {
            "build the image again with a newer runner; jobs continue meanwhile"
        }
    }
}

/// Returns the day of a time in UTC.
fn date(unix_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms.min(MAX_DATE_MS));
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

/// 9999-12-31, the last day that RFC 3339 can write.
const MAX_DATE_MS: u64 = 253_402_214_400_000;

#[cfg(test)]
mod tests;
