//! A workload file, which is not a part of the configuration.

use std::path::Path;
use std::time::Duration;

use super::section::{DAY, SECOND, Section, parse_by};
use crate::config::mistake::{Mistake, Mistakes};
use crate::config::model::Config;
use crate::config::workload::{JobKind, TraceJob, Workload};
use crate::pool::PoolName;

/// Maximum run time of a job. GitHub ends a job on a self-hosted runner after 5 days.
const LONGEST_JOB: Duration = Duration::from_hours(5 * 24);
const EXAMPLE_JOB: Duration = Duration::from_mins(5);

/// Reads a workload file for the pools of a configuration.
pub fn load_workload(path: &Path, config: &Config) -> Result<Workload, Mistakes> {
    let text = std::fs::read_to_string(path).map_err(|error| Mistakes {
        file: path.to_owned(),
        list: vec![Mistake {
            key: "(file)".into(),
            wrong: format!("the file cannot be read: {error}"),
            write: "a TOML file; `runner-controller docs sizing` has an example".into(),
        }],
    })?;
    parse_workload(path, &text, config)
}

/// Checks the text of a workload file. Its path is for the mistakes alone.
pub fn parse_workload(file: &Path, text: &str, config: &Config) -> Result<Workload, Mistakes> {
    parse_by(file, text, |top, _| read(top, config))
}

fn read(mut top: Section<'_>, config: &Config) -> Option<Workload> {
    let kinds = top.sections("jobs");
    let trace = top.tables("trace", "a list of tables [[trace]]");
    let workload = match (kinds.is_empty(), trace.is_empty()) {
        (false, true) => {
            let kinds = kinds.into_iter();
            let kinds: Vec<_> = kinds
                .map(|(name, table)| kind(name, table, config))
                .collect();
            kinds
                .into_iter()
                .collect::<Option<_>>()
                .map(Workload::Kinds)
        }
        (true, false) => {
            let jobs: Vec<_> = trace.into_iter().map(|table| job(table, config)).collect();
            jobs.into_iter().collect::<Option<_>>().map(Workload::Trace)
        }
        (true, true) => {
            let write = "a table such as [jobs.build] with per_hour and duration";
            top.wrong("jobs", "a workload needs at least one kind of jobs", write);
            None
        }
        (false, false) => {
            let wrong = "a workload has kinds of jobs or a trace, not both";
            top.wrong(
                "trace",
                wrong,
                "either tables [jobs.<name>] or tables [[trace]]",
            );
            None
        }
    };
    top.finish();
    workload
}

fn kind(name: String, mut table: Section<'_>, config: &Config) -> Option<JobKind> {
    let pool = pool(&mut table, config);
    let per_hour = table.required("per_hour", "30", |table, key, _| {
        table.decimal(key, 0.001..=100_000.0)
    });
    let duration = duration(&mut table);
    let duration_p95 = match duration {
        Some(median) => table.duration("duration_p95", median, median..=LONGEST_JOB),
        None => table.duration("duration_p95", EXAMPLE_JOB, SECOND..=LONGEST_JOB),
    };
    let burst = table.decimal("burst", 1.0..=10_000.0).unwrap_or(1.0);
    let memory = table.parsed("memory", "\"2 GiB\"");
    table.finish();
    Some(JobKind {
        name,
        pool: pool?,
        per_hour: per_hour?,
        duration: duration?,
        duration_p95,
        burst,
        memory,
    })
}

fn job(mut table: Section<'_>, config: &Config) -> Option<TraceJob> {
    let pool = pool(&mut table, config);
    let after = table.duration("after", Duration::ZERO, Duration::ZERO..=366 * DAY);
    let duration = duration(&mut table);
    let memory = table.parsed("memory", "\"2 GiB\"");
    table.finish();
    Some(TraceJob {
        pool: pool?,
        after,
        duration: duration?,
        memory,
    })
}

fn duration(table: &mut Section<'_>) -> Option<Duration> {
    let range = Duration::from_millis(1)..=LONGEST_JOB;
    table.required("duration", "\"5m\"", |table, key, _| {
        Some(table.duration(key, EXAMPLE_JOB, range))
    })
}

/// Takes the name of a pool, which a host with one pool needs not have.
fn pool(table: &mut Section<'_>, config: &Config) -> Option<PoolName> {
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    let example = format!("{:?}", names.first().copied().unwrap_or("ci"));
    let name = match names.as_slice() {
        [only] if !table.has("pool") => (*only).to_owned(),
        _ => table.required("pool", &example, Section::text)?,
    };
    let found = config.pools.iter().find(|pool| pool.name.as_str() == name);
    if found.is_none() {
        table.wrong(
            "pool",
            format!("the configuration has no pool {name:?}"),
            format!("pool = {example}; the pools are: {}", names.join(", ")),
        );
    }
    found.map(|pool| pool.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, testing};

    fn parse(text: &str, pools: &[&str]) -> Result<Workload, Vec<String>> {
        let mut config = testing::config();
        let pools = pools.iter().zip(0..);
        config.pools = pools.map(|(name, at)| testing::pool(name, at)).collect();
        parse_workload(Path::new("w"), text, &config).map_err(|mistakes| {
            let list = mistakes.list.into_iter();
            list.map(|m| format!("{}: {}; {}", m.key, m.wrong, m.write))
                .collect()
        })
    }

    #[test]
    fn a_kind_of_jobs_has_defaults_for_all_but_rate_and_duration() {
        let text = "[jobs.build]\nper_hour = 30\nduration = \"6m\"\n";
        let expected = JobKind {
            name: "build".into(),
            pool: "ci".parse().unwrap(),
            per_hour: 30.0,
            duration: Duration::from_mins(6),
            duration_p95: Duration::from_mins(6),
            burst: 1.0,
            memory: None,
        };
        assert_eq!(
            parse(text, &["ci"]),
            Ok(Workload::Kinds(vec![expected.clone()]))
        );
        let more = "pool = \"gpu\"\nduration_p95 = \"20m\"\nburst = 2.5\nmemory = \"2 GiB\"\n";
        let expected = JobKind {
            pool: "gpu".parse().unwrap(),
            duration_p95: Duration::from_mins(20),
            burst: 2.5,
            memory: Some(ByteSize(2 << 30)),
            ..expected
        };
        let found = parse(&format!("{text}{more}"), &["ci", "gpu"]);
        assert_eq!(found, Ok(Workload::Kinds(vec![expected])));
    }

    #[test]
    fn a_trace_has_single_jobs() {
        let text =
            "[[trace]]\nduration = \"4s\"\n[[trace]]\nafter = \"500ms\"\nduration = \"6s\"\n";
        let job = |after, duration| TraceJob {
            pool: "ci".parse().unwrap(),
            after: Duration::from_millis(after),
            duration: Duration::from_secs(duration),
            memory: None,
        };
        assert_eq!(
            parse(text, &["ci"]),
            Ok(Workload::Trace(vec![job(0, 4), job(500, 6)]))
        );
    }

    #[test]
    fn each_mistake_says_what_to_write() {
        for (text, told) in [
            (
                "",
                "jobs: a workload needs at least one kind of jobs; a table such as [jobs.build] with per_hour and duration",
            ),
            (
                "[jobs.a]\nduration = \"5m\"\npool = \"ci\"",
                "jobs.a.per_hour: the key is missing; per_hour = 30",
            ),
            (
                "[jobs.a]\nper_hour = 0\nduration = \"5m\"\npool = \"ci\"",
                "jobs.a.per_hour: 0 is not a number in range; per_hour = N, with N from 0.001 to 100000",
            ),
            (
                "[jobs.a]\nper_hour = 1\nduration = \"5\"\npool = \"ci\"",
                "jobs.a.duration: \"5\" is not a duration from 1ms to 5days; duration = \"5m\"",
            ),
            (
                "[jobs.a]\nper_hour = 1\nduration = \"5m\"\nduration_p95 = \"4m\"\npool = \"ci\"",
                "jobs.a.duration_p95: \"4m\" is not a duration from 5m to 5days; duration_p95 = \"5m\"",
            ),
            (
                "[jobs.a]\nper_hour = 1\nduration = \"5m\"\npool = \"cj\"",
                "jobs.a.pool: the configuration has no pool \"cj\"; pool = \"ci\"; the pools are: ci, gpu",
            ),
            (
                "[jobs.a]\nper_hour = 1\nduration = \"5m\"",
                "jobs.a.pool: the key is missing; pool = \"ci\"",
            ),
            (
                "[jobs.a]\nper_hour = 1\nduration = \"5m\"\npool = \"ci\"\nmemory = 5",
                "jobs.a.memory: the key does not take a value of type integer; memory = \"2 GiB\"",
            ),
            (
                "[jobs.a]\nper_hour = 1\nduration = \"5m\"\npool = \"ci\"\nrate = 5",
                "jobs.a.rate: the key is unknown; one of: pool, per_hour, duration, duration_p95, burst, memory",
            ),
            (
                "[[trace]]\nduration = \"5m\"\npool = \"ci\"\n[jobs.a]\n",
                "trace: a workload has kinds of jobs or a trace, not both; either tables [jobs.<name>] or tables [[trace]]",
            ),
        ] {
            assert_eq!(parse(text, &["ci", "gpu"]).unwrap_err(), [told], "{text}");
        }
    }
}
