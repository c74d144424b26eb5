//! A pool's HTTP proxy, as its listener and its jobs find it.

use anyhow::Result;

use super::common::{SOON, ensure_says, run};
use super::fixture::{SMALL, small};
use super::suite::{Suite, suite};
use crate::lab::{DAEMON, Lab};
use crate::net::GITHUB;

pub(super) const SUITE: Suite = suite![SMALL;
    a_listener_and_its_job_get_the_proxy_of_their_pool,
];

/// A proxy at an address of documentation, which nothing serves.
const PROXY: &str = "http://203.0.113.9:3128";

fn a_listener_and_its_job_get_the_proxy_of_their_pool(lab: &mut Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    let config = small(lab.sim().api_url()).with("ci", |pool| {
        pool.more = format!("proxy = {{ url = \"{PROXY}\", no_proxy = [\"{GITHUB}\"] }}\n");
    });
    lab.install(&config)?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    let outcome = find_proxy(lab);
    lab.install(&small(lab.sim().api_url()))?;
    lab.host().run(&["systemctl", "restart", DAEMON])?;
    outcome?;
    lab.await_settled(SOON).map(drop)
}

fn find_proxy(lab: &Lab) -> Result<()> {
    lab.await_settled(SOON)?;
    // The listener, whose environment its job has, reaches GitHub because it obeys `no_proxy`.
    let said = run(lab, "env")?;
    for (names, value) in [
        (["http_proxy", "HTTP_PROXY"], PROXY),
        (["https_proxy", "HTTPS_PROXY"], PROXY),
        (["no_proxy", "NO_PROXY"], GITHUB),
    ] {
        let lines = names.map(|name| format!("\n{name}={value}"));
        ensure_says(&said, &lines.each_ref().map(String::as_str))?;
    }
    Ok(())
}
