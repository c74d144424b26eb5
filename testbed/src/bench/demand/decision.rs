//! The times of one decision of the core over a large host, by an example of the crate `pool`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::bed::note;
use crate::bench::figures::{Figure, Source, median};
use crate::binaries::build_program;

const EXAMPLE: &str = "schedule";
/// Maximum of the ratio of a decision over ten times the jobs. The pools and the change are the same.
const RATIO_MAX: f64 = 1.25;

/// The example, compiled as the shipped program is.
pub(super) struct Program(PathBuf);

impl Program {
    pub(super) fn build() -> Result<Self> {
        let arguments = ["--release", "--package", "pool", "--example", EXAMPLE];
        build_program(EXAMPLE, &arguments).map(Self)
    }

    pub(super) fn figures(&self) -> Result<Vec<Figure>> {
        note("decisions for 1,000 pools");
        let output = std::process::Command::new(&self.0)
            .arg("--samples")
            .output()
            .with_context(|| format!("run {}", self.0.display()))?;
        ensure!(output.status.success(), "{EXAMPLE}: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let of = |waiting: &str, what: &str| -> Result<Vec<f64>> {
            samples(&text, waiting, what)
                .with_context(|| format!("{EXAMPLE} told no {what} with {waiting} jobs: {text}"))
        };
        let (few, many) = (of("1000", "decision")?, of("10000", "decision")?);
        let ratio = median(&many) / median(&few);
        Ok(vec![
            Figure::plain("decision, 1,000 jobs wait", "ms", Source::Program, few),
            Figure::plain("decision, 10,000 jobs wait", "ms", Source::Program, many)
                .at_most(5.0, ""),
            Figure::plain("the second / the first", "×", Source::Program, vec![ratio])
                .at_most(RATIO_MAX, ""),
            Figure::plain(
                "event about a job, 10,000 jobs wait",
                "ms",
                Source::Program,
                of("10000", "event")?,
            ),
        ])
    }
}

/// Returns the milliseconds after two words at the start of a line.
fn samples(text: &str, waiting: &str, what: &str) -> Option<Vec<f64>> {
    text.lines().find_map(|line| {
        let mut words = line.split(' ');
        if words.next() != Some(waiting) || words.next() != Some(what) {
            return None;
        }
        words.map(|word| word.parse().ok()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_their_line() {
        let text = "1000 event 0.5\n10000 event 0.25 1.5\n10000 decision 3\n";
        assert_eq!(samples(text, "10000", "event"), Some(vec![0.25, 1.5]));
        assert_eq!(samples(text, "10000", "decision"), Some(vec![3.0]));
        assert_eq!(samples(text, "0", "decision"), None);
        assert_eq!(samples("10 event x", "10", "event"), None);
    }
}
