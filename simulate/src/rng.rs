//! The randomness of a history. Our own few lines and not a library's, so that a seed means the same
//! history for ever.

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Dice that always fall the same way for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; zero if that is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.any() % end }
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, in_a_thousand: u64) -> bool {
        self.below(1000) < in_a_thousand
    }

    /// Most waits are short and a few are long: from `first` to `usual`, one in fifty to `rare`.
    pub fn wait(&mut self, first: u64, usual: u64, rare: u64) -> u64 {
        if self.chance(20) {
            self.between(usual, rare)
        } else {
            self.between(first, usual)
        }
    }

    /// One of `these`, if there is any.
    pub fn pick<'a, T>(&mut self, these: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.below(these.len() as u64)).ok()?;
        these.get(at)
    }
}
