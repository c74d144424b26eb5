//! A check of the parser of deliveries for [`crate::outside`].

#![expect(clippy::expect_used, reason = "a panic is how a check fails")]

use super::delivery::{Delivery, read};
use crate::pool::{KnownJob, ScopeId};
use crate::terminal;
use crate::workflow_job::{MAX_LABELS, MAX_NAME, MAX_REPOSITORY};

/// Checks that a job which a delivery tells of is bounded, safe for a terminal, in a scope of the host, and read from
/// its record as it was written. The first line is the event, and the rest the body.
pub(crate) fn try_delivery(bytes: &[u8]) {
    let line = bytes.iter().position(|byte| *byte == b'\n');
    let (event, body) = bytes.split_at(line.unwrap_or(bytes.len()));
    let scopes =
        ["acme", "acme/widgets", "enterprises/big"].map(|name| ScopeId::new("https://x", name));
    let event = String::from_utf8_lossy(event);
    let Ok(Delivery::Job(job)) = read(&event, body, &scopes, 1_000) else {
        return;
    };
    assert!(scopes.contains(&job.key.scope));
    let description = job.description();
    assert!(description.repository.len() <= MAX_REPOSITORY);
    assert!(description.labels.len() <= body.len());
    let labels = description.labels.iter();
    // An escaped character has at most ten times its length.
    assert!(labels.clone().map(String::len).sum::<usize>() <= 10 * MAX_LABELS);
    let names = [
        &description.repository,
        &description.workflow,
        &description.name,
    ];
    let runner = job.runner.iter().map(|(_, name)| name);
    for text in names.into_iter().chain(labels).chain(runner) {
        assert_eq!(&terminal::plain(text), text);
        assert!(text.chars().count() <= MAX_NAME.max(MAX_REPOSITORY));
    }
    let record = serde_json::to_string(&job).expect("JSON");
    let read: KnownJob = serde_json::from_str(&record).expect("a job");
    assert_eq!(read, *job);
    assert_eq!(read.clone().merge(*job), read, "a job merges with itself");
}
