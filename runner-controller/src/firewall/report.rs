//! What root found when it last compared the loaded firewall with the configuration, as the daemon
//! reads it.
//!
//! Root checks before every start, and by a timer for the containers that run. It writes one small
//! report into a directory of its own. The daemon starts and registers nothing while the last report
//! is bad, or is so old that it says nothing. It kills no job over it: what a job can reach, it has
//! reached by then.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::units::CHECK_TIMER;
use crate::clock;
use crate::config::Config;
use crate::pool::Timestamp;
use crate::slot_records::write_whole;
use crate::world::Event;

/// A report that is older says nothing: three checks in a row did not come.
const STALE: Duration = Duration::from_mins(1);
/// How often a directory is looked at that cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(5);

const FILE: &str = "report.json";
/// Ours has two hundred bytes.
const REPORT_MAX: u64 = 16 * 1024;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// When, in milliseconds since boot.
    pub(super) checked_ms: u64,
    /// What is wrong, and what to do; nothing if all is as configured.
    pub(super) wrong: Option<String>,
}

impl Report {
    /// A report of this moment.
    #[must_use]
    pub(super) fn now(wrong: Option<String>) -> Self {
        Self {
            checked_ms: clock::now().millis(),
            wrong,
        }
    }

    /// Publishes it, in place of the last one.
    pub(super) fn publish(&self, dir: &Path) -> io::Result<()> {
        write_whole(dir, FILE, &serde_json::to_vec(self)?)
    }

    fn read(dir: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        let file = File::open(dir.join(FILE))?;
        file.take(REPORT_MAX).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Why nothing may be started, as far as the firewall goes, and for how long that holds unless a new
/// report comes.
fn judge(report: io::Result<Report>, now: Timestamp) -> (Option<String>, Duration) {
    let silent = |why: String| Some(format!("{why}; see `systemctl status {CHECK_TIMER}`"));
    match report {
        Err(why) => (silent(format!("it was never checked ({why})")), STALE),
        Ok(Report { checked_ms, wrong }) => {
            let age = now.since(Timestamp::from_millis(checked_ms));
            match (wrong, STALE.checked_sub(age)) {
                (wrong, Some(left)) => (wrong, left),
                (None, None) => (silent("the last check was too long ago".into()), STALE),
                (Some(wrong), None) => {
                    (silent(format!("{wrong} (and no check came since)")), STALE)
                }
            }
        }
    }
}

/// How it stands now. Sent before anything else is seen, so that nothing is started by mistake.
#[must_use]
pub fn event(config: &Config) -> Event {
    let (wrong, _) = judge(Report::read(&config.firewall_dir()), clock::now());
    Event::Firewall { wrong }
}

/// Sends a sight after each change, until nobody listens. Blocks, so it has a thread of its own.
pub fn watch(config: &Config, events: &mpsc::Sender<Event>) {
    let dir = config.firewall_dir();
    let mut told = None;
    loop {
        // Watched before it is read: what is published in between wakes us.
        let watched = watched(&dir);
        let (wrong, holds) = judge(Report::read(&dir), clock::now());
        if told.as_ref() != Some(&wrong) {
            told = Some(wrong.clone());
            if events.blocking_send(Event::Firewall { wrong }).is_err() {
                return;
            }
        }
        match watched {
            Ok(watched) => {
                // Until the age at which the report says nothing any more. Whatever ends the wait,
                // the next round looks.
                let holds = PollTimeout::try_from(holds + Duration::from_millis(1));
                let mut fds = [PollFd::new(watched.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, holds.unwrap_or(PollTimeout::MAX));
            }
            Err(_) => std::thread::sleep(UNWATCHED),
        }
    }
}

/// Becomes readable at the next report. Made anew for each: a directory that was replaced is found.
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
        let report = Report {
            checked_ms,
            wrong: wrong.map(str::to_owned),
        };
        judge(Ok(report), Timestamp::from_millis(now_ms)).0
    }

    fn unread(report: io::Result<Report>) -> String {
        judge(report, Timestamp::from_millis(1)).0.unwrap()
    }

    #[test]
    fn only_a_good_and_recent_report_opens() {
        assert_eq!(at(5_000, None, 6_000), None);
        assert_eq!(at(5_000, None, 65_000), None);
        let old = at(5_000, None, 65_001);
        assert!(old.is_some_and(|why| why.contains("too long ago")));
        assert_eq!(at(5_000, Some("gone"), 6_000), Some("gone".into()));
        let old = at(5_000, Some("gone"), 65_001);
        assert!(old.is_some_and(|why| why.contains("gone")));
        let never = unread(Err(io::ErrorKind::NotFound.into()));
        assert!(never.contains("never checked"), "{never}");
    }

    #[test]
    fn what_is_no_report_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"checked_ms\": 1").unwrap();
        let why = unread(Report::read(dir.path()));
        assert!(why.contains("never checked"), "{why}");
        Report::now(None).publish(dir.path()).unwrap();
        let now = clock::now();
        assert_eq!(judge(Report::read(dir.path()), now).0, None);
    }

    #[test]
    fn each_change_is_told_once() {
        let run = tempfile::tempdir().unwrap();
        let mut config = crate::launch::testing::config();
        config.run_dir = run.path().to_owned();
        let dir = config.firewall_dir();
        std::fs::create_dir(&dir).unwrap();
        let (sender, mut events) = mpsc::channel(8);
        let watching = std::thread::spawn(move || watch(&config, &sender));
        let mut next = || {
            let Event::Firewall { wrong } = events.blocking_recv().unwrap() else {
                panic!("a sight of something else")
            };
            wrong
        };
        assert!(next().is_some_and(|why| why.contains("never checked")));
        let say = |wrong: Option<&str>| {
            let report = Report::now(wrong.map(str::to_owned));
            report.publish(&dir).unwrap();
        };
        say(None);
        assert_eq!(next(), None);
        say(None);
        say(Some("gone"));
        assert_eq!(next().as_deref(), Some("gone"));
        say(None);
        assert_eq!(next(), None);
        drop(events);
        say(Some("gone"));
        watching.join().unwrap();
    }
}
