//! The fault injector: it draws the faults of a history by its seed, starts and ends them.
//!
//! Each history draws the kinds of fault that it can have, so that some are about GitHub alone, some about the
//! host, and some about everything at once.

use std::sync::Arc;

use runner_controller::controller::Command;
use runner_controller::pool::Exit;

use crate::configs;
use crate::event::SimEvent;
use crate::fault::{CallFailure, Fault, FaultKind, LimitNotice};
use crate::random::{Random, Stream};
use crate::schedule::Scheduler;

/// The schedule as the fault injector sees it.
type Schedule<'a> = dyn Scheduler<Timer> + 'a;

/// A timer of the fault injector.
pub(crate) enum Timer {
    /// The next fault starts.
    Start,
    /// A fault that lasts ends.
    End(FaultKind),
}

/// The fault injector.
pub(crate) struct Injector {
    random: Random,
    kinds: Vec<FaultKind>,
    /// Kinds that are left out, for a shorter account of a violation.
    without: Vec<FaultKind>,
    /// Mean milliseconds between two faults.
    every_ms: u64,
    calm: bool,
}

impl Injector {
    /// Returns the faults of a seed. Those of a kind in `without` do not happen, and the others do not change.
    #[must_use]
    pub(crate) fn new(seed: u64, without: &[FaultKind]) -> Self {
        let mut random = Random::new(seed, Stream::Faults);
        let share = *random.pick(&[100, 300, 600]).unwrap_or(&300);
        let kinds = FaultKind::ALL.into_iter();
        let kinds = kinds.filter(|_| random.chance(share)).collect();
        let every_ms = *random.pick(&[2_000, 10_000, 40_000]).unwrap_or(&10_000);
        Self {
            random,
            kinds,
            without: without.to_vec(),
            every_ms,
            calm: false,
        }
    }

    /// Begins to inject faults.
    pub(crate) fn begin(&mut self, schedule: &mut Schedule<'_>) {
        let wait = self.random.between(1, 2 * self.every_ms);
        schedule.after(wait, Timer::Start);
    }

    /// A timer is due.
    pub(crate) fn timer(&mut self, timer: Timer, schedule: &mut Schedule<'_>) {
        match timer {
            Timer::Start | Timer::End(_) if self.calm => {}
            Timer::Start => {
                let kind = self.random.pick(&self.kinds).copied();
                // A fault has its own numbers, so that leaving it out changes no other fault.
                let mut random = self.random.fork();
                if let Some(kind) = kind.filter(|kind| !self.without.contains(kind)) {
                    start(kind, &mut random, schedule);
                }
                self.begin(schedule);
            }
            Timer::End(FaultKind::OperatorCommand) => {
                schedule.emit(SimEvent::CommandGiven(Command::Undrain));
            }
            Timer::End(kind) => schedule.emit(SimEvent::FaultEnded(kind)),
        }
    }

    /// Ends all faults. Root writes a last configuration.
    pub(crate) fn calm(&mut self, schedule: &mut Schedule<'_>) {
        self.calm = true;
        schedule.emit(SimEvent::Calm);
        schedule.emit(SimEvent::CommandGiven(Command::Undrain));
        configure(&mut self.random, schedule);
    }
}

/// Root writes another configuration.
fn configure(random: &mut Random, schedule: &mut Schedule<'_>) {
    if let Ok(config) = configs::draw(random) {
        schedule.emit(SimEvent::Configured(Arc::new(config)));
    }
}

/// Starts a fault of this kind, and schedules its end if it lasts.
#[expect(clippy::too_many_lines, reason = "a table with an arm for each fault")]
fn start(kind: FaultKind, random: &mut Random, schedule: &mut Schedule<'_>) {
    let now = schedule.now();
    let (fault, lasts_ms) = match kind {
        FaultKind::DaemonKilled => {
            let after_steps = random.below(12);
            (Fault::DaemonKilled { after_steps }, None)
        }
        FaultKind::DaemonRestarted => (Fault::DaemonRestarted, None),
        FaultKind::DescriptorsLost => (Fault::DescriptorsLost, None),
        FaultKind::PowerCut => {
            // A power cut ends so much that histories with frequent faults would have nothing else.
            if !random.chance(300) {
                return;
            }
            (Fault::PowerCut, None)
        }
        FaultKind::ContainerDies => {
            let draw = random.below(u64::MAX);
            let exit = match random.below(4) {
                0 => Exit::Status(0),
                1 => Exit::Status(2),
                2 => Exit::Unknown,
                _ => Exit::Signal("SEGV".to_owned()),
            };
            (Fault::ContainerDies { draw, exit }, None)
        }
        FaultKind::CallsFail => {
            let Some(failure) = random.pick(&CallFailure::ALL).copied() else {
                return;
            };
            let rate = *random.pick(&[200, 500, 1000]).unwrap_or(&500);
            let slow_ms = *random.pick(&[0, 0, 2_000]).unwrap_or(&0);
            let fault = Fault::CallsFail {
                failure,
                rate,
                slow_ms,
            };
            (fault, Some(120_000))
        }
        FaultKind::CallsLimited => {
            let notice = random.pick(&LimitNotice::ALL).copied();
            let notice = notice.unwrap_or(LimitNotice::NoTime);
            let until = now + random.wait(1_000, 120_000, 1_800_000);
            (Fault::CallsLimited { until, notice }, None)
        }
        FaultKind::RegistrationLapses => {
            let draw = random.below(u64::MAX);
            let heard = random.chance(700);
            (Fault::RegistrationLapses { draw, heard }, None)
        }
        FaultKind::VersionRefused => (Fault::VersionRefused, Some(200_000)),
        FaultKind::BusDown => (Fault::BusDown, Some(20_000)),
        FaultKind::SignalsLost => (Fault::SignalsLost, Some(60_000)),
        FaultKind::DiskFull => {
            let unreadable = random.chance(300);
            (Fault::DiskFull { unreadable }, Some(60_000))
        }
        FaultKind::OperatorCommand => {
            let command = match random.below(10) {
                0..6 => Command::Drain,
                6..9 => Command::Undrain,
                _ => Command::Clear {
                    number: 0,
                    refills: false,
                },
            };
            schedule.emit(SimEvent::CommandGiven(command));
            (Fault::OperatorCommand, Some(100_000))
        }
        FaultKind::ConfigChanged => {
            configure(random, schedule);
            (Fault::ConfigChanged, None)
        }
        FaultKind::WallClockJumps => {
            let error_ms = i64::try_from(random.below(1 << 34)).unwrap_or(0) - (1 << 33);
            (Fault::WallClockJumps { error_ms }, None)
        }
        FaultKind::BootsFail => {
            let hang = random.chance(500);
            (Fault::BootsFail { hang }, Some(120_000))
        }
        FaultKind::ListenersOffline => (Fault::ListenersOffline, Some(150_000)),
        FaultKind::RunFull => (Fault::RunFull, Some(60_000)),
        FaultKind::StrayRegistration => {
            let name = stray_name(random);
            let online = random.chance(300);
            (Fault::StrayRegistration { name, online }, None)
        }
        FaultKind::DeletesFail => (Fault::DeletesFail, Some(400_000)),
        FaultKind::ProxyRefuses => {
            let status = *random.pick(&[407, 403, 503]).unwrap_or(&407);
            let rate = *random.pick(&[300, 600, 1000]).unwrap_or(&1000);
            (Fault::ProxyRefuses { status, rate }, Some(400_000))
        }
        FaultKind::SessionEvicted => {
            let draw = random.below(u64::MAX);
            (Fault::SessionEvicted { draw }, None)
        }
        FaultKind::ScaleSetLost => {
            // Its runners listen in vain until they are old, so that histories with frequent faults would have nothing
            // else.
            if !random.chance(300) {
                return;
            }
            let draw = random.below(u64::MAX);
            (Fault::ScaleSetLost { draw }, None)
        }
        FaultKind::MessageIdsRestarted => {
            let draw = random.below(u64::MAX);
            (Fault::MessageIdsRestarted { draw }, None)
        }
        FaultKind::MessageUnreadable => {
            let deliveries = random.between(1, 4);
            (Fault::MessageUnreadable { deliveries }, None)
        }
        FaultKind::ServiceTokensEnd => (Fault::ServiceTokensEnd, None),
        FaultKind::JobsEndOddly => (Fault::JobsEndOddly, Some(200_000)),
        FaultKind::MemoryShort => (Fault::MemoryShort, Some(90_000)),
        FaultKind::FirewallWrong => (Fault::FirewallWrong, Some(90_000)),
    };
    schedule.emit(SimEvent::FaultStarted(fault));
    if let Some(usual_ms) = lasts_ms {
        let wait = random.wait(100, usual_ms, 4 * usual_ms);
        schedule.after(wait, Timer::End(kind));
    }
}

/// Returns a name of this host, or one of another host that begins alike.
fn stray_name(random: &mut Random) -> String {
    let number = random.any();
    let slot = random.between(1, 9);
    let (host, pool) = *random
        .pick(&[("sim", "ci"), ("sim", "old"), ("sim-a", "ci"), ("si", "m")])
        .unwrap_or(&("sim", "ci"));
    format!("{host}-{pool}-{slot}-{number:08x}")
}
