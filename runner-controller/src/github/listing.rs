//! The list of runners: all pages, each remembered with its `ETag`.

use std::collections::BTreeMap;

use http::header::{ETAG, LINK};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::client::{Answer, Client, Request};
use super::operation::Operation;
use super::{link, parse};
use crate::world::{ListedRunner, RegistryError, RegistryErrorKind, RunnerId};

/// Pages of 100: twice what a runner group holds. A list that is longer is refused and not cut,
/// since a runner that is missing from a list is taken for gone.
const MAX_PAGES: usize = 200;

/// Pages as they were last answered, by address.
#[derive(Default)]
pub(super) struct Pages(BTreeMap<Url, Page>);

struct Page {
    etag: Option<HeaderValue>,
    runners: Vec<ListedRunner>,
    next: Option<Url>,
}

#[derive(Deserialize)]
pub(super) struct Body {
    pub(super) runners: Vec<Runner>,
}

#[derive(Deserialize)]
pub(super) struct Runner {
    id: u64,
    name: String,
    status: String,
    busy: bool,
}

impl Pages {
    /// Fetches every page, in order of id, each runner once. Cancelling keeps the pages that were
    /// answered.
    pub(super) async fn fetch(
        &mut self,
        client: &Client,
        first: Url,
    ) -> Result<Vec<ListedRunner>, RegistryError> {
        let mut visited: Vec<Url> = Vec::new();
        let mut next = Some(first);
        while let Some(url) = next {
            if visited.len() >= MAX_PAGES || visited.contains(&url) {
                let what = "the list of runners never ends";
                return Err(client.error(Operation::List, RegistryErrorKind::Server, what));
            }
            next = self.fetch_page(client, &url).await?;
            visited.push(url);
        }
        self.0.retain(|url, _| visited.contains(url));

        // A runner may move from one page to the next between two calls, and is then seen twice;
        // the later page tells the newer state.
        let mut runners = BTreeMap::new();
        for page in visited.iter().filter_map(|url| self.0.get(url)) {
            runners.extend(
                page.runners
                    .iter()
                    .map(|runner| (runner.id, runner.clone())),
            );
        }
        Ok(runners.into_values().collect())
    }

    /// Brings one page up to date and returns the address of the one after it.
    async fn fetch_page(
        &mut self,
        client: &Client,
        url: &Url,
    ) -> Result<Option<Url>, RegistryError> {
        let etag = self.0.get(url).and_then(|page| page.etag.clone());
        let answer = client
            .send(Request {
                operation: Operation::List,
                method: Method::GET,
                url: url.clone(),
                body: None,
                etag,
            })
            .await?;
        if answer.status == StatusCode::NOT_MODIFIED
            && let Some(page) = self.0.get_mut(url)
        {
            // A 304 may tell of a page that was added behind this one.
            if answer.headers.contains_key(LINK) {
                page.next = next_of(client, url, &answer)?;
            }
            return Ok(page.next.clone());
        }
        let page = read(client, url, &answer)?;
        let next = page.next.clone();
        self.0.insert(url.clone(), page);
        Ok(next)
    }
}

fn read(client: &Client, url: &Url, answer: &Answer) -> Result<Page, RegistryError> {
    let body: Body = parse(client, Operation::List, answer)?;
    Ok(Page {
        etag: answer.headers.get(ETAG).cloned(),
        runners: body.runners.into_iter().map(Runner::into).collect(),
        next: next_of(client, url, answer)?,
    })
}

fn next_of(client: &Client, url: &Url, answer: &Answer) -> Result<Option<Url>, RegistryError> {
    let Some(target) = link::next(&answer.headers) else {
        return Ok(None);
    };
    let next = link::resolve(url, &target);
    next.map(Some).map_err(|_| {
        let what = "the next page of runners is on another server";
        client.misshapen(Operation::List, answer, what)
    })
}

impl From<Runner> for ListedRunner {
    fn from(runner: Runner) -> Self {
        Self {
            id: RunnerId(runner.id),
            name: runner.name,
            online: runner.status == "online",
            busy: runner.busy,
        }
    }
}
