//! The scale sets of pools, as the daemon sees them.

use super::finding::Finding;
use crate::status::{ScaleSetStatus, SetState, Status};
use crate::view::span;

const AREA: &str = "scale set";

/// Age of the last good answer above which the service is silent. GitHub holds a poll for at most 90 s.
const SILENT_MS: u64 = 300_000;

/// Judges each scale set; none if no daemon answers, which another finding tells.
pub(super) fn judge_all(status: Option<&Status>) -> Vec<Finding> {
    let Some(status) = status else {
        return Vec::new();
    };
    let sets = status.demand.iter().flat_map(|demand| &demand.scale_sets);
    sets.map(|set| judge(set, status.at_unix_ms)).collect()
}

fn judge(set: &ScaleSetStatus, now_unix_ms: u64) -> Finding {
    let ScaleSetStatus { pool, name, .. } = set;
    if let Some(error) = &set.error {
        return Finding::problem(
            AREA,
            format!("the session of scale set {name} of pool {pool} fails: {error}"),
            "follow GitHub's answer; if another program uses the set, give the pool another scale_set and run `runner-controller apply`",
        );
    }
    let age = set.last_unix_ms.map(|at| now_unix_ms.saturating_sub(at));
    match (set.state, age) {
        (SetState::Listening, Some(age)) if age > SILENT_MS => Finding::problem(
            AREA,
            format!(
                "scale set {name} of pool {pool} has not answered for {}",
                span(age)
            ),
            "check the way to the address of the service, such as broker.actions.githubusercontent.com; read `journalctl -u runner-controller`",
        ),
        (SetState::Occupied, _) => Finding::warning(
            AREA,
            format!("an earlier session has scale set {name} of pool {pool}"),
            "wait for two minutes after a daemon that was killed; if it stays, another program uses the set",
        ),
        (SetState::Connecting | SetState::Failing, _) => Finding::warning(
            AREA,
            format!("scale set {name} of pool {pool} has no session so far"),
            "run `runner-controller jobs` again in a minute, and read `journalctl -u runner-controller` if it stays so",
        ),
        (SetState::Listening, _) => listening(set),
    }
}

fn listening(set: &ScaleSetStatus) -> Finding {
    let ScaleSetStatus { pool, name, .. } = set;
    if let Some(labels) = &set.other_labels {
        return Finding::problem(
            AREA,
            format!(
                "scale set {name} of pool {pool} has other labels than the pool: {}",
                labels.join(", ")
            ),
            "give the pool another scale_set, because GitHub does not change the labels of a set",
        );
    }
    let room = set.capacity.unwrap_or_default();
    if set.unreadable > 0 {
        return Finding::warning(
            AREA,
            format!(
                "{} messages of scale set {name} of pool {pool} could not be read",
                set.unreadable
            ),
            "update runner-controller, and report what its journal says about them",
        );
    }
    Finding::good(
        AREA,
        format!("scale set {name} of pool {pool} listens, with room for {room} jobs"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn good() -> ScaleSetStatus {
        ScaleSetStatus {
            pool: "ci".into(),
            name: "runner-01-ci".into(),
            state: SetState::Listening,
            capacity: Some(4),
            last_unix_ms: Some(900_000),
            ..ScaleSetStatus::default()
        }
    }

    #[test]
    fn each_fault_of_a_scale_set_is_told_with_its_remedy() {
        let now = 1_000_000;
        let finding = judge(&good(), now);
        assert_eq!(finding.level, Level::Good);
        assert_eq!(
            finding.text,
            "scale set runner-01-ci of pool ci listens, with room for 4 jobs"
        );
        let late = judge(&good(), 2_000_000);
        assert_eq!(late.level, Level::Problem);
        assert_eq!(
            late.text,
            "scale set runner-01-ci of pool ci has not answered for 18 m 20 s"
        );
        let failing = ScaleSetStatus {
            error: Some("GitHub answered 403".into()),
            ..good()
        };
        assert_eq!(judge(&failing, now).level, Level::Problem);
        let relabelled = ScaleSetStatus {
            other_labels: Some(vec!["gpu".into()]),
            ..good()
        };
        assert_eq!(judge(&relabelled, now).level, Level::Problem);
        let unreadable = ScaleSetStatus {
            unreadable: 2,
            ..good()
        };
        assert_eq!(judge(&unreadable, now).level, Level::Warning);
        for state in [SetState::Connecting, SetState::Occupied, SetState::Failing] {
            let finding = judge(&ScaleSetStatus { state, ..good() }, now);
            assert_eq!(finding.level, Level::Warning, "{state}");
            assert!(finding.hint.is_some());
        }
    }

    #[test]
    fn a_host_without_scale_sets_has_no_such_finding() {
        assert!(judge_all(None).is_empty());
        assert!(judge_all(Some(&Status::default())).is_empty());
    }
}
