//! The host's journal as a record of what happened when.
//!
//! Times are `_SOURCE_REALTIME_TIMESTAMP`: the kernel's stamp on the datagram in which a process
//! told journald, so a busy journald delays none of them. The host, its containers and we share
//! one kernel and one clock.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::host::TestHost;

/// systemd's message "a unit is being started" (these ids: sd-messages.h).
const STARTING: &str = "7d4958e842da4a758f6c1cdc7b36dcc5";
/// A start job is done; whether it went well is in `JOB_RESULT`.
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
/// A unit is being stopped.
const STOPPING: &str = "de5b426a63be47a7b6ac3eaac82e2f6f";
/// A unit ended well.
const ENDED_WELL: &str = "7ad2d189f7e94e70a38c781354912448";
/// A unit failed.
const FAILED: &str = "d9b373ed55a64feb8242e02dbe79a49c";

/// Fields that are read; a journal entry has far more.
const FIELDS: &str =
    "MESSAGE,MESSAGE_ID,UNIT,INVOCATION_ID,POOL,SLOT,RUNNER,VERDICT,_SOURCE_REALTIME_TIMESTAMP";

/// A place in the journal.
#[derive(Debug, Clone)]
pub struct Mark(String);

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Microseconds since 1970.
    pub at_us: u64,
    fields: BTreeMap<String, String>,
}

/// One run of one unit, as systemd told it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// The unit.
    pub unit: String,
    /// systemd's name of this run.
    pub invocation: String,
    /// When systemd began to start it; microseconds since 1970, as all that follow.
    pub starting_us: u64,
    /// When it was ready and all that belongs to its start was done.
    pub started_us: Option<u64>,
    /// When systemd began to stop it, if it did not end by itself.
    pub stopping_us: Option<u64>,
    /// When nothing of it ran any more.
    pub ended_us: Option<u64>,
}

impl Entry {
    /// A field; empty if it is absent or not text.
    #[must_use]
    pub fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }

    fn parse(line: &str) -> Option<Self> {
        let Value::Object(object) = serde_json::from_str(line).ok()? else {
            return None;
        };
        let fields: BTreeMap<String, String> = object
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
            .collect();
        let at_us = fields
            .get("_SOURCE_REALTIME_TIMESTAMP")
            .or_else(|| fields.get("__REALTIME_TIMESTAMP"))?
            .parse()
            .ok()?;
        Some(Self { at_us, fields })
    }
}

/// The end of the journal as it is now.
pub fn mark(host: &TestHost) -> Result<Mark> {
    let text = host.run(&["journalctl", "--output=json", "--lines=1"])?;
    let cursor = text.lines().last().and_then(|line| {
        serde_json::from_str::<Value>(line).ok()?["__CURSOR"]
            .as_str()
            .map(str::to_owned)
    });
    cursor.map(Mark).context("the host's journal is empty")
}

/// Returns the entries since a mark of the units whose name begins with a prefix, and systemd's about them.
pub fn since(host: &TestHost, mark: &Mark, units: &str) -> Result<Vec<Entry>> {
    let text = host.run(&[
        "journalctl",
        "--output=json",
        "--no-pager",
        &format!("--output-fields={FIELDS}"),
        &format!("--after-cursor={}", mark.0),
        &format!("--unit={units}"),
    ])?;
    Ok(text.lines().filter_map(Entry::parse).collect())
}

/// Returns the runs of units among these entries, in the order in which they began.
#[must_use]
pub fn spans(entries: &[Entry]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for entry in entries {
        let (unit, invocation) = (entry.get("UNIT"), entry.get("INVOCATION_ID"));
        let kind = entry.get("MESSAGE_ID");
        if kind == STARTING {
            spans.push(Span {
                unit: unit.to_owned(),
                invocation: invocation.to_owned(),
                starting_us: entry.at_us,
                ..Span::default()
            });
        }
        let span = spans
            .iter_mut()
            .rev()
            .find(|span| span.unit == unit && span.invocation == invocation);
        let Some(span) = span else { continue };
        match kind {
            STARTED => span.started_us = Some(entry.at_us),
            STOPPING => span.stopping_us = Some(entry.at_us),
            ENDED_WELL | FAILED => span.ended_us = Some(entry.at_us),
            _ => {}
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, id: &str, invocation: &str) -> Entry {
        let line = format!(
            r#"{{"_SOURCE_REALTIME_TIMESTAMP":"{at}","MESSAGE_ID":"{id}","UNIT":"runner-ci@1.service","INVOCATION_ID":"{invocation}","MESSAGE":[104,105]}}"#
        );
        Entry::parse(&line).unwrap()
    }

    #[test]
    fn two_lives_of_one_unit_are_told_apart() {
        let entries = [
            entry(10, STARTING, "a"),
            entry(20, STARTED, "a"),
            entry(30, ENDED_WELL, "a"),
            entry(40, STARTING, "b"),
            entry(50, STARTED, "b"),
        ];
        let found = spans(&entries);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].started_us, found[0].ended_us),
            (Some(20), Some(30))
        );
        assert_eq!((found[1].started_us, found[1].ended_us), (Some(50), None));
    }

    #[test]
    fn bytes_are_no_text_and_the_senders_time_wins() {
        let entry = entry(10, STARTING, "a");
        assert_eq!(entry.get("MESSAGE"), "");
        let line = r#"{"__REALTIME_TIMESTAMP":"7","MESSAGE":"hi"}"#;
        assert_eq!(Entry::parse(line).unwrap().at_us, 7);
        assert_eq!(
            Entry::parse("-- no entries --").map(|entry| entry.at_us),
            None
        );
    }
}
