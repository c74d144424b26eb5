//! Agreement between the documents and the tree: every claim, attack and cargo command that a document
//! names exists, and every link between documents has a target.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with the line it stands on; clippy.toml knows only #[test] functions"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use testbed::claims::SUITES;
use testbed::rootfs::DOCUMENTED;

/// Subcommands of cargo itself that documents name.
const CARGO: [&str; 8] = [
    "build", "clippy", "fmt", "fuzz", "install", "nextest", "run", "test",
];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

#[test]
fn the_documented_image_is_the_one_that_is_tested() {
    let page = fs::read_to_string(project().join("docs/other-hosts.md")).unwrap();
    let line = page
        .lines()
        .find_map(|line| line.trim().strip_prefix("--include="));
    let list = line.unwrap().trim_end_matches('\\').trim();
    let packages: Vec<&str> = list.split(',').collect();
    assert_eq!(packages, DOCUMENTED.packages());
}

/// Returns the documents of the project, each with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let root = project();
    let directories =
        ["", "docs", "docs/runbooks", "fuzz", "github-sim", "secrets"].map(|name| root.join(name));
    let files = directories
        .iter()
        .flat_map(|dir| fs::read_dir(dir).unwrap());
    files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// Returns the lines of every inline code and every code block in a document.
fn code(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(line.trim());
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// Returns a document without its code.
fn prose(text: &str) -> String {
    let mut found = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            found.extend(line.split('`').step_by(2));
            found.push('\n');
        }
    }
    found
}

/// Returns the words behind `command` wherever a document names it in code, with the document's name.
fn arguments_of(command: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (path, text) in documents() {
        let name = path.strip_prefix(project()).unwrap().display().to_string();
        for line in code(&text) {
            if let Some(rest) = line.strip_prefix(command) {
                let words = rest.split('#').next().unwrap_or_default();
                let words = words.split_whitespace().map(str::to_owned).collect();
                found.push((name.clone(), words));
            }
        }
    }
    found
}

/// Returns true for a word that stands for any value, such as `NAME`.
fn is_placeholder(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase())
}

#[test]
fn every_documented_claim_exists() {
    let claims: Vec<&str> = SUITES
        .iter()
        .flat_map(|suite| suite.claims)
        .map(|claim| claim.name)
        .collect();
    let documented = arguments_of("cargo verify --only system ");
    assert!(documented.len() > 20, "{documented:?}");
    for (document, words) in documented {
        let [filter] = &words[..] else {
            panic!("{document}: {words:?} is not one filter");
        };
        assert!(
            is_placeholder(filter) || claims.iter().any(|claim| claim.contains(filter)),
            "{document}: no claim contains {filter:?}"
        );
    }
}

/// Returns the names of all attacks.
fn attacks() -> Vec<String> {
    fs::read_dir(project().join("testbed/attacks"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_line_of_what_jobs_find_names_its_tests() {
    let root = project();
    let text = fs::read_to_string(root.join("docs/what-jobs-find.md")).unwrap();
    let machine = fs::read_to_string(root.join("testbed/src/qemu/enforce.py")).unwrap();
    let attacks = attacks();
    let is_claim = |name: &str| {
        let claims = SUITES.iter().flat_map(|suite| suite.claims);
        claims.map(|claim| claim.name).any(|claim| claim == name)
            || machine.contains(&format!("\"{name}\""))
    };
    let mut lines = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cell = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        if cell == "tests" || cell == "---" {
            continue;
        }
        let tests: Vec<&str> = code(cell);
        assert!(!tests.is_empty(), "{line} names no test");
        for test in tests {
            let exists = match test.strip_prefix("cargo attack ") {
                Some(attack) => attacks.iter().any(|name| name == attack),
                None => is_claim(test),
            };
            assert!(exists, "no test is named {test}: {line}");
        }
        lines += 1;
    }
    assert!(lines > 20, "{lines} lines");
}

#[test]
fn every_documented_attack_exists() {
    let programs = attacks();
    for (document, words) in arguments_of("cargo attack ") {
        for word in words.iter().filter(|word| !word.starts_with('-')) {
            assert!(
                is_placeholder(word) || programs.iter().any(|name| name.contains(word.as_str())),
                "{document}: no attack contains {word:?}"
            );
        }
    }
}

#[test]
fn every_documented_cargo_command_exists() {
    let aliases = fs::read_to_string(project().join(".cargo/config.toml")).unwrap();
    let aliases: toml::Table = aliases.parse().unwrap();
    let mut known: BTreeSet<&str> = aliases["alias"]
        .as_table()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    known.extend(CARGO);
    for (document, words) in arguments_of("cargo ") {
        let command = words.iter().find(|word| !word.starts_with('+'));
        let command = command.map(String::as_str).unwrap_or_default();
        assert!(
            known.contains(command),
            "{document}: cargo has no command {command:?}"
        );
    }
}

/// Returns the anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_between_documents_has_a_target() {
    let mut checked = 0;
    for (path, text) in documents() {
        let prose = prose(&text);
        let targets = prose
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .chain(attributes(&prose, "src=\""));
        for target in targets {
            if target.contains("://") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            assert!(file.exists(), "{}: no {target}", path.display());
            if !fragment.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let found = text
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .any(|line| anchor(line) == fragment);
                assert!(found, "{}: no heading for {target}", path.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} links");
}

fn attributes<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(name)
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
}
