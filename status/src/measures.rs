//! Measures: what is counted of every runner, job or request to GitHub, and how often it was how large.

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

/// A quantity that each runner or job of a pool, or each request to GitHub, has once.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Milliseconds from the queue to the start of a job.
    QueueWait,
    /// Milliseconds from the start of a container until it asked for its config.
    Boot,
    /// Milliseconds from the request for a config until GitHub showed the runner online or it had a job.
    Registration,
    /// Milliseconds of a job.
    Job,
    /// Milliseconds of processor time of a runner that had a job.
    JobCpu,
    /// Peak memory of a runner that had a job, in bytes.
    JobMemoryPeak,
    /// Milliseconds from a request to GitHub until its whole answer.
    GitHubRequest,
}

/// Unit of a measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
}

const MIB: u64 = 1 << 20;

impl Measure {
    /// Returns the unit of its values.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::QueueWait
            | Self::Boot
            | Self::Registration
            | Self::Job
            | Self::JobCpu
            | Self::GitHubRequest => Unit::Milliseconds,
            Self::JobMemoryPeak => Unit::Bytes,
        }
    }

    /// Returns the upper bounds of its buckets, in its unit. Larger values have a bucket of their own.
    #[must_use]
    pub fn bounds(self) -> &'static [u64] {
        match self {
            Self::QueueWait => &[
                500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 900_000,
                3_600_000, 14_400_000,
            ],
            Self::Boot | Self::Registration => &[
                100, 200, 300, 500, 750, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000,
            ],
            Self::GitHubRequest => &[50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000],
            Self::Job | Self::JobCpu => &[
                1_000, 5_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_200_000,
                2_400_000, 3_600_000, 7_200_000, 21_600_000,
            ],
            Self::JobMemoryPeak => &[
                64 * MIB,
                128 * MIB,
                256 * MIB,
                512 * MIB,
                1_024 * MIB,
                2_048 * MIB,
                4_096 * MIB,
                8_192 * MIB,
                16_384 * MIB,
                32_768 * MIB,
                65_536 * MIB,
            ],
        }
    }
}

/// Number of values of one measure by their size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Number of values in each bucket of [`Measure::bounds`], and of those beyond the last; empty without a value.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// Counts one value of a measure.
    pub fn add(&mut self, measure: Measure, value: u64) {
        let bounds = measure.bounds();
        self.counts.resize(bounds.len() + 1, 0);
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_every_measure_grow() {
        for measure in <Measure as VariantArray>::VARIANTS {
            assert!(measure.bounds().is_sorted_by(|a, b| a < b), "{measure}");
        }
    }

    #[test]
    fn a_value_is_in_the_bucket_with_its_bound_and_a_large_one_in_the_last() {
        let mut boots = Histogram::default();
        for value in [100, 101, u64::MAX] {
            boots.add(Measure::Boot, value);
        }
        let filled: Vec<usize> = (0..boots.counts.len())
            .filter(|bucket| boots.counts[*bucket] > 0)
            .collect();
        assert_eq!(filled, [0, 1, Measure::Boot.bounds().len()]);
        assert_eq!(boots.sum, u64::MAX);
    }
}
