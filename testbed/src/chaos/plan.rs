//! What goes wrong when: a pure function of a seed. The same seed is the same plan.
//!
//! Kinds are dealt like a shuffled deck, so that each comes once before any comes twice. Faults
//! overlap, but no two of one [`Area`]: two outages in a row would be one long one, after which a
//! listener rightly gives up, and nobody could be blamed for its job.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// Milliseconds from the end of one fault to the next of its area.
const REST_MS: u64 = 1500;
/// Milliseconds between two faults.
const GAP_MS: RangeInclusive<u64> = 2000..=5000;
/// The first fault; jobs are to flow by then.
const FIRST_MS: u64 = 4000;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// SIGKILL for the daemon.
    KillDaemon,
    /// The daemon's program replaced, and the daemon restarted.
    UpgradeDaemon,
    /// `systemctl reload`.
    ReloadDaemon,
    /// Drained, and back.
    Drain,
    /// SIGKILL at some step of a start, of the launcher or of what it became.
    KillLauncher,
    /// SIGKILL for what gives a link its addresses.
    KillConnect,
    /// SIGKILL for what tidies up after a life.
    KillSweep,
    /// SIGKILL for a container's systemd-nspawn.
    KillNspawn,
    /// SIGKILL for a container's process 1.
    KillInit,
    /// SIGKILL for machined.
    KillMachined,
    /// SIGKILL for the bus.
    KillBus,
    /// SIGKILL for polkit.
    KillPolkit,
    /// `systemctl daemon-reexec`.
    Reexec,
    /// `systemctl daemon-reload`.
    ReloadSystemd,
    /// journald restarted.
    RestartJournald,
    /// SIGKILL for GitHub, which comes back and knows what it knew.
    KillGitHub,
    /// The cable to the internet is cut, and mended.
    NetworkDown,
    /// Somebody deletes our nftables table; it is loaded again.
    FirewallGone,
    /// 5xx, a proxy's pages and closed connections, for every call.
    ServerErrors,
    /// A mint is handled and its answer lost.
    LostMint,
    /// A mint's name is said to be taken.
    NameTaken,
    /// 403 by permission.
    Forbidden,
    /// 403 by the primary limit.
    PrimaryLimit,
    /// 403 by a secondary limit.
    SecondaryLimit,
    /// Lists that are cut, of wrong types, or empty.
    LyingList,
    /// Answers that are no answers: redirects, giants, wrong types.
    Nonsense,
    /// Bodies that drip.
    SlowBody,
    /// The token is another one; the right one comes with a restart of the daemon.
    TokenRotated,
    /// New runners show late in the list.
    ListLag,
    /// Pages of the list that skip or repeat.
    PageGlitch,
    /// Idle registrations lapse.
    IdleLapses,
    /// A runner loses the race for its job, and its registration with it.
    Ghost,
    /// A person deletes an idle runner.
    DeletedByHand,
    /// No room for the daemon's records.
    StateDiskFull,
    /// No room for layers on disk.
    LayerDiskFull,
    /// The host loses power and boots again.
    PowerCut,
}

/// What must not be hit twice at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The daemon.
    Daemon,
    /// Containers; any number at once.
    Containers,
    /// What systemd is made of.
    System,
    /// The way to GitHub, for jobs too.
    Way,
    /// GitHub's answers.
    Answers,
    /// What GitHub holds true.
    Truths,
    /// The disk of records.
    State,
    /// The disk of layers.
    Layers,
    /// All of it.
    Host,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// After the start. A power cut stops this clock.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// From fault to mending, for those that have to be mended.
    pub lasts: Duration,
    /// Chooses among what is there to be hit.
    pub dice: u64,
}

impl Kind {
    /// Every kind, with its name, its area, and how long it lasts in milliseconds.
    const TABLE: &[(Self, &str, Area, RangeInclusive<u64>)] = &[
        (Self::KillDaemon, "kill daemon", Area::Daemon, 0..=0),
        (Self::UpgradeDaemon, "upgrade daemon", Area::Daemon, 0..=0),
        (Self::ReloadDaemon, "reload daemon", Area::Daemon, 0..=0),
        (Self::Drain, "drain", Area::Daemon, 1000..=6000),
        (Self::KillLauncher, "kill launcher", Area::Containers, 0..=0),
        (Self::KillConnect, "kill connect", Area::Containers, 0..=0),
        (Self::KillSweep, "kill sweep", Area::Containers, 0..=0),
        (Self::KillNspawn, "kill nspawn", Area::Containers, 0..=0),
        (
            Self::KillInit,
            "kill container init",
            Area::Containers,
            0..=0,
        ),
        (Self::KillMachined, "kill machined", Area::System, 0..=0),
        (Self::KillBus, "kill dbus", Area::System, 0..=0),
        (Self::KillPolkit, "kill polkit", Area::System, 0..=0),
        (Self::Reexec, "daemon-reexec", Area::System, 0..=0),
        (Self::ReloadSystemd, "daemon-reload", Area::System, 0..=0),
        (
            Self::RestartJournald,
            "restart journald",
            Area::System,
            0..=0,
        ),
        (Self::KillGitHub, "kill GitHub", Area::Way, 200..=3000),
        (Self::NetworkDown, "network down", Area::Way, 500..=3000),
        (
            Self::FirewallGone,
            "firewall table gone",
            Area::Way,
            500..=3000,
        ),
        (
            Self::ServerErrors,
            "GitHub: 5xx storm",
            Area::Answers,
            1000..=6000,
        ),
        (
            Self::LostMint,
            "GitHub: lost mint",
            Area::Answers,
            1000..=2000,
        ),
        (Self::NameTaken, "GitHub: 409", Area::Answers, 1000..=2000),
        (Self::Forbidden, "GitHub: 403", Area::Answers, 1000..=4000),
        (
            Self::PrimaryLimit,
            "GitHub: primary limit",
            Area::Daemon,
            2000..=8000,
        ),
        (
            Self::SecondaryLimit,
            "GitHub: secondary limit",
            Area::Daemon,
            2000..=8000,
        ),
        (
            Self::LyingList,
            "GitHub: lying list",
            Area::Answers,
            3000..=6000,
        ),
        (
            Self::Nonsense,
            "GitHub: nonsense",
            Area::Answers,
            2000..=5000,
        ),
        (
            Self::SlowBody,
            "GitHub: slow bodies",
            Area::Answers,
            3000..=6000,
        ),
        (
            Self::TokenRotated,
            "GitHub: token rotated",
            Area::Daemon,
            1000..=5000,
        ),
        (Self::ListLag, "GitHub: list lag", Area::Truths, 4000..=8000),
        (
            Self::PageGlitch,
            "GitHub: page glitch",
            Area::Truths,
            4000..=8000,
        ),
        (
            Self::IdleLapses,
            "GitHub: idle lapses",
            Area::Truths,
            2000..=4000,
        ),
        (Self::Ghost, "GitHub: ghost", Area::Truths, 0..=0),
        (
            Self::DeletedByHand,
            "GitHub: deleted by hand",
            Area::Truths,
            0..=0,
        ),
        (
            Self::StateDiskFull,
            "state disk full",
            Area::State,
            2000..=8000,
        ),
        (
            Self::LayerDiskFull,
            "layer disk full",
            Area::Layers,
            2000..=8000,
        ),
        (Self::PowerCut, "power cut", Area::Host, 0..=0),
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, Area, RangeInclusive<u64>) {
        let row = Self::TABLE.iter().find(|row| row.0 == self);
        row.unwrap_or(&Self::TABLE[0])
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What it hits.
    #[must_use]
    pub fn area(self) -> Area {
        self.row().2
    }
}

/// When areas are free again, milliseconds after the start.
#[derive(Debug, Default)]
struct Free(BTreeMap<Area, u64>);

impl Free {
    fn at(&self, area: Area) -> u64 {
        match area {
            Area::Containers => self.of(Area::Host),
            Area::Host => self.0.values().copied().max().unwrap_or_default(),
            Area::Daemon
            | Area::System
            | Area::Way
            | Area::Answers
            | Area::Truths
            | Area::State
            | Area::Layers => self.of(area).max(self.of(Area::Host)),
        }
    }

    fn of(&self, area: Area) -> u64 {
        self.0.get(&area).copied().unwrap_or_default()
    }
}

/// The faults of a run of this length, in their order. All are mended when it ends.
#[must_use]
pub fn plan(seed: u64, length: Duration) -> Vec<Strike> {
    let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut free = Free::default();
    let mut deck: Vec<Kind> = Vec::new();
    let mut strikes = Vec::new();
    let mut at = FIRST_MS;
    while at < length {
        if deck.is_empty() {
            deck = Kind::all().collect();
            deck.shuffle(&mut rng);
        }
        let Some(place) = deck.iter().position(|kind| free.at(kind.area()) <= at) else {
            at += 500;
            continue;
        };
        let kind = deck.remove(place);
        let lasts = rng.random_range(kind.row().3.clone());
        let dice = rng.random();
        if at + lasts <= length {
            strikes.push(Strike {
                at: Duration::from_millis(at),
                kind,
                lasts: Duration::from_millis(lasts),
                dice,
            });
            free.0.insert(kind.area(), at + lasts + REST_MS);
        }
        at += rng.random_range(GAP_MS);
    }
    strikes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const THREE: Duration = Duration::from_mins(3);

    #[test]
    fn one_seed_is_one_plan_and_another_is_another() {
        assert_eq!(plan(7, THREE), plan(7, THREE));
        assert_ne!(plan(7, THREE), plan(8, THREE));
    }

    #[test]
    fn three_minutes_have_every_kind_whatever_the_seed() {
        for seed in 0..200 {
            let dealt: BTreeSet<Kind> =
                plan(seed, THREE).iter().map(|strike| strike.kind).collect();
            let missing: Vec<Kind> = Kind::all().filter(|kind| !dealt.contains(kind)).collect();
            assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        }
    }

    #[test]
    fn every_kind_has_a_row_of_its_own() {
        let kinds: BTreeSet<Kind> = Kind::all().collect();
        let names: BTreeSet<&str> = Kind::all().map(Kind::name).collect();
        assert_eq!(
            (kinds.len(), names.len()),
            (Kind::TABLE.len(), Kind::TABLE.len())
        );
    }

    #[test]
    fn faults_overlap_but_not_in_one_area_and_never_a_power_cut() {
        let strikes = plan(3, Duration::from_hours(1));
        let end = |strike: &Strike| strike.at + strike.lasts;
        let mut overlaps = 0;
        for (place, one) in strikes.iter().enumerate() {
            for other in &strikes[place + 1..] {
                if other.at >= end(one) {
                    continue;
                }
                overlaps += 1;
                let areas = (one.kind.area(), other.kind.area());
                assert!(areas.0 != areas.1, "{one:?} {other:?}");
                assert!(areas.1 != Area::Host, "{one:?} {other:?}");
            }
        }
        assert!(overlaps > 50, "{overlaps}");
        assert!(
            strikes
                .iter()
                .all(|strike| end(strike) <= Duration::from_hours(1))
        );
    }
}
