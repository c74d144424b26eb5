//! A file in which the state outlives the program, however that ends.
//!
//! Each line is `[kind, thing]`, one thing as it has become; the last line of a thing counts. What a
//! request changed is written before it is answered, so a client never knows more than the next
//! program of this file. Not kept: what the limits have counted, and single requests of the
//! statistics.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    faults::Rule,
    model::{Job, Runner},
    settings::Settings,
    state::State,
    view::JobStatus,
};

/// What is neither a runner nor a job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ground {
    pub(crate) settings: Settings,
    pub(crate) tokens: Vec<String>,
    pub(crate) rules: Vec<Rule>,
    /// When a limit was announced, and until when.
    pub(crate) announced: [u64; 2],
    pub(crate) while_limited: u64,
    pub(crate) calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// Of runners, jobs, labels.
    pub(crate) next_ids: [u64; 3],
}

/// Writes what changed.
#[derive(Debug)]
pub(crate) struct Keeper {
    file: File,
    /// What was written last of what may still change, by kind and id.
    written: BTreeMap<(&'static str, u64), u64>,
    /// Runners and jobs that are over and written: there will be many.
    over: BTreeSet<(&'static str, u64)>,
}

impl Keeper {
    /// Takes up the state in `path`, if there is one, and goes on writing there.
    pub(crate) fn open(path: &Path, state: &mut State) -> io::Result<Self> {
        match fs::read_to_string(path) {
            Ok(text) => read(&text, state)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Anew and beside it, so that the file neither grows for ever nor is ever half a file.
        let new = path.with_extension("new");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&new)?;
        let mut keeper = Self {
            file,
            written: BTreeMap::new(),
            over: BTreeSet::new(),
        };
        keeper.write(state)?;
        fs::rename(&new, path)?;
        Ok(keeper)
    }

    /// Writes what changed since the last time.
    pub(crate) fn write(&mut self, state: &State) -> io::Result<()> {
        let mut lines = String::new();
        self.add(&mut lines, "ground", 0, &state.ground(), false)?;
        for runner in state.runners.values() {
            self.add(
                &mut lines,
                "runner",
                runner.id,
                runner,
                runner.gone.is_some(),
            )?;
        }
        for job in state.jobs.values() {
            let over = job.status == JobStatus::Completed;
            self.add(&mut lines, "job", job.id, job, over)?;
        }
        self.file.write_all(lines.as_bytes())
    }

    fn add(
        &mut self,
        lines: &mut String,
        kind: &'static str,
        id: u64,
        thing: &impl Serialize,
        over: bool,
    ) -> io::Result<()> {
        if over && self.over.contains(&(kind, id)) {
            return Ok(());
        }
        let line = serde_json::to_string(&(kind, thing))?;
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        if self.written.insert((kind, id), hasher.finish()) != Some(hasher.finish()) {
            lines.push_str(&line);
            lines.push('\n');
        }
        if over {
            self.written.remove(&(kind, id));
            self.over.insert((kind, id));
        }
        Ok(())
    }
}

fn read(text: &str, state: &mut State) -> io::Result<()> {
    // Without its newline the last line was being written when the program ended, and nobody has
    // an answer that rests on it.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let (kind, thing): (String, Value) = serde_json::from_str(line)?;
        match kind.as_str() {
            "ground" => state.stand_on(serde_json::from_value(thing)?),
            "runner" => {
                let runner: Runner = serde_json::from_value(thing)?;
                state.runners.insert(runner.id, runner);
            }
            "job" => {
                let job: Job = serde_json::from_value(thing)?;
                state.jobs.insert(job.id, job);
            }
            _ => {
                let what = format!("a line of kind {kind:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
    }
    Ok(())
}
