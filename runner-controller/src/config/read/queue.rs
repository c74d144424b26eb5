//! The `[queue]` table and the list `[[priority]]`: the order of waiting jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::section::{DAY, MINUTE, SECOND, Section};
use crate::pool::{DEFAULT_FAIRNESS_AGE, DEFAULT_RESERVE_AFTER, Glob, OrderRules, Priority};

/// Maximum number of priorities. A job's place is looked up in all of them.
const MAX_PRIORITIES: usize = 16;
/// Maximum number of patterns of a priority and kind.
const MAX_PATTERNS: usize = 64;

/// Reads the order of waiting jobs.
pub(super) fn order(top: &mut Section<'_>) -> OrderRules {
    let mut section = top.section("queue");
    let fairness_age = section.duration("fairness_age", DEFAULT_FAIRNESS_AGE, SECOND..=DAY);
    let reserve_after = section.duration("reserve_after", DEFAULT_RESERVE_AFTER, MINUTE..=DAY);
    let max_per_repository = section.number("max_per_repository", 1..=1_000_u32);
    section.finish();
    let list = top.tables("priority", "a list of tables [[priority]]");
    if list.len() > MAX_PRIORITIES {
        top.wrong(
            "priority",
            format!(
                "a host has at most {MAX_PRIORITIES} priorities, not {}",
                list.len()
            ),
            "fewer tables [[priority]]",
        );
    }
    let mut names = BTreeSet::new();
    let priorities = list.into_iter().filter_map(|section| {
        let priority = priority(section, &mut names)?;
        Some(priority)
    });
    OrderRules {
        fairness_age,
        reserve_after,
        max_per_repository: max_per_repository.and_then(|max| usize::try_from(max).ok()),
        priorities: priorities.collect(),
    }
}

fn priority(mut section: Section<'_>, names: &mut BTreeSet<String>) -> Option<Priority> {
    let name = section.required("name", "\"release\"", Section::text);
    if let Some(name) = &name
        && !names.insert(name.clone())
    {
        section.wrong(
            "name",
            format!("{name:?} repeats an earlier name"),
            "another name",
        );
    }
    let repositories = globs(&mut section, "repository", "[\"acme/*\"]");
    let workflows = globs(&mut section, "workflow", "[\"Release*\"]");
    let jobs = globs(&mut section, "job", "[\"deploy*\"]");
    if [&repositories, &workflows, &jobs]
        .into_iter()
        .all(Vec::is_empty)
    {
        section.wrong(
            "repository",
            "the priority names no repository, workflow or job, so it would be that of every job",
            "repository = [\"acme/*\"], workflow = [\"Release*\"] or job = [\"deploy*\"]",
        );
    }
    let escalate_after = if section.has("escalate_after") {
        Some(section.duration("escalate_after", MINUTE, SECOND..=DAY))
    } else {
        section.required("escalate_after", "\"1m\"", |_, _, _| None::<Duration>)
    };
    section.finish();
    Some(Priority {
        name: name?,
        repositories,
        workflows,
        jobs,
        escalate_after: escalate_after?,
    })
}

fn globs(section: &mut Section<'_>, key: &'static str, example: &str) -> Vec<Glob> {
    let texts = section.texts(key, example).unwrap_or_default();
    let is_wrong = |text: &String| text.is_empty() || text.contains(['?', '[', '{', '\\']);
    if let Some(text) = texts.iter().find(|text| is_wrong(text)) {
        section.wrong(
            key,
            format!("{text:?} is not a pattern: it stands for a whole text, and only * is special"),
            format!("{key} = {example}"),
        );
    }
    if texts.len() > MAX_PATTERNS {
        section.wrong(
            key,
            format!("the key takes at most {MAX_PATTERNS} patterns"),
            format!("{key} = {example}"),
        );
    }
    texts.iter().map(|text| Glob::new(text)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::{Config, testing};
    use crate::pool::OrderRules;

    fn with(lines: &str) -> Result<Config, Vec<String>> {
        testing::read(&format!("{}{lines}\n", testing::TEXT))
    }

    fn keys_of(mistakes: &[String]) -> Vec<&str> {
        let keys = mistakes.iter();
        keys.filter_map(|mistake| Some(mistake.split_once(": ")?.0))
            .collect()
    }

    #[test]
    fn priorities_are_read_in_their_order() {
        assert_eq!(with("").unwrap().order, OrderRules::default());
        let order = with(
            "[queue]\nfairness_age = \"2m\"\nmax_per_repository = 3\n\
             [[priority]]\nname = \"release\"\nworkflow = [\"Release*\"]\nescalate_after = \"30s\"\n\
             [[priority]]\nname = \"merge\"\nrepository = [\"acme/*\"]\njob = [\"merge\"]\nescalate_after = \"1m\"",
        );
        let order = order.unwrap().order;
        assert_eq!(order.max_per_repository, Some(3));
        assert_eq!(order.fairness_age, Duration::from_mins(2));
        let names: Vec<&str> = order.priorities.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["release", "merge"]);
    }

    #[test]
    fn each_mistake_of_a_priority_is_told_by_its_key() {
        for (lines, keys) in [
            (
                "name = \"a\"\njob = [\"x\"]",
                vec!["priority.0.escalate_after"],
            ),
            (
                "name = \"a\"\nescalate_after = \"1m\"",
                vec!["priority.0.repository"],
            ),
            (
                "name = \"a\"\njob = [\"x?\", \"\"]\nescalate_after = \"1m\"",
                vec!["priority.0.job"],
            ),
            (
                "name = \"a\"\njob = [\"x\"]\nescalate_after = \"1m\"\nrank = 1",
                vec!["priority.0.rank"],
            ),
            (
                "job = [\"x\"]\nescalate_after = \"1m\"",
                vec!["priority.0.name"],
            ),
        ] {
            let found = with(&format!("[[priority]]\n{lines}")).unwrap_err();
            assert_eq!(keys_of(&found), keys, "{lines}");
        }
        let twice =
            "[[priority]]\nname = \"a\"\njob = [\"x\"]\nescalate_after = \"1m\"\n".repeat(2);
        assert_eq!(keys_of(&with(&twice).unwrap_err()), ["priority.1.name"]);
    }
}
