//! Disk, memory and the kernel's shared tables, and what ended runners left.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::finding::{Finding, Fix, of_mistake};
use crate::config::{self, Config, Layer};
use crate::pool::{Resource, Shortages, SlotId};
use crate::privileged::{self, Leftover, LeftoverKind, RootError};
use crate::readings;
use crate::world::chain;

/// Checks free space, memory, tasks and files as the daemon does.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = judge_shortages(config, &readings::shortages_now(config));
    findings.extend(shared_filesystem(config));
    let tables = config::check_kernel(config).into_iter();
    findings.extend(
        tables.map(|mistake| of_mistake("kernel tables", mistake).fixed_by(Fix::KernelSettings)),
    );
    if !findings.iter().any(|found| found.area == "kernel tables") {
        findings.push(Finding::good("kernel tables", "large enough for all slots"));
    }
    findings
}

fn judge_shortages(config: &Config, shortages: &Shortages) -> Vec<Finding> {
    let area = "resources";
    if shortages.is_empty() {
        let text = "enough disk, memory, tasks and files are free";
        return vec![Finding::good(area, text)];
    }
    let findings = shortages.iter().map(|(resource, reason)| {
        Finding::problem(
            area,
            format!("{}: {reason}", resource.as_ref()),
            finder(config, *resource) + "`runner-controller docs resource-short` tells more",
        )
    });
    findings.collect()
}

/// Returns the command that finds what takes a resource of a file system; nothing for another resource.
fn finder(config: &Config, resource: Resource) -> String {
    let (state, layers, run) = (&config.state_dir, &config.layer_dir, &config.run_dir);
    let (list, dir) = match resource {
        Resource::StateBytes => ("du -xah", state),
        Resource::LayerBytes => ("du -xah", layers),
        Resource::RunBytes => ("du -xah", run),
        Resource::StateFiles => ("du -xh --inodes", state),
        Resource::LayerFiles => ("du -xh --inodes", layers),
        Resource::RunFiles => ("du -xh --inodes", run),
        Resource::Memory
        | Resource::MemoryPressure
        | Resource::Tasks
        | Resource::OpenFiles
        | Resource::OwnFiles
        | Resource::InotifyInstances
        | Resource::Connections
        | Resource::Terminals
        | Resource::AioRequests => return String::new(),
    };
    let dir = dir.display();
    format!("`{list} {dir} | sort -h | tail` lists what takes it below this path; ")
}

/// Returns a note if the layers of jobs can fill the file system of the daemon's records.
fn shared_filesystem(config: &Config) -> Option<Finding> {
    let on_disk = config
        .pools
        .iter()
        .any(|pool| matches!(pool.layer, Layer::Disk { .. }));
    let device = |path: &Path| path.metadata().ok().map(|seen| seen.dev());
    let shared = on_disk && device(&config.layer_dir)? == device(&config.state_dir)?;
    shared.then(|| {
        Finding::note(
            "resources",
            format!(
                "{} and {} are on one file system, whose reserve protects the daemon's records",
                config.layer_dir.display(),
                config.state_dir.display()
            ),
        )
    })
}

/// Looks for what ended runners left. Needs root.
pub(super) fn check_leftovers(config: &Config, daemon_runs: bool) -> Finding {
    // A runner that starts or ends meanwhile is alive in one of the two lists.
    let look = || -> Result<_, RootError> {
        let mut alive: BTreeSet<SlotId> = privileged::alive_slots()?.into_iter().collect();
        let left = privileged::leftovers(config)?;
        alive.extend(privileged::alive_slots()?);
        Ok((alive, left))
    };
    match look() {
        Ok((alive, left)) => judge_leftovers(&alive, left, daemon_runs),
        Err(error) => Finding::skipped("leftovers", chain(&error)),
    }
}

fn judge_leftovers(alive: &BTreeSet<SlotId>, left: Vec<Leftover>, daemon_runs: bool) -> Finding {
    let area = "leftovers";
    let left: Vec<Leftover> = left
        .into_iter()
        .filter(|left| !belongs_to(alive, left))
        .collect();
    if left.is_empty() {
        return Finding::good(area, "none of ended runners");
    }
    let first: Vec<String> = left.iter().take(3).map(ToString::to_string).collect();
    let text = format!(
        "ended runners left {}: {}",
        privileged::count(&left),
        first.join(", ")
    );
    let hint = if daemon_runs {
        "the next start in such a slot sweeps it; `runner-controller cleanup-all-containers` removes everything, jobs included"
    } else {
        "run `runner-controller doctor --fix`"
    };
    let found = Finding::warning(area, text, hint);
    if daemon_runs {
        found
    } else {
        found.fixed_by(Fix::Sweep)
    }
}

/// Returns true if a thing may be a living runner's.
fn belongs_to(alive: &BTreeSet<SlotId>, left: &Leftover) -> bool {
    let of_slot = |slot: &SlotId| {
        let (name, unit) = (slot.to_string(), slot.unit());
        let mut words = left.what.split(['/', ' ']);
        words.any(|word| {
            word == name || word == unit || word.strip_prefix("rc-") == Some(name.as_str())
        }) || left.what.contains(&unit)
            || left.what.ends_with(&name)
    };
    match left.kind {
        // Their names do not tell the slot.
        LeftoverKind::Mount | LeftoverKind::Layer | LeftoverKind::Loop => !alive.is_empty(),
        LeftoverKind::Unit
        | LeftoverKind::Machine
        | LeftoverKind::Veth
        | LeftoverKind::Directory
        | LeftoverKind::GcRoot
        | LeftoverKind::Rules
        | LeftoverKind::Group => alive.iter().any(of_slot),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn left(kind: LeftoverKind, what: &str) -> Leftover {
        Leftover {
            kind,
            what: what.into(),
        }
    }

    #[test]
    fn a_shortage_is_a_problem_with_its_resource() {
        let config = crate::config::testing::config();
        let judge = |shortages| judge_shortages(&config, &shortages);
        assert_eq!(judge(Shortages::new())[0].level, Level::Good);
        let short = Shortages::from([(Resource::Memory, "1 GiB is left".to_owned())]);
        assert_eq!(judge(short)[0].text, "memory: 1 GiB is left");
        let short = Shortages::from([(Resource::StateBytes, "0 KiB is left".to_owned())]);
        let hint = judge(short).remove(0).hint.unwrap();
        let command = format!("`du -xah {} | sort -h | tail`", config.state_dir.display());
        assert!(hint.starts_with(&command), "{hint}");
    }

    #[test]
    fn things_of_living_runners_are_not_left() {
        let alive = BTreeSet::from(["ci-1".parse().unwrap()]);
        let all = || {
            vec![
                left(LeftoverKind::Veth, "rc-ci-1"),
                left(LeftoverKind::Unit, "runner-ci@1.service (active)"),
                left(LeftoverKind::Machine, "ci-1"),
                left(LeftoverKind::Group, "/sys/fs/cgroup/x/runner-ci@1.service"),
                left(
                    LeftoverKind::GcRoot,
                    "/nix/var/nix/gcroots/runner-controller/ci-1",
                ),
                left(LeftoverKind::Mount, "/run/runner-controller/mnt"),
            ]
        };
        assert_eq!(judge_leftovers(&alive, all(), true).level, Level::Good);
        let mut more = all();
        more.push(left(LeftoverKind::Veth, "rc-ci-11"));
        let found = judge_leftovers(&alive, more, true);
        assert_eq!(found.text, "ended runners left 1 link: link rc-ci-11");
        assert_eq!(found.fix, None, "the daemon may start that slot");
        let none = judge_leftovers(&BTreeSet::new(), all(), false);
        assert_eq!(none.fix, Some(Fix::Sweep));
    }
}
