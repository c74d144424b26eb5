//! The page as a browser gets it.

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use axum::response::Response;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};
use tower::ServiceExt;

use super::*;
use crate::http::checks::no_history;
use crate::http::router;
use crate::status::{
    DaemonState, DemandStatus, JobNote, JobRow, JobStage, JobStatus, PhaseKind, PoolStatus,
    RunnerStatus, SlotId,
};

/// Text of an author who attacks the operator's browser.
const HOSTILE: &str = "</td><script>fetch('drain',{method:'POST'})</script><img src=x onerror=alert(1)>\"'\u{202e}\u{1b}[2J&";

fn hostile() -> Status {
    let slot: SlotId = "ci-1".parse().unwrap();
    let note = JobNote {
        repository: "acme/widgets\" onclick=\"alert(1)".into(),
        run_id: "17".into(),
        job: HOSTILE.into(),
        workflow: HOSTILE.into(),
    };
    let row = JobRow {
        id: 1,
        scope: "acme".into(),
        repository: HOSTILE.into(),
        run_id: 17,
        attempt: 1,
        workflow: HOSTILE.into(),
        name: HOSTILE.into(),
        labels: vec![HOSTILE.into()],
        stage: JobStage::Queued,
        queued_unix_ms: 0,
        started_unix_ms: None,
        ended_unix_ms: None,
        conclusion: None,
        pool: None,
        machine: None,
        waits_for: None,
    };
    Status {
        host: "runner-01".into(),
        state: DaemonState::Running,
        at_unix_ms: 10_000,
        notes: vec![HOSTILE.into()],
        demand: Some(DemandStatus {
            waiting: vec![row],
            ..DemandStatus::default()
        }),
        pools: vec![PoolStatus {
            name: "ci".into(),
            runners: vec![RunnerStatus {
                job: Some(JobStatus {
                    note,
                    ..JobStatus::default()
                }),
                ..RunnerStatus::new(slot, PhaseKind::Busy)
            }],
            ..PoolStatus::default()
        }],
        ..Status::default()
    }
}

/// An API whose status a test publishes.
fn api(status: Status) -> (watch::Sender<Status>, Router) {
    let (publish, show) = watch::channel(status);
    let (requests, _) = mpsc::channel(1);
    (publish, router(show, requests, no_history()))
}

async fn get(api: &Router, path: &str) -> Response {
    let request = Request::get(path).body(Body::empty()).unwrap();
    api.clone().oneshot(request).await.unwrap()
}

async fn text(answer: Response) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test]
async fn hostile_names_of_jobs_are_only_text() {
    let (_publish, api) = api(hostile());
    let page = text(get(&api, "/").await).await;
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    for danger in ["<img", "onclick=\"", "\u{202e}", "\u{1b}"] {
        assert!(!page.contains(danger), "{danger:?} in {page}");
    }
    assert!(page.contains("&lt;/td&gt;&lt;script&gt;fetch("), "{page}");
    try_document(&hostile());
}

#[tokio::test]
async fn the_policy_allows_the_pages_own_style_and_script_and_nothing_else() {
    let (_publish, api) = api(hostile());
    let answer = get(&api, "/").await;
    let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].clone();
    let policy = policy.to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = text(answer).await;
    for element in ["style", "script"] {
        let (_, rest) = page.split_once(&format!("<{element}>")).unwrap();
        let (inline, _) = rest.split_once(&format!("</{element}>")).unwrap();
        let digest = STANDARD.encode(Sha256::digest(inline));
        let source = format!("{element}-src 'sha256-{digest}'");
        assert!(policy.contains(&source), "{source} in {policy}");
    }
}

#[tokio::test]
async fn a_page_loads_nothing_from_another_place() {
    let (_publish, api) = api(hostile());
    let page = text(get(&api, "/").await).await;
    for loads in ["src=", "<link", "@import", "url("] {
        let ours = page.replace("&lt;img src=x", "");
        assert!(!ours.contains(loads), "{loads} in {page}");
    }
}

/// Reads events until the stream ends.
struct Events(BodyDataStream);

impl Events {
    async fn open(api: &Router) -> Self {
        let answer = get(api, "/events").await;
        assert_eq!(answer.status(), 200);
        Self(answer.into_body().into_data_stream())
    }

    async fn next(&mut self) -> Option<String> {
        let data = self.0.next().await?.unwrap();
        Some(String::from_utf8(data.into()).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_changes_once_a_second_and_ages_every_5_s() {
    let (publish, api) = api(hostile());
    let start = Instant::now();
    let mut events = Events::open(&api).await;
    let first = events.next().await.unwrap();
    assert!(first.starts_with("event: status\nretry: 1000\n"), "{first}");
    assert!(first.contains("running, healthy"), "{first}");
    assert!(!first.contains("<script"), "{first}");
    assert_eq!(start.elapsed(), Duration::ZERO);

    publish.send_modify(|status| status.state = DaemonState::Draining);
    publish.send_modify(|status| status.state = DaemonState::Drained);
    let second = events.next().await.unwrap();
    assert!(second.contains("drained, healthy"), "{second}");
    assert_eq!(start.elapsed(), Duration::from_secs(1));

    events.next().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_before_the_bound_on_connections_and_lets_another_begin() {
    let (_publish, api) = api(hostile());
    let start = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..12 {
        streams.push(Events::open(&api).await);
    }
    let refused = get(&api, "/events").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "10");
    let mut first = streams.remove(0);
    while first.next().await.is_some() {}
    assert!(
        start.elapsed() <= Duration::from_secs(25),
        "{:?}",
        start.elapsed()
    );
    drop(first);
    Events::open(&api).await.next().await.unwrap();
}
