//! All scale sets, and what they share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    access::{ServiceToken, ServiceTokenKind},
    set::{ClaimStage, ScaleSet},
};
use crate::{
    scope::Scope,
    settings::Settings,
    state::{JobRecord, RegisteredRunner},
    view::JobState,
};

/// All scale sets, also those that were deleted.
#[derive(Debug, Default)]
pub(crate) struct ScaleSets {
    sets: BTreeMap<u64, ScaleSet>,
    pub(crate) service: ScaleSetService,
}

/// Tokens and next ids of the service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ScaleSetService {
    tokens: Vec<ServiceToken>,
    last_set: u64,
    last_request: u64,
}

/// Counts of jobs and runners, as the service sends them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the service has these names")]
pub(crate) struct Statistics {
    total_available_jobs: u64,
    total_acquired_jobs: u64,
    total_assigned_jobs: u64,
    total_running_jobs: u64,
    total_registered_runners: u64,
    total_busy_runners: u64,
    total_idle_runners: u64,
}

impl ScaleSetService {
    /// Gives a token of a scope, and forgets expired ones.
    pub(crate) fn issue(&mut self, token: ServiceToken, now: u64) {
        self.tokens.retain(|known| now < known.expires);
        self.tokens.push(token);
    }

    /// Returns the scope that a token gives access to.
    pub(crate) fn scope_of(&self, kind: ServiceTokenKind, token: &str, now: u64) -> Option<&Scope> {
        self.tokens
            .iter()
            .find(|known| known.kind == kind && known.token == token && now < known.expires)
            .map(|known| &known.scope)
    }

    /// Ends every token of a kind.
    pub(crate) fn expire(&mut self, kind: ServiceTokenKind) {
        self.tokens.retain(|token| token.kind != kind);
    }

    pub(crate) fn take_request_id(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }
}

impl ScaleSets {
    /// Returns the sets that exist and those that were deleted, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ScaleSet> {
        self.sets.values()
    }

    /// Returns the sets that exist.
    pub(crate) fn live(&self) -> impl Iterator<Item = &ScaleSet> {
        self.all().filter(|set| !set.deleted)
    }

    pub(super) fn live_mut(&mut self) -> impl Iterator<Item = &mut ScaleSet> {
        self.sets.values_mut().filter(|set| !set.deleted)
    }

    /// Returns a set that exists.
    pub(crate) fn get(&self, id: u64) -> Option<&ScaleSet> {
        self.sets.get(&id).filter(|set| !set.deleted)
    }

    /// Returns a set that exists.
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut ScaleSet> {
        self.sets.get_mut(&id).filter(|set| !set.deleted)
    }

    pub(crate) fn insert(&mut self, set: ScaleSet) {
        self.sets.insert(set.id, set);
    }

    pub(crate) fn take_set_id(&mut self) -> u64 {
        self.service.last_set += 1;
        self.service.last_set
    }

    /// Returns the set that holds a job.
    pub(crate) fn holder_of(&self, job: u64) -> Option<u64> {
        self.live()
            .find(|set| set.claims.contains_key(&job))
            .map(|set| set.id)
    }

    /// Returns the set whose session has this queue token, if the token is valid.
    pub(crate) fn by_queue_token(&mut self, token: &str, now: u64) -> Option<&mut ScaleSet> {
        self.live_mut().find(|set| {
            set.session
                .as_ref()
                .is_some_and(|session| session.token == token && now < session.token_expires)
        })
    }
}

impl Statistics {
    pub(crate) fn of(
        set: &ScaleSet,
        jobs: &BTreeMap<u64, JobRecord>,
        runners: &BTreeMap<u64, RegisteredRunner>,
        settings: &Settings,
        now: u64,
    ) -> Self {
        let mut counts = Self {
            total_available_jobs: set.offers.len() as u64,
            total_assigned_jobs: set.load(),
            ..Self::default()
        };
        if settings.scale_sets.zero_assigned {
            counts.total_assigned_jobs = 0;
        }
        let running = |id: &u64| {
            jobs.get(id)
                .is_some_and(|job| job.state == JobState::InProgress)
        };
        counts.total_running_jobs = set
            .claims
            .iter()
            .filter(|(id, claim)| claim.stage == ClaimStage::Started && running(id))
            .count() as u64;
        let own =
            |runner: &&RegisteredRunner| runner.scale_set == Some(set.id) && runner.is_registered();
        for runner in runners.values().filter(own) {
            counts.total_registered_runners += 1;
            if runner.job.is_some_and(|job| running(&job)) {
                counts.total_busy_runners += 1;
            } else if runner.is_online(now, settings.offline_after_ms) {
                counts.total_idle_runners += 1;
            }
        }
        counts
    }
}
