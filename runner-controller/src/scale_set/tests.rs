//! A keeper at a stand-in of GitHub: what becomes of messages on record, in the loop and at GitHub.

use std::sync::atomic::Ordering;

use github_sim::{
    Endpoint, Fault, FaultRule, JobSpec, ScaleSetCall, ScaleSetView, Server, ServerHandle,
    ServerOptions,
};
use tokio::task::JoinHandle;

use super::*;
use crate::clock;
use crate::config::{GitHubConfig, LoginConfig, Scope};
use crate::github::{GitHub, Token};
use crate::pool::{JobStage, KnownJob};
use crate::world::testing::Memory;

/// Time that is long enough for a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A keeper that runs.
struct Bench {
    sim: ServerHandle,
    records: Memory,
    capacity: watch::Sender<u32>,
    events: mpsc::Receiver<Event>,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Bench {
    /// Starts a keeper of set `h-ci` whose pool can have `capacity` jobs. GitHub holds each poll for `hold_ms`.
    async fn start(capacity: u32, hold_ms: u64) -> Self {
        let sim = Server::start(ServerOptions::default()).await.unwrap();
        sim.control().change_settings(|settings| {
            settings.scale_sets.poll_hold_ms = vec![hold_ms];
            settings.scale_sets.session_lapse_ms = 3_000;
        });
        let (records, capacity) = (Memory::default(), watch::Sender::new(capacity));
        let (events, stop, running) = keep(&sim, "h", &records, &capacity);
        Self {
            sim,
            records,
            capacity,
            events,
            stop,
            running,
        }
    }

    /// Starts another keeper in place of the one that ended.
    fn restart(&mut self) {
        (self.events, self.stop, self.running) =
            keep(&self.sim, "h", &self.records, &self.capacity);
    }

    fn add_job(&self) -> u64 {
        let control = self.sim.control();
        control.add_job(JobSpec::new("build", &["ci"], "true"))
    }

    /// Returns the live set, which is the only one.
    fn set(&self) -> Option<ScaleSetView> {
        let sets = self.sim.control().scale_sets();
        sets.into_iter().find(|set| !set.deleted)
    }

    /// Waits until the status of the set is as `good` says.
    async fn status(&mut self, good: impl Fn(&ScaleSetStatus) -> bool) -> ScaleSetStatus {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("a keeper that runs");
                if let Event::ScaleSet(status) = event
                    && good(&status)
                {
                    return status;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }

    /// Waits until the loop learns of a job, and returns it with the last count before.
    async fn job(&mut self) -> (KnownJob, Option<u64>) {
        let mut assigned = None;
        let found = async {
            loop {
                let event = self.events.recv().await.expect("a keeper that runs");
                if let Event::Job(job) = event {
                    return *job;
                } else if let Event::ScaleSet(status) = event {
                    assigned = status.assigned;
                } else {
                    panic!("{event:?}");
                }
            }
        };
        let job = tokio::time::timeout(PATIENCE, found).await.unwrap();
        (job, assigned)
    }

    /// Waits until GitHub has a state, which changes without an event.
    async fn until(&self, good: impl Fn(&ScaleSetView) -> bool) {
        let found = async {
            while !self.set().is_some_and(|set| good(&set)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap();
    }

    async fn listening(&mut self) {
        self.status(|status| status.state == SetState::Listening && status.capacity.is_some())
            .await;
    }
}

/// Starts the keeper of set `HOST-ci`.
fn keep(
    sim: &ServerHandle,
    host: &str,
    records: &Memory,
    capacity: &watch::Sender<u32>,
) -> (mpsc::Receiver<Event>, watch::Sender<bool>, JoinHandle<()>) {
    let config = GitHubConfig {
        name: None,
        scope: Scope::Organization { org: "acme".into() },
        api_url: sim.url().parse().unwrap(),
        server_url: "https://github.com".into(),
        api_version: "2022-11-28".into(),
        login: LoginConfig::Token {
            file: "/etc/runner-controller/token".into(),
        },
        mints_per_minute: 150,
        timeout: PATIENCE,
        proxy: None,
        ca_file: None,
    };
    let github = GitHub::new(&config, Token::new(sim.token()).unwrap()).unwrap();
    let (sender, events) = mpsc::channel(1_000);
    let outside = Surroundings {
        records: records.clone(),
        events: sender,
        unix_ms: clock::unix_ms,
        now: clock::now,
    };
    let wanted = WantedSet {
        name: format!("{host}-ci"),
        runner_group: "default".into(),
        labels: vec!["ci".into()],
    };
    let names = ("ci".parse().unwrap(), host.to_owned());
    let keeper = Keeper::new(
        github.scale_sets(),
        wanted,
        names,
        capacity.subscribe(),
        outside,
    );
    let stop = watch::Sender::new(false);
    let running = tokio::spawn(keeper.run(stop.subscribe()));
    (events, stop, running)
}

#[tokio::test]
async fn a_job_is_on_record_and_in_the_loop_before_its_message_is_deleted() {
    let mut bench = Bench::start(2, 100).await;
    bench.listening().await;
    let id = bench.add_job();
    let (job, assigned) = bench.job().await;
    assert_eq!(job.stage(), JobStage::Queued);
    assert_eq!(assigned, Some(1), "the count comes before the job");
    assert_eq!(bench.records.jobs.lock().unwrap().len(), 1);
    bench.until(|set| set.messages.is_empty()).await;

    bench.sim.control().cancel_job(id);
    let (job, assigned) = bench.job().await;
    assert_eq!((job.stage(), assigned), (JobStage::Ended, Some(0)));
}

#[tokio::test]
async fn a_full_disk_keeps_the_message_at_github() {
    let mut bench = Bench::start(2, 100).await;
    bench.listening().await;
    bench.records.is_full.store(true, Ordering::Relaxed);
    bench.add_job();
    let status = bench.status(|status| status.error.is_some()).await;
    assert_eq!(status.error.as_deref(), Some("the disk is full"));
    assert_eq!(bench.set().unwrap().messages.len(), 1);
    bench.records.is_full.store(false, Ordering::Relaxed);
    bench.job().await;
    bench.status(|status| status.error.is_none()).await;
    bench.until(|set| set.messages.is_empty()).await;
}

#[tokio::test]
async fn capacity_decides_which_jobs_come_and_a_held_poll_is_given_up_for_less() {
    let mut bench = Bench::start(0, 600_000).await;
    bench.listening().await;
    bench.add_job();
    bench.until(|set| set.polls == 1).await;
    assert!(
        bench.set().unwrap().jobs.is_empty(),
        "no room was announced"
    );
    bench.capacity.send_replace(3);
    bench.job().await;
    bench.until(|set| set.polls == 1 && set.capacity == 3).await;
    bench.capacity.send_replace(1);
    bench.until(|set| set.polls == 1 && set.capacity == 1).await;
    let status = bench.status(|status| status.capacity == Some(1)).await;
    assert_eq!(status.assigned, Some(1));
}

#[tokio::test]
async fn evictions_expired_tokens_and_new_ids_heal_in_place() {
    let mut bench = Bench::start(9, 50).await;
    bench.listening().await;
    bench.add_job();
    bench.job().await;
    let set = bench.set().unwrap().id;
    let control = bench.sim.control().clone();
    let faults: [(&str, &dyn Fn()); 4] = [
        ("new ids", &|| assert!(control.restart_messages(set))),
        ("queue token", &|| assert!(control.expire_queue_token(set))),
        ("admin tokens", &|| control.expire_admin_tokens()),
        ("eviction", &|| assert!(control.evict_session(set))),
    ];
    for (name, fault) in faults {
        bench
            .until(|set| set.polls > 0 && set.messages.is_empty())
            .await;
        fault();
        bench.add_job();
        let (job, _) = bench.job().await;
        assert_eq!(job.stage(), JobStage::Queued, "{name}");
        bench.until(|set| set.messages.is_empty()).await;
    }
    assert_eq!(bench.set().unwrap().id, set);
    assert_eq!(bench.records.jobs.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn a_lost_set_is_made_anew_with_its_jobs() {
    let mut bench = Bench::start(9, 50).await;
    bench.listening().await;
    let first = bench.set().unwrap();
    assert!(bench.sim.control().lose_scale_set(first.id));
    bench.add_job();
    let status = bench.status(|status| status.error.is_some()).await;
    assert_eq!(status.id, Some(first.id));
    let (job, _) = bench.job().await;
    assert_eq!(job.stage(), JobStage::Queued);
    let second = bench.set().unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!((second.name, second.labels), (first.name, first.labels));
}

#[tokio::test]
async fn jobs_of_a_lost_set_end_because_no_message_will_tell_it() {
    let mut bench = Bench::start(9, 50).await;
    bench.listening().await;
    bench.add_job();
    let (job, _) = bench.job().await;
    let first = bench.set().unwrap();
    bench.until(|set| set.messages.is_empty()).await;
    // The daemon that finds the next set does not know the one before.
    bench.running.abort();
    assert!(bench.sim.control().lose_scale_set(first.id));
    bench.records.is_full.store(true, Ordering::Relaxed);
    bench.restart();
    let status = bench.status(|status| status.error.is_some()).await;
    assert_eq!(
        (status.id, status.error.as_deref()),
        (None, Some("the disk is full"))
    );
    bench.records.is_full.store(false, Ordering::Relaxed);
    let (ended, _) = bench.job().await;
    assert_eq!((&ended.key, ended.stage()), (&job.key, JobStage::Ended));
    assert_eq!(ended.end.unwrap().conclusion, Conclusion::Cancelled);
    let (again, _) = bench.job().await;
    assert_eq!(again.stage(), JobStage::Queued);
    assert_ne!(again.key, job.key);
    assert_eq!(again.set, bench.set().map(|set| set.id));
}

#[tokio::test]
async fn a_keeper_that_stops_closes_its_session_and_leaves_the_set() {
    let mut bench = Bench::start(2, 600_000).await;
    bench.listening().await;
    bench.until(|set| set.polls == 1).await;
    let set = bench.set().unwrap();
    bench.stop.send_replace(true);
    tokio::time::timeout(PATIENCE, &mut bench.running)
        .await
        .unwrap()
        .unwrap();
    let left = bench.set().unwrap();
    assert_eq!((left.id, left.session_owner), (set.id, None));
    bench.restart();
    bench.listening().await;
    assert_eq!(bench.set().unwrap().id, set.id);
}

#[tokio::test]
async fn a_keeper_that_is_killed_leaves_a_session_that_the_next_one_waits_for() {
    let mut bench = Bench::start(2, 600_000).await;
    bench.listening().await;
    // GitHub has told of the job, and the daemon is killed before it has the message.
    let slow = Fault::Delay { ms: 1_000 };
    let acknowledging = Endpoint::ScaleSet(ScaleSetCall::SetAck);
    bench
        .sim
        .control()
        .add_faults([FaultRule::on(acknowledging, None, slow)]);
    bench.add_job();
    let (told, _) = bench.job().await;
    bench.running.abort();
    bench.sim.control().clear_faults();
    bench.restart();
    let status = bench
        .status(|status| status.state == SetState::Occupied)
        .await;
    assert_eq!(status.error, None, "that is not a failure");
    bench.listening().await;
    bench.until(|set| set.messages.is_empty()).await;
    let records = bench.records.jobs.lock().unwrap();
    assert_eq!(records.keys().collect::<Vec<_>>(), [&told.key]);
}

#[tokio::test]
async fn hosts_share_the_jobs_by_the_capacity_that_each_announces() {
    let sim = Server::start(ServerOptions::default()).await.unwrap();
    let mut hosts = Vec::new();
    for (host, capacity) in [("a", 1), ("b", 2), ("c", 5)] {
        let capacity = watch::Sender::new(capacity);
        let (events, stop, _) = keep(&sim, host, &Memory::default(), &capacity);
        hosts.push((capacity, events, stop));
    }
    let sets = || sim.control().scale_sets();
    let until = async |good: &dyn Fn(&[ScaleSetView]) -> bool| {
        let found = async {
            while !good(&sets()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap();
    };
    let shared = |sets: &[ScaleSetView]| {
        let mut shares: Vec<(String, usize)> = sets
            .iter()
            .map(|set| (set.name.clone(), set.jobs.len()))
            .collect();
        shares.sort();
        shares
    };
    until(&|sets| sets.iter().filter(|set| set.polls > 0).count() == 3).await;
    for _ in 0..10 {
        sim.control()
            .add_job(JobSpec::new("build", &["ci"], "true"));
    }
    let of = |a, b, c| {
        [
            ("a-ci".to_owned(), a),
            ("b-ci".to_owned(), b),
            ("c-ci".to_owned(), c),
        ]
    };
    until(&|sets| shared(sets) == of(1, 2, 5)).await;
    // Two jobs wait at GitHub until a full host has more room.
    hosts[0].0.send_replace(3);
    until(&|sets| shared(sets) == of(3, 2, 5)).await;
}
