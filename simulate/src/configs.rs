//! Configurations that a history may have.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use runner_controller::config::{self, Config, Scope};

use crate::random::Random;

/// Returns the scopes that configurations have.
pub(crate) fn scopes() -> [Scope; 2] {
    ["widgets", "gadgets"].map(|repo| Scope::Repository {
        owner: "acme".to_owned(),
        repo: repo.to_owned(),
    })
}

/// Returns a random configuration: small pools, short times. All times are the same in every configuration of a
/// history. Numbers, images and pools differ.
pub(crate) fn draw(random: &mut Random) -> Result<Config> {
    let [usual, other] = scopes();
    let scope = if random.chance(150) {
        other
    } else {
        usual.clone()
    };
    let mut text = format!(
        "host = \"sim\"\nreconcile = \"60s\"\n[github]\nurl = \"https://github.com/{scope}\""
    );
    text += r#"
token_file = "/t"
timeout = "10s"
[network]
block = "10.200.0.0/24"
resolvers = ["9.9.9.9"]
"#;
    let pools = if random.chance(350) { 2 } else { 1 };
    // Jobs are in the usual scope, so a pool in the other one does not know of them.
    let has_usual_scope = scope == usual;
    let mut demand = random.fork();
    // All jobs compete for one runner.
    let is_narrow = has_usual_scope && pools == 2 && demand.chance(300);
    let (mut wanted, mut most) = (0, 0);
    for (number, name) in ["ci", "big"].into_iter().take(pools).enumerate() {
        let max = random.between(1, 6);
        let idle = random.between(1, max.min(3));
        let spare = random.below(3).min(max - idle);
        let memory = if random.chance(300) { "2GiB" } else { "4GiB" };
        let offset = number * 20;
        let (mut idle, mut spare, mut kind) = (idle, spare, "fixed");
        if is_narrow || has_usual_scope && demand.chance(600) {
            kind = if demand.chance(500) {
                "webhook"
            } else {
                "scale-set"
            };
            (idle, spare) = (
                idle - demand.below(idle + 1),
                spare - demand.below(spare + 1),
            );
        }
        if is_narrow {
            (idle, spare) = (0, 0);
        }
        wanted += idle + spare;
        most += max;
        write!(
            text,
            r#"
[pools.{name}]
labels = ["{name}"]
offset = {offset}
demand = "{kind}"
min_idle = {idle}
min_spare = {spare}
max_runners = {max}
image = {{ kind = "directory", path = "/i" }}
[pools.{name}.limits]
memory = "{memory}"
[pools.{name}.timeouts]
boot = "60s"
registration = "150s"
spare_age = "15m"
idle_age = "10m"
job = "20m"
stop = "30s"
"#
        )?;
    }
    text += "[webhook]\nlisten = \"127.0.0.1:9818\"\nsecret_file = \"/w\"\n";
    if is_narrow || demand.chance(400) {
        let most = if is_narrow { 1 } else { most };
        let runners = demand.between(wanted + 1, most.max(wanted + 1));
        write!(text, "[budget]\nrunners = {runners}\n")?;
    }
    text += "[queue]\nfairness_age = \"60s\"\n";
    text += "[[priority]]\nname = \"big\"\njob = [\"big*\"]\nescalate_after = \"1h\"\n";
    Ok(config::parse(Path::new("simulated"), &text)?)
}
