//! Registration of runners, for the REST API and for scale sets.

use crate::{
    jit_config, runner_key,
    scope::Scope,
    state::{GitHubState, RUNNER_ID_STEP, RegisteredRunner},
};

const LONGEST_NAME: usize = 64;

/// A runner that a client asks for, after the checks of its API.
pub(crate) struct RunnerRequest<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) group: (u64, &'a str),
    pub(crate) name: &'a str,
    pub(crate) labels: &'a [String],
    pub(crate) work_folder: &'a str,
    pub(crate) scale_set: Option<u64>,
    pub(crate) disable_update: bool,
}

/// Registers a runner. Returns its id and its JIT config.
pub(crate) fn register(
    state: &mut GitHubState,
    now: u64,
    request: &RunnerRequest<'_>,
) -> (u64, String) {
    let mut labels: Vec<(u64, String)> = vec![];
    for label in request.labels {
        let label = label.to_lowercase();
        if !labels.iter().any(|(_, known)| *known == label) {
            labels.push((state.take_label_id(), label));
        }
    }
    let id = state.take_runner_id();
    let key = runner_key::key_of(id / RUNNER_ID_STEP);
    let runner = RegisteredRunner {
        id,
        group_id: request.group.0,
        name: request.name.into(),
        scope: request.scope.clone(),
        labels,
        os: "unknown".into(),
        version: None,
        ephemeral: true,
        created_at: now,
        listed_from: now + state.settings.list_lag_ms,
        client_id: crate::random::uuid(),
        modulus: key.modulus.clone(),
        access_tokens: vec![],
        session: None,
        idle_since: now,
        job: None,
        ghost: false,
        gone: None,
        planted: None,
        scale_set: request.scale_set,
    };
    let config = jit_config::encode(
        &runner,
        &key,
        &jit_config::Options {
            require_fips: state.settings.require_fips,
            disable_update: request.disable_update,
            group: request.group.1,
            work_folder: request.work_folder,
        },
        &state.public_url,
    );
    state.runners.insert(id, runner);
    (id, config)
}

/// Tells whether a registered runner of the scope has this name.
pub(crate) fn is_taken(state: &GitHubState, scope: &Scope, name: &str) -> bool {
    state.runners.values().any(|runner| {
        runner.is_registered() && runner.scope == *scope && runner.name.eq_ignore_ascii_case(name)
    })
}

/// Returns what is wrong with the name of a runner.
pub(crate) fn problem_of_name(name: &str) -> Option<&'static str> {
    if name.trim().is_empty() || name.trim() != name {
        Some("name must not be empty, nor start or end with a space")
    } else if name.chars().count() > LONGEST_NAME {
        Some("name is too long (maximum is 64 characters)")
    } else if name
        .chars()
        .any(|c| c.is_control() || "\"/:<>\\|*?".contains(c))
    {
        Some("name must not contain \" / : < > \\ | * ? or control characters")
    } else {
        None
    }
}
