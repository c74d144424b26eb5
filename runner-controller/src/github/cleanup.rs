//! The choice of stale registrations to delete.

use std::collections::BTreeSet;

use crate::pool::{HostId, ListedRunner, RunnerName};

/// Returns the registrations that a clean-up may delete, in the order of the list.
///
/// Candidates have this host's exact runner names, are offline and not busy. A registration that a
/// living container owns is never a candidate: its runner may be about to connect, and the daemon
/// deals with it. `owned` holds runner names; an empty set means that no container lives.
/// GitHub still decides, because it refuses to delete a runner that just got a job.
#[must_use]
pub fn cleanup_candidates(
    host: &HostId,
    list: &[ListedRunner],
    owned: &BTreeSet<String>,
) -> Vec<ListedRunner> {
    list.iter()
        .filter(|runner| RunnerName::parse(host, &runner.name).is_some())
        .filter(|runner| !runner.online && !runner.busy && !owned.contains(&runner.name))
        .cloned()
        .collect()
}

/// Returns the online runners with this host's names that no container here owns, in the order of the
/// list. Another host uses the name, or a container ended so lately that GitHub still shows it online.
/// They are not left-overs.
#[must_use]
pub fn online_strangers(
    host: &HostId,
    list: &[ListedRunner],
    owned: &BTreeSet<String>,
) -> Vec<ListedRunner> {
    list.iter()
        .filter(|runner| RunnerName::parse(host, &runner.name).is_some())
        .filter(|runner| runner.online && !owned.contains(&runner.name))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::RunnerId;

    #[test]
    fn only_offline_registrations_of_this_host_without_a_container_are_candidates() {
        let runner = |id, name: &str, online, busy| ListedRunner {
            id: RunnerId(id),
            name: name.to_owned(),
            online,
            busy,
            version: None,
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
        assert_eq!(ids, [1]);
        let strangers = online_strangers(&"fuzz".parse().unwrap(), &list, &owned);
        let ids: Vec<u64> = strangers.iter().map(|runner| runner.id.0).collect();
        assert_eq!(ids, [2, 3]);
    }
}
