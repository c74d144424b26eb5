//! Runner groups of an organisation: names in our configuration, ids at GitHub.

use http::Method;
use serde::Deserialize;

use super::client::Request;
use super::operation::Operation;
use super::{GitHub, link, parse};
use crate::world::{RegistryError, RegistryErrorKind};

/// Pages of 100. An organisation has few groups; a server that never ends its list is cut off.
const MAX_PAGES: usize = 50;

/// What is remembered of the groups. Ids do not change, groups may be made anew.
#[derive(Default)]
pub(super) struct Groups(Option<Vec<Group>>);

#[derive(Deserialize)]
pub(super) struct Group {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) runner_groups: Vec<Group>,
}

impl Groups {
    /// Asks again next time.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// The id of a group. A name that is not known is looked up anew each time, since somebody may
    /// just have made the group.
    pub(super) async fn id(&mut self, github: &GitHub, name: &str) -> Result<u64, RegistryError> {
        if let Some(id) = self.0.as_deref().and_then(|groups| find(groups, name)) {
            return Ok(id);
        }
        let groups = fetch(github).await?;
        let found = find(&groups, name);
        let groups = self.0.insert(groups);
        found.ok_or_else(|| missing(github, groups, name))
    }
}

pub(super) fn find(groups: &[Group], name: &str) -> Option<u64> {
    let exact = groups.iter().find(|group| group.name == name);
    // GitHub shows "Default", people write "default".
    let alike = || {
        groups
            .iter()
            .find(|group| group.name.eq_ignore_ascii_case(name))
    };
    exact.or_else(alike).map(|group| group.id)
}

fn missing(github: &GitHub, groups: &[Group], name: &str) -> RegistryError {
    let message = format!("there is no runner group named {name:?}");
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    RegistryError {
        advice: Some(github.client.clean(&format!(
            "make the group in the organisation's settings, or set runner_group to one that the token may see: {}",
            names.join(", ")
        ))),
        ..github
            .client
            .error(Operation::Groups, RegistryErrorKind::NotFound, &message)
    }
}

async fn fetch(github: &GitHub) -> Result<Vec<Group>, RegistryError> {
    let client = &github.client;
    let mut url = github.url(&["runner-groups"]);
    url.set_query(Some("per_page=100"));
    let mut groups = Vec::new();
    for _ in 0..MAX_PAGES {
        let answer = client
            .send(Request {
                operation: Operation::Groups,
                method: Method::GET,
                url: url.clone(),
                body: None,
                etag: None,
            })
            .await?;
        let page: Page = parse(client, Operation::Groups, &answer)?;
        groups.extend(page.runner_groups);
        let Some(target) = link::next(&answer.headers) else {
            return Ok(groups);
        };
        url = link::resolve(&url, &target).map_err(|_| {
            let what = "the next page of groups is on another server";
            client.misshapen(Operation::Groups, &answer, what)
        })?;
    }
    let what = format!("the list has more than {MAX_PAGES} pages");
    Err(client.error(Operation::Groups, RegistryErrorKind::Server, &what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_exact_name_comes_first() {
        let group = |id, name: &str| Group {
            id,
            name: name.to_owned(),
        };
        let groups = [group(1, "Default"), group(2, "CI"), group(3, "ci")];
        assert_eq!(find(&groups, "default"), Some(1));
        assert_eq!(find(&groups, "ci"), Some(3));
        assert_eq!(find(&groups, "Ci"), Some(2));
        assert_eq!(find(&groups, "c"), None);
    }
}
