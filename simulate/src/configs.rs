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
    let scope = if random.chance(150) { other } else { usual };
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
    for (number, name) in ["ci", "big"].into_iter().take(pools).enumerate() {
        let max = random.between(1, 6);
        let idle = random.between(1, max.min(3));
        let spare = random.below(3).min(max - idle);
        let memory = if random.chance(300) { "2GiB" } else { "4GiB" };
        let offset = number * 20;
        write!(
            text,
            r#"
[pools.{name}]
labels = ["{name}"]
offset = {offset}
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
    Ok(config::parse(Path::new("simulated"), &text)?)
}
