//! One host with two scopes, each with its own token and pool.

use anyhow::{Context, Result, ensure};
use github_sim::{Endpoint, JobSpec, JobState, ScopeToken};
use status::{PhaseKind, RunnerStatus, ScopeStatus, Status};

use super::common::{
    SOON, await_busy, await_calls, await_no_strangers, ensure_kept, ensure_says, finish_held, held,
    kill_and_start, machine_of, running,
};
use super::fixture::{Fixture, await_settled, small};
use super::suite::{Suite, suite};
use crate::config::{Config, Pool, Scope};
use crate::lab::{DAEMON, Lab};
use crate::readings::summary;
use crate::sim::pool_job;

pub(super) const SUITE: Suite = suite![TWO_SCOPES;
    each_job_runs_in_the_pool_of_its_scope,
    a_refused_token_of_one_scope_stops_only_its_own_pool,
    a_killed_daemon_keeps_the_runners_of_both_scopes,
];

/// A repository and an organisation.
const TWO_SCOPES: Fixture = Fixture {
    name: "two scopes",
    config: |lab| {
        let tokens = [(&WIDGETS, WIDGETS.token), (&UMBRELLA, UMBRELLA.token)];
        for (place, token) in tokens {
            accept(lab, place, token)?;
            write_token(lab, place, token)?;
        }
        Ok(Some(two_scopes(lab)))
    },
    await_ready: await_settled,
};

/// A scope and its only pool.
struct Place {
    name: &'static str,
    scope: &'static str,
    url: &'static str,
    token: &'static str,
    pool: &'static str,
}

const WIDGETS: Place = Place {
    name: "widgets",
    scope: "acme/widgets",
    url: "https://github.com/acme/widgets",
    token: "github_pat_testbed_widgets_3e9a8c1d77f04b52",
    pool: "ci",
};

const UMBRELLA: Place = Place {
    name: "umbrella",
    scope: "umbrella",
    url: "https://github.com/umbrella",
    token: "github_pat_testbed_umbrella_b14f60d9a2c85e37",
    pool: "big",
};

/// A later token of [`UMBRELLA`].
const NEXT_TOKEN: &str = "github_pat_testbed_umbrella_next_90c7d3b65a1e2f48";

fn two_scopes(lab: &Lab) -> Config {
    let mut config = small(lab.sim().api_url());
    config.scopes = [WIDGETS, UMBRELLA]
        .iter()
        .map(|place| Scope {
            name: place.name,
            url: place.url,
            login: format!("token_file = {:?}", token_file(place)),
        })
        .collect();
    let mut big = Pool::new(UMBRELLA.pool, 10);
    big.max_runners = 4;
    big.layer_size = "256 MiB".into();
    config.pools.push(big);
    for (pool, place) in config.pools.iter_mut().zip([WIDGETS, UMBRELLA]) {
        pool.more = format!("scope = {:?}\n", place.name);
    }
    config
}

fn token_file(place: &Place) -> String {
    format!("/etc/runner-controller/token-{}", place.name)
}

/// Writes the token that the next daemon reads for a scope.
fn write_token(lab: &Lab, place: &Place, token: &str) -> Result<()> {
    lab.host()
        .write(&token_file(place), token.as_bytes(), 0o600)
}

/// Makes a token the only one of a scope at GitHub.
fn accept(lab: &Lab, place: &Place, token: &str) -> Result<()> {
    lab.sim().set_scope_tokens(&[ScopeToken {
        scope: place.scope.parse()?,
        token: token.into(),
    }])
}

/// Returns a job of a scope.
fn job_of(place: &Place, job: JobSpec) -> Result<JobSpec> {
    Ok(JobSpec {
        scope: Some(place.scope.parse()?),
        ..job
    })
}

/// Runs a job of a scope until it has succeeded.
fn run_in(lab: &Lab, place: &Place) -> Result<()> {
    let job = pool_job("job", place.pool, "true");
    let id = lab.sim().queue(&job_of(place, job)?)?;
    lab.sim().await_success(id, SOON).map(drop)
}

/// Queues a held job of a scope and waits until its runner is busy with it.
fn start_held_in(lab: &Lab, place: &Place) -> Result<(u64, RunnerStatus)> {
    let labels = ["self-hosted", place.pool].map(str::to_owned).to_vec();
    let job = JobSpec {
        labels,
        ..held("held")
    };
    let id = lab.sim().queue(&job_of(place, job)?)?;
    Ok((id, await_busy(lab, id)?))
}

fn scope_of<'s>(status: &'s Status, place: &Place) -> Option<&'s ScopeStatus> {
    let mut scopes = status.scopes.iter();
    scopes.find(|scope| scope.name.as_deref() == Some(place.name))
}

/// Waits until GitHub's refusal is shown in the scope `umbrella` and nowhere else.
fn await_refusal(lab: &Lab, message: &str) -> Result<()> {
    let status = lab.await_status("a refusal in the scope umbrella", SOON, |status| {
        let error = scope_of(status, &UMBRELLA)?.github.error.as_ref()?;
        let pool = status.pool(UMBRELLA.pool)?;
        (error.contains(message) && !pool.backoffs.is_empty()).then(|| status.clone())
    })?;
    let widgets = scope_of(&status, &WIDGETS).context("the status has no scope widgets")?;
    let pool = status
        .pool(WIDGETS.pool)
        .context("the status has no pool ci")?;
    ensure!(
        widgets.github.error.is_none() && pool.backoffs.is_empty() && status.closed.is_empty(),
        "the scope widgets suffers as well: {}",
        summary(&status)
    );
    let health = lab.api("GET", "/health")?;
    ensure!(health.status == 503, "healthy all the same: {health:?}");
    ensure_says(&health.body, &["GitHub (scope umbrella)", message])?;
    ensure!(
        !health.body.contains("widgets"),
        "health blames the other scope: {}",
        health.body
    );
    let metrics = lab.api("GET", "/metrics")?.body;
    let failing = |scope: &str, value: u8| {
        format!(
            "runner_controller_component_failing{{component=\"github\",scope=\"{scope}\"}} {value}"
        )
    };
    ensure_says(
        &metrics,
        &[&failing(UMBRELLA.name, 1), &failing(WIDGETS.name, 0)],
    )
}

fn each_job_runs_in_the_pool_of_its_scope(lab: &mut Lab) -> Result<()> {
    // These ask for the labels of the other scope's pool, so no runner may take them.
    let strangers = [
        job_of(&WIDGETS, pool_job("stranger", UMBRELLA.pool, "true"))?,
        job_of(&UMBRELLA, pool_job("stranger", WIDGETS.pool, "true"))?,
    ];
    let strangers = lab.sim().queue_all(&strangers)?;
    for place in [&WIDGETS, &UMBRELLA] {
        let jobs = [0; 3].map(|_| job_of(place, pool_job("job", place.pool, "true")));
        let jobs = jobs.into_iter().collect::<Result<Vec<_>>>()?;
        for id in lab.sim().queue_all(&jobs)? {
            let job = lab.sim().await_success(id, SOON)?;
            let name = job.runner_name.context("the job has no runner")?;
            let machine = machine_of(&name);
            ensure!(
                machine.starts_with(&format!("{}-", place.pool)),
                "a job of {} ran in {machine}",
                place.scope
            );
            let runners = lab.sim().runners()?;
            let runner = runners.iter().find(|runner| runner.name == name);
            let scope = runner.map(|runner| runner.scope.to_string());
            ensure!(
                scope.as_deref() == Some(place.scope),
                "{name} is registered in {scope:?}"
            );
        }
    }
    for id in strangers {
        let job = lab.sim().job(id)?;
        ensure!(
            job.status == JobState::Queued && job.attempts == 0,
            "a runner of another scope took it: {}",
            job.summary()
        );
        lab.sim().cancel(id)?;
    }
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}

fn a_refused_token_of_one_scope_stops_only_its_own_pool(lab: &mut Lab) -> Result<()> {
    accept(lab, &UMBRELLA, NEXT_TOKEN)?;
    let (id, busy) = start_held_in(lab, &UMBRELLA)?;
    await_refusal(lab, "Bad credentials")?;
    run_in(lab, &WIDGETS)?;

    // The mistake of an operator: the token of the other scope.
    write_token(lab, &UMBRELLA, WIDGETS.token)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    await_refusal(lab, "Resource not accessible by personal access token")?;
    run_in(lab, &WIDGETS)?;
    let status = lab.look()?;
    let kept = status.machine(&busy.machine());
    ensure!(
        kept.is_some_and(|now| now.phase == PhaseKind::Busy && now.invocation == busy.invocation),
        "the job of the refused scope did not run on: {}",
        summary(&status)
    );

    write_token(lab, &UMBRELLA, NEXT_TOKEN)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    finish_held(lab, id, &busy)?;
    run_in(lab, &UMBRELLA)?;
    let status = lab.await_settled(SOON)?;
    let errors = status
        .scopes
        .iter()
        .filter_map(|scope| scope.github.error.as_ref());
    let errors: Vec<&String> = errors.collect();
    ensure!(errors.is_empty(), "errors after the repair: {errors:?}");
    await_no_strangers(lab)
}

fn a_killed_daemon_keeps_the_runners_of_both_scopes(lab: &mut Lab) -> Result<()> {
    let jobs = [
        start_held_in(lab, &WIDGETS)?,
        start_held_in(lab, &UMBRELLA)?,
    ];
    lab.await_status("an idle runner in each pool", SOON, |status| {
        let has_idle = |place: &Place| {
            let pool = status.pool(place.pool);
            pool.is_some_and(|pool| {
                pool.count(PhaseKind::Idle) == 1 && pool.count(PhaseKind::Spare) == 1
            })
        };
        (has_idle(&WIDGETS) && has_idle(&UMBRELLA)).then_some(())
    })?;
    let before = running(lab)?;
    let registered = lab.sim().registered()?;
    lab.sim().forget_calls()?;
    kill_and_start(lab)?;
    ensure_kept(lab, &before)?;
    // Two lists of each scope are enough to judge a registration.
    await_calls(lab, Endpoint::List, 6)?;
    let now = lab.sim().registered()?;
    let stats = lab.sim().stats()?;
    ensure!(
        now == registered && stats.calls_of("delete") == 0,
        "GitHub had {registered:?}, and now {now:?}: {:?}",
        stats.calls
    );
    for (id, busy) in &jobs {
        finish_held(lab, *id, busy)?;
    }
    lab.await_settled(SOON)?;
    await_no_strangers(lab)
}
