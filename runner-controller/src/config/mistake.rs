//! Mistakes in a configuration file.

use std::fmt;
use std::path::PathBuf;

/// One thing to change in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted key of the value: `pools.ci.max_runners`.
    pub key: String,
    /// Problem with the value.
    pub wrong: String,
    /// Text to write instead.
    pub write: String,
}

/// All mistakes of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    /// Path of the file.
    pub file: PathBuf,
    /// The mistakes, at least one.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.list.len() == 1 {
            "mistake"
        } else {
            "mistakes"
        };
        writeln!(f, "{}: {} {plural}", self.file.display(), self.list.len())?;
        for Mistake { key, wrong, write } in &self.list {
            write!(f, "\n  {key}\n    wrong: {wrong}\n    write: {write}\n")?;
        }
        Ok(())
    }
}
