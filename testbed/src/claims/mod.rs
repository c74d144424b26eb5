//! The system tests: what must hold of the daemon on a real host. A claim's name says what.

use anyhow::Result;

use crate::lab::Lab;

mod life;

/// One claim. It begins on an empty host, with the stand-in just started and no daemon.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// What is claimed, `like_this`.
    pub name: &'static str,
    /// Fails if it does not hold.
    pub check: fn(&mut Lab) -> Result<()>,
}

/// Every claim, in the order they run: what all others rest on comes first.
pub const ALL: &[Claim] = &[
    Claim {
        name: "a_spare_waits_unregistered",
        check: life::a_spare_waits_unregistered,
    },
    Claim {
        name: "a_job_has_a_container_of_its_own",
        check: life::a_job_has_a_container_of_its_own,
    },
    Claim {
        name: "a_failed_job_is_a_job_done",
        check: life::a_failed_job_is_a_job_done,
    },
    Claim {
        name: "a_killed_daemon_costs_no_job",
        check: life::a_killed_daemon_costs_no_job,
    },
];
