//! The list `[[pools.<name>.schedule]]`.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use super::demand;
use super::section::Section;
use crate::config::calendar::{DAYS, Hours, ScheduleEntry};
use crate::pool::{Numbers, Slot};

/// Maximum number of entries of a pool. Each is looked at whenever the pool is planned.
const MAX_ENTRIES: usize = 32;

/// Reads the schedule of a pool with `room` slots. Numbers that an entry does not name are those of the pool.
pub(super) fn schedule(
    section: &mut Section<'_>,
    pool: &demand::Numbers,
    room: u16,
) -> Vec<ScheduleEntry> {
    let list = section.tables("schedule", "a list of tables [[pools.ci.schedule]]");
    if list.len() > MAX_ENTRIES {
        section.wrong(
            "schedule",
            format!(
                "a schedule has at most {MAX_ENTRIES} entries, not {}",
                list.len()
            ),
            "fewer entries",
        );
    }
    let pool = Numbers {
        min_idle: pool.min_idle,
        min_spare: pool.min_spare,
        max_runners: room,
    };
    list.into_iter()
        .filter_map(|section| entry(section, pool))
        .collect()
}

fn entry(mut section: Section<'_>, pool: Numbers) -> Option<ScheduleEntry> {
    let days = days(&mut section);
    let hours = hours(&mut section);
    let zone = zone(&mut section);
    let numbers = ["min_idle", "min_spare", "max_runners"];
    if !numbers.into_iter().any(|key| section.has(key)) {
        section.wrong(
            "min_idle",
            "the entry changes no number",
            "min_idle, min_spare or max_runners for these hours",
        );
    }
    let min_idle = section.number("min_idle", 0..=Slot::MAX);
    let min_spare = section.number("min_spare", 0..=Slot::MAX);
    let max_runners = section.number("max_runners", 0..=pool.max_runners);
    let numbers = Numbers {
        min_idle: min_idle.unwrap_or(pool.min_idle),
        min_spare: min_spare.unwrap_or(pool.min_spare),
        max_runners: max_runners.unwrap_or(pool.max_runners),
    };
    let warm = numbers.min_idle.saturating_add(numbers.min_spare);
    if warm > numbers.max_runners {
        section.wrong(
            "max_runners",
            format!(
                "min_idle {} and min_spare {} do not fit {} runners",
                numbers.min_idle, numbers.min_spare, numbers.max_runners
            ),
            format!("max_runners = {warm} or more, or a lower min_idle or min_spare in the entry"),
        );
    }
    section.finish();
    Some(ScheduleEntry {
        days: days?,
        hours: hours?,
        zone: zone?,
        numbers,
    })
}

/// Reads the days, which are all days if the key is absent.
fn days(section: &mut Section<'_>) -> Option<Vec<Weekday>> {
    let example = "[\"mon\", \"tue\"], of mon, tue, wed, thu, fri, sat and sun";
    if !section.has("days") {
        section.texts("days", example);
        return Some(DAYS.map(|(_, day)| day).to_vec());
    }
    let names = section.texts("days", example)?;
    let find = |name: &String| DAYS.iter().find(|(day, _)| day == name);
    let unknown = names.iter().find(|name| find(name).is_none());
    if names.is_empty() || unknown.is_some() {
        let wrong = unknown.map_or("the entry has no day".to_owned(), |name| {
            format!("{name:?} is not a day")
        });
        section.wrong("days", wrong, format!("days = {example}"));
        return None;
    }
    let days = names.iter().filter_map(find).map(|(_, day)| *day);
    Some(days.collect())
}

/// Reads the hours, which are the whole day if the key is absent.
fn hours(section: &mut Section<'_>) -> Option<Hours> {
    let example = "\"08:00-18:00\"";
    if !section.has("hours") {
        section.text("hours", example);
        return Some(Hours::DAY);
    }
    let text = section.text("hours", example)?;
    let hours = Hours::parse(&text);
    if hours.is_none() {
        section.wrong(
            "hours",
            format!("{text:?} is not a beginning and another end of the form HH:MM-HH:MM"),
            format!("hours = {example}, or \"22:00-06:00\", which ends on the next day"),
        );
    }
    hours
}

/// Reads the time zone. A default would let hours be some hours off without a word.
fn zone(section: &mut Section<'_>) -> Option<TimeZone> {
    let example = "\"Europe/Berlin\"";
    let name = section.required("time_zone", example, Section::text)?;
    let zone = TimeZone::get(&name)
        .ok()
        .filter(|zone| zone.iana_name().is_some());
    if zone.is_none() {
        section.wrong(
            "time_zone",
            format!("{name:?} is not a time zone of the IANA database"),
            format!("time_zone = {example} or \"UTC\""),
        );
    }
    zone
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, testing};
    use crate::pool::Numbers;

    /// Reads a configuration whose only pool has an entry with these lines.
    fn with(lines: &str) -> Result<Config, Vec<String>> {
        testing::read(&format!(
            "{}[[pools.ci.schedule]]\n{lines}\n",
            testing::TEXT
        ))
    }

    #[test]
    fn an_entry_has_the_numbers_of_the_pool_besides_its_own() {
        let config = with("time_zone = \"Europe/Berlin\"\nmin_idle = 2").unwrap();
        let entry = &config.pools[0].schedule[0];
        let numbers = Numbers {
            min_idle: 2,
            min_spare: 1,
            max_runners: 4,
        };
        assert_eq!(entry.numbers(), numbers);
        assert_eq!(
            entry.to_string(),
            "mon,tue,wed,thu,fri,sat,sun 00:00-24:00 Europe/Berlin"
        );
    }

    #[test]
    fn a_pool_can_be_off_for_hours() {
        let off = "days = [\"sun\"]\nhours = \"22:00-06:00\"\ntime_zone = \"UTC\"\nmin_idle = 0\nmin_spare = 0\nmax_runners = 0";
        let pool = &with(off).unwrap().pools[0];
        // 2026-11-29 is a Sunday.
        let night = 1_795_989_600_000;
        assert_eq!(pool.scheduled(night - 1), None);
        assert_eq!(
            pool.scheduled(night).map(super::ScheduleEntry::numbers),
            Some(Numbers::default())
        );
    }

    #[test]
    fn each_mistake_of_an_entry_is_told_by_its_key() {
        for (lines, wrong) in [
            (
                "min_idle = 1",
                "pools.ci.schedule.0.time_zone: the key is missing",
            ),
            (
                "time_zone = \"Mars\"\nmin_idle = 1",
                "pools.ci.schedule.0.time_zone: \"Mars\" is not a time zone",
            ),
            (
                "time_zone = \"UTC\"",
                "pools.ci.schedule.0.min_idle: the entry changes no number",
            ),
            (
                "time_zone = \"UTC\"\nmax_runners = 1",
                "pools.ci.schedule.0.max_runners: min_idle 1 and min_spare 1 do not fit 1 runners",
            ),
            (
                "time_zone = \"UTC\"\nmax_runners = 5",
                "pools.ci.schedule.0.max_runners: 5 is not a whole number in range",
            ),
            (
                "time_zone = \"UTC\"\nmin_idle = 1\ndays = [\"Mon\"]",
                "pools.ci.schedule.0.days: \"Mon\" is not a day",
            ),
            (
                "time_zone = \"UTC\"\nmin_idle = 1\ndays = []",
                "pools.ci.schedule.0.days: the entry has no day",
            ),
            (
                "time_zone = \"UTC\"\nmin_idle = 1\nhours = \"8-18\"",
                "pools.ci.schedule.0.hours: \"8-18\" is not",
            ),
            (
                "time_zone = \"UTC\"\nmin_idle = 1\nhour = \"8-18\"",
                "pools.ci.schedule.0.hour: the key is unknown",
            ),
        ] {
            let found = with(lines).unwrap_err();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(wrong), "{found:?}");
        }
    }
}
