//! The status as text: problems first, then the pools, their runners and the last verdicts.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table};

use super::demand;
use crate::commands::common::span;
use crate::commands::table::{lines, table};
use crate::config::ByteSize;
use crate::http::health;
use crate::status::{
    Cause, FormerScopeStatus, GateStatus, JobResult, JobStatus, PhaseKind, PoolStatus,
    RunnerStatus, ScopeStatus, Status, VerdictRecord,
};

/// Maximum number of ended runners in the text. The document has up to 20.
const ENDED: usize = 8;

/// Returns the status as text.
pub(super) fn render(status: &Status) -> String {
    let health = health(status);
    let verdict = if health.healthy {
        "healthy"
    } else {
        "NOT healthy"
    };
    let mut text = format!(
        "{} at {}: {}, {verdict}\n",
        status.host, status.scope, status.state
    );
    for reason in &health.reasons {
        let _ = writeln!(text, "  ! {reason}");
    }
    for reason in &status.closed {
        let _ = writeln!(text, "  no new runners: {reason}");
    }
    for GateStatus {
        gate,
        scope,
        reason,
    } in &status.gates
    {
        let of = scope.as_ref().map(|scope| format!(" of {scope}"));
        let of = of.unwrap_or_default();
        let _ = writeln!(text, "  ! {gate}{of}: {reason}");
    }
    for pool in &status.pools {
        for backoff in &pool.backoffs {
            let _ = writeln!(
                text,
                "  ! pool {}: {} {}, next try in {}: {}",
                pool.name,
                backoff.failure.clause(),
                times(backoff.failures),
                span(backoff.retry_in_ms),
                backoff.reason
            );
        }
    }
    let all = status.scopes();
    if let [scope] = &*all {
        let _ = writeln!(text, "  GitHub {}", answered(scope, status.at_unix_ms));
    }
    text += &demand::lines(status);
    for note in &status.notes {
        let _ = writeln!(text, "  note: {note}");
    }
    for stray in &status.strays {
        let _ = writeln!(text, "  deleting runner {stray}, which has no container");
    }
    for runner in &status.foreign {
        let _ = writeln!(
            text,
            "  ! another host uses the name {}: {runner} is online and has no container here",
            status.host
        );
    }
    for former in &status.former {
        text += &former_scope(former);
    }
    if all.len() > 1 {
        text += &section(&scopes(&all, status));
    }
    if !status.pools.is_empty() {
        text += &section(&pools(&status.pools, all.len() > 1));
    }
    if status.pools.iter().any(|pool| !pool.runners.is_empty()) {
        text += &section(&runners(status));
    }
    if !status.recent.is_empty() {
        text += &section(&ended(status));
        text += &failures(status);
    }
    text
}

/// Returns when GitHub last answered a call for a scope.
fn answered(scope: &ScopeStatus, now_unix_ms: u64) -> String {
    scope.github.last_ok_unix_ms.map_or_else(
        || "has not answered yet".to_owned(),
        |at| format!("answered {} ago", span(now_unix_ms.saturating_sub(at))),
    )
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
        let state = match &scope.github.error {
            Some(_) => "fails".to_owned(),
            None => answered(scope, status.at_unix_ms),
        };
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
            state,
            listed.unwrap_or_default(),
            pace.unwrap_or_default(),
            scope.strays.len().to_string(),
            calls.sum::<u64>().to_string(),
        ]);
    }
    rows
}

/// Describes a scope of an earlier configuration; nothing if nothing is left in it.
fn former_scope(former: &FormerScopeStatus) -> String {
    let scope = match &former.scope {
        Some(scope) => format!("the former scope {scope}"),
        None => "a scope that is not on record".to_owned(),
    };
    let mut text = String::new();
    if let Some(error) = &former.error {
        let _ = writeln!(text, "  ! cannot remove runners in {scope}: {error}");
    }
    for runner in &former.runners {
        let _ = writeln!(text, "  {runner} is registered in {scope}");
    }
    for runner in &former.strays {
        let _ = writeln!(
            text,
            "  deleting runner {runner} in {scope}, which has no container"
        );
    }
    text
}

fn section(table: &Table) -> String {
    format!("\n{}", lines(table))
}

/// Table of the pools: runners that are there, and after a slash the configured number. With several scopes,
/// the last column is the pool's.
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
        let count = |phase| pool.count(phase);
        let starting = [
            PhaseKind::Booting,
            PhaseKind::Minting,
            PhaseKind::Registering,
        ];
        let all: u64 = pool.phases.values().sum();
        let scope = with_scope.then(|| pool.scope.clone().unwrap_or_default());
        let cells = [
            pool.name.clone(),
            format!("{}/{}", count(PhaseKind::Idle), pool.wanted.idle),
            format!("{}/{}", count(PhaseKind::Spare), pool.wanted.spare),
            count(PhaseKind::Busy).to_string(),
            starting.map(count).iter().sum::<u64>().to_string(),
            count(PhaseKind::Retiring).to_string(),
            format!("{all}/{}", pool.wanted.max),
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
        let github = status.scope_of(pool).map_or(&status.github, |s| &s.github);
        // A daemon of an earlier version does not tell its server.
        let server = github.server_url.as_deref();
        let server = server.unwrap_or("https://github.com");
        for runner in &pool.runners {
            rows.add_row([
                runner.slot.to_string(),
                state(runner),
                span(runner.phase_ms),
                span(runner.age_ms),
                occupation(runner, server),
            ]);
        }
    }
    rows
}

/// Returns the state of a runner, as this host and GitHub see it.
fn state(runner: &RunnerStatus) -> String {
    if runner.address_lost {
        format!("{}, link without address", runner.phase)
    } else if runner.unreachable {
        format!("{}, offline at GitHub", runner.phase)
    } else {
        runner.phase.to_string()
    }
}

/// Describes the job of a runner, the cause of its end, or else its name at GitHub.
fn occupation(runner: &RunnerStatus, server: &str) -> String {
    match (&runner.job, &runner.cause) {
        (Some(job), Some(cause @ Cause::JobTimeout)) => {
            let limit = job
                .timeout_ms
                .map(|limit| format!(", after {}", span(limit)));
            format!("ends with {cause}{}", limit.unwrap_or_default())
        }
        (_, Some(cause)) => format!("ends with {cause}"),
        (Some(JobStatus { note, .. }), None) if !note.run_id.is_empty() => format!(
            "{} / {}\n{}",
            note.workflow,
            note.job,
            note.run_url(server).unwrap_or_default()
        ),
        (Some(_), None) => "a job without a name".to_owned(),
        (None, None) => runner.runner.clone().unwrap_or_default(),
    }
}

/// Table of the runners that ended last.
fn ended(status: &Status) -> Table {
    let mut rows = table(["ENDED", "VERDICT", "AGO", "JOB", "MEMORY", "EXIT"]);
    let recent = &status.recent[..status.recent.len().min(ENDED)];
    for ended in recent {
        rows.add_row(ended_row(ended, status.at_unix_ms));
    }
    rows
}

fn ended_row(ended: &VerdictRecord, now_unix_ms: u64) -> [String; 6] {
    let job = match (ended.result, ended.job_ms) {
        (None, None) => "no job".to_owned(),
        (Some(result), None) => result.to_string(),
        (None, Some(job_ms)) => span(job_ms),
        (Some(result), Some(job_ms)) => format!("{result}, {}", span(job_ms)),
    };
    let memory = ended
        .memory_peak_bytes
        .map(|bytes| ByteSize(bytes).to_string());
    [
        ended.slot.to_string(),
        ended.verdict.to_string(),
        span(now_unix_ms.saturating_sub(ended.ended_unix_ms)),
        job,
        memory.unwrap_or_default(),
        ended.exit.as_deref().unwrap_or("no record").to_owned(),
    ]
}

/// Returns a line for each runner above that failed: its last line, and the advice.
fn failures(status: &Status) -> String {
    let mut text = String::new();
    let recent = &status.recent[..status.recent.len().min(ENDED)];
    for ended in recent {
        let wrote = ended.last_line.as_ref();
        let wrote = wrote.map(|line| format!("it wrote \"{line}\""));
        let remedy = ended.verdict.remedy().map(str::to_owned);
        if remedy.is_none() && !ended.result.is_some_and(JobResult::is_cut_short) {
            continue;
        }
        let notes: Vec<String> = wrote.into_iter().chain(remedy).collect();
        if !notes.is_empty() {
            let _ = writeln!(
                text,
                "  {}, {}: {}",
                ended.slot,
                ended.verdict,
                notes.join("; ")
            );
        }
    }
    text
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{
        BackoffStatus, Cause, DaemonState, FailureKind, GitHubStatus, JobNote, Verdict, Wanted,
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
            generation: None,
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
  ! pool fuzz: GitHub refused permission twice, next try in 35s: GitHub answered 403
  GitHub answered 2s ago
  note: this kernel has no Landlock
  deleting runner runner-01-ci-4-0000dead, which has no container

POOL  IDLE  SPARE  BUSY  STARTING  ENDING  ALL  FAILED  LABELS
ci     1/1    0/1     1         1       0  3/8       2  self-hosted, ci
fuzz   0/1    0/0     0         0       1  1/2       0  self-hosted, fuzz

RUNNER  STATE     FOR     AGE     JOB OR NAME
ci-1    busy      1m 1s   1h 1m   CI / test (ubuntu, stable)
                                  https://github.com/acme/widgets/actions/runs/17204512345
ci-2    idle      3m 20s  3m 32s  runner-01-ci-2-0a1b2c3d
ci-3    booting   400ms   400ms
fuzz-1  retiring  1s      1day    ends with idle_aged

ENDED   VERDICT               AGO     JOB                MEMORY   EXIT
ci-4    job_done              1m 12s  succeeded, 5m 32s  1.5 GiB  status 100
fuzz-2  registration_timeout  1m 12s  no job                      no record
  fuzz-2, registration_timeout: it wrote \"Listening for Jobs\"; \
              check that containers reach GitHub, through their network and its proxy
";
        assert_eq!(render(&busy_host()), wanted);
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
        let text = render(&status);
        for wanted in [
            "runner-01 at acme/widgets, umbrella: running, NOT healthy\n",
            "  ! GitHub (scope umbrella): 401\n",
            "
SCOPE     AT            GITHUB           LISTED  PACE  ORPHANS  CALLS
widgets   acme/widgets  answered 2s ago      12              0      7
umbrella  umbrella      fails                                0      0
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
                let text = render(&status);
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
        let text = render(&status);
        let url = "https://acme.ghe.com/acme/widgets/actions/runs/17204512345";
        assert!(text.contains(url), "{text}");
        assert!(!text.contains("github.com"), "{text}");
    }

    #[test]
    fn every_line_without_a_url_or_a_reason_fits_80_columns() {
        for line in render(&busy_host()).lines() {
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
            render(&status),
            "box at acme: drained, healthy\n  \
             no new runners: draining, until `runner-controller undrain`\n  \
             GitHub has not answered yet\n"
        );
    }
}
