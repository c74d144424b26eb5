//! Runner groups of an organisation or enterprise, which have names in the configuration and ids at GitHub.

use http::Method;
use serde::Deserialize;

use super::client::Client;
use super::exchange::{Answer, Request};
use super::operation::Operation;
use super::paged::Paged;
use crate::world::{RegistryError, RegistryErrorKind};

/// Maximum number of pages of 100. A scope has few groups, so a longer list is a server's
/// mistake.
const MAX_PAGES: usize = 50;

/// The groups as last listed. Ids do not change, but a group may be deleted and created again.
#[derive(Default)]
pub(super) struct Groups(Option<Vec<Group>>);

#[derive(Deserialize)]
pub(super) struct Group {
    id: u64,
    name: String,
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
        let groups = fetch(client, first).await?;
        let found = find(&groups, name);
        let groups = self.0.insert(groups);
        found.ok_or_else(|| missing(client, groups, name))
    }
}

pub(super) fn find(groups: &[Group], name: &str) -> Option<u64> {
    let exact = groups.iter().find(|group| group.name == name);
    // GitHub shows "Default", and configurations say "default".
    let alike = || {
        groups
            .iter()
            .find(|group| group.name.eq_ignore_ascii_case(name))
    };
    exact.or_else(alike).map(|group| group.id)
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

async fn fetch(client: &Client, first: String) -> Result<Vec<Group>, RegistryError> {
    let mut target = first;
    let mut groups = Vec::new();
    for _ in 0..MAX_PAGES {
        let request = Request {
            operation: Operation::Groups,
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
    Err(context.error(Operation::Groups, RegistryErrorKind::Server, &message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_group_name_takes_precedence() {
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
