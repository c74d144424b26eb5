//! A `[pools.<name>]` table.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::demand::Numbers;
use super::egress::egress;
use super::scopes::Scopes;
use super::section::{DAY, HOUR, MINUTE, SECOND, Section};
use super::{access, binds, calendar, environment, nix, proxy};
use crate::config::github::Scope;
use crate::config::pool::{Image, Layer, PoolConfig, RunnerLimits, SharedParts, Total};
use crate::config::units::{ByteSize, Cpu};
use crate::pool::{PoolName, Slot, Timeouts};

pub(super) fn pool(
    name: &str,
    mut section: Section<'_>,
    scopes: &Scopes,
    reconcile: Duration,
) -> Option<PoolConfig> {
    let name: Option<PoolName> = match name.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            section.wrong("(name)", error.to_string(), "a name such as [pools.ci]");
            None
        }
    };
    let labels = section.required(
        "labels",
        "[\"self-hosted\", \"ci\", \"x64\", \"Linux\"]",
        Section::texts,
    );
    if let Some(labels) = &labels {
        check_labels(&section, labels);
    }
    let runner_group = section
        .text("runner_group", "\"default\"")
        .unwrap_or_else(|| "default".into());
    let scope = scopes.of_pool(&mut section);
    if let Some(scope) = scope
        && matches!(scope.scope, Scope::Repository { .. })
        && !runner_group.eq_ignore_ascii_case("default")
    {
        let url = scope.key("url");
        section.wrong(
            "runner_group",
            format!("repositories do not have runner groups, and {url} names a repository"),
            format!("no runner_group, or the URL of the organisation in {url}"),
        );
    }
    let offset = section
        .number("offset", 0..=u32::from(u16::MAX))
        .unwrap_or(0);
    let max_runners: Option<u16> = section.required("max_runners", "4", |section, key, _| {
        section.number(key, 1..=Slot::MAX)
    });
    let numbers = Numbers::read(&mut section, max_runners.unwrap_or(Slot::MAX));
    let schedule = calendar::schedule(&mut section, &numbers, max_runners.unwrap_or(Slot::MAX));
    let wants_nix = section.flag("nix").unwrap_or(false);
    let (image, registration) = image(section.section("image"), wants_nix);
    let nix = nix::nix(&mut section, wants_nix, registration);
    let layer = layer(section.section("layer"));
    let limits = limits(section.section("limits"));
    let total = total(section.section("total"), &limits);
    let docker = section.flag("docker").unwrap_or(false);
    let timeouts = timeouts(section.section("timeouts"), reconcile);
    let work_folder = section
        .path("work_folder", "\"/home/runner/work\"")
        .map_or_else(
            || "/home/runner/work".to_owned(),
            |path| path.to_string_lossy().into_owned(),
        );
    let (egress, allow) = egress(&mut section);
    let proxy = proxy::of_pool(&mut section, &allow);
    let environment = environment::of_pool(&mut section, proxy.as_ref());
    let binds = binds::of_pool(&mut section);
    let devices = access::devices(&mut section);
    let capabilities = access::capabilities(&mut section);
    section.finish();
    Some(PoolConfig {
        name: name?,
        scope: scope?.scope_id(),
        offset,
        labels: labels?,
        runner_group,
        demand: numbers.demand,
        scale_set: numbers.scale_set,
        scale_down_after: numbers.scale_down_after,
        min_idle: numbers.min_idle,
        min_spare: numbers.min_spare,
        max_runners: max_runners?,
        schedule,
        image: image?,
        layer,
        limits,
        total,
        docker,
        timeouts,
        work_folder,
        egress,
        allow,
        nix,
        proxy,
        environment,
        binds,
        devices,
        capabilities,
    })
}

/// Checks labels by GitHub's rules: 1 to 100 labels per runner (its REST description) of up to 256
/// characters, compared without regard to case.
fn check_labels(section: &Section<'_>, labels: &[String]) {
    let write = "labels = [\"self-hosted\", \"ci\"], 1 to 100 of them";
    if labels.is_empty() || labels.len() > 100 {
        section.wrong(
            "labels",
            format!("a runner has 1 to 100 labels, not {}", labels.len()),
            write,
        );
    }
    let mut seen = BTreeSet::new();
    for label in labels {
        let is_plain = |c: char| !c.is_control() && c != ',';
        if label.is_empty()
            || label.trim() != label
            || label.chars().count() > 256
            || !label.chars().all(is_plain)
        {
            section.wrong(
                "labels",
                format!("{label:?} is empty, longer than 256 characters, or has a comma, a control character or space at an end"),
                write,
            );
        } else if !seen.insert(label.to_lowercase()) {
            section.wrong(
                "labels",
                format!("{label:?} repeats an earlier label, because GitHub ignores case"),
                "each label once",
            );
        }
    }
}

/// Reads the image, and the path of its registration in the container.
fn image(mut section: Section<'_>, wants_nix: bool) -> (Option<Image>, Option<PathBuf>) {
    let kind = section.required("kind", "\"directory\" or \"nixos\"", Section::text);
    let image = match kind.as_deref() {
        Some("directory") => {
            let runner_root = section.directory("runner_root", "/opt/actions-runner");
            section
                .required("path", "\"/var/lib/runner-images/debian\"", Section::path)
                .map(|path| Image::Directory { path, runner_root })
        }
        Some("nixos") => {
            let runner_root = section.directory("runner_root", "/var/lib/github-runner");
            let store = section.directory("store", "/nix/store");
            let system = section.required(
                "system",
                "\"/nix/store/…-nixos-system-runner\"",
                Section::path,
            );
            if let Some(system) = &system
                && system.parent() != Some(&store)
            {
                section.wrong(
                    "system",
                    format!(
                        "{} is not a path right below {}",
                        system.display(),
                        store.display()
                    ),
                    "the store path of the system for containers",
                );
            }
            system.map(|system| Image::Nixos {
                system,
                store,
                runner_root,
            })
        }
        Some(other) => {
            section.wrong(
                "kind",
                format!("the kind {other:?} is unknown"),
                "kind = \"directory\" or \"nixos\"",
            );
            None
        }
        None => None,
    };
    let registration = nix::registration(&mut section, image.as_ref(), wants_nix);
    // With an unknown kind, every other key would be reported as unknown.
    if image.is_some() {
        section.finish();
    }
    (image, registration)
}

fn layer(mut section: Section<'_>) -> Layer {
    let kind = section
        .text("kind", "\"tmpfs\"")
        .unwrap_or_else(|| "tmpfs".into());
    let size = section
        .parsed("size", "\"4 GiB\"")
        .unwrap_or(ByteSize(2 << 30));
    if size < ByteSize(16 << 20) {
        section.wrong(
            "size",
            format!("{size} is too small for a boot"),
            "size = \"2 GiB\", at least 16 MiB",
        );
    }
    let layer = match kind.as_str() {
        "tmpfs" => Layer::Tmpfs { size },
        "disk" => Layer::Disk { size },
        other => {
            section.wrong(
                "kind",
                format!("the kind {other:?} is unknown"),
                "kind = \"tmpfs\" or \"disk\"",
            );
            Layer::Tmpfs { size }
        }
    };
    section.finish();
    layer
}

fn limits(mut section: Section<'_>) -> RunnerLimits {
    let memory = section
        .parsed("memory", "\"6 GiB\"")
        .unwrap_or(ByteSize(4 << 30));
    if memory < ByteSize(64 << 20) {
        section.wrong(
            "memory",
            format!("{memory} is too little for a boot"),
            "memory = \"6 GiB\", at least 64 MiB",
        );
    }
    let limits = RunnerLimits {
        memory,
        cpu: section
            .millicores("cpu")
            .map(|millicores| Cpu { millicores }),
        tasks: section.number("tasks", 64..=4_194_304).unwrap_or(4096),
        io_weight: section.number("io_weight", 1..=10_000).unwrap_or(100),
        open_files: section
            .number("open_files", 1024..=1_048_576)
            .unwrap_or(65_536),
        shared: shared_parts(&mut section),
    };
    section.finish();
    limits
}

/// Reads the parts of shared tables. The least of each is enough for a boot.
fn shared_parts(section: &mut Section<'_>) -> SharedParts {
    let standard = SharedParts::default();
    let mut number = |key, range, standard| section.number(key, range).unwrap_or(standard);
    SharedParts {
        control_groups: number("control_groups", 100..=100_000, standard.control_groups),
        control_group_depth: number("control_group_depth", 10..=64, standard.control_group_depth),
        connections: number("connections", 64..=1 << 20, standard.connections),
        terminals: number("terminals", 16..=1 << 16, standard.terminals),
        inotify_instances: number(
            "inotify_instances",
            128..=1 << 20,
            standard.inotify_instances,
        ),
        inotify_watches: number("inotify_watches", 4096..=1 << 30, standard.inotify_watches),
        namespaces: number("namespaces", 128..=1 << 16, standard.namespaces),
        user_namespaces: number("user_namespaces", 0..=1 << 16, standard.user_namespaces),
        pending_signals: number("pending_signals", 64..=1 << 20, standard.pending_signals),
    }
}

/// Reads the limits of all runners together. None may be below the limit of one runner.
fn total(mut section: Section<'_>, limits: &RunnerLimits) -> Total {
    let total = Total {
        memory: section.parsed("memory", "\"24 GiB\""),
        cpu: section
            .millicores("cpu")
            .map(|millicores| Cpu { millicores }),
        tasks: section.number("tasks", 64..=4_194_304),
    };
    let check = |key, is_enough: bool, one: String| {
        if !is_enough {
            section.wrong(
                key,
                format!(
                    "all runners together may use less than one, which may use {one} (limits.{key})"
                ),
                format!("{key} = {one} or more, or a lower limits.{key}"),
            );
        }
    };
    if let Some(memory) = total.memory {
        let one = format!("\"{}\"", limits.memory);
        check("memory", memory >= limits.memory, one);
    }
    if let (Some(all), Some(one)) = (total.cpu, limits.cpu) {
        let cores = f64::from(one.millicores) / 1000.0;
        check("cpu", all.millicores >= one.millicores, cores.to_string());
    }
    if let Some(tasks) = total.tasks {
        check("tasks", tasks >= limits.tasks, limits.tasks.to_string());
    }
    section.finish();
    total
}

fn timeouts(mut section: Section<'_>, reconcile: Duration) -> Timeouts {
    let timeouts = Timeouts {
        boot: section.duration("boot", 90 * SECOND, SECOND..=HOUR),
        registration: section.duration("registration", 5 * MINUTE, SECOND..=HOUR),
        spare_age: section.duration("spare_age", 12 * HOUR, MINUTE..=30 * DAY),
        idle_age: section.duration("idle_age", 6 * HOUR, MINUTE..=30 * DAY),
        // GitHub ends a self-hosted job after five days.
        job: section.duration("job", 6 * HOUR, SECOND..=5 * DAY),
        stop: section.duration("stop", 100 * SECOND, SECOND..=HOUR),
    };
    if timeouts.registration < 2 * reconcile {
        section.wrong(
            "registration",
            format!(
                "the daemon sees an online runner at a reconcile, every {}, and may miss it once",
                humantime::format_duration(reconcile)
            ),
            format!(
                "registration = \"{}\" or more",
                humantime::format_duration(2 * reconcile)
            ),
        );
    }
    section.finish();
    timeouts
}
