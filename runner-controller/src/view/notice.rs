//! One sentence for a reader, and its weight.

/// Weight of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Something is wrong.
    Problem,
    /// No runner starts or registers, for a reason that need not be a problem.
    Closed,
    /// Something to know.
    Fact,
}

/// One sentence for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its weight.
    pub weight: Weight,
    /// The sentence.
    pub text: String,
}

impl Notice {
    pub(super) fn problem(text: String) -> Self {
        let weight = Weight::Problem;
        Self { weight, text }
    }

    pub(super) fn fact(text: String) -> Self {
        let weight = Weight::Fact;
        Self { weight, text }
    }
}
