//! `docs`: the documentation of this version, for hosts without its sources.

use anyhow::bail;

/// Pages with their names and texts.
macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../docs/", $name, ".md")))),*]
    };
}

/// Every page of `docs/`, in the order in which a reader of the list needs them.
const PAGES: &[(&str, &str)] = &pages![
    "operations",
    "configuration",
    "firewall",
    "demand",
    "runner-versions",
    "sizing",
    "metrics",
    "reliability",
    "threat-model",
    "what-jobs-find",
    "nixos",
    "nixos-recipes",
    "options",
    "other-hosts",
    "migration",
    "benchmarks",
    "development",
    "runbooks/README",
    "runbooks/boot-failures",
    "runbooks/credentials-refused",
    "runbooks/demand-silent",
    "runbooks/down",
    "runbooks/drain-long",
    "runbooks/firewall-wrong",
    "runbooks/gate-closed",
    "runbooks/ghosts",
    "runbooks/github-fails",
    "runbooks/leftovers",
    "runbooks/no-idle-runner",
    "runbooks/queue-unread",
    "runbooks/records-fail",
    "runbooks/registration-gap",
    "runbooks/resource-short",
    "runbooks/restarts",
    "runbooks/same-name",
    "runbooks/saturated",
    "runbooks/scale-set-silent",
    "runbooks/version-ends",
    "runbooks/version-refused",
];

/// Prints a page, or the list of all pages.
pub fn docs(page: Option<&str>) -> anyhow::Result<()> {
    let Some(name) = page else {
        return Ok(stdio::print(list())?);
    };
    let Some(text) = find(name) else {
        bail!("cannot find the page {name}; `runner-controller docs` lists all pages");
    };
    Ok(stdio::print(text)?)
}

/// Finds a page by its name, by a link to it as another page writes it, or by the name of its alert.
fn find(name: &str) -> Option<&'static str> {
    let path = name.split('#').next().unwrap_or_default();
    let path = path.trim_start_matches("../");
    let wanted = path.strip_prefix("docs/").unwrap_or(path);
    let wanted = wanted.strip_suffix(".md").unwrap_or(wanted);
    let is_meant = |(name, text): &&(&str, &str)| {
        *name == wanted || name.strip_prefix("runbooks/") == Some(wanted) || title(text) == wanted
    };
    PAGES.iter().find(is_meant).map(|(_, text)| *text)
}

fn list() -> String {
    let width = PAGES.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = PAGES
        .iter()
        .map(|(name, text)| format!("{name:width$}  {}\n", title(text)));
    lines.collect()
}

/// Returns the heading of a page.
fn title(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches(['#', ' '])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_page_of_the_directory_is_in_the_program() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let mut found = BTreeSet::new();
        for below in ["", "runbooks/"] {
            for entry in std::fs::read_dir(root.join(below)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if let Some(name) = name.strip_suffix(".md") {
                    found.insert(format!("{below}{name}"));
                }
            }
        }
        let known: BTreeSet<String> = PAGES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(found, known);
    }

    #[test]
    fn a_page_is_found_by_each_of_its_names() {
        for name in [
            "runbooks/firewall-wrong",
            "firewall-wrong",
            "docs/runbooks/firewall-wrong.md",
            "../docs/runbooks/firewall-wrong.md#next-steps",
            "RunnerControllerFirewallWrong",
        ] {
            let text = find(name).unwrap();
            assert!(
                text.starts_with("# RunnerControllerFirewallWrong\n"),
                "{name}"
            );
        }
        assert_eq!(find("firewalls"), None);
        assert_eq!(list().lines().count(), PAGES.len());
    }

    #[test]
    fn each_page_that_a_text_names_exists() {
        let sources = [
            include_str!("../../../pool/src/verdict.rs"),
            include_str!("../view/health.rs"),
            include_str!("../view/version.rs"),
            include_str!("../firewall/forwarding.rs"),
            include_str!("doctor/network.rs"),
            include_str!("doctor/space.rs"),
            include_str!("jobs.rs"),
        ];
        for source in sources {
            let parts = source.split("`runner-controller docs ").skip(1);
            let names: Vec<&str> = parts.filter_map(|rest| rest.split('`').next()).collect();
            assert!(!names.is_empty());
            for name in names {
                assert!(find(name).is_some(), "{name}");
            }
        }
    }
}
