//! Results of the attacks: the table, the same as JSON, and the count.

use std::fmt::Write as _;

use serde::Serialize;

use super::program::{Attack, Control};

/// Result of one run of one program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "detail", rename_all = "snake_case")]
pub enum Outcome {
    /// The attack succeeded.
    Got(String),
    /// The attack was refused with the expected words.
    Blocked(String),
    /// The attack failed in another way, so it shows nothing.
    Broken(String),
}

/// Results of one attack.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    name: String,
    tries: String,
    #[serde(rename = "as")]
    who: &'static str,
    wall: String,
    expect: String,
    /// Result with every protection.
    attack: Outcome,
    /// Result in the control's kind of container with the protection. `None` where that is the
    /// same.
    compared: Option<Outcome>,
    /// Result without the protection. `None` where it cannot be removed.
    control: Option<Outcome>,
    /// Name of the removed protection, or the reason why none was removed.
    control_is: String,
}

impl Outcome {
    /// Returns the result of a program by its exit status and output.
    #[must_use]
    pub fn of(status: i32, said: &str, expect: &str) -> Self {
        let last = said.trim_end().lines().last().unwrap_or_default();
        let got = said.lines().find(|line| line.starts_with("got "));
        match (status, got) {
            (0, Some(got)) => Self::Got(got.to_owned()),
            (1, None) if said.contains(expect) => Self::Blocked(
                said.lines()
                    .find(|line| line.contains(expect))
                    .unwrap_or(expect)
                    .to_owned(),
            ),
            (1, None) => Self::Broken(format!("not {expect:?} but: {last}")),
            (_, _) => Self::Broken(format!("ended with {status}: {last}")),
        }
    }
}

impl Row {
    /// Returns a row with the first result.
    #[must_use]
    pub fn new(attack: &Attack, outcome: Outcome) -> Self {
        Self {
            name: attack.name.clone(),
            tries: attack.tries.clone(),
            who: attack.who.name(),
            wall: attack.wall.clone(),
            expect: attack.expect.clone(),
            attack: outcome,
            compared: None,
            control: None,
            control_is: match &attack.control {
                Control::Without(change) => change.name(),
                Control::Impossible(why) => why.clone(),
            },
        }
    }

    /// Adds the result with the protection in the control's kind of container.
    pub fn compare(&mut self, outcome: Outcome) {
        self.compared = Some(outcome);
    }

    /// Adds the result without the protection.
    pub fn control(&mut self, outcome: Outcome) {
        self.control = Some(outcome);
    }

    /// Returns the attack's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns true if there is a control and it succeeded.
    #[must_use]
    pub fn has_control(&self) -> bool {
        matches!(self.control, Some(Outcome::Got(_)))
    }

    /// Returns the reason why this row fails, if it does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let mut wrong = Vec::new();
        for (what, outcome) in [
            ("the attack", Some(&self.attack)),
            (
                "the same in the control's container with the wall",
                self.compared.as_ref(),
            ),
        ] {
            match outcome {
                Some(Outcome::Got(got)) => wrong.push(format!("{what} SUCCEEDED: {got}")),
                Some(Outcome::Broken(why)) => {
                    wrong.push(format!("{what} failed for another reason: {why}"));
                }
                Some(Outcome::Blocked(_)) | None => {}
            }
        }
        match &self.control {
            Some(Outcome::Blocked(by)) => wrong.push(format!(
                "without its wall ({}) something else stops it: {by}",
                self.control_is
            )),
            Some(Outcome::Broken(why)) => {
                wrong.push(format!("without its wall ({}): {why}", self.control_is));
            }
            Some(Outcome::Got(_)) | None => {}
        }
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }
}

/// Returns the table as text.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let width = |cell: fn(&Row) -> usize| rows.iter().map(cell).max().unwrap_or(0);
    let name = width(|row| row.name.len());
    let wall = width(|row| row.wall.len());
    // Writing to a String cannot fail.
    writeln!(
        text,
        "{:name$}  as    {:wall$}  {:34}  control",
        "attack", "wall", "result"
    )
    .ok();
    for row in rows {
        let result = match &row.attack {
            Outcome::Blocked(by) => cut(by, 34),
            Outcome::Got(got) => cut(&format!("SUCCEEDED {got}"), 34),
            Outcome::Broken(why) => cut(&format!("BROKEN {why}"), 34),
        };
        let control = match &row.control {
            Some(Outcome::Got(_)) => format!("gets through: {}", row.control_is),
            Some(Outcome::Blocked(_)) => format!("STOPPED: {}", row.control_is),
            Some(Outcome::Broken(_)) => format!("BROKEN: {}", row.control_is),
            None => format!("none: {}", row.control_is),
        };
        writeln!(
            text,
            "{:name$}  {:4}  {:wall$}  {result:34}  {control}",
            row.name, row.who, row.wall
        )
        .ok();
    }
    text
}

fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(length - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_only_in_the_expected_words() {
        let expect = "Operation not permitted";
        let of = |status, said| Outcome::of(status, said, expect);
        assert!(matches!(
            of(1, "mount: Operation not permitted\n"),
            Outcome::Blocked(_)
        ));
        assert!(matches!(of(1, "mount: not found\n"), Outcome::Broken(_)));
        assert!(matches!(
            of(127, "Operation not permitted"),
            Outcome::Broken(_)
        ));
        assert!(matches!(of(0, "got root\n"), Outcome::Got(_)));
        assert!(matches!(of(0, "fine\n"), Outcome::Broken(_)));
        // An attack that succeeded and printed no `got` has not said what it got.
        assert!(matches!(
            of(1, "got it\nOperation not permitted"),
            Outcome::Broken(_)
        ));
    }

    #[test]
    fn a_long_cell_is_cut() {
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
