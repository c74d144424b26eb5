//! The system tests: claims about the daemon on a real host. The name of each function is its claim.
//!
//! A [`Suite`] names the [`Fixture`] in which its claims begin. Claims of one fixture follow each other and
//! share its daemon, so that little time is spent on setting it up.

mod api;
mod cage;
mod cleanup;
mod common;
mod crowd;
mod demand;
mod docker;
mod doctor;
mod egress;
mod ends;
mod faces;
mod firewall;
mod fixture;
mod flood;
mod gc_roots;
mod github;
mod held_mounts;
mod inside;
mod isolation;
mod kept_logs;
mod layers;
mod limits;
mod minimal;
mod monitoring;
mod nix;
mod nixos;
mod operator;
mod outages;
mod page;
mod permissions;
mod phases;
mod power;
mod private_ca;
mod proxy;
mod recipe;
mod restart;
mod runner;
mod scale_set;
mod scarce;
mod scopes;
mod secrets;
mod shared;
mod sizing;
mod suite;
mod switch;
mod tables;
mod troubles;
mod trust;
mod upgrade;
mod verdicts;
mod webhook;

pub(crate) use common::{SOON, await_busy, in_container, leader, machine_of};
pub use fixture::Fixture;
pub use suite::{Claim, Suite};

/// Suites that also run on a newer systemd: one whole runner, restarts, drain and reload.
pub const BASIC_SUITES: &[Suite] = &[phases::SUITE, restart::SUITE, faces::SUITE];

/// Suites that hold for the stand-in listener and for GitHub's own.
pub const LISTENER_SUITES: &[Suite] = &[runner::SUITE];

/// Every suite, in the order in which they run: the claims that all others rest on come first, and
/// suites that share a fixture stand together.
pub const SUITES: &[Suite] = &[
    phases::SUITE,
    verdicts::SUITE,
    recipe::SUITE,
    outages::SUITE,
    ends::SUITE,
    github::SUITE,
    private_ca::SUITE,
    proxy::SUITE,
    restart::SUITE,
    isolation::SUITE,
    permissions::SUITE,
    cage::SUITE,
    trust::SUITE,
    limits::SUITE,
    firewall::SUITE,
    switch::SUITE,
    faces::SUITE,
    api::SUITE,
    monitoring::SUITE,
    page::SUITE,
    operator::SUITE,
    kept_logs::SUITE,
    cleanup::SUITE,
    troubles::SUITE,
    scarce::SUITE,
    sizing::SUITE,
    tables::SUITE,
    crowd::SUITE,
    held_mounts::SUITE,
    gc_roots::SUITE,
    scopes::SUITE,
    demand::QUEUED_SUITE,
    demand::HOOKED_SUITE,
    scale_set::SCALE_SET_SUITE,
    webhook::SUITE,
    doctor::SUITE,
    nixos::SUITE,
    layers::SUITE,
    secrets::SUITE,
    shared::SUITE,
    nix::SUITE,
    docker::SUITE,
    inside::SUITE,
    minimal::SUITE,
    phases::MINIMAL_SUITE,
    verdicts::MINIMAL_SUITE,
    flood::SUITE,
    egress::SUITE,
    power::SUITE,
    upgrade::SUITE,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn claims_have_distinct_names() {
        let claims = SUITES
            .iter()
            .chain(LISTENER_SUITES)
            .flat_map(|suite| suite.claims);
        let names: Vec<&str> = claims.map(|claim| claim.name).collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len());
    }

    #[test]
    fn a_fixture_is_set_up_once() {
        let fixtures = SUITES.iter().map(|suite| suite.fixture);
        let mut names: Vec<&str> = fixtures
            .filter(|fixture| !fixture.is_empty())
            .map(|fixture| fixture.name)
            .collect();
        names.dedup();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "{names:?}");
    }
}
