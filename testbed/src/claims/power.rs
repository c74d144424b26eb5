//! The host loses power: the daemon starts again without an operator.

use anyhow::{Result, ensure};
use status::Verdict;

use super::common::{SOON, await_no_strangers, run, start_held};
use super::fixture::{EMPTY, small};
use super::suite::{Suite, suite};
use crate::lab::Lab;
use crate::readings::summary;

pub(super) const SUITE: Suite = suite![EMPTY; a_host_that_lost_power_begins_anew];

fn a_host_that_lost_power_begins_anew(lab: &mut Lab) -> Result<()> {
    lab.install(&small(lab.sim().api_url()))?;
    lab.host()
        .run(&["systemctl", "enable", "--now", crate::lab::DAEMON])?;
    lab.await_settled(SOON)?;
    let (_, busy) = start_held(lab, "cut")?;
    lab.power_cycle()?;
    // It is enabled as an operator enables it, so it starts by itself.
    let status = lab.await_settled(SOON)?;
    let name = busy.runner.unwrap_or_default();
    ensure!(
        status
            .ended(&name)
            .is_some_and(|ended| ended.verdict == Verdict::HostRestart),
        "{name}: {}",
        summary(&status)
    );
    ensure!(
        status
            .recent
            .iter()
            .all(|ended| ended.verdict == Verdict::HostRestart),
        "{}",
        summary(&status)
    );
    run(lab, "true")?;
    lab.host()
        .run(&["systemctl", "disable", crate::lab::DAEMON])?;
    await_no_strangers(lab)
}
