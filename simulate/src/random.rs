//! The random numbers of a history. A seed gives the same history with every later version of a library.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// A consumer of random numbers. Each has its own stream of the seed, so that one that draws more changes
/// nothing for the others.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    /// The daemon.
    Daemon = 1,
    /// The first configuration.
    Config = 2,
    /// The turns that the daemon gets between two steps.
    Turns = 3,
    /// The fault injector.
    Faults = 4,
    /// The jobs that are pushed.
    Jobs = 5,
    /// The host.
    Host = 6,
    /// The sockets of the slots.
    Sockets = 7,
    /// GitHub.
    GitHub = 8,
    /// The network between the daemon and GitHub.
    Network = 9,
    /// The daemon's records.
    Disk = 10,
    /// The supervisor of the daemon.
    Supervisor = 11,
    /// GitHub's deliveries of its jobs.
    Deliveries = 12,
    /// GitHub's scale sets.
    ScaleSets = 13,
}

/// Random numbers by a seed.
#[derive(Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// Returns a stream of the seed.
    #[must_use]
    pub(crate) fn new(seed: u64, stream: Stream) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64);
        Self(rng)
    }

    /// Returns an independent generator, at the cost of one draw from this one.
    #[must_use]
    pub(crate) fn fork(&mut self) -> Self {
        Self(ChaCha8Rng::seed_from_u64(self.0.random()))
    }

    /// Returns any 32-bit number.
    pub(crate) fn any(&mut self) -> u32 {
        self.0.random()
    }

    /// Returns a number below `end`; zero if `end` is zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if end == 0 {
            0
        } else {
            self.0.random_range(0..end)
        }
    }

    /// Returns a number from `first` to `last`, both included.
    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        self.0.random_range(first..=last.max(first))
    }

    /// Returns true `in_a_thousand` times out of a thousand.
    pub(crate) fn chance(&mut self, in_a_thousand: u64) -> bool {
        self.below(1000) < in_a_thousand
    }

    /// Returns a wait. Most are short, from `first` to `usual`. One in fifty is long, from `usual` to `rare`.
    pub(crate) fn wait(&mut self, first: u64, usual: u64, rare: u64) -> u64 {
        if self.chance(20) {
            self.between(usual, rare)
        } else {
            self.between(first, usual)
        }
    }

    /// Returns one of `items`; `None` if there are none.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(items.len() as u64)).ok()?;
        items.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded seeds lose their meaning if this fails.
    #[test]
    fn the_numbers_of_a_seed_never_change() {
        let mut random = Random::new(42, Stream::Host);
        let first: Vec<u64> = (0..4).map(|_| random.below(1_000_000)).collect();
        let mut other = Random::new(42, Stream::GitHub);
        let second: Vec<u64> = (0..4).map(|_| other.between(1, 1_000_000)).collect();
        assert_eq!(first, [359_630, 654_065, 392_808, 980_067]);
        assert_eq!(second, [834_397, 146_667, 760_470, 475_456]);
    }
}
