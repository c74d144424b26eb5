//! The facts in a runner's detail. Pure.

use super::model::Model;
use crate::status::{PhaseEntry, RunnerStatus, Status, VerdictRecord};
use crate::view::{Ended, Notice, Occupation, Weight, failure, server, span, state};

/// Returns the facts about the runner that the detail shows.
pub(super) fn facts(model: &Model) -> Vec<Notice> {
    let Some(status) = &model.status else {
        return Vec::new();
    };
    match model.found() {
        (Some(runner), _) => of_runner(runner, status),
        (None, Some(ended)) => of_ended(ended, status),
        (None, None) => {
            let slot = model
                .detail
                .as_ref()
                .map(|detail| detail.subject.slot.to_string());
            let slot = slot.unwrap_or_default();
            vec![fact(format!(
                "{slot}: this runner has ended; `runner-controller explain {slot}` tells more"
            ))]
        }
    }
}

fn fact(text: String) -> Notice {
    let weight = Weight::Fact;
    Notice { weight, text }
}

fn problem(text: &str) -> Notice {
    Notice {
        weight: Weight::Problem,
        text: text.to_owned(),
    }
}

fn of_runner(runner: &RunnerStatus, status: &Status) -> Vec<Notice> {
    let mut facts = vec![fact(format!(
        "{}: {} for {}, {} old, unit {}",
        runner.slot,
        state(runner),
        span(runner.phase_ms),
        span(runner.age_ms),
        runner.unit
    ))];
    if runner.unreachable {
        facts.push(problem("GitHub lists it as offline, so no job reaches it"));
    }
    if runner.address_lost {
        facts.push(problem("another program took the address from its link"));
    }
    if let Some(name) = &runner.runner {
        let id = runner.runner_id.map(|id| format!(", id {id}"));
        let version = runner.version.map(|version| format!(", version {version}"));
        let (id, version) = (id.unwrap_or_default(), version.unwrap_or_default());
        facts.push(fact(format!("at GitHub {name}{id}{version}")));
    }
    if let Some(job) = &runner.job {
        let pool = status.pool(runner.slot.pool.as_str());
        let server = pool.map_or("https://github.com", |pool| server(status, pool));
        let limit = job
            .timeout_ms
            .map(|limit| format!(", at most {}", span(limit)));
        let limit = limit.unwrap_or_default();
        let Occupation { text, url } = Occupation::of(runner, server);
        facts.push(fact(format!(
            "job for {}{limit}: {text}",
            span(job.running_ms)
        )));
        facts.extend(url.map(fact));
    } else if let Some(cause) = &runner.cause {
        facts.push(fact(format!("ends with {cause}")));
    }
    facts.extend(phases(&runner.phases));
    facts
}

fn of_ended(ended: &VerdictRecord, status: &Status) -> Vec<Notice> {
    let cells = Ended::of(ended, status.at_unix_ms);
    let mut facts = vec![fact(format!(
        "{}: {} {} ago after {}, {}",
        cells.slot,
        cells.verdict,
        cells.ago,
        span(ended.lived_ms),
        cells.exit
    ))];
    if let Some(failure) = failure(ended) {
        facts.push(problem(&failure));
    }
    if let Some(name) = &ended.runner {
        let version = ended.version.map(|version| format!(", version {version}"));
        facts.push(fact(format!(
            "at GitHub {name}{}",
            version.unwrap_or_default()
        )));
    }
    if let Some(note) = &ended.job {
        let name = format!("{}: {} / {}", note.repository, note.workflow, note.job);
        facts.push(fact(format!("job {}: {name}", cells.job)));
    }
    if !cells.memory.is_empty() {
        facts.push(fact(format!("at most {} of memory", cells.memory)));
    }
    facts.extend(phases(&ended.phases));
    facts
}

/// Returns a line with the phases, each with the time from the runner's start.
fn phases(phases: &[PhaseEntry]) -> Option<Notice> {
    let phases = phases.iter();
    let phases = phases.map(|entry| format!("{} at {}", entry.phase, span(entry.after_ms)));
    let text = phases.collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then(|| fact(format!("phases: {text}")))
}
