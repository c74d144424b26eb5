//! The status as `OpenMetrics` text.
//!
//! Label values are pools, scopes, states, verdicts, operations, resources and names of credentials. All come from
//! fixed or configured sets, or are GitHub's names of its at most 16 rate limits. So nothing that a job says can add a
//! series.

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::metric_families::{Labels, counter, gauge, label, set};
use super::{demand_metrics, measures};
use crate::pool::{JobResult, PaceReason, Resource, Verdict};
use crate::status::{DaemonState, Gate, Measure, PoolStatus, ScopeStatus, Status};

/// Prefix of all metric names.
const PREFIX: &str = "runner_controller";

/// Returns the text of `/metrics`.
pub(super) fn render(status: &Status) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    register_pools(&mut registry, &status.pools);
    register_versions(&mut registry, &status.pools);
    measures::register(&mut registry, &status.pools);
    register_daemon(&mut registry, status);
    register_host(&mut registry, status);
    register_traces(&mut registry, status);
    demand_metrics::register(&mut registry, status);
    demand_metrics::register_budget(&mut registry, status);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Registers the metrics of pools.
fn register_pools(registry: &mut Registry, pools: &[PoolStatus]) {
    let runners = gauge(registry, "pool_runners", "Runners by state");
    let min_idle = gauge(
        registry,
        "pool_min_idle",
        "Configured number of idle runners",
    );
    let min_spare = gauge(
        registry,
        "pool_min_spare",
        "Configured number of spares: booted containers that are not registered",
    );
    let max = gauge(registry, "pool_max", "Configured maximum number of runners");
    let ends = counter(
        registry,
        "runner_ends",
        "Runners that ended since the daemon started, by verdict",
    );
    let results = counter(
        registry,
        "job_results",
        "Jobs that ended since the daemon started, by result",
    );
    let failures = gauge(
        registry,
        "failures_in_a_row",
        "Failures without a success between them, by kind",
    );
    let longest_job = gauge(
        registry,
        "longest_job_seconds",
        "Run time of the job that runs longest, in seconds",
    );
    for pool in pools {
        let name = || label("pool", &pool.name);
        for (state, count) in &pool.phases {
            set(&runners, vec![name(), ("state", state.to_string())], *count);
        }
        set(&min_idle, vec![name()], u64::from(pool.wanted.idle));
        set(&min_spare, vec![name()], u64::from(pool.wanted.spare));
        set(&max, vec![name()], u64::from(pool.wanted.max));
        // Every verdict is a series from the start, so that its first increase shows.
        for verdict in Verdict::ALL {
            let count = pool.verdicts.get(verdict).copied();
            ends.get_or_create(&vec![name(), ("reason", verdict.to_string())])
                .inc_by(count.unwrap_or_default());
        }
        for result in JobResult::ALL {
            let count = pool.results.get(result).copied();
            results
                .get_or_create(&vec![name(), ("result", result.to_string())])
                .inc_by(count.unwrap_or_default());
        }
        for backoff in &pool.backoffs {
            let labels = vec![name(), ("reason", backoff.failure.to_string())];
            set(&failures, labels, u64::from(backoff.failures));
        }
        let jobs = pool.runners.iter().filter_map(|runner| runner.job.as_ref());
        let longest = jobs.map(|job| job.running_ms / 1000).max();
        set(&longest_job, vec![name()], longest.unwrap_or_default());
    }
}

/// Registers the versions of the pools' runners. Each pool has one.
fn register_versions(registry: &mut Registry, pools: &[PoolStatus]) {
    let info = gauge(
        registry,
        "pool_runner_version_info",
        "1, with the version of GitHub's runner in the pool as a label",
    );
    let end = gauge(
        registry,
        "pool_runner_version_end_timestamp_seconds",
        "Time from which GitHub refuses the pool's runners, in seconds since 1970; none if GitHub tells no date",
    );
    for pool in pools {
        let Some(status) = &pool.runner_version else {
            continue;
        };
        let version = ("version", status.version.to_string());
        set(&info, vec![label("pool", &pool.name), version], 1);
        if let Some(unix_ms) = status.end_unix_ms() {
            set(&end, vec![label("pool", &pool.name)], unix_ms / 1000);
        }
    }
}

/// Registers the metrics of the daemon itself.
fn register_daemon(registry: &mut Registry, status: &Status) {
    let build = gauge(
        registry,
        "build_info",
        "1, with the version of the program as a label",
    );
    set(&build, vec![label("version", &status.program)], 1);
    let started = gauge(
        registry,
        "start_time_seconds",
        "Start of the daemon, in seconds since 1970",
    );
    set(&started, vec![], status.since_unix_ms / 1000);
    let state = gauge(
        registry,
        "daemon_state",
        "1 for the state of the daemon, otherwise 0",
    );
    for one in <DaemonState as strum::VariantArray>::VARIANTS {
        let is_state = u64::from(*one == status.state);
        set(&state, vec![("state", one.to_string())], is_state);
    }
}

/// Registers the metrics of the host and of what it depends on.
fn register_host(registry: &mut Registry, status: &Status) {
    let scopes = status.scopes();
    register_calls(registry, &scopes);
    register_rate_limits(registry, &scopes);
    let strays = gauge(
        registry,
        "stray_registrations",
        "Registrations without a container, which are being deleted",
    );
    for scope in scopes.iter() {
        set(&strays, of(scope, vec![]), scope.strays.len() as u64);
    }
    let foreign = gauge(
        registry,
        "foreign_registrations",
        "Online runners with this host's name and without a container here: another host uses the name",
    );
    for scope in scopes.iter() {
        set(&foreign, of(scope, vec![]), scope.foreign.len() as u64);
    }
    let former = gauge(
        registry,
        "former_scope_registrations",
        "Runners of this host in scopes of earlier configurations",
    );
    let left = status.former.iter();
    let left = left.map(|scope| (scope.runners.len() + scope.strays.len()) as u64);
    set(&former, vec![], left.sum());
    let closed = gauge(
        registry,
        "gate_closed",
        "1 if calls to GitHub wait at the gate, otherwise 0",
    );
    // A gate of a former scope is not one of these; `former_scope_registrations` counts what waits there.
    for scope in scopes.iter() {
        let gates = status.gates.iter();
        let gates = gates.filter(|closed| closed.scope == scope.name);
        let gates: Vec<Gate> = gates.map(|closed| closed.gate).collect();
        for gate in <Gate as strum::VariantArray>::VARIANTS {
            let labels = vec![("gate", gate.to_string())];
            let is_closed = u64::from(gates.contains(gate));
            set(&closed, of(scope, labels), is_closed);
        }
    }
    register_pace(registry, &scopes);
    let open = gauge(
        registry,
        "admission_open",
        "1 if runners may start and register, otherwise 0",
    );
    set(&open, vec![], u64::from(status.closed.is_empty()));
    let short = gauge(
        registry,
        "resource_short",
        "1 if the host has too little of the resource left to start runners, otherwise 0",
    );
    for resource in Resource::ALL {
        let is_short = status.shortages.contains_key(resource);
        let labels = vec![("resource", resource.to_string())];
        set(&short, labels, u64::from(is_short));
    }
    let failing = gauge(
        registry,
        "component_failing",
        "1 if the component fails or is not as configured, otherwise 0",
    );
    for scope in scopes.iter() {
        let labels = of(scope, vec![label("component", "github")]);
        set(&failing, labels, u64::from(scope.github.error.is_some()));
    }
    for (component, is_failing) in [
        ("systemd", status.systemd_error.is_some()),
        ("firewall", status.firewall_error.is_some()),
        ("records", status.records_error.is_some()),
    ] {
        let labels = vec![label("component", component)];
        set(&failing, labels, u64::from(is_failing));
    }
}

/// Registers the calls to GitHub and the times of its answers.
fn register_calls(registry: &mut Registry, scopes: &[ScopeStatus]) {
    let calls = counter(
        registry,
        "github_calls",
        "Calls to GitHub since the daemon started, by operation and outcome",
    );
    for scope in scopes {
        for (operation, outcomes) in &scope.github.calls {
            for (outcome, count) in outcomes {
                let labels = vec![label("operation", operation), label("outcome", outcome)];
                calls.get_or_create(&of(scope, labels)).inc_by(*count);
            }
        }
    }
    let times = measures::family(
        registry,
        "github_request_seconds",
        "Time from a request to GitHub until its whole answer, by operation, without polls of scale sets",
    );
    for scope in scopes {
        for (operation, histogram) in &scope.answer_times {
            let labels = of(scope, vec![label("operation", operation)]);
            measures::set(&times, labels, Measure::GitHubRequest, histogram.clone());
        }
    }
}

/// Registers the rate limits. Scopes with the same credential have the same series.
fn register_rate_limits(registry: &mut Registry, scopes: &[ScopeStatus]) {
    let limit = gauge(
        registry,
        "github_rate_limit_limit",
        "Calls in a whole window of GitHub's rate limit, by credential and resource",
    );
    let remaining = gauge(
        registry,
        "github_rate_limit_remaining",
        "Calls that are left in the window, as GitHub last announced; all of them after its reset",
    );
    let reset = gauge(
        registry,
        "github_rate_limit_reset_timestamp_seconds",
        "Time at which GitHub resets the window, in seconds since 1970, as GitHub last announced",
    );
    for window in scopes.iter().flat_map(|scope| &scope.rate_limits) {
        let labels = || {
            let credential = label("credential", &window.credential);
            vec![credential, label("resource", &window.resource)]
        };
        set(&limit, labels(), window.limit);
        set(&remaining, labels(), window.remaining);
        set(&reset, labels(), window.reset_unix_s);
    }
}

/// Registers the traces, if a collector gets them.
fn register_traces(registry: &mut Registry, status: &Status) {
    let ends = counter(
        registry,
        "traces",
        "Traces of runners that ended since the daemon started, by outcome; none without [traces]",
    );
    let waiting = gauge(
        registry,
        "traces_waiting",
        "Traces that wait for the collector",
    );
    if let Some(traces) = &status.traces {
        for (outcome, count) in [("sent", traces.sent), ("dropped", traces.dropped)] {
            let labels = vec![label("outcome", outcome)];
            ends.get_or_create(&labels).inc_by(count);
        }
        set(&waiting, vec![], traces.waiting);
    }
}

/// Registers the pace of registrations.
fn register_pace(registry: &mut Registry, scopes: &[ScopeStatus]) {
    let max = gauge(
        registry,
        "mints_per_minute_max",
        "Maximum number of registrations in a minute, as GitHub's answers leave it",
    );
    let recent = gauge(
        registry,
        "mints_last_minute",
        "Registrations in the last minute",
    );
    let paced_by = gauge(
        registry,
        "mints_paced_by",
        "1 for the reason for the maximum number of registrations, otherwise 0",
    );
    for scope in scopes {
        let Some(pace) = scope.github.pace else {
            continue;
        };
        set(&max, of(scope, vec![]), pace.mints_per_minute);
        set(&recent, of(scope, vec![]), pace.last_minute);
        for reason in <PaceReason as strum::VariantArray>::VARIANTS {
            let labels = vec![("reason", reason.to_string())];
            let is_reason = u64::from(*reason == pace.paced_by);
            set(&paced_by, of(scope, labels), is_reason);
        }
    }
}

/// Returns the labels of a scope's series. A scope without a name adds none.
fn of(scope: &ScopeStatus, mut labels: Labels) -> Labels {
    let name = scope.name.as_ref();
    labels.extend(name.map(|name| label("scope", name)));
    labels
}

#[cfg(test)]
mod tests;
