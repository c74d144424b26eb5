//! The `[budget]` table: maxima for the runners of all pools together.

use std::collections::BTreeSet;

use super::section::{Report, Section};
use crate::config::ScheduleEntry;
use crate::config::model::Config;
use crate::config::pool::PoolConfig;
use crate::config::units::ByteSize;
use crate::pool::{Budget, Cost, Slot};

/// Reads the budget; without the table nothing is bounded.
pub(super) fn budget(mut section: Section<'_>) -> Budget {
    let memory: Option<ByteSize> = section.parsed("memory", "\"48 GiB\"");
    let budget = Budget {
        memory_bytes: memory.map(|memory| memory.0),
        millicores: section.millicores("cpu").map(u64::from),
        runners: section
            .number("runners", 1..=u32::from(Slot::MAX) * 64)
            .map(u64::from),
    };
    section.finish();
    budget
}

/// Reports what the budget can never hold: one runner of a pool beside the idle runners of the others, or the
/// numbers that all pools always want.
pub(super) fn check(report: &Report, config: &Config) {
    let (budget, pools) = (config.budget, &config.pools);
    if budget.is_unlimited() {
        return;
    }
    let without_cores = pools.iter().filter(|pool| pool.limits.cpu.is_none());
    for pool in without_cores.filter(|_| budget.millicores.is_some()) {
        report.add(
            format!("pools.{}.limits.cpu", pool.name),
            "the key is missing, and budget.cpu counts the cores of each runner",
            "cpu = 2, or no budget.cpu",
        );
    }
    let sum = |cost: &dyn Fn(&PoolConfig) -> Cost| {
        pools.iter().map(cost).fold(Cost::default(), Cost::plus)
    };
    for pool in pools {
        let of_pool = |other: &PoolConfig| {
            let count = if other.name == pool.name {
                other.min_idle.max(1)
            } else {
                other.min_idle
            };
            other.cost().times(usize::from(count))
        };
        let about = format!(
            "one runner of pool {} and min_idle of the others",
            pool.name
        );
        tell(
            report,
            budget,
            pool.cost(),
            &format!("one runner of pool {}", pool.name),
        );
        if budget.allows(pool.cost()) && pool.min_idle == 0 {
            tell(report, budget, sum(&of_pool), &about);
        }
    }
    let wanted = |pool: &PoolConfig| {
        let count = usize::from(pool.min_idle) + usize::from(pool.min_spare);
        pool.cost().times(count)
    };
    let always = sum(&wanted);
    tell(
        report,
        budget,
        always,
        "min_idle and min_spare of all pools",
    );
    if budget.allows(always) {
        check_schedules(report, config);
    }
}

/// Reports hours at which the budget could not hold the minima of all pools.
fn check_schedules(report: &Report, config: &Config) {
    // A week of winter and one of summer have all combinations of hours that last, in every time zone.
    let weeks = [jiff::civil::date(2026, 1, 5), jiff::civil::date(2026, 7, 6)];
    let pools = &config.pools;
    let entries = pools.iter().flat_map(|pool| &pool.schedule);
    let changes = entries.flat_map(|entry| weeks.map(|week| entry.changes(week)));
    let times: BTreeSet<u64> = changes.flatten().collect();
    let minima = |unix_ms: u64| {
        let cost = |pool: &PoolConfig| {
            let entry = pool.scheduled(unix_ms);
            let numbers = entry.map_or_else(|| pool.numbers(), ScheduleEntry::numbers);
            let count = usize::from(numbers.min_idle) + usize::from(numbers.min_spare);
            pool.cost().times(count)
        };
        pools.iter().map(cost).fold(Cost::default(), Cost::plus)
    };
    let over = |time: &u64| !config.budget.allows(minima(*time));
    let Some(time) = times.into_iter().find(over) else {
        return;
    };
    let holding = pools.iter().filter_map(|pool| {
        let entry = pool.scheduled(time)?;
        Some(format!("{} ({entry})", pool.name))
    });
    let holding: Vec<String> = holding.collect();
    let about = match holding.as_slice() {
        [] => "min_idle and min_spare of all pools outside of the hours of schedules".to_owned(),
        _ => format!(
            "min_idle and min_spare of all pools during the schedule of {}",
            holding.join(", ")
        ),
    };
    tell(report, config.budget, minima(time), &about);
}

/// Reports the resources of the budget that are smaller than a cost.
fn tell(report: &Report, budget: Budget, cost: Cost, about: &str) {
    let cores = |millicores: u64| format!("{}.{:03}", millicores / 1000, millicores % 1000);
    let amounts = [
        (
            "memory",
            budget
                .memory_bytes
                .is_some_and(|max| cost.memory_bytes > max),
            format!("\"{}\"", ByteSize(cost.memory_bytes)),
        ),
        (
            "cpu",
            budget.millicores.is_some_and(|max| cost.millicores > max),
            cores(cost.millicores),
        ),
        (
            "runners",
            budget.runners.is_some_and(|max| cost.runners > max),
            cost.runners.to_string(),
        ),
    ];
    for (key, _, amount) in amounts.into_iter().filter(|(_, lacks, _)| *lacks) {
        report.add(
            format!("budget.{key}"),
            format!("the budget has no room for {about}: {amount}"),
            format!("{key} = {amount} or more, or smaller numbers or limits of the pools"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, parse, testing};
    use crate::pool::Budget;

    fn with(lines: &str) -> Result<Config, Vec<String>> {
        testing::read(&format!("{}{lines}\n", testing::TEXT))
    }

    #[test]
    fn a_host_without_the_table_has_no_budget() {
        assert!(with("").unwrap().budget.is_unlimited());
        let budget =
            "[pools.ci.limits]\ncpu = 2\n[budget]\nmemory = \"16 GiB\"\ncpu = 4.5\nrunners = 3";
        let expected = Budget {
            memory_bytes: Some(16 << 30),
            millicores: Some(4_500),
            runners: Some(3),
        };
        assert_eq!(with(budget).unwrap().budget, expected);
    }

    #[test]
    fn a_budget_that_pools_never_fit_is_a_mistake() {
        // The pool wants one idle runner and one spare, of 4 GiB each.
        for (lines, told) in [
            (
                "[budget]\nmemory = \"3 GiB\"",
                vec![
                    "budget.memory: the budget has no room for one runner of pool ci: \"4.0 GiB\"",
                    "budget.memory: the budget has no room for min_idle and min_spare of all pools: \"8.0 GiB\"",
                ],
            ),
            (
                "[budget]\nrunners = 1",
                vec![
                    "budget.runners: the budget has no room for min_idle and min_spare of all pools: 2",
                ],
            ),
            (
                "[budget]\ncpu = 4",
                vec![
                    "pools.ci.limits.cpu: the key is missing, and budget.cpu counts the cores of each runner",
                ],
            ),
            ("[budget]\nmemory = \"8 GiB\"", vec![]),
        ] {
            let found = with(lines).err().unwrap_or_default();
            assert_eq!(found, told, "{lines}");
        }
    }

    #[test]
    fn hours_of_several_pools_that_the_budget_cannot_hold_are_a_mistake() {
        let pool = "[pools.big]\nlabels = [\"big\"]\noffset = 9\nmax_runners = 4\nmin_idle = 1\nmin_spare = 0\n\
            image = { kind = \"directory\", path = \"/i\" }\n";
        let schedule = |pool: &str, hours: &str, zone: &str, min_idle: u16| {
            format!(
                "[[pools.{pool}.schedule]]\nhours = \"{hours}\"\ntime_zone = \"{zone}\"\nmin_idle = {min_idle}\n"
            )
        };
        let budget = "[budget]\nrunners = 5\n";
        let ci = schedule("ci", "08:00-18:00", "Europe/Berlin", 3);
        let with_big = |big: &str| with(&format!("{budget}{ci}{pool}{big}"));
        // Berlin's hours end when it is noon in New York.
        let fits = schedule("big", "06:00-12:00", "America/New_York", 1);
        assert!(with_big(&fits).is_ok());
        let meets = schedule("big", "11:00-13:00", "America/New_York", 2);
        assert_eq!(
            with_big(&meets).unwrap_err(),
            [
                "budget.runners: the budget has no room for min_idle and min_spare of all pools during the schedule of \
                 big (mon,tue,wed,thu,fri,sat,sun 11:00-13:00 America/New_York), \
                 ci (mon,tue,wed,thu,fri,sat,sun 08:00-18:00 Europe/Berlin): 6"
            ]
        );
        let apart = schedule("big", "13:00-15:00", "America/New_York", 2);
        assert!(with_big(&apart).is_ok());
    }

    #[test]
    fn a_job_has_room_beside_the_idle_runners_of_other_pools() {
        let pool = "[pools.big]\nlabels = [\"big\"]\noffset = 9\nmax_runners = 2\ndemand = \"webhook\"\nmin_idle = 0\n\
            min_spare = 0\nimage = { kind = \"directory\", path = \"/i\" }\n[webhook]\nlisten = \"127.0.0.1:9818\"\n\
            secret_file = \"/run/a\"\n[budget]\nrunners = ";
        assert!(with(&format!("{pool}2")).is_ok());
        let text = testing::TEXT.replace(
            "max_runners = 4",
            "max_runners = 4\nmin_idle = 2\nmin_spare = 0",
        );
        let found = parse(Path::new("x"), &format!("{text}{pool}2"))
            .unwrap_err()
            .list;
        assert_eq!(
            found[0].wrong,
            "the budget has no room for one runner of pool big and min_idle of the others: 3"
        );
    }
}
