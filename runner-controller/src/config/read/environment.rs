//! The environment of listener and jobs (`environment`).

use std::collections::BTreeMap;

use super::section::Section;
use crate::config::proxy::ProxyConfig;

/// Maximum number of variables.
const VARIABLES_MAX: usize = 64;
/// Maximum size of a variable's name and of its value.
const NAME_MAX_BYTES: usize = 256;
const VALUE_MAX_BYTES: usize = 4096;

/// Beginnings of the names by which GitHub's runner, this program and the dynamic linker are steered.
pub(super) const RESERVED_PREFIXES: [&str; 5] =
    ["ACTIONS_", "GITHUB_", "RUNNER_", "LD_", "SYSTEMD_"];
/// A name with such a beginning that only says where tools are kept.
pub(super) const NOT_RESERVED: [&str; 1] = ["RUNNER_TOOL_CACHE"];
/// Names that systemd or the runner's unit gives to the runner.
pub(super) const RESERVED: [&str; 15] = [
    "CREDENTIALS_DIRECTORY",
    "HOME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LOGNAME",
    "MAINPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "SHELL",
    "USER",
    "WATCHDOG_USEC",
    "XDG_RUNTIME_DIR",
];

/// Reads the environment of listener and jobs.
pub(super) fn of_pool(
    section: &mut Section<'_>,
    proxy: Option<&ProxyConfig>,
) -> BTreeMap<String, String> {
    let example = "{ CARGO_NET_RETRY = \"5\" }";
    let variables = section.table_of_texts("environment", example);
    if variables.len() > VARIABLES_MAX {
        section.wrong(
            "environment",
            format!(
                "{} variables are more than {VARIABLES_MAX}",
                variables.len()
            ),
            "the variables in the image, in a drop-in of github-runner.service",
        );
    }
    for (name, value) in &variables {
        if let Some(wrong) = wrong_variable(name, value, proxy) {
            section.wrong("environment", wrong, format!("environment = {example}"));
        }
    }
    variables
}

/// Returns the reason why jobs cannot get a variable. A value is not repeated, because it may be secret.
fn wrong_variable(name: &str, value: &str, proxy: Option<&ProxyConfig>) -> Option<String> {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.starts_with(is_first) || !name.chars().all(is_plain) || name.len() > NAME_MAX_BYTES {
        return Some(format!(
            "{name:?} is not a name of a variable: letters, digits and underscores, without a digit at the beginning"
        ));
    }
    let has_prefix = RESERVED_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix));
    if RESERVED.contains(&name) || has_prefix && !NOT_RESERVED.contains(&name) {
        return Some(format!(
            "{name} belongs to the runner, to systemd or to the dynamic linker"
        ));
    }
    let of_proxy = proxy.map(ProxyConfig::environment).unwrap_or_default();
    if of_proxy.iter().any(|(of_proxy, _)| *of_proxy == name) {
        return Some(format!("{name} is set by the pool's proxy"));
    }
    if value.len() > VALUE_MAX_BYTES || value.chars().any(char::is_control) {
        return Some(format!(
            "the value of {name} has more than {VALUE_MAX_BYTES} bytes, a line break or another control character"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{parse, testing};

    /// Returns the keys of all mistakes of a configuration with these lines in its pool.
    fn mistakes(lines: &str) -> Vec<String> {
        let text = format!("{}{lines}\n", testing::TEXT);
        let result = parse(Path::new("config.toml"), &text);
        let list = result.err().map(|mistakes| mistakes.list);
        list.into_iter().flatten().map(|found| found.key).collect()
    }

    #[test]
    fn jobs_get_variables_that_are_not_the_runners() {
        let text = format!(
            "{}environment = {{ CARGO_NET_RETRY = \"5\", _x = \"a 'b' \\\"c\\\" $d\", RUNNER_TOOL_CACHE = \"/mnt/tools\" }}",
            testing::TEXT
        );
        let config = parse(Path::new("config.toml"), &text).unwrap();
        assert_eq!(config.pools[0].environment["CARGO_NET_RETRY"], "5");
        assert_ne!(
            config.pools[0].generation(),
            testing::config().pools[0].generation()
        );
        for bad in [
            "ACTIONS_RUNNER_HOOK_JOB_STARTED = \"/x\"",
            "RUNNER_LISTENER = \"/x\"",
            "GITHUB_TOKEN = \"x\"",
            "LD_PRELOAD = \"/x.so\"",
            "CREDENTIALS_DIRECTORY = \"/x\"",
            "USER = \"root\"",
            "9LIVES = \"x\"",
            "\"A-B\" = \"x\"",
            "\"\" = \"x\"",
            "A = \"x\\ny\"",
            "A = 5",
        ] {
            let found = mistakes(&format!("environment = {{ {bad} }}"));
            assert_eq!(found, ["pools.ci.environment"], "{bad}");
        }
        assert_eq!(
            mistakes("environment = [\"A=b\"]"),
            ["pools.ci.environment"]
        );
        let proxied =
            "proxy = { url = \"http://198.51.100.9:3128\" }\nenvironment = { https_proxy = \"x\" }";
        assert_eq!(mistakes(proxied), ["pools.ci.environment"]);
        assert!(mistakes("environment = { https_proxy = \"x\" }").is_empty());
    }
}
