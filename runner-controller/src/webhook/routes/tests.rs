//! Deliveries over the router: refusals, acceptances, and what reaches the controller.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Method;
use ring::hmac;
use tokio::sync::mpsc::error::TryRecvError;
use tower::ServiceExt as _;

use super::*;
use crate::pool::JobKey;
use crate::world::MAX_HOOKS;
use crate::world::testing::Full;

const SECRET: &[u8] = b"It's a Secret to Everybody";
const NEXT: &[u8] = b"a further secret of the hook";

/// Records in memory.
#[derive(Debug, Clone, Default)]
struct Memory {
    ids: Arc<Mutex<Vec<String>>>,
    jobs: Arc<Mutex<BTreeMap<JobKey, KnownJob>>>,
    is_full: bool,
}

impl Inbox for Memory {
    type Error = Full;

    async fn deliver(&self, id: String, job: KnownJob, _: u64) -> Result<Delivered, Full> {
        if self.is_full {
            return Err(Full);
        }
        let (mut ids, mut jobs) = (self.ids.lock().unwrap(), self.jobs.lock().unwrap());
        let is_new = !ids.contains(&id);
        if is_new {
            ids.push(id);
            let known = jobs.remove(&job.key);
            let merged = known.map_or(job.clone(), |known| known.merge(job.clone()));
            jobs.insert(job.key.clone(), merged);
        }
        Ok(Delivered {
            is_new,
            job: jobs.get(&job.key).cloned(),
        })
    }

    async fn on_record(&self, deliveries: BTreeSet<String>) -> Result<BTreeSet<String>, Full> {
        let ids = self.ids.lock().unwrap();
        Ok(deliveries
            .into_iter()
            .filter(|id| ids.contains(id))
            .collect())
    }
}

/// A router, and what it tells.
struct Hook {
    router: Router,
    events: mpsc::Receiver<Event>,
    counts: Counts,
    hooks: watch::Receiver<KnownHooks>,
}

fn hook(inbox: Memory) -> Hook {
    let (sender, events) = mpsc::channel(16);
    let counts = Counts::default();
    let (learned, hooks) = watch::channel(KnownHooks::default());
    let router = router(Receiver {
        secrets: Secrets::of(&[SECRET, NEXT]),
        scopes: vec![ScopeId::new("https://api.github.com", "acme")],
        inbox,
        events: sender,
        counts: counts.clone(),
        hooks: learned,
        unix_ms: || 5_000,
    });
    Hook {
        router,
        events,
        counts,
        hooks,
    }
}

fn body(repository: &str) -> String {
    serde_json::json!({
        "action": "queued",
        "workflow_job": {
            "id": 1, "run_id": 2, "run_attempt": 1, "status": "queued", "conclusion": null,
            "name": "build", "workflow_name": "CI", "labels": ["linux"], "runner_name": null,
            "created_at": "1970-01-01T00:00:01Z", "started_at": "1970-01-01T00:00:01Z", "completed_at": null,
        },
        "repository": {"full_name": repository},
    })
    .to_string()
}

fn signed(secret: &[u8], body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())))
}

/// Returns GitHub's request with a body.
fn delivery(id: &str, event: &str, body: &str) -> axum::http::Request<Body> {
    axum::http::Request::post("/webhook")
        .header("content-length", body.len())
        .header("content-type", "application/json")
        .header("x-github-delivery", id)
        .header("x-github-event", event)
        .header("x-hub-signature-256", signed(SECRET, body))
        .body(Body::from(body.to_owned()))
        .unwrap()
}

impl Hook {
    async fn send(&self, request: axum::http::Request<Body>) -> (u16, String) {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let text = to_bytes(answer.into_body(), 4_096).await.unwrap();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    fn count(&self, outcome: DeliveryOutcome) -> u64 {
        let counts = self.counts.subscribe();
        let counts = counts.borrow();
        counts.deliveries.get(&outcome).copied().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_delivery_reaches_the_controller_after_it_is_on_record() {
    let inbox = Memory::default();
    let mut hook = hook(inbox.clone());
    let request = delivery("a", "workflow_job", &body("acme/widgets"));
    assert_eq!(hook.send(request).await, (202, "accepted".into()));
    let Event::Job(job) = hook.events.recv().await.unwrap() else {
        panic!("another event");
    };
    assert_eq!(
        (job.queued_unix_ms, job.key.scope.as_str()),
        (1_000, "https://api.github.com acme")
    );
    assert_eq!(
        inbox.jobs.lock().unwrap().values().collect::<Vec<_>>(),
        [&*job]
    );
    assert_eq!(hook.counts.subscribe().borrow().last_unix_ms, Some(5_000));
}

#[tokio::test]
async fn a_doubled_delivery_is_accepted_and_changes_nothing() {
    let inbox = Memory::default();
    let mut hook = hook(inbox.clone());
    let send = || delivery("a", "workflow_job", &body("acme/widgets"));
    hook.send(send()).await;
    let before = inbox.jobs.lock().unwrap().clone();
    assert_eq!(hook.send(send()).await, (202, "on record already".into()));
    assert_eq!(*inbox.jobs.lock().unwrap(), before);
    assert_eq!(hook.count(DeliveryOutcome::Duplicate), 1);
    let (first, second) = (hook.events.try_recv(), hook.events.try_recv());
    assert_eq!(first.unwrap(), second.unwrap());
}

#[tokio::test]
async fn either_secret_signs_during_a_rotation() {
    let hook = hook(Memory::default());
    let mut request = delivery("a", "workflow_job", &body("acme/widgets"));
    let signature = signed(NEXT, &body("acme/widgets")).parse().unwrap();
    request
        .headers_mut()
        .insert("x-hub-signature-256", signature);
    assert_eq!(hook.send(request).await.0, 202);
}

#[tokio::test]
async fn a_ping_and_other_events_are_answered_and_tell_nothing() {
    let mut hook = hook(Memory::default());
    assert_eq!(hook.send(delivery("a", "ping", "{}")).await.0, 200);
    assert_eq!(hook.counts.subscribe().borrow().last_unix_ms, None);
    assert_eq!(hook.send(delivery("b", "push", "{}")).await.0, 202);
    let outside = delivery("c", "workflow_job", &body("stranger/app"));
    assert_eq!(hook.send(outside).await.0, 202);
    for outcome in [
        DeliveryOutcome::Ping,
        DeliveryOutcome::Ignored,
        DeliveryOutcome::OutsideScope,
    ] {
        assert_eq!(hook.count(outcome), 1, "{outcome}");
    }
    assert_eq!(hook.events.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn a_request_that_github_did_not_send_is_refused() {
    let mut hook = hook(Memory::default());
    let good = || delivery("a", "workflow_job", &body("acme/widgets"));
    let with = |name: &'static str, value: Option<&str>| {
        let mut request = good();
        match value {
            Some(value) => request.headers_mut().insert(name, value.parse().unwrap()),
            None => request.headers_mut().remove(name),
        };
        request
    };
    let forged = signed(SECRET, &body("acme/other"));
    let zeros = format!("sha256={}", "0".repeat(64));
    let method = |method: Method| {
        let mut request = good();
        *request.method_mut() = method;
        request
    };
    let path = |path: &str| {
        let mut request = good();
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    let long_id = "x".repeat(65);
    for (request, status) in [
        (with("x-hub-signature-256", None), 401),
        (with("x-hub-signature-256", Some(&forged)), 401),
        (with("x-hub-signature-256", Some(&zeros)), 401),
        (with("x-hub-signature-256", Some("sha256=zz")), 401),
        (
            with("content-type", Some("application/x-www-form-urlencoded")),
            415,
        ),
        (with("content-type", None), 415),
        (with("content-length", None), 411),
        (with("content-length", Some("26214401")), 413),
        (with("content-length", Some("3")), 400),
        (with("x-github-delivery", None), 400),
        (with("x-github-delivery", Some(&long_id)), 400),
        (with("x-github-event", None), 400),
        (delivery("a", "workflow_job", "{}"), 400),
        (method(Method::GET), 405),
        (method(Method::PUT), 405),
        (path("/"), 404),
        (path("/webhook/x"), 404),
        (path("/status"), 404),
    ] {
        let told = format!("{request:?}");
        let (found, text) = hook.send(request).await;
        assert_eq!(found, status, "{told}: {text}");
        assert!(!text.contains("Everybody"), "{text}");
    }
    assert_eq!(hook.events.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(hook.count(DeliveryOutcome::Accepted), 0);
    assert_eq!(hook.count(DeliveryOutcome::Unsigned), 1);
    assert_eq!(hook.count(DeliveryOutcome::WrongSignature), 3);
}

#[tokio::test]
async fn a_delivery_that_cannot_be_put_on_record_is_not_accepted() {
    let mut hook = hook(Memory {
        is_full: true,
        ..Memory::default()
    });
    let request = delivery("a", "workflow_job", &body("acme/widgets"));
    assert_eq!(hook.send(request).await.0, 503);
    assert_eq!(hook.count(DeliveryOutcome::NotRecorded), 1);
    assert_eq!(hook.events.try_recv(), Err(TryRecvError::Empty));
}

#[tokio::test]
async fn a_delivery_about_a_job_tells_of_its_hook() {
    let hook = hook(Memory::default());
    let of = |kind: &str, id: &str| {
        let mut request = delivery("a", "workflow_job", &body("Acme/Widgets"));
        let headers = request.headers_mut();
        headers.insert(
            "x-github-hook-installation-target-type",
            kind.parse().unwrap(),
        );
        headers.insert("x-github-hook-id", id.parse().unwrap());
        request
    };
    for (kind, id) in [
        ("organization", "7"),
        ("organization", "7"),
        ("repository", "8"),
        ("integration", "9"),
        ("business", "10"),
        ("repository", "-1"),
    ] {
        hook.send(of(kind, id)).await;
    }
    let mut forged = of("repository", "11");
    let signature = "sha256=00".parse().unwrap();
    forged
        .headers_mut()
        .insert("x-hub-signature-256", signature);
    assert_eq!(hook.send(forged).await.0, 401);
    let shown = |known: &KnownHooks| -> Vec<String> {
        known.iter().map(|(_, hook)| hook.to_string()).collect()
    };
    let all = ["the App's hook", "hook 7 of acme", "hook 8 of acme/widgets"];
    assert_eq!(shown(&hook.hooks.borrow()), all);
    // A newer hook of the same owner is in the place of the older one.
    hook.send(of("organization", "6")).await;
    hook.send(of("organization", "12")).await;
    let all = [
        "the App's hook",
        "hook 12 of acme",
        "hook 8 of acme/widgets",
    ];
    assert_eq!(shown(&hook.hooks.borrow()), all);
}

#[test]
fn the_number_of_hooks_of_a_scope_is_bounded() {
    let scope = |name| ScopeId::new("https://api.github.com", name);
    let of = |id: u64| crate::world::Hook {
        owner: HookOwner::Repository(format!("acme/{id}")),
        id,
    };
    let mut known = KnownHooks::default();
    for id in 0..100 {
        known.learn(&scope("acme"), of(id));
    }
    assert_eq!(known.iter().count(), MAX_HOOKS);
    assert!(known.learn(&scope("other"), of(7)));
    assert!(known.forget(&scope("acme"), &of(7)));
    assert!(!known.forget(&scope("acme"), &of(7)));
    assert!(known.learn(&scope("acme"), of(200)));
}
