//! Runner groups: whether GitHub gives the runners of a pool every job of their scope.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Maximum number of names in the text of a problem.
const SHOWN: usize = 10;

/// A runner group of an organisation or enterprise, as GitHub lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunnerGroup {
    /// Its name.
    pub name: String,
    /// Repositories, or organisations of an enterprise, that may use it.
    pub visibility: GroupVisibility,
    /// False if the group, or the enterprise that shares it, forbids public repositories.
    pub allows_public_repositories: bool,
    /// Workflows that alone may use it; `None` if all may.
    pub workflows: Option<Vec<String>>,
}

/// Repositories, or organisations of an enterprise, that may use a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupVisibility {
    /// All, or a value that this version does not know.
    #[default]
    All,
    /// Selected ones.
    Selected,
    /// Private repositories.
    Private,
}

/// Owner of runner groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupOwner {
    /// An organisation, whose groups select repositories.
    Organization,
    /// An enterprise, whose groups select organisations.
    Enterprise,
}

/// Problem of a pool with its runner group.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "problem")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupProblem {
    /// The group does not exist, so no runner of the pool registers.
    Missing {
        /// Groups that exist, at most [`SHOWN`].
        seen: Vec<String>,
    },
    /// The group gives no job of a public repository to its runners.
    NoPublicRepositories,
    /// The group takes jobs of selected repositories alone.
    SelectedRepositories,
    /// The group takes jobs of private repositories alone.
    PrivateRepositories,
    /// The group takes jobs of selected organisations alone.
    SelectedOrganizations,
    /// The group takes jobs of selected workflows alone.
    SelectedWorkflows {
        /// The workflows, at most [`SHOWN`].
        workflows: Vec<String>,
    },
}

impl GroupProblem {
    /// Returns true if the pool cannot register a runner. Otherwise some jobs wait, which may be intended.
    #[must_use]
    pub fn stops_the_pool(&self) -> bool {
        match self {
            Self::Missing { .. } => true,
            Self::NoPublicRepositories
            | Self::SelectedRepositories
            | Self::PrivateRepositories
            | Self::SelectedOrganizations
            | Self::SelectedWorkflows { .. } => false,
        }
    }
}

impl fmt::Display for GroupProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { seen } => write!(
                f,
                "does not exist; create it in the settings of the organisation or enterprise, or set \
                 runner_group to a group that the token can see: {}",
                list(seen)
            ),
            Self::NoPublicRepositories => f.write_str(
                "does not allow public repositories, so their jobs never come to this pool; \
                 allow them in the settings of the group, unless this is intended",
            ),
            Self::SelectedRepositories => f.write_str(
                "is for selected repositories, so jobs of others never come to this pool; \
                 select each repository that needs it",
            ),
            Self::PrivateRepositories => f.write_str(
                "is for private repositories, so jobs of others never come to this pool",
            ),
            Self::SelectedOrganizations => f.write_str(
                "is for selected organisations, so jobs of others never come to this pool; \
                 select each organisation that needs it",
            ),
            Self::SelectedWorkflows { workflows } => write!(
                f,
                "is for selected workflows, so jobs of others never come to this pool: {}",
                list(workflows)
            ),
        }
    }
}

/// Joins names that come from GitHub. Quotes escape what a terminal would obey.
fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    quoted.join(", ")
}

/// Finds the group with this name. An exact name takes precedence over one in another case, because GitHub shows
/// "Default", and configurations say "default".
pub fn find_group<'g, T>(
    groups: &'g [T],
    name: &str,
    name_of: impl Fn(&T) -> &str,
) -> Option<&'g T> {
    let exact = groups.iter().find(|group| name_of(group) == name);
    let alike = || {
        groups
            .iter()
            .find(|group| name_of(group).eq_ignore_ascii_case(name))
    };
    exact.or_else(alike)
}

/// Returns the problems of a pool whose runners register in the group `name`.
#[must_use]
pub fn group_problems(groups: &[RunnerGroup], name: &str, owner: GroupOwner) -> Vec<GroupProblem> {
    let Some(group) = find_group(groups, name, |group| &group.name) else {
        let seen = groups.iter().take(SHOWN).map(|group| group.name.clone());
        return vec![GroupProblem::Missing {
            seen: seen.collect(),
        }];
    };
    let mut problems = Vec::new();
    match (group.visibility, owner) {
        (GroupVisibility::All, _) => {}
        (GroupVisibility::Selected, GroupOwner::Organization) => {
            problems.push(GroupProblem::SelectedRepositories);
        }
        (GroupVisibility::Selected, GroupOwner::Enterprise) => {
            problems.push(GroupProblem::SelectedOrganizations);
        }
        (GroupVisibility::Private, _) => problems.push(GroupProblem::PrivateRepositories),
    }
    // "Private" says it already.
    if !group.allows_public_repositories && group.visibility != GroupVisibility::Private {
        problems.push(GroupProblem::NoPublicRepositories);
    }
    if let Some(workflows) = &group.workflows {
        problems.push(GroupProblem::SelectedWorkflows {
            workflows: workflows.iter().take(SHOWN).cloned().collect(),
        });
    }
    problems
}

#[cfg(test)]
mod tests;
