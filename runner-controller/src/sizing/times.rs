//! The times that a runner takes beside its job.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde::Serialize;

/// Source of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A default of this program.
    Default,
    /// An option of the command.
    Option,
    /// The runners on record.
    History,
}

/// Times of one step, of which each runner takes one at random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// The times in milliseconds, the shortest one first, at least one.
    sorted_ms: Vec<u64>,
    /// Their source.
    pub source: Source,
}

impl Samples {
    /// Returns a time that is always the same.
    #[must_use]
    pub fn fixed(ms: u64, source: Source) -> Self {
        Self {
            sorted_ms: vec![ms],
            source,
        }
    }

    /// Returns times of the history; `None` if there are none.
    #[must_use]
    pub fn of_history(mut ms: Vec<u64>) -> Option<Self> {
        ms.sort_unstable();
        (!ms.is_empty()).then_some(Self {
            sorted_ms: ms,
            source: Source::History,
        })
    }

    /// Returns the median in milliseconds.
    #[must_use]
    pub fn median_ms(&self) -> u64 {
        let middle = (self.sorted_ms.len().max(1) - 1) / 2;
        self.sorted_ms.get(middle).copied().unwrap_or_default()
    }

    /// Returns the number of times.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sorted_ms.len()
    }

    /// Returns one of the times in milliseconds.
    pub(super) fn draw(&self, random: &mut ChaCha8Rng) -> u64 {
        let place = random.random_range(0..self.sorted_ms.len().max(1));
        self.sorted_ms.get(place).copied().unwrap_or_default()
    }
}

/// The times that a runner takes beside its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// From the start call until the container asks for its JIT config.
    pub boot: Samples,
    /// From the mint until the listener waits for a job.
    pub register: Samples,
    /// From the moment at which GitHub gives a runner a job until the job runs.
    pub start_job: Samples,
    /// From the end of a job until its slot is vacant.
    pub remove: Samples,
}

impl Default for Times {
    /// Returns the times of a host without a history. `cargo bench-life` measures the boot. The others are mostly those
    /// of GitHub and its listener, which take about a second for each of their steps.
    fn default() -> Self {
        let default = |ms| Samples::fixed(ms, Source::Default);
        Self {
            boot: default(400),
            register: default(2_000),
            start_job: default(1_000),
            remove: default(1_000),
        }
    }
}
