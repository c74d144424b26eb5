//! The record of everything that is neither a runner, a job nor a scale set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    faults::FaultRule, scale_sets::ScaleSetService, settings::Settings, view::ScopeToken,
    webhooks::WebhookFaultRule,
};

/// The part of the state that is neither a runner, a job nor a scale set.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CommonRecord {
    pub(crate) settings: Settings,
    pub(crate) tokens: Vec<String>,
    #[serde(default)]
    pub(crate) scope_tokens: Vec<ScopeToken>,
    pub(crate) rules: Vec<FaultRule>,
    /// Start and end of the announced limit, unix milliseconds.
    pub(crate) announced: [u64; 2],
    pub(crate) while_limited: u64,
    pub(crate) calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// Next ids of runners, jobs and labels.
    pub(crate) next_ids: [u64; 3],
    #[serde(default)]
    pub(crate) scale_set_service: ScaleSetService,
    #[serde(default)]
    pub(crate) webhook_rules: Vec<WebhookFaultRule>,
}
