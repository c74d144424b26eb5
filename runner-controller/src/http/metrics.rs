//! The status as `OpenMetrics`. Label values are pools, phases, verdicts and operations: all from
//! fixed or configured sets, so that nothing a job says can add a series.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::pool::{Resource, Verdict};
use crate::status::Status;

type Labels = Vec<(&'static str, String)>;

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Family<Labels, Gauge> {
    let family = Family::default();
    registry.register(name, help, Family::clone(&family));
    family
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Family<Labels, Counter> {
    let family = Family::default();
    registry.register(name, help, Family::clone(&family));
    family
}

/// A label with its value as `OpenMetrics` wants it quoted, which the encoder leaves to us.
fn label(name: &'static str, value: &str) -> (&'static str, String) {
    let quoted = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    (name, quoted)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The text of `/metrics`.
pub(super) fn render(status: &Status) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("runner_controller");
    let runners = gauge(&mut registry, "runners", "Containers by phase");
    let wanted = gauge(
        &mut registry,
        "wanted_runners",
        "Containers that are configured to wait, and the most there may be",
    );
    let ended = counter(&mut registry, "ended", "Containers that ended, by verdict");
    let failures = gauge(
        &mut registry,
        "failures_in_a_row",
        "Failures in a row, by what fails",
    );
    let longest_job = gauge(
        &mut registry,
        "longest_job_seconds",
        "How long the oldest running job has run",
    );

    for pool in &status.pools {
        let name = || label("pool", &pool.name);
        for (phase, count) in &pool.phases {
            runners
                .get_or_create(&vec![name(), label("phase", phase)])
                .set(signed(*count));
        }
        let kinds = [
            ("idle", pool.wanted.idle),
            ("spare", pool.wanted.spare),
            ("max", pool.wanted.max),
        ];
        for (kind, count) in kinds {
            wanted
                .get_or_create(&vec![name(), ("kind", kind.to_owned())])
                .set(i64::from(count));
        }
        for verdict in Verdict::ALL {
            let count = pool
                .verdicts
                .get(verdict.as_str())
                .copied()
                .unwrap_or_default();
            ended
                .get_or_create(&vec![name(), ("verdict", verdict.as_str().to_owned())])
                .inc_by(count);
        }
        for backoff in &pool.backoffs {
            let labels = vec![name(), label("trouble", &backoff.failure)];
            failures
                .get_or_create(&labels)
                .set(i64::from(backoff.failures));
        }
        let jobs = pool.runners.iter().filter_map(|runner| runner.job.as_ref());
        let oldest = jobs
            .map(|job| job.running_ms / 1000)
            .max()
            .unwrap_or_default();
        longest_job.get_or_create(&vec![name()]).set(signed(oldest));
    }
    outside(&mut registry, status);

    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// What is not about one pool.
fn outside(registry: &mut Registry, status: &Status) {
    let calls = counter(
        registry,
        "github_calls",
        "Calls to GitHub, by operation and outcome",
    );
    let strays = gauge(
        registry,
        "stray_registrations",
        "Registrations without a container, being deleted",
    );
    let open = gauge(
        registry,
        "admission_open",
        "1 if new runners are started and registered",
    );
    let short = gauge(
        registry,
        "short",
        "1 while the host has so little left of this that admission is closed",
    );
    let errors = gauge(
        registry,
        "trouble",
        "1 while this part of the outside fails, or is not as it should be",
    );
    for (operation, outcomes) in &status.github.calls {
        for (outcome, count) in outcomes {
            calls
                .get_or_create(&vec![
                    label("operation", operation),
                    label("outcome", outcome),
                ])
                .inc_by(*count);
        }
    }
    strays
        .get_or_create(&vec![])
        .set(signed(status.strays.len() as u64));
    open.get_or_create(&vec![])
        .set(i64::from(status.closed.is_empty()));
    for resource in Resource::ALL {
        let name = resource.as_str();
        short
            .get_or_create(&vec![("resource", name.to_owned())])
            .set(i64::from(status.short.contains_key(name)));
    }
    let parts = [
        ("github", status.github.error.is_some()),
        ("systemd", status.systemd_error.is_some()),
        ("firewall", status.firewall_error.is_some()),
        ("records", status.records_error.is_some()),
    ];
    for (part, failing) in parts {
        errors
            .get_or_create(&vec![("part", part.to_owned())])
            .set(i64::from(failing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::PoolStatus;

    #[test]
    fn every_verdict_is_a_series_from_the_start() {
        let pool = PoolStatus {
            name: "ci".into(),
            ..PoolStatus::default()
        };
        let text = render(&Status {
            pools: vec![pool],
            ..Status::default()
        })
        .unwrap();
        for verdict in Verdict::ALL {
            let line =
                format!("runner_controller_ended_total{{pool=\"ci\",verdict=\"{verdict}\"}} 0");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_label_ends_where_its_quotes_do() {
        let pool = PoolStatus {
            name: "a\"} 1\nb\\".into(),
            phases: [("busy".to_owned(), 1)].into(),
            ..PoolStatus::default()
        };
        let text = render(&Status {
            pools: vec![pool],
            ..Status::default()
        })
        .unwrap();
        let line = r#"runner_controller_runners{pool="a\"} 1\nb\\",phase="busy"} 1"#;
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}
