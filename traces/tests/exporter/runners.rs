//! Runners that ended.

use pool::{
    Invocation, JobNote, JobResult, PhaseEntry, PhaseKind, ResourceUse, RunnerId, Verdict,
    VerdictRecord,
};
use proptest::prelude::*;
use traces::EndedRunner;

/// Time of an end, in milliseconds since 1970.
const ENDED: u64 = 1_796_000_075_300;

/// Returns the runner with this number. It had no job.
pub(crate) fn runner(number: u64) -> EndedRunner {
    EndedRunner {
        record: VerdictRecord {
            slot: "ci-3".parse().unwrap(),
            verdict: Verdict::IdleExpired,
            runner: None,
            runner_id: None,
            job: None,
            ended_unix_ms: ENDED,
            lived_ms: 75_300,
            asked_after_ms: None,
            listening_after_ms: None,
            job_ms: None,
            exit: None,
            result: None,
            last_line: None,
            memory_peak_bytes: None,
            oom_kills: 0,
            // A number of a start, in the bytes that span ids have and in those that they lack.
            invocation: Invocation::parse(&format!("{number:016x}{number:016x}")),
            phases: Vec::new(),
            cpu_ms: None,
            usage: ResourceUse::default(),
            generation: None,
            version: None,
        },
        job_url: None,
    }
}

/// Returns a runner that passed through every phase, and whose job failed.
pub(crate) fn whole() -> EndedRunner {
    let phases = [
        (PhaseKind::Booting, 0),
        (PhaseKind::Spare, 300),
        (PhaseKind::Minting, 8_300),
        (PhaseKind::Registering, 8_500),
        (PhaseKind::Idle, 9_200),
        (PhaseKind::Busy, 14_300),
        (PhaseKind::Retiring, 75_000),
    ];
    let entry = |(phase, after_ms)| PhaseEntry { phase, after_ms };
    let mut ended = runner(7);
    ended.record = VerdictRecord {
        verdict: Verdict::JobTimeout,
        runner: Some("box-ci-3-0a1b2c3d".into()),
        runner_id: Some(RunnerId(41)),
        job: Some(JobNote {
            repository: "acme/widgets".into(),
            run_id: "17".into(),
            job: "test".into(),
            workflow: "CI".into(),
        }),
        job_ms: Some(61_000),
        exit: Some("status 102".into()),
        result: Some(JobResult::Failed),
        last_line: Some("secret-of-a-job".into()),
        memory_peak_bytes: Some(1 << 30),
        oom_kills: 2,
        phases: phases.map(entry).into(),
        cpu_ms: Some(42_000),
        usage: ResourceUse::default(),
        generation: Some("0123abcd".into()),
        version: "2.336.0".parse().ok(),
        ..ended.record
    };
    ended.job_url = Some("https://github.com/acme/widgets/actions/runs/17".into());
    ended
}

/// Runners with any times and texts, each with another start.
pub(crate) fn hostile() -> impl Strategy<Value = Vec<EndedRunner>> {
    prop::collection::vec(one(), 1..8).prop_map(|runners| {
        let numbered = runners.into_iter().zip(1..);
        let with_start = numbered.map(|(mut ended, number): (EndedRunner, u64)| {
            ended.record.invocation = runner(number).record.invocation;
            ended
        });
        with_start.collect()
    })
}

fn one() -> impl Strategy<Value = EndedRunner> {
    let text = || prop_oneof![any::<String>(), "[a-z\u{1b}\u{1f600}]{0,2000}"];
    let texts = (text(), text(), text(), text(), prop::option::of(text()));
    let phase = prop::sample::select(PhaseKind::ALL);
    let phases = prop::collection::vec((phase, any::<u64>()), 0..40);
    let times = (any::<u64>(), 1..u64::MAX, prop::option::of(any::<u64>()));
    let ends = (
        prop::sample::select(Verdict::ALL),
        prop::option::of(prop::sample::select(JobResult::ALL)),
    );
    (texts, phases, times, ends).prop_map(|(texts, phases, times, (verdict, result))| {
        let (repository, run_id, job, workflow, other) = texts;
        let (lived_ms, ended_unix_ms, job_ms) = times;
        let entry = |(phase, after_ms)| PhaseEntry { phase, after_ms };
        let mut ended = runner(1);
        ended.record = VerdictRecord {
            verdict,
            result,
            job: Some(JobNote {
                repository,
                run_id,
                job,
                workflow,
            }),
            lived_ms: lived_ms.min(ended_unix_ms - 1),
            ended_unix_ms,
            job_ms,
            runner: other.clone(),
            exit: other.clone(),
            generation: other.clone(),
            phases: phases.into_iter().map(entry).collect(),
            ..ended.record
        };
        ended.job_url = other;
        ended
    })
}
