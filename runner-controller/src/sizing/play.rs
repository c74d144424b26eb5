//! The events of hosts and of GitHub, in their order.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::agenda::{Agenda, Container, Event, HostEvent, Told};
use super::arrivals::{Arrival, Arrivals, Span};
use super::github::GitHub;
use super::host::{Follow, Host};
use super::outcome::{Course, Outcome};
use super::setup::{Setup, WARM_UP_MS};
use super::times::Times;
use crate::pool::{
    Conclusion, Demand, Evidence, HostId, JobDescription, JobEnd, JobKey, JobNote, JobSource,
    KnownJob, SlotId, Timestamp,
};

/// Time until GitHub's delivery, or the message of a scale set, tells of a job.
const DELIVERY_MS: u64 = 1_000;
/// Interval between readings of a repository's queue.
const READING_MS: u64 = 30_000;
/// Interval after which jobs that ended long ago are forgotten.
const PRUNE_MS: u64 = 3_600_000;
/// Maximum time after the last arrival until jobs that come once have ended, beside the longest of them.
const LAST_MS: u64 = 86_400_000;

/// Plays the hosts until each job has a runner, or until the jobs that wait will never have one.
#[must_use]
pub fn play(setup: &Setup<'_>, arrivals: &Arrivals, times: &Times) -> Outcome {
    let mut play = Play::new(setup, arrivals, times);
    play.run();
    Outcome::of(setup, arrivals, play.course)
}

struct Play<'s> {
    setup: &'s Setup<'s>,
    jobs: &'s [Arrival],
    span: Span,
    start_unix_ms: u64,
    times: &'s Times,
    agenda: Agenda,
    hosts: Vec<Host<'s>>,
    /// Hosts on which something happened since their last plan.
    changed: Vec<bool>,
    github: GitHub,
    random: ChaCha8Rng,
    course: Course,
    now_ms: u64,
    pruned_ms: u64,
}

impl<'s> Play<'s> {
    fn new(setup: &'s Setup<'s>, arrivals: &'s Arrivals, times: &'s Times) -> Self {
        let mut agenda = Agenda::default();
        let mut hosts = Vec::new();
        for host in 0..setup.hosts {
            let other = format!("host-{}", host + 1).parse::<HostId>();
            let own = || setup.config.host.clone();
            let id = if host == 0 {
                own()
            } else {
                other.unwrap_or_else(|_| own())
            };
            let mut random = ChaCha8Rng::seed_from_u64(setup.seed);
            random.set_stream(u64::MAX - host as u64);
            hosts.push(Host::new(setup, id, random));
            agenda.add(0, Event::At(host, HostEvent::Reconcile));
        }
        for (job, arrival) in arrivals.jobs.iter().enumerate() {
            agenda.add(WARM_UP_MS + arrival.at_ms, Event::Queued(job));
        }
        let mut random = ChaCha8Rng::seed_from_u64(setup.seed);
        random.set_stream(u64::MAX / 2);
        Self {
            setup,
            jobs: &arrivals.jobs,
            span: arrivals.span,
            start_unix_ms: arrivals.start_unix_ms,
            times,
            agenda,
            changed: vec![true; hosts.len()],
            hosts,
            github: GitHub::new(&setup.config.pools),
            random,
            course: Course::new(arrivals.jobs.len()),
            now_ms: 0,
            pruned_ms: 0,
        }
    }

    fn run(&mut self) {
        let last = self.jobs.last().map_or(0, |job| job.at_ms);
        let longest = self.jobs.iter().map(|job| job.duration_ms).max();
        let end_ms = match self.span {
            Span::Ongoing(span) => WARM_UP_MS + 2 * span,
            Span::Once => WARM_UP_MS + last + longest.unwrap_or_default() + LAST_MS,
        };
        while let Some(at_ms) = self.agenda.next_ms() {
            if at_ms > end_ms || self.is_over() {
                break;
            }
            self.now_ms = at_ms;
            while let Some(event) = self.agenda.pop_due(at_ms) {
                self.handle(event);
            }
            self.plan();
        }
        self.course.end_ms = self.now_ms;
    }

    fn is_over(&self) -> bool {
        match self.span {
            // Jobs that come later would keep the runners busy as before.
            Span::Ongoing(span) => {
                self.now_ms >= WARM_UP_MS + span && self.course.taken == self.jobs.len()
            }
            Span::Once => self.course.ended == self.jobs.len(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now_ms)
    }

    fn unix_ms(&self) -> u64 {
        // The warm-up is before the beginning.
        (self.start_unix_ms + self.now_ms).saturating_sub(WARM_UP_MS)
    }

    fn add(&mut self, host: usize, follow: Follow) {
        for (delay_ms, event) in follow {
            let at_ms = self.now_ms.saturating_add(delay_ms);
            self.agenda.add(at_ms, Event::At(host, event));
        }
    }

    /// Plans the hosts on which something happened.
    fn plan(&mut self) {
        let (now, unix_ms) = (self.now(), self.unix_ms());
        for host in 0..self.hosts.len() {
            if !std::mem::take(&mut self.changed[host]) {
                continue;
            }
            let follow = self.hosts[host].plan(unix_ms, now, self.times);
            self.add(host, follow);
            self.course.note(host, &self.hosts[host], self.now_ms);
            self.assign(host);
        }
    }

    /// Assigns jobs to the scale sets of a host, as far as it announced room.
    fn assign(&mut self, host: usize) {
        if !self
            .setup
            .config
            .pools
            .iter()
            .any(|pool| pool.scale_set.is_some())
        {
            return;
        }
        let capacities = self.hosts[host].pools.schedule().capacities().clone();
        let is_closed = self.hosts[host].is_closed();
        for (pool, capacity) in capacities {
            let capacity = if is_closed { 0 } else { capacity };
            for (job, runner) in self.github.assign(host, &pool, capacity) {
                self.tell(host, job, Told::Queued, DELIVERY_MS);
                if let Some(slot) = runner {
                    self.take(host, &slot, job);
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Queued(job) => self.queued(job),
            Event::At(host, event) => {
                self.changed[host] = true;
                self.at_host(host, event);
            }
        }
    }

    fn queued(&mut self, job: usize) {
        let pool = &self.jobs[job].pool;
        if self.github.has_scale_set(pool) {
            self.github.queue(job, pool);
            for host in 0..self.hosts.len() {
                self.assign(host);
            }
            return;
        }
        let delay_ms = match self.setup.config.pool(pool).map(|pool| pool.demand) {
            // The next reading of the queue tells of it.
            Some(Demand::Queue) => READING_MS - self.now_ms % READING_MS,
            Some(Demand::Fixed | Demand::Webhook | Demand::ScaleSet) | None => DELIVERY_MS,
        };
        self.tell_all(job, Told::Queued, delay_ms);
        if let Some((host, slot)) = self.github.queue(job, pool) {
            self.take(host, &slot, job);
        }
    }

    fn tell_all(&mut self, job: usize, told: Told, delay_ms: u64) {
        for host in 0..self.hosts.len() {
            self.tell(host, job, told, delay_ms);
        }
    }

    fn tell(&mut self, host: usize, job: usize, told: Told, delay_ms: u64) {
        if self.hosts[host].table.is_some() {
            self.add(host, vec![(delay_ms, HostEvent::Told(job, told))]);
        }
    }

    /// Tells the hosts that GitHub tells of a job on this one.
    fn tell_of(&mut self, host: usize, job: usize, told: Told) {
        if self.github.has_scale_set(&self.jobs[job].pool) {
            self.tell(host, job, told, DELIVERY_MS);
        } else {
            self.tell_all(job, told, DELIVERY_MS);
        }
    }

    /// Gives a runner a job.
    fn take(&mut self, host: usize, slot: &SlotId, job: usize) {
        let memory = self.jobs[job].memory_bytes.unwrap_or_default();
        let Some(container) = self.hosts[host].take(slot, job, memory) else {
            return;
        };
        let runner = self.hosts[host].runner_name(slot);
        self.course.take(job, slot, runner, self.now_ms);
        let start_ms = self.times.start_job.draw(&mut self.random);
        let end_ms = start_ms + self.jobs[job].duration_ms;
        self.tell_of(host, job, Told::Started);
        self.add(
            host,
            vec![
                (start_ms, HostEvent::JobStarts(container.clone(), job)),
                (end_ms, HostEvent::JobEnds(container, job)),
            ],
        );
        self.changed[host] = true;
    }

    fn at_host(&mut self, host: usize, event: HostEvent) {
        let (now, unix_ms, times) = (self.now(), self.unix_ms(), self.times);
        let follow = match event {
            HostEvent::Wake => {
                self.hosts[host].wake_ms = None;
                Vec::new()
            }
            HostEvent::Reconcile => {
                let interval = self.setup.config.reconcile.max(Duration::from_secs(1));
                let mut follow = self.hosts[host].reconcile(unix_ms, now, times);
                let next_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
                follow.push((next_ms, HostEvent::Reconcile));
                self.prune();
                follow
            }
            HostEvent::Told(job, told) => {
                self.told(host, job, told);
                Vec::new()
            }
            HostEvent::Online(container) => {
                self.online(host, &container);
                Vec::new()
            }
            HostEvent::JobStarts(container, job) => self.job_starts(host, &container, job),
            HostEvent::JobEnds(container, job) => self.job_ends(host, container, job),
            HostEvent::Deregistered(slot, id) => {
                // GitHub gives the runner no job any more, unless it has one.
                self.github.remove(host, &slot);
                self.hosts[host].apply(HostEvent::Deregistered(slot, id), now, times)
            }
            HostEvent::Gone(container) => {
                self.cut_short(host, &container);
                self.hosts[host].apply(HostEvent::Gone(container), now, times)
            }
            other @ (HostEvent::Started(_)
            | HostEvent::Booted(_)
            | HostEvent::Minted(..)
            | HostEvent::EndAnswered(_)
            | HostEvent::Found(..)
            | HostEvent::Deleted(..)
            | HostEvent::ListedEarly(..)) => self.hosts[host].apply(other, now, times),
        };
        self.add(host, follow);
    }

    fn online(&mut self, host: usize, container: &Container) {
        if !self.hosts[host].online(container) {
            return;
        }
        if let Some(job) = self.github.online(host, &container.slot, self.now_ms) {
            self.take(host, &container.slot, job);
        }
    }

    fn job_starts(&mut self, host: usize, container: &Container, job: usize) -> Follow {
        let now = self.now();
        if self.hosts[host].machine(container).is_none() {
            return Vec::new();
        }
        let note = JobNote {
            repository: self.jobs[job].repository.clone(),
            run_id: job.to_string(),
            ..JobNote::default()
        };
        let host = &mut self.hosts[host];
        let effects = host.pools.job_started(&container.slot, note, now);
        host.carry_out(effects, now, self.times)
    }

    fn job_ends(&mut self, host: usize, container: Container, job: usize) -> Follow {
        if !self.hosts[host].end_job(&container) {
            return Vec::new();
        }
        self.end(host, job);
        let remove_ms = self.times.remove.draw(&mut self.random);
        vec![(remove_ms, HostEvent::Gone(container))]
    }

    /// Notes the end of a job whose runner was ended, for example by a time limit.
    fn cut_short(&mut self, host: usize, container: &Container) {
        self.github.remove(host, &container.slot);
        let machine = self.hosts[host].machine(container);
        let job = machine.and_then(|machine| machine.job);
        if let Some(job) = job.filter(|job| !self.course.has_ended(*job)) {
            self.course.cut_short += 1;
            self.end(host, job);
        }
    }

    fn end(&mut self, host: usize, job: usize) {
        self.course.end(job, self.now_ms);
        self.github.ended(host, &self.jobs[job].pool);
        self.tell_of(host, job, Told::Ended);
    }

    /// Tells the daemon of a host the stage of a job.
    fn told(&mut self, host: usize, job: usize, told: Told) {
        let arrival = &self.jobs[job];
        let has_set = self.github.has_scale_set(&arrival.pool);
        let Some(pool) = self.setup.config.pool(&arrival.pool) else {
            return;
        };
        let key = JobKey {
            scope: pool.scope.clone(),
            source: if has_set {
                JobSource::ScaleSet
            } else {
                JobSource::Webhook
            },
            id: job as u64,
        };
        let description = JobDescription {
            repository: arrival.repository.clone(),
            run_id: job as u64,
            workflow: String::new(),
            name: String::new(),
            labels: pool.labels.clone(),
        };
        let unix_ms = |at_ms: u64| (self.start_unix_ms + at_ms).saturating_sub(WARM_UP_MS);
        let queued = self.start_unix_ms + arrival.at_ms;
        let evidence = match told {
            Told::Queued => Evidence::Queued,
            Told::Started => Evidence::Started,
            Told::Ended => Evidence::Ended,
        };
        let mut known = KnownJob::new(key, evidence, description, queued);
        known.pool = has_set.then(|| pool.name.clone());
        known.told_unix_ms = self.unix_ms();
        if let (Evidence::Started | Evidence::Ended, Some(taken)) = (evidence, self.course.of(job))
        {
            known.started_unix_ms = Some(unix_ms(taken.at_ms));
            known.runner = taken.runner.clone().map(|runner| (evidence, runner));
            let end = taken.end_ms.filter(|_| told == Told::Ended);
            known.end = end.map(|end_ms| JobEnd {
                unix_ms: unix_ms(end_ms),
                conclusion: Conclusion::Success,
            });
        }
        if let Some(table) = &mut self.hosts[host].table {
            table.merge(known);
        }
    }

    /// Forgets the jobs that ended long ago, so that the tables do not grow.
    fn prune(&mut self) {
        if self.now_ms < self.pruned_ms + PRUNE_MS {
            return;
        }
        self.pruned_ms = self.now_ms;
        let unix_ms = self.unix_ms();
        for table in self.hosts.iter_mut().filter_map(|host| host.table.as_mut()) {
            table.prune(unix_ms);
        }
    }
}
