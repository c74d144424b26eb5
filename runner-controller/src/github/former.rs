//! Scopes of earlier configurations, in which this host may have left registrations.
//!
//! A configuration without a scope of the one before leaves runners behind. They are removed with the
//! credentials with which they were made, if those are still there.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::login::Login;
use super::registry::GitHub;
use crate::config::{GitHubConfig, LoginConfig, Scope};
use crate::pool::ScopeId;
use crate::world::chain;

/// Time after which nothing can be left in a scope without runners here. GitHub removes an ephemeral
/// runner that was offline for a day.
const KEPT: Duration = Duration::from_hours(25);

/// A scope in which this host registered runners, as it is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownScope {
    /// The scope.
    pub scope: ScopeId,
    login: KnownLogin,
    /// Time at which another scope was configured, in milliseconds since 1970.
    left_unix_ms: Option<u64>,
}

/// The place of the credentials for a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KnownLogin {
    Token { file: PathBuf },
    App { id: String, key_file: PathBuf },
}

impl From<&LoginConfig> for KnownLogin {
    fn from(login: &LoginConfig) -> Self {
        match login.clone() {
            LoginConfig::Token { file } => Self::Token { file },
            LoginConfig::App { id, key_file } => Self::App { id, key_file },
        }
    }
}

impl From<KnownLogin> for LoginConfig {
    fn from(login: KnownLogin) -> Self {
        match login {
            KnownLogin::Token { file } => Self::Token { file },
            KnownLogin::App { id, key_file } => Self::App { id, key_file },
        }
    }
}

/// Returns the scopes to keep on record: the configured ones, and former ones for a day or while a record
/// in `used` names them.
#[must_use]
pub fn known_scopes(
    known: Vec<KnownScope>,
    configs: &[GitHubConfig],
    used: &BTreeSet<ScopeId>,
    unix_ms: u64,
) -> Vec<KnownScope> {
    let configured = configs.iter().map(|config| KnownScope {
        scope: config.scope_id(),
        login: KnownLogin::from(&config.login),
        left_unix_ms: None,
    });
    let mut kept: Vec<KnownScope> = configured.collect();
    let is_former = |known: &KnownScope| kept.iter().all(|kept| kept.scope != known.scope);
    let former = known.into_iter().filter(is_former);
    let former = former.map(|known| KnownScope {
        left_unix_ms: known.left_unix_ms.or(Some(unix_ms)),
        ..known
    });
    let may_be_in_use = |known: &KnownScope| {
        let left = known.left_unix_ms.unwrap_or(unix_ms);
        let age = Duration::from_millis(unix_ms.saturating_sub(left));
        age < KEPT || used.contains(&known.scope)
    };
    let former: Vec<KnownScope> = former.filter(may_be_in_use).collect();
    kept.extend(former);
    kept
}

/// The credentials with which a former scope can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// The file that was configured then.
    File(LoginConfig),
    /// The credentials of the configured scope at this place.
    Configured(usize),
}

impl KnownScope {
    /// Returns the places to try for credentials, in order: its own, then those of configured scopes.
    ///
    /// Configured credentials are never sent to another server than their own. A file that is configured
    /// for another server now may have another content than then. GitHub lets no App manage the runners of
    /// an enterprise.
    fn sources(&self, configs: &[GitHubConfig]) -> Vec<Source> {
        let login = LoginConfig::from(self.login.clone());
        let is_enterprise = matches!(Scope::parse(self.scope.parts().1), Scope::Enterprise { .. });
        let is_usable = |config: &GitHubConfig| {
            let is_same_server = self.scope.parts().0 == config.scope_id().parts().0;
            let is_app = matches!(config.login, LoginConfig::App { .. });
            is_same_server && !(is_enterprise && is_app)
        };
        let has_its_file = |config: &GitHubConfig| config.login.file() == login.file();
        let usable = configs.iter().enumerate();
        let usable = usable.filter(|(_, config)| is_usable(config));
        let (own, others): (Vec<_>, Vec<_>) = usable.partition(|(_, config)| has_its_file(config));
        let file = (!configs.iter().any(has_its_file)).then_some(Source::File(login.clone()));
        let place = |(place, _)| Source::Configured(place);
        let configured = own.into_iter().map(place);
        let sources = configured.chain(file);
        sources.chain(others.into_iter().map(place)).collect()
    }

    /// Returns a client for the scope, and its settings. `clients` are those of the configured scopes, in the
    /// order of `configs`.
    ///
    /// # Errors
    /// No credentials for it are there any more, or they cannot be used. The error is for the operator.
    pub fn connect(
        &self,
        configs: &[GitHubConfig],
        clients: &[Arc<GitHub>],
    ) -> Result<(GitHub, GitHubConfig), String> {
        let mut problem = "the file of its credentials is configured for another server".to_owned();
        for source in self.sources(configs) {
            let (place, loaded) = match &source {
                Source::File(login) => (self.nearest(configs), Login::load_file(login)),
                Source::Configured(place) => (*place, Login::load(&configs[*place])),
            };
            let login = match loaded {
                Ok(login) => login,
                Err(error) => {
                    problem = chain(&error);
                    continue;
                }
            };
            let config = &configs[place];
            let (config, client) = match source {
                Source::File(file) => {
                    let config = self.config(config, file)?;
                    let client = GitHub::new(&config, login);
                    (config, client)
                }
                Source::Configured(place) => {
                    let config = self.config(config, config.login.clone())?;
                    let client = clients[place].beside(&config, login);
                    (config, client)
                }
            };
            let client = client.map_err(|error| chain(&error))?;
            return Ok((client, config));
        }
        Err(problem)
    }

    /// Returns the place of the configured scope whose proxy and certificate authorities lead to the server,
    /// as far as the configuration shows it.
    fn nearest(&self, configs: &[GitHubConfig]) -> usize {
        let server = self.scope.parts().0;
        let same = |config: &GitHubConfig| config.scope_id().parts().0 == server;
        configs.iter().position(same).unwrap_or_default()
    }

    fn config(&self, config: &GitHubConfig, login: LoginConfig) -> Result<GitHubConfig, String> {
        let (api_url, name) = self.scope.parts();
        let api_url = api_url.parse();
        Ok(GitHubConfig {
            scope: Scope::parse(name),
            api_url: api_url.map_err(|_| format!("{} is not on record as it was", self.scope))?,
            login,
            ..config.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn config(api_url: &str, repo: &str, file: &str) -> GitHubConfig {
        GitHubConfig {
            api_url: api_url.parse().unwrap(),
            scope: Scope::Repository {
                owner: "acme".into(),
                repo: repo.into(),
            },
            login: LoginConfig::Token { file: file.into() },
            ..testing::config().scopes.remove(0)
        }
    }

    fn known(config: &GitHubConfig) -> Vec<KnownScope> {
        known_scopes(
            Vec::new(),
            std::slice::from_ref(config),
            &BTreeSet::new(),
            0,
        )
    }

    const GITHUB: &str = "https://api.github.com";

    #[test]
    fn a_former_scope_is_known_for_a_day_and_while_a_runner_is_registered_in_it() {
        let (old, new) = (config(GITHUB, "old", "/t"), config(GITHUB, "new", "/t"));
        let none = BTreeSet::new();
        let left = known_scopes(known(&old), std::slice::from_ref(&new), &none, 5);
        let scopes = |known: &[KnownScope]| -> Vec<ScopeId> {
            known.iter().map(|known| known.scope.clone()).collect()
        };
        assert_eq!(scopes(&left), [new.scope_id(), old.scope_id()]);
        let later = known_scopes(left.clone(), std::slice::from_ref(&new), &none, DAY_MS);
        assert_eq!(later, left, "the time at which it was left does not change");
        let used = BTreeSet::from([old.scope_id()]);
        let long = known_scopes(left.clone(), std::slice::from_ref(&new), &used, 9 * DAY_MS);
        assert_eq!(long, left);
        let long = known_scopes(left.clone(), std::slice::from_ref(&new), &none, 9 * DAY_MS);
        assert_eq!(scopes(&long), [new.scope_id()]);
        let back = known_scopes(left, std::slice::from_ref(&old), &none, 9 * DAY_MS);
        assert_eq!(scopes(&back)[0], old.scope_id());
        assert_eq!(back[0].left_unix_ms, None);
    }

    #[test]
    fn credentials_are_never_sent_to_another_server() {
        let old = config("https://ghes.example/api/v3", "old", "/old-token");
        let old = known(&old).remove(0);
        let file = Source::File(LoginConfig::Token {
            file: "/old-token".into(),
        });
        // The same server: its own file first, which the daemon may not be able to read.
        let same = config("https://ghes.example/api/v3", "new", "/new-token");
        assert_eq!(
            old.sources(std::slice::from_ref(&same)),
            [file.clone(), Source::Configured(0)]
        );
        let same = config("https://ghes.example/api/v3", "new", "/old-token");
        assert_eq!(
            old.sources(std::slice::from_ref(&same)),
            [Source::Configured(0)]
        );
        // Another server.
        let other = config(GITHUB, "new", "/new-token");
        assert_eq!(old.sources(std::slice::from_ref(&other)), [file]);
        let other = config(GITHUB, "new", "/old-token");
        assert_eq!(old.sources(std::slice::from_ref(&other)), []);
    }

    #[test]
    fn several_configured_scopes_offer_their_credentials_in_order() {
        let old = known(&config(GITHUB, "old", "/b")).remove(0);
        let (a, b) = (config(GITHUB, "a", "/a"), config(GITHUB, "b", "/b"));
        let other = config("https://ghes.example/api/v3", "c", "/c");
        // The file is configured again, so that its scope's credential is that file's content.
        let sources = old.sources(&[a.clone(), b, other.clone()]);
        assert_eq!(sources, [Source::Configured(1), Source::Configured(0)]);
        let file = Source::File(LoginConfig::Token { file: "/b".into() });
        assert_eq!(old.sources(&[other, a]), [file, Source::Configured(1)]);
    }

    #[test]
    fn a_scope_that_is_one_of_several_is_not_a_former_one() {
        let (old, new) = (config(GITHUB, "old", "/t"), config(GITHUB, "new", "/t"));
        let both = [new.clone(), old.clone()];
        let (none, scope) = (BTreeSet::new(), |known: &KnownScope| known.scope.clone());
        let left = known_scopes(known(&old), &both, &none, 5);
        assert!(left.iter().all(|known| known.left_unix_ms.is_none()));
        let known: Vec<ScopeId> = left.iter().map(scope).collect();
        assert_eq!(known, [new.scope_id(), old.scope_id()]);
        let left = known_scopes(left, std::slice::from_ref(&new), &none, 7);
        assert_eq!(left[1].left_unix_ms, Some(7));
    }

    #[test]
    fn an_app_is_not_asked_about_a_former_enterprise() {
        let scope = Scope::Enterprise {
            enterprise: "acme".into(),
        };
        let token = config(GITHUB, "any", "/t");
        let old = known(&GitHubConfig { scope, ..token }).remove(0);
        let file = Source::File(LoginConfig::Token { file: "/t".into() });
        let new = config(GITHUB, "new", "/new-token");
        assert_eq!(
            old.sources(std::slice::from_ref(&new)),
            [file.clone(), Source::Configured(0)]
        );
        let login = LoginConfig::App {
            id: "1".into(),
            key_file: "/app".into(),
        };
        assert_eq!(old.sources(&[GitHubConfig { login, ..new }]), [file]);
    }

    #[test]
    fn a_known_scope_is_read_as_it_was_written() {
        let written = known(&config(GITHUB, "old", "/t"));
        let text = serde_json::to_string(&written).unwrap();
        let expected = r#"[{"scope":"https://api.github.com acme/old","login":{"token":{"file":"/t"}},"left_unix_ms":null}]"#;
        assert_eq!(text, expected);
        assert_eq!(
            serde_json::from_str::<Vec<KnownScope>>(&text).unwrap(),
            written
        );
    }
}
