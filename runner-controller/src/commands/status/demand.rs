//! Demand as text: a line for each pool whose jobs wait, and one for jobs that no pool serves.

use std::fmt::Write;

use crate::commands::common::span;
use crate::status::{DemandStatus, PoolStatus, Status};

/// Wait after which jobs that no pool serves are worth a line. GitHub's own runners take a job within seconds.
const UNSERVED_MS: u64 = 120_000;

/// Returns the lines; nothing if no job waits.
pub(super) fn lines(status: &Status) -> String {
    let mut text = String::new();
    for pool in &status.pools {
        text += &pool_line(pool, status.at_unix_ms);
    }
    if let Some(demand) = &status.demand {
        text += &unserved_line(demand, status.at_unix_ms);
    }
    text
}

fn pool_line(pool: &PoolStatus, now_unix_ms: u64) -> String {
    let waits = pool.demand.as_ref().filter(|demand| demand.waiting > 0);
    let Some(demand) = waits else {
        return String::new();
    };
    let oldest = demand.oldest_unix_ms.unwrap_or(now_unix_ms);
    let waited = span(now_unix_ms.saturating_sub(oldest));
    let reason = demand
        .waits_for
        .map(|reason| format!(": {}", reason.clause()));
    let reason = reason.unwrap_or_default();
    let verb = if demand.waiting == 1 {
        "job waits"
    } else {
        "jobs wait"
    };
    let (name, waiting) = (&pool.name, demand.waiting);
    format!("  pool {name}: {waiting} {verb}, the longest for {waited}{reason}\n")
}

fn unserved_line(demand: &DemandStatus, now_unix_ms: u64) -> String {
    let waited = |queued: u64| now_unix_ms.saturating_sub(queued);
    let Some(oldest) =
        (demand.unserved.first()).filter(|oldest| waited(oldest.queued_unix_ms) >= UNSERVED_MS)
    else {
        return String::new();
    };
    let mut text = String::new();
    let _ = writeln!(
        text,
        "  no pool of this host serves {} that wait; the longest has waited for {} and asks for: {}",
        match demand.unserved_count {
            1 => "1 job".to_owned(),
            count => format!("{count} jobs"),
        },
        span(waited(oldest.queued_unix_ms)),
        oldest.labels.join(", "),
    );
    text
}
