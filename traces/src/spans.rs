//! The spans of one runner, from the record of its end.
//!
//! | span | parent | time |
//! | --- | --- | --- |
//! | `runner` | none | from the start call until the end of the unit |
//! | a phase: `booting`, `spare`, `minting`, `registering`, `idle`, `retiring` | `runner` | the phase |
//! | `job` | `runner` | the job, in place of the phase `busy` |
//!
//! The ids follow from the record. The same record twice gives the same spans twice, so a collector that gets
//! a request again has nothing new.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use pool::{Invocation, JobNote, JobResult, PhaseKind, VerdictRecord};

/// Maximum length of a text in a span, in bytes. A job chooses its names.
const MAX_TEXT_BYTES: usize = 256;

/// Name of the service and of the instrumentation scope.
const SERVICE: &str = "runner-controller";

/// Name of the span of a whole runner.
const RUNNER_SPAN: &str = "runner";

/// Length of a trace id in bytes.
const TRACE_ID_BYTES: usize = 16;

/// Bytes that a span's id has of its trace's id. Its last byte is its number in the trace.
const SPAN_PREFIX_BYTES: usize = 7;

/// A runner that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedRunner {
    /// Its record.
    pub record: VerdictRecord,
    /// Address of its job's run at GitHub.
    pub job_url: Option<String>,
}

/// Sender of the spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Id of the host.
    pub host: String,
    /// Version of the program.
    pub version: String,
}

/// Returns true if the runner has a trace: its unit was started, so it has an invocation.
pub(crate) fn has_trace(ended: &EndedRunner) -> bool {
    ended
        .record
        .invocation
        .as_ref()
        .is_some_and(|i| trace_id(i).is_some())
}

/// Returns the request with the spans of these runners.
pub(crate) fn request(origin: &Origin, runners: &[EndedRunner]) -> ExportTraceServiceRequest {
    let spans = runners.iter().flat_map(spans).collect();
    let scope = InstrumentationScope {
        name: SERVICE.to_owned(),
        version: bounded(&origin.version),
        ..InstrumentationScope::default()
    };
    let mut resource = Attributes::default();
    resource.text("service.name", SERVICE);
    resource.text("service.version", &origin.version);
    resource.text("service.instance.id", &origin.host);
    resource.text("host.name", &origin.host);
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: resource.0,
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// Returns the trace id, which is the invocation itself. W3C's trace context forbids an id of zeros alone.
fn trace_id(invocation: &Invocation) -> Option<[u8; TRACE_ID_BYTES]> {
    let mut id = [0; TRACE_ID_BYTES];
    hex::decode_to_slice(invocation.as_str(), &mut id).ok()?;
    id.iter().any(|byte| *byte != 0).then_some(id)
}

/// Times of a runner, in milliseconds since 1970.
struct Times {
    began: u64,
    ended: u64,
}

/// Returns the spans of a runner, its own first; none without an invocation.
fn spans(ended: &EndedRunner) -> Vec<Span> {
    let record = &ended.record;
    let Some(trace_id) = record.invocation.as_ref().and_then(trace_id) else {
        return Vec::new();
    };
    let times = Times {
        began: record.ended_unix_ms.saturating_sub(record.lived_ms),
        ended: record.ended_unix_ms,
    };
    let mut trace = Trace {
        id: trace_id,
        times,
        spans: Vec::new(),
    };
    trace.add(
        RUNNER_SPAN,
        0,
        record.lived_ms,
        runner_attributes(record),
        runner_status(record),
    );
    let ends = record.phases.iter().skip(1).map(|entry| entry.after_ms);
    for (entry, end) in record.phases.iter().zip(ends.chain([record.lived_ms])) {
        // The span of the job takes its place.
        if entry.phase != PhaseKind::Busy || record.job_ms.is_none() {
            let name = entry.phase.to_string();
            trace.add(&name, entry.after_ms, end, Attributes::default(), None);
        }
    }
    if let Some(job_ms) = record.job_ms {
        let start = record.lived_ms.saturating_sub(job_ms);
        let attributes = job_attributes(record, ended.job_url.as_deref());
        trace.add(
            "job",
            start,
            record.lived_ms,
            attributes,
            job_status(record),
        );
    }
    trace.spans
}

/// Spans of one trace.
struct Trace {
    id: [u8; TRACE_ID_BYTES],
    times: Times,
    spans: Vec<Span>,
}

impl Trace {
    /// Adds a span, whose times are milliseconds after the start of the runner. The first one is the parent of
    /// all others. A time is never outside the runner's, and no span ends before its start.
    fn add(
        &mut self,
        name: &str,
        start_ms: u64,
        end_ms: u64,
        attributes: Attributes,
        status: Option<Status>,
    ) {
        let at = |after_ms: u64| {
            let unix_ms = self.times.began.saturating_add(after_ms);
            unix_ms.min(self.times.ended)
        };
        let start = at(start_ms);
        let end = at(end_ms).max(start);
        let parent = self.spans.first().map(|span| span.span_id.clone());
        // A timeline has a bounded number of phases, and this is its bound here.
        let Ok(number) = u8::try_from(self.spans.len() + 1) else {
            return;
        };
        let mut span_id = self.id[..SPAN_PREFIX_BYTES].to_vec();
        span_id.push(number);
        self.spans.push(Span {
            trace_id: self.id.to_vec(),
            span_id,
            parent_span_id: parent.unwrap_or_default(),
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: nanos(start),
            end_time_unix_nano: nanos(end),
            attributes: attributes.0,
            status,
            ..Span::default()
        });
    }
}

fn nanos(unix_ms: u64) -> u64 {
    unix_ms.saturating_mul(1_000_000)
}

/// Attributes of a span. A value that is not known is left out.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }

    /// Adds a text, bounded. An empty one is left out.
    fn text(&mut self, key: &str, value: &str) {
        let value = bounded(value);
        if !value.is_empty() {
            self.add(key, Value::StringValue(value));
        }
    }

    fn maybe_text(&mut self, key: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.text(key, &value.to_string());
        }
    }

    fn maybe_number(&mut self, key: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.add(
                key,
                Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)),
            );
        }
    }
}

/// Returns a text without control characters and with at most [`MAX_TEXT_BYTES`] bytes.
fn bounded(text: &str) -> String {
    let mut bounded = String::new();
    for char in text.chars().filter(|char| !char.is_control()) {
        if bounded.len() + char.len_utf8() > MAX_TEXT_BYTES {
            break;
        }
        bounded.push(char);
    }
    bounded
}

/// Returns the attributes of a runner. Names that begin with `cicd.` are OpenTelemetry's.
fn runner_attributes(record: &VerdictRecord) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.maybe_text("cicd.worker.name", record.runner.as_ref());
    attributes.maybe_text("cicd.worker.id", record.runner_id);
    attributes.text("runner.pool", record.slot.pool.as_str());
    attributes.text("runner.slot", &record.slot.to_string());
    attributes.text("runner.unit", &record.slot.unit());
    attributes.text("runner.verdict", record.verdict.as_ref());
    attributes.maybe_text("runner.exit", record.exit.as_ref());
    attributes.maybe_text("runner.version", record.version);
    attributes.maybe_text("runner.generation", record.generation.as_ref());
    attributes.maybe_number("runner.memory_peak_bytes", record.memory_peak_bytes);
    attributes.maybe_number("runner.cpu_ms", record.cpu_ms);
    attributes.maybe_number("runner.layer_peak_bytes", record.usage.layer_peak_bytes);
    attributes.maybe_number("runner.received_bytes", record.usage.received_bytes);
    attributes.maybe_number("runner.sent_bytes", record.usage.sent_bytes);
    attributes.maybe_number("runner.oom_kills", Some(record.oom_kills));
    attributes
}

/// Returns the status of a runner: an error if an operator should look into it.
fn runner_status(record: &VerdictRecord) -> Option<Status> {
    let remedy = record.verdict.remedy(&record.slot)?;
    Some(error(&format!("{}; {remedy}", record.verdict)))
}

fn job_attributes(record: &VerdictRecord, url: Option<&str>) -> Attributes {
    let mut attributes = Attributes::default();
    let note = record.job.clone().unwrap_or_default();
    let JobNote {
        repository,
        run_id,
        job,
        workflow,
    } = &note;
    let (owner, name) = repository.split_once('/').unwrap_or(("", repository));
    attributes.text("vcs.owner.name", owner);
    attributes.text("vcs.repository.name", name);
    attributes.text("cicd.pipeline.name", workflow);
    attributes.text("cicd.pipeline.run.id", run_id);
    attributes.maybe_text("cicd.pipeline.run.url.full", url);
    attributes.text("cicd.pipeline.task.name", job);
    attributes.maybe_text(
        "cicd.pipeline.task.run.result",
        record.result.and_then(task_result),
    );
    attributes.maybe_text("runner.job_result", record.result);
    attributes
}

/// Returns OpenTelemetry's word for a result, if it has one.
fn task_result(result: JobResult) -> Option<&'static str> {
    match result {
        JobResult::Succeeded => Some("success"),
        JobResult::Failed => Some("failure"),
        JobResult::Cancelled => Some("cancellation"),
        JobResult::Abandoned | JobResult::Interrupted => Some("error"),
        JobResult::Unknown => None,
    }
}

fn job_status(record: &VerdictRecord) -> Option<Status> {
    let result = record.result?;
    match result {
        JobResult::Failed | JobResult::Abandoned | JobResult::Interrupted => {
            Some(error(result.as_ref()))
        }
        JobResult::Succeeded | JobResult::Cancelled | JobResult::Unknown => None,
    }
}

fn error(message: &str) -> Status {
    Status {
        message: bounded(message),
        code: StatusCode::Error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_bounded_at_a_character_and_has_no_control_character() {
        let long = "é".repeat(MAX_TEXT_BYTES);
        assert_eq!(bounded(&long).len(), MAX_TEXT_BYTES);
        assert_eq!(bounded(&format!("a{long}")).len(), MAX_TEXT_BYTES - 1);
        assert_eq!(bounded("a\u{1b}[31m\nb\u{85}"), "a[31mb");
    }

    #[test]
    fn an_invocation_of_zeros_is_not_a_trace_id() {
        let id = |text: &str| trace_id(&Invocation::parse(text).unwrap());
        assert_eq!(id(&"0".repeat(32)), None);
        assert_eq!(id(&"0a".repeat(16)), Some([10; TRACE_ID_BYTES]));
    }
}
