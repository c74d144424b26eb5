//! A stand-in for a collector.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use axum::serve::Listener;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use traces::{Counts, Exporter, Headers, Settings, Timing};

use crate::rules;

/// Maximum time that a test waits for a state.
const PATIENCE: Duration = Duration::from_mins(1);

/// Fault in the place of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status, with this `Retry-After`.
    Status(u16, Option<&'static str>),
    /// No answer at all.
    Hang,
    /// The end of the connection in the middle of the answer.
    Cut,
    /// The page of a web server.
    Page,
    /// The spans are taken but for this number of them.
    Partial(i64),
}

#[derive(Debug, Default)]
struct Seen {
    faults: VecDeque<Fault>,
    /// Fault of every request for which `faults` has none.
    always: Option<Fault>,
    /// Spans of the requests that were taken.
    spans: Vec<Span>,
    /// Number of runners in each request that was taken.
    batches: Vec<usize>,
    /// Time and headers of each request.
    requests: Vec<(Instant, HeaderMap)>,
    violations: Vec<String>,
}

/// A collector that refuses everything that the specification does not allow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Seen>>);

impl Collector {
    /// Listens on a free port. Returns the endpoint, too.
    pub(crate) async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        collector.serve(listener);
        (collector, endpoint)
    }

    /// Answers at a listener.
    pub(crate) fn serve<L>(&self, listener: L)
    where
        L: Listener<Addr = SocketAddr>,
    {
        let router = Router::new().route("/v1/traces", post(take));
        let router = router.with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    fn seen<T>(&self, read: impl FnOnce(&mut Seen) -> T) -> T {
        read(&mut self.0.lock().unwrap())
    }

    /// Has this fault at the next requests, one for each.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.seen(|seen| seen.faults.extend(faults));
    }

    /// Has this fault at every request, or at none.
    pub(crate) fn fail_always(&self, fault: Option<Fault>) {
        self.seen(|seen| seen.always = fault);
    }

    /// Returns the spans so far. Fails if a request was not as specified.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.seen(|seen| {
            assert_eq!(seen.violations, [""; 0]);
            seen.spans.clone()
        })
    }

    /// Returns the number of runners in each request so far.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.seen(|seen| seen.batches.clone())
    }

    /// Returns the time and the headers of each request so far.
    pub(crate) fn requests(&self) -> Vec<(Instant, HeaderMap)> {
        self.seen(|seen| seen.requests.clone())
    }

    /// Returns the violations so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.seen(|seen| seen.violations.clone())
    }
}

async fn take(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let fault = collector.seen(|seen| {
        seen.requests.push((Instant::now(), headers.clone()));
        seen.faults.pop_front().or_else(|| seen.always.clone())
    });
    let rejected = match fault {
        None => 0,
        Some(Fault::Partial(rejected)) => rejected,
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Status(status, retry_after)) => {
            let mut response = Response::builder().status(status);
            if let Some(after) = retry_after {
                response = response.header("retry-after", after);
            }
            return response.body(Body::empty()).unwrap();
        }
        Some(Fault::Cut) => {
            let part = [Ok(Bytes::from("half")), Err(std::io::Error::other("cut"))];
            return protobuf(Body::from_stream(futures_util::stream::iter(part)));
        }
        Some(Fault::Page) => return Response::new(Body::from("<html>")),
    };
    match rules::check(&headers, &body) {
        Ok(request) => {
            collector.seen(|seen| {
                let spans = spans_of(request);
                let roots = spans.iter().filter(|span| span.parent_span_id.is_empty());
                seen.batches.push(roots.count());
                seen.spans.extend(spans);
            });
            let partial = ExportTracePartialSuccess {
                rejected_spans: rejected,
                error_message: if rejected > 0 {
                    "too old".into()
                } else {
                    String::new()
                },
            };
            let answer = ExportTraceServiceResponse {
                partial_success: (rejected > 0).then_some(partial),
            };
            protobuf(answer.encode_to_vec().into())
        }
        Err((status, violation)) => {
            collector.seen(|seen| seen.violations.push(violation));
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
        }
    }
}

fn protobuf(body: Body) -> Response<Body> {
    let response = Response::builder().header("content-type", "application/x-protobuf");
    response.body(body).unwrap()
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Span> {
    let resources = request.resource_spans.into_iter();
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// Returns the settings of a test: short times.
pub(crate) fn settings(endpoint: &str) -> Settings {
    Settings {
        endpoint: endpoint.to_owned(),
        headers: Headers::default(),
        authorities: Vec::new(),
        host: "box".into(),
        version: "1.2.3".into(),
        timing: Timing {
            request: Duration::from_secs(20),
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(100),
        },
    }
}

/// Starts the task with the settings of a test.
pub(crate) fn exporter(endpoint: &str) -> Exporter {
    Exporter::start(settings(endpoint)).unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited too long: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the counts of the task are as wanted, and returns them.
pub(crate) async fn counted(exporter: &Exporter, holds: impl Fn(&Counts) -> bool) -> Counts {
    until("counts", || holds(&exporter.counts())).await;
    exporter.counts()
}
