//! Processor time and memory of this process, from the kernel.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Returns the processor time of a thread of this process.
pub(super) fn thread_time(thread: Pid) -> Duration {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    let nanos = text.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanos)
}

/// Returns the processor time of this process without that of some of its threads.
pub(super) fn time_without(threads: &[Pid]) -> Duration {
    let all = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    let others: Duration = threads.iter().map(|thread| thread_time(*thread)).sum();
    Duration::from(all).saturating_sub(others)
}

/// Returns a value of `/proc/self/status` in MB.
fn megabytes(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib: f64 = line.unwrap().trim_end_matches("kB").trim().parse().unwrap();
    kib / 1024.0
}

/// Returns the resident memory of this process in MB.
pub(super) fn resident_mb() -> f64 {
    megabytes("VmRSS:")
}

/// Returns the highest resident memory of this process since [`reset_peak`], in MB.
pub(super) fn peak_mb() -> f64 {
    megabytes("VmHWM:")
}

/// Forgets the highest resident memory (`proc_pid_clear_refs(5)`).
pub(super) fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}
