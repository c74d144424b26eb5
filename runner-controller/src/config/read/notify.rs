//! The `[notify]` table.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use strum::VariantArray;

use super::section::{MINUTE, SECOND, Section};
use crate::config::{NotifyConfig, NotifyEvent};

/// Default of the maximum run time of the command.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of words of the command.
const MAX_WORDS: usize = 32;
const EXAMPLE: &str = "[\"/usr/local/bin/notify\"]";

/// Reads the command that is told of events; `None` without the table.
pub(super) fn notify(top: &mut Section<'_>) -> Option<NotifyConfig> {
    let is_there = top.has("notify");
    let mut section = top.section("notify");
    if !is_there {
        // The table is a known key, whether or not it is there.
        section.finish();
        return None;
    }
    let command = section.required("command", EXAMPLE, Section::texts);
    let problem = command.as_deref().and_then(problem);
    if let Some(problem) = problem {
        section.wrong("command", problem, format!("command = {EXAMPLE}"));
    }
    let events = events(&mut section);
    let timeout = section.duration("timeout", TIMEOUT, SECOND..=10 * MINUTE);
    section.finish();
    Some(NotifyConfig {
        command: command?,
        events,
        timeout,
    })
}

fn problem(command: &[String]) -> Option<String> {
    let is_absolute = |program: &String| Path::new(program).is_absolute();
    if !command.first().is_some_and(is_absolute) {
        return Some("the program is not an absolute path".to_owned());
    }
    if command.len() > MAX_WORDS {
        return Some(format!("the command has more than {MAX_WORDS} words"));
    }
    let has_control = |word: &String| word.chars().any(char::is_control);
    let word = command.iter().find(|word| has_control(word))?;
    Some(format!("{word:?} has a control character"))
}

fn events(section: &mut Section<'_>) -> BTreeSet<NotifyEvent> {
    let all = || NotifyEvent::VARIANTS.iter().copied().collect();
    let Some(names) = section.texts("events", "[\"pool_stopped\"]") else {
        return all();
    };
    let mut events = BTreeSet::new();
    for name in &names {
        match name.parse::<NotifyEvent>() {
            Ok(event) => drop(events.insert(event)),
            Err(_) => section.wrong(
                "events",
                format!("{name:?} is not an event"),
                format!(
                    "some of {:?}",
                    NotifyEvent::VARIANTS
                        .iter()
                        .map(AsRef::as_ref)
                        .collect::<Vec<&str>>()
                ),
            ),
        }
    }
    if names.is_empty() {
        section.wrong(
            "events",
            "the list is empty, so the command is told of nothing",
            "events = [\"pool_stopped\"], or no table [notify]",
        );
    }
    events
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Mistakes, parse, testing};

    fn with(lines: &str) -> Result<Config, Mistakes> {
        parse(Path::new("x"), &format!("{}{lines}\n", testing::TEXT))
    }

    #[test]
    fn no_command_is_told_unless_the_table_is_there() {
        assert_eq!(with("").unwrap().notify, None);
        let notify = with("[notify]\ncommand = [\"/bin/tell\", \"ops\"]");
        let notify = notify.unwrap().notify.unwrap();
        assert_eq!(notify.command, ["/bin/tell", "ops"]);
        assert_eq!(notify.events.len(), NotifyEvent::VARIANTS.len());
        assert_eq!(notify.timeout, TIMEOUT);
        let few = "[notify]\ncommand = [\"/bin/tell\"]\nevents = [\"drained\"]\ntimeout = \"5s\"";
        let few = with(few).unwrap().notify.unwrap();
        assert_eq!(few.events, [NotifyEvent::Drained].into());
        assert_eq!(few.timeout, Duration::from_secs(5));
    }

    #[test]
    fn each_mistake_of_the_table_is_told_by_its_key() {
        for (lines, key) in [
            ("", "notify.command"),
            ("command = []", "notify.command"),
            ("command = [\"tell\"]", "notify.command"),
            ("command = [\"/bin/tell\", \"a\\nb\"]", "notify.command"),
            ("command = \"/bin/tell\"", "notify.command"),
            ("command = [\"/t\"]\nevents = []", "notify.events"),
            ("command = [\"/t\"]\nevents = [\"all\"]", "notify.events"),
            ("command = [\"/t\"]\ntimeout = \"1h\"", "notify.timeout"),
            ("command = [\"/t\"]\nuser = \"root\"", "notify.user"),
        ] {
            let list = with(&format!("[notify]\n{lines}")).unwrap_err().list;
            let found: Vec<&str> = list.iter().map(|mistake| mistake.key.as_str()).collect();
            assert_eq!(found, [key], "{lines}");
        }
    }
}
