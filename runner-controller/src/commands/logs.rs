//! `logs`, also called `runner-logs`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, bail};

use super::explain::{self, Story, Subject};
use super::{journal, kept_logs};
use crate::config;
use crate::pool::{PoolName, RunnerName, SlotId};

/// Slot, pool or runner whose log is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// One slot: `ci-3`.
    Slot(SlotId),
    /// All slots of a pool: `ci`.
    Pool(PoolName),
    /// A runner by its name at GitHub, or the runners of a workflow run.
    Runner(Subject),
}

impl FromStr for LogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(slot) = text.parse() {
            return Ok(Self::Slot(slot));
        }
        if let Ok(pool) = text.parse() {
            return Ok(Self::Pool(pool));
        }
        let subject: Subject = text.parse()?;
        // No other name of a runner is ours.
        if let Subject::Runner(name) = &subject
            && RunnerName::of_any_host(name).is_none()
        {
            return Err(
                "not a slot (`ci-3`), a pool (`ci`), the name of a runner, or the URL of a job"
                    .into(),
            );
        }
        Ok(Self::Runner(subject))
    }
}

/// Options of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Print new lines as they arrive.
    pub follow: bool,
    /// Maximum number of lines, the newest ones.
    pub lines: Option<u32>,
    /// Print the kept log files of listeners that ended, and no journal.
    pub kept: bool,
}

impl LogOptions {
    fn add_to(self, arguments: &mut Vec<String>) {
        if self.follow {
            arguments.push("--follow".into());
        }
        if let Some(lines) = self.lines {
            arguments.push(format!("--lines={lines}"));
        }
    }
}

/// Prints the logs of a target: its lines in the host's journal, and a named runner's kept log files.
pub fn logs(config: &Path, target: Option<&LogTarget>, options: LogOptions) -> anyhow::Result<()> {
    match target {
        Some(LogTarget::Runner(subject)) => of_runners(config, subject, options),
        Some(LogTarget::Slot(slot)) if options.kept => match kept_logs::newest_of(slot)? {
            Some(name) => Ok(stdio::print(kept_logs::text(&name)?)?),
            None => bail!("no log files of {slot} are kept; {WHICH}"),
        },
        Some(LogTarget::Pool(_)) | None if options.kept => {
            bail!("name the slot or the runner whose log files to print; {WHICH}")
        }
        Some(LogTarget::Slot(slot)) => {
            if kept_logs::newest_of(slot)?.is_some() {
                stdio::progress(format_args!(
                    "log files of a listener that ended are kept: runner-logs --kept {slot}"
                ));
            }
            journal(config, target, options)
        }
        Some(LogTarget::Pool(_)) | None => journal(config, target, options),
    }
}

/// Hint at the log files that exist.
const WHICH: &str = "`[logs]` says which are kept, and `runner-controller history` marks them";

/// Prints the journal's lines of each runner that the subject names, and its kept log files.
fn of_runners(config: &Path, subject: &Subject, options: LogOptions) -> anyhow::Result<()> {
    let stories = explain::stories(config, subject)?;
    let mut has_any = false;
    for story in &stories {
        if !options.kept {
            let status = Command::new("journalctl")
                .args(arguments_of_story(story, options))
                .status()
                .context("cannot run journalctl")?;
            if !status.success() {
                bail!("journalctl failed with {status}");
            }
        }
        if let Some(name) = kept_logs::of(story.invocation.as_ref())? {
            has_any = true;
            stdio::print(kept_logs::text(&name)?)?;
        }
    }
    if options.kept && !has_any {
        bail!("no log files of this runner are kept; {WHICH}");
    }
    Ok(())
}

/// Returns the arguments of `journalctl` for the lines of one runner.
fn arguments_of_story(story: &Story, options: LogOptions) -> Vec<String> {
    let mut arguments = match &story.invocation {
        Some(invocation) => journal::of_invocation(invocation).into(),
        None => vec![format!("--unit={}", story.slot.unit())],
    };
    options.add_to(&mut arguments);
    arguments.push("--no-pager".into());
    arguments.extend(story.time_arguments());
    arguments
}

/// Replaces this process by `journalctl`. Returns only if that fails.
fn journal(config: &Path, target: Option<&LogTarget>, options: LogOptions) -> anyhow::Result<()> {
    // Logs are readable with an invalid configuration, too: operators need them most then.
    let slots = config::load(config).map_or_else(|_| Vec::new(), |config| config.slots().collect());
    let arguments = arguments(target, options, &slots);
    let error = Command::new("journalctl").args(arguments).exec();
    Err(error).context("cannot run journalctl")
}

/// Returns the arguments of `journalctl`.
///
/// They name the host's journal alone. `journalctl --machine=` would open the container's journal by its
/// path, and root in the container can put a link to the host's journal there.
fn arguments(target: Option<&LogTarget>, options: LogOptions, slots: &[SlotId]) -> Vec<String> {
    let mut arguments = match target {
        Some(LogTarget::Slot(id)) => vec![format!("--unit={}", id.unit())],
        Some(LogTarget::Pool(pool)) => {
            let of_pool = slots.iter().filter(|id| id.pool == *pool);
            units(of_pool, &format!("runner-{pool}@*.service"))
        }
        Some(LogTarget::Runner(_)) | None => units(slots.iter(), "runner-*@*.service"),
    };
    options.add_to(&mut arguments);
    arguments
}

/// Returns `--unit` arguments for slots, or for a pattern if no slot is known.
///
/// journalctl expands a pattern once, to units that the journal has when it starts. `--follow` would
/// miss a slot whose first runner starts later, so names are better where they are known.
fn units<'a>(slots: impl Iterator<Item = &'a SlotId>, pattern: &str) -> Vec<String> {
    let named: Vec<String> = slots.map(|id| format!("--unit={}", id.unit())).collect();
    if named.is_empty() {
        vec![format!("--unit={pattern}")]
    } else {
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(target: &str, options: LogOptions) -> String {
        let target = (!target.is_empty()).then(|| target.parse().unwrap());
        let slots: Vec<SlotId> = ["ci-1", "ci-2", "fuzz-1"]
            .map(|id| id.parse().unwrap())
            .into();
        arguments(target.as_ref(), options, &slots).join(" ")
    }

    #[test]
    fn a_slot_is_read_by_its_unit() {
        assert_eq!(
            joined("ci-1", LogOptions::default()),
            "--unit=runner-ci@1.service"
        );
    }

    #[test]
    fn a_pool_is_read_by_its_slots_and_no_target_means_all_slots() {
        let follow = LogOptions {
            follow: true,
            lines: Some(20),
            kept: false,
        };
        assert_eq!(
            joined("ci", follow),
            "--unit=runner-ci@1.service --unit=runner-ci@2.service --follow --lines=20"
        );
        assert_eq!(
            joined("", LogOptions::default()),
            "--unit=runner-ci@1.service --unit=runner-ci@2.service --unit=runner-fuzz@1.service"
        );
        assert_eq!(
            joined("gone", LogOptions::default()),
            "--unit=runner-gone@*.service"
        );
    }

    #[test]
    fn only_a_name_of_a_slot_or_a_pool_reaches_journalctl() {
        for bad in [
            "--flush",
            "ci-01",
            "ci-0",
            "ci-1;x",
            "../ci-1",
            "CI",
            "a*",
            "",
            "--kept-ci-3-0a1b2c3d",
        ] {
            assert!(bad.parse::<LogTarget>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_runner_is_named_as_for_explain() {
        for name in [
            "runner-01-ci-3-0a1b2c3d",
            "https://github.com/acme/widgets/actions/runs/17/job/99",
        ] {
            let subject = name.parse().unwrap();
            assert_eq!(name.parse(), Ok(LogTarget::Runner(subject)));
        }
    }
}
