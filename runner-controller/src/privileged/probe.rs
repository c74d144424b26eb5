//! A network namespace for probes of a runner's network, for `doctor`.
//!
//! The namespace has a link with the name of a slot after a pool's last one, and addresses that no slot has. So
//! packets pass exactly the rules of the pool's runners, and no runner's link or address is touched.

use std::fs::File;
use std::io;

use super::error::{OrRefuse, Refusal, RootError};
use super::link;
use crate::config::{Config, Place, PoolConfig};
use crate::pool::Slot;

/// A throw-away network namespace, which ends when this is dropped.
#[derive(Debug)]
pub struct ProbeNamespace {
    netns: File,
    link: String,
}

impl ProbeNamespace {
    /// Makes the namespace. Needs root.
    ///
    /// # Errors
    /// `network.block` has no free addresses, or the kernel refuses a step.
    pub fn open(config: &Config, pool: &PoolConfig) -> Result<Self, RootError> {
        let free = free_place(config, pool, link::exists)
            .map_err(|reason| RootError::plain(Refusal::Network, reason.to_owned()))?;
        let (pool, slot) = free;
        let place = Place {
            config,
            pool: &pool,
            slot,
        };
        let veth = place.veth();
        let netns = link::make(&veth).or_refuse(Refusal::Network, || format!("make {veth}"))?;
        let probe = Self { netns, link: veth };
        let copy = probe.netns.try_clone();
        let copy = copy.or_refuse(Refusal::Network, || "copy a file descriptor".into())?;
        link::connect(&place, copy)?;
        Ok(probe)
    }

    /// Runs in the namespace, where sockets have a runner's network.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        link::within(&self.netns, work)
    }
}

impl Drop for ProbeNamespace {
    fn drop(&mut self) {
        // The kernel removes the link with the namespace. This is sooner.
        let _ = link::remove(&self.link);
    }
}

/// Returns a slot after the pool's last one, and the pool with an offset that gives the slot free addresses.
fn free_place(
    config: &Config,
    pool: &PoolConfig,
    exists: impl Fn(&str) -> bool,
) -> Result<(PoolConfig, Slot), &'static str> {
    let ends = config.pools.iter();
    let ends = ends.map(|pool| pool.offset + u32::from(pool.max_runners));
    let number = ends.max().unwrap_or_default();
    let last_address = (u64::from(number) + 1) * u64::from(Place::ADDRESSES);
    if last_address > config.network.block.size() {
        return Err("network.block has no free addresses for a try");
    }
    let slot =
        Slot::new(pool.max_runners + 1).ok_or("the pool has no free slot number for a try")?;
    let mut pool = pool.clone();
    // Every pool ends at or before `number`, so the subtraction cannot wrap.
    pool.offset = number.saturating_sub(u32::from(slot.number()) - 1);
    let place = Place {
        config,
        pool: &pool,
        slot,
    };
    if exists(&place.veth()) {
        return Err("a link with the name for a try exists; a smaller pool may still have a job");
    }
    Ok((pool, slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    #[test]
    fn a_try_takes_a_place_that_no_runner_has() {
        let mut config = testing::config();
        config.pools.push(testing::pool("build", 4));
        config.pools[0].max_runners = 4;
        config.pools[1].max_runners = 3;
        for pool in &config.pools {
            let (free, slot) = free_place(&config, pool, |_| false).unwrap();
            let tried = Place {
                config: &config,
                pool: &free,
                slot,
            };
            assert_eq!(tried.number(), 7);
            for id in config.slots() {
                let place = config.place(&id).unwrap();
                assert_ne!(place.veth(), tried.veth());
                assert_ne!(place.host_address(), tried.host_address());
            }
            assert!(tried.veth().starts_with(&format!("rc-{}-", pool.name)));
        }
        assert!(free_place(&config, &config.pools[0], |_| true).is_err());
        config.pools[1].offset = u32::try_from(config.network.block.size() / 4).unwrap() - 3;
        assert!(free_place(&config, &config.pools[0], |_| false).is_err());
    }
}
