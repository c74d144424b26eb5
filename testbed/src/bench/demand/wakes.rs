//! Jobs that wait for a runner of a pool that follows its demand.

use anyhow::{Context, Result};
use github_sim::JobView;
use status::{PhaseKind, SetState};

use crate::bed::note;
use crate::bench::figures::{Figure, Source, median};
use crate::bench::floor::{self, Floor};
use crate::bench::one_pool;
use crate::bench::stamps::{Collector, Image};
use crate::bench::start::{SOON, begin};
use crate::bench::timeline::{self, LaterIn, Moment, SlotEvent, gaps, millis};
use crate::hook;
use crate::journal::{self, Mark};
use crate::lab::{DAEMON, Lab};
use crate::sim::pool_job;

/// Maximum time of the host's own work for a job that finds a spare, in milliseconds.
const OWN_WORK_MS: f64 = 60.0;
/// Maximum ratio of a boot to the floor.
const BOOT_RATIO: f64 = 1.15;

/// A source of demand, and the names of its figures.
pub(super) struct Origin {
    /// Value of the key `demand`.
    demand: &'static str,
    total: &'static str,
    told: &'static str,
    mint: &'static str,
}

pub(super) const WEBHOOK: Origin = Origin {
    demand: "webhook",
    total: "webhook: queued to runner's code, spare",
    told: "…until the daemon asks for a registration",
    mint: "…the stand-in's answer to that",
};

pub(super) const SCALE_SET: Origin = Origin {
    demand: "scale-set",
    total: "scale set: queued to runner's code, spare",
    ..WEBHOOK
};

/// The host, and the image whose runners tell when their code runs.
pub(super) struct Bench<'a> {
    pub(super) lab: &'a Lab,
    pub(super) collector: &'a Collector,
    pub(super) image: &'a Image,
}

impl Bench<'_> {
    /// Measures the time from a job's queue to the code of its runner, while a spare waits.
    pub(super) fn on_a_spare(&self, origin: &Origin, count: usize) -> Result<Vec<Figure>> {
        note(&format!(
            "{count} jobs that find a spare, {}",
            origin.demand
        ));
        self.begin(origin.demand, 1)?;
        // The page cache is still cold.
        self.serve(1)?;
        let mark = journal::mark(self.lab.host())?;
        let mut jobs = Vec::new();
        let mut total = Vec::new();
        for _ in 0..count {
            let (job, time) = self.serve(1)?;
            jobs.push(job);
            total.push(time);
        }
        let events = self.daemon_since(&mark)?;
        self.lab.reset()?;
        let answers = gaps(
            &events,
            Moment::Registering,
            Moment::Delivered,
            LaterIn::SameSlot,
        );
        let goal = OWN_WORK_MS + median(&answers);
        Ok(vec![
            Figure::plain(origin.total, "ms", Source::StandInAndRunner, total)
                .at_most(goal, " (60 + the stand-in's answer)"),
            Figure::plain(
                origin.told,
                "ms",
                Source::StandInAndDaemon,
                until_registering(&jobs, &events),
            ),
            Figure::plain(origin.mint, "ms", Source::Daemon, answers),
        ])
    }

    /// Measures the same while the pool has no container, in turns with the start of a bare one.
    pub(super) fn without_a_container(&self, pairs: usize) -> Result<Vec<Figure>> {
        note(&format!(
            "{pairs} jobs that find no container, and {pairs} floor containers, in turns"
        ));
        self.begin(WEBHOOK.demand, 0)?;
        let floor = Floor::prepare(self.lab.host(), self.image.path(), "runner-ci@.service", 1)?;
        floor.start_and_stop()?;
        self.serve(0)?;
        let mark = journal::mark(self.lab.host())?;
        let mut total = Vec::new();
        for _ in 0..pairs {
            floor.start_and_stop()?;
            total.push(self.serve(0)?.1);
        }
        let units = journal::since(self.lab.host(), &mark, floor::UNITS)?;
        let (starts, _) = floor::times(&journal::spans(&units));
        let boots = gaps(
            &self.daemon_since(&mark)?,
            Moment::Starting,
            Moment::Spare,
            LaterIn::SameSlot,
        );
        drop(floor);
        self.lab.reset()?;
        let bare = median(&starts);
        let goal = BOOT_RATIO * bare + OWN_WORK_MS;
        let ratio = median(&total) / bare;
        Ok(vec![
            Figure::plain("floor: start to READY", "ms", Source::Systemd, starts),
            Figure::plain("…our start call to spare", "ms", Source::Daemon, boots),
            Figure::plain(
                "webhook: queued to runner's code, no spare",
                "ms",
                Source::StandInAndRunner,
                total,
            )
            .at_most(
                goal,
                format!(" (1.15 × the floor's {bare:.0} + 60; this is {ratio:.2} ×)"),
            ),
        ])
    }

    /// Starts a daemon whose pool has this many spares while no job waits.
    fn begin(&self, demand: &str, spares: u16) -> Result<()> {
        let mut config = one_pool(self.lab, self.image.path()).with("ci", |pool| {
            (pool.min_idle, pool.min_spare, pool.max_runners) = (0, spares, 3);
            pool.more = format!("demand = \"{demand}\"\nscale_down_after = \"1s\"\n");
        });
        if demand == WEBHOOK.demand {
            config.top = hook::add(self.lab, "acme/widgets")?;
        }
        begin(self.lab, &config)
    }

    /// Runs a job, and returns it with the milliseconds from its queue to its runner's code.
    fn serve(&self, spares: usize) -> Result<(JobView, f64)> {
        self.await_rest(spares)?;
        self.collector.take();
        let id = self.lab.sim().queue(&pool_job("quick", "ci", "true"))?;
        let job = self.lab.sim().await_success(id, SOON)?;
        let codes = self.collector.take();
        let code = codes.iter().find(|event| event.moment == Moment::Code);
        let code = code.context("no runner told that its code runs")?.at_us;
        let time = millis(code.saturating_sub(job.created_at * 1000));
        Ok((job, time))
    }

    /// Waits until the pool has its spares and nothing else, and no job is known.
    fn await_rest(&self, spares: usize) -> Result<()> {
        self.lab.await_status("the pool to rest", SOON, |status| {
            let pool = status.pools.first()?;
            let demand = status.demand.as_ref()?;
            let has_spares = pool.runners.len() == spares
                && pool.count(PhaseKind::Spare) == u64::try_from(spares).ok()?;
            let no_job = demand.waiting.is_empty() && demand.running.is_empty();
            let mut sets = demand.scale_sets.iter();
            let sets_rest = sets.all(|set| {
                set.state == SetState::Listening
                    && set.assigned.unwrap_or_default() == 0
                    && set.capacity.is_some_and(|room| room > 0)
            });
            (has_spares && no_job && sets_rest).then_some(())
        })
    }

    fn daemon_since(&self, mark: &Mark) -> Result<Vec<SlotEvent>> {
        let entries = journal::since(self.lab.host(), mark, DAEMON)?;
        Ok(timeline::of_daemon(&entries))
    }
}

/// Returns the milliseconds from each job's queue to the first registration after it.
fn until_registering(jobs: &[JobView], events: &[SlotEvent]) -> Vec<f64> {
    let of = |job: &JobView| {
        let queued_us = job.created_at * 1000;
        let registering = events
            .iter()
            .filter(|event| event.moment == Moment::Registering)
            .find(|event| event.at_us >= queued_us)?;
        Some(millis(registering.at_us - queued_us))
    };
    jobs.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::example_job;

    #[test]
    fn a_jobs_registration_is_the_first_one_after_it() {
        let event = |at_us, moment| SlotEvent {
            at_us,
            slot: "ci-1".into(),
            moment,
        };
        let events = [
            event(900, Moment::Registering),
            event(1_500, Moment::Delivered),
            event(3_500, Moment::Registering),
            event(9_000, Moment::Registering),
        ];
        let job = |created_at| JobView {
            created_at,
            ..example_job()
        };
        assert_eq!(
            until_registering(&[job(1), job(4), job(10)], &events),
            [2.5, 5.0]
        );
    }
}
