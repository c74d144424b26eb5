//! The demand of a pool, and its numbers of runners.

use std::time::Duration;

use super::section::{DAY, Section};
use crate::config::github::{GitHubConfig, Scope};
use crate::config::pool::PoolConfig;
use crate::pool::{DEFAULT_SCALE_DOWN_AFTER, Demand, HostId, Slot};

/// Maximum length of the name of a scale set.
const MAX_SET_NAME: usize = 64;

/// Numbers of runners that a pool wants.
pub(super) struct Numbers {
    pub(super) demand: Demand,
    pub(super) scale_set: Option<String>,
    pub(super) scale_down_after: Duration,
    pub(super) min_idle: u16,
    pub(super) min_spare: u16,
}

impl Numbers {
    /// Reads the numbers of a pool with `room` slots.
    pub(super) fn read(section: &mut Section<'_>, room: u16) -> Self {
        let demand = demand(section);
        let scale_set = scale_set(section, demand);
        let scale_down_after = section.duration(
            "scale_down_after",
            DEFAULT_SCALE_DOWN_AFTER,
            Duration::ZERO..=DAY,
        );
        let min_idle = section.number("min_idle", 0..=Slot::MAX).unwrap_or(1);
        if (min_idle, demand) == (0, Demand::Fixed) {
            section.wrong(
                "min_idle",
                "without an idle runner, a pool with demand = \"fixed\" gets no job",
                "min_idle = 1 or more, or demand = \"webhook\", \"queue\" or \"scale-set\", which start runners for jobs that wait",
            );
        }
        // A pool of one slot has no room beside the idle runner.
        let default_spare = u16::from(room > min_idle);
        let min_spare = section
            .number("min_spare", 0..=Slot::MAX)
            .unwrap_or(default_spare);
        if min_idle.saturating_add(min_spare) > room {
            section.wrong(
                "max_runners",
                format!("min_idle {min_idle} and min_spare {min_spare} do not fit {room} runners"),
                format!(
                    "max_runners = {} or more, or a lower min_idle or min_spare",
                    min_idle + min_spare
                ),
            );
        }
        Self {
            demand,
            scale_set,
            scale_down_after,
            min_idle,
            min_spare,
        }
    }
}

/// Reads the authority for the demand.
fn demand(section: &mut Section<'_>) -> Demand {
    let example = "\"fixed\", \"webhook\", \"queue\" or \"scale-set\"";
    let Some(text) = section.text("demand", example) else {
        return Demand::Fixed;
    };
    text.parse().unwrap_or_else(|_unknown| {
        section.wrong(
            "demand",
            format!("the demand {text:?} is unknown"),
            format!("demand = {example}"),
        );
        Demand::Fixed
    })
}

/// Reads the name of the scale set, if it is set.
fn scale_set(section: &mut Section<'_>, demand: Demand) -> Option<String> {
    let name = section.text("scale_set", "\"runner-01-ci\"")?;
    if demand != Demand::ScaleSet {
        section.wrong(
            "scale_set",
            "the pool has no scale set",
            "demand = \"scale-set\" in the pool, or no scale_set",
        );
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins_well || name.len() > MAX_SET_NAME || !name.bytes().all(is_plain) {
        section.wrong(
            "scale_set",
            format!("{name:?} is not the name of a scale set"),
            "scale_set = \"runner-01-ci\": 1 to 64 of letters, digits, dash, underscore and dot, beginning with a letter or digit",
        );
    }
    Some(name)
}

/// Names the scale sets that have no name, and reports two pools with one set. A set has the jobs of one pool of one
/// host, so its default name has both.
pub(super) fn name_scale_sets(top: &Section<'_>, pools: &mut [PoolConfig], host: &HostId) {
    for pool in pools.iter_mut() {
        if pool.demand == Demand::ScaleSet {
            let named = pool.scale_set.take();
            pool.scale_set = Some(named.unwrap_or_else(|| format!("{host}-{}", pool.name)));
        }
    }
    for (number, pool) in pools.iter().enumerate() {
        let is_same = |other: &&PoolConfig| {
            let names = other.scale_set.as_ref().zip(pool.scale_set.as_ref());
            let has_name = names.is_some_and(|(other, own)| other.eq_ignore_ascii_case(own));
            has_name && other.scope == pool.scope
        };
        let mut before = pools[..number].iter();
        if let Some(other) = before.find(is_same) {
            top.mistake(
                format!("pools.{}.scale_set", pool.name),
                format!("pool {} has the same scale set", other.name),
                "another name, or no scale_set, for a name that has the host and the pool",
            );
        }
    }
}

/// Reports pools whose demand nothing tells.
pub(super) fn check_source(
    top: &Section<'_>,
    pools: &[PoolConfig],
    scopes: &[GitHubConfig],
    takes_deliveries: bool,
) {
    let is_repository = |pool: &PoolConfig| {
        let scope = scopes.iter().find(|scope| scope.scope_id() == pool.scope);
        scope.is_none_or(|scope| matches!(scope.scope, Scope::Repository { .. }))
    };
    for pool in pools {
        let key = format!("pools.{}.demand", pool.name);
        match pool.demand {
            Demand::Webhook if !takes_deliveries => top.mistake(
                key,
                "\"webhook\" needs GitHub's deliveries, and this host takes none".to_owned(),
                "a table [webhook] with listen and secret_file (`runner-controller docs demand`), or demand = \"fixed\"",
            ),
            Demand::Queue if !is_repository(pool) => top.mistake(
                key,
                "\"queue\" reads the queue of a repository, and the pool's scope has many".to_owned(),
                "demand = \"webhook\" or \"fixed\", or the URL of a repository in the pool's scope",
            ),
            Demand::Fixed | Demand::Webhook | Demand::Queue | Demand::ScaleSet => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing;

    #[test]
    fn a_pool_whose_demand_is_the_queue_needs_deliveries_and_no_idle_runner() {
        let pool = |demand: &str| {
            testing::TEXT.replace(
                "max_runners = 4",
                &format!("max_runners = 4\n{demand}\nmin_idle = 0\nmin_spare = 0"),
            )
        };
        let webhook = "[webhook]\nlisten = \"127.0.0.1:9818\"\nsecret_file = \"/run/a\"\n";
        let told = |text: String| testing::read(&text).err().unwrap_or_default();
        let by_queue = pool("demand = \"webhook\"");
        assert_eq!(
            told(by_queue.clone()),
            ["pools.ci.demand: \"webhook\" needs GitHub's deliveries, and this host takes none"]
        );
        assert_eq!(told(format!("{by_queue}{webhook}")), [""; 0]);
        assert_eq!(
            told(pool("")),
            [
                "pools.ci.min_idle: without an idle runner, a pool with demand = \"fixed\" gets no job"
            ]
        );
        let by_reading = pool("demand = \"queue\"");
        assert_eq!(
            told(by_reading.clone()),
            [
                "pools.ci.demand: \"queue\" reads the queue of a repository, and the pool's scope has many"
            ]
        );
        let repository = by_reading.replace("github.com/acme", "github.com/acme/widgets");
        assert_eq!(told(repository), [""; 0]);
        let by_set = pool("demand = \"scale-set\"");
        assert_eq!(told(by_set.clone()), [""; 0]);
        let name = |text: &str| testing::read(text).unwrap().pools[0].scale_set.clone();
        let host = testing::read(&by_set).unwrap().host;
        assert_eq!(name(&by_set), Some(format!("{host}-ci")));
        let named = by_set.replace("min_idle = 0", "scale_set = \"builders\"\nmin_idle = 0");
        assert_eq!(name(&named).as_deref(), Some("builders"));
        assert_eq!(
            told(named.replace("scale-set", "fixed")).last().unwrap(),
            "pools.ci.min_idle: without an idle runner, a pool with demand = \"fixed\" gets no job"
        );
        assert_eq!(
            told(named.replace("\"builders\"", "\"a&b\"")),
            ["pools.ci.scale_set: \"a&b\" is not the name of a scale set"]
        );
        let unknown = told(format!("{}{webhook}", pool("demand = \"jobs\"")));
        assert_eq!(
            unknown[0],
            "pools.ci.demand: the demand \"jobs\" is unknown"
        );
    }
}
