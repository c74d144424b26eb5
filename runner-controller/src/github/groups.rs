//! Runner groups of an organisation or enterprise, which have names in the configuration and ids at GitHub.

use http::Method;
use serde::Deserialize;

use super::client::Client;
use super::exchange::{Answer, Request};
use super::operation::Operation;
use super::paged::Paged;
use crate::pool::{GroupVisibility, RunnerGroup, find_group};
use crate::world::{RegistryError, RegistryErrorKind};

/// Maximum number of pages of 100. A scope has few groups, so a longer list is a server's
/// mistake.
const MAX_PAGES: usize = 50;

/// The groups as last listed. Ids do not change, but a group may be deleted and created again.
#[derive(Default)]
pub(super) struct Groups(Option<Vec<Group>>);

/// A group of the list, as far as it is used. A server that does not tell of a restriction has none.
#[derive(Deserialize)]
pub(super) struct Group {
    id: u64,
    name: String,
    #[serde(default)]
    visibility: String,
    allows_public_repositories: Option<bool>,
    inherited_allows_public_repositories: Option<bool>,
    #[serde(default)]
    restricted_to_workflows: bool,
    #[serde(default)]
    selected_workflows: Vec<String>,
}

/// The body of a page, as far as it is used.
#[derive(Deserialize)]
pub(super) struct Body {
    pub(super) runner_groups: Vec<Group>,
}

impl Groups {
    /// Forgets the groups, so that the next call asks GitHub.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    /// Returns the id of a group. Asks GitHub each time about a name that is not known, because the
    /// group may have been created meanwhile.
    pub(super) async fn id(
        &mut self,
        client: &Client,
        first: String,
        name: &str,
    ) -> Result<u64, RegistryError> {
        if let Some(id) = self.0.as_deref().and_then(|groups| find(groups, name)) {
            return Ok(id);
        }
        let groups = fetch(client, first, Operation::Groups).await?;
        let found = find(&groups, name);
        let groups = self.0.insert(groups);
        found.ok_or_else(|| missing(client, groups, name))
    }
}

pub(super) fn find(groups: &[Group], name: &str) -> Option<u64> {
    find_group(groups, name, |group| &group.name).map(|group| group.id)
}

impl From<Group> for RunnerGroup {
    fn from(group: Group) -> Self {
        let allows = [
            group.allows_public_repositories,
            group.inherited_allows_public_repositories,
        ];
        Self {
            name: group.name,
            visibility: match group.visibility.as_str() {
                "selected" => GroupVisibility::Selected,
                "private" => GroupVisibility::Private,
                _ => GroupVisibility::All,
            },
            allows_public_repositories: !allows.contains(&Some(false)),
            workflows: group
                .restricted_to_workflows
                .then_some(group.selected_workflows),
        }
    }
}

fn missing(client: &Client, groups: &[Group], name: &str) -> RegistryError {
    let context = &client.context;
    let message = format!("runner group {name:?} does not exist");
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    RegistryError {
        advice: Some(context.clean(&format!(
            "create the group in the settings of the organisation or enterprise, or set runner_group to a group that the token can see: {}",
            names.join(", ")
        ))),
        ..context.error(Operation::Groups, RegistryErrorKind::NotFound, &message)
    }
}

/// Fetches every page of groups.
pub(super) async fn fetch(
    client: &Client,
    first: String,
    operation: Operation,
) -> Result<Vec<Group>, RegistryError> {
    let mut target = first;
    let mut groups = Vec::new();
    for _ in 0..MAX_PAGES {
        let request = Request {
            operation,
            method: Method::GET,
            target,
            body: None,
        };
        let Answer { body: page, .. }: Answer<Paged<Body>> = client.call(&request).await?;
        groups.extend(page.body.runner_groups);
        let Some(next) = page.next else {
            return Ok(groups);
        };
        target = next;
    }
    let message = format!("the list has more than {MAX_PAGES} pages");
    let context = &client.context;
    Err(context.error(operation, RegistryErrorKind::Server, &message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &serde_json::Value) -> RunnerGroup {
        serde_json::from_value::<Group>(json.clone())
            .unwrap()
            .into()
    }

    #[test]
    fn a_restriction_is_read_in_githubs_words() {
        let plain = serde_json::json!({"id": 1, "name": "ci"});
        let open = RunnerGroup {
            name: "ci".into(),
            allows_public_repositories: true,
            ..RunnerGroup::default()
        };
        assert_eq!(read(&plain), open);
        let with = |key: &str, value: serde_json::Value| {
            let mut json = plain.clone();
            json[key] = value;
            read(&json)
        };
        let closed = RunnerGroup {
            allows_public_repositories: false,
            ..open.clone()
        };
        for key in [
            "allows_public_repositories",
            "inherited_allows_public_repositories",
        ] {
            assert_eq!(with(key, false.into()), closed);
            assert_eq!(with(key, true.into()), open);
        }
        for (word, visibility) in [
            ("all", GroupVisibility::All),
            ("selected", GroupVisibility::Selected),
            ("private", GroupVisibility::Private),
            ("new word", GroupVisibility::All),
        ] {
            assert_eq!(with("visibility", word.into()).visibility, visibility);
        }
        // A list alone does not restrict: GitHub keeps it while the restriction is off.
        assert_eq!(with("selected_workflows", vec!["a"].into()).workflows, None);
        assert_eq!(
            with("restricted_to_workflows", true.into()).workflows,
            Some(vec![])
        );
    }
}
