//! The schedule of faults: a pure function of a seed. The same seed gives the same plan.
//!
//! Kinds come from a shuffled deck, so that each kind comes once before any comes twice. Faults overlap,
//! but never two of one [`Area`]. Two outages in a row would be one long outage. A listener rightly gives
//! up after that, and the loss of its job would not be the daemon's fault.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// Minimum milliseconds from the end of a fault to the next one in its area.
const REST_MS: u64 = 1500;
/// Milliseconds between the starts of two faults.
const GAP_MS: RangeInclusive<u64> = 2000..=5000;
/// Milliseconds before the first fault, so that jobs flow by then.
const FIRST_MS: u64 = 4000;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// SIGKILL to the daemon.
    KillDaemon,
    /// The daemon's program is replaced and the daemon restarted.
    UpgradeDaemon,
    /// `systemctl reload`.
    ReloadDaemon,
    /// A drain, and its end.
    Drain,
    /// SIGKILL to the launcher at a random moment of a start; it may have become systemd-nspawn by then.
    KillLauncher,
    /// SIGKILL to `connect`, which gives a link its addresses.
    KillConnect,
    /// SIGKILL to `sweep`, which removes what a container left behind.
    KillSweep,
    /// SIGKILL to a container's systemd-nspawn.
    KillNspawn,
    /// SIGKILL to a container's process 1.
    KillInit,
    /// SIGKILL to machined.
    KillMachined,
    /// SIGKILL to the bus.
    KillBus,
    /// SIGKILL to polkit.
    KillPolkit,
    /// `systemctl daemon-reexec`.
    Reexec,
    /// `systemctl daemon-reload`.
    ReloadSystemd,
    /// A restart of journald.
    RestartJournald,
    /// SIGKILL to the stand-in GitHub, which comes back with the state that it had.
    KillGitHub,
    /// The link to the internet is down for a while.
    NetworkDown,
    /// Our nftables table is deleted, and loaded again later.
    FirewallGone,
    /// 5xx, a proxy's error pages and closed connections, for every call.
    ServerErrors,
    /// The answer to a mint that was carried out is lost.
    LostMint,
    /// 409: GitHub answers that a mint's name is taken.
    NameTaken,
    /// 403 for a missing permission.
    Forbidden,
    /// 403 for the primary rate limit.
    PrimaryLimit,
    /// 403 for a secondary rate limit.
    SecondaryLimit,
    /// Lists that are truncated, have wrong types, or are empty.
    WrongList,
    /// Malformed answers: redirects, huge bodies, wrong types, truncated bodies.
    MalformedAnswer,
    /// Bodies that arrive slowly.
    SlowBody,
    /// GitHub accepts another token; the daemon gets it later, with a restart.
    TokenRotated,
    /// New runners appear late in the list.
    ListLag,
    /// Pages of the list skip or repeat a runner.
    PageGlitch,
    /// Idle registrations lapse.
    IdleLapse,
    /// A runner acquires its job too late and loses its registration.
    LostRace,
    /// An operator deletes an idle runner in the browser.
    DeletedByHand,
    /// The disk of the daemon's records is full.
    RecordsDiskFull,
    /// The disk of the layers is full.
    LayerDiskFull,
    /// The host loses power and boots again.
    PowerCut,
}

/// A part of the host or of GitHub that at most one fault hits at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The daemon.
    Daemon,
    /// Containers; several faults may hit them at once.
    Containers,
    /// systemd and its services.
    System,
    /// The network path to GitHub, the jobs' too.
    Network,
    /// GitHub's answers.
    Answers,
    /// GitHub's registrations and its list of them.
    Registrations,
    /// The disk of the records.
    RecordsDisk,
    /// The disk of the layers.
    LayerDisk,
    /// The whole host.
    Host,
}

/// A planned fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Time after the start. This clock stands still during a power cut.
    pub at: Duration,
    /// Its kind.
    pub kind: FaultKind,
    /// Time until it is repaired; zero for a fault that needs no repair.
    pub lasts: Duration,
    /// Random number that selects a target and variants.
    pub draw: u64,
}

impl FaultKind {
    /// Every kind with its name, its area, and its duration in milliseconds.
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
        (Self::KillGitHub, "kill GitHub", Area::Network, 200..=3000),
        (Self::NetworkDown, "network down", Area::Network, 500..=3000),
        (
            Self::FirewallGone,
            "firewall table gone",
            Area::Network,
            500..=3000,
        ),
        (
            Self::ServerErrors,
            "GitHub: 5xx",
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
            Self::WrongList,
            "GitHub: wrong list",
            Area::Answers,
            3000..=6000,
        ),
        (
            Self::MalformedAnswer,
            "GitHub: malformed answer",
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
        (
            Self::ListLag,
            "GitHub: list lag",
            Area::Registrations,
            4000..=8000,
        ),
        (
            Self::PageGlitch,
            "GitHub: page glitch",
            Area::Registrations,
            4000..=8000,
        ),
        (
            Self::IdleLapse,
            "GitHub: idle lapse",
            Area::Registrations,
            2000..=4000,
        ),
        (
            Self::LostRace,
            "GitHub: lost race",
            Area::Registrations,
            0..=0,
        ),
        (
            Self::DeletedByHand,
            "GitHub: runner deleted",
            Area::Registrations,
            0..=0,
        ),
        (
            Self::RecordsDiskFull,
            "records disk full",
            Area::RecordsDisk,
            2000..=8000,
        ),
        (
            Self::LayerDiskFull,
            "layer disk full",
            Area::LayerDisk,
            2000..=8000,
        ),
        (Self::PowerCut, "power cut", Area::Host, 0..=0),
    ];

    /// Returns every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (Self, &'static str, Area, RangeInclusive<u64>) {
        let row = Self::TABLE.iter().find(|row| row.0 == self);
        row.unwrap_or(&Self::TABLE[0])
    }

    /// Returns its name in a report.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns the area that it hits.
    #[must_use]
    pub fn area(self) -> Area {
        self.row().2
    }
}

/// Times at which areas may be hit again, in milliseconds after the start.
#[derive(Debug, Default)]
struct FreeAt(BTreeMap<Area, u64>);

impl FreeAt {
    fn get(&self, area: Area) -> u64 {
        match area {
            Area::Containers => self.of(Area::Host),
            Area::Host => self.0.values().copied().max().unwrap_or_default(),
            Area::Daemon
            | Area::System
            | Area::Network
            | Area::Answers
            | Area::Registrations
            | Area::RecordsDisk
            | Area::LayerDisk => self.of(area).max(self.of(Area::Host)),
        }
    }

    fn of(&self, area: Area) -> u64 {
        self.0.get(&area).copied().unwrap_or_default()
    }
}

/// Returns the faults of a run, in order of time. The last one is repaired before the run ends.
#[must_use]
pub fn plan(seed: u64, length: Duration) -> Vec<Fault> {
    let length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut free = FreeAt::default();
    let mut deck: Vec<FaultKind> = Vec::new();
    let mut faults = Vec::new();
    let mut at = FIRST_MS;
    while at < length {
        if deck.is_empty() {
            deck = FaultKind::all().collect();
            deck.shuffle(&mut rng);
        }
        let Some(place) = deck.iter().position(|kind| free.get(kind.area()) <= at) else {
            at += 500;
            continue;
        };
        let kind = deck.remove(place);
        let lasts = rng.random_range(kind.row().3.clone());
        let draw = rng.random();
        if at + lasts <= length {
            faults.push(Fault {
                at: Duration::from_millis(at),
                kind,
                lasts: Duration::from_millis(lasts),
                draw,
            });
            free.0.insert(kind.area(), at + lasts + REST_MS);
        }
        at += rng.random_range(GAP_MS);
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const THREE: Duration = Duration::from_mins(3);

    #[test]
    fn a_seed_determines_the_plan() {
        assert_eq!(plan(7, THREE), plan(7, THREE));
        assert_ne!(plan(7, THREE), plan(8, THREE));
    }

    /// The plan of a recorded seed must not change with a library: see `ChaCha8Rng` in rand's list of
    /// portable generators.
    #[test]
    fn the_plan_of_a_seed_never_changes() {
        let planned = plan(1, Duration::from_secs(20));
        let planned: Vec<_> = planned
            .iter()
            .map(|fault| (fault.at.as_millis(), fault.kind.name(), fault.draw))
            .collect();
        let expected = [
            (4000, "GitHub: token rotated", 16_853_068_319_121_470_035),
            (7488, "kill container init", 770_502_646_633_348_930),
            (
                10_009,
                "GitHub: malformed answer",
                17_370_465_004_149_980_594,
            ),
            (14_515, "reload daemon", 8_261_567_515_672_451_595),
            (17_869, "kill nspawn", 13_123_825_816_216_816_689_u64),
        ];
        assert_eq!(planned, expected);
    }

    #[test]
    fn three_minutes_have_every_kind_for_every_seed() {
        for seed in 0..200 {
            let planned: BTreeSet<FaultKind> =
                plan(seed, THREE).iter().map(|fault| fault.kind).collect();
            let missing: Vec<FaultKind> = FaultKind::all()
                .filter(|kind| !planned.contains(kind))
                .collect();
            assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        }
    }

    #[test]
    fn every_kind_has_its_own_row() {
        let kinds: BTreeSet<FaultKind> = FaultKind::all().collect();
        let names: BTreeSet<&str> = FaultKind::all().map(FaultKind::name).collect();
        assert_eq!(
            (kinds.len(), names.len()),
            (FaultKind::TABLE.len(), FaultKind::TABLE.len())
        );
    }

    #[test]
    fn faults_overlap_except_in_one_area_and_with_a_power_cut() {
        let faults = plan(3, Duration::from_hours(1));
        let end = |fault: &Fault| fault.at + fault.lasts;
        let mut overlaps = 0;
        for (place, one) in faults.iter().enumerate() {
            for other in &faults[place + 1..] {
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
            faults
                .iter()
                .all(|fault| end(fault) <= Duration::from_hours(1))
        );
    }
}
