//! A probe for a job that a delivery told of, and that GitHub does not assign to the idle scale set.

use super::*;
use crate::pool::{Demand, Evidence, JobDescription, JobKey, JobSource, KnownJob};
use crate::status::{ScaleSetStatus, SetState};

fn at_zero() -> Config {
    let mut config = config();
    let pool = &mut config.pools[0];
    pool.demand = Demand::ScaleSet;
    pool.scale_set = Some("fuzz-ci".into());
    (pool.min_idle, pool.min_spare) = (0, 0);
    config
}

fn counted(assigned: u64) -> Event {
    Event::ScaleSet(ScaleSetStatus {
        pool: "ci".into(),
        name: "fuzz-ci".into(),
        state: SetState::Listening,
        assigned: Some(assigned),
        ..ScaleSetStatus::default()
    })
}

fn job_of_a_delivery(config: &Config) -> KnownJob {
    KnownJob::new(
        JobKey {
            scope: config.scopes[0].scope_id(),
            source: JobSource::Webhook,
            id: 7,
        },
        Evidence::Queued,
        JobDescription {
            repository: "acme/widgets".into(),
            run_id: 1,
            workflow: "CI".into(),
            name: "build".into(),
            labels: vec!["ci".into()],
        },
        0,
    )
}

fn is_probed(status: &Status) -> bool {
    let sets = status.demand.iter().flat_map(|demand| &demand.scale_sets);
    sets.into_iter().any(|set| set.is_probed)
}

#[tokio::test(start_paused = true)]
async fn a_job_that_an_idle_scale_set_does_not_tell_of_gets_a_runner_that_ends_without_it() {
    let config = at_zero();
    let mut daemon = Daemon::start(shared(World {
        config: Some(config.clone()),
        ..World::default()
    }))
    .await;
    let tell = |event| async { daemon.fake.events.send(event).await.unwrap() };
    tell(counted(0)).await;
    tell(Event::Job(Box::new(job_of_a_delivery(&config)))).await;
    tokio::time::sleep(2 * MINUTE).await;
    assert!(daemon.status.borrow().runners().next().is_none());
    let status = daemon
        .until("probed", |s| count(s, PhaseKind::Idle) == 1)
        .await;
    assert!(is_probed(&status));
    let words = crate::view::notices(&status);
    let sentence =
        "pool ci: a job waits and scale set fuzz-ci tells of none, so one runner listens for it";
    assert!(
        words.iter().any(|notice| notice.text == sentence),
        "{words:?}"
    );
    // GitHub gives it no job, so it ends.
    let status = daemon
        .until("at zero again", |s| s.runners().next().is_none())
        .await;
    assert!(!is_probed(&status));
    assert_eq!(verdict(&status, Verdict::ScaledDown), 1);
    let minted = daemon.fake.with(|world| world.minted_at.len());
    assert_eq!(minted, 1, "one probe");
    daemon.stop().await;
}
