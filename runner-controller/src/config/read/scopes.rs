//! The scopes: `[github]`, or several `[scopes.<name>]`.

use super::github;
use super::section::Section;
use crate::config::github::{GitHubConfig, ScopeName};
use crate::config::pool::PoolConfig;

/// The scopes of a file.
pub(super) struct Scopes {
    /// Names of the `[scopes]` tables, those with mistakes included.
    names: Vec<String>,
    /// The scopes without mistakes.
    pub(super) configs: Vec<GitHubConfig>,
}

impl Scopes {
    /// Reads `[github]`, or else every table of `[scopes]`.
    pub(super) fn read(top: &mut Section<'_>) -> Self {
        let has_scopes = top.has("scopes");
        let has_github = top.has("github");
        let tables = top.sections("scopes");
        let github = top.section("github");
        if !has_scopes {
            return Self {
                names: Vec::new(),
                configs: github::github(github, None).into_iter().collect(),
            };
        }
        if has_github {
            top.wrong(
                "github",
                "the file has [scopes] as well, so its pools may be in any scope",
                "[scopes.NAME] with the keys of [github], and scope = \"NAME\" in its pools",
            );
        }
        if tables.is_empty() {
            top.wrong(
                "scopes",
                "the table has no scope",
                "a table such as [scopes.widgets] with url and token_file, or [github]",
            );
        }
        let mut scopes = Self {
            names: tables.iter().map(|(name, _)| name.clone()).collect(),
            configs: Vec::new(),
        };
        for (name, table) in tables {
            let name = match name.parse::<ScopeName>() {
                Ok(name) => Some(name),
                Err(error) => {
                    let rule = error.to_string();
                    table.wrong("(name)", rule, "a name such as [scopes.widgets]");
                    None
                }
            };
            let url = table.key("url");
            let has_name = name.is_some();
            let Some(config) = github::github(table, name).filter(|_| has_name) else {
                continue;
            };
            let is_same = |other: &&GitHubConfig| other.scope_id() == config.scope_id();
            if let Some(other) = scopes.configs.iter().find(is_same) {
                top.mistake(
                    url,
                    format!("{} is the same scope", other.key("url")),
                    "another scope, or one table for the pools of both",
                );
            }
            scopes.configs.push(config);
        }
        scopes
    }

    /// Returns the scopes that were read.
    pub(super) fn configs(&self) -> &[GitHubConfig] {
        &self.configs
    }

    /// Returns true if every table was read.
    pub(super) fn are_complete(&self) -> bool {
        !self.configs.is_empty() && self.configs.len() >= self.names.len()
    }

    /// Reads the scope of a pool. A file with one scope need not name it.
    pub(super) fn of_pool(&self, pool: &mut Section<'_>) -> Option<&GitHubConfig> {
        let choice = self.names.iter().map(|name| format!("scope = \"{name}\""));
        let choice = choice.collect::<Vec<_>>().join(" or ");
        let is_there = pool.has("scope");
        let Some(named) = pool.text("scope", "\"widgets\"") else {
            if self.names.len() > 1 {
                if !is_there {
                    pool.wrong("scope", "the file has several scopes", choice);
                }
                return None;
            }
            return self.configs.first();
        };
        if self.names.is_empty() {
            pool.wrong(
                "scope",
                "the file has [github], which is its only scope and has no name",
                "no scope here, or [scopes.NAME] in place of [github]",
            );
            return None;
        }
        if !self.names.contains(&named) {
            pool.wrong(
                "scope",
                format!("{named:?} is not a scope of this file"),
                choice,
            );
        }
        let is_named = |config: &&GitHubConfig| {
            let name = config.name.as_ref().map(ToString::to_string);
            name.as_deref() == Some(&named)
        };
        self.configs.iter().find(is_named)
    }

    /// Reports the scopes that no pool uses.
    pub(super) fn check_use(&self, top: &Section<'_>, pools: &[PoolConfig]) {
        for scope in &self.configs {
            let id = scope.scope_id();
            let Some(name) = &scope.name else { continue };
            if !pools.iter().any(|pool| pool.scope == id) {
                top.wrong(
                    &format!("scopes.{name}"),
                    "no pool uses this scope",
                    format!("scope = \"{name}\" in a pool, or no [scopes.{name}]"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, parse};

    const TWO: &str = r#"
host = "box"
[scopes.widgets]
url = "https://github.com/acme/widgets"
token_file = "/run/agenix/widgets"
[scopes.umbrella]
url = "https://ghe.example/umbrella"
app = { id = 1, key_file = "/run/agenix/umbrella" }
mints_per_minute = 600
[network]
block = "10.200.0.0/16"
resolvers = ["9.9.9.9"]
[pools.ci]
scope = "widgets"
labels = ["ci"]
max_runners = 4
image = { kind = "directory", path = "/i" }
[pools.big]
scope = "umbrella"
runner_group = "fast"
labels = ["big"]
offset = 10
max_runners = 4
image = { kind = "directory", path = "/i" }
"#;

    fn read(text: &str) -> Config {
        parse(Path::new("config.toml"), text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    fn keys(text: &str) -> Vec<String> {
        let mistakes = parse(Path::new("config.toml"), text).expect_err("the file has mistakes");
        mistakes.list.into_iter().map(|found| found.key).collect()
    }

    /// Returns the keys that are wrong after one change to a valid file.
    fn change(from: &str, to: &str) -> Vec<String> {
        assert!(TWO.contains(from), "{from}");
        keys(&TWO.replacen(from, to, 1))
    }

    #[test]
    fn each_pool_is_in_the_scope_that_it_names() {
        let config = read(TWO);
        assert_eq!(config.scope_list(), "umbrella, acme/widgets");
        for (pool, scope, credential) in [
            ("ci", "acme/widgets", "github-token-widgets"),
            ("big", "umbrella", "github-app-key-umbrella"),
        ] {
            let pool = config.pool(&pool.parse().unwrap()).unwrap();
            let found = config.scope(&pool.scope).unwrap();
            assert_eq!(found.scope.to_string(), scope);
            assert_eq!(found.login_credential(), credential);
        }
        assert_eq!(config.scopes[0].mints_per_minute, 600);
    }

    #[test]
    fn pools_need_not_name_the_only_scope() {
        let (before, rest) = TWO.split_once("[scopes.umbrella]").unwrap();
        let (_, after) = rest.split_once("[network]").unwrap();
        let one = format!("{before}[network]{after}");
        let one = one.replacen("scope = \"umbrella\"\nrunner_group = \"fast\"\n", "", 1);
        let named = read(&one);
        assert_eq!(named.scopes[0].key("url"), "scopes.widgets.url");
        let github = one.replacen("[scopes.widgets]", "[github]", 1);
        assert_eq!(keys(&github), ["pools.ci.scope"]);
        let github = read(&github.replacen("scope = \"widgets\"\n", "", 1));
        assert_eq!(github.scopes[0].key("url"), "github.url");
        assert_eq!(github.scopes[0].login_credential(), "github-token");
        assert_eq!(github.pools[0].scope, named.pools[0].scope);
    }

    #[test]
    fn mistakes_in_scopes_are_named() {
        for (from, to, key) in [
            (
                "[scopes.widgets]",
                "[github]\nurl = \"https://github.com/a\"\n[scopes.widgets]",
                "github",
            ),
            (
                "[scopes.widgets]",
                "[scopes.Widgets]",
                "scopes.Widgets.(name)",
            ),
            ("scope = \"widgets\"\n", "", "pools.ci.scope"),
            (
                "scope = \"widgets\"",
                "scope = \"gadgets\"",
                "pools.ci.scope",
            ),
            ("scope = \"widgets\"", "scope = 1", "pools.ci.scope"),
            (
                "scope = \"umbrella\"",
                "scope = \"widgets\"",
                "pools.big.runner_group",
            ),
            ("token_file =", "tokenfile =", "scopes.widgets.token_file"),
            (
                "mints_per_minute = 600",
                "mints_per_minute = 0",
                "scopes.umbrella.mints_per_minute",
            ),
        ] {
            let found = change(from, to);
            assert!(found.iter().any(|found| found == key), "{to}: {found:?}");
        }
        let unused = TWO.replacen(
            "scope = \"umbrella\"\nrunner_group = \"fast\"",
            "scope = \"widgets\"",
            1,
        );
        assert_eq!(keys(&unused), ["scopes.umbrella"]);
        let same = "url = \"https://github.com/ACME/Widgets\"\nignored = 1";
        let same = change("url = \"https://ghe.example/umbrella\"", same);
        // Both names are in the file, so the later one is told.
        assert!(
            same.iter().any(|key| key == "scopes.widgets.url"),
            "{same:?}"
        );
        let none = TWO.replace("[scopes.", "[network.");
        assert!(keys(&format!("scopes = {{}}\n{none}")).contains(&"scopes".to_owned()));
    }
}
