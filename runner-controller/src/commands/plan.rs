//! `plan`: the numbers of runners that the daemon works towards, and why they are not higher.

use std::fmt::Write;
use std::path::Path;

use super::common::{api_socket, block_on};
use super::table::{lines, table};
use crate::http::client;
use crate::status::{PhaseKind, PoolStatus, Status, TargetStatus};
use crate::terminal;
use crate::view::budget_share;

/// Prints the plan as a table or as JSON.
pub fn plan(config: &Path, json: bool) -> anyhow::Result<()> {
    let socket = api_socket(config);
    let status = block_on(client::status(&socket))??;
    if json {
        let text = serde_json::to_string_pretty(&document(&status))?;
        stdio::print_line(terminal::plain_json(&text))?;
    } else {
        stdio::print(render(&terminal::plain_document(&status)?))?;
    }
    Ok(())
}

/// Returns the parts of the status that the plan is made of.
fn document(status: &Status) -> serde_json::Value {
    let pool = |pool: &PoolStatus| {
        serde_json::json!({
            "name": pool.name,
            "phases": pool.phases,
            "target": pool.target,
            "schedule": pool.wanted.schedule,
            "waiting": pool.demand.as_ref().map(|demand| demand.waiting),
            "waits_for": pool.demand.as_ref().and_then(|demand| demand.waits_for),
            "backoffs": pool.backoffs,
        })
    };
    serde_json::json!({
        "closed": status.closed,
        "budget": status.budget,
        "pools": status.pools.iter().map(pool).collect::<Vec<_>>(),
    })
}

fn listening(pool: &PoolStatus) -> u64 {
    let kinds = [PhaseKind::Minting, PhaseKind::Registering, PhaseKind::Idle];
    kinds.into_iter().map(|kind| pool.count(kind)).sum()
}

fn warm(pool: &PoolStatus) -> u64 {
    pool.count(PhaseKind::Booting) + pool.count(PhaseKind::Spare)
}

/// Returns the plan as a table.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
    for reason in &status.closed {
        let _ = writeln!(text, "no new runners: {reason}");
    }
    for (resource, share) in &status.budget {
        let _ = writeln!(text, "budget: {}", budget_share(*resource, *share));
    }
    for pool in &status.pools {
        if let Some(schedule) = &pool.wanted.schedule {
            let wanted = &pool.wanted;
            let (idle, spare, max) = (wanted.idle, wanted.spare, wanted.max);
            let _ = writeln!(
                text,
                "pool {}, schedule {schedule}: {idle} idle, {spare} spare, at most {max} runners",
                pool.name
            );
        }
    }
    let mut rows = table([
        "POOL",
        "WAITING",
        "LISTENING",
        "SPARE",
        "NEXT",
        "WHY NOT MORE",
    ]);
    for pool in &status.pools {
        let (target, demand) = (pool.target.unwrap_or_default(), pool.demand.as_ref());
        let waiting = demand.map_or(0, |demand| demand.waiting);
        rows.add_row([
            pool.name.clone(),
            waiting.to_string(),
            format!("{} of {}", listening(pool), target.listeners),
            format!("{} of {}", warm(pool), target.spares),
            next(pool, target),
            why(pool),
        ]);
    }
    text += &lines(&rows);
    text
}

fn next(pool: &PoolStatus, target: TargetStatus) -> String {
    let ready = pool.count(PhaseKind::Spare);
    let registers = target.listeners.saturating_sub(listening(pool)).min(ready);
    let parts = [
        (registers, "register"),
        (target.starts, "start"),
        (target.preempted, "end for another pool"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, verb)| format!("{verb} {count}"))
        .collect();
    if parts.is_empty() {
        "nothing".to_owned()
    } else {
        parts.join(", ")
    }
}

fn why(pool: &PoolStatus) -> String {
    let backoffs = pool.backoffs.iter();
    let mut reasons: Vec<String> = backoffs
        .map(|backoff| backoff.failure.clause().to_owned())
        .collect();
    let waits = pool.demand.as_ref().and_then(|demand| demand.waits_for);
    reasons.extend(waits.map(|reason| reason.clause().to_owned()));
    if reasons.is_empty() {
        "enough for what is known".to_owned()
    } else {
        reasons.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{BudgetResource, BudgetUse};
    use crate::status::{PoolDemandStatus, WaitReason};

    #[test]
    fn the_plan_tells_the_next_steps_of_each_pool_and_why_there_are_no_more() {
        let status = Status {
            budget: [
                (
                    BudgetResource::MemoryBytes,
                    BudgetUse {
                        used: 6 << 30,
                        max: 8 << 30,
                    },
                ),
                (BudgetResource::Runners, BudgetUse { used: 3, max: 4 }),
            ]
            .into(),
            pools: vec![
                PoolStatus {
                    name: "ci".into(),
                    target: Some(TargetStatus {
                        listeners: 1,
                        spares: 1,
                        starts: 1,
                        ..TargetStatus::default()
                    }),
                    phases: [(PhaseKind::Spare, 1)].into(),
                    ..PoolStatus::default()
                },
                PoolStatus {
                    name: "gpu".into(),
                    phases: [(PhaseKind::Busy, 2)].into(),
                    target: Some(TargetStatus {
                        listeners: 1,
                        starts: 1,
                        ..TargetStatus::default()
                    }),
                    demand: Some(PoolDemandStatus {
                        waiting: 3,
                        waits_for: Some(WaitReason::Budget),
                        ..PoolDemandStatus::default()
                    }),
                    ..PoolStatus::default()
                },
            ],
            ..Status::default()
        };
        assert_eq!(
            render(&status),
            "budget: 6.0 GiB of 8.0 GiB of memory\n\
             budget: 3 of 4 runners\n\
             POOL  WAITING  LISTENING  SPARE   NEXT                 WHY NOT MORE\n\
             ci    0        0 of 1     1 of 1  register 1, start 1  enough for what is known\n\
             gpu   3        0 of 1     0 of 0  start 1              the budget of the host is used up\n"
        );
    }
}
