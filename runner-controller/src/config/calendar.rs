//! Numbers of runners that hold at certain hours: the list `[[pools.<name>.schedule]]`.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;

use crate::pool::Numbers;

/// Days of the week, as the file spells them.
pub(super) const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// Numbers of a pool, and the hours at which they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// Days on which the hours begin.
    pub(super) days: Vec<Weekday>,
    /// The hours.
    pub(super) hours: Hours,
    /// Time zone of days and hours.
    pub(super) zone: TimeZone,
    /// Numbers that hold meanwhile.
    pub(super) numbers: Numbers,
}

/// Hours of a day, which may end on the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hours {
    pub(super) begin: Time,
    /// End, on the same day if it is later than the beginning, and otherwise on the next.
    pub(super) end: Time,
}

impl Hours {
    /// A day from midnight to midnight.
    pub(super) const DAY: Self = Self {
        begin: Time::midnight(),
        end: Time::midnight(),
    };

    /// Parses `22:00-06:00`. The end of a day may be `24:00`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (begin, end) = text.split_once('-')?;
        let end = if end == "24:00" { "00:00" } else { end };
        let hours = Self {
            begin: time(begin)?,
            end: time(end)?,
        };
        let is_day = hours == Self::DAY && text == "00:00-24:00";
        (hours.begin != hours.end || is_day).then_some(hours)
    }
}

fn time(text: &str) -> Option<Time> {
    let is_digit = |place: usize| text.as_bytes().get(place).is_some_and(u8::is_ascii_digit);
    let is_plain = text.len() == 5 && [0, 1, 3, 4].into_iter().all(is_digit);
    let (hour, minute) = text.split_once(':').filter(|_| is_plain)?;
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

impl ScheduleEntry {
    /// Returns the numbers that hold during the hours.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// Returns true if the hours contain a time, given in milliseconds since 1970.
    ///
    /// The hours of a day are one interval. A time that does not exist, because the clocks are set forward over it,
    /// is as much later as they are set forward. Of a time that comes twice, the first one counts. RFC 5545 has the
    /// same rules for calendars (section 3.3.5).
    #[must_use]
    pub fn contains(&self, unix_ms: u64) -> bool {
        let now = i64::try_from(unix_ms).ok();
        let Some(now) = now.and_then(|ms| Timestamp::from_millisecond(ms).ok()) else {
            return false;
        };
        let today = now.to_zoned(self.zone.clone()).date();
        let days = [today.yesterday().ok(), Some(today)].into_iter().flatten();
        let mut intervals = days.filter_map(|day| self.interval(day));
        intervals.any(|(begin, end)| begin <= now && now < end)
    }

    /// Returns the hours that begin on a day.
    fn interval(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.contains(&day.weekday()) {
            return None;
        }
        let is_one_day = self.hours.begin < self.hours.end;
        let last = if is_one_day {
            Some(day)
        } else {
            day.tomorrow().ok()
        };
        let begin = self.at(day, self.hours.begin)?;
        Some((begin, self.at(last?, self.hours.end)?))
    }

    /// Returns the times, in milliseconds since 1970, at which the hours begin and end in the seven days from `first`.
    pub(super) fn changes(&self, first: Date) -> impl Iterator<Item = u64> {
        let days = first.series(jiff::Span::new().days(1)).take(7);
        let times = days
            .filter_map(|day| self.interval(day))
            .flat_map(|(begin, end)| [begin, end]);
        times.filter_map(|time| u64::try_from(time.as_millisecond()).ok())
    }

    fn at(&self, day: Date, time: Time) -> Option<Timestamp> {
        let time = self.zone.to_ambiguous_timestamp(day.to_datetime(time));
        time.compatible().ok()
    }
}

impl fmt::Display for ScheduleEntry {
    /// Writes `mon,tue 08:00-18:00 Europe/Berlin`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = DAYS.iter().filter(|(_, day)| self.days.contains(day));
        let days: Vec<&str> = days.map(|(name, _)| *name).collect();
        let Hours { begin, end } = self.hours;
        let zone = self.zone.iana_name().unwrap_or_default();
        write!(f, "{} ", days.join(","))?;
        write!(f, "{:02}:{:02}-", begin.hour(), begin.minute())?;
        let end_hour = if end == Time::midnight() {
            24
        } else {
            end.hour()
        };
        write!(f, "{end_hour:02}:{:02} {zone}", end.minute())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(days: &[Weekday], hours: &str, zone: &str) -> ScheduleEntry {
        ScheduleEntry {
            days: days.to_vec(),
            hours: Hours::parse(hours).unwrap(),
            zone: TimeZone::get(zone).unwrap(),
            numbers: Numbers {
                min_idle: 0,
                min_spare: 0,
                max_runners: 1,
            },
        }
    }

    fn every_day() -> Vec<Weekday> {
        DAYS.map(|(_, day)| day).to_vec()
    }

    /// Returns the changes of an entry, minute by minute, between two times in UTC.
    fn changes(entry: &ScheduleEntry, from: &str, until: &str) -> Vec<String> {
        let of = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        let mut was = entry.contains(u64::try_from(of(from)).unwrap());
        let mut changes = vec![format!("{was} at {from}")];
        for ms in (of(from)..=of(until)).step_by(60_000) {
            let is = entry.contains(u64::try_from(ms).unwrap());
            if is != was {
                changes.push(format!(
                    "{is} at {}",
                    Timestamp::from_millisecond(ms).unwrap()
                ));
            }
            was = is;
        }
        changes
    }

    #[test]
    fn hours_hold_in_their_time_zone_on_their_days() {
        // 2026-11-27 is a Friday.
        let entry = entry(&[Weekday::Friday], "08:00-18:00", "America/New_York");
        assert_eq!(
            changes(&entry, "2026-11-26T00:00:00Z", "2026-11-30T00:00:00Z"),
            [
                "false at 2026-11-26T00:00:00Z",
                "true at 2026-11-27T13:00:00Z",
                "false at 2026-11-27T23:00:00Z"
            ]
        );
    }

    #[test]
    fn hours_over_midnight_belong_to_the_day_on_which_they_begin() {
        let entry = entry(&[Weekday::Friday], "22:00-06:00", "UTC");
        assert_eq!(
            changes(&entry, "2026-11-26T00:00:00Z", "2026-11-30T00:00:00Z"),
            [
                "false at 2026-11-26T00:00:00Z",
                "true at 2026-11-27T22:00:00Z",
                "false at 2026-11-28T06:00:00Z"
            ]
        );
    }

    #[test]
    fn whole_days_have_23_or_25_hours_when_the_clocks_change() {
        for (sunday, begin, end) in [
            ("2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
        ] {
            let entry = entry(&[Weekday::Sunday], "00:00-24:00", "Europe/Berlin");
            let from = format!("{}T12:00:00Z", begin.split_once('T').unwrap().0);
            let until = format!("{sunday}T23:59:00Z");
            assert_eq!(
                changes(&entry, &from, &until),
                [
                    format!("false at {from}"),
                    format!("true at {begin}"),
                    format!("false at {end}")
                ]
            );
        }
    }

    #[test]
    fn a_time_that_does_not_exist_comes_later_and_one_that_comes_twice_counts_once() {
        let night = entry(&every_day(), "02:30-05:00", "Europe/Berlin");
        // The clocks go from 02:00 to 03:00.
        assert_eq!(
            changes(&night, "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z"),
            [
                "false at 2026-03-29T00:00:00Z",
                "true at 2026-03-29T01:30:00Z",
                "false at 2026-03-29T03:00:00Z"
            ]
        );
        // The clocks go from 03:00 to 02:00.
        assert_eq!(
            changes(&night, "2026-10-24T23:00:00Z", "2026-10-25T12:00:00Z"),
            [
                "false at 2026-10-24T23:00:00Z",
                "true at 2026-10-25T00:30:00Z",
                "false at 2026-10-25T04:00:00Z"
            ]
        );
        let evening = entry(&every_day(), "22:00-02:30", "Europe/Berlin");
        assert_eq!(
            changes(&evening, "2026-10-24T18:00:00Z", "2026-10-25T12:00:00Z"),
            [
                "false at 2026-10-24T18:00:00Z",
                "true at 2026-10-24T20:00:00Z",
                "false at 2026-10-25T00:30:00Z"
            ]
        );
    }

    #[test]
    fn times_beyond_the_calendar_are_in_no_hours() {
        let entry = entry(&every_day(), "00:00-24:00", "UTC");
        assert!(entry.contains(0));
        assert!(!entry.contains(u64::MAX) && !entry.contains(u64::MAX / 4));
    }

    #[test]
    fn hours_have_two_digits_and_do_not_end_where_they_begin() {
        for text in [
            "8:00-18:00",
            "08:00",
            "08:00-24:01",
            "24:00-08:00",
            "08:00-08:00",
            "08:00 - 18:00",
            "08:60-18:00",
            "-8:00-18:00",
            "00:00-00:00",
            "08:00-18:00-19:00",
            "",
            "08-18",
            "٠٨:00-18:00",
        ] {
            assert_eq!(Hours::parse(text), None, "{text}");
        }
        assert_eq!(Hours::parse("00:00-24:00"), Some(Hours::DAY));
        let shown = entry(&[Weekday::Monday, Weekday::Sunday], "18:00-24:00", "UTC");
        assert_eq!(shown.to_string(), "mon,sun 18:00-24:00 UTC");
    }
}
