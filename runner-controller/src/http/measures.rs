//! Histograms of the status as metrics: times in seconds, sizes in bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use super::metric_families::{Labels, label};
use crate::status::{Histogram, Measure, PoolStatus, Unit};

/// Registers the histogram of each measure of every pool. Those without a value are there, too.
pub(super) fn register(registry: &mut Registry, pools: &[PoolStatus]) {
    for (measure, name, help) in [
        (
            Measure::Boot,
            "boot_seconds",
            "Time from the start of a container until it asked for its config, of runners that ended",
        ),
        (
            Measure::Registration,
            "registration_seconds",
            "Time from the request for a config until GitHub showed the runner online, of runners that ended",
        ),
        (
            Measure::Job,
            "job_seconds",
            "Duration of jobs, from the start hook to the end of the runner",
        ),
        (
            Measure::JobCpu,
            "job_cpu_seconds",
            "Processor time of runners that had a job",
        ),
        (
            Measure::JobMemoryPeak,
            "job_memory_peak_bytes",
            "Peak memory of runners that had a job",
        ),
    ] {
        let family = family(registry, name, help);
        for pool in pools {
            let histogram = pool.measures.get(&measure).cloned().unwrap_or_default();
            set(&family, vec![label("pool", &pool.name)], measure, histogram);
        }
    }
}

/// Histograms with one name.
pub(super) type Histograms = Family<Labels, Shown>;

/// Registers histograms with one name.
pub(super) fn family(registry: &mut Registry, name: &str, help: &str) -> Histograms {
    let family = Family::default();
    registry.register(name, help, Family::clone(&family));
    family
}

/// Sets the histogram of some labels.
pub(super) fn set(family: &Histograms, labels: Labels, measure: Measure, histogram: Histogram) {
    *family.get_or_create(&labels).get() = Some((measure, histogram));
}

/// A histogram that was counted elsewhere.
#[derive(Debug, Default)]
pub(super) struct Shown(Mutex<Option<(Measure, Histogram)>>);

impl Shown {
    fn get(&self) -> MutexGuard<'_, Option<(Measure, Histogram)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Shown {
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds of years and bytes of a host are exact in 53 bits"
    )]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some((measure, histogram)) = &*self.get() else {
            return Ok(());
        };
        let shown = |value: u64| match measure.unit() {
            Unit::Milliseconds => value as f64 / 1000.0,
            Unit::Bytes => value as f64,
        };
        let bounds = measure.bounds().iter().map(|bound| shown(*bound));
        let counts = histogram.counts.iter().copied();
        let counts = counts.chain(std::iter::repeat(0));
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::MAX]).zip(counts).collect();
        let count = histogram.counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(shown(histogram.sum), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl TypedMetric for Shown {
    const TYPE: MetricType = MetricType::Histogram;
}
