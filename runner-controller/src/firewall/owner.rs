//! The process that owns the table: it loads, changes and checks the table, and does nothing else.
//!
//! While the owner lives, the kernel refuses to let another program flush, change or delete the table.
//! When the owner ends, the table stays, and the next owner takes it over. Every change is one
//! transaction, so there is not an open moment between two states.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, error, info, warn};

use super::check::{Check, publish};
use super::error::{FirewallError, Obstacle};
use super::loaded::{Loaded, linked_pools};
use super::nft::{self, Interactive, OWNED};
use super::report::FirewallReport;
use super::rules::table;
use super::{CHECK_EVERY, FIREWALL_UNIT, TABLE, forwarding};
use crate::atomic_file;
use crate::config::Config;
use crate::telemetry;
use crate::world::chain;

/// File with the transaction that was loaded last.
const TRANSACTION: &str = "table.nft";
/// First Linux release that keeps a table when its owner ends.
const PERSIST_SINCE: (u32, u32) = (6, 9);
/// Pause before nft is started again after it ended.
const RESTART_PAUSE: Duration = Duration::from_millis(50);

/// Owns the table until SIGTERM. SIGHUP reads the configuration again.
///
/// An error ends the process. systemd starts the next one, and the table stays meanwhile.
pub async fn own(
    config: Config,
    mut read_config: impl FnMut() -> Result<Config, String>,
) -> Result<(), FirewallError> {
    let signals = |kind| signal(kind).map_err(FirewallError::io("listen for signals"));
    let (mut hangup, mut terminate) = (
        signals(SignalKind::hangup())?,
        signals(SignalKind::terminate())?,
    );
    let mut owner = Owner::start(config)?;
    owner.take_over().await?;
    telemetry::ready();
    loop {
        tokio::select! {
            _ = terminate.recv() => return owner.leave().await,
            _ = hangup.recv() => owner.reload(&mut read_config).await,
            ended = owner.nft.ended() => owner.revive(&format!("{ended:?}")).await?,
            () = tokio::time::sleep(CHECK_EVERY) => owner.check().await?,
        }
    }
}

struct Owner {
    config: Config,
    nft: Interactive,
    /// Rules in the table.
    loaded: Loaded,
    /// Number of times since boot that the table was gone.
    restored: u64,
    /// Reason for which the host does not forward the packets of runners.
    obstacle: Option<Obstacle>,
}

impl Owner {
    fn start(config: Config) -> Result<Self, FirewallError> {
        let dir = config.firewall_dir();
        Ok(Self {
            nft: Interactive::start()?,
            loaded: Loaded::read(&dir),
            restored: FirewallReport::restored(&dir),
            obstacle: None,
            config,
        })
    }

    /// Loads the table for the first time in this process.
    async fn take_over(&mut self) -> Result<(), FirewallError> {
        let kept = !self.loaded.pools.is_empty();
        if kept && nft::list()?.is_none() {
            self.restored += 1;
            warn!(
                restored = self.restored,
                "table inet {TABLE} was gone while it did not have an owner, and is loaded again; \
                 another program removed it, `nft monitor` shows which one"
            );
        }
        self.load_and_report().await
    }

    /// Loads the rules and publishes the result of a check.
    async fn load_and_report(&mut self) -> Result<(), FirewallError> {
        let outcome = match self.load().await {
            Ok(()) => Check::begin(&self.config).and_then(Check::compare),
            Err(error) => Err(error),
        };
        let wrong = outcome.as_ref().err().map(|error| chain(error));
        let wrong = wrong.or_else(|| self.read_obstacle());
        publish(&self.config, wrong, Some(self.restored))?;
        outcome
    }

    /// Returns the reason for which the host does not forward the packets of runners.
    ///
    /// Rules that cannot be listed neither close nor reopen admission.
    fn read_obstacle(&mut self) -> Option<String> {
        match forwarding::obstacle(&self.config) {
            Ok(found) => {
                if let Some(obstacle) = found.as_ref().filter(|_| found != self.obstacle) {
                    let reason = obstacle.to_string();
                    warn!(reason, "packets of runners are not forwarded: {reason}");
                }
                self.obstacle = found;
            }
            Err(error) => {
                let reason = chain(&error);
                debug!(reason, "cannot read the rules of other programs: {reason}");
            }
        }
        self.obstacle.as_ref().map(ToString::to_string)
    }

    /// Returns the configured rules, and those that running containers of removed pools need.
    fn needed(&self) -> Result<Loaded, FirewallError> {
        let links = linked_pools().map_err(FirewallError::io("list the links of the host"))?;
        let kept = self.loaded.clone().kept(&self.config, &links);
        let mut needed = Loaded::configured(&self.config);
        needed.pools.extend(kept.pools);
        needed.blocks.extend(kept.blocks);
        Ok(needed)
    }

    /// Loads the configured rules, and those that running containers of removed pools need.
    async fn load(&mut self) -> Result<(), FirewallError> {
        self.loaded = self.needed()?;
        // A table of a version without an owner must be replaced by one that has flags; the kernel
        // does not let flags be added.
        let first = match nft::list()? {
            Some(listing) if !listing.can_be_owned() => format!("table inet {TABLE}\n"),
            Some(_) | None => owned_table(),
        };
        self.loaded
            .write(&self.config.firewall_dir())
            .map_err(FirewallError::io("write the record of loaded rules"))?;
        let replaced = self.replace(&first, &format!("  {OWNED}\n")).await;
        replaced.map_err(explain_kernel)
    }

    /// Replaces the table, in one transaction that begins with `first`, by one that has these flags.
    async fn replace(&mut self, first: &str, flags: &str) -> Result<(), FirewallError> {
        let rules = table(&self.config, &self.loaded, flags);
        let transaction = format!("{first}delete table inet {TABLE}\n{rules}");
        let path = self.config.firewall_dir().join(TRANSACTION);
        let operation = format!("write {}", path.display());
        atomic_file::replace(&path, transaction.as_bytes(), 0o644)
            .map_err(FirewallError::io(operation))?;
        self.nft.load(&path).await
    }

    /// Reads the configuration again and loads its rules. A failure keeps the loaded rules.
    async fn reload(&mut self, read_config: &mut impl FnMut() -> Result<Config, String>) {
        telemetry::reloading();
        let outcome = match read_config() {
            Ok(config) => {
                self.config = config;
                self.load_and_report().await.map_err(|error| chain(&error))
            }
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(()) => info!("the firewall is loaded again"),
            Err(reason) => error!(reason, "cannot reload the firewall: {reason}"),
        }
        telemetry::ready();
    }

    /// Replaces an nft process that ended. The table lost its owner, so it may be gone.
    async fn revive(&mut self, ended: &str) -> Result<(), FirewallError> {
        tokio::time::sleep(RESTART_PAUSE).await;
        warn!(ended, "nft ended ({ended}), starting it again");
        self.nft = Interactive::start()?;
        self.take_over().await
    }

    /// Compares the table with the rules, and restores the table if it differs.
    async fn check(&mut self) -> Result<(), FirewallError> {
        if self.needed()? != self.loaded {
            info!("a removed pool does not have containers any more, so its rules go");
            return self.load_and_report().await;
        }
        let Err(wrong) = Check::begin(&self.config).and_then(Check::compare) else {
            let obstacle = self.read_obstacle();
            return publish(&self.config, obstacle, Some(self.restored));
        };
        self.restored += 1;
        let reason = chain(&wrong);
        warn!(
            reason,
            restored = self.restored,
            "the firewall was changed and is loaded again: {reason}"
        );
        self.load_and_report().await
    }

    /// Ends, and leaves the rules in a table without flags, because containers may run.
    ///
    /// The kernel lets no program remove the flag `persist`. So a version without an owner, to which an
    /// operator may roll back, could not load its table. A table without flags is as safe as one whose owner
    /// ended: other programs can remove both.
    async fn leave(&mut self) -> Result<(), FirewallError> {
        if let Err(error) = self.leave_without_flags().await {
            let reason = chain(&error);
            warn!(
                reason,
                "cannot leave a table without flags: {reason}; a version without an owner cannot replace the table"
            );
        }
        let wrong = format!(
            "{FIREWALL_UNIT} is stopped; the table stays loaded, but another program can remove it; \
             run `systemctl start {FIREWALL_UNIT}`"
        );
        publish(&self.config, Some(wrong), Some(self.restored))
    }

    async fn leave_without_flags(&mut self) -> Result<(), FirewallError> {
        let first = owned_table();
        if self.replace(&first, "").await.is_ok() {
            return Ok(());
        }
        // The unit of an earlier version signals every process, so nft has ended.
        self.nft = Interactive::start()?;
        self.replace(&first, "").await
    }
}

/// Returns the command that makes this process the owner of a table that has none.
fn owned_table() -> String {
    format!("add table inet {TABLE} {{ {OWNED}; }}\n")
}

/// Adds the reason why a kernel refuses a table with an owner.
fn explain_kernel(error: FirewallError) -> FirewallError {
    let release = nix::sys::utsname::uname()
        .ok()
        .and_then(|name| name.release().to_str().map(str::to_owned));
    match release.as_deref().filter(|release| !can_persist(release)) {
        Some(release) => FirewallError::Table(format!(
            "Linux {release} cannot keep a table whose owner ended; Linux {}.{} or later is needed ({error})",
            PERSIST_SINCE.0, PERSIST_SINCE.1
        )),
        None => error,
    }
}

/// Returns true if a kernel release keeps tables whose owner ended.
fn can_persist(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or_default());
    let version = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    version >= PERSIST_SINCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_must_keep_a_table_without_an_owner() {
        for (release, can) in [
            ("6.18.5", true),
            ("6.9.0-rc1", true),
            ("7.0", true),
            ("6.8.12-amd64", false),
            ("5.15.0-91-generic", false),
            ("", false),
        ] {
            assert_eq!(can_persist(release), can, "{release}");
        }
    }
}
