//! The client against a server that answers from a script and records requests.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use runner_controller::github::GitHub;
use runner_controller::world::{Registry, RegistryErrorKind as Kind, RunnerId};
use serde_json::{Value, json};
use tracing::Instrument;

use super::{PATIENCE, connect, enterprise, organization, repository, request};

/// A request that the server received.
struct Received {
    line: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

struct Server {
    url: String,
    received: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers each request with the result of `script` for its number and `METHOD /path?query`.
    async fn start<S>(script: S) -> Self
    where
        S: Fn(usize, &str) -> Response + Clone + Send + Sync + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        let app = Router::new().fallback(move |request: Request| {
            let (log, script) = (Arc::clone(&log), script.clone());
            async move {
                let (parts, body) = request.into_parts();
                let line = format!("{} {}", parts.method, parts.uri);
                let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
                let number = {
                    let mut log = log.lock().unwrap();
                    log.push(Received {
                        line: line.clone(),
                        headers: parts.headers,
                        body,
                    });
                    log.len() - 1
                };
                script(number, &line)
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            received,
            task,
        }
    }

    fn lines(&self) -> Vec<String> {
        let received = self.received.lock().unwrap();
        received
            .iter()
            .map(|received| received.line.clone())
            .collect()
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &Value) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body.to_string())).unwrap()
}

fn page(ids: impl IntoIterator<Item = u64>) -> Value {
    let runners: Vec<Value> = ids
        .into_iter()
        .map(|id| json!({"id": id, "name": format!("r{id}"), "status": "online", "busy": false}))
        .collect();
    json!({"total_count": 1000, "runners": runners, "new_field": {"of": "tomorrow"}})
}

fn blob(name: &str) -> String {
    let runner = json!({"AgentName": name}).to_string();
    let files = json!({ ".runner": BASE64_STANDARD.encode(format!("\u{feff}{runner}")) });
    BASE64_STANDARD.encode(files.to_string())
}

fn made(id: u64, name: &str, config: &str) -> Value {
    json!({"runner": {"id": id, "name": name}, "encoded_jit_config": config})
}

fn github(server: &Server) -> GitHub {
    connect(&server.url, "ghp_token", repository(), PATIENCE)
}

#[tokio::test]
async fn a_request_carries_the_documented_headers_once_each() {
    let server =
        Server::start(|_, _| answer(201, &[], &made(1, "fuzz-ci-1-00000001", "opaque"))).await;
    let base = format!("{}/api/v3", server.url);
    let github = connect(&base, "ghp_token", repository(), PATIENCE);
    github.mint(&request(1)).await.unwrap();

    let received = server.received.lock().unwrap();
    let [
        Received {
            line,
            headers,
            body,
        },
    ] = received.as_slice()
    else {
        panic!("{} requests", received.len());
    };
    assert_eq!(
        line,
        "POST /api/v3/repos/acme/widgets/actions/runners/generate-jitconfig"
    );
    let agent = concat!("runner-controller/", env!("CARGO_PKG_VERSION"));
    for (name, value) in [
        ("accept", "application/vnd.github+json"),
        ("authorization", "Bearer ghp_token"),
        ("x-github-api-version", "2022-11-28"),
        ("user-agent", agent),
        ("content-type", "application/json"),
    ] {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(values, [value], "{name}");
    }
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(
        body,
        json!({
            "name": "fuzz-ci-1-00000001",
            "runner_group_id": 1,
            "labels": ["self-hosted", "ci"],
            "work_folder": "/var/lib/github-runner/_work",
        })
    );
}

#[tokio::test]
async fn a_runner_counts_as_gone_only_if_github_answers_404() {
    let runner = json!({"id": 7, "name": "r7", "status": "online", "busy": true});
    let server = Server::start(move |number, _| match number {
        0 => answer(200, &[], &runner),
        1 => answer(404, &[], &json!({"message": "Not Found"})),
        2 => answer(500, &[], &json!({"message": "Server Error"})),
        3 => answer(403, &[], &json!({"message": "Forbidden"})),
        4 => answer(401, &[], &json!({"message": "Bad credentials"})),
        // An answer of another kind, and one of a runner without an id.
        5 => answer(200, &[], &page([7])),
        _ => answer(200, &[], &json!({"name": "r7", "status": "online"})),
    })
    .await;
    let github = github(&server);
    let found = github.find(RunnerId(7)).await.unwrap().unwrap();
    assert_eq!((found.id, found.name.as_str()), (RunnerId(7), "r7"));
    assert!(found.online && found.busy);
    assert_eq!(github.find(RunnerId(7)).await, Ok(None));
    for kind in [
        Kind::Server,
        Kind::Forbidden,
        Kind::Unauthorized,
        Kind::Server,
        Kind::Server,
    ] {
        let error = github.find(RunnerId(7)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
    for line in server.lines() {
        assert_eq!(line, "GET /repos/acme/widgets/actions/runners/7");
    }
}

#[tokio::test]
async fn the_token_goes_to_no_other_server() {
    let other = Server::start(|_, _| answer(200, &[], &page([1]))).await;
    let to = format!("{}/x", other.url);
    let (redirect, link) = (to.clone(), format!("<{to}>; rel=\"next\""));
    let server = Server::start(move |number, _| match number {
        0 => answer(
            301,
            &[("location", &redirect)],
            &json!({"message": "Moved"}),
        ),
        _ => answer(200, &[("link", &link)], &page([1])),
    })
    .await;
    let github = github(&server);
    let error = github.list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    assert!(error.advice.unwrap().contains(&to));
    let error = github.list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Server);
    assert!(error.message.contains("another server"));
    assert!(other.lines().is_empty());
}

#[tokio::test]
async fn a_list_that_never_ends_is_refused() {
    // In a circle, and straight on.
    let circle = Server::start(|_, line| {
        let next = if line.contains("page=2") { "1" } else { "2" };
        let link =
            format!("</repos/acme/widgets/actions/runners?per_page=100&page={next}>; rel=next");
        answer(200, &[("link", &link)], &page([1]))
    })
    .await;
    let error = github(&circle).list().await.unwrap_err();
    assert!(error.message.contains("never ends"), "{error}");
    assert!(circle.lines().len() <= 3);

    let straight = Server::start(|number, _| {
        let link = format!("</runners?page={}>; rel=\"next\"", number + 2);
        answer(200, &[("link", &link)], &page([number as u64]))
    })
    .await;
    let error = github(&straight).list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Server);
    assert_eq!(straight.lines().len(), 200);
}

#[tokio::test]
async fn a_304_may_bring_a_new_next_page() {
    let server = Server::start(|number, line| match (number, line.contains("page=2")) {
        (0, _) => answer(200, &[("etag", "\"a\"")], &page([1])),
        (1, _) => answer(
            304,
            &[("link", "<?per_page=100&page=2>; rel=\"next\"")],
            &json!(null),
        ),
        (_, true) => answer(200, &[], &page([2])),
        (_, false) => answer(304, &[], &json!(null)),
    })
    .await;
    let github = github(&server);
    assert_eq!(github.list().await.unwrap().len(), 1);
    assert_eq!(github.list().await.unwrap().len(), 2);
    assert_eq!(github.list().await.unwrap().len(), 2);
    let received = server.received.lock().unwrap();
    assert_eq!(received[1].headers["if-none-match"], "\"a\"");
}

#[tokio::test]
async fn an_unexpected_304_is_an_error() {
    let server = Server::start(|_, _| answer(304, &[], &json!(null))).await;
    assert!(github(&server).list().await.is_err());
}

#[tokio::test]
async fn an_answer_without_a_used_field_is_an_error() {
    for runner in [
        json!({"id": -1, "name": "a", "status": "online", "busy": false}),
        json!({"id": 1.5, "name": "a", "status": "online", "busy": false}),
        json!({"id": "1", "name": "a", "status": "online", "busy": false}),
        json!({"id": 1, "name": null, "status": "online", "busy": false}),
        json!({"id": 1, "name": "a", "busy": false}),
        json!({"id": 1, "name": "a", "status": "online"}),
    ] {
        let body = json!({ "runners": [runner] });
        let shown = body.clone();
        let server = Server::start(move |_, _| answer(200, &[], &body)).await;
        let error = github(&server).list().await.unwrap_err();
        assert_eq!(
            (error.kind, error.status),
            (Kind::Server, Some(200)),
            "{shown}"
        );
    }
    let server = Server::start(|_, _| answer(200, &[], &page([u64::MAX]))).await;
    assert_eq!(
        github(&server).list().await.unwrap()[0].id,
        RunnerId(u64::MAX)
    );
}

#[tokio::test]
async fn a_config_for_another_runner_is_refused_and_its_registration_deleted() {
    let server = Server::start(|_, line| {
        if line.starts_with("POST") {
            answer(
                201,
                &[],
                &made(41, "fuzz-ci-1-00000001", &blob("fuzz-ci-9-00000009")),
            )
        } else {
            answer(204, &[], &json!(null))
        }
    })
    .await;
    let error = github(&server).mint(&request(1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Server);
    assert!(error.message.contains("another name"), "{error}");
    assert!(!format!("{error:?}").contains(&blob("fuzz-ci-9-00000009")));
    let lines = server.lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1], "DELETE /repos/acme/widgets/actions/runners/41");
}

#[tokio::test]
async fn a_registration_with_another_name_is_refused_and_not_deleted() {
    let server =
        Server::start(|_, _| answer(201, &[], &made(41, "other", &blob("fuzz-ci-1-00000001"))))
            .await;
    let error = github(&server).mint(&request(1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Server);
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn configs_with_our_name_no_name_or_an_unknown_shape_are_accepted() {
    let nameless =
        BASE64_STANDARD.encode(json!({".runner": BASE64_STANDARD.encode("{}")}).to_string());
    for config in [blob("fuzz-ci-1-00000001"), nameless, "opaque!".to_owned()] {
        let body = made(1 << 40, "fuzz-ci-1-00000001", &config);
        let server = Server::start(move |_, _| answer(201, &[], &body)).await;
        let minted = github(&server).mint(&request(1)).await.unwrap();
        assert_eq!(minted.id, RunnerId(1 << 40));
        assert_eq!(minted.config.expose(), config);
    }
}

#[tokio::test]
async fn a_config_that_no_runner_could_take_is_refused() {
    for config in [String::new(), "x".repeat(200_000)] {
        let body = made(5, "fuzz-ci-1-00000001", &config);
        let server = Server::start(move |_, line| {
            if line.starts_with("POST") {
                answer(201, &[], &body)
            } else {
                answer(500, &[], &json!({"message": "no"}))
            }
        })
        .await;
        let error = github(&server).mint(&request(1)).await.unwrap_err();
        assert!(error.message.contains("left behind"), "{error}");
    }
}

#[tokio::test]
async fn an_error_about_a_misshapen_answer_does_not_quote_it() {
    let body =
        json!({"runner": {"id": "secret-blob", "name": 3}, "encoded_jit_config": ["secret-blob"]});
    let server = Server::start(move |_, _| answer(201, &[], &body)).await;
    let error = github(&server).mint(&request(1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Server);
    assert!(!format!("{error:?}").contains("secret-blob"));
    assert!(error.is_ambiguous());
}

/// The log of all crates at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_names_calls_and_contains_no_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    // For the whole process, because a subscriber of one thread misses call sites that other tests
    // reached first. The span identifies the lines of this test.
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let config = blob("fuzz-ci-1-00000001");
    let body = made(1, "fuzz-ci-1-00000001", &config);
    let server = Server::start(move |number, _| match number {
        0 => answer(201, &[("x-github-request-id", "A1:B2")], &body),
        1 => answer(201, &[], &made(1, "fuzz-ci-1-00000002", "opaque blob")),
        2 => answer(201, &[], &made(1, "fuzz-ci-1-00000003", "opaque blob")),
        _ => answer(403, &[], &json!({"message": "ghp_token may not"})),
    })
    .await;
    let github = github(&server);
    let calls = async {
        for random in 1..=3 {
            github.mint(&request(random)).await.unwrap();
        }
        github.list().await.unwrap_err()
    };
    let error = calls.instrument(tracing::info_span!("log_test")).await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains("A1:B2")).unwrap();
    for part in ["DEBUG", "generate-jitconfig", "status=201", "elapsed_ms="] {
        assert!(line.contains(part), "{line}");
    }
    // Once, not for each mint.
    let warnings = log
        .lines()
        .filter(|line| line.contains("log_test") && line.contains("unknown shape"));
    assert_eq!(warnings.count(), 1);
    for secret in ["ghp_token", config.as_str(), "opaque blob"] {
        assert!(!log.contains(secret), "{log}");
        assert!(!format!("{error:?}").contains(secret));
    }
}

#[tokio::test]
async fn groups_on_a_second_page_are_found() {
    let server = Server::start(|_, line| {
        if line.starts_with("POST") {
            return answer(201, &[], &made(1, "fuzz-ci-1-00000001", "opaque"));
        }
        let link = "</orgs/acme/actions/runner-groups?page=2>; rel=\"next\"";
        if line.contains("page=2") {
            answer(
                200,
                &[],
                &json!({"runner_groups": [{"id": 77, "name": "Default"}]}),
            )
        } else {
            answer(
                200,
                &[("link", link)],
                &json!({"runner_groups": [{"id": 1, "name": "other"}]}),
            )
        }
    })
    .await;
    let github = connect(&server.url, "t", organization(), PATIENCE);
    github.mint(&request(1)).await.unwrap();
    let received = server.received.lock().unwrap();
    let body: Value = serde_json::from_slice(&received.last().unwrap().body).unwrap();
    assert_eq!(body["runner_group_id"], 77);
}

#[tokio::test]
async fn an_enterprise_has_its_own_paths_and_groups() {
    let server = Server::start(|_, line| match line {
        line if line.starts_with("POST") => {
            answer(201, &[], &made(1, "fuzz-ci-1-00000001", "opaque"))
        }
        line if line.starts_with("DELETE") => {
            Response::builder().status(204).body(Body::empty()).unwrap()
        }
        line if line.contains("runner-groups") => answer(
            200,
            &[],
            &json!({"runner_groups": [{"id": 5, "name": "Default"}]}),
        ),
        _ => answer(200, &[], &page([])),
    })
    .await;
    let github = connect(&server.url, "t", enterprise(), PATIENCE);
    github.mint(&request(1)).await.unwrap();
    github.list().await.unwrap();
    github.delete(RunnerId(1)).await.unwrap();
    let base = "/enterprises/acme/actions";
    let expected = [
        format!("GET {base}/runner-groups?per_page=100"),
        format!("POST {base}/runners/generate-jitconfig"),
        format!("GET {base}/runners?per_page=100"),
        format!("DELETE {base}/runners/1"),
    ];
    assert_eq!(server.lines(), expected);
    let received = server.received.lock().unwrap();
    let body: Value = serde_json::from_slice(&received[1].body).unwrap();
    assert_eq!(body["runner_group_id"], 5);
}

#[tokio::test]
async fn an_absent_server_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let github = connect(&url, "t", repository(), PATIENCE);
    let error = github.list().await.unwrap_err();
    assert_eq!((error.kind, error.status), (Kind::Unreachable, None));
    assert!(error.message.contains("refused"), "{error}");
    let github = connect("http://no-such-host.invalid", "t", repository(), PATIENCE);
    let error = github.list().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable);
    assert!(error.advice.unwrap().contains("DNS"), "{}", error.message);
}
