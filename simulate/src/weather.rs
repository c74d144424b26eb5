//! What befalls a history: jobs, and everything that goes wrong. Each history has its own climate,
//! so that some are about GitHub alone, some about the host, and some about everything at once.

use std::sync::Arc;

use runner_controller::controller::Command;
use runner_controller::pool::{Exit, Resource, RunnerName, SlotId};
use runner_controller::world::Event;

use crate::clock;
use crate::github::JobState;
use crate::limits::Manner;
use crate::plan;
use crate::wire::Fault;
use crate::world::{Inner, Order};

/// What may befall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ill {
    /// The daemon is killed, at any of its awaits.
    Crash,
    /// The daemon is restarted in order.
    Restart,
    /// A container dies.
    Death,
    /// GitHub answers badly for a while.
    Storm,
    /// GitHub limits us.
    Limit,
    /// GitHub forgets an idle runner, and its listener hears of it or does not.
    Lapse,
    /// GitHub refuses this version of the runner.
    Version,
    /// The system bus goes away.
    NoBus,
    /// Signals get lost.
    Mute,
    /// Records cannot be written, or not even read.
    NoDisk,
    /// The power goes.
    PowerCut,
    /// An operator drains, clears, and changes his mind.
    Operator,
    /// The configuration changes.
    Config,
    /// The wall clock jumps.
    Clock,
    /// systemd loses the file descriptors.
    Store,
    /// Containers fail to boot, or hang.
    Boots,
    /// Listeners do not reach GitHub.
    Network,
    /// `/run` is full.
    RunFull,
    /// The firewall is not as it should be.
    Firewall,
    /// The host runs short of memory.
    Short,
    /// Registrations of this host that nobody knows, and others that look like it.
    Strays,
}

impl Ill {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Crash,
        Self::Restart,
        Self::Death,
        Self::Storm,
        Self::Limit,
        Self::Lapse,
        Self::Version,
        Self::NoBus,
        Self::Mute,
        Self::NoDisk,
        Self::PowerCut,
        Self::Operator,
        Self::Config,
        Self::Clock,
        Self::Store,
        Self::Boots,
        Self::Network,
        Self::RunFull,
        Self::Strays,
        Self::Firewall,
        Self::Short,
    ];
}

/// What a history is about.
#[derive(Debug, Clone)]
pub struct Climate {
    /// What befalls it.
    pub ills: Vec<Ill>,
    /// Milliseconds between two of them, about.
    pub every: u64,
    /// Milliseconds between two jobs, about.
    pub jobs: u64,
}

impl Inner {
    /// Draws a climate. `without` lists what is left out, for a shorter account of a failure.
    pub fn climate(&mut self, without: &[Ill]) -> Climate {
        let share = *self.rng.pick(&[100, 300, 600]).unwrap_or(&300);
        let mut ills = Vec::new();
        for ill in Ill::ALL {
            // Drawn for each, so that leaving one out changes no other.
            if self.rng.chance(share) && !without.contains(&ill) {
                ills.push(ill);
            }
        }
        self.github.page = *self.rng.pick(&[2, 5, 100]).unwrap_or(&100).max(&1);
        self.github.windows.limit = *self.rng.pick(&[40, 300, 5_000]).unwrap_or(&5_000);
        self.github.windows.length = self.rng.between(120, 3_600) * 1000;
        Climate {
            ills,
            every: *self.rng.pick(&[2_000, 10_000, 40_000]).unwrap_or(&10_000),
            jobs: *self.rng.pick(&[3_000, 15_000, 90_000]).unwrap_or(&15_000),
        }
    }

    /// Brings the next ill, and the ones after it.
    pub fn next_ill(&mut self, climate: Arc<Climate>) {
        let wait = self.rng.between(1, 2 * climate.every);
        self.after(wait, move |w| {
            if w.is_calm {
                return;
            }
            if let Some(ill) = w.rng.pick(&climate.ills).copied() {
                w.befall(ill);
            }
            w.next_ill(climate);
        });
    }

    /// Brings the next job, and the ones after it.
    pub fn next_job(&mut self, climate: Arc<Climate>) {
        let wait = self.rng.between(1, 2 * climate.jobs);
        self.after(wait, move |w| {
            if w.is_calm {
                return;
            }
            let config = Arc::clone(&w.books.config);
            let pool = w.rng.pick(&config.pools).map(|pool| pool.name.to_string());
            if let Some(pool) = pool
                && w.github.count(JobState::Queued) < 5
            {
                w.new_job(&pool);
            }
            w.next_job(climate);
        });
    }

    fn for_a_while(&mut self, longest: u64, end: impl FnOnce(&mut Inner) + Send + 'static) {
        let wait = self.rng.wait(100, longest, 4 * longest);
        self.after(wait, end);
    }

    fn befall(&mut self, ill: Ill) {
        self.note(|| format!("ILL: {ill:?}"));
        match ill {
            Ill::Crash => {
                let after = self.rng.below(12);
                self.orders.push(Order::Kill { after });
            }
            Ill::Restart => self.orders.push(Order::Stop),
            Ill::Store => self.orders.push(Order::KillAndLoseStore),
            Ill::PowerCut => {
                if self.rng.chance(300) {
                    self.orders.push(Order::PowerCut);
                }
            }
            Ill::Death => self.somebody_dies(),
            Ill::Storm => {
                let fault = self.rng.pick(&Fault::ALL).copied();
                let rate = *self.rng.pick(&[200, 500, 1000]).unwrap_or(&500);
                self.github.mood.fault = fault.map(|fault| (fault, rate));
                self.github.mood.slow = *self.rng.pick(&[0, 0, 2_000]).unwrap_or(&0);
                self.for_a_while(120_000, |w| {
                    (w.github.mood.fault, w.github.mood.slow) = (None, 0);
                });
            }
            Ill::Limit => {
                let manner = [Manner::RetryAfter, Manner::NoTime, Manner::Primary];
                let manner = *self.rng.pick(&manner).unwrap_or(&Manner::NoTime);
                let until = self.now() + self.rng.wait(1_000, 120_000, 1_800_000);
                self.github.mood.limited = Some((until, manner));
            }
            Ill::Lapse => {
                let idle = self.github.runners.iter();
                let idle: Vec<u64> = idle
                    .filter(|(_, r)| r.ours.is_some() && r.busy.is_none())
                    .map(|(id, _)| *id)
                    .collect();
                if let Some(id) = self.rng.pick(&idle).copied() {
                    let heard = self.rng.chance(700);
                    self.unregister(id, heard);
                }
            }
            Ill::Version => {
                self.github.refuses_version = true;
                self.for_a_while(200_000, |w| w.github.refuses_version = false);
            }
            Ill::NoBus => {
                self.host.sick.no_bus = true;
                self.for_a_while(20_000, Inner::bus_is_back);
            }
            Ill::Mute => {
                self.host.sick.mute = true;
                self.for_a_while(60_000, |w| w.host.sick.mute = false);
            }
            Ill::NoDisk => {
                let broken = self.rng.chance(300);
                self.disk_is(true, broken);
                self.for_a_while(60_000, |w| w.disk_is(false, false));
            }
            Ill::Operator => self.operate(),
            Ill::Config => {
                self.configure();
                self.orders.push(Order::Stop);
            }
            Ill::Clock => {
                clock::jump(i64::try_from(self.rng.below(1 << 34)).unwrap_or(0) - (1 << 33));
            }
            Ill::Boots => {
                let hang = self.rng.chance(500);
                (self.host.sick.boots_hang, self.host.sick.boots_fail) = (hang, !hang);
                self.for_a_while(120_000, |w| {
                    (w.host.sick.boots_hang, w.host.sick.boots_fail) = (false, false);
                });
            }
            Ill::Network => {
                self.host.sick.no_network = true;
                self.for_a_while(150_000, |w| w.host.sick.no_network = false);
            }
            Ill::RunFull => {
                self.host.sick.run_full = true;
                self.for_a_while(60_000, |w| w.host.sick.run_full = false);
            }
            Ill::Strays => self.stray(),
            Ill::Short => {
                self.short(true);
                self.for_a_while(90_000, |w| w.short(false));
            }
            Ill::Firewall => {
                self.firewall(true);
                self.for_a_while(90_000, |w| w.firewall(false));
            }
        }
    }

    fn somebody_dies(&mut self) {
        let runners: Vec<SlotId> = self
            .host
            .slots
            .iter()
            .filter(|(_, place)| place.is_up())
            .map(|(slot, _)| slot.clone())
            .collect();
        let Some(slot) = self.rng.pick(&runners).cloned() else {
            return;
        };
        let Some(invocation) = self.place(&slot).invocation.clone() else {
            return;
        };
        let exit = match self.rng.below(4) {
            0 => Exit::Status(0),
            1 => Exit::Status(2),
            2 => Exit::Unknown,
            _ => Exit::Signal("SEGV".to_owned()),
        };
        self.end_unit(&slot, &invocation, exit);
    }

    /// Root writes another configuration.
    pub fn configure(&mut self) {
        if let Ok(config) = plan::config(&mut self.rng) {
            self.note(|| {
                let pools = config.pools.iter().map(|pool| {
                    let (idle, spare) = (pool.min_idle, pool.min_spare);
                    format!("{} {idle}+{spare} of {}", pool.name, pool.max_runners)
                });
                format!("configured: {}", pools.collect::<Vec<_>>().join(", "))
            });
            self.books.config = Arc::new(config);
        }
    }

    fn operate(&mut self) {
        let command = match self.rng.below(10) {
            0..6 => Command::Drain,
            6..9 => Command::Undrain,
            _ => Command::Clear,
        };
        self.command(command);
        self.for_a_while(100_000, |w| w.command(Command::Undrain));
    }

    /// An operator says something, and the daemon hears it if it is up.
    pub fn command(&mut self, command: Command) {
        self.note(|| format!("operator: {command:?}"));
        let now = self.now();
        match command {
            Command::Clear => self.books.clearing = Some(u64::MAX),
            // What was asked for before is still being done.
            Command::Undrain | Command::Drain => {
                if let Some(until) = &mut self.books.clearing {
                    *until = (*until).min(now + 90_000);
                }
            }
            Command::Ping => {}
        }
        self.orders.push(Order::Command(command));
    }

    fn firewall(&mut self, bad: bool) {
        self.host.sick.bad_firewall = bad;
        self.tell_firewall();
    }

    /// Root's check of the firewall, as it was found last.
    pub fn tell_firewall(&mut self) {
        let wrong = self
            .host
            .sick
            .bad_firewall
            .then(|| "a rule is gone".to_owned());
        self.tell(Event::Firewall { problem: wrong });
    }

    fn short(&mut self, is_short: bool) {
        self.host.sick.short = is_short;
        self.tell_readings();
    }

    /// What the daemon reads of the host.
    pub fn tell_readings(&mut self) {
        let reason = "64 MiB are left".to_owned();
        let memory = self.host.sick.short.then_some((Resource::Memory, reason));
        let short = memory.into_iter().collect();
        self.tell(Event::Shortages(short));
    }

    fn stray(&mut self) {
        let number = self.rng.below(1 << 32);
        let slot = self.rng.between(1, 9);
        let (host, pool) = *self
            .rng
            .pick(&[("sim", "ci"), ("sim", "old"), ("sim-a", "ci"), ("si", "m")])
            .unwrap_or(&("sim", "ci"));
        let name = format!("{host}-{pool}-{slot}-{number:08x}");
        let ours = RunnerName::parse(&self.books.config.host, &name);
        // Nobody listens for it, so no job is ever sent there.
        let _ = self.register(&name, "nobody", ours);
    }

    /// Nothing goes wrong any more, and no jobs come.
    pub fn calm(&mut self) {
        self.note(|| "CALM".to_owned());
        self.is_calm = true;
        self.github.mood = crate::wire::Mood::default();
        self.github.windows.limit = 5_000;
        self.github.refuses_version = false;
        let no_bus = self.host.sick.no_bus;
        self.host.sick = crate::host::Sickness::default();
        if no_bus {
            self.bus_is_back();
        }
        self.tell_firewall();
        self.tell_readings();
        self.disk_is(false, false);
        self.command(Command::Undrain);
    }
}
