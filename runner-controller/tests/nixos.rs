//! Agreement between the NixOS module and the program.
//!
//! The module installs the files that `units` renders, but it evaluates before anything is built. So
//! the names of those files are recorded for it; `RECORD=1 cargo test --test nixos` records them anew.
//! Nix records the result of evaluating a host, and the tests compare it with the program.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with the line it stands on; clippy.toml knows only #[test] functions"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use runner_controller::cli::NAMES;
use runner_controller::config::{self, Config};
use runner_controller::hostfiles::{self, HostFile};
use serde_json::{Value, json};

/// File names that the module reads.
const HOST_FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../nix/module/host-files.json");
const UNITS: &str = "/etc/systemd/system/";
/// Directories whose files the module installs by other means than `environment.etc`.
const NOT_LINKED: [&str; 3] = [UNITS, "/etc/sysusers.d/", "/etc/tmpfiles.d/"];

/// Pool that stands for any pool in the record.
const POOL: &str = "pool0";

fn config() -> Config {
    let text = format!(
        r#"
host = "box"
[github]
url = "https://github.com/acme"
token_file = "/run/token"
[network]
block = "10.200.0.0/16"
resolvers = ["9.9.9.9"]
[pools.{POOL}]
labels = ["ci"]
max_runners = 2
image = {{ kind = "nixos", system = "/nix/store/abc-nixos-system" }}
[notify]
command = ["/bin/notify"]
"#
    );
    config::parse(Path::new("config.toml"), &text).unwrap()
}

fn rendered() -> Vec<HostFile> {
    hostfiles::render(&config(), Path::new("/bin/rc"), Path::new("/etc/rc.toml"))
}

/// Returns the targets that want a unit, from its `[Install]` section.
fn wanted_by(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("WantedBy="))
        .flat_map(str::split_whitespace)
        .collect()
}

fn names() -> Value {
    let files = rendered();
    let mut units = BTreeMap::new();
    let mut etc = Vec::new();
    for file in &files {
        let path = file.path.to_str().unwrap();
        if let Some(unit) = path.strip_prefix(UNITS) {
            units.insert(unit.replace(POOL, "POOL"), wanted_by(&file.text));
        } else if !NOT_LINKED.iter().any(|dir| path.starts_with(dir)) {
            etc.push(path);
        }
    }
    etc.sort_unstable();
    let mut commands = NAMES.map(|(name, _)| name);
    commands.sort_unstable();
    json!({ "commands": commands, "etc": etc, "units": units })
}

#[test]
fn the_module_knows_every_rendered_file() {
    let now = serde_json::to_string_pretty(&names()).unwrap() + "\n";
    if std::env::var_os("RECORD").is_some() {
        fs::write(HOST_FILES, &now).unwrap();
    }
    let recorded = fs::read_to_string(HOST_FILES).unwrap();
    assert_eq!(
        now, recorded,
        "if the change is intended, run the tests with RECORD=1 and check nix/module/host.nix"
    );
}

/// Evaluated host; `nix eval --json .#lib.golden | jq .` writes it.
const GOLDEN: &str = include_str!("../../nix/golden/runner-01.json");
const GUEST_UNIT: &str = include_str!("../guest/github-runner.service");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn parse(settings: &Value) -> Config {
    let text = toml::to_string(settings).unwrap();
    config::parse(Path::new("config.toml"), &text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn lines(text: &Value) -> Vec<&str> {
    text.as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect()
}

/// Returns the units that the program renders for the evaluated host, by name.
fn units_of(host: &Value) -> BTreeMap<String, String> {
    let files = hostfiles::render(
        &parse(&host["settings"]),
        Path::new("/bin/rc"),
        Path::new("/etc/rc.toml"),
    );
    let unit = |file: HostFile| {
        let name = file.path.to_str()?.strip_prefix(UNITS)?.to_owned();
        Some((name, file.text))
    };
    files.into_iter().filter_map(unit).collect()
}

/// Programs that units name without a path, each with its package.
const PROGRAMS: [(&str, &str); 3] = [
    ("kill", "coreutils"),
    ("nft", "nftables"),
    ("systemd-tmpfiles", "systemd"),
];

#[test]
fn nixos_puts_every_program_of_a_unit_on_its_search_path() {
    let host = golden();
    // All our services have the same search path.
    let drop_in = lines(&host["units"]["runner-controller.service"]);
    let path = drop_in
        .iter()
        .find_map(|line| line.strip_prefix("ExecSearchPath="))
        .unwrap();
    for (name, text) in units_of(&host) {
        for line in text.lines().filter(|line| line.starts_with("Exec")) {
            let (_, command) = line.split_once('=').unwrap();
            let program = command
                .trim_start_matches(['-', '+', '!', '@', ':'])
                .split(' ')
                .next()
                .unwrap();
            if program.starts_with('/') {
                continue;
            }
            let package = PROGRAMS.iter().find(|(known, _)| *known == program);
            let (_, package) = package.unwrap_or_else(|| {
                panic!("{name} starts {program}: add its package to `programs` in nix/module/host.nix, and to this test")
            });
            assert!(
                path.contains(&format!("/nix/store/{package}/bin")),
                "{name}: {package} in {path}"
            );
        }
    }
}

#[test]
fn a_deploy_neither_restarts_a_runner_nor_removes_the_firewall() {
    let host = golden();
    for (name, line) in [
        ("runner-ci@.service", "X-RestartIfChanged=false"),
        ("runner-ci@.service", "X-StopOnRemoval=false"),
        ("runner-controller.service", "X-StopIfChanged=false"),
        // The table outlives its owner.
        (
            "runner-controller-firewall.service",
            "X-StopIfChanged=false",
        ),
        // Stopping a slice stops the runners of a removed pool.
        ("runners-ci.slice", "X-StopOnRemoval=false"),
    ] {
        let drop_in = lines(&host["units"][name]);
        assert!(drop_in.contains(&line), "{name} lacks {line}: {drop_in:?}");
    }
}

#[test]
fn the_defaults_of_options_and_program_are_equal() {
    let written = parse(&golden()["defaults"]);
    let omitted = json!({
        "host": "box",
        "github": {
            "url": "https://github.com/acme/widgets",
            "token_file": "/run/agenix/github-runner",
        },
        "network": { "block": "10.200.0.0/16", "resolvers": ["9.9.9.9"] },
        "pools": { "ci": {
            "labels": ["ci"],
            "max_runners": 4,
            "image": { "kind": "directory", "path": "/var/lib/runner-images/debian" },
        } },
    });
    assert_eq!(format!("{written:#?}"), format!("{:#?}", parse(&omitted)));
}

/// Keys without an option, each for a reason. `settings` takes them, too.
const KEYS_WITHOUT_OPTION: [&str; 5] = [
    // Units, users and documents of the module name the default directories.
    "run_dir",
    "state_dir",
    // For stand-ins for GitHub alone: the token crosses the network in the clear.
    "github.allow_plain_http",
    // The program of the default package refuses it.
    "traces",
    // NixOS has its store in the default place.
    "pools.*.image.store",
];

/// Returns the keys that the program knows in a table. Its error for an unknown key lists them.
fn known_keys(config: &Value, table: &[String]) -> BTreeSet<String> {
    let mut config = config.clone();
    let mut place = &mut config;
    for name in table {
        place = &mut place[name.as_str()];
    }
    place["no_such_key"] = json!(true);
    let text = toml::to_string(&config).unwrap();
    let mistakes = config::parse(Path::new("config.toml"), &text).unwrap_err();
    let said = mistakes.list.into_iter().find_map(|mistake| {
        let list = mistake.write.strip_prefix("one of: ")?;
        Some(list.split(", ").map(str::to_owned).collect())
    });
    said.unwrap_or_else(|| panic!("{table:?} takes any key"))
}

/// Collects the paths of all tables of a file.
fn tables(value: &Value, at: &[String], found: &mut Vec<Vec<String>>) {
    found.push(at.to_vec());
    for (name, inner) in value.as_object().unwrap() {
        if inner.is_object() {
            tables(inner, &[at, std::slice::from_ref(name)].concat(), found);
        }
    }
}

#[test]
fn every_key_has_an_option_and_every_option_a_key() {
    let host = golden();
    let (mut known, mut written) = (BTreeSet::new(), BTreeSet::new());
    // Two files, one for each kind of image, and one with several scopes.
    for file in ["everything", "settings", "scopes"] {
        let file = &host[file];
        let mut all = Vec::new();
        tables(file, &[], &mut all);
        // The keys of these are names that an operator chooses.
        let is_free = |table: &[String]| {
            table == ["pools"]
                || table == ["scopes"]
                || table.last().is_some_and(|name| name == "environment")
        };
        for table in all.iter().filter(|table| !is_free(table)) {
            let mut here = table.clone();
            match &mut here[..] {
                [first, name, ..] if first == "pools" => "*".clone_into(name),
                // A scope has the keys of `github`.
                [first, name, ..] if first == "scopes" => {
                    "github".clone_into(first);
                    name.clear();
                }
                _ => {}
            }
            here.retain(|part| !part.is_empty());
            let here = here.join(".");
            let name = |key: &String| format!("{here}.{key}").trim_start_matches('.').to_owned();
            let mut value = file;
            for part in table {
                value = &value[part.as_str()];
            }
            written.extend(value.as_object().unwrap().keys().map(name));
            known.extend(known_keys(file, table).iter().map(name));
        }
    }
    for key in KEYS_WITHOUT_OPTION {
        assert!(known.remove(key), "there is not a key {key} any more");
    }
    assert_eq!(
        known, written,
        "left: what check-config knows; right: what nix/module/settings.nix writes. Add the option, \
         to nix/golden.nix too if it is null by default, or the key to KEYS_WITHOUT_OPTION"
    );
}

#[test]
fn a_nixos_container_runs_the_same_unit_as_other_images() {
    let host = golden();
    let unit = lines(&host["container"]["ci"]["unit"]);
    let scripts = GUEST_UNIT.replace("/usr/lib/github-runner", "/nix/store/github-runner-scripts");
    let guest: Vec<&str> = scripts.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(unit, guest);

    let drop_in = lines(&host["container"]["ci"]["drop_in"]);
    let config = parse(&host["settings"]);
    let root = config.pools[0].image.runner_root().display();
    for wanted in [
        format!("Environment=\"RUNNER_HOME={root}\""),
        format!("Environment=\"RUNNER_ROOT={root}\""),
        "WantedBy=multi-user.target".to_owned(),
    ] {
        assert!(drop_in.contains(&wanted.as_str()), "{wanted}: {drop_in:?}");
    }
}
