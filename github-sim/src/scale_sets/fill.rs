//! Changes that jobs and time make to scale sets: sets claim jobs, and claimed jobs become items.

use std::collections::BTreeMap;

use super::{
    items,
    set::{Claim, ClaimStage, ScaleSet},
    sets::ScaleSets,
};
use crate::{
    scale_set_settings::ScaleSetMode,
    settings::Settings,
    state::{JobRecord, RegisteredRunner},
    view::JobState,
};

type Jobs = BTreeMap<u64, JobRecord>;
type Runners = BTreeMap<u64, RegisteredRunner>;

impl ScaleSets {
    /// Makes the changes that are due. Tells whether anything changed.
    pub(crate) fn settle(
        &mut self,
        jobs: &Jobs,
        runners: &Runners,
        settings: &Settings,
        public_url: &str,
        now: u64,
    ) -> bool {
        let mut changed = false;
        for set in self.live_mut() {
            changed |= report(set, jobs, settings, now);
        }
        if self.live().next().is_none() {
            return changed;
        }
        for job in jobs.values() {
            let waits = job.state == JobState::Queued && !job.held;
            if waits && self.holder_of(job.id).is_none() {
                changed |= match settings.scale_sets.mode {
                    ScaleSetMode::Auto => self.assign(job, runners, settings, now),
                    ScaleSetMode::Acquire => self.offer(job, settings, public_url, now),
                };
            }
        }
        changed
    }

    /// Assigns a job to the set whose part of its capacity in use is smallest. So sets with equal labels fill
    /// in proportion to the capacity that each advertised.
    fn assign(
        &mut self,
        job: &JobRecord,
        runners: &Runners,
        settings: &Settings,
        now: u64,
    ) -> bool {
        let lapse = settings.scale_sets.session_lapse_ms;
        let best = self
            .live_mut()
            .filter(|set| {
                set.load() < set.capacity(now, lapse)
                    && takes(set, job, settings)
                    && (!job.spec.hidden_rerun || has_idle_runner(set, runners, settings, now))
            })
            .min_by(|one, other| {
                let of = |set: &ScaleSet, part: &ScaleSet| set.load() * part.capacity(now, lapse);
                of(one, other).cmp(&of(other, one))
            });
        if let Some(set) = best {
            set.claim(job, 0, now);
            return true;
        }
        false
    }

    /// Offers a job to every set that may acquire it.
    fn offer(&mut self, job: &JobRecord, settings: &Settings, public_url: &str, now: u64) -> bool {
        let lapse = settings.scale_sets.session_lapse_ms;
        let free = |set: &&ScaleSet| {
            let taken = set.load() + set.offers.len() as u64;
            taken < set.capacity(now, lapse)
                && !set.offers.contains_key(&job.id)
                && takes(set, job, settings)
        };
        let ids: Vec<u64> = self.live().filter(free).map(|set| set.id).collect();
        for id in &ids {
            let request_id = self.service.take_request_id();
            if let Some(set) = self.get_mut(*id) {
                set.offers.insert(job.id, request_id);
                let url = items::acquire_url(public_url, *id);
                set.items.push(items::available(job, request_id, &url));
            }
        }
        !ids.is_empty()
    }

    /// Gives the set `id` the jobs that it was offered under these request ids. Returns those that it won.
    pub(crate) fn acquire(&mut self, id: u64, requests: &[u64], jobs: &Jobs, now: u64) -> Vec<u64> {
        let mut won = vec![];
        for request in requests {
            let offered = self.get(id).and_then(|set| {
                let (job, _) = set.offers.iter().find(|(_, offer)| *offer == request)?;
                Some(*job)
            });
            let job = offered
                .filter(|job| self.holder_of(*job).is_none())
                .and_then(|job| jobs.get(&job))
                .filter(|job| job.state == JobState::Queued);
            let Some(job) = job else { continue };
            for other in self.live_mut() {
                other.offers.remove(&job.id);
            }
            if let Some(set) = self.get_mut(id) {
                set.claim(job, *request, now);
                won.push(*request);
            }
        }
        won
    }
}

impl ScaleSet {
    fn claim(&mut self, job: &JobRecord, request_id: u64, now: u64) {
        let claim = Claim {
            stage: ClaimStage::Assigned,
            request_id,
            assigned_at: now,
            reassigned: 0,
        };
        self.items.push(items::assigned(job, &claim));
        self.claims.insert(job.id, claim);
    }

    /// Tells the set that a job ended, although it runs on. Returns `false` if the set does not hold it.
    pub(crate) fn end_early(&mut self, job: &JobRecord, now: u64) -> bool {
        let Some(claim) = self.claims.get_mut(&job.id) else {
            return false;
        };
        claim.stage = ClaimStage::EndedEarly;
        let runner = items::runner_of(job);
        let item = items::completed(job, claim, "succeeded", runner, now);
        self.items.push(item);
        true
    }

    /// Ends a job without an item. Returns `false` if the set does not hold it.
    pub(crate) fn lose(&mut self, job: u64) -> bool {
        let claim = self.claims.get_mut(&job);
        claim.is_some_and(|claim| {
            claim.stage = ClaimStage::Lost;
            true
        })
    }

    /// Tells the set in one message that `runner` started the job and that the job was cancelled. Returns
    /// `false` if the set does not hold the job.
    pub(crate) fn start_and_cancel(
        &mut self,
        job: &JobRecord,
        runner: &RegisteredRunner,
        now: u64,
    ) -> bool {
        let Some(claim) = self.claims.remove(&job.id) else {
            return false;
        };
        let runner = items::named(runner);
        self.items.push(items::started(job, &claim, runner));
        self.items
            .push(items::completed(job, &claim, "canceled", runner, now));
        true
    }
}

fn takes(set: &ScaleSet, job: &JobRecord, settings: &Settings) -> bool {
    set.scope.serves(&job.origin)
        && set.has_labels(&job.spec.labels)
        && settings.group_admits(&set.scope, set.group_id, job)
}

fn has_idle_runner(set: &ScaleSet, runners: &Runners, settings: &Settings, now: u64) -> bool {
    runners.values().any(|runner| {
        runner.scale_set == Some(set.id) && runner.is_free(now, settings.offline_after_ms)
    })
}

/// Turns what happened to the set's jobs into items.
fn report(set: &mut ScaleSet, jobs: &Jobs, settings: &Settings, now: u64) -> bool {
    let mut new = vec![];
    let mut ended = vec![];
    for (id, claim) in &mut set.claims {
        let Some(job) = jobs.get(id) else {
            ended.push(*id);
            continue;
        };
        let runner = items::runner_of(job);
        if claim.stage == ClaimStage::Assigned && job.started_at.is_some() {
            new.push(items::started(job, claim, runner));
            claim.stage = ClaimStage::Started;
        }
        match (claim.stage, job.completed_at) {
            (ClaimStage::Assigned | ClaimStage::Started, Some(at)) => {
                let result = items::result(job.conclusion);
                new.push(items::completed(job, claim, result, runner, at));
                ended.push(*id);
            }
            (ClaimStage::EndedEarly, Some(_)) => ended.push(*id),
            (ClaimStage::Assigned, None) => {
                let service = &settings.scale_sets;
                if now >= claim.assigned_at + service.reassign_after_ms
                    && claim.reassigned < service.reassign_times
                {
                    new.push(items::completed(job, claim, "canceled", (0, ""), now));
                    claim.assigned_at = now;
                    claim.reassigned += 1;
                    new.push(items::assigned(job, claim));
                }
            }
            (ClaimStage::Started | ClaimStage::EndedEarly, None) | (ClaimStage::Lost, _) => {}
        }
    }
    let offers = set.offers.len();
    let waits = |id: &u64| {
        jobs.get(id)
            .is_some_and(|job| job.state == JobState::Queued)
    };
    set.offers.retain(|id, _| waits(id));
    let changed = !new.is_empty() || !ended.is_empty() || set.offers.len() < offers;
    for id in ended {
        set.claims.remove(&id);
    }
    set.items.append(&mut new);
    changed
}
