//! The metrics, the alert rules and the dashboard in a real Prometheus.

use anyhow::{Result, ensure};

use super::common::{SOON, finish_held, start_held};
use super::fixture::{SMALL, small};
use super::suite::{Suite, suite};
use crate::checks::alerts::metrics_in;
use crate::checks::tools::Tools;
use crate::dashboard::{panels, queries};
use crate::lab::{DAEMON, Lab};
use crate::prometheus::Prometheus;

pub(super) const SUITE: Suite = suite![SMALL;
    a_prometheus_that_scrapes_a_host_answers_each_query_of_the_dashboard,
];

const TARGET: &str = "127.0.0.1:9819";

fn a_prometheus_that_scrapes_a_host_answers_each_query_of_the_dashboard(
    lab: &mut Lab,
) -> Result<()> {
    lab.await_settled(SOON)?;
    let mut config = small(lab.sim().api_url());
    config.top = format!("listen = [\"{TARGET}\"]");
    lab.install(&config)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    lab.await_settled(SOON)?;
    let outcome = scrape(lab);
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

fn scrape(lab: &Lab) -> Result<()> {
    let tools = Tools::ready()?;
    let (job, runner) = start_held(lab, "<b>a \"job\"</b>")?;
    let prometheus = Prometheus::start(&tools, lab.host(), TARGET)?;
    let families = prometheus.families()?;
    ensure!(
        families.contains(&"runner_controller_pool_runners".to_owned()),
        "scraped: {families:?}"
    );
    for query in queries(panels::ROWS) {
        let found = prometheus.query(&query)?;
        let is_known = metrics_in(&query).all(|name| families.iter().any(|family| family == name));
        ensure!(!is_known || !found.is_empty(), "{query} finds nothing");
    }
    let busy = prometheus.query("sum(runner_controller_pool_runners{state=\"busy\"})")?;
    ensure!(busy.iter().any(|line| line.contains("=> 1 ")), "{busy:?}");
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}")?;
    ensure!(firing.is_empty(), "alerts of a healthy host: {firing:?}");
    finish_held(lab, job, &runner).map(drop)
}
