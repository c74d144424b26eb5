//! The time since the demo was entered.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use crate::supervise;

/// Seconds since the command was entered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    entered: Instant,
    pub(super) entered_unix_ms: u64,
}

impl Clock {
    /// Cargo becomes us, and a shell starts it when enter is pressed: so this is when our process,
    /// or the one that supervises it, was started. Compiling the testbed itself is part of it.
    pub(super) fn since_enter() -> Result<Self> {
        let pid = if supervise::is_worker() {
            nix::unistd::getppid()
        } else {
            nix::unistd::getpid()
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc_pid_stat(5): field 22, counted behind the command's name, which may hold anything.
        let ticks: u64 = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_whitespace().nth(19)?.parse().ok())
            .context("our own process has no start time")?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?
            .and_then(|ticks| u64::try_from(ticks).ok())
            .unwrap_or(100);
        let started = Duration::from_millis(ticks * 1000 / per_second);
        let age = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?).saturating_sub(started);
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)?
            .saturating_sub(age);
        Ok(Self {
            entered: Instant::now()
                .checked_sub(age)
                .context("a clock that ran backwards")?,
            entered_unix_ms: u64::try_from(unix.as_millis())?,
        })
    }

    pub(super) fn seconds(&self) -> f64 {
        self.entered.elapsed().as_secs_f64()
    }
}

/// Returns milliseconds as seconds.
pub(super) fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_was_before_now() {
        let clock = Clock::since_enter().unwrap();
        assert!(clock.seconds() > 0.0);
        assert!(clock.entered_unix_ms > 1_600_000_000_000);
    }
}
