//! Series and their labels, and the page that lists them.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::status::{
    BackoffStatus, BudgetResource, BudgetUse, DemandStatus, FailureKind, GateStatus, GitHubStatus,
    Histogram, JobNote, JobRow, JobStage, JobStatus, PaceStatus, PhaseKind, PoolDemandStatus,
    QueueStatus, RateLimitStatus, RedeliveryStatus, RunnerStatus, ScaleSetStatus, TracesStatus,
    VersionEnd, VersionRemedy, VersionStatus, WebhookStatus,
};

#[test]
fn every_verdict_and_result_is_a_series_from_the_start() {
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
            format!("runner_controller_runner_ends_total{{pool=\"ci\",reason=\"{verdict}\"}} 0");
        assert!(text.contains(&line), "{line} in {text}");
    }
    for result in JobResult::ALL {
        let line =
            format!("runner_controller_job_results_total{{pool=\"ci\",result=\"{result}\"}} 0");
        assert!(text.contains(&line), "{line} in {text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// A window of a rate limit.
fn window() -> RateLimitStatus {
    RateLimitStatus {
        credential: "github-token-one".into(),
        resource: "core".into(),
        limit: 5_000,
        remaining: 4_812,
        reset_unix_s: 1_800_000_000,
    }
}

#[test]
fn the_series_of_a_named_scope_have_its_name() {
    let scope = |name: &str, error: Option<&str>| ScopeStatus {
        name: Some(name.into()),
        github: GitHubStatus {
            error: error.map(str::to_owned),
            calls: [("mint".into(), [("ok".into(), 3)].into())].into(),
            ..GitHubStatus::default()
        },
        rate_limits: vec![window()],
        strays: vec!["box-ci-1-0000dead".into()],
        ..ScopeStatus::default()
    };
    let gate = |scope: &str| GateStatus {
        gate: Gate::Deletions,
        scope: Some(scope.into()),
        reason: String::new(),
    };
    let mut status = Status {
        scopes: vec![scope("one", None), scope("two", Some("401"))],
        gates: vec![gate("two"), gate("acme/former at https://api.github.com")],
        ..Status::default()
    };
    let text = render(&status).unwrap();
    for line in [
        r#"github_calls_total{operation="mint",outcome="ok",scope="one"} 3"#,
        r#"stray_registrations{scope="two"} 1"#,
        r#"gate_closed{gate="deletions",scope="one"} 0"#,
        r#"gate_closed{gate="deletions",scope="two"} 1"#,
        r#"component_failing{component="github",scope="one"} 0"#,
        r#"component_failing{component="github",scope="two"} 1"#,
        // Both scopes have the same token.
        r#"github_rate_limit_limit{credential="github-token-one",resource="core"} 5000"#,
        r#"github_rate_limit_remaining{credential="github-token-one",resource="core"} 4812"#,
        r#"github_rate_limit_reset_timestamp_seconds{credential="github-token-one",resource="core"} 1800000000"#,
    ] {
        let line = format!("runner_controller_{line}");
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    status.scopes.truncate(1);
    status.scopes[0].name = None;
    let text = render(&status).unwrap();
    for line in [
        r#"github_calls_total{operation="mint",outcome="ok"} 3"#,
        r#"gate_closed{gate="deletions"} 0"#,
    ] {
        let line = format!("runner_controller_{line}");
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn a_label_value_cannot_end_its_quotes() {
    let pool = PoolStatus {
        name: "a\"} 1\nb\\".into(),
        phases: [(PhaseKind::Busy, 1)].into(),
        ..PoolStatus::default()
    };
    let text = render(&Status {
        pools: vec![pool],
        ..Status::default()
    })
    .unwrap();
    let line = r#"runner_controller_pool_runners{pool="a\"} 1\nb\\",state="busy"} 1"#;
    assert!(text.lines().any(|found| found == line), "{text}");
}

/// The page with a row for each metric.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

/// A status in which every metric has a series.
fn everything() -> Status {
    let pool = PoolStatus {
        name: "ci".into(),
        phases: PhaseKind::ALL.iter().map(|phase| (*phase, 1)).collect(),
        backoffs: vec![BackoffStatus {
            failure: FailureKind::Boot,
            failures: 1,
            retry_in_ms: 0,
            reason: String::new(),
        }],
        demand: Some(PoolDemandStatus::default()),
        runner_version: Some(VersionStatus {
            version: "2.336.0".parse().unwrap(),
            end: Some(VersionEnd {
                registration_unix_ms: None,
                runtime_unix_ms: Some(1),
            }),
            asked_unix_ms: None,
            remedy: VersionRemedy::Rebuild,
        }),
        ..PoolStatus::default()
    };
    Status {
        program: "0.1.0".into(),
        traces: Some(TracesStatus::default()),
        scopes: vec![ScopeStatus {
            name: Some("widgets".into()),
            github: GitHubStatus {
                calls: [("mint".into(), [("ok".into(), 1)].into())].into(),
                pace: Some(PaceStatus {
                    mints_per_minute: 1,
                    configured: 1,
                    last_minute: 0,
                    paced_by: PaceReason::Configured,
                }),
                ..GitHubStatus::default()
            },
            answer_times: [("mint".into(), Histogram::default())].into(),
            rate_limits: vec![window()],
            ..ScopeStatus::default()
        }],
        budget: [(BudgetResource::Runners, BudgetUse::default())].into(),
        demand: Some(DemandStatus {
            webhook: Some(WebhookStatus {
                last_unix_ms: Some(0),
                ..WebhookStatus::default()
            }),
            queues: vec![QueueStatus {
                last_unix_ms: Some(0),
                runs: Some(0),
                ..QueueStatus::default()
            }],
            redeliveries: vec![RedeliveryStatus::default()],
            scale_sets: vec![ScaleSetStatus {
                pool: "ci".into(),
                capacity: Some(4),
                assigned: Some(1),
                last_unix_ms: Some(0),
                ..ScaleSetStatus::default()
            }],
            ..DemandStatus::default()
        }),
        pools: vec![pool],
        ..Status::default()
    }
}

/// Returns a table of the metrics in a text, sorted by name.
fn table(text: &str) -> String {
    let mut rows: BTreeMap<&str, (&str, &str, BTreeSet<&str>)> = BTreeMap::new();
    let mut last = "";
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            rows.entry(name).or_default().0 = help;
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            rows.entry(name).or_default().1 = kind;
            last = name;
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.split('}').next().unwrap_or_default();
            let names = labels
                .split(',')
                .filter_map(|label| label.split('=').next());
            let names = names.filter(|name| !["", "le"].contains(name));
            rows.entry(last).or_default().2.extend(names);
        }
    }
    let mut table =
        String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for (name, (help, kind, labels)) in rows {
        let total = if kind == "counter" { "_total" } else { "" };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let help = help.trim_end_matches('.');
        let labels = labels.join(", ");
        let _ = writeln!(table, "| `{name}{total}` | {kind} | {labels} | {help} |");
    }
    table
}

#[test]
fn the_metrics_page_has_a_row_for_each_metric() {
    let now = table(&render(&everything()).unwrap());
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, recorded) = page.split_at(page.find("| metric |").unwrap());
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(PAGE, format!("{before}{now}")).unwrap();
    } else {
        assert_eq!(
            now, recorded,
            "record docs/metrics.md: RECORD=1 cargo test the_metrics_page"
        );
    }
}

#[test]
fn times_of_answers_are_a_histogram_in_seconds() {
    let mut times = Histogram::default();
    for elapsed_ms in [50, 51, 700] {
        times.add(Measure::GitHubRequest, elapsed_ms);
    }
    let scope = ScopeStatus {
        answer_times: [("list runners".into(), times)].into(),
        ..ScopeStatus::default()
    };
    let text = render(&Status {
        scopes: vec![scope],
        ..Status::default()
    })
    .unwrap();
    for line in [
        r#"bucket{le="0.05",operation="list runners"} 1"#,
        r#"bucket{le="0.1",operation="list runners"} 2"#,
        r#"bucket{le="1.0",operation="list runners"} 3"#,
        r#"count{operation="list runners"} 3"#,
        r#"sum{operation="list runners"} 0.801"#,
    ] {
        let line = format!("runner_controller_github_request_seconds_{line}");
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

#[test]
fn names_of_jobs_add_no_series() {
    let series = |status: &Status| render(status).unwrap().lines().count();
    let calm = everything();
    let mut storm = everything();
    for number in 0..500 {
        let text = format!("job {number}\" }} 1");
        let note = JobNote {
            repository: text.clone(),
            run_id: number.to_string(),
            job: text.clone(),
            workflow: text.clone(),
        };
        storm.pools[0].runners.push(RunnerStatus {
            job: Some(JobStatus {
                note,
                ..JobStatus::default()
            }),
            ..RunnerStatus::new("ci-1".parse().unwrap(), PhaseKind::Busy)
        });
        let row = JobRow {
            id: number,
            scope: text.clone(),
            repository: text.clone(),
            run_id: number,
            attempt: 1,
            workflow: text.clone(),
            name: text.clone(),
            labels: vec![text],
            stage: JobStage::Queued,
            queued_unix_ms: 0,
            started_unix_ms: None,
            ended_unix_ms: None,
            conclusion: None,
            pool: None,
            machine: None,
            waits_for: None,
        };
        let demand = storm.demand.as_mut().unwrap();
        demand.waiting.push(row.clone());
        demand.unserved.push(row);
    }
    assert_eq!(series(&storm), series(&calm));
}
