//! The list of runners: all pages, each remembered for as long as GitHub confirms it.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde::Deserialize;

use super::client::Client;
use super::exchange::{Answer, Request};
use super::operation::Operation;
use super::paged::Paged;
use crate::world::{ListedRunner, RegistryError, RegistryErrorKind, RunnerId};

/// Maximum number of pages of 100, which is twice what a runner group holds. A longer list is refused
/// and not cut, because a runner that is missing from a list counts as gone.
const MAX_PAGES: usize = 200;

/// The body of a page, as far as it is used.
#[derive(Deserialize)]
pub(super) struct Body {
    pub(super) runners: Vec<Runner>,
}

/// A runner of the list, as far as it is used. octocrab's `SelfHostedRunner` requires an id of every
/// label, which is optional in GitHub's schema (octocrab 0.54.9, src/models/actions.rs:19).
#[derive(Deserialize)]
pub(super) struct Runner {
    id: u64,
    name: String,
    status: String,
    busy: bool,
    version: Option<String>,
    #[serde(default)]
    labels: Vec<Label>,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

/// A runner of the list with its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledRunner {
    /// The runner.
    pub runner: ListedRunner,
    /// Its labels.
    pub labels: Vec<String>,
}

impl From<Runner> for LabelledRunner {
    fn from(mut runner: Runner) -> Self {
        let labels = std::mem::take(&mut runner.labels).into_iter();
        Self {
            labels: labels.map(|label| label.name).collect(),
            runner: runner.into(),
        }
    }
}

/// Fetches every page, in order of id, each runner once. Must not run twice at once. Cancelling keeps
/// the pages that were answered.
pub(super) async fn fetch<R: From<Runner>>(
    client: &Client,
    first: String,
) -> Result<Vec<R>, RegistryError> {
    let mut visited: Vec<String> = Vec::new();
    // A runner may move from one page to the next between two calls and is then seen twice. The later
    // page has the newer state.
    let mut runners = BTreeMap::new();
    let mut next = Some(first);
    while let Some(target) = next {
        if visited.len() >= MAX_PAGES || visited.contains(&target) {
            let message = "the list of runners never ends";
            let context = &client.context;
            return Err(context.error(Operation::List, RegistryErrorKind::Server, message));
        }
        let page = fetch_page(client, &target).await?;
        let read = page.body.runners.into_iter();
        runners.extend(read.map(|runner| (runner.id, R::from(runner))));
        next = page.next;
        visited.push(target);
    }
    client
        .pages
        .retain(|uri| visited.iter().any(|target| uri == target.as_str()));
    Ok(runners.into_values().collect())
}

async fn fetch_page(client: &Client, target: &str) -> Result<Paged<Body>, RegistryError> {
    let request = Request {
        operation: Operation::List,
        method: Method::GET,
        target: target.to_owned(),
        body: None,
    };
    let answer: Result<Answer<Paged<Body>>, RegistryError> = client.call_cached(&request).await;
    let answer = answer.inspect_err(|error| {
        // A success that cannot be read: GitHub would confirm it for as long as the list stays.
        if error.status == Some(StatusCode::OK.as_u16()) {
            client.pages.retain(|uri| uri != target);
        }
    })?;
    Ok(answer.body)
}

impl From<Runner> for ListedRunner {
    fn from(runner: Runner) -> Self {
        Self {
            id: RunnerId(runner.id),
            name: runner.name,
            online: runner.status == "online",
            busy: runner.busy,
            version: runner.version.and_then(|text| text.parse().ok()),
        }
    }
}
