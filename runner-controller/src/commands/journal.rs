//! Arguments with which `journalctl` finds the lines of a runner.

use std::time::Duration;

use crate::pool::Invocation;

/// Time before a runner's start and after its end in which lines are looked for: the daemon's decision to
/// start it, and the sweep.
const MARGIN: Duration = Duration::from_secs(2);

/// Returns the arguments for lines of a runner's lifetime, in milliseconds since 1970. One that is there has no end.
pub(super) fn of_time(began_unix_ms: u64, ended_unix_ms: Option<u64>) -> Vec<String> {
    let margin = MARGIN.as_secs();
    let since = (began_unix_ms / 1_000).saturating_sub(margin);
    let until = ended_unix_ms.map(|end| end / 1_000 + margin);
    let until = until.map(|until| format!("--until=@{until}"));
    std::iter::once(format!("--since=@{since}"))
        .chain(until)
        .collect()
}

/// Returns the arguments for lines that the processes of a runner wrote, and for systemd's about its start and end.
///
/// The runners before and after it in its slot have another invocation.
pub(super) fn of_invocation(invocation: &Invocation) -> [String; 3] {
    [
        format!("_SYSTEMD_INVOCATION_ID={invocation}"),
        "+".into(),
        format!("INVOCATION_ID={invocation}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_runner_has_a_margin_and_no_end_while_it_lives() {
        assert_eq!(
            of_time(1_796_000_000_000, Some(1_796_000_075_300)),
            ["--since=@1795999998", "--until=@1796000077"]
        );
        assert_eq!(of_time(1_000, None), ["--since=@0"]);
    }
}
