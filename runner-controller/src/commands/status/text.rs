//! The status as text: notices first, then the pools, their runners and the last verdicts.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table};

use crate::commands::table::{lines, table};
use crate::status::{PoolStatus, ScopeStatus, Status, VerdictRecord};
use crate::view::{
    Ended, Notice, Occupation, PoolCounts, Weight, failure, health, notices, scope_state, server,
    span, state,
};

/// Maximum number of ended runners in the text, unless all are requested. The document has up to 20.
const ENDED: usize = 8;

/// Returns the status as text, with all ended runners or the last ones alone.
pub(super) fn render(status: &Status, all_ended: bool) -> String {
    let ended_count = if all_ended { usize::MAX } else { ENDED };
    let recent = &status.recent[..status.recent.len().min(ended_count)];
    let notices = notices(status);
    let has_problem = |notice: &Notice| notice.weight == Weight::Problem;
    let verdict = match (health(status).healthy, notices.iter().any(has_problem)) {
        (true, false) => "healthy",
        (true, true) => "healthy, with problems",
        (false, _) => "NOT healthy",
    };
    let mut text = format!(
        "{} at {}: {}, {verdict}\n",
        status.host, status.scope, status.state
    );
    for notice in notices {
        let mark = match notice.weight {
            Weight::Problem => "! ",
            Weight::Closed | Weight::Fact => "",
        };
        let _ = writeln!(text, "  {mark}{}", notice.text);
    }
    let all = status.scopes();
    if all.len() > 1 {
        text += &section(&scopes(&all, status));
    }
    if !status.pools.is_empty() {
        text += &section(&pools(&status.pools, all.len() > 1));
    }
    if status.pools.iter().any(|pool| !pool.runners.is_empty()) {
        text += &section(&runners(status));
    }
    if !recent.is_empty() {
        text += &section(&ended(recent, status.at_unix_ms));
        text += &failures(recent, status.at_unix_ms);
    }
    text
}

/// Table of the scopes. A pace is the registrations of the last minute, and after a slash their maximum.
fn scopes(scopes: &[ScopeStatus], status: &Status) -> Table {
    let mut rows = table([
        "SCOPE", "AT", "GITHUB", "LISTED", "PACE", "ORPHANS", "CALLS",
    ]);
    for column in rows.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for scope in scopes {
        let listed = scope.github.listed.map(|count| count.to_string());
        let pace = scope.github.pace;
        let pace = pace.map(|pace| format!("{}/{}", pace.last_minute, pace.mints_per_minute));
        let calls = scope
            .github
            .calls
            .values()
            .flat_map(|counts| counts.values());
        rows.add_row([
            scope.name.clone().unwrap_or_default(),
            scope.scope.clone(),
            scope_state(scope, status.at_unix_ms),
            listed.unwrap_or_default(),
            pace.unwrap_or_default(),
            scope.strays.len().to_string(),
            calls.sum::<u64>().to_string(),
        ]);
    }
    rows
}

fn section(table: &Table) -> String {
    format!("\n{}", lines(table))
}

/// Table of the pools. With several scopes, the last column is the pool's.
fn pools(pools: &[PoolStatus], with_scope: bool) -> Table {
    let header = [
        "POOL", "IDLE", "SPARE", "BUSY", "STARTING", "ENDING", "ALL", "FAILED", "LABELS",
    ];
    let scope = with_scope.then_some("SCOPE");
    let mut rows = table(header.into_iter().chain(scope));
    for column in rows.column_iter_mut().skip(1).take(7) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for pool in pools {
        let counts = PoolCounts::of(pool);
        let scope = with_scope.then(|| pool.scope.clone().unwrap_or_default());
        let cells = [
            pool.name.clone(),
            counts.idle,
            counts.spare,
            counts.busy,
            counts.starting,
            counts.ending,
            counts.all,
            pool.failed.to_string(),
            pool.labels.join(", "),
        ];
        rows.add_row(cells.into_iter().chain(scope));
    }
    rows
}

/// Table of the runners that have a container.
fn runners(status: &Status) -> Table {
    let mut rows = table(["RUNNER", "STATE", "FOR", "AGE", "JOB OR NAME"]);
    for pool in &status.pools {
        for runner in &pool.runners {
            let Occupation { text, url } = Occupation::of(runner, server(status, pool));
            let url = url.map(|url| format!("\n{url}"));
            rows.add_row([
                runner.slot.to_string(),
                state(runner),
                span(runner.phase_ms),
                span(runner.age_ms),
                text + &url.unwrap_or_default(),
            ]);
        }
    }
    rows
}

/// Table of the runners that ended last.
fn ended(recent: &[VerdictRecord], now_unix_ms: u64) -> Table {
    let mut rows = table(["ENDED", "VERDICT", "AGO", "JOB", "MEMORY", "EXIT"]);
    for ended in recent {
        let ended = Ended::of(ended, now_unix_ms);
        rows.add_row([
            ended.slot,
            ended.verdict,
            ended.ago,
            ended.job,
            ended.memory,
            ended.exit,
        ]);
    }
    rows
}

/// Returns a line for each kind of failure above: the newest runner with it, the number of the others, its last line,
/// and the advice.
fn failures(recent: &[VerdictRecord], now_unix_ms: u64) -> String {
    let is_alike = |one: &VerdictRecord, other: &VerdictRecord| {
        one.verdict == other.verdict && one.last_line == other.last_line
    };
    let mut kinds: Vec<(&VerdictRecord, String, usize)> = Vec::new();
    for ended in recent {
        if let Some(failure) = failure(ended) {
            match kinds.iter_mut().find(|(first, ..)| is_alike(first, ended)) {
                Some((.., others)) => *others += 1,
                None => kinds.push((ended, failure, 0)),
            }
        }
    }
    let mut text = String::new();
    for (first, failure, others) in kinds {
        let others = match others {
            0 => String::new(),
            _ => format!(" and {others} more"),
        };
        let ago = span(now_unix_ms.saturating_sub(first.ended_unix_ms));
        let (slot, verdict) = (&first.slot, first.verdict);
        let _ = writeln!(text, "  {slot}{others}, {verdict} {ago} ago: {failure}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ResourceUse;
    use crate::status::{
        BackoffStatus, Cause, DaemonState, FailureKind, GitHubStatus, JobNote, JobResult,
        JobStatus, PhaseKind, RunnerStatus, Verdict, Wanted,
    };

    fn ended(
        slot: &str,
        verdict: Verdict,
        job_ms: Option<u64>,
        exit: Option<&str>,
        memory_peak_bytes: Option<u64>,
    ) -> VerdictRecord {
        VerdictRecord {
            slot: slot.parse().unwrap(),
            verdict,
            runner: None,
            runner_id: None,
            job: None,
            ended_unix_ms: 1_000_000 - 72_000,
            asked_after_ms: None,
            listening_after_ms: None,
            lived_ms: 0,
            job_ms,
            exit: exit.map(str::to_owned),
            result: job_ms.map(|_| JobResult::Succeeded),
            last_line: job_ms.is_none().then(|| "Listening for Jobs".into()),
            memory_peak_bytes,
            oom_kills: 0,
            invocation: None,
            phases: Vec::new(),
            cpu_ms: None,
            usage: ResourceUse::default(),
            generation: None,
            version: None,
        }
    }

    /// A host with two pools, in which something of everything happens.
    fn busy_host() -> Status {
        let runner = |slot: &str, phase, phase_ms, age_ms| RunnerStatus {
            age_ms,
            phase_ms,
            ..RunnerStatus::new(slot.parse().unwrap(), phase)
        };
        let ci = PoolStatus {
            name: "ci".into(),
            labels: vec!["self-hosted".into(), "ci".into()],
            wanted: Wanted {
                idle: 1,
                spare: 1,
                max: 8,
                ..Wanted::default()
            },
            phases: [PhaseKind::Busy, PhaseKind::Idle, PhaseKind::Booting]
                .map(|phase| (phase, 1))
                .into(),
            failed: 2,
            runners: vec![
                RunnerStatus {
                    job: Some(JobStatus {
                        note: JobNote {
                            repository: "acme/widgets".into(),
                            workflow: "CI".into(),
                            job: "test (ubuntu, stable)".into(),
                            run_id: "17204512345".into(),
                        },
                        running_ms: 61_000,
                        timeout_ms: Some(21_600_000),
                    }),
                    ..runner("ci-1", PhaseKind::Busy, 61_000, 3_700_000)
                },
                RunnerStatus {
                    runner: Some("runner-01-ci-2-0a1b2c3d".into()),
                    ..runner("ci-2", PhaseKind::Idle, 200_000, 212_000)
                },
                runner("ci-3", PhaseKind::Booting, 400, 400),
            ],
            ..PoolStatus::default()
        };
        let fuzz = PoolStatus {
            name: "fuzz".into(),
            labels: vec!["self-hosted".into(), "fuzz".into()],
            wanted: Wanted {
                idle: 1,
                spare: 0,
                max: 2,
                ..Wanted::default()
            },
            phases: [(PhaseKind::Retiring, 1)].into(),
            backoffs: vec![BackoffStatus {
                failure: FailureKind::Forbidden,
                failures: 2,
                retry_in_ms: 35_000,
                reason: "GitHub answered 403".into(),
            }],
            runners: vec![RunnerStatus {
                cause: Some(Cause::IdleAged),
                ..runner("fuzz-1", PhaseKind::Retiring, 1_000, 86_400_000)
            }],
            ..PoolStatus::default()
        };
        Status {
            host: "runner-01".into(),
            scope: "acme/widgets".into(),
            state: DaemonState::Running,
            at_unix_ms: 1_000_000,
            github: GitHubStatus {
                last_ok_unix_ms: Some(998_000),
                ..GitHubStatus::default()
            },
            notes: vec!["this kernel has no Landlock".into()],
            strays: vec!["runner-01-ci-4-0000dead".into()],
            pools: vec![ci, fuzz],
            recent: vec![
                ended(
                    "ci-4",
                    Verdict::JobDone,
                    Some(332_000),
                    Some("status 100"),
                    Some(3 << 29),
                ),
                ended("fuzz-2", Verdict::RegistrationTimeout, None, None, None),
            ],
            ..Status::default()
        }
    }

    #[test]
    fn a_busy_host_reads_like_this() {
        let wanted = "\
runner-01 at acme/widgets: running, NOT healthy
  ! pool fuzz has no runner ready for a job: GitHub answered 403
  ! pool fuzz: GitHub refused permission twice, next try in 35 s; run `runner-controller docs credentials-refused`
  GitHub answered 2.0 s ago
  note: this kernel has no Landlock
  deleting runner runner-01-ci-4-0000dead, which has no container

POOL  IDLE  SPARE  BUSY  STARTING  ENDING  ALL  FAILED  LABELS
ci     1/1    0/1     1         1       0  3/8       2  self-hosted, ci
fuzz   0/1    0/0     0         0       1  1/2       0  self-hosted, fuzz

RUNNER  STATE     FOR       AGE       JOB OR NAME
ci-1    busy      1 m 1 s   1 h 1 m   acme/widgets: CI / test (ubuntu, stable)
                                      https://github.com/acme/widgets/actions/runs/17204512345
ci-2    idle      3 m 20 s  3 m 32 s  runner-01-ci-2-0a1b2c3d
ci-3    booting   0.4 s     0.4 s
fuzz-1  retiring  1.0 s     1 d       ends with idle_aged

ENDED   VERDICT               AGO       JOB                  MEMORY   EXIT
ci-4    job_done              1 m 12 s  succeeded, 5 m 32 s  1.5 GiB
fuzz-2  registration_timeout  1 m 12 s  no job                        no record
  fuzz-2, registration_timeout 1 m 12 s ago: run `runner-controller doctor`, which tries the runners' network
";
        assert_eq!(render(&busy_host(), false), wanted);
    }

    #[test]
    fn several_scopes_are_a_table() {
        let mut status = busy_host();
        let scope = |name: &str, scope: &str, github: GitHubStatus| ScopeStatus {
            name: Some(name.into()),
            scope: scope.into(),
            github,
            ..ScopeStatus::default()
        };
        let good = GitHubStatus {
            listed: Some(12),
            calls: [("list runners".into(), [("ok".into(), 7)].into())].into(),
            ..status.github.clone()
        };
        let refused = GitHubStatus {
            error: Some("401".into()),
            server_url: Some("https://ghe.example".into()),
            ..GitHubStatus::default()
        };
        status.scope = "acme/widgets, umbrella".into();
        status.scopes = vec![
            scope("widgets", "acme/widgets", good),
            scope("umbrella", "umbrella", refused),
        ];
        status.pools[0].scope = Some("umbrella".into());
        status.pools[1].scope = Some("widgets".into());
        let text = render(&status, false);
        for wanted in [
            "runner-01 at acme/widgets, umbrella: running, NOT healthy\n",
            "  ! GitHub (scope umbrella): 401\n",
            "
SCOPE     AT            GITHUB              LISTED  PACE  ORPHANS  CALLS
widgets   acme/widgets  answered 2.0 s ago      12              0      7
umbrella  umbrella      fails                                   0      0
",
            "self-hosted, ci    umbrella\n",
            "https://ghe.example/acme/widgets/actions/runs/17204512345",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }

    #[test]
    fn every_failure_that_delays_a_pool_is_a_sentence() {
        let sentences: Vec<String> = FailureKind::ALL
            .iter()
            .map(|failure| {
                let mut status = busy_host();
                status.pools[1].backoffs[0].failure = *failure;
                status.pools[1].backoffs[0].failures = 6;
                let text = render(&status, false);
                let line = text.lines().find(|line| line.contains("next try in"));
                let (sentence, _) = line.unwrap().split_once(", next try").unwrap();
                sentence.trim_start_matches("  ! pool fuzz: ").to_owned()
            })
            .collect();
        assert_eq!(
            sentences,
            [
                "a container failed to boot 6 times",
                "a registration failed 6 times",
                "GitHub refused the credentials 6 times",
                "GitHub refused permission 6 times",
                "GitHub did not find the scope or the runner group 6 times",
                "GitHub refused the request 6 times",
                "GitHub limited the rate 6 times",
                "a registered runner ended without a job 6 times",
                "GitHub refused the version of a runner 6 times",
            ]
        );
    }

    #[test]
    fn a_job_of_another_server_has_that_servers_url() {
        let mut status = busy_host();
        status.github.server_url = Some("https://acme.ghe.com".into());
        let text = render(&status, false);
        let url = "https://acme.ghe.com/acme/widgets/actions/runs/17204512345";
        assert!(text.contains(url), "{text}");
        assert!(!text.contains("github.com"), "{text}");
    }

    #[test]
    fn every_line_without_a_url_or_a_reason_fits_80_columns() {
        for line in render(&busy_host(), false).lines() {
            let is_free = line.contains("https://") || line.starts_with("  ");
            assert!(line.len() <= 80 || is_free, "{line}");
        }
    }

    #[test]
    fn a_host_without_pools_is_a_few_lines() {
        let status = Status {
            host: "box".into(),
            scope: "acme".into(),
            state: DaemonState::Drained,
            closed: vec!["draining, until `runner-controller undrain`".into()],
            ..Status::default()
        };
        assert_eq!(
            render(&status, false),
            "box at acme: drained, healthy\n  \
             no new runners: draining, until `runner-controller undrain`\n  \
             GitHub has not answered yet\n"
        );
    }
}
