//! Identity of a GitHub scope.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A repository, organisation or enterprise at one API: the API's base URL, a space and the scope.
///
/// GitHub gives ids of runners for each server anew, so an id means nothing without its scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeId(String);

impl ScopeId {
    /// Returns the identity of `scope` (`owner/repo`, an organisation or `enterprises/name`) at an API.
    ///
    /// It is in lower case, because GitHub ignores the case of these names.
    #[must_use]
    pub fn new(api_url: &str, scope: &str) -> Self {
        let api_url = api_url.trim_end_matches('/');
        Self(format!("{api_url} {scope}").to_ascii_lowercase())
    }

    /// Parses an identity from a record; `None` if the text has no two parts.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (api_url, scope) = text.split_once(' ')?;
        let is_whole = !api_url.is_empty() && !scope.is_empty() && !scope.contains(' ');
        is_whole.then(|| Self::new(api_url, scope))
    }

    /// Returns the API's base URL and the scope.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once(' ').unwrap_or(("", &self.0))
    }

    /// Returns true if the jobs of a repository (`owner/repo`) are jobs of this scope. `enterprise` is the name of
    /// the enterprise that owns the repository's organisation, if it is known.
    #[must_use]
    pub fn covers(&self, repository: &str, enterprise: Option<&str>) -> bool {
        let (_, scope) = self.parts();
        let owner = repository.split_once('/').map(|(owner, _)| owner);
        match scope.strip_prefix("enterprises/") {
            Some(own) => enterprise.is_some_and(|slug| own.eq_ignore_ascii_case(slug)),
            None => [Some(repository), owner]
                .into_iter()
                .flatten()
                .any(|name| scope.eq_ignore_ascii_case(name)),
        }
    }

    /// Returns the identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScopeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (api_url, scope) = self.parts();
        write!(f, "{scope} at {api_url}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_case_of_a_scope_and_a_final_slash_make_no_difference() {
        let one = ScopeId::new("https://api.github.com/", "Acme/Widgets");
        assert_eq!(one, ScopeId::new("https://api.github.com", "acme/widgets"));
        assert_ne!(
            one,
            ScopeId::new("https://ghes.example/api/v3", "acme/widgets")
        );
        assert_ne!(one, ScopeId::new("https://api.github.com", "acme"));
        assert_eq!(one.to_string(), "acme/widgets at https://api.github.com");
    }

    #[test]
    fn a_scope_covers_its_own_repositories_alone() {
        let of = |scope: &str| ScopeId::new("https://api.github.com", scope);
        for (scope, repository, enterprise, covers) in [
            ("acme/widgets", "Acme/Widgets", None, true),
            ("acme/widgets", "acme/widgets2", None, false),
            ("acme/widgets", "acme", None, false),
            ("acme", "acme/other", None, true),
            ("acme", "acme2/other", None, false),
            ("acme", "other/acme", None, false),
            ("enterprises/big", "acme/other", Some("BIG"), true),
            ("enterprises/big", "acme/other", Some("small"), false),
            ("enterprises/big", "enterprises/big", None, false),
        ] {
            let found = of(scope).covers(repository, enterprise);
            assert_eq!(found, covers, "{scope} {repository}");
        }
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let scope = ScopeId::new("https://api.github.com", "acme");
        assert_eq!(ScopeId::parse(scope.as_str()), Some(scope));
        for text in ["", "acme", " acme", "https://api.github.com ", "a b c"] {
            assert_eq!(ScopeId::parse(text), None, "{text:?}");
        }
    }
}
