//! The system tests: what must hold of the daemon on a real host. A claim's name says what.
//!
//! A claim names the [`Scene`] it begins with. Claims of one scene follow each other and share its
//! daemon, so that most of the time is spent on what is claimed and not on setting it up.

use anyhow::Result;

use crate::lab::Lab;

mod api;
mod cage;
mod cleanup;
mod common;
mod docker;
mod egress;
mod faces;
mod firewall;
mod flood;
mod gc_roots;
mod github;
mod isolation;
mod layers;
mod life;
mod limits;
mod nix;
mod nixos;
mod operator;
mod permissions;
mod power;
mod restart;
mod scarce;
mod scene;
mod secrets;
mod troubles;
mod trust;
mod verdicts;

pub(crate) use common::{SOON, await_busy, leader, machine_of};
pub use scene::Scene;

/// One claim.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// What is claimed, `like_this`.
    pub name: &'static str,
    /// What it begins with.
    pub scene: Scene,
    /// Fails if it does not hold.
    pub check: fn(&mut Lab) -> Result<()>,
}

/// Claims of one scene; each is named as its function is.
macro_rules! claims {
    ($scene:ident: $($check:ident),+ $(,)?) => {
        &[$($crate::claims::Claim {
            name: stringify!($check),
            scene: $crate::claims::Scene::$scene,
            check: $check,
        }),+]
    };
}
use claims;

/// Every claim, in the order they run: what all others rest on comes first, and what shares a scene
/// stands together.
pub fn all() -> impl Iterator<Item = &'static Claim> {
    [
        life::CLAIMS,
        verdicts::CLAIMS,
        github::CLAIMS,
        restart::CLAIMS,
        isolation::CLAIMS,
        permissions::CLAIMS,
        cage::CLAIMS,
        trust::CLAIMS,
        limits::CLAIMS,
        firewall::CLAIMS,
        faces::CLAIMS,
        api::CLAIMS,
        operator::CLAIMS,
        cleanup::CLAIMS,
        troubles::CLAIMS,
        scarce::CLAIMS,
        gc_roots::CLAIMS,
        nixos::CLAIMS,
        layers::CLAIMS,
        secrets::CLAIMS,
        nix::CLAIMS,
        docker::CLAIMS,
        flood::CLAIMS,
        egress::CLAIMS,
        power::CLAIMS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_claims_have_one_name() {
        let names: BTreeSet<&str> = all().map(|claim| claim.name).collect();
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn a_scene_is_set_once() {
        let mut scenes: Vec<Scene> = all().map(|claim| claim.scene).collect();
        scenes.retain(|scene| *scene != Scene::Empty);
        scenes.dedup();
        let distinct: BTreeSet<Scene> = scenes.iter().copied().collect();
        assert_eq!(scenes.len(), distinct.len(), "{scenes:?}");
    }
}
