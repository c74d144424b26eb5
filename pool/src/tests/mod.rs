//! Tests of the core: single rules, and random histories of a small world.

mod adoption;
mod claimed;
mod early;
mod examples;
mod histories;
mod numbers;
mod scopes;
mod verdicts;
mod world;

use std::time::Duration;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn spec(min_idle: u16, min_spare: u16, max_runners: u16) -> Spec {
    Spec {
        name: "ci".parse().unwrap(),
        scope: Some(scope()),
        slots: max_runners,
        numbers: Numbers {
            min_idle,
            min_spare,
            max_runners,
        },
        generation: "g1".into(),
        boots_at_once: 2,
        demand: Demand::Fixed,
        scale_down_after: DEFAULT_SCALE_DOWN_AFTER,
        cost: Some(Cost {
            runners: 1,
            ..Cost::default()
        }),
        timeouts: Timeouts {
            boot: MINUTE,
            registration: 5 * MINUTE,
            spare_age: 600 * MINUTE,
            idle_age: 300 * MINUTE,
            job: 60 * MINUTE,
            stop: 2 * MINUTE,
        },
    }
}

fn host() -> HostId {
    "h".parse().unwrap()
}

fn scope() -> ScopeId {
    ScopeId::new("https://api.github.com", "acme/widgets")
}

fn pace() -> Pace {
    Pace::new(DEFAULT_MINTS_PER_MINUTE)
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn slot_id(slot: Slot) -> SlotId {
    SlotId {
        pool: "ci".parse().unwrap(),
        slot,
    }
}

fn invocation(number: u64) -> Invocation {
    Invocation::parse(&format!("{number:032x}")).unwrap()
}

fn registration(number: u64) -> Registration {
    Registration {
        scope: Some(scope()),
        id: Some(RunnerId(number)),
        name: RunnerName::new(host(), slot_id(slot(1)), 7),
    }
}

fn end_record(invocation: Invocation, status: i32, at: Timestamp) -> EndRecord {
    EndRecord {
        invocation,
        service_result: "exit-code".into(),
        exit: Exit::Status(status),
        memory_peak_bytes: None,
        oom_kills: 0,
        cpu_ms: None,
        usage: ResourceUse::default(),
        listening_at: None,
        stop_requested: false,
        returns_result: true,
        last_line: None,
        at,
    }
}
