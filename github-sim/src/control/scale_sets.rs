//! The part of the control API that concerns scale sets: what only GitHub itself can do to them.

use super::Control;
use crate::{
    scale_sets::{ScaleSet, ServiceTokenKind},
    state::GitHubState,
    view::{Conclusion, JobState, ScaleSetView},
};

#[expect(
    clippy::must_use_candidate,
    reason = "a test often ignores the result of a change"
)]
impl Control {
    /// Returns all scale sets since the start, oldest first, also those that were deleted.
    pub fn scale_sets(&self) -> Vec<ScaleSetView> {
        self.hub
            .read(|state, _| state.scale_sets.all().map(view_set).collect())
    }

    /// Ends the session of a set, as GitHub does when it loses it. Returns `false` without a session.
    pub fn evict_session(&self, set: u64) -> bool {
        self.with_set(set, |set| set.session.take().is_some())
    }

    /// Makes the queue token of a set's session invalid. Returns `false` without a session.
    pub fn expire_queue_token(&self, set: u64) -> bool {
        self.with_set(set, |set| {
            let session = set.session.as_mut();
            session.is_some_and(|session| {
                session.token_expires = 0;
                true
            })
        })
    }

    /// Starts the message ids of a set anew. Returns `false` if the set does not exist.
    pub fn restart_messages(&self, set: u64) -> bool {
        self.with_set(set, |set| {
            set.restart_sequence();
            true
        })
    }

    /// Makes every admin token invalid.
    pub fn expire_admin_tokens(&self) {
        self.hub
            .change(|state, _| state.scale_sets.service.expire(ServiceTokenKind::Admin));
    }

    /// Loses a set, as GitHub does after a day without a session. Returns `false` if it does not exist.
    pub fn lose_scale_set(&self, set: u64) -> bool {
        self.hub.change(|state, _| {
            let known = state.scale_sets.get(set).is_some();
            state.end_scale_set(set);
            known
        })
    }

    /// Sends `JobCompleted` for a job that runs on. Returns `false` if no set holds the job, or if the job
    /// does not run.
    pub fn end_job_early(&self, job: u64) -> bool {
        self.hub.change(|state, now| {
            let GitHubState {
                scale_sets, jobs, ..
            } = state;
            let Some(job) = jobs.get(&job).filter(|j| j.state == JobState::InProgress) else {
                return false;
            };
            let holder = scale_sets.holder_of(job.id);
            let set = holder.and_then(|set| scale_sets.get_mut(set));
            set.is_some_and(|set| set.end_early(job, now))
        })
    }

    /// Cancels a job that no runner was offered, after a `JobStarted` that names `runner`. The runner takes
    /// another job afterwards. Returns `false` if no set holds the job, or if a runner was offered it.
    pub fn start_and_cancel_job(&self, job: u64, runner: u64) -> bool {
        self.hub.change(|state, now| {
            let GitHubState {
                scale_sets,
                jobs,
                runners,
                ..
            } = state;
            let waiting = jobs.get(&job).filter(|j| j.state == JobState::Queued);
            let (Some(waiting), Some(runner)) = (waiting, runners.get(&runner)) else {
                return false;
            };
            let holder = scale_sets.holder_of(job);
            let set = holder.and_then(|set| scale_sets.get_mut(set));
            let told = set.is_some_and(|set| set.start_and_cancel(waiting, runner, now));
            if told {
                state.end_job(job, Conclusion::Cancelled, None, now);
            }
            told
        })
    }

    /// Cancels a job that no runner was offered, without a message. The statistics of its set count it for
    /// ever. Returns `false` if no set holds the job, or if a runner was offered it.
    pub fn lose_job(&self, job: u64) -> bool {
        self.hub.change(|state, now| {
            let found = state.jobs.get(&job);
            if !found.is_some_and(|j| j.state == JobState::Queued) {
                return false;
            }
            let holder = state.scale_sets.holder_of(job);
            let set = holder.and_then(|set| state.scale_sets.get_mut(set));
            let lost = set.is_some_and(|set| set.lose(job));
            if lost {
                state.end_job(job, Conclusion::Cancelled, None, now);
            }
            lost
        })
    }

    fn with_set(&self, id: u64, act: impl FnOnce(&mut ScaleSet) -> bool) -> bool {
        self.hub
            .change(|state, _| state.scale_sets.get_mut(id).is_some_and(act))
    }
}

fn view_set(set: &ScaleSet) -> ScaleSetView {
    ScaleSetView {
        id: set.id,
        name: set.name.clone(),
        scope: set.scope.clone(),
        runner_group_id: set.group_id,
        labels: set.labels.clone(),
        deleted: set.deleted,
        session_owner: set.session.as_ref().map(|session| session.owner.clone()),
        polls: set.session.as_ref().map_or(0, |session| session.polls),
        capacity: set.session.as_ref().map_or(0, |session| session.capacity),
        jobs: set.claims.keys().copied().collect(),
        messages: set.messages.keys().copied().collect(),
    }
}
