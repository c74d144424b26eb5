use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use rusqlite::Connection;
use tempfile::TempDir;

use super::file::{durably, try_open};
use super::*;
use crate::pool::{
    Invocation, Job, JobNote, JobResult, Pace, PhaseEntry, PhaseKind, Registration, ResourceUse,
    RunnerId, RunnerName, ScopeId, Timeline, Timestamp, Verdict,
};

pub(super) fn host() -> HostId {
    "fuzz-a".parse().unwrap()
}

fn scope() -> ScopeId {
    ScopeId::new("https://api.github.com", "acme/widgets")
}

pub(super) fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state").join("records.sqlite");
    (dir, path)
}

pub(super) fn open(path: &Path) -> Store {
    let (store, warning) = Store::open(path, host(), HistoryConfig::default()).unwrap();
    assert_eq!(warning, None);
    store
}

fn slot(text: &str) -> SlotId {
    text.parse().unwrap()
}

pub(super) fn full_runner(text: &str) -> RunnerRecord {
    RunnerRecord {
        slot: slot(text),
        boot_id: "8f5c".into(),
        invocation: Invocation::parse(&"a1".repeat(16)),
        phase: PhaseKind::Busy,
        since: Timestamp::from_millis(7_000),
        started_at: Timestamp::from_millis(1_000),
        timeline: Timeline::from_entries(vec![
            (PhaseKind::Booting, Timestamp::from_millis(1_000)),
            (PhaseKind::Busy, Timestamp::from_millis(7_000)),
        ]),
        registration: Some(Registration {
            scope: Some(scope()),
            // Beyond 32 bits, and beyond what a signed column would hold as a number.
            id: Some(RunnerId(u64::MAX)),
            name: RunnerName::new(host(), slot(text), 0xbeef),
        }),
        job: Some(Job {
            note: JobNote {
                repository: "acme/widgets".into(),
                run_id: "17".into(),
                job: "build".into(),
                workflow: "CI 'quoted'".into(),
            },
            since: Timestamp::from_millis(6_500),
        }),
    }
}

fn bare_runner(text: &str) -> RunnerRecord {
    RunnerRecord {
        invocation: None,
        timeline: None,
        registration: None,
        job: None,
        ..full_runner(text)
    }
}

fn invocation_of(number: u64) -> Invocation {
    Invocation::parse(&format!("{number:032x}")).unwrap()
}

pub(super) fn verdict(text: &str, invocation: Option<u64>, ended: u64) -> VerdictRecord {
    VerdictRecord {
        slot: slot(text),
        verdict: Verdict::JobDone,
        runner: Some(format!("fuzz-a-{text}-0000beef")),
        runner_id: Some(RunnerId(1 << 40)),
        job: Some(full_runner(text).job.unwrap().note),
        ended_unix_ms: ended,
        asked_after_ms: Some(1),
        listening_after_ms: Some(2),
        lived_ms: ended.min(3),
        job_ms: Some(3),
        exit: Some("exit 0".into()),
        result: Some(JobResult::Failed),
        last_line: Some("Job build completed with result: Failed".into()),
        memory_peak_bytes: None,
        oom_kills: 0,
        invocation: invocation.map(invocation_of),
        phases: vec![PhaseEntry {
            phase: PhaseKind::Booting,
            after_ms: 0,
        }],
        cpu_ms: Some(1_234),
        usage: ResourceUse {
            layer_peak_bytes: Some(5),
            received_bytes: Some(6),
            sent_bytes: None,
        },
        generation: Some("0123abcd".into()),
        version: "2.336.0".parse().ok(),
    }
}

#[tokio::test]
async fn runners_are_read_as_they_were_written() {
    let (_dir, path) = file();
    let store = open(&path);
    let nameless_id = RunnerRecord {
        registration: Some(Registration {
            scope: None,
            id: None,
            name: RunnerName::new(host(), slot("ci-3"), 1),
        }),
        ..bare_runner("ci-3")
    };
    for runner in [
        full_runner("ci-2"),
        bare_runner("ci-1"),
        nameless_id.clone(),
    ] {
        store.put(runner).await.unwrap();
    }
    drop(store);
    let runners = open(&path).load().await.unwrap();
    assert_eq!(
        runners,
        [bare_runner("ci-1"), full_runner("ci-2"), nameless_id]
    );
}

#[tokio::test]
async fn strays_are_written_replaced_and_removed() {
    let (_dir, path) = file();
    let store = open(&path);
    let stray = |id: u64, lists| StrayRecord {
        scope: scope(),
        id: RunnerId(id),
        name: RunnerName::new(host(), slot("ci-3"), 1),
        boot_id: "boot".into(),
        first_seen: Timestamp::from_millis(7),
        lists,
        is_foreign: lists == 0,
    };
    for written in [stray(1, 0), stray(u64::MAX, 1), stray(1, 2)] {
        store.put_stray(written).await.unwrap();
    }
    drop(store);
    let store = open(&path);
    let strays = store.strays().await.unwrap();
    assert_eq!(strays, [stray(u64::MAX, 1), stray(1, 2)]);
    let other = ScopeId::new("https://api.github.com", "acme/other");
    store.remove_stray(other, RunnerId(1)).await.unwrap();
    store
        .remove_stray(scope(), RunnerId(u64::MAX))
        .await
        .unwrap();
    assert_eq!(store.strays().await.unwrap(), [stray(1, 2)]);
}

/// The file as the version before scopes made it, with one runner.
fn file_without_scopes(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(schema::STEPS[0]).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    let insert = "INSERT INTO lives VALUES ('ci-2', 'boot', NULL, 'idle', 7, 5, \
        'fuzz-a-ci-2-0000beef', 9, NULL, NULL, NULL, NULL, NULL)";
    connection.execute_batch(insert).unwrap();
}

#[tokio::test]
async fn a_record_of_the_version_before_scopes_is_read_without_a_scope_and_written_with_one() {
    let (_dir, path) = file();
    file_without_scopes(&path);
    let store = open(&path);
    let mut runners = store.load().await.unwrap();
    let registration = runners[0].registration.as_mut().unwrap();
    assert_eq!(registration.id, Some(RunnerId(9)));
    assert_eq!(registration.scope, None);
    assert_eq!(store.strays().await.unwrap(), []);
    registration.scope = Some(scope());
    store.put(runners[0].clone()).await.unwrap();
    drop(store);
    assert_eq!(open(&path).load().await.unwrap(), runners);
}

#[tokio::test]
async fn a_slot_has_one_record() {
    let (_dir, path) = file();
    let store = open(&path);
    store.put(full_runner("ci-1")).await.unwrap();
    store.put(bare_runner("ci-1")).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [bare_runner("ci-1")]);
    store.remove(slot("ci-1")).await.unwrap();
    store.remove(slot("ci-1")).await.unwrap();
    assert_eq!(store.load().await.unwrap(), []);
}

#[tokio::test]
async fn a_verdict_replaces_the_record_of_its_slot() {
    let (_dir, path) = file();
    let store = open(&path);
    store.put(full_runner("ci-1")).await.unwrap();
    store.put(full_runner("ci-2")).await.unwrap();
    let given = verdict("ci-1", Some(0xa), 9);
    store.close(given.clone()).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [full_runner("ci-2")]);
    assert_eq!(
        store.recent(10).await.unwrap(),
        std::slice::from_ref(&given)
    );

    // After a crash the next daemon finds the same end again under /run.
    let again = VerdictRecord {
        verdict: Verdict::Crashed,
        ..given.clone()
    };
    store.close(again).await.unwrap();
    assert_eq!(store.recent(10).await.unwrap(), [given]);
    // Verdicts without an invocation are all different.
    store.close(verdict("ci-1", None, 10)).await.unwrap();
    store.close(verdict("ci-1", None, 11)).await.unwrap();
    assert_eq!(store.recent(10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn verdicts_are_read_newest_first() {
    let (_dir, path) = file();
    let store = open(&path);
    // Wall-clock time may run backwards, so the order of the calls counts.
    for ended in [5, 4, 6] {
        store.close(verdict("ci-1", None, ended)).await.unwrap();
    }
    let recent = store.recent(2).await.unwrap();
    assert_eq!(
        recent.iter().map(|v| v.ended_unix_ms).collect::<Vec<_>>(),
        [6, 4]
    );
    assert_eq!(store.recent(usize::MAX).await.unwrap().len(), 3);
    assert_eq!(store.recent(0).await.unwrap(), []);
}

#[test]
fn verdicts_beyond_the_maximum_number_are_pruned() {
    let keep = HistoryConfig {
        runners: 3,
        ..HistoryConfig::default()
    };
    assert_eq!(kept(keep, 0..5), [4, 3, 2]);
}

#[test]
fn verdicts_beyond_the_maximum_age_are_pruned() {
    let keep = HistoryConfig {
        age: Duration::from_millis(10),
        ..HistoryConfig::default()
    };
    assert_eq!(kept(keep, [1, 2, 10, 12]), [12, 10, 2]);
}

/// Returns the ends that are kept after runners ended at these times.
fn kept(keep: HistoryConfig, ends: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let (_dir, path) = file();
    let connection = try_open(&path).unwrap();
    for ended in ends {
        verdicts::add(&connection, &verdict("ci-1", None, ended)).unwrap();
        verdicts::prune(&connection, &keep, 8, ended).unwrap();
    }
    let kept = verdicts::recent(&connection, 10).unwrap();
    kept.iter().map(|v| v.ended_unix_ms).collect()
}

#[tokio::test]
async fn a_file_becomes_smaller_after_its_verdicts_are_pruned() {
    let (_dir, path) = file();
    let keep = |runners| HistoryConfig {
        runners,
        ..HistoryConfig::default()
    };
    let bytes = || {
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let connection = try_open(&path).unwrap();
    for ended in 0..2_000 {
        verdicts::add(&connection, &verdict("ci-1", None, ended)).unwrap();
    }
    let full = bytes();
    for ended in 2_000..2_050 {
        verdicts::add(&connection, &verdict("ci-1", None, ended)).unwrap();
        verdicts::prune(&connection, &keep(100), 8, ended).unwrap();
    }
    assert!(bytes() < full / 4, "{} of {full} pages", bytes());
}

/// Change of a value that is otherwise like all others of a test.
type Change<T> = fn(&mut T);

/// Keeps five runners that differ, which ended at 10, 20, 30, 40 and 50.
async fn keep_five(store: &Store) {
    let changes: [(&str, Change<VerdictRecord>); 5] = [
        ("ci-1", |_| {}),
        ("ci-2", |v| v.verdict = Verdict::BootFailed),
        ("big-1", |v| v.result = Some(JobResult::Failed)),
        ("ci-1", |v| v.result = Some(JobResult::Cancelled)),
        ("ci-1", |v| {
            v.job = None;
            v.runner = Some("fuzz-a-ci-1-00000001".into());
        }),
    ];
    for ((slot, change), ended) in changes.into_iter().zip([10, 20, 30, 40, 50]) {
        let mut verdict = verdict(slot, Some(ended), ended);
        verdict.result = Some(JobResult::Succeeded);
        change(&mut verdict);
        store.close(verdict).await.unwrap();
    }
}

/// Returns the ends of an answer, and the value for the next question.
async fn ends(store: &Store, query: HistoryQuery) -> (Vec<u64>, Option<u64>) {
    let page = store.history(query).await.unwrap();
    let ends = page.runners.iter().map(|v| v.ended_unix_ms);
    (ends.collect(), page.next)
}

#[tokio::test]
async fn a_question_for_the_history_selects_by_each_of_its_values() {
    let (_dir, path) = file();
    let store = open(&path);
    keep_five(&store).await;
    let cases: [(Change<HistoryQuery>, &[u64]); 13] = [
        (|_| {}, &[50, 40, 30, 20, 10]),
        (|q| q.pool = Some("ci".into()), &[50, 40, 20, 10]),
        (|q| q.pool = Some("c".into()), &[]),
        (|q| q.pool = Some("' OR 1=1 --".into()), &[]),
        (|q| q.runner = Some("ci-1".into()), &[50, 40, 10]),
        (|q| q.runner = Some("fuzz-a-ci-1-00000001".into()), &[50]),
        (|q| q.verdict = Some(Verdict::BootFailed), &[20]),
        (
            |q| q.repository = Some("Acme/Widgets".into()),
            &[40, 30, 20, 10],
        ),
        (|q| q.repository = Some("acme/%".into()), &[]),
        (|q| q.run_id = Some("17".into()), &[40, 30, 20, 10]),
        (|q| q.since_unix_ms = Some(30), &[50, 40, 30]),
        (|q| q.failed = true, &[30, 20]),
        (
            |q| {
                q.failed = true;
                q.pool = Some("ci".into());
            },
            &[20],
        ),
    ];
    for (change, wanted) in cases {
        let mut query = HistoryQuery::default();
        change(&mut query);
        assert_eq!(ends(&store, query.clone()).await.0, wanted, "{query:?}");
    }
}

#[tokio::test]
async fn a_long_history_is_read_page_after_page() {
    let (_dir, path) = file();
    let store = open(&path);
    keep_five(&store).await;
    let mut query = HistoryQuery {
        limit: Some(2),
        ..HistoryQuery::default()
    };
    let mut pages = Vec::new();
    loop {
        let (ends, next) = ends(&store, query.clone()).await;
        pages.push(ends);
        let Some(next) = next else { break };
        query.before = Some(next);
    }
    assert_eq!(pages, [vec![50, 40], vec![30, 20], vec![10]]);
}

#[test]
fn the_verdicts_on_starts_that_root_has_on_record_are_kept() {
    let (_dir, path) = file();
    let connection = try_open(&path).unwrap();
    for number in 0..4 {
        verdicts::add(&connection, &verdict("ci-9", Some(number), 1)).unwrap();
    }
    for number in 10..20 {
        verdicts::add(&connection, &verdict("ci-9", None, 2)).unwrap();
        verdicts::add(&connection, &verdict("ci-1", Some(number), 3)).unwrap();
    }
    let keep = HistoryConfig {
        runners: 2,
        ..HistoryConfig::default()
    };
    verdicts::prune(&connection, &keep, 3, 3).unwrap();
    let asked = (0..30).map(invocation_of).collect();
    let judged = verdicts::judged(&connection, asked).unwrap();
    let kept = [1, 2, 3, 17, 18, 19].map(invocation_of);
    assert_eq!(judged, kept.into());
    assert_eq!(verdicts::recent(&connection, 100).unwrap().len(), 7);
}

#[tokio::test]
async fn verdicts_are_found_by_their_starts_and_pruned_at_every_hundredth() {
    let (_dir, path) = file();
    let store = open(&path);
    store.close(verdict("ci-2", Some(1), 1)).await.unwrap();
    let asked: BTreeSet<Invocation> = [1, 2].map(invocation_of).into();
    let judged = store.judged(asked.clone()).await.unwrap();
    assert_eq!(judged, [invocation_of(1)].into());
    let connection = Connection::open(&path).unwrap();
    let other = "UPDATE sqlite_sequence SET seq = 400000 WHERE name = 'verdicts'";
    connection.execute(other, []).unwrap();
    let mut left = Vec::new();
    for number in 1..=101 {
        store
            .close(verdict("ci-1", Some(number + 100), 1))
            .await
            .unwrap();
        left.push(store.recent(usize::MAX).await.unwrap().len());
    }
    assert_eq!(left.last(), Some(&102), "{left:?}");
    assert_eq!(store.judged(asked).await.unwrap(), judged);
}

#[tokio::test]
async fn a_file_of_the_first_schema_has_no_pace_and_takes_one() {
    let (_dir, path) = file();
    file_without_scopes(&path);
    let store = open(&path);
    assert_eq!(store.setting("pace").await.unwrap(), None);
    let record = Pace::new(150).record("api token", "boot", Timestamp::from_millis(7), 9);
    let text = Some(record.to_string());
    store.set_setting("pace", text.clone()).await.unwrap();
    drop(store);
    let read = open(&path).setting("pace").await.unwrap();
    assert_eq!(read, text);
    assert_eq!(read.unwrap().parse(), Ok(record));
}

#[tokio::test]
async fn settings_are_written_replaced_and_removed() {
    let (_dir, path) = file();
    let store = open(&path);
    assert_eq!(store.setting("drain").await.unwrap(), None);
    for value in ["ci", "all"] {
        store
            .set_setting("drain", Some(value.into()))
            .await
            .unwrap();
    }
    drop(store);
    let store = open(&path);
    assert_eq!(
        store.setting("drain").await.unwrap().as_deref(),
        Some("all")
    );
    store.set_setting("drain", None).await.unwrap();
    assert_eq!(store.setting("drain").await.unwrap(), None);
}

#[tokio::test]
async fn calls_take_effect_in_the_order_in_which_they_began() {
    let (_dir, path) = file();
    let store = open(&path);
    // Hold the thread, and fill its queue behind the call that holds it.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let mut begun: Vec<_> = (0..=MAX_CALLS).map(|_| store.clone()).collect();
    let first = begun.pop().unwrap();
    let hold = tokio::spawn(async move {
        let wait = move |_: &mut Connection| {
            let _ = wait.recv();
            Ok(())
        };
        first.call(Access::Write, "wait", wait).await
    });
    let fill: Vec<_> = begun
        .into_iter()
        .map(|store| tokio::spawn(async move { store.setting("k").await }))
        .collect();
    while store.calls.lock().await.capacity() > 0 {
        tokio::task::yield_now().await;
    }

    let write = |value: &str| Box::pin(store.set_setting("k", Some(value.to_owned())));
    let (mut first, mut second) = (write("first"), write("second"));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    go.send(()).unwrap();
    hold.await.unwrap().unwrap();
    for task in fill {
        task.await.unwrap().unwrap();
    }
    // There is room for both now, and the second call is polled first.
    let (second, first) = futures_util::future::join(second, first).await;
    assert!(first.is_ok() && second.is_ok());
    let last = store.setting("k").await.unwrap();
    assert_eq!(last.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_cancelled_write_is_carried_out() {
    let (_dir, path) = file();
    let store = open(&path);
    let write = store.set_setting("k", Some("v".into()));
    // Polled once, the call has begun. Then it is cancelled.
    let _ = write.now_or_never();
    assert_eq!(store.setting("k").await.unwrap().as_deref(), Some("v"));
}

#[tokio::test]
async fn records_of_another_host_or_spelling_are_left_out() {
    let (_dir, path) = file();
    let store = open(&path);
    store.put(full_runner("ci-1")).await.unwrap();
    store.put(bare_runner("ci-2")).await.unwrap();
    drop(store);
    let (renamed, _) =
        Store::open(&path, "fuzz".parse().unwrap(), HistoryConfig::default()).unwrap();
    assert_eq!(renamed.load().await.unwrap(), [bare_runner("ci-2")]);
    let other = Connection::open(&path).unwrap();
    other
        .execute("UPDATE lives SET slot = 'ci-007' WHERE slot = 'ci-2'", [])
        .unwrap();
    assert_eq!(renamed.load().await.unwrap(), []);
}

#[test]
fn durable_writes_are_flushed_and_others_are_not() {
    let (_dir, path) = file();
    let mut connection = try_open(&path).unwrap();
    let level = |connection: &Connection| -> i64 {
        let pragma = connection.pragma_query_value(None, "synchronous", |row| row.get(0));
        pragma.unwrap()
    };
    // 1 is NORMAL, and 2 is FULL.
    assert_eq!(level(&connection), 1);
    let inside = durably(&mut connection, |transaction| Ok(level(transaction))).unwrap();
    assert_eq!((inside, level(&connection)), (2, 1));
    let failed = durably(&mut connection, |transaction| {
        transaction.execute("not SQL", [])
    });
    assert!(failed.is_err());
    assert_eq!(level(&connection), 1);
}

/// Makes a file with the first steps of the schema and a verdict on `ci-1`, and opens it. Returns a new verdict on
/// `ci-2`, as it was added and read, and the old one.
fn upgraded(steps: &[&str], insert: &str) -> (VerdictRecord, VerdictRecord) {
    let (dir, path) = file();
    std::fs::create_dir_all(dir.path().join("state")).unwrap();
    let old = Connection::open(&path).unwrap();
    for step in steps {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", i64::try_from(steps.len()).unwrap())
        .unwrap();
    old.execute_batch(insert).unwrap();
    drop(old);
    let connection = try_open(&path).unwrap();
    verdicts::add(&connection, &verdict("ci-2", Some(0xb), 10)).unwrap();
    let found = verdicts::recent(&connection, 10).unwrap();
    let [new, old] = <[_; 2]>::try_from(found).expect("two verdicts");
    (new, old)
}

#[test]
fn a_file_of_the_first_schema_keeps_its_verdicts_and_takes_results() {
    let (new, old) = upgraded(
        &schema::STEPS[..1],
        "INSERT INTO verdicts VALUES (NULL, 'ci-1', 'job_done', 'fuzz-a-ci-1-0000beef', 7, 'acme/widgets',
            '17', 'build', 'CI', 1, 9, 3, 'status 0', NULL, 0, '0000000000000000000000000000000a');",
    );
    assert_eq!(new, verdict("ci-2", Some(0xb), 10));
    assert_eq!((old.verdict, old.result), (Verdict::JobDone, None));
    assert_eq!(old.exit.as_deref(), Some("status 0"));
}

#[test]
fn a_file_without_times_keeps_its_verdicts_and_takes_times() {
    let adds_times = |step: &&str| step.contains("listening_after_ms");
    let before = schema::STEPS.iter().position(adds_times).unwrap();
    let (new, old) = upgraded(
        &schema::STEPS[..before],
        "INSERT INTO verdicts (slot, verdict, born_unix_ms, ended_unix_ms, oom_kills, version)
         VALUES ('ci-1', 'job_done', 1, 9, 0, '2.336.0')",
    );
    assert_eq!(new, verdict("ci-2", Some(0xb), 10));
    assert_eq!((old.asked_after_ms, old.listening_after_ms), (None, None));
    assert_eq!(old.version, "2.336.0".parse().ok());
}

#[test]
fn phases_and_verdicts_are_spelled_in_lower_case() {
    let (_dir, path) = file();
    let connection = try_open(&path).unwrap();
    rows::put(&connection, &full_runner("ci-1")).unwrap();
    verdicts::add(&connection, &verdict("ci-1", None, 9)).unwrap();
    let text =
        |query: &str| -> String { connection.query_row(query, [], |row| row.get(0)).unwrap() };
    assert_eq!(text("SELECT phase FROM lives"), "busy");
    assert_eq!(text("SELECT verdict FROM verdicts"), "job_done");
}

/// Returns what `work` logs.
fn logged(work: impl FnOnce()) -> String {
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || Log(Arc::clone(&writer)))
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let log = log.lock().unwrap().clone();
    String::from_utf8(log).unwrap()
}

struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_name_that_another_version_wrote_is_a_warning_and_loses_no_row() {
    let (_dir, path) = file();
    let connection = try_open(&path).unwrap();
    rows::put(&connection, &full_runner("ci-1")).unwrap();
    verdicts::add(&connection, &verdict("ci-2", Some(0xa), 9)).unwrap();
    let rename = "UPDATE lives SET phase = 'hibernating'; UPDATE verdicts SET verdict = 'evicted'";
    connection.execute_batch(rename).unwrap();
    let log = logged(|| {
        let runners = rows::runners(&connection, &host()).unwrap();
        let instead = RunnerRecord {
            phase: PhaseKind::Registering,
            ..full_runner("ci-1")
        };
        assert_eq!(runners, [instead]);
        let instead = VerdictRecord {
            verdict: Verdict::Unexplained,
            ..verdict("ci-2", Some(0xa), 9)
        };
        assert_eq!(verdicts::recent(&connection, 1).unwrap(), [instead]);
    });
    for (slot, column, text) in [
        ("ci-1", "phase", "hibernating"),
        ("ci-2", "verdict", "evicted"),
    ] {
        let warning = format!("cannot read the {column} \"{text}\" of slot {slot} in the records");
        assert!(log.contains(&warning), "{log}");
    }
}
