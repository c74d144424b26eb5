//! `explain`: one runner from its start to its verdict, with the journal's lines about it.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use strum::VariantArray;

use super::common::{api_socket, block_on};
use super::history::date;
use super::{journal, kept_logs};
use crate::config::ByteSize;
use crate::http::client;
use crate::pool::{ResourceUse, SlotId};
use crate::status::{
    Gate, HistoryQuery, PhaseEntry, PhaseKind, RunnerStatus, Status, VerdictRecord,
};
use crate::terminal;
use crate::view::span;
use crate::world::Invocation;

/// Maximum number of runners that a workflow run is explained with. Each job of it had one.
const MAX_RUNNERS: u32 = 20;

/// Runner to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The runner that is in a slot, or else the last one that was.
    Slot(SlotId),
    /// The runner with a name at GitHub.
    Runner(String),
    /// The runners that had the jobs of a workflow run.
    Run {
        /// `owner/name` of the repository.
        repository: String,
        /// Id of the run.
        run_id: String,
    },
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(url) = url::Url::parse(text) {
            let parts: Vec<&str> = url.path_segments().into_iter().flatten().collect();
            return match parts.as_slice() {
                [owner, name, "actions", "runs", run_id, ..] => Ok(Self::Run {
                    repository: format!("{owner}/{name}"),
                    run_id: (*run_id).to_owned(),
                }),
                _ => Err(
                    "not the URL of a job, such as https://github.com/OWNER/NAME/actions/runs/ID"
                        .into(),
                ),
            };
        }
        if let Ok(slot) = text.parse() {
            return Ok(Self::Slot(slot));
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_name) {
            return Ok(Self::Runner(text.to_owned()));
        }
        Err("not a slot (`ci-3`), the name of a runner, or the URL of a job".into())
    }
}

/// Prints the story of each runner that the subject names.
pub fn explain(config: &Path, subject: &Subject, journal: bool) -> anyhow::Result<()> {
    for (index, story) in stories(config, subject)?.iter().enumerate() {
        if index > 0 {
            stdio::print("\n")?;
        }
        stdio::print(&story.text)?;
        if kept_logs::of(story.invocation.as_ref())?.is_some() {
            let name = story.name.clone();
            let name = name.unwrap_or_else(|| story.slot.to_string());
            stdio::print(format_args!(
                "  log files of its listener: runner-logs --kept {name}\n"
            ))?;
        }
        if journal {
            stdio::print(journal_of(story)?)?;
        }
    }
    Ok(())
}

/// Returns the story of each runner that the subject names, at least one.
pub(super) fn stories(config: &Path, subject: &Subject) -> anyhow::Result<Vec<Story>> {
    let socket = api_socket(config);
    let (status, ended) = block_on(async {
        let status = client::status(&socket).await?;
        let page = client::history(&socket, &question(subject)).await?;
        Ok::<_, client::ClientError>((status, page.runners))
    })??;
    let (status, ended) = (
        terminal::plain_document(&status)?,
        terminal::plain_document(&ended)?,
    );
    let present = status.runners().filter(|runner| is_meant(runner, subject));
    let stories: Vec<Story> = present
        .map(|runner| Story::of_present(runner, &status))
        .collect();
    let ended = ended.iter().map(|ended| Story::of_ended(ended, &status));
    let stories: Vec<Story> = match subject {
        // A runner that is there is the one that is meant.
        Subject::Slot(_) | Subject::Runner(_) => stories.into_iter().chain(ended).take(1).collect(),
        Subject::Run { .. } => stories.into_iter().chain(ended).collect(),
    };
    if stories.is_empty() {
        bail!(
            "no such runner is there or on record; `runner-controller history` lists those on record, and \
             `runner-controller doctor` checks the host"
        );
    }
    Ok(stories)
}

/// Returns the question for the runners that ended.
fn question(subject: &Subject) -> HistoryQuery {
    let mut query = HistoryQuery {
        limit: Some(1),
        ..HistoryQuery::default()
    };
    match subject {
        Subject::Slot(slot) => query.runner = Some(slot.to_string()),
        Subject::Runner(name) => query.runner = Some(name.clone()),
        Subject::Run { repository, run_id } => {
            query.repository = Some(repository.clone());
            query.run_id = Some(run_id.clone());
            query.limit = Some(MAX_RUNNERS);
        }
    }
    query
}

fn is_meant(runner: &RunnerStatus, subject: &Subject) -> bool {
    match subject {
        Subject::Slot(slot) => runner.slot == *slot,
        Subject::Runner(name) => runner.runner.as_deref() == Some(name),
        Subject::Run { repository, run_id } => runner.job.as_ref().is_some_and(|job| {
            job.note.run_id == *run_id && job.note.repository.eq_ignore_ascii_case(repository)
        }),
    }
}

/// One runner, told.
pub(super) struct Story {
    text: String,
    /// Slot of the runner.
    pub(super) slot: SlotId,
    /// Name at GitHub, if it was registered.
    name: Option<String>,
    /// systemd's id of the start, if it is known.
    pub(super) invocation: Option<Invocation>,
    /// Start, in milliseconds since 1970.
    began_unix_ms: u64,
    /// End; `None` for a runner that is there.
    ended_unix_ms: Option<u64>,
}

impl Story {
    fn of_present(runner: &RunnerStatus, status: &Status) -> Self {
        let began_unix_ms = status.at_unix_ms.saturating_sub(runner.age_ms);
        let mut text = format!(
            "{}: {}",
            title(&runner.slot, runner.runner.as_deref()),
            runner.phase
        );
        if let Some(cause) = runner.cause {
            let _ = write!(text, ", because of {cause}");
        }
        text.push('\n');
        if let Some(job) = &runner.job {
            text += &job_line(&job.note, status);
        }
        text += &phases(&runner.phases, began_unix_ms, runner.age_ms, "until now");
        for obstacle in obstacles(runner, status) {
            let _ = writeln!(text, "  ! {obstacle}");
        }
        Self {
            text,
            slot: runner.slot.clone(),
            name: runner.runner.clone(),
            invocation: runner.invocation.clone(),
            began_unix_ms,
            ended_unix_ms: None,
        }
    }

    /// Returns the arguments with which journalctl prints the lines of this runner's lifetime.
    pub(super) fn time_arguments(&self) -> Vec<String> {
        journal::of_time(self.began_unix_ms, self.ended_unix_ms)
    }

    fn of_ended(ended: &VerdictRecord, status: &Status) -> Self {
        let began_unix_ms = ended.ended_unix_ms.saturating_sub(ended.lived_ms);
        let mut text = format!(
            "{}: {}",
            title(&ended.slot, ended.runner.as_deref()),
            ended.verdict
        );
        if let Some(result) = ended.result {
            let _ = write!(text, ", job {result}");
        }
        text.push('\n');
        if let Some(note) = &ended.job {
            text += &job_line(note, status);
        }
        let exit = ended.exit.as_deref().unwrap_or("root has no record of it");
        let end = format!("then ended: {exit}");
        text += &phases(&ended.phases, began_unix_ms, ended.lived_ms, &end);
        text += &observed(ended);
        text += &cost(ended);
        if let Some(version) = ended.version {
            let _ = writeln!(text, "  its listener was version {version}");
        }
        if let Some(line) = &ended.last_line {
            let _ = writeln!(text, "  it wrote last: \"{line}\"");
        }
        if let Some(remedy) = ended.verdict.remedy(&ended.slot) {
            let _ = writeln!(text, "  next step: {remedy}");
        }
        Self {
            text,
            slot: ended.slot.clone(),
            name: ended.runner.clone(),
            invocation: ended.invocation.clone(),
            began_unix_ms,
            ended_unix_ms: Some(ended.ended_unix_ms),
        }
    }
}

fn title(slot: &SlotId, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{slot}, at GitHub {name}"),
        None => format!("{slot}, never registered"),
    }
}

fn job_line(note: &crate::status::JobNote, status: &Status) -> String {
    let server = status.github.server_url.as_deref();
    match note.run_url(server.unwrap_or("https://github.com")) {
        Some(url) => format!("  {} / {}: {url}\n", note.workflow, note.job),
        None => "  a job without a name\n".to_owned(),
    }
}

/// Returns a line for each phase: its start, its name and its duration. `end` says what followed.
fn phases(entries: &[PhaseEntry], began_unix_ms: u64, lived_ms: u64, end: &str) -> String {
    let mut text = String::new();
    if entries.is_empty() {
        let began = date(began_unix_ms);
        let _ = writeln!(
            text,
            "  {began}  started; an earlier version kept no phases"
        );
    }
    let ends = entries.iter().skip(1).map(|entry| entry.after_ms);
    for (entry, until) in entries.iter().zip(ends.chain([lived_ms])) {
        let _ = writeln!(
            text,
            "  {}  {:<11}  for {:<8}  {}",
            date(began_unix_ms + entry.after_ms),
            entry.phase.to_string(),
            span(until.saturating_sub(entry.after_ms)),
            meaning(entry.phase)
        );
    }
    let until = date(began_unix_ms + lived_ms);
    let _ = writeln!(text, "  {until}  {end}, after {}", span(lived_ms));
    text
}

/// Returns the meaning of a phase for a reader who does not know it.
fn meaning(phase: PhaseKind) -> &'static str {
    match phase {
        PhaseKind::Booting => "its container started",
        PhaseKind::Spare => "it waited to be registered",
        PhaseKind::Minting => "GitHub was asked for its JIT config",
        PhaseKind::Registering => "its listener connected to GitHub",
        PhaseKind::Idle => "it waited for a job",
        PhaseKind::Busy => "it ran its job",
        PhaseKind::Retiring => "the daemon ended it",
    }
}

/// Returns what keeps a runner that is there from its next phase.
fn obstacles(runner: &RunnerStatus, status: &Status) -> Vec<String> {
    let mut obstacles = Vec::new();
    if runner.unreachable {
        obstacles.push("GitHub lists it as offline, so it gets no job".to_owned());
    }
    if runner.address_lost {
        obstacles.push("another program took the address from its link".to_owned());
    }
    if runner.phase == PhaseKind::Spare {
        obstacles.extend(status.closed.iter().cloned());
        let pool = status.pool(runner.slot.pool.as_str());
        let scope = pool.and_then(|pool| pool.scope.as_ref());
        let gates = status.gates.iter();
        let gates = gates.filter(|gate| gate.scope.as_ref() == scope);
        obstacles.extend(gates.map(|gate| format!("{}: {}", gate.gate, gate.reason)));
    }
    obstacles
}

/// Returns the times that are no phase: those that the container showed itself.
fn observed(ended: &VerdictRecord) -> String {
    let mut text = String::new();
    for (fact, after_ms) in [
        (
            "its container asked for its JIT config",
            ended.asked_after_ms,
        ),
        (
            "its listener said that it listens",
            ended.listening_after_ms,
        ),
    ] {
        if let Some(after_ms) = after_ms {
            let _ = writeln!(text, "  {fact} {} after the start", span(after_ms));
        }
    }
    text
}

/// Returns the resources that the runner used, as far as the kernel counted them.
fn cost(ended: &VerdictRecord) -> String {
    let cpu = ended.cpu_ms.map(span);
    let cpu = cpu.map(|time| format!("{time} of processor time"));
    let memory = ended.memory_peak_bytes.map(ByteSize);
    let memory = memory.map(|size| format!("at most {size} of memory"));
    let parts: Vec<String> = [cpu, memory].into_iter().flatten().collect();
    let mut text = String::new();
    if !parts.is_empty() {
        let _ = writeln!(text, "  it used {}", parts.join(" and "));
    }
    let ResourceUse {
        layer_peak_bytes,
        received_bytes,
        sent_bytes,
    } = ended.usage;
    if let Some(bytes) = layer_peak_bytes {
        let _ = writeln!(text, "  it used at most {} of its layer", ByteSize(bytes));
    }
    if let (Some(received), Some(sent)) = (received_bytes, sent_bytes) {
        let (received, sent) = (ByteSize(received), ByteSize(sent));
        let _ = writeln!(
            text,
            "  it received {received} and sent {sent} over its link"
        );
    }
    if ended.oom_kills > 0 {
        let _ = writeln!(
            text,
            "  the kernel killed {} of its processes because memory ran out",
            ended.oom_kills
        );
    }
    text
}

/// Returns the lines of the host's journal about a runner: those of its unit, and those of the daemon about
/// its slot and about closed gates.
fn journal_of(story: &Story) -> anyhow::Result<String> {
    let output = Command::new("journalctl")
        .args(journal_arguments(story))
        .output()
        .context("cannot run journalctl")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!(
            "journalctl failed: {}",
            crate::terminal::plain(reason.trim())
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text
        .lines()
        .map(|line| format!("  {}\n", crate::terminal::plain(line)));
    Ok(format!("  journal:\n{}", lines.collect::<String>()))
}

/// Returns journalctl's arguments for the lines about a runner.
fn journal_arguments(story: &Story) -> Vec<String> {
    let unit = story.slot.unit();
    let of_runner = match &story.invocation {
        Some(invocation) => journal::of_invocation(invocation),
        None => [
            format!("_SYSTEMD_UNIT={unit}"),
            "+".into(),
            format!("UNIT={unit}"),
        ],
    };
    let mut arguments = ["--quiet", "--no-pager", "--output=short-iso"]
        .map(str::to_owned)
        .to_vec();
    arguments.extend(story.time_arguments());
    arguments.extend(of_runner);
    arguments.extend(["+".into(), format!("SLOT={}", story.slot)]);
    for gate in Gate::VARIANTS {
        arguments.extend(["+".into(), format!("GATE={gate}")]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{
        GateStatus, GitHubStatus, JobNote, JobResult, JobStatus, PoolStatus, Verdict,
    };

    fn entries(list: &[(PhaseKind, u64)]) -> Vec<PhaseEntry> {
        let entry = |(phase, after_ms): &(PhaseKind, u64)| PhaseEntry {
            phase: *phase,
            after_ms: *after_ms,
        };
        list.iter().map(entry).collect()
    }

    fn note() -> JobNote {
        JobNote {
            repository: "acme/widgets".into(),
            run_id: "17".into(),
            job: "test".into(),
            workflow: "CI".into(),
        }
    }

    #[test]
    fn a_subject_is_a_slot_a_runner_or_the_url_of_a_job() {
        let subject = |text: &str| text.parse::<Subject>();
        assert_eq!(subject("ci-3"), Ok(Subject::Slot("ci-3".parse().unwrap())));
        let name = "runner-01-ci-3-0a1b2c3d";
        assert_eq!(subject(name), Ok(Subject::Runner(name.into())));
        let run = Subject::Run {
            repository: "acme/widgets".into(),
            run_id: "17".into(),
        };
        for url in [
            "https://github.com/acme/widgets/actions/runs/17",
            "https://acme.ghe.com/acme/widgets/actions/runs/17/job/99?pr=4#step:2:1",
        ] {
            assert_eq!(subject(url), Ok(run.clone()));
        }
        for bad in [
            "",
            "--flush",
            "a b",
            "https://github.com/acme/widgets",
            "../x",
        ] {
            assert!(subject(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_ended_runner_is_told_with_its_phases_its_cost_and_the_next_step() {
        let ended = VerdictRecord {
            slot: "ci-3".parse().unwrap(),
            verdict: Verdict::Oom,
            runner: Some("runner-01-ci-3-0a1b2c3d".into()),
            runner_id: None,
            job: Some(note()),
            ended_unix_ms: 1_796_000_075_300,
            asked_after_ms: Some(280),
            listening_after_ms: Some(1_900),
            lived_ms: 75_300,
            job_ms: Some(61_000),
            exit: Some("signal KILL".into()),
            result: Some(JobResult::Interrupted),
            last_line: Some("Running job: test".into()),
            memory_peak_bytes: Some(1 << 30),
            oom_kills: 2,
            invocation: None,
            phases: entries(&[
                (PhaseKind::Booting, 0),
                (PhaseKind::Spare, 300),
                (PhaseKind::Idle, 8_300),
                (PhaseKind::Busy, 14_300),
            ]),
            cpu_ms: Some(42_000),
            usage: ResourceUse {
                layer_peak_bytes: Some(3 << 30),
                received_bytes: Some(2 << 20),
                sent_bytes: Some(4096),
            },
            generation: None,
            version: None,
        };
        let story = Story::of_ended(&ended, &Status::default());
        assert_eq!(
            story.text,
            "\
ci-3, at GitHub runner-01-ci-3-0a1b2c3d: oom, job interrupted
  CI / test: https://github.com/acme/widgets/actions/runs/17
  2026-11-30T00:53:20Z  booting      for 0.3 s     its container started
  2026-11-30T00:53:20Z  spare        for 8.0 s     it waited to be registered
  2026-11-30T00:53:28Z  idle         for 6.0 s     it waited for a job
  2026-11-30T00:53:34Z  busy         for 1 m 1 s   it ran its job
  2026-11-30T00:54:35Z  then ended: signal KILL, after 1 m 15 s
  its container asked for its JIT config 0.2 s after the start
  its listener said that it listens 1.9 s after the start
  it used 42 s of processor time and at most 1.0 GiB of memory
  it used at most 3.0 GiB of its layer
  it received 2.0 MiB and sent 4.0 KiB over its link
  the kernel killed 2 of its processes because memory ran out
  it wrote last: \"Running job: test\"
"
            .to_owned()
                + &Verdict::Oom
                    .remedy(&"ci-3".parse().unwrap())
                    .map(|r| format!("  next step: {r}\n"))
                    .unwrap_or_default()
        );
        let arguments = journal_arguments(&story).join(" ");
        let wanted = "--since=@1795999998 --until=@1796000077 _SYSTEMD_UNIT=runner-ci@3.service + \
                      UNIT=runner-ci@3.service + SLOT=ci-3 + GATE=";
        assert!(arguments.contains(wanted), "{arguments}");
    }

    #[test]
    fn a_known_invocation_is_read_and_not_its_unit() {
        let mut runner = RunnerStatus::new("ci-3".parse().unwrap(), PhaseKind::Spare);
        let id = "0123456789abcdef0123456789abcdef";
        runner.invocation = Invocation::parse(id);
        let story = Story::of_present(&runner, &Status::default());
        let arguments = journal_arguments(&story).join(" ");
        let wanted =
            format!("_SYSTEMD_INVOCATION_ID={id} + INVOCATION_ID={id} + SLOT=ci-3 + GATE=");
        assert!(arguments.contains(&wanted), "{arguments}");
        assert!(!arguments.contains("UNIT="), "{arguments}");
    }

    #[test]
    fn a_spare_that_is_not_registered_is_told_with_the_reason() {
        let mut runner = RunnerStatus::new("ci-3".parse().unwrap(), PhaseKind::Spare);
        runner.age_ms = 41_300;
        runner.phases = entries(&[(PhaseKind::Booting, 0), (PhaseKind::Spare, 300)]);
        let status = Status {
            at_unix_ms: 1_796_000_041_300,
            gates: vec![GateStatus {
                gate: Gate::Pace,
                scope: None,
                reason: "paced by GitHub's refusals".into(),
            }],
            ..Status::default()
        };
        let other = GateStatus {
            scope: Some("of-another-pool".into()),
            ..status.gates[0].clone()
        };
        let status = Status {
            gates: vec![other, status.gates[0].clone()],
            ..status
        };
        let story = Story::of_present(&runner, &status);
        assert_eq!(
            story.text,
            "\
ci-3, never registered: spare
  2026-11-30T00:53:20Z  booting      for 0.3 s     its container started
  2026-11-30T00:53:20Z  spare        for 41 s      it waited to be registered
  2026-11-30T00:54:01Z  until now, after 41 s
  ! pace: paced by GitHub's refusals
"
        );
    }

    #[test]
    fn a_job_is_told_by_the_runners_that_have_its_run() {
        let mut runner = RunnerStatus::new("ci-3".parse().unwrap(), PhaseKind::Busy);
        runner.job = Some(JobStatus {
            note: note(),
            ..JobStatus::default()
        });
        let run = |repository: &str, run_id: &str| Subject::Run {
            repository: repository.into(),
            run_id: run_id.into(),
        };
        assert!(is_meant(&runner, &run("Acme/Widgets", "17")));
        assert!(!is_meant(&runner, &run("acme/widgets", "18")));
        assert!(!is_meant(&runner, &run("acme/gadgets", "17")));
        let status = Status {
            github: GitHubStatus {
                server_url: Some("https://acme.ghe.com".into()),
                ..GitHubStatus::default()
            },
            pools: vec![PoolStatus {
                runners: vec![runner.clone()],
                ..PoolStatus::default()
            }],
            ..Status::default()
        };
        let story = Story::of_present(&runner, &status);
        assert!(
            story
                .text
                .contains("https://acme.ghe.com/acme/widgets/actions/runs/17")
        );
    }
}
