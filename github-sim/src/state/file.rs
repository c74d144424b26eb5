//! A file in which the state outlives the program, however the program ends.
//!
//! Each line is `[kind, record]`, and the last line of a record counts. A request's changes are
//! written before its answer is sent, so a client never knows more than the next program that reads
//! the file. The file does not hold what the rate limits have counted, nor single requests of the
//! statistics.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    path::Path,
};

use serde::Serialize;
use serde_json::Value;

use super::{GitHubState, JobRecord, RegisteredRunner};
use crate::{scale_sets::ScaleSet, view::JobState};

/// The open state file.
#[derive(Debug)]
pub(crate) struct StateFile {
    file: File,
    /// Hash of the last written line of each record that may still change, by kind and id.
    written: BTreeMap<(&'static str, u64), u64>,
    /// Records that have been written and can no longer change. Long runs have many of them.
    finished: BTreeSet<(&'static str, u64)>,
}

impl StateFile {
    /// Reads the state from `path`, if the file exists, and opens it for further changes.
    pub(crate) fn open(path: &Path, state: &mut GitHubState) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => read(&text, state)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // A new file beside the old one: it does not grow for ever, and it replaces the old one only
        // when it is whole.
        let new = path.with_extension("new");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&new)?;
        let mut opened = Self {
            file,
            written: BTreeMap::new(),
            finished: BTreeSet::new(),
        };
        opened.write(state)?;
        fs::rename(&new, path)?;
        Ok(opened)
    }

    /// Writes the records that changed since the last call.
    pub(crate) fn write(&mut self, state: &GitHubState) -> io::Result<()> {
        let mut lines = String::new();
        self.add(&mut lines, "common", 0, &state.common(), false)?;
        for runner in state.runners.values() {
            let finished = runner.gone.is_some();
            self.add(&mut lines, "runner", runner.id, runner, finished)?;
        }
        for job in state.jobs.values() {
            let finished = job.state == JobState::Completed;
            self.add(&mut lines, "job", job.id, job, finished)?;
        }
        for set in state.scale_sets.all() {
            self.add(&mut lines, "scale_set", set.id, set, set.deleted)?;
        }
        for hook in state.webhooks.hooks() {
            self.add(&mut lines, "hook", hook.id, hook, false)?;
        }
        for delivery in state.webhooks.deliveries() {
            let finished = delivery.attempt.is_some();
            self.add(&mut lines, "delivery", delivery.id, delivery, finished)?;
        }
        self.file.write_all(lines.as_bytes())
    }

    fn add(
        &mut self,
        lines: &mut String,
        kind: &'static str,
        id: u64,
        record: &impl Serialize,
        finished: bool,
    ) -> io::Result<()> {
        if finished && self.finished.contains(&(kind, id)) {
            return Ok(());
        }
        let line = serde_json::to_string(&(kind, record))?;
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        if self.written.insert((kind, id), hasher.finish()) != Some(hasher.finish()) {
            lines.push_str(&line);
            lines.push('\n');
        }
        if finished {
            self.written.remove(&(kind, id));
            self.finished.insert((kind, id));
        }
        Ok(())
    }
}

fn read(text: &str, state: &mut GitHubState) -> io::Result<()> {
    // The program ended while it wrote a last line without newline, so no client has an answer that
    // depends on it.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let (kind, record): (String, Value) = serde_json::from_str(line)?;
        match kind.as_str() {
            "common" => state.restore(serde_json::from_value(record)?),
            "runner" => {
                let runner: RegisteredRunner = serde_json::from_value(record)?;
                state.runners.insert(runner.id, runner);
            }
            "job" => {
                let job: JobRecord = serde_json::from_value(record)?;
                state.jobs.insert(job.id, job);
            }
            "scale_set" => {
                let set: ScaleSet = serde_json::from_value(record)?;
                state.scale_sets.insert(set);
            }
            "hook" => state.webhooks.restore_hook(serde_json::from_value(record)?),
            "delivery" => {
                state
                    .webhooks
                    .restore_delivery(serde_json::from_value(record)?);
            }
            _ => {
                let message = format!("unknown kind of record {kind:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
    }
    Ok(())
}
