//! The exporter against a stand-in collector that refuses what OTLP does not allow.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with its line; clippy.toml exempts only #[test] functions"
)]

mod rules;
mod runners;
mod standin;
mod tls;

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use runners::{hostile, runner, whole};
use standin::{Collector, Fault, counted, exporter, settings, until};
use tokio::net::TcpListener;
use traces::{Exporter, Headers, MAX_WAITING};

/// Time for a close that must send everything.
const LONG: Duration = Duration::from_mins(1);

/// Returns a span as text: its name, its start and length in milliseconds, and its attributes.
fn told(span: &Span, began: u64) -> String {
    let attributes = span.attributes.iter().map(|attribute| {
        let value = attribute.value.clone().unwrap().value.unwrap();
        let value = if let Value::IntValue(number) = value {
            number.to_string()
        } else if let Value::StringValue(text) = value {
            text
        } else {
            panic!("{value:?}")
        };
        format!(" {}={value}", attribute.key)
    });
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let status = span
        .status
        .as_ref()
        .map(|status| format!(" ({})", status.message));
    format!(
        "{} {}+{}{}{}",
        span.name,
        (start - began) / 1_000_000,
        (end - start) / 1_000_000,
        status.unwrap_or_default(),
        attributes.collect::<String>()
    )
}

#[tokio::test]
async fn a_runner_is_one_trace_with_its_phases_and_its_job() {
    let (collector, endpoint) = Collector::start().await;
    let exporter = exporter(&endpoint);
    exporter.add(whole());
    let counts = exporter.close(LONG).await;
    assert_eq!((counts.sent, counts.dropped, counts.error), (1, 0, None));
    let spans = collector.spans();
    let began = spans[0].start_time_unix_nano;
    assert_eq!(began, 1_796_000_000_000 * 1_000_000);
    let told: Vec<String> = spans.iter().map(|span| told(span, began)).collect();
    assert_eq!(
        told,
        [
            "runner 0+75300 (job_timeout; raise timeouts.job, or shorten the job) \
             cicd.worker.name=box-ci-3-0a1b2c3d cicd.worker.id=41 runner.pool=ci runner.slot=ci-3 \
             runner.unit=runner-ci@3.service runner.verdict=job_timeout runner.exit=status 102 \
             runner.version=2.336.0 runner.generation=0123abcd runner.memory_peak_bytes=1073741824 \
             runner.cpu_ms=42000 runner.oom_kills=2",
            "booting 0+300",
            "spare 300+8000",
            "minting 8300+200",
            "registering 8500+700",
            "idle 9200+5100",
            "retiring 75000+300",
            "job 14300+61000 (failed) vcs.owner.name=acme vcs.repository.name=widgets \
             cicd.pipeline.name=CI cicd.pipeline.run.id=17 \
             cicd.pipeline.run.url.full=https://github.com/acme/widgets/actions/runs/17 \
             cicd.pipeline.task.name=test cicd.pipeline.task.run.result=failure \
             runner.job_result=failed",
        ]
    );
    let invocation = whole().record.invocation.unwrap();
    assert!(
        spans
            .iter()
            .all(|s| hex::encode(&s.trace_id) == invocation.as_str())
    );
    assert!(
        spans[1..]
            .iter()
            .all(|span| span.parent_span_id == spans[0].span_id)
    );
}

#[tokio::test]
async fn a_record_that_two_daemons_send_gives_the_same_spans() {
    let (collector, endpoint) = Collector::start().await;
    for _ in 0..2 {
        let exporter = exporter(&endpoint);
        exporter.add(whole());
        exporter.close(LONG).await;
    }
    let spans = collector.spans();
    let (first, second) = spans.split_at(spans.len() / 2);
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_runner_whose_unit_never_started_has_no_trace() {
    let (collector, endpoint) = Collector::start().await;
    let exporter = exporter(&endpoint);
    let mut never = runner(1);
    never.record.invocation = None;
    exporter.add(never);
    let counts = exporter.close(LONG).await;
    assert_eq!((counts.sent, counts.dropped), (0, 0));
    assert!(collector.requests().is_empty());
}

#[tokio::test]
async fn a_collector_that_fails_gets_the_same_request_again() {
    let (collector, endpoint) = Collector::start().await;
    let mut short = settings(&endpoint);
    short.timing.request = Duration::from_millis(300);
    collector.fail([
        Fault::Status(503, None),
        Fault::Cut,
        Fault::Hang,
        Fault::Status(429, Some("0")),
        Fault::Status(502, None),
    ]);
    let exporter = Exporter::start(short).unwrap();
    exporter.add(runner(1));
    let failing = counted(&exporter, |counts| counts.error.is_some()).await;
    assert_eq!((failing.sent, failing.dropped, failing.waiting), (0, 0, 1));
    let counts = counted(&exporter, |counts| counts.sent == 1).await;
    assert_eq!((counts.dropped, counts.waiting), (0, 0));
    assert_eq!(collector.requests().len(), 6);
    assert_eq!(collector.spans().len(), 1);
    assert_eq!(exporter.close(LONG).await.error, None);
}

#[tokio::test]
async fn the_delay_that_a_collector_asks_for_is_kept() {
    let (collector, endpoint) = Collector::start().await;
    collector.fail([Fault::Status(429, Some("1"))]);
    let exporter = exporter(&endpoint);
    exporter.add(runner(1));
    counted(&exporter, |counts| counts.sent == 1).await;
    let requests = collector.requests();
    let delay = requests[1].0 - requests[0].0;
    assert!(delay >= Duration::from_secs(1), "{delay:?}");
}

#[tokio::test]
async fn a_refused_runner_is_dropped_and_the_next_one_is_sent() {
    let (collector, endpoint) = Collector::start().await;
    let faults = [
        (Fault::Status(401, None), "check traces.headers_file"),
        (Fault::Status(404, None), "check traces.endpoint"),
        (Fault::Status(400, None), "the collector answered 400"),
        (Fault::Page, "the answer is not a collector's"),
    ];
    let exporter = exporter(&endpoint);
    for (number, (fault, reason)) in (1..).zip(&faults) {
        collector.fail([fault.clone()]);
        exporter.add(runner(number));
        let counts = counted(&exporter, |counts| counts.dropped == number).await;
        let told = |error: &String| error.contains(reason);
        until(reason, || {
            exporter.counts().error.as_ref().is_some_and(told)
        })
        .await;
        assert_eq!(counts.sent, 0);
    }
    exporter.add(runner(9));
    let counts = exporter.close(LONG).await;
    assert_eq!((counts.sent, counts.dropped, counts.error), (1, 4, None));
}

#[tokio::test]
async fn spans_that_a_collector_refuses_are_told() {
    let (collector, endpoint) = Collector::start().await;
    collector.fail([Fault::Partial(2)]);
    let exporter = exporter(&endpoint);
    exporter.add(whole());
    let counts = exporter.close(LONG).await;
    assert_eq!((counts.sent, counts.dropped), (1, 0));
    let error = counts.error.unwrap();
    assert_eq!(error, "the collector refused 2 spans: too old");
}

#[tokio::test]
async fn a_collector_that_was_away_gets_what_waits() {
    // Each test is a process, and nothing else uses its address.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.77.{high}.{low}:4318");
    let exporter = exporter(&format!("http://{address}"));
    for number in 1..=100 {
        exporter.add(runner(number));
    }
    let away = counted(&exporter, |counts| counts.error.is_some()).await;
    assert!(away.error.unwrap().contains("Connection refused"));
    assert_eq!((away.sent, away.dropped, away.waiting), (0, 0, 100));
    let collector = Collector::default();
    collector.serve(TcpListener::bind(&address).await.unwrap());
    let back = counted(&exporter, |counts| counts.sent == 100).await;
    assert_eq!((back.dropped, back.waiting), (0, 0));
    until("no error", || exporter.counts().error.is_none()).await;
    assert_eq!(collector.spans().len(), 100);
    assert!(collector.batches().iter().all(|count| *count <= 64));
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest_and_never_waits() {
    let (collector, endpoint) = Collector::start().await;
    collector.fail_always(Some(Fault::Status(503, None)));
    let exporter = exporter(&endpoint);
    exporter.add(runner(1));
    counted(&exporter, |counts| counts.error.is_some()).await;
    let many = 20_000;
    let start = Instant::now();
    for number in 2..=many {
        exporter.add(runner(number));
    }
    // One wait for an answer would take longer.
    assert!(start.elapsed() < Duration::from_secs(5));
    let counts = exporter.counts();
    let room = MAX_WAITING as u64;
    assert_eq!(
        (counts.waiting, counts.dropped),
        (room + 1, many - 1 - room)
    );
    collector.fail_always(None);
    let counts = exporter.close(LONG).await;
    assert_eq!((counts.sent, counts.dropped), (room + 1, many - 1 - room));
    let newest = runner(many).record.invocation.unwrap();
    let last = collector.spans().last().unwrap().trace_id.clone();
    assert_eq!(hex::encode(last), newest.as_str());
}

#[tokio::test]
async fn a_close_sends_what_waits() {
    let (collector, endpoint) = Collector::start().await;
    let exporter = exporter(&endpoint);
    let room = MAX_WAITING as u64;
    for number in 1..=room {
        exporter.add(runner(number));
    }
    let counts = exporter.close(LONG).await;
    assert_eq!((counts.sent, counts.dropped, counts.waiting), (room, 0, 0));
    assert_eq!(collector.spans().len(), MAX_WAITING);
    exporter.add(runner(1));
    assert_eq!(exporter.counts().dropped, 1);
}

#[tokio::test]
async fn a_close_is_bounded_and_counts_what_is_lost() {
    let (collector, endpoint) = Collector::start().await;
    let within = Duration::from_millis(500);
    // An answer that never comes ends the close at its bound, and a failure ends it at once, although the delay that
    // the collector asked for is longer.
    for (fault, time) in [
        (Fault::Hang, within),
        (Fault::Status(503, Some("3600")), LONG),
    ] {
        collector.fail_always(Some(fault));
        let exporter = exporter(&endpoint);
        let room = MAX_WAITING as u64;
        let before = collector.requests().len();
        for number in 1..=room {
            exporter.add(runner(number));
        }
        until("a request", || collector.requests().len() > before).await;
        let start = Instant::now();
        let counts = exporter.close(time).await;
        assert!(start.elapsed() < LONG / 2);
        assert_eq!((counts.sent, counts.dropped, counts.waiting), (0, room, 0));
    }
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn each_request_has_the_headers_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("headers");
    std::fs::write(&file, "Authorization: Bearer hunter2\nx-scope: acme\n").unwrap();
    let (collector, endpoint) = Collector::start().await;
    let mut settings = settings(&endpoint);
    settings.headers = Headers::read(&file).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"));
    let exporter = Exporter::start(settings).unwrap();
    assert!(!format!("{exporter:?}").contains("hunter2"));
    exporter.add(runner(1));
    assert_eq!(exporter.close(LONG).await.sent, 1);
    let (_, headers) = &collector.requests()[0];
    assert_eq!(headers["authorization"], "Bearer hunter2");
    assert_eq!(headers["x-scope"], "acme");
}

#[tokio::test]
async fn the_last_line_of_a_runner_is_in_no_span() {
    let (collector, endpoint) = Collector::start().await;
    let exporter = exporter(&endpoint);
    exporter.add(whole());
    assert_eq!(exporter.close(LONG).await.sent, 1);
    assert!(!format!("{:?}", collector.spans()).contains("secret-of-a-job"));
}

#[tokio::test]
async fn the_stand_in_refuses_what_is_not_a_request() {
    use http_body_util::Full;
    use hyper_util::client::legacy::Client;
    let (collector, endpoint) = Collector::start().await;
    let client = Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    for (content, body, status) in [
        ("application/json", &b""[..], 415),
        ("application/x-protobuf", b"\xff", 400),
        ("application/x-protobuf", b"", 400),
        // A field that the message does not have.
        ("application/x-protobuf", b"\x50\x01", 400),
    ] {
        let request = hyper::Request::post(format!("{endpoint}/v1/traces"))
            .header("content-type", content)
            .body(Full::new(hyper::body::Bytes::from_static(body)));
        let answer = client.request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{content} {body:?}");
    }
    assert_eq!(collector.violations().len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_job_is_called_its_spans_are_as_specified(runners in hostile()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let (collector, endpoint) = Collector::start().await;
            let exporter = exporter(&endpoint);
            let count = runners.len() as u64;
            for ended in runners {
                exporter.add(ended);
            }
            let counts = exporter.close(LONG).await;
            assert_eq!(collector.violations(), [""; 0]);
            assert_eq!((counts.sent, counts.dropped), (count, 0));
        });
    }
}
