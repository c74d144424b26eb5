//! The budget: the resources of the host that all runners may take together.

/// Resources that runners take of the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processors, in thousandths of a core.
    pub millicores: u64,
    /// Number of runners.
    pub runners: u64,
}

impl Cost {
    /// Returns the cost of `count` runners with this cost each.
    #[must_use]
    pub fn times(self, count: usize) -> Self {
        let count = count as u64;
        Self {
            memory_bytes: self.memory_bytes.saturating_mul(count),
            millicores: self.millicores.saturating_mul(count),
            runners: self.runners.saturating_mul(count),
        }
    }

    /// Returns the sum of two costs.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            millicores: self.millicores.saturating_add(other.millicores),
            runners: self.runners.saturating_add(other.runners),
        }
    }

    /// Returns what is left of this cost without `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            millicores: self.millicores.saturating_sub(other.millicores),
            runners: self.runners.saturating_sub(other.runners),
        }
    }

    /// Returns the larger one of two costs in each resource.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            millicores: self.millicores.max(other.millicores),
            runners: self.runners.max(other.runners),
        }
    }

    /// Returns the smaller one of two costs in each resource.
    #[must_use]
    pub(super) fn min(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            millicores: self.millicores.min(other.millicores),
            runners: self.runners.min(other.runners),
        }
    }
}

/// Maxima for all runners of the host together. An absent one does not apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processors, in thousandths of a core.
    pub millicores: Option<u64>,
    /// Number of runners.
    pub runners: Option<u64>,
}

impl Budget {
    /// Returns true if nothing is bounded.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Returns true if runners with this cost together are within the budget.
    #[must_use]
    pub fn allows(&self, used: Cost) -> bool {
        let [memory, millicores, runners] = self.pairs(used);
        [memory, millicores, runners]
            .into_iter()
            .flatten()
            .all(|(used, max)| used <= max)
    }

    /// Returns true if `one` takes less than `other` of a bounded resource, and more of none.
    #[must_use]
    pub(super) fn is_smaller(&self, one: Cost, other: Cost) -> bool {
        let pairs = [
            (self.memory_bytes, one.memory_bytes, other.memory_bytes),
            (self.millicores, one.millicores, other.millicores),
            (self.runners, one.runners, other.runners),
        ];
        let bounded = || pairs.iter().filter(|(max, ..)| max.is_some());
        bounded().all(|(_, one, other)| one <= other)
            && bounded().any(|(_, one, other)| one < other)
    }

    /// Returns true if `cost` takes a bounded resource at all that lacks in `used` and `wanted` together.
    #[must_use]
    pub(super) fn relieves(&self, cost: Cost, used: Cost, wanted: Cost) -> bool {
        let sum = used.plus(wanted);
        let amounts = [cost.memory_bytes, cost.millicores, cost.runners];
        let pairs = self.pairs(sum).into_iter().zip(amounts);
        pairs
            .filter_map(|(pair, amount)| Some((pair?, amount)))
            .any(|((sum, max), amount)| sum > max && amount > 0)
    }

    fn pairs(&self, used: Cost) -> [Option<(u64, u64)>; 3] {
        [
            self.memory_bytes.map(|max| (used.memory_bytes, max)),
            self.millicores.map(|max| (used.millicores, max)),
            self.runners.map(|max| (used.runners, max)),
        ]
    }
}
