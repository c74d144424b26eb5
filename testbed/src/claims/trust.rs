//! Trust rules of root's programs: a slot is started while a file on the way belongs to another
//! user.

use anyhow::{Context, Result, ensure};

use super::common::{SOON, ensure_says, stop_all};
use super::fixture::SMALL;
use super::suite::{Suite, suite};
use crate::lab::{CONFIG, Lab, RUN_DIR};
use crate::readings::summary;

pub(super) const SUITE: Suite = suite![SMALL;
    a_slot_is_not_started_from_what_others_may_change,
    a_unit_name_without_a_slot_is_not_started,
];

const IMAGE: &str = "/var/lib/runner-images/debian";

/// Change of the host, the script that undoes it, and the launcher's answer.
struct Fault {
    done: &'static str,
    undone: &'static str,
    status: u8,
    words: &'static str,
}

/// Variables of the scripts: the configuration, the image, the slots' directory, and the slot's
/// directory.
const FAULTS: &[Fault] = &[
    Fault {
        done: "chmod g+w $config",
        undone: "chmod g-w $config",
        status: 80,
        words: "config.toml has mode 0664; only root may write it",
    },
    Fault {
        done: "chmod o+w $config",
        undone: "chmod o-w $config",
        status: 80,
        words: "config.toml has mode 0646",
    },
    Fault {
        done: "chown runner-controller $config",
        undone: "chown root $config",
        status: 80,
        words: "config.toml belongs to uid",
    },
    Fault {
        done: "chmod o+w $(dirname $config)",
        undone: "chmod o-w $(dirname $config)",
        status: 80,
        words: "/etc/runner-controller has mode",
    },
    Fault {
        done: "install -d -m 0777 /var/lib/open && mv $config /var/lib/open/ && ln -s /var/lib/open/config.toml $config",
        undone: "mv /var/lib/open/config.toml $config && rmdir /var/lib/open",
        status: 80,
        words: "/var/lib/open has mode 0777",
    },
    Fault {
        done: "mv $image $image.real && ln -s $image.real $image",
        undone: "rm $image && mv $image.real $image",
        status: 81,
        words: "debian as a directory without following a symlink",
    },
    Fault {
        done: "chmod o+w $image",
        undone: "chmod o-w $image",
        status: 81,
        words: "debian has mode 0757",
    },
    Fault {
        done: "chown runner-controller $(dirname $image)",
        undone: "chown root $(dirname $image)",
        status: 81,
        words: "runner-images belongs to uid",
    },
    Fault {
        done: "mv $slot $slot.real && ln -s $slot.real $slot",
        undone: "rm $slot && mv $slot.real $slot",
        status: 83,
        words: "ci-1 as a directory without following a symlink",
    },
    Fault {
        done: "chown daemon $slot",
        undone: "chown runner-controller $slot",
        status: 83,
        words: "and not to runner-controller",
    },
    Fault {
        done: "chmod g+w $slots",
        undone: "chmod g-w $slots",
        status: 83,
        words: "slots has mode",
    },
];

/// Starts a unit, which must fail. Returns the unit's journal.
pub(super) fn fail_to_start(lab: &Lab, unit: &str) -> Result<String> {
    let host = lab.host();
    let shown = host.run(&["journalctl", "--lines=0", "--show-cursor", "--quiet"])?;
    let cursor = shown
        .trim()
        .strip_prefix("-- cursor: ")
        .with_context(|| format!("no cursor in {shown:?}"))?;
    let output = host.output(&["systemctl", "start", unit])?;
    // The journal is complete when the processes that write to it have ended.
    let said = lab.journalctl(&[
        "--output=cat",
        &format!("--after-cursor={cursor}"),
        &format!("--unit={unit}"),
    ])?;
    ensure!(!output.status.success(), "{unit} was started: {said}");
    let machines = lab.machines()?;
    ensure!(machines.is_empty(), "{machines:?} run");
    Ok(said)
}

fn a_slot_is_not_started_from_what_others_may_change(lab: &mut Lab) -> Result<()> {
    let script = |act: &str| {
        format!(
            "set -e; config={CONFIG} image={IMAGE} slots={RUN_DIR}/slots slot={RUN_DIR}/slots/ci-1\n{act}"
        )
    };
    stop_all(lab)?;
    for fault in FAULTS {
        lab.host().sh(&script(fault.done))?;
        let said = fail_to_start(lab, "runner-ci@1.service");
        lab.host().sh(&script(fault.undone))?;
        let status = format!("status={}/", fault.status);
        said.and_then(|said| ensure_says(&said, &[fault.words, &status]))
            .context(fault.done)?;
    }
    // The same slot starts when every change is undone.
    lab.start()?;
    let settled = lab.await_settled(SOON)?;
    ensure!(
        settled.runners().any(|runner| runner.machine() == "ci-1"),
        "ci-1 does not run: {}",
        summary(&settled)
    );
    Ok(())
}

fn a_unit_name_without_a_slot_is_not_started(lab: &mut Lab) -> Result<()> {
    stop_all(lab)?;
    for (number, words) in [
        // The pool has four slots.
        ("5", "the configuration has no slot ci-5"),
        ("999", "the configuration has no slot ci-999"),
        ("0", "invalid value '0'"),
        ("007", "invalid value '007'"),
        ("01", "invalid value '01'"),
        ("1000", "invalid value '1000'"),
        // The form that systemctl prints.
        ("+1", r"invalid value '\x2b1'"),
        ("1x", "invalid value '1x'"),
        ("-1", "unexpected argument '-1'"),
        ("1:2", "invalid value '1:2'"),
        (
            "99999999999999999999",
            "invalid value '99999999999999999999'",
        ),
    ] {
        let said = fail_to_start(lab, &format!("runner-ci@{number}.service"))?;
        ensure_says(&said, &[words]).context(number)?;
    }
    lab.start()?;
    lab.await_settled(SOON).map(drop)
}
