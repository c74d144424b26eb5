//! Which registrations nobody needs any more.

use std::collections::BTreeSet;

use crate::pool::{HostId, ListedRunner, RunnerName};

/// The registrations that a clean-up may delete, in the order of the list.
///
/// Only this host's own (by their exact name), never a busy one, and never one that a living
/// container owns: if that one is offline it may just be about to connect, and whatever it is, its
/// controller deals with it. `owned` holds runner names; an empty set means that no container
/// lives. GitHub has the last word all the same, as deleting a runner that just got a job is
/// refused.
#[must_use]
pub fn cleanup_candidates(
    host: &HostId,
    list: &[ListedRunner],
    owned: &BTreeSet<String>,
) -> Vec<ListedRunner> {
    list.iter()
        .filter(|runner| RunnerName::parse(host, &runner.name).is_some())
        .filter(|runner| !runner.busy && !owned.contains(&runner.name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::RunnerId;

    #[test]
    fn only_our_own_free_and_unowned_ones_go() {
        let runner = |id, name: &str, online, busy| ListedRunner {
            id: RunnerId(id),
            name: name.to_owned(),
            online,
            busy,
        };
        let list = [
            runner(1, "fuzz-ci-1-0000beef", false, false),
            runner(2, "fuzz-ci-2-0000beef", true, false),
            runner(3, "fuzz-ci-3-0000beef", true, true),
            // GitHub can show an offline runner as busy when its host was lost.
            runner(4, "fuzz-ci-4-0000beef", false, true),
            runner(5, "fuzz-ci-5-0000beef", true, false),
            runner(6, "fuzz-ci-6-0000beef", false, false),
            runner(7, "fuzz-a-ci-1-0000beef", false, false),
            runner(8, "fuzz", false, false),
            runner(9, "fuzz-ci-1-0000beef-x", false, false),
        ];
        let owned = ["fuzz-ci-5-0000beef", "fuzz-ci-6-0000beef"]
            .map(str::to_owned)
            .into();
        let gone = cleanup_candidates(&"fuzz".parse().unwrap(), &list, &owned);
        let ids: Vec<u64> = gone.iter().map(|runner| runner.id.0).collect();
        assert_eq!(ids, [1, 2]);
    }
}
