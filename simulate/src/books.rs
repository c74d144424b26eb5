//! What is watched over: every rule that must hold at every moment, and those for the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use runner_controller::config::Config;
use runner_controller::pool::{Invocation, PoolName, SlotId};

use crate::guest::At;
use crate::host::Place;
use crate::rule::Rule;
use crate::world::{Inner, short};

/// A registration may be without a machine for a moment; never more than so many, beyond one for
/// each slot and for each daemon that died in the last minutes.
const MAX_ORPHANS: usize = 24;
/// GitHub takes 80 content-creating calls a minute.
const MAX_MINTS_PER_MINUTE: usize = 60;
/// Deletions go one after the other, a second apart.
const DELETES_A_MINUTE: usize = 62;
const MINUTE: u64 = 60_000;
/// How long a life may be without a lasting word in the records.
const UNTOLD_AGE: u64 = 5_000;
/// A call arrives within this, whatever became of who made it.
const CALL_ARRIVES: u64 = 500;
/// `reconcile` of every history.
const COMPARE: u64 = 60_000;

/// The calls that GitHub is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `generate-jitconfig`
    Mint,
    /// The first page of the list.
    List,
    /// One of its other pages.
    Page,
    /// A deletion.
    Delete,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub rule: Rule,
    /// How.
    pub how: String,
}

struct LifeBook {
    slot: SlotId,
    began: u64,
    ended: Option<u64>,
}

/// The books of a history.
pub struct Books {
    /// The configuration as root has it.
    pub config: Arc<Config>,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Configs that were minted, and for which registration.
    pub configs: BTreeMap<String, u64>,
    /// An operator asked for everything to be removed, or has until then.
    pub clearing: Option<u64>,
    /// What the daemon knows of limits.
    quiet_until: u64,
    quiet_since: u64,
    empty: BTreeMap<&'static str, u64>,
    /// The config that was given last.
    pub last_config: Option<String>,
    /// Daemons so far.
    pub daemons: u64,
    sent: VecDeque<(u64, Call)>,
    /// All calls.
    pub calls: [u64; 4],
    runners: BTreeMap<Invocation, LifeBook>,
    /// Daemons that ended, and whether their records could be written then.
    deaths: Vec<(u64, bool)>,
    /// When a daemon last began without its records.
    blind: Option<u64>,
    /// Since when records can be written.
    disk_good_since: Option<u64>,
    /// What the last daemon was configured with, and when it ended.
    pub former: Option<(u64, Arc<Config>)>,
    /// Lives that a power cut left no trace of.
    untold: BTreeSet<Invocation>,
}

impl Books {
    /// Empty books.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            violation: None,
            configs: BTreeMap::new(),
            clearing: None,
            quiet_until: 0,
            quiet_since: 0,
            empty: BTreeMap::new(),
            last_config: None,
            daemons: 0,
            sent: VecDeque::new(),
            calls: [0; 4],
            runners: BTreeMap::new(),
            deaths: Vec::new(),
            blind: None,
            disk_good_since: Some(0),
            former: None,
            untold: BTreeSet::new(),
        }
    }

    /// How many lives there were.
    #[must_use]
    pub fn runners(&self) -> usize {
        self.runners.len()
    }
}

impl Inner {
    /// A rule is broken. Only the first one counts: what follows may come of it.
    pub fn violate(&mut self, rule: Rule, how: &str) {
        self.note(|| format!("BROKEN: {rule}: {how}"));
        self.books.violation.get_or_insert_with(|| Violation {
            rule,
            how: how.to_owned(),
        });
    }

    /// A unit starts.
    pub fn runner_began(&mut self, slot: &SlotId, invocation: &Invocation) {
        let began = self.now();
        let book = LifeBook {
            slot: slot.clone(),
            began,
            ended: None,
        };
        self.books.runners.insert(invocation.clone(), book);
        let max = |config: &Config| config.pool(&slot.pool).map_or(0, |pool| pool.max_runners);
        let known = self.daemon.as_ref().map_or(0, |link| max(&link.config));
        // The last word of a daemon that has just ended may still be on its way to systemd.
        let former = self.books.former.as_ref();
        let former = former.filter(|(ended, _)| began < ended + CALL_ARRIVES);
        let former = former.map_or(0, |(_, config)| max(config));
        let max = usize::from(max(&self.books.config).max(known).max(former));
        let there = self.host.slots.iter();
        let there = there
            .filter(|(id, place)| id.pool == slot.pool && place.runners())
            .count();
        if there > max {
            self.violate(
                Rule::MaxRunners,
                &format!("{slot} is number {there} of {max}"),
            );
        }
    }

    /// A unit is down again.
    pub fn runner_ended(&mut self, _slot: &SlotId, invocation: &Invocation) {
        let now = self.now();
        if let Some(book) = self.books.runners.get_mut(invocation) {
            book.ended = Some(now);
        }
    }

    /// The daemon ends a unit: if it has a job, there must be a cause for that.
    pub fn ended_by_us(&mut self, slot: &SlotId, how: &str) {
        let now = self.now();
        let Some(guest) = self.place(slot).guest.clone() else {
            return;
        };
        self.note(|| format!("{slot} {} is {how}", short(guest.invocation.as_str())));
        let Some((job, since)) = guest.runner.and_then(|runner| self.job_of(runner)) else {
            return;
        };
        let limit = self.job_limit(slot);
        let removed = self.books.clearing.is_some_and(|until| now <= until);
        let overdue = now.saturating_sub(since) >= limit;
        if !removed && !overdue && guest.at != At::Ending {
            let how = format!("{slot} was {how} with job {job}");
            self.violate(Rule::BusyLeftAlone, &how);
        }
    }

    /// systemd ends a unit for its age.
    pub fn cut_short(&mut self, slot: &SlotId) {
        let now = self.now();
        let guest = self.place(slot).guest.clone();
        let job = guest.and_then(|guest| self.job_of(guest.runner?));
        let limit = self.job_limit(slot);
        if let Some((job, since)) = job.filter(|(_, since)| now - since < limit) {
            let how = format!("{slot} with job {job}, sent {} ms ago", now - since);
            self.violate(Rule::LifetimeFitsJob, &how);
        }
    }

    fn job_limit(&self, slot: &SlotId) -> u64 {
        // The same in every pool and configuration of a history.
        let pool = self.books.config.pool(&slot.pool);
        let pool = pool.or(self.books.config.pools.first());
        pool.map_or(u64::MAX, |pool| {
            u64::try_from(pool.timeouts.job.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// A config reaches a container.
    pub fn config_given(&mut self, slot: &SlotId, invocation: &Invocation, config: &str) {
        let Some(id) = self.books.configs.get(config).copied() else {
            return self.violate(Rule::ConfigFromGitHub, &slot.to_string());
        };
        let recipient = (slot.clone(), invocation.clone());
        if let Some(runner) = self.github.runners.get_mut(&id)
            && runner.given_to.replace(recipient).is_some()
        {
            return self.violate(Rule::ConfigGivenOnce, &slot.to_string());
        }
        let name = self
            .github
            .runner(id)
            .and_then(|runner| runner.ours.clone());
        if name.is_some_and(|name| name.slot != *slot) {
            return self.violate(Rule::ConfigForItsSlot, &slot.to_string());
        }
        self.configured(slot, invocation, id);
    }

    /// The daemon sends a call.
    pub fn sent(&mut self, call: Call) {
        let now = self.now();
        let resource = match call {
            Call::Mint => "actions_runner_registration",
            Call::List | Call::Page | Call::Delete => "core",
        };
        let empty = self.books.empty.get(resource).copied().unwrap_or(0);
        let until = self.books.quiet_until.max(empty);
        if now < until {
            let how = format!("{call:?}, {} ms too early", until - now);
            self.violate(Rule::SilentWhileLimited, &how);
        }
        self.books.calls[call as usize] += 1;
        self.books.sent.push_back((now, call));
        while self
            .books
            .sent
            .front()
            .is_some_and(|(at, _)| at + MINUTE < now)
        {
            self.books.sent.pop_front();
        }
        let of = |kind| {
            self.books
                .sent
                .iter()
                .filter(|(_, call)| *call == kind)
                .count()
        };
        let (mints, deletes) = (of(Call::Mint), of(Call::Delete));
        // One for each compare, and one for each daemon that starts, which compares at once.
        let lists = self.books.calls[Call::List as usize];
        let compares = now / COMPARE + 2 * self.books.daemons + 1;
        if lists > compares {
            self.violate(Rule::FewLists, &format!("{lists} of {compares}"));
        }
        if mints > MAX_MINTS_PER_MINUTE {
            self.violate(Rule::FewMints, &format!("{mints}"));
        }
        if deletes > DELETES_A_MINUTE {
            self.violate(Rule::FewDeletions, &format!("{deletes}"));
        }
        let dead = self
            .books
            .deaths
            .iter()
            .filter(|(at, _)| at + 10 * MINUTE > now)
            .count();
        let slots = self.books.config.slots().count();
        let unowned = self.unowned();
        if call == Call::Mint && unowned > MAX_ORPHANS + slots * (1 + dead) {
            self.violate(Rule::RegistrationsOwned, &format!("{unowned}"));
        }
    }

    fn unowned(&self) -> usize {
        let ours = self
            .github
            .runners
            .values()
            .filter(|runner| runner.ours.is_some() && runner.minted);
        ours.filter(|runner| !self.owned(runner.given_to.as_ref()))
            .count()
    }

    fn owned(&self, runner: Option<&(SlotId, Invocation)>) -> bool {
        runner.is_some_and(|(slot, invocation)| {
            let guest = self
                .host
                .slots
                .get(slot)
                .and_then(|place| place.guest.as_ref());
            guest.is_some_and(|guest| guest.invocation == *invocation)
        })
    }

    /// The daemon hears what GitHub says of limits.
    pub fn limit_told(&mut self, until: Option<u64>, resource: &'static str, empty: Option<u64>) {
        let now = self.now();
        if let Some(until) = until.filter(|until| *until > self.books.quiet_until) {
            self.books.quiet_until = until;
            self.books.quiet_since = now;
        }
        if let Some(until) = empty {
            let known = self.books.empty.entry(resource).or_default();
            *known = until.max(*known);
        }
    }

    /// The daemon is gone.
    pub fn daemon_died(&mut self) {
        let now = self.now();
        let good = self
            .books
            .disk_good_since
            .is_some_and(|since| now - since > 3_000);
        self.books.deaths.push((now, good));
        self.verdict_cut_off();
        self.books.empty.clear();
        // The next daemon knows what the last one could write down, behind all that waited before it.
        let could_write = |since| now > since + 10_000 && now > self.books.quiet_since + 3_000;
        if !self.books.disk_good_since.is_some_and(could_write) {
            self.books.quiet_until = 0;
        }
    }

    /// A daemon could not read its records at its start. Whoever ended before that is known to nobody
    /// once another life has begun in the slot.
    pub fn started_blind(&mut self) {
        let now = self.now();
        self.books.blind = Some(now);
        self.books.quiet_until = 0;
    }

    /// The power goes, and with it the last words on a life.
    pub fn untold(&mut self, invocation: Option<Invocation>) {
        self.books.untold.extend(invocation);
    }

    /// The power goes: of a life that has just begun there may be no word yet.
    pub fn lights_out(&mut self) {
        let now = self.now();
        // Nor is there a clock that goes on through it and that nobody sets.
        self.books.quiet_until = 0;
        let fresh = |book: &LifeBook| now - book.began < UNTOLD_AGE;
        let runners = self.books.runners.iter().filter(|(_, book)| fresh(book));
        let fresh: Vec<Invocation> = runners.map(|(invocation, _)| invocation.clone()).collect();
        self.books.untold.extend(fresh);
    }

    /// The disk takes writes, or does not.
    pub fn disk_is(&mut self, full: bool, broken: bool) {
        (self.disk.full, self.disk.broken) = (full, broken);
        let now = self.now();
        if full || broken {
            self.books.disk_good_since = None;
        } else {
            self.books.disk_good_since.get_or_insert(now);
        }
    }

    /// What is not as it should be once everything is calm; `None` if it is settled.
    #[must_use]
    pub fn unsettled(&self) -> Option<String> {
        if self.daemon.is_none() {
            return Some("the daemon is down".to_owned());
        }
        // Who lives where no slot is configured any more stays until its job ends.
        let beyond = |slot: &SlotId, place: &Place| {
            place.runners() && self.books.config.place(slot).is_none()
        };
        let left = |(slot, place): &(&SlotId, &Place)| beyond(slot, place);
        let mut left = self.host.slots.iter().filter(left).peekable();
        let pools = if left.peek().is_none() {
            self.unsettled_pools()
        } else {
            let works = |place: &Place| {
                let guest = place.guest.as_ref();
                guest.is_none_or(|guest| matches!(guest.at, At::Working { .. } | At::Ending))
            };
            left.find(|(_, place)| !works(place))
                .map(|(slot, _)| format!("{slot} has no job, and is not configured"))
        };
        let stray = self.github.runners.iter().find(|(_, runner)| {
            runner.ours.is_some() && runner.busy.is_none() && !self.owned(runner.given_to.as_ref())
        });
        let stray = stray.map(|(id, runner)| format!("stray {} ({id})", runner.name));
        pools.or(stray).or_else(|| self.unsettled_records())
    }

    fn unsettled_pools(&self) -> Option<String> {
        let pools = &self.books.config.pools;
        let names: Vec<String> = pools.iter().map(|pool| pool.name.to_string()).collect();
        let jobs = self.github.jobs_waiting(&names);
        if jobs > 0 {
            return Some(format!("{jobs} jobs wait"));
        }
        pools
            .iter()
            .find_map(|pool| self.unsettled_pool(&pool.name))
    }

    fn unsettled_pool(&self, name: &PoolName) -> Option<String> {
        let pool = self.books.config.pool(name)?;
        let (mut idle, mut spare, mut busy, mut runners) = (0, 0, 0, 0);
        for (_, place) in self
            .host
            .slots
            .iter()
            .filter(|(slot, _)| slot.pool == *name)
        {
            runners += u16::from(place.runners());
            let Some(guest) = place.guest.as_ref().filter(|_| place.is_up()) else {
                continue;
            };
            match guest.at {
                At::Listening => idle += 1,
                At::Boot if guest.asks => spare += 1,
                At::Working { .. } => busy += 1,
                At::Boot | At::Configured | At::Ghost | At::Ending => {}
            }
        }
        let want_idle = pool
            .min_idle
            .min(pool.max_runners - busy.min(pool.max_runners));
        let room = pool.max_runners.saturating_sub(busy + want_idle);
        let want_spare = pool.min_spare.min(room);
        let good = idle == want_idle && spare == want_spare && runners == idle + spare + busy;
        let is = format!("{name}: {idle} idle, {spare} spare, {busy} busy, {runners} lives");
        (!good).then(|| format!("{is}; wanted {want_idle} idle, {want_spare} spare"))
    }

    fn unsettled_records(&self) -> Option<String> {
        for (slot, place) in self.host.slots.iter().filter(|(_, place)| place.runners()) {
            let known = self
                .disk
                .runners
                .get(slot)
                .and_then(|record| record.invocation.as_ref());
            if known != place.invocation.as_ref() {
                return Some(format!("{slot} is on record as {known:?}"));
            }
        }
        let runners = |slot: &SlotId| {
            self.host
                .slots
                .get(slot)
                .is_some_and(super::host::Place::runners)
        };
        let left = self.disk.runners.keys().find(|slot| !runners(slot));
        left.map(|slot| format!("{slot} is on record and does not live"))
    }

    /// Every life that ended has one verdict, and there is none without a life.
    pub fn check_verdicts(&mut self) {
        // A daemon that dies while nothing can be written takes what it knows with it.
        let bad = self.books.deaths.iter().filter(|(_, good)| !good);
        let excused = bad.map(|(at, _)| *at).chain(self.books.blind).max();
        let mut missing: BTreeMap<&SlotId, Vec<&Invocation>> = BTreeMap::new();
        let mut known: BTreeMap<&str, u64> = BTreeMap::new();
        let mut nameless: BTreeMap<&SlotId, usize> = BTreeMap::new();
        for verdict in &self.disk.verdicts {
            match &verdict.invocation {
                Some(invocation) => *known.entry(invocation.as_str()).or_default() += 1,
                None => *nameless.entry(&verdict.slot).or_default() += 1,
            }
        }
        let ended = self
            .books
            .runners
            .iter()
            .filter(|(_, book)| book.ended.is_some());
        for (invocation, book) in ended {
            if !known.contains_key(invocation.as_str())
                && !self.books.untold.contains(invocation)
                && excused.is_none_or(|excused| book.began > excused)
            {
                missing.entry(&book.slot).or_default().push(invocation);
            }
        }
        let mut found = None;
        for (slot, missing) in &missing {
            if nameless.get(slot).copied().unwrap_or(0) < missing.len() {
                let names: Vec<String> = missing.iter().map(|i| short(i.as_str())).collect();
                let how = format!("{slot}: none on {}", names.join(", "));
                found = Some((Rule::Judged, how));
            }
        }
        let alive = |invocation: &str| {
            let runner = Invocation::parse(invocation).and_then(|i| self.books.runners.get(&i));
            runner.is_none_or(|book| book.ended.is_none())
        };
        if let Some((invocation, _)) = known.iter().find(|(invocation, _)| alive(invocation)) {
            found = Some((Rule::JudgedAfterEnd, short(invocation)));
        }
        if let Some((invocation, count)) = known.iter().find(|(_, count)| **count > 1) {
            let how = format!("{}: {count}", short(invocation));
            found = Some((Rule::JudgedOnce, how));
        }
        if let Some((rule, how)) = found {
            self.violate(rule, &how);
        }
    }
}
