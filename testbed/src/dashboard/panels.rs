//! Rows and panels of the dashboard.
//!
//! `$instance` and `$pool` are the host and the pool that the reader chose. Metrics without the label `pool` are about
//! the whole host.

/// A row of panels.
#[derive(Debug)]
pub struct Row {
    /// Title.
    pub title: &'static str,
    /// Its panels, from left to right.
    pub panels: &'static [Panel],
}

/// A panel.
#[derive(Debug)]
pub struct Panel {
    /// Title.
    pub title: &'static str,
    /// The question that it answers, and the next step.
    pub help: &'static str,
    /// Form.
    pub kind: Kind,
    /// Unit, in Grafana's words.
    pub unit: &'static str,
    /// Queries, each with its legend.
    pub queries: &'static [(&'static str, &'static str)],
}

/// Form of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Curves over time.
    Curves,
    /// Areas over time, one above the other.
    Areas,
    /// One number, green.
    Number,
    /// One number that should be 0, red otherwise.
    Fault,
}

/// All rows.
pub const ROWS: &[Row] = &[
    Row {
        title: "Now",
        panels: &[
            Panel {
                title: "Idle runners",
                help: "Runners that wait for a job. If it is 0 while jobs wait, see the runbook no-idle-runner.",
                kind: Kind::Number,
                unit: "none",
                queries: &[(
                    "sum(runner_controller_pool_runners{instance=~\"$instance\",pool=~\"$pool\",state=\"idle\"})",
                    "",
                )],
            },
            Panel {
                title: "Busy runners",
                help: "Runners with a job.",
                kind: Kind::Number,
                unit: "none",
                queries: &[(
                    "sum(runner_controller_pool_runners{instance=~\"$instance\",pool=~\"$pool\",state=\"busy\"})",
                    "",
                )],
            },
            Panel {
                title: "Jobs that wait",
                help: "Jobs for which no runner listens so far. Without [webhook], a scale set or demand = \"queue\" nothing tells of them.",
                kind: Kind::Number,
                unit: "none",
                queries: &[(
                    "sum(runner_controller_jobs_waiting{instance=~\"$instance\",pool=~\"$pool\"}) or vector(0)",
                    "",
                )],
            },
            Panel {
                title: "Hosts that start no runners",
                help: "Hosts that drain, are short of a resource, or are not as configured. runner-status on the host has the reason.",
                kind: Kind::Fault,
                unit: "none",
                queries: &[(
                    "count(runner_controller_admission_open{instance=~\"$instance\"} == 0) or vector(0)",
                    "",
                )],
            },
            Panel {
                title: "Components that fail",
                help: "Parts of a host that fail, such as its firewall or its records. runner-controller doctor names cause and fix.",
                kind: Kind::Fault,
                unit: "none",
                queries: &[(
                    "sum(runner_controller_component_failing{instance=~\"$instance\"}) or vector(0)",
                    "",
                )],
            },
            Panel {
                title: "Alerts",
                help: "Alerts of monitoring/alerts.yml that fire. Each has a runbook.",
                kind: Kind::Fault,
                unit: "none",
                queries: &[(
                    "count(ALERTS{alertname=~\"RunnerController.*\",alertstate=\"firing\",instance=~\"$instance\"}) or vector(0)",
                    "",
                )],
            },
        ],
    },
    Row {
        title: "Jobs",
        panels: &[
            Panel {
                title: "Jobs that wait",
                help: "Jobs that wait for a runner, by pool.",
                kind: Kind::Areas,
                unit: "none",
                queries: &[
                    (
                        "sum by (pool) (runner_controller_jobs_waiting{instance=~\"$instance\",pool=~\"$pool\"})",
                        "{{pool}}",
                    ),
                    (
                        "sum(runner_controller_jobs_unserved{instance=~\"$instance\"})",
                        "no pool serves them",
                    ),
                ],
            },
            Panel {
                title: "Wait in the queue",
                help: "Time of jobs from the queue to their start.",
                kind: Kind::Curves,
                unit: "s",
                queries: &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(runner_controller_job_queue_wait_seconds_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                        "median",
                    ),
                    (
                        "histogram_quantile(0.95, sum by (le) (rate(runner_controller_job_queue_wait_seconds_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                        "95 %",
                    ),
                    (
                        "max(runner_controller_jobs_oldest_wait_seconds{instance=~\"$instance\",pool=~\"$pool\"})",
                        "waits longest now",
                    ),
                ],
            },
            Panel {
                title: "Jobs per minute by result",
                help: "Jobs that ended, by the result that GitHub's listener returned.",
                kind: Kind::Areas,
                unit: "none",
                queries: &[(
                    "sum by (result) (rate(runner_controller_job_results_total{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])) * 60",
                    "{{result}}",
                )],
            },
            Panel {
                title: "Duration of jobs",
                help: "From the start of a job to the end of its runner.",
                kind: Kind::Curves,
                unit: "s",
                queries: &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(runner_controller_job_seconds_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                        "median",
                    ),
                    (
                        "histogram_quantile(0.95, sum by (le) (rate(runner_controller_job_seconds_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                        "95 %",
                    ),
                    (
                        "max(runner_controller_longest_job_seconds{instance=~\"$instance\",pool=~\"$pool\"})",
                        "runs longest now",
                    ),
                ],
            },
            Panel {
                title: "Peak memory of jobs",
                help: "Compare it with limits.memory of the pool.",
                kind: Kind::Curves,
                unit: "bytes",
                queries: &[(
                    "histogram_quantile(0.95, sum by (le, pool) (rate(runner_controller_job_memory_peak_bytes_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                    "{{pool}}, 95 %",
                )],
            },
            Panel {
                title: "Processors that jobs use",
                help: "Processor time of runners that had a job, divided by time.",
                kind: Kind::Areas,
                unit: "none",
                queries: &[(
                    "sum by (pool) (rate(runner_controller_job_cpu_seconds_sum{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval]))",
                    "{{pool}}",
                )],
            },
        ],
    },
    Row {
        title: "Runners",
        panels: &[
            Panel {
                title: "Runners by state",
                help: "All runners of the chosen pools.",
                kind: Kind::Areas,
                unit: "none",
                queries: &[(
                    "sum by (state) (runner_controller_pool_runners{instance=~\"$instance\",pool=~\"$pool\"})",
                    "{{state}}",
                )],
            },
            Panel {
                title: "Slots in use",
                help: "At 100 %, further jobs wait: raise max_runners, or add a host with the same labels.",
                kind: Kind::Curves,
                unit: "percentunit",
                queries: &[(
                    "sum by (instance, pool) (runner_controller_pool_runners{instance=~\"$instance\",pool=~\"$pool\"}) / sum by (instance, pool) (runner_controller_pool_max{instance=~\"$instance\",pool=~\"$pool\"} > 0)",
                    "{{instance}} {{pool}}",
                )],
            },
            Panel {
                title: "Boot",
                help: "From the start of a container until it asked for its config.",
                kind: Kind::Curves,
                unit: "s",
                queries: &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(runner_controller_boot_seconds_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                        "median",
                    ),
                    (
                        "histogram_quantile(0.95, sum by (le) (rate(runner_controller_boot_seconds_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                        "95 %",
                    ),
                ],
            },
            Panel {
                title: "Registration",
                help: "From the request for a config until GitHub showed the runner online.",
                kind: Kind::Curves,
                unit: "s",
                queries: &[
                    (
                        "histogram_quantile(0.5, sum by (le) (rate(runner_controller_registration_seconds_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                        "median",
                    ),
                    (
                        "histogram_quantile(0.95, sum by (le) (rate(runner_controller_registration_seconds_bucket{instance=~\"$instance\",pool=~\"$pool\"}[$__rate_interval])))",
                        "95 %",
                    ),
                ],
            },
            Panel {
                title: "Ends per hour by verdict, without jobs that were done",
                help: "`runner-controller docs operations` explains each verdict. runner-controller history --failed lists the runners.",
                kind: Kind::Areas,
                unit: "none",
                queries: &[(
                    "sum by (reason) (rate(runner_controller_runner_ends_total{instance=~\"$instance\",pool=~\"$pool\",reason!=\"job_done\"}[$__rate_interval])) * 3600",
                    "{{reason}}",
                )],
            },
            Panel {
                title: "Days until GitHub refuses the runners",
                help: "Update the image before it is 0: see `runner-controller docs runner-versions`.",
                kind: Kind::Curves,
                unit: "d",
                queries: &[(
                    "(min by (instance, pool) (runner_controller_pool_runner_version_end_timestamp_seconds{instance=~\"$instance\",pool=~\"$pool\"}) - time()) / 86400",
                    "{{instance}} {{pool}}",
                )],
            },
        ],
    },
    Row {
        title: "GitHub",
        panels: &[
            Panel {
                title: "Calls per minute by outcome",
                help: "Outcomes other than ok are refusals and failures.",
                kind: Kind::Areas,
                unit: "none",
                queries: &[(
                    "sum by (outcome) (rate(runner_controller_github_calls_total{instance=~\"$instance\"}[$__rate_interval])) * 60",
                    "{{outcome}}",
                )],
            },
            Panel {
                title: "Time of GitHub's answers",
                help: "95 % of the answers took less. Polls of scale sets are not among them. The runbook github-fails has the next steps.",
                kind: Kind::Curves,
                unit: "s",
                queries: &[(
                    "histogram_quantile(0.95, sum by (le, operation) (rate(runner_controller_github_request_seconds_bucket{instance=~\"$instance\"}[$__rate_interval])))",
                    "{{operation}}",
                )],
            },
            Panel {
                title: "Calls left of the rate limits",
                help: "Part of the window that is left, by credential. Below 20 %, only mints, deletions and the like go on. See the runbook gate-closed.",
                kind: Kind::Curves,
                unit: "percentunit",
                queries: &[(
                    "min by (instance, credential, resource) (runner_controller_github_rate_limit_remaining{instance=~\"$instance\"} / (runner_controller_github_rate_limit_limit{instance=~\"$instance\"} > 0))",
                    "{{instance}} {{credential}}: {{resource}}",
                )],
            },
            Panel {
                title: "Registrations in a minute",
                help: "Above the pace, jobs wait for registrations. github.mints_per_minute changes it.",
                kind: Kind::Curves,
                unit: "none",
                queries: &[
                    (
                        "sum by (instance) (runner_controller_mints_last_minute{instance=~\"$instance\"})",
                        "{{instance}}",
                    ),
                    (
                        "sum by (instance) (runner_controller_mints_per_minute_max{instance=~\"$instance\"})",
                        "{{instance}}, maximum",
                    ),
                ],
            },
            Panel {
                title: "Closed gates, and registrations without a container",
                help: "A closed gate delays calls. runner-status has the reason.",
                kind: Kind::Curves,
                unit: "none",
                queries: &[
                    (
                        "sum by (instance, gate) (runner_controller_gate_closed{instance=~\"$instance\"})",
                        "{{instance}}: {{gate}}",
                    ),
                    (
                        "sum by (instance) (runner_controller_stray_registrations{instance=~\"$instance\"})",
                        "{{instance}}: strays",
                    ),
                    (
                        "sum by (instance) (runner_controller_foreign_registrations{instance=~\"$instance\"})",
                        "{{instance}}: of another host with this name",
                    ),
                ],
            },
            Panel {
                title: "Deliveries per minute by outcome",
                help: "With [webhook]. A wrong signature means another secret at GitHub.",
                kind: Kind::Areas,
                unit: "none",
                queries: &[(
                    "sum by (result) (rate(runner_controller_webhook_deliveries_total{instance=~\"$instance\"}[$__rate_interval])) * 60",
                    "{{result}}",
                )],
            },
            Panel {
                title: "Age of the newest news of jobs",
                help: "A source that is silent for long may be broken. The runbooks demand-silent, queue-unread and scale-set-silent have the next steps.",
                kind: Kind::Curves,
                unit: "s",
                queries: &[
                    (
                        "max by (instance) (runner_controller_webhook_last_delivery_age_seconds{instance=~\"$instance\"})",
                        "{{instance}}: delivery",
                    ),
                    (
                        "max by (instance, scope) (runner_controller_queue_last_read_age_seconds{instance=~\"$instance\"})",
                        "{{instance}}: reading {{scope}}",
                    ),
                    (
                        "max by (instance, pool) (runner_controller_scale_set_last_answer_age_seconds{instance=~\"$instance\",pool=~\"$pool\"})",
                        "{{instance}}: scale set of {{pool}}",
                    ),
                ],
            },
            Panel {
                title: "Scale sets",
                help: "Jobs that GitHub assigned, beside the room that the host announced.",
                kind: Kind::Curves,
                unit: "none",
                queries: &[
                    (
                        "sum by (instance, pool) (runner_controller_scale_set_assigned_jobs{instance=~\"$instance\",pool=~\"$pool\"})",
                        "{{instance}} {{pool}}: assigned",
                    ),
                    (
                        "sum by (instance, pool) (runner_controller_scale_set_capacity{instance=~\"$instance\",pool=~\"$pool\"})",
                        "{{instance}} {{pool}}: room",
                    ),
                ],
            },
        ],
    },
    Row {
        title: "Host",
        panels: &[
            Panel {
                title: "Resources that are short",
                help: "The host starts no runners meanwhile. See the runbook resource-short.",
                kind: Kind::Curves,
                unit: "none",
                queries: &[(
                    "sum by (instance, resource) (runner_controller_resource_short{instance=~\"$instance\"})",
                    "{{instance}}: {{resource}}",
                )],
            },
            Panel {
                title: "Use of the budget",
                help: "With [budget]. At 100 %, jobs wait for each other.",
                kind: Kind::Curves,
                unit: "percentunit",
                queries: &[(
                    "sum by (instance, resource) (runner_controller_budget_used{instance=~\"$instance\"}) / sum by (instance, resource) (runner_controller_budget_max{instance=~\"$instance\"} > 0)",
                    "{{instance}}: {{resource}}",
                )],
            },
            Panel {
                title: "Age of the daemon",
                help: "A curve that falls is a restart, which ends no runner.",
                kind: Kind::Curves,
                unit: "s",
                queries: &[(
                    "time() - max by (instance) (runner_controller_start_time_seconds{instance=~\"$instance\"})",
                    "{{instance}}",
                )],
            },
        ],
    },
];
