//! The report of the last firewall check.
//!
//! Root checks the firewall before every start, and every 15 seconds while the owner lives. It writes one
//! small report into a root-owned directory. The daemon starts and registers no runner while the last
//! report is bad or too old. It does not end a running job, because the job has had the access that
//! the firewall should have refused.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::FIREWALL_UNIT;
use crate::atomic_file;
use crate::clock;
use crate::config::Config;
use crate::pool::Timestamp;
use crate::world::Event;

/// Maximum age of a valid report: four intervals of the owner's check.
const MAX_AGE: Duration = Duration::from_mins(1);
/// Interval between two reads where the directory cannot be watched.
const UNWATCHED_INTERVAL: Duration = Duration::from_secs(5);

const FILE: &str = "report.json";
/// Maximum size of a report. A usual one has 200 bytes.
const REPORT_MAX_BYTES: u64 = 16 * 1024;

/// Result of one check, as root writes it for the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FirewallReport {
    /// Time of the check, in milliseconds since boot.
    checked_ms: u64,
    /// The difference that the check found, and its remedy. `None` if the firewall is as configured.
    wrong: Option<String>,
    /// Number of times since boot that the owner found the table gone or changed, and loaded it again.
    #[serde(default)]
    restored: u64,
}

impl FirewallReport {
    /// Returns a report with the current time.
    pub(super) fn now(wrong: Option<String>, restored: u64) -> Self {
        Self {
            checked_ms: clock::now().millis(),
            wrong,
            restored,
        }
    }

    /// Returns the published count of restored tables.
    pub(super) fn restored(dir: &Path) -> u64 {
        Self::read(dir).map_or(0, |report| report.restored)
    }

    /// Replaces the last report.
    pub(super) fn publish(&self, dir: &Path) -> io::Result<()> {
        atomic_file::replace(&dir.join(FILE), &serde_json::to_vec(self)?, 0o644)
    }

    fn read(dir: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        let file = File::open(dir.join(FILE))?;
        file.take(REPORT_MAX_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Returns the reason why the firewall closes admission, and the time for which that holds unless a
/// new report arrives.
fn judge(report: io::Result<FirewallReport>, now: Timestamp) -> (Option<String>, Duration) {
    let silent = |why: String| Some(format!("{why}; see `systemctl status {FIREWALL_UNIT}`"));
    match report {
        Err(why) => (
            silent(format!("cannot read the firewall check's report: {why}")),
            MAX_AGE,
        ),
        Ok(FirewallReport {
            checked_ms, wrong, ..
        }) => {
            let age = now.since(Timestamp::from_millis(checked_ms));
            match (wrong, MAX_AGE.checked_sub(age)) {
                (wrong, Some(left)) => (wrong, left),
                (None, None) => (
                    silent("the last firewall check is too long ago".into()),
                    MAX_AGE,
                ),
                (Some(wrong), None) => {
                    (silent(format!("{wrong} (no check has run since)")), MAX_AGE)
                }
            }
        }
    }
}

/// Returns the state of the firewall now.
///
/// The daemon sends it before all other events, so that it starts no runner behind a bad firewall.
#[must_use]
pub fn event(config: &Config) -> Event {
    let (wrong, _) = judge(FirewallReport::read(&config.firewall_dir()), clock::now());
    Event::Firewall { problem: wrong }
}

/// Sends an event after each change, until the channel closes.
///
/// Blocks, so it needs a thread.
pub fn watch(config: &Config, events: &mpsc::Sender<Event>) {
    let dir = config.firewall_dir();
    let mut sent = None;
    loop {
        // The watch begins before the read, so a report that arrives in between ends the wait.
        let watched = watched(&dir);
        let (wrong, holds) = judge(FirewallReport::read(&dir), clock::now());
        if sent.as_ref() != Some(&wrong) {
            sent = Some(wrong.clone());
            if events
                .blocking_send(Event::Firewall { problem: wrong })
                .is_err()
            {
                return;
            }
        }
        match watched {
            Ok(watched) => {
                // Waits until the report is too old. The next round reads it again, whatever ended
                // the wait.
                let holds = PollTimeout::try_from(holds + Duration::from_millis(1));
                let mut fds = [PollFd::new(watched.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, holds.unwrap_or(PollTimeout::MAX));
            }
            Err(_) => std::thread::sleep(UNWATCHED_INTERVAL),
        }
    }
}

/// Returns a descriptor that becomes readable at the next report.
///
/// Every round makes a new one, so the watch follows a directory that was replaced.
fn watched(dir: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags =
        AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(dir, flags)?;
    Ok(inotify)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(checked_ms: u64, wrong: Option<&str>, now_ms: u64) -> Option<String> {
        let report = FirewallReport {
            checked_ms,
            wrong: wrong.map(str::to_owned),
            restored: 0,
        };
        judge(Ok(report), Timestamp::from_millis(now_ms)).0
    }

    fn unread(report: io::Result<FirewallReport>) -> String {
        judge(report, Timestamp::from_millis(1)).0.unwrap()
    }

    #[test]
    fn only_a_good_and_recent_report_opens_admission() {
        assert_eq!(at(5_000, None, 6_000), None);
        assert_eq!(at(5_000, None, 65_000), None);
        let old = at(5_000, None, 65_001);
        assert!(old.is_some_and(|why| why.contains("too long ago")));
        assert_eq!(at(5_000, Some("gone"), 6_000), Some("gone".into()));
        let old = at(5_000, Some("gone"), 65_001);
        assert!(old.is_some_and(|why| why.contains("gone")));
        let never = unread(Err(io::ErrorKind::NotFound.into()));
        assert!(never.contains("cannot read"), "{never}");
    }

    #[test]
    fn an_incomplete_report_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"checked_ms\": 1").unwrap();
        let why = unread(FirewallReport::read(dir.path()));
        assert!(why.contains("cannot read"), "{why}");
        FirewallReport::now(None, 0).publish(dir.path()).unwrap();
        let now = clock::now();
        assert_eq!(judge(FirewallReport::read(dir.path()), now).0, None);
    }

    #[test]
    fn each_change_is_sent_once() {
        let run = tempfile::tempdir().unwrap();
        let mut config = crate::config::testing::config();
        config.run_dir = run.path().to_owned();
        let dir = config.firewall_dir();
        std::fs::create_dir(&dir).unwrap();
        let (sender, mut events) = mpsc::channel(8);
        let watching = std::thread::spawn(move || watch(&config, &sender));
        let mut next = || {
            let Event::Firewall { problem: wrong } = events.blocking_recv().unwrap() else {
                panic!("an event of another kind")
            };
            wrong
        };
        assert!(next().is_some_and(|why| why.contains("cannot read")));
        let publish = |wrong: Option<&str>| {
            let report = FirewallReport::now(wrong.map(str::to_owned), 0);
            report.publish(&dir).unwrap();
        };
        publish(None);
        assert_eq!(next(), None);
        publish(None);
        publish(Some("gone"));
        assert_eq!(next().as_deref(), Some("gone"));
        publish(None);
        assert_eq!(next(), None);
        drop(events);
        publish(Some("gone"));
        watching.join().unwrap();
    }
}
