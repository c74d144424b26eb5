//! The daemon's configuration in tests: one shape, written in one place.

use std::fmt::Write as _;

use crate::net::RESOLVER;

/// Path of the image in the host.
pub const IMAGE: &str = "/var/lib/runner-images/debian";

/// Settings that a test may change.
#[derive(Debug, Clone)]
pub struct Config {
    /// Organisation or repository, as a person would copy it from the browser.
    pub url: String,
    /// The stand-in.
    pub api_url: String,
    /// Interval of full reconciles.
    pub reconcile: String,
    /// Directory of disk layers; the default if it is empty.
    pub layer_dir: String,
    /// Lines at the top of the file, such as `listen`.
    pub top: String,
    /// The line that says what lets us in at GitHub.
    pub login: String,
    /// Scopes in place of the one of `url` and `login`. Each pool names one in its further lines.
    pub scopes: Vec<Scope>,
    /// The pools.
    pub pools: Vec<Pool>,
}

/// A table `[scopes.NAME]`.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// Organisation or repository.
    pub url: &'static str,
    /// The line with its credential.
    pub login: String,
}

/// Image that a container boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// A root filesystem in a directory of the host.
    Directory(String),
    /// A system closure in a store.
    Nixos {
        /// The system's path in the store.
        system: String,
        /// The store, wherever it lies.
        store: String,
    },
}

impl Image {
    fn render(&self, registration: Option<&str>) -> String {
        let registration = registration
            .map(|path| format!(r#", registration = "{path}""#))
            .unwrap_or_default();
        match self {
            Self::Directory(path) => {
                format!(r#"{{ kind = "directory", path = "{path}"{registration} }}"#)
            }
            Self::Nixos { system, store } => format!(
                r#"{{ kind = "nixos", system = "{system}", store = "{store}", runner_root = "/opt/actions-runner"{registration} }}"#
            ),
        }
    }
}

/// Settings that belong to `nix = true`.
#[derive(Debug, Clone)]
pub struct Nix {
    /// `image.registration`.
    pub registration: String,
    /// The one cache.
    pub substituter: String,
    /// Its key.
    pub public_key: String,
}

/// One pool.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Place of its first slot.
    pub offset: u16,
    /// The label that jobs choose it by, next to `self-hosted`.
    pub label: String,
    /// Registered and waiting.
    pub min_idle: u16,
    /// Booted and not registered.
    pub min_spare: u16,
    /// All runners together.
    pub max_runners: u16,
    /// Image of its containers.
    pub image: Image,
    /// `tmpfs` or `disk`.
    pub layer: &'static str,
    /// Hard size of the layer.
    pub layer_size: String,
    /// `MemoryMax` of one runner.
    pub memory: String,
    /// Cores of one runner, if they are limited.
    pub cpu: Option<u32>,
    /// Open connections of one runner, if they are not the default.
    pub connections: Option<u32>,
    /// `internet`, `listed` or `none`.
    pub egress: &'static str,
    /// Destinations that jobs also reach.
    pub allow: Vec<String>,
    /// Jobs may run docker.
    pub docker: bool,
    /// Its Nix, if its jobs have one.
    pub nix: Option<Nix>,
    /// Further lines of its table.
    pub more: String,
    /// `[pools.<name>.timeouts]`, as (key, value).
    pub timeouts: Vec<(&'static str, String)>,
}

impl Config {
    /// One pool `ci`: one idle, one spare, two at most.
    #[must_use]
    pub fn small(api_url: &str) -> Self {
        Self {
            url: "https://github.com/acme/widgets".into(),
            api_url: api_url.into(),
            reconcile: "60s".into(),
            layer_dir: String::new(),
            top: String::new(),
            login: "token_file = \"/etc/runner-controller/token\"".into(),
            scopes: Vec::new(),
            pools: vec![Pool::new("ci", 0)],
        }
    }

    /// The pool with this name, to be changed.
    #[must_use]
    pub fn with(mut self, name: &str, change: impl FnOnce(&mut Pool)) -> Self {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.name == name) {
            change(pool);
        }
        self
    }

    /// As TOML.
    #[must_use]
    pub fn render(&self) -> String {
        let Self {
            url,
            api_url,
            reconcile,
            layer_dir,
            top,
            login,
            scopes,
            pools,
        } = self;
        let table = |heading: &str, url: &str, login: &str| {
            format!(
                "[{heading}]\nurl = \"{url}\"\napi_url = \"{api_url}\"\nallow_plain_http = true\n{login}\n"
            )
        };
        let mut tables: String = scopes
            .iter()
            .map(|scope| table(&format!("scopes.{}", scope.name), scope.url, &scope.login))
            .collect();
        if scopes.is_empty() {
            tables = table("github", url, login);
        }
        let layer_dir = if layer_dir.is_empty() {
            String::new()
        } else {
            format!("layer_dir = {layer_dir:?}\n")
        };
        let mut text = format!(
            r#"host = "testhost"
reconcile = "{reconcile}"
{layer_dir}{top}
{tables}
[network]
block = "10.200.0.0/16"
resolvers = ["{RESOLVER}"]
"#
        );
        for pool in pools {
            text.push_str(&pool.render());
        }
        text
    }
}

impl Pool {
    /// One idle, one spare, two at most; takes jobs that ask for its name.
    #[must_use]
    pub fn new(name: &str, offset: u16) -> Self {
        Self {
            name: name.into(),
            offset,
            label: name.into(),
            min_idle: 1,
            min_spare: 1,
            max_runners: 2,
            image: Image::Directory(IMAGE.into()),
            layer: "tmpfs",
            layer_size: "1 GiB".into(),
            memory: "1 GiB".into(),
            cpu: None,
            connections: None,
            egress: "internet",
            allow: Vec::new(),
            docker: false,
            nix: None,
            more: String::new(),
            timeouts: vec![("boot", "60s".into())],
        }
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> [&str; 4] {
        ["self-hosted", &self.label, "x64", "Linux"]
    }

    fn render(&self) -> String {
        let Self {
            name,
            offset,
            min_idle,
            min_spare,
            max_runners,
            image,
            layer,
            layer_size,
            memory,
            cpu,
            connections,
            egress,
            allow,
            docker,
            nix,
            more,
            timeouts,
            ..
        } = self;
        let image = image.render(nix.as_ref().map(|nix| nix.registration.as_str()));
        let nix = nix.as_ref().map_or_else(String::new, |nix| {
            let Nix {
                substituter,
                public_key,
                ..
            } = nix;
            format!(
                "nix = true\nsubstituters = [{substituter:?}]\ntrusted_public_keys = [{public_key:?}]\n"
            )
        });
        // Only what is not the default: an older program, which does not know the key, is compared with.
        let reach: String = [
            (*egress != "internet", format!("egress = {egress:?}\n")),
            (!allow.is_empty(), format!("allow = {allow:?}\n")),
            (*docker, "docker = true\n".to_owned()),
        ]
        .into_iter()
        .filter_map(|(said, line)| said.then_some(line))
        .collect();
        let cpu = cpu.map_or_else(String::new, |cores| format!("cpu = {cores}\n"));
        let connections =
            connections.map_or_else(String::new, |most| format!("connections = {most}\n"));
        let labels = self.labels().map(|label| format!("{label:?}")).join(", ");
        let mut text = format!(
            r#"
[pools.{name}]
offset = {offset}
labels = [{labels}]
image = {image}
min_idle = {min_idle}
min_spare = {min_spare}
max_runners = {max_runners}
layer = {{ kind = "{layer}", size = "{layer_size}" }}
{reach}{nix}{more}
[pools.{name}.limits]
memory = "{memory}"
tasks = 2048
{cpu}{connections}
[pools.{name}.timeouts]
"#
        );
        for (key, value) in timeouts {
            // Writing to a String cannot fail.
            writeln!(text, "{key} = {value:?}").ok();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_in_the_text() {
        let config = Config::small("http://198.51.100.7:8080").with("ci", |pool| {
            pool.layer = "disk";
            pool.timeouts.push(("job", "5s".into()));
        });
        let text = config.render();
        assert!(
            text.contains(r#"layer = { kind = "disk", size = "1 GiB" }"#),
            "{text}"
        );
        assert!(
            text.contains("[pools.ci.timeouts]\nboot = \"60s\"\njob = \"5s\"\n"),
            "{text}"
        );
    }
}
