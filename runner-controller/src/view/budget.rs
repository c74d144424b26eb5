//! The budget of the host.

use crate::config::ByteSize;
use crate::status::{BudgetResource, BudgetUse, Status};

/// Returns the use of a resource, such as `3 of 4 runners`.
#[must_use]
pub fn budget_share(resource: BudgetResource, share: BudgetUse) -> String {
    let (used, max) = (share.used, share.max);
    match resource {
        BudgetResource::MemoryBytes => {
            format!("{} of {} of memory", ByteSize(used), ByteSize(max))
        }
        BudgetResource::Millicores => {
            let cores =
                |millicores: u64| format!("{}.{}", millicores / 1000, millicores % 1000 / 100);
            format!("{} of {} cores", cores(used), cores(max))
        }
        BudgetResource::Runners => format!("{used} of {max} runners"),
    }
}

/// Returns a sentence about the use of the budget, unless the host has none.
pub(super) fn budget_sentence(status: &Status) -> Option<String> {
    let shares = status.budget.iter();
    let shares: Vec<String> = shares
        .map(|(resource, share)| budget_share(*resource, *share))
        .collect();
    (!shares.is_empty()).then(|| format!("budget: {}", shares.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_has_each_resource_that_the_budget_bounds() {
        assert_eq!(budget_sentence(&Status::default()), None);
        let share = |used, max| BudgetUse { used, max };
        let status = Status {
            budget: [
                (BudgetResource::Runners, share(3, 4)),
                (BudgetResource::Millicores, share(2_500, 16_000)),
            ]
            .into(),
            ..Status::default()
        };
        assert_eq!(
            budget_sentence(&status).unwrap(),
            "budget: 2.5 of 16.0 cores, 3 of 4 runners"
        );
    }
}
