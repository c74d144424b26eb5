//! Reads a file into a [`Config`] and collects every mistake.

mod access;
mod binds;
mod budget;
mod calendar;
mod demand;
mod egress;
mod environment;
mod github;
mod login;
mod logs;
mod network;
mod nix;
mod notify;
mod pool;
mod proxy;
mod queue;
mod scopes;
mod section;
mod traces;
mod webhook;
mod workload;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mistake::{Mistake, Mistakes};
use super::model::{Config, DAEMON_USER, DEFAULT_RUN_DIR, HistoryConfig, ReserveConfig};
use crate::pool::HostId;
use scopes::Scopes;
use section::{MINUTE, SECOND, Section, parse_by};

pub use workload::{load_workload, parse_workload};

const DAY: Duration = Duration::from_hours(24);
/// Maximum length of a socket's path: `sun_path` in sys/un.h holds 108 bytes with its NUL.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Longest path of a socket below the run directory.
const LONGEST_SOCKET: &str = "slots/a2345678-999/jit.sock";

/// Reads and checks a configuration file.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let text = std::fs::read_to_string(path).map_err(|error| Mistakes {
        file: path.to_owned(),
        list: vec![Mistake {
            key: "(file)".into(),
            wrong: format!("the file cannot be read: {error}"),
            write: if error.kind() == std::io::ErrorKind::PermissionDenied {
                // The umask 077 gives a new file the mode 0600.
                format!(
                    "run `chmod go+r {}`: the daemon runs as {DAEMON_USER}, and the file holds no secret",
                    path.display()
                )
            } else {
                "a TOML file; `runner-controller docs other-hosts` has an example".into()
            },
        }],
    })?;
    parse(path, &text)
}

/// Checks the text of a configuration file. Its path is for the mistakes alone.
pub fn parse(file: &Path, text: &str) -> Result<Config, Mistakes> {
    parse_by(file, text, |top, report| {
        let config = read(top)?;
        binds::check(report, &config);
        budget::check(report, &config);
        Some(config)
    })
}

fn read(mut top: Section<'_>) -> Option<Config> {
    let host: Option<HostId> = top.required("host", "\"runner-01\"", Section::parsed);
    let observes = observes(&mut top);
    let state_dir = top.directory("state_dir", "/var/lib/runner-controller");
    let run_dir = top.directory("run_dir", DEFAULT_RUN_DIR);
    let layer_dir = top.directory("layer_dir", "/var/lib/runner-layers");
    let reconcile = top.duration("reconcile", MINUTE, SECOND..=10 * MINUTE);
    let listen = top
        .texts("listen", "[\"127.0.0.1:9817\"]")
        .unwrap_or_default();
    let listen: Vec<SocketAddr> = listen
        .iter()
        .filter_map(|text| {
            let address = text.parse().ok();
            if address.is_none() {
                top.wrong(
                    "listen",
                    format!("{text:?} is not an address with a port"),
                    "listen = [\"127.0.0.1:9817\"]",
                );
            }
            address
        })
        .collect();
    let api_token_file = api_token_file(&mut top, &listen);
    let takes_deliveries = top.has("webhook");
    let webhook = webhook::webhook(&mut top, &listen);
    let notify = notify::notify(&mut top);
    let traces = traces::traces(&mut top, cfg!(feature = "traces"));
    let scopes = Scopes::read(&mut top);
    let network = network::network(top.section("network"));
    let reserve = reserve(top.section("reserve"));
    let history = history(top.section("history"));
    let logs = logs::logs(top.section("logs"));
    let budget = budget::budget(top.section("budget"));
    let order = queue::order(&mut top);

    let mut pools = Vec::new();
    let sections = top.sections("pools");
    if sections.is_empty() {
        top.wrong(
            "pools",
            "a host needs at least one pool",
            "a table such as [pools.ci] with labels, image and max_runners",
        );
    }
    let mut complete = true;
    for (name, section) in sections {
        let pool = pool::pool(&name, section, &scopes, reconcile);
        complete &= pool.is_some();
        pools.extend(pool);
    }

    demand::check_source(&top, &pools, scopes.configs(), takes_deliveries);
    if let Some(host) = &host {
        demand::name_scale_sets(&top, &mut pools, host);
    }
    if complete && scopes.are_complete() {
        scopes.check_use(&top, &pools);
    }

    if run_dir.join(LONGEST_SOCKET).as_os_str().len() > SOCKET_PATH_MAX_BYTES {
        top.wrong(
            "run_dir",
            "paths of sockets below it are longer than 107 bytes",
            "a shorter directory, such as \"/run/runner-controller\"",
        );
    }
    let dirs = BTreeSet::from([&state_dir, &run_dir, &layer_dir]);
    if dirs.len() < 3 {
        top.wrong(
            "layer_dir",
            "state_dir, run_dir and layer_dir must be three directories, because their owners differ",
            "nothing, for the defaults",
        );
    }
    if let Some(network) = &network {
        network::check_places(&top, network, &pools);
        egress::check_allow(&top, network, &pools);
    }
    top.finish();

    (complete && scopes.are_complete()).then_some(Config {
        host: host?,
        scopes: scopes.configs,
        network: network?,
        pools,
        state_dir,
        run_dir,
        layer_dir,
        reconcile,
        reserve,
        history,
        logs,
        listen,
        api_token_file,
        webhook,
        notify,
        traces,
        budget,
        order,
        observes,
    })
}

/// Reads whether the daemon only observes.
fn observes(top: &mut Section<'_>) -> bool {
    let example = "\"run\" or \"observe\"";
    match top.text("mode", example).as_deref() {
        None | Some("run") => false,
        Some("observe") => true,
        Some(other) => {
            let wrong = format!("the mode {other:?} is unknown");
            top.wrong("mode", wrong, format!("mode = {example}"));
            false
        }
    }
}

fn reserve(mut section: Section<'_>) -> ReserveConfig {
    let reserve = ReserveConfig {
        disk: section.parsed("disk", "\"5 GiB\""),
        memory: section.parsed("memory", "\"1 GiB\""),
    };
    section.finish();
    reserve
}

fn history(mut section: Section<'_>) -> HistoryConfig {
    let default = HistoryConfig::default();
    let history = HistoryConfig {
        age: section.duration("age", default.age, DAY..=3_650 * DAY),
        runners: section
            .number("runners", 100..=2_000_000)
            .unwrap_or(default.runners),
    };
    section.finish();
    history
}

/// Reads the file of the token for commands over TCP.
fn api_token_file(top: &mut Section<'_>, listen: &[SocketAddr]) -> Option<PathBuf> {
    let file = top.path("api_token_file", "\"/run/agenix/runner-controller-api\"")?;
    if file.starts_with("/nix/store") {
        top.wrong(
            "api_token_file",
            "every user of the host can read /nix/store",
            "a path outside it, such as \"/run/agenix/runner-controller-api\"",
        );
    }
    if listen.is_empty() {
        top.wrong(
            "api_token_file",
            "there is not a TCP address to use it on; the Unix socket checks its peer instead",
            "listen = [\"127.0.0.1:9817\"] as well, or no api_token_file",
        );
    }
    Some(file)
}

#[cfg(test)]
mod tests;
