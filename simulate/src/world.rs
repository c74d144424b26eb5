//! The simulated outside: one host, one GitHub, one disk, one queue of what will happen.
//!
//! Everything that happens is an entry in the queue, carried out in order of time and, within a
//! millisecond, of its making. The daemon runs between two entries until it has nothing to do, so
//! that every one of its `await`s may be where it is interrupted, and the same seed gives the same
//! history to the byte.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runner_controller::config::Config;
use runner_controller::controller::Command;
use runner_controller::world::Event;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::books::Books;
use crate::clock;
use crate::disk::Disk;
use crate::github::GitHub;
use crate::host::Host;
use crate::mutation::Mutation;
use crate::rng::Rng;

type Deed = Box<dyn FnOnce(&mut Inner) + Send>;

struct Entry {
    at: u64,
    number: u64,
    deed: Deed,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The daemon that runs now.
pub struct Link {
    /// Counts the daemons of a history.
    pub incarnation: u64,
    /// Where it hears what happens.
    pub events: mpsc::Sender<Event>,
    /// Its configuration.
    pub config: Arc<Config>,
}

/// What is done to the daemon as a whole.
#[derive(Debug)]
pub enum Order {
    /// It is started, if it is down.
    Start,
    /// SIGTERM, or SIGHUP with a good configuration.
    Stop,
    /// It dies once so many more things have happened.
    Kill {
        /// How many.
        after: u64,
    },
    /// It dies, and so does everything else.
    PowerCut,
    /// systemd loses what it kept for it, and it dies.
    KillAndLoseStore,
    /// An operator's word.
    Command(Command),
}

/// Everything, behind one lock that nobody ever waits for.
pub struct Inner {
    /// The world's randomness.
    pub rng: Rng,
    queue: BinaryHeap<Reverse<Entry>>,
    sooner: Arc<Notify>,
    number: u64,
    /// Entries carried out.
    pub done: u64,
    /// A rule that the daemon does not keep.
    pub mutation: Option<Mutation>,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
    /// What is to be done to the daemon as a whole.
    pub orders: Vec<Order>,
    /// The host: units, containers, sockets.
    pub host: Host,
    /// GitHub.
    pub github: GitHub,
    /// The daemon's records.
    pub disk: Disk,
    /// What is watched over.
    pub books: Books,
    /// The daemon, while it is up and connected.
    pub daemon: Option<Link>,
    trace: Option<Vec<String>>,
}

/// A handle to the world. Clones share it.
#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>, Arc<Notify>);

impl World {
    /// An empty host, whose history is written down if `traced`.
    #[must_use]
    pub fn new(seed: u64, config: Arc<Config>, traced: bool) -> Self {
        let sooner = Arc::new(Notify::new());
        let inner = Inner {
            sooner: Arc::clone(&sooner),
            rng: Rng::new(seed),
            queue: BinaryHeap::new(),
            number: 0,
            done: 0,
            mutation: None,
            is_calm: false,
            orders: Vec::new(),
            host: Host::default(),
            github: GitHub::default(),
            disk: Disk::default(),
            books: Books::new(config),
            daemon: None,
            trace: traced.then(Vec::new),
        };
        Self(Arc::new(Mutex::new(inner)), sooner)
    }

    /// The world, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the next thing is due, or `latest`. True if it is.
    pub async fn due(&self, latest: u64) -> bool {
        loop {
            let next = self.lock().next_at();
            let until = next.map_or(latest, |next| next.min(latest));
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(clock::instant(until)) => return next == Some(until),
                () = self.1.notified() => {}
            }
        }
    }

    /// A call from the daemon: `deed` happens when it arrives, and says when and what is answered.
    /// `None` if there is never an answer.
    pub async fn call<T: Send + 'static>(
        &self,
        at: u64,
        deed: impl FnOnce(&mut Inner, oneshot::Sender<T>) + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.lock().at(at, move |w| deed(w, answer));
        answered.await.ok()
    }
}

impl Inner {
    /// True if the daemon does not keep this rule.
    #[must_use]
    pub fn breaks(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Milliseconds since the history began.
    #[must_use]
    pub fn now(&self) -> u64 {
        clock::elapsed()
    }

    /// Makes `deed` happen at that moment.
    pub fn at(&mut self, at: u64, deed: impl FnOnce(&mut Inner) + Send + 'static) {
        self.number += 1;
        let at = at.max(self.now());
        if self.next_at().is_none_or(|next| at < next) {
            self.sooner.notify_one();
        }
        self.queue.push(Reverse(Entry {
            at,
            number: self.number,
            deed: Box::new(deed),
        }));
    }

    /// Makes `deed` happen in so many milliseconds.
    pub fn after(&mut self, wait: u64, deed: impl FnOnce(&mut Inner) + Send + 'static) {
        self.at(self.now() + wait, deed);
    }

    /// Answers a call in so many milliseconds.
    pub fn answer<T: Send + 'static>(&mut self, wait: u64, to: oneshot::Sender<T>, with: T) {
        self.after(wait, move |_| {
            // Who asked may be gone.
            let _ = to.send(with);
        });
    }

    /// When the next thing happens.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse(entry)| entry.at)
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) {
        if let Some(Reverse(entry)) = self.queue.pop() {
            self.done += 1;
            (entry.deed)(self);
        }
    }

    /// Forgets everything that would have happened.
    pub fn clear_queue(&mut self) {
        self.queue.clear();
    }

    /// Writes a line into the history.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.is_some() {
            let at = self.now();
            let line = format!("{:>5}.{:03} s  {}", at / 1000, at % 1000, line());
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    /// The history as it was written down.
    #[must_use]
    pub fn trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// Tells the daemon something, if it is up.
    pub fn tell(&mut self, event: Event) {
        self.note(|| format!("  told: {}", in_words(&event)));
        if let Some(link) = &self.daemon {
            let full = link.events.try_send(event);
            if let Err(mpsc::error::TrySendError::Full(event)) = full {
                self.after(5, move |w| w.tell(event));
            }
        }
    }

    /// True if this is the daemon that runs now.
    #[must_use]
    pub fn runs(&self, incarnation: u64) -> bool {
        self.daemon
            .as_ref()
            .is_some_and(|link| link.incarnation == incarnation)
    }
}

fn in_words(event: &Event) -> String {
    match event {
        Event::Unit(unit) => {
            let invocation = unit.invocation.as_ref().map(|i| short(i.as_str()));
            let end = unit.end.as_ref().map(|end| format!("{:?}", end.exit));
            format!(
                "{} is {:?} {} {}",
                unit.slot,
                unit.state,
                invocation.unwrap_or_default(),
                end.unwrap_or_default()
            )
        }
        Event::ConfigRequested { slot } => format!("{slot} asks"),
        Event::RequestDropped { slot } => format!("{slot} hung up"),
        Event::Shortages(shortages) => format!("what runs short: {shortages:?}"),
        Event::Firewall { problem } => format!("the firewall: {problem:?}"),
        Event::JobStarted { slot, .. } => format!("{slot} says that a job started"),
    }
}

/// The last digits of an invocation: all that differs.
#[must_use]
pub fn short(invocation: &str) -> String {
    format!("#{}", invocation.trim_start_matches('0'))
}

/// A count per key.
pub type Counts<K> = BTreeMap<K, u64>;
