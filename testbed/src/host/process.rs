//! Processes of the outer machine, told from later ones of the same number.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Clock ticks after the machine's boot.
    started: u64,
}

impl Process {
    pub(super) fn find(pid: i32) -> Result<Self> {
        let stat = Stat::read(pid)?;
        Ok(Self {
            pid,
            started: stat.started,
        })
    }

    pub(super) fn lives(self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.started == self.started && stat.state != "Z")
    }
}

/// The fields of `/proc/<pid>/stat` that we want.
struct Stat {
    state: String,
    parent: i32,
    started: u64,
}

impl Stat {
    fn read(pid: i32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).with_context(|| format!("/proc/{pid}/stat is not what proc(5) says"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The command's name comes second, in parentheses, and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: (*fields.first()?).to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

pub(super) fn parent_of(pid: i32) -> Result<i32> {
    Stat::read(pid).map(|stat| stat.parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let me = i32::try_from(std::process::id()).unwrap();
        let process = Process::find(me).unwrap();
        assert!(process.lives());
        assert!(
            !Process {
                started: process.started + 1,
                ..process
            }
            .lives()
        );
    }

    #[test]
    fn a_command_name_with_parentheses_does_not_confuse() {
        let text = "7 (a) b (c) S 42 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9999 0 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (stat.state.as_str(), stat.parent, stat.started),
            ("S", 42, 9999)
        );
    }
}
