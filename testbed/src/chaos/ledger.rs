//! What a run has done so far: jobs that were sent, blows that end jobs, faults, violations. Shared by
//! all who act at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::lab::Lab;

use super::book::{Cut, Reckoning, Sent, Whom, reckon};
use super::jobs::Draft;
use super::plan::Kind;

/// How often a kind of fault was dealt, and how often it hit something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dealt {
    pub(super) hit: usize,
    pub(super) missed: usize,
}

/// Something that must never be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Violation {
    /// Seconds after the start at which it was seen.
    pub(super) at_s: f64,
    pub(super) what: String,
}

#[derive(Debug, Default)]
struct Entries {
    sent: BTreeMap<String, Sent>,
    cuts: Vec<Cut>,
    dealt: BTreeMap<Kind, Dealt>,
    violations: BTreeMap<String, Violation>,
    open: usize,
}

/// The shared book of a run.
#[derive(Debug)]
pub(super) struct Ledger {
    start: Instant,
    entries: Mutex<Entries>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            entries: Mutex::default(),
        }
    }

    /// Milliseconds since 1970, which is the stand-in's clock too.
    pub(super) fn now_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line of the log.
    pub(super) fn say(&self, what: &str, details: &str) {
        let at = self.elapsed().as_secs_f64();
        println!("{at:8.1} s  {what:<25} {details}");
    }

    /// Queues a job. Whether the stand-in took it is not known after an error.
    pub(super) fn send(&self, lab: &Lab, draft: &Draft) -> Result<()> {
        let sent = |accepted| Sent {
            design: draft.design,
            accepted,
        };
        self.entries().sent.insert(draft.name.clone(), sent(false));
        lab.sim().queue(&draft.job())?;
        self.entries().sent.insert(draft.name.clone(), sent(true));
        Ok(())
    }

    /// Notes that whoever was hit between then and now is ended by us.
    pub(super) fn cut(&self, from_ms: u64, whom: Whom) {
        let to_ms = Self::now_ms();
        self.entries().cuts.push(Cut {
            from_ms,
            to_ms,
            whom,
        });
    }

    /// Counts a fault, and says it.
    pub(super) fn deal(&self, kind: Kind, hit: &Result<Option<String>>) {
        let mut entries = self.entries();
        let dealt = entries.dealt.entry(kind).or_default();
        let details = match hit {
            Ok(Some(details)) => {
                dealt.hit += 1;
                details.clone()
            }
            Ok(None) => {
                dealt.missed += 1;
                "nothing there to be hit".into()
            }
            Err(error) => {
                dealt.missed += 1;
                format!("failed: {error:#}")
            }
        };
        drop(entries);
        self.say(kind.name(), &details);
    }

    pub(super) fn dealt(&self) -> BTreeMap<Kind, Dealt> {
        self.entries().dealt.clone()
    }

    /// Jobs that were not over when they were last looked at.
    pub(super) fn open(&self) -> usize {
        self.entries().open
    }

    /// Looks what became of the jobs.
    pub(super) fn reckon(&self, lab: &Lab) -> Result<Reckoning> {
        // First: a job that is sent meanwhile is in none of both.
        let sent = self.entries().sent.clone();
        let jobs = lab.sim().jobs()?;
        let mut entries = self.entries();
        let book = reckon(&sent, &jobs, &entries.cuts);
        entries.open = book.open.len();
        Ok(book)
    }

    /// Notes a violation and says it, once for each key; true if it is new.
    pub(super) fn violated(&self, key: &str, what: &str) -> bool {
        let at_s = self.elapsed().as_secs_f64();
        let mut entries = self.entries();
        if entries.violations.contains_key(key) {
            return false;
        }
        let violation = Violation {
            at_s,
            what: format!("{key}: {what}"),
        };
        entries.violations.insert(key.to_owned(), violation);
        drop(entries);
        self.say("VIOLATION", &format!("{key}: {what}"));
        true
    }

    /// All violations, oldest first.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let mut all: Vec<Violation> = self.entries().violations.values().cloned().collect();
        all.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
        all
    }
}
