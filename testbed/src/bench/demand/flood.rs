//! A flood of deliveries: 2,000 in each minute, at their own pace, whatever the answers.

use std::time::Duration;

use anyhow::{Context, Result};
use status::DeliveryOutcome;

use super::sender::{Deliveries, send_all};
use crate::bed::note;
use crate::bench::daemon::{Process, number};
use crate::bench::figures::{Figure, Source};
use crate::bench::start::{SOON, begin};
use crate::config::Config;
use crate::hook;
use crate::lab::Lab;

/// Deliveries in a minute that the daemon must take.
const PER_MINUTE: f64 = 2_000.0;
/// Pace of the sender, a little above that.
const SENT_PER_MINUTE: f64 = 2_010.0;
/// Maximum time of an answer, in milliseconds.
const ANSWER_MAX_MS: f64 = 100.0;
/// Maximum of the daemon's resident memory, in MB.
const MEMORY_MAX_MB: f64 = 40.0;

/// Measures the answers to a flood, and the daemon's memory.
pub(super) fn figures(lab: &Lab, time: Duration) -> Result<Vec<Figure>> {
    let mut config = Config::small(lab.sim().api_url()).with("ci", |pool| {
        (pool.min_idle, pool.min_spare) = (0, 0);
        pool.more = "demand = \"webhook\"\n".into();
    });
    config.top = hook::listen(lab)?;
    begin(lab, &config)?;
    let process = Process::find(lab)?;
    let (before, cpu) = (process.peak_rss_megabytes()?, process.cpu()?);
    let interval = Duration::from_secs_f64(60.0 / SENT_PER_MINUTE);
    let count = usize::try_from(time.as_nanos() / interval.as_nanos())?;
    note(&format!(
        "{count} deliveries in {}",
        humantime::format_duration(time)
    ));
    let deliveries = Deliveries::new(lab.sim().api_url())?;
    let (answers, took) = send_all(lab.host(), &deliveries, count, interval)?;
    let sent = u64::try_from(count)?;
    let accepted = lab
        .await_status("the count of the last delivery", SOON, |status| {
            let webhook = status.demand.as_ref()?.webhook.as_ref()?;
            let all: u64 = webhook.deliveries.values().sum();
            let accepted = webhook.deliveries.get(&DeliveryOutcome::Accepted);
            (all >= sent).then(|| accepted.copied().unwrap_or_default())
        })
        .context("not every delivery is counted")?;
    let used = process.cpu()?.saturating_sub(cpu);
    let peak = process.peak_rss_megabytes()?;
    lab.reset()?;

    let good = answers.iter().filter(|answer| answer.code == 202).count();
    let times: Vec<f64> = answers.iter().map(|answer| answer.millis).collect();
    let refused = number(sent) - number(u64::try_from(good)?.min(accepted));
    let one = |name, unit, source, value| Figure::plain(name, unit, source, vec![value]);
    Ok(vec![
        one(
            "deliveries sent in a minute",
            "1/min",
            Source::Sender,
            number(sent) / took.as_secs_f64() * 60.0,
        )
        .at_least(PER_MINUTE, ""),
        one(
            "deliveries that were not taken",
            "deliveries",
            Source::Sender,
            refused,
        )
        .at_most(0.0, ""),
        one(
            "delivery to its answer, 99 of 100 within",
            "ms",
            Source::Sender,
            percentile(&times, 99),
        )
        .at_most(ANSWER_MAX_MS, ""),
        one(
            "delivery to its answer, all within",
            "ms",
            Source::Sender,
            percentile(&times, 100),
        )
        .at_most(ANSWER_MAX_MS, ""),
        Figure::plain("delivery to its answer", "ms", Source::Sender, times)
            .at_most(ANSWER_MAX_MS, ""),
        one(
            "daemon's peak memory before the deliveries",
            "MB",
            Source::Kernel,
            before,
        ),
        one("daemon's peak memory with them", "MB", Source::Kernel, peak)
            .at_most(MEMORY_MAX_MB, ""),
        one(
            "daemon's share of a core",
            "%",
            Source::Kernel,
            used.as_secs_f64() / took.as_secs_f64() * 100.0,
        ),
    ])
}

/// Returns the smallest sample that so many of a hundred do not exceed; NaN without samples.
fn percentile(samples: &[f64], of_100: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * of_100).div_ceil(100);
    let sample = sorted.get(place.saturating_sub(1));
    sample.copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let is = |of_100, wanted: f64| (percentile(&samples, of_100) - wanted).abs() < f64::EPSILON;
        assert!(is(99, 198.0) && is(50, 100.0) && is(100, 200.0));
        assert!(percentile(&[], 99).is_nan());
    }
}
