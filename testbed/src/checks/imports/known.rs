//! The circles that exist, all of them in tests and stand-ins. The list only becomes shorter.

/// Names of the files of each circle, sorted.
pub(super) const CIRCLES: &[&[&str]] = &[
    &[
        "github-sim/src/bin/standin-listener/broker.rs",
        "github-sim/src/bin/standin-listener/job.rs",
        "github-sim/src/bin/standin-listener/listen.rs",
        "github-sim/src/bin/standin-listener/main.rs",
        "github-sim/src/bin/standin-listener/root.rs",
        "github-sim/src/bin/standin-listener/worker.rs",
    ],
    &[
        "simulate/src/github/mod.rs",
        "simulate/src/github/queue.rs",
        "simulate/src/github/registrations.rs",
        "simulate/src/github/scale_sets.rs",
    ],
    &[
        "simulate/src/host/bus.rs",
        "simulate/src/host/container.rs",
        "simulate/src/host/mod.rs",
        "simulate/src/host/unit.rs",
    ],
];
