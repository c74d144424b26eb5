//! Jobs that come to a host.

use crate::pool::PoolName;

/// A job that comes to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Time from the beginning until it is queued, in milliseconds.
    pub at_ms: u64,
    /// Pool whose labels it has.
    pub pool: PoolName,
    /// Repository, for `max_per_repository` and priorities.
    pub repository: String,
    /// Time that it runs, in milliseconds.
    pub duration_ms: u64,
    /// Memory that it needs, if it is known.
    pub memory_bytes: Option<u64>,
}

/// The time over which utilisation and load are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Jobs come during this time, in milliseconds, and as many come afterwards.
    Ongoing(u64),
    /// Jobs come once, and the time ends with the last of them.
    Once,
}

/// Jobs that come to a host, the earliest one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrivals {
    /// The jobs.
    pub jobs: Vec<Arrival>,
    /// The time over which they come.
    pub span: Span,
    /// Wall-clock time of the beginning, in milliseconds since 1970. The schedules of pools follow it.
    pub start_unix_ms: u64,
}
